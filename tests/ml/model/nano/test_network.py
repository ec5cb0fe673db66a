"""FLAME values at chosen anchors, as training asks for them."""

import pytest
import torch

from ml.model.building import build_detector, model_config

IMAGES = torch.randint(0, 255, (2, 3, 64, 96), generator=torch.Generator().manual_seed(3)).byte()
IMAGE = torch.tensor([1, 0, 0, 1, 1])
ANCHOR = torch.tensor([0, 95, 96, 119, 125])
"""Corners of the map at stride 8, and cells of both others; 126 anchors in all."""


@pytest.fixture
def network():
    torch.manual_seed(0)
    network = build_detector(model_config("nano"))
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 2.0)
    return network


def flame_parameters(network):
    return {
        f"{number}.{name}": parameter
        for number, head in enumerate(network.heads.scales)
        for name, parameter in head.named_parameters()
        if name.split(".")[0] in head.FLAME_PARTS
    }


def test_values_are_those_of_the_whole_maps(network):
    network.eval()
    with torch.no_grad():
        whole, sparse = network(IMAGES), network.training_outputs(IMAGES)
        found = sparse.flame_at(IMAGE, ANCHOR)
    torch.testing.assert_close(sparse.score_logits, whole.score_logits)
    torch.testing.assert_close(sparse.box_logits, whole.box_logits)
    torch.testing.assert_close(found, whole.flame[IMAGE, ANCHOR], rtol=1e-4, atol=1e-5)
    assert found.std(dim=0).min() > 1e-4, "different cells must have different values"


def test_training_statistics_are_those_of_the_chosen_cells(network):
    network.train()
    stem = network.heads.head1.pose_stem.seq.bn
    before = stem.running_mean.clone()
    sparse = network.training_outputs(IMAGES)
    torch.testing.assert_close(stem.running_mean, before)
    sparse.flame_at(torch.tensor([0, 1]), torch.tensor([3, 4]))
    assert (stem.running_mean - before).abs().max() > 1e-4


@pytest.mark.parametrize("count", [0, 1, 5])
def test_every_parameter_is_on_the_graph_whatever_is_chosen(network, count):
    # Several processes that train together need this; so do batches with a single head.
    network.train()
    values = network.training_outputs(IMAGES).flame_at(IMAGE[:count], ANCHOR[:count])
    assert values.shape == (count, 61)
    values.sum().backward()
    without = [n for n, p in flame_parameters(network).items() if p.grad is None]
    assert without == []
    assert all(part.training for part in network.heads.modules())


def test_values_keep_the_precision_of_the_network(network):
    # The loss computes in float32 and switches autocast off before it asks.
    with torch.autocast("cpu", dtype=torch.bfloat16):
        sparse = network.training_outputs(IMAGES)
        with torch.autocast("cpu", enabled=False):
            values = sparse.flame_at(IMAGE, ANCHOR)
    assert values.dtype == torch.bfloat16
    values.float().sum().backward()
    assert network.heads.head1.pose_stem.seq.conv.weight.grad is not None


def test_offsets_are_in_strides():
    """A branch that says the same at all scales means a distance that grows with the stride."""
    network = build_detector(model_config("nano")).eval()
    last = network.heads.head1.flame_translation_pred[-1]
    assert last is network.heads.head3.flame_translation_pred[-1]
    torch.nn.init.zeros_(last.weight)
    last.bias.data = torch.tensor([0.25, -0.5, 1.0])
    with torch.no_grad():
        outputs = network(IMAGES)
    offset = outputs.flame[0, :, 57:60]
    wanted = torch.tensor([0.25, -0.5, 1.0]) * outputs.anchors.strides[:, None]
    torch.testing.assert_close(offset, wanted)
    assert set(outputs.anchors.strides.tolist()) == {8, 16, 32}


def test_scales_share_convolutions_and_not_normalisations():
    heads = build_detector(model_config("nano")).heads
    first, last = heads.head1.flame_jaw_pred, heads.head3.flame_jaw_pred
    assert first[0].conv is last[0].conv
    assert first[0].bn is not last[0].bn
    assert heads.head1.cls_pred is not heads.head3.cls_pred
