"""The flip test: two passes are averaged, and mirroring the image mirrors the result."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ml.flame.head_model import HeadModel
from ml.flame.rotation import euler_deg_from_matrix, matrix_from_6d
from ml.inference.detector import HeadDetector
from ml.inference.flip import FlipAveraged, merge, mirror_heads
from ml.inference.loading import load_detector
from ml.records.heads import Heads
from tests.ml.inference.conftest import heads_of, noise_image, posed


def test_merge_by_hand() -> None:
    first = heads_of(posed((0, 20, 0), (200, 200)), posed((0, 0, 0), (500, 200)))
    second = heads_of(posed((0, -40, 0), (220, 200), 700.0), posed((0, 0, 0), (900, 200)))
    merged = merge(first, second)
    np.testing.assert_allclose(merged.scores, [0.9, 0.25, 0.25])
    np.testing.assert_allclose(merged.boxes_xyxy[0], [160, 150, 260, 250])
    np.testing.assert_allclose(merged.flame[0, 409:413], [210, 200, 0, 650])
    angles = euler_deg_from_matrix(matrix_from_6d(torch.from_numpy(merged.flame[:, 403:409])))
    np.testing.assert_allclose(angles[0], [0, -10, 0], atol=1e-4)
    np.testing.assert_array_equal(merged.flame[1:], np.stack([first.flame[1], second.flame[1]]))


def test_each_head_is_matched_once() -> None:
    same = posed((0, 0, 0), (200, 200))
    merged = merge(heads_of(same), heads_of(same, same))
    np.testing.assert_allclose(merged.scores, [0.9, 0.25])


def test_nothing_found_is_fine() -> None:
    some = heads_of(posed((0, 0, 0), (200, 200)))
    assert len(merge(Heads.empty(), Heads.empty())) == 0
    assert merge(Heads.empty(), some).scores.tolist() == pytest.approx([0.45])
    assert merge(some, Heads.empty()).scores.tolist() == pytest.approx([0.45])


def test_the_mirrored_image_gives_the_mirrored_heads(project: Path, open_head: HeadModel) -> None:
    predictor = load_detector(project / "trained_model")
    averaged = FlipAveraged(predictor, open_head)
    image = noise_image(1)
    mirrored = np.ascontiguousarray(image[:, ::-1])
    (once,) = predictor.predict([image])
    (found,) = averaged.predict([image])
    (other,) = averaged.predict([mirrored])
    back = mirror_heads(other, image.shape[1], open_head)
    assert 0 < len(found) == len(back)
    order = np.lexsort((found.boxes_xyxy[:, 0], -found.scores.round(4)))
    order_back = np.lexsort((back.boxes_xyxy[:, 0], -back.scores.round(4)))
    np.testing.assert_allclose(back.scores[order_back], found.scores[order], atol=1e-5)
    np.testing.assert_allclose(back.boxes_xyxy[order_back], found.boxes_xyxy[order], atol=1e-3)
    np.testing.assert_allclose(back.flame[order_back], found.flame[order], atol=1e-3)
    # A single pass has no such symmetry.
    (single,) = predictor.predict([mirrored])
    turned = mirror_heads(single, image.shape[1], open_head)
    assert len(turned) != len(once) or not np.allclose(turned.scores, once.scores, atol=1e-3)


def test_the_switch_of_the_detector(project: Path, tmp_path: Path, open_head: HeadModel) -> None:
    detector = HeadDetector(project / "trained_model", device="cpu", flip_test=True)
    image = noise_image(2)
    expected = FlipAveraged(load_detector(project / "trained_model"), open_head).predict(
        [image], postprocessing=detector.postprocessing
    )
    np.testing.assert_array_equal(detector(image).heads.flame, expected[0].flame)
    alone = tmp_path / "alone"
    alone.mkdir()
    for file in (project / "trained_model").iterdir():
        (alone / file.name).write_bytes(file.read_bytes())
    with pytest.raises(ValueError, match=r"flip_test: .* no head model"):
        HeadDetector(alone, device="cpu", flip_test=True)
