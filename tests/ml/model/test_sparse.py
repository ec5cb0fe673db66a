"""FLAME values at chosen anchors, as training asks for them."""

import pytest
import torch
from pydantic import ValidationError

from ml.model.config import HeadConfig, model_config
from ml.model.detector import build_detector

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
        whole, sparse = network(IMAGES), network.forward_sparse(IMAGES)
        found = sparse.flame_at(IMAGE, ANCHOR)
    torch.testing.assert_close(sparse.score_logits, whole.score_logits)
    torch.testing.assert_close(sparse.box_logits, whole.box_logits)
    torch.testing.assert_close(found, whole.flame[IMAGE, ANCHOR], rtol=1e-4, atol=1e-5)
    assert found.std(dim=0).min() > 1e-4, "different cells must have different values"


def test_training_statistics_are_those_of_the_chosen_cells(network):
    network.train()
    stem = network.heads.head1.pose_stem.seq.bn
    before = stem.running_mean.clone()
    sparse = network.forward_sparse(IMAGES)
    torch.testing.assert_close(stem.running_mean, before)
    sparse.flame_at(torch.tensor([0, 1]), torch.tensor([3, 4]))
    assert (stem.running_mean - before).abs().max() > 1e-4


@pytest.mark.parametrize("count", [0, 1, 5])
def test_every_parameter_is_on_the_graph_whatever_is_chosen(network, count):
    # Several processes that train together need this; so do batches with a single head.
    network.train()
    values = network.forward_sparse(IMAGES).flame_at(IMAGE[:count], ANCHOR[:count])
    assert values.shape == (count, 61)
    values.sum().backward()
    without = [n for n, p in flame_parameters(network).items() if p.grad is None]
    assert without == []
    assert all(part.training for part in network.heads.modules())


def test_values_keep_the_precision_of_the_network(network):
    # The loss computes in float32 and switches autocast off before it asks.
    with torch.autocast("cpu", dtype=torch.bfloat16):
        sparse = network.forward_sparse(IMAGES)
        with torch.autocast("cpu", enabled=False):
            values = sparse.flame_at(IMAGE, ANCHOR)
    assert values.dtype == torch.bfloat16
    values.float().sum().backward()
    assert network.heads.head1.pose_stem.seq.conv.weight.grad is not None


def test_other_branches_are_refused():
    head = model_config("S").head.model_dump() | {"sparse_training": True}
    with pytest.raises(ValidationError, match="sparse_training needs branch_block 'pointwise'"):
        HeadConfig(**head)
