"""Detectors on disk: round trip, prediction in original pixels, clear errors, no pickles."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from ml.box_detection.rtdetr import RTDetrArchitecture, RTDetrDetector, build_rtdetr
from ml.inference.detector import HeadDetector
from ml.inference.loading import (
    CONFIG_NAME,
    WEIGHTS_NAME,
    load_detector,
    save_detector,
)
from ml.inference.predictor import HeadPredictor
from ml.inference.runtimes import TorchRuntime, UnusableModel
from ml.model.building import build_detector, model_config
from ml.model.detector import HeadDetectorNetwork
from ml.model.postprocess import PostprocessConfig

LOW = PostprocessConfig(score_threshold=0.0, max_heads=5)


@pytest.fixture(scope="module")
def network() -> HeadDetectorNetwork:
    torch.manual_seed(0)
    network = build_detector(model_config("nano"))
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 2)
    return network


@pytest.fixture
def folder(tmp_path: Path, network: HeadDetectorNetwork) -> Path:
    save_detector(tmp_path, network, 96, LOW, "ab" * 32, {"epochs": 3})
    return tmp_path


def images() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, shape, dtype=np.uint8) for shape in ((96, 96, 3), (60, 130, 3))]


def test_round_trip_predicts_the_same(folder: Path, network: HeadDetectorNetwork) -> None:
    loaded = load_detector(folder)
    direct = HeadPredictor(TorchRuntime(network), 96, LOW)
    for a, b in zip(loaded.predict(images()), direct.predict(images()), strict=True):
        assert np.array_equal(a.boxes_xyxy, b.boxes_xyxy)
        assert np.array_equal(a.flame, b.flame)
    assert loaded.description["training"] == {"epochs": 3}
    assert loaded.description["head_model_sha256"] == "ab" * 32


def test_predictions_depend_on_the_image_not_on_the_batch(folder: Path) -> None:
    predictor = load_detector(folder)
    together = predictor.predict(images())
    alone = [predictor.predict([image])[0] for image in images()]
    for a, b in zip(together, alone, strict=True):
        assert len(a) == 5
        assert np.allclose(a.boxes_xyxy, b.boxes_xyxy, atol=1e-3)
    assert not np.allclose(together[0].flame, together[1].flame, atol=1e-2)
    assert predictor.predict([]) == []


def test_predictions_are_in_original_pixels(folder: Path) -> None:
    predictor = load_detector(folder)
    image = images()[0]
    larger = image.repeat(2, axis=0).repeat(2, axis=1)
    small, large = predictor.predict([image, larger])
    assert np.allclose(large.boxes_xyxy, 2 * small.boxes_xyxy, rtol=1e-3, atol=0.05)
    assert np.allclose(large.flame[:, 409:], 2 * small.flame[:, 409:], rtol=1e-3, atol=0.05)
    assert np.allclose(large.flame[:, :409], small.flame[:, :409], atol=1e-3)


def test_same_network_same_bytes(
    folder: Path, tmp_path: Path, network: HeadDetectorNetwork
) -> None:
    other = tmp_path / "other"
    save_detector(other, network, 96, LOW, "ab" * 32, {"epochs": 3})
    for name in (WEIGHTS_NAME, CONFIG_NAME):
        assert (other / name).read_bytes() == (folder / name).read_bytes()


def test_missing_files(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(UnusableModel, match=r"config.json: no such file; is this the folder"):
        load_detector(tmp_path / "nowhere")
    (folder / WEIGHTS_NAME).unlink()
    with pytest.raises(UnusableModel, match=r"model.safetensors: no such file"):
        load_detector(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "expected 'vggheads-detector/1', got None"),
        ('{"format": "other"}', "expected 'vggheads-detector/1', got 'other'"),
        ('{"format": "vggheads-detector/1"}', "missing keys"),
    ],
)
def test_bad_description(folder: Path, text: str, message: str) -> None:
    (folder / CONFIG_NAME).write_text(text)
    with pytest.raises(UnusableModel, match=message):
        load_detector(folder)


def test_truncated_weights(folder: Path) -> None:
    weights = folder / WEIGHTS_NAME
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(UnusableModel, match="damaged, or no safetensors file"):
        load_detector(folder)


def test_weights_of_another_size(folder: Path) -> None:
    description = json.loads((folder / CONFIG_NAME).read_text())
    description["model"]["head"]["pose_inter"] += 8
    (folder / CONFIG_NAME).write_text(json.dumps(description))
    with pytest.raises(UnusableModel, match="size mismatch"):
        load_detector(folder)


class Bomb:
    """Executes when unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise SystemExit('executed')",))


def test_a_pickle_is_refused_and_not_executed(folder: Path) -> None:
    (folder / WEIGHTS_NAME).write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(UnusableModel, match="damaged"):
        load_detector(folder)


def test_the_folder_of_the_box_detector_is_told_apart(tmp_path: Path) -> None:
    architecture = RTDetrArchitecture(
        input_size=64, stem_width=8, widths=(8, 16, 16), hidden_size=16, feed_forward_size=16,
        attention_heads=2, decoder_layers=1, num_queries=6, num_denoising=4,
    )  # fmt: skip
    folder = tmp_path / "head_detector"
    RTDetrDetector(build_rtdetr(architecture), 64).save_pretrained(folder / "model")
    for wrong in (folder, folder / "model"):
        with pytest.raises(
            UnusableModel, match=r"box detector \(.*rt_detr.*give the folder of the stage trained_"
        ):
            HeadDetector(wrong)
