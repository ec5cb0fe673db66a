import numpy as np
import pytest
import torch

from ml.flame.frames import network_to_image
from ml.imaging.boxes import nms
from ml.imaging.letterbox import Letterbox
from ml.model.decode import decode
from ml.model.outputs import Anchors, RawOutputs
from ml.model.postprocess import PostprocessConfig, postprocess


@pytest.fixture
def outputs(head_config) -> RawOutputs:
    anchors = Anchors.of_maps([(8, 8), (4, 4), (2, 2)], (8, 16, 32), torch.device("cpu"))
    return RawOutputs(
        torch.randn(3, 84) * 2,
        torch.randn(3, 84, 4, 17),
        torch.randn(3, 84, 61) * 0.3,
        anchors,
        head_config,
    )


def test_equals_decoding_everything_then_suppressing(outputs):
    letterboxes = [Letterbox(), Letterbox(0.5, 0, 8), Letterbox(2.0, 4, 0)]
    config = PostprocessConfig(score_threshold=0.6, iou_threshold=0.3, max_heads=7)
    found = postprocess(outputs, letterboxes, config)
    decoded = decode(outputs)
    for i, (heads, letterbox) in enumerate(zip(found, letterboxes, strict=True)):
        scores = decoded.scores[i]
        sure = (scores >= 0.6).nonzero()[:, 0]
        rows = sure[nms(decoded.boxes_xyxy[i, sure], scores[sure], 0.3, max_output=7)]
        assert 0 < len(heads) == len(rows) <= 7
        np.testing.assert_allclose(heads.scores, scores[rows], rtol=1e-5)
        expected = letterbox.boxes_to_image(decoded.boxes_xyxy[i, rows])
        np.testing.assert_allclose(heads.boxes_xyxy, expected, rtol=1e-4, atol=1e-3)
        expected = network_to_image(decoded.flame[i, rows], letterbox)
        np.testing.assert_allclose(heads.flame, expected, rtol=1e-4, atol=1e-3)


def test_limits_the_candidates(outputs):
    config = PostprocessConfig(score_threshold=0.0, iou_threshold=1.0, max_candidates=5)
    assert [len(h) for h in postprocess(outputs, [Letterbox()] * 3, config)] == [5, 5, 5]


def test_nothing_found_and_nothing_given(outputs):
    config = PostprocessConfig(score_threshold=1.0)
    found = postprocess(outputs, [Letterbox()] * 3, config)
    assert [len(h) for h in found] == [0, 0, 0]
    none = RawOutputs(
        outputs.score_logits[:0],
        outputs.box_logits[:0],
        outputs.flame[:0],
        outputs.anchors,
        outputs.config,
    )
    assert postprocess(none, []) == []


def test_a_letterbox_for_each_image(outputs):
    with pytest.raises(ValueError, match="one for each of the 3 images, got 2"):
        postprocess(outputs, [Letterbox()] * 2)
