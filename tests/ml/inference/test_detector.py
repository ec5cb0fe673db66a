"""HeadDetector: every kind of source, one frame, one switch between runtimes."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ml.imaging.io import UnreadableImage, encode_png
from ml.inference.detector import HeadDetector
from ml.inference.loading import CONFIG_NAME
from ml.inference.results import PredictionResult
from ml.inference.runtimes import UnusableModel
from ml.records.exclusions import Exclusions
from tests.ml.inference.conftest import SIZE, noise_image

WIDE = noise_image(3, 60, 150)


@pytest.fixture(scope="module")
def detector(project: Path) -> HeadDetector:
    return HeadDetector(project / "trained_model", device="cpu", batch_size=2)


def test_it_sees(detector: HeadDetector) -> None:
    one, other = detector([noise_image(1), noise_image(2)])
    assert 0 < len(one) <= 6
    assert 0 < len(other) <= 6
    assert not np.allclose(one.heads.flame[0], other.heads.flame[0], atol=0.05)
    assert one.heads.vertices_px.shape == (len(one), 5023, 3)


def test_every_kind_of_source_gives_the_same(detector: HeadDetector, tmp_path: Path) -> None:
    path = tmp_path / "wide.png"
    path.write_bytes(encode_png(WIDE))
    expected = detector(WIDE)
    assert isinstance(expected, PredictionResult)
    singles = [detector(source) for source in (path, str(path), Image.fromarray(WIDE))]
    lists = [detector(source)[0] for source in ([WIDE], tmp_path, [path])]
    opaque = np.dstack([WIDE, np.full(WIDE.shape[:2], 255, np.uint8)])
    for found in (*singles, *lists, detector(opaque)):
        np.testing.assert_array_equal(found.heads.flame, expected.heads.flame)
        np.testing.assert_array_equal(found.heads.boxes_xyxy, expected.heads.boxes_xyxy)
        assert (found.image_rgb == WIDE).all()


def test_results_are_in_the_images_own_pixels(detector: HeadDetector) -> None:
    """Scale and translation both, and boxes within the image."""
    # Half as high as the network's input: the large one becomes the same pixels again.
    wide = noise_image(3, SIZE // 2, SIZE)
    large = wide.repeat(3, axis=0).repeat(3, axis=1)
    small, found = detector([wide, large])
    assert len(small) == len(found) > 0
    np.testing.assert_allclose(found.heads.flame[:, 412], 3 * small.heads.flame[:, 412], rtol=1e-4)
    np.testing.assert_allclose(
        found.heads.vertices_px[..., :2], 3 * small.heads.vertices_px[..., :2], atol=0.01
    )
    boxes = found.heads.boxes_xyxy
    assert (boxes >= 0).all()
    assert (boxes <= [3 * SIZE, 3 * SIZE // 2, 3 * SIZE, 3 * SIZE // 2]).all()


def test_batches_and_streams_do_not_matter(detector: HeadDetector) -> None:
    images = [noise_image(k, 50 + 10 * k, 90) for k in range(5)]
    together = detector(images)
    for image, result in zip(images, together, strict=True):
        np.testing.assert_allclose(
            detector(image).heads.boxes_xyxy, result.heads.boxes_xyxy, atol=1e-3
        )
    stream = detector.stream(images)
    assert next(stream).name == "image-0"
    assert [result.name for result in stream] == ["image-1", "image-2", "image-3", "image-4"]


def test_onnxruntime_gives_the_same_heads(detector: HeadDetector, project: Path) -> None:
    other = HeadDetector(project / "trained_model", device="cpu", runtime="onnxruntime")
    for image in (WIDE, noise_image(7), 255 - WIDE):
        expected, found = detector(image), other(image)
        assert len(found) == len(expected) > 0
        # Rounding of float32: 1.2e-5 on a processor with AVX-512, less on those without.
        np.testing.assert_allclose(found.heads.scores, expected.heads.scores, atol=2e-5)
        difference = np.abs(found.heads.vertices_px - expected.heads.vertices_px).max(axis=(1, 2))
        extent = np.ptp(expected.heads.vertices_px, axis=1).max(axis=1)
        assert (difference / extent).max() < 1e-3
    assert len(other(WIDE, 0.9)) < len(other(WIDE, 0.05))


def test_thresholds(detector: HeadDetector, project: Path) -> None:
    few = HeadDetector(project / "trained_model", device="cpu", score_threshold=0.7, max_heads=2)
    assert few.postprocessing.iou_threshold == detector.postprocessing.iou_threshold == 0.3
    # The model says 0.2: what it stores is for average precision, not for the eye.
    assert detector.postprocessing.score_threshold == 0.3
    result = few(WIDE)
    assert len(result) <= 2
    assert (result.heads.scores >= 0.7).all()
    assert (detector(WIDE, 0.6).heads.scores >= 0.6).all()
    assert len(detector(WIDE, 1.0)) == 0
    with pytest.raises(ValueError, match=r"HeadDetector: score_threshold: .* got 1.5"):
        detector(WIDE, 1.5)


def test_unreadable_images(detector: HeadDetector, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"broken")
    (tmp_path / "b.png").write_bytes(encode_png(WIDE))
    with pytest.raises(UnreadableImage, match=r"a\.jpg: .*no known format"):
        detector(tmp_path)
    exclusions = Exclusions("predict")
    assert len(list(detector.stream(tmp_path, exclusions))) == 1
    assert len(exclusions) == 1


def test_the_head_model_is_found_given_or_absent(
    detector: HeadDetector, project: Path, tmp_path: Path
) -> None:
    model = project / "head_model" / "head_model.npz"
    alone = tmp_path / "alone"
    shutil.copytree(project / "trained_model", alone)
    without = HeadDetector(alone, device="cpu")
    assert without.head_model is None
    np.testing.assert_array_equal(without(WIDE).heads.flame, detector(WIDE).heads.flame)
    given = HeadDetector(alone, head_model=model, device="cpu")
    assert given.head_model is not None
    assert HeadDetector(alone, detector.head_model, device="cpu").head_model is detector.head_model


def test_another_head_model_is_refused(project: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    shutil.copytree(project / "trained_model", alone)
    text = (alone / CONFIG_NAME).read_text()
    start = text.index('head_model_sha256": "') + len('head_model_sha256": "')
    (alone / CONFIG_NAME).write_text(text[:start] + "0" * 64 + text[start + 64 :])
    with pytest.raises(UnusableModel, match=r"was trained with the head model 000000000000"):
        HeadDetector(alone, project / "head_model" / "head_model.npz", device="cpu")


def test_a_damaged_head_model_is_refused(project: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.npz"
    bad.write_bytes((project / "head_model" / "head_model.npz").read_bytes()[:100_000])
    with pytest.raises(UnusableModel, match=r"bad.npz is damaged or no npz file"):
        HeadDetector(project / "trained_model", bad, device="cpu")
    with pytest.raises(UnusableModel, match=r"no file .*missing.npz"):
        HeadDetector(project / "trained_model", tmp_path / "missing.npz", device="cpu")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"runtime": "tensorrt"}, "runtime: expected one of torch, onnxruntime, got 'tensorrt'"),
        ({"device": "abacus"}, "device: expected auto, cpu, cuda or cuda:N, got 'abacus'"),
        ({"batch_size": 0}, "batch_size: expected at least 1, got 0"),
        ({"max_heads": 0}, "max_heads: .* got 0"),
    ],
)
def test_impossible_options(project: Path, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HeadDetector(project / "trained_model", **{"device": "cpu"} | options)


def test_no_images_give_no_results(project: Path) -> None:
    assert HeadDetector(project / "trained_model", device="cpu")([]) == []
