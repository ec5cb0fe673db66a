"""FLAME branches at kept anchors equal those of the whole network, also at the borders."""

import numpy as np
import pytest
import torch

from ml.imaging.letterbox import Letterbox
from ml.model.building import build_detector
from ml.model.fusing import fuse
from ml.model.kept import KeptHeadsNetwork
from ml.model.postprocess import PostprocessConfig, postprocess
from tests.tiny_models.detector import liven

IMAGES = torch.randint(
    0, 256, (2, 3, 96, 128), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
)


@pytest.fixture(scope="module", params=["nano", "published", "published swapped"])
def network(request, nano, tiny):
    config = nano if request.param == "nano" else tiny
    swapped = {"swapped_branches": "swapped" in request.param}
    head = config.head.model_copy(update=swapped)
    torch.manual_seed(0)
    return liven(build_detector(config.model_copy(update={"head": head})), IMAGES)


def test_every_anchor_has_the_values_of_the_whole_network(network):
    """All anchors, corners and edges of all scales among them, in any order."""
    kept = KeptHeadsNetwork(network)
    with torch.no_grad():
        whole = fuse(network)(IMAGES)
        dense = kept.dense(IMAGES.float() / 255)
        count = whole.flame.shape[1]
        order = torch.randperm(2 * count)
        image, anchor = order // count, order % count
        found = kept.flame_at(dense.pose_maps, image, anchor)
    assert (whole.flame[0] - whole.flame[1]).abs().max() > 0.1
    torch.testing.assert_close(dense.score_logits, whole.score_logits)
    torch.testing.assert_close(dense.box_logits, whole.box_logits)
    torch.testing.assert_close(found, whole.flame[image, anchor], rtol=1e-4, atol=1e-4)


def test_no_anchor_and_anchors_of_one_scale(network):
    kept = KeptHeadsNetwork(network)
    with torch.no_grad():
        maps = kept.dense(IMAGES.float() / 255).pose_maps
        none = torch.zeros(0, dtype=torch.int64)
        one = kept.flame_at(maps, torch.tensor([1]), torch.tensor([5]))
        assert kept.flame_at(maps, none, none).shape == (0, one.shape[1])


@pytest.mark.parametrize("threshold", [0.3, 0.8, 1.0])
def test_heads_are_those_of_postprocess(network, threshold):
    config = PostprocessConfig(score_threshold=threshold, iou_threshold=0.3, max_heads=9)
    letterboxes = [Letterbox(), Letterbox(0.5, 3, 8)]
    with torch.no_grad():
        wanted = postprocess(fuse(network)(IMAGES), letterboxes, config)
        found = KeptHeadsNetwork(network).find(IMAGES, letterboxes, config)
    assert (sum(map(len, wanted)) > 0) == (threshold < 1)
    for heads, expected in zip(found, wanted, strict=True):
        np.testing.assert_allclose(heads.boxes_xyxy, expected.boxes_xyxy, rtol=1e-4, atol=1e-2)
        np.testing.assert_allclose(heads.scores, expected.scores, atol=1e-5)
        np.testing.assert_allclose(heads.flame, expected.flame, rtol=1e-3, atol=1e-2)


def test_an_unfused_block_is_named(network):
    kept = KeptHeadsNetwork(network)
    with torch.no_grad():
        maps = kept.dense(IMAGES.float() / 255).pose_maps
    kept.network = network
    with pytest.raises(ValueError, match="expected a fused block of a FLAME branch"):
        kept.flame_at(maps, torch.tensor([0]), torch.tensor([0]))
