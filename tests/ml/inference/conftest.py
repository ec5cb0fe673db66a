"""A tiny detector whose outputs depend on the image, and a project folder that holds it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ml.flame.head_model import HeadModel
from ml.inference.heads import HeadShapes
from ml.inference.loading import save_detector
from ml.model.building import build_detector, model_config
from ml.model.detector import HeadDetectorNetwork
from ml.model.postprocess import PostprocessConfig
from ml.records.heads import Heads
from tests.tiny_models.detector import liven

SIZE = 96
LOOSE = PostprocessConfig(score_threshold=0.2, iou_threshold=0.3, max_heads=6)


@pytest.fixture(scope="session")
def network() -> HeadDetectorNetwork:
    """Untrained, but normalised by an image and with scores all over the range."""
    torch.manual_seed(0)
    network = build_detector(model_config("nano"))
    return liven(network, torch.rand(4, 3, SIZE, SIZE))


@pytest.fixture(scope="session")
def shapes(open_head: HeadModel) -> HeadShapes:
    return HeadShapes(open_head)


@pytest.fixture(scope="session")
def project(
    tmp_path_factory: pytest.TempPathFactory,
    network: HeadDetectorNetwork,
    open_head: HeadModel,
) -> Path:
    """A folder `data` as the pipeline leaves it."""
    data = tmp_path_factory.mktemp("project") / "data"
    open_head.save(data / "head_model" / "head_model.npz")
    sha256 = open_head.sha256
    save_detector(data / "trained_model", network, SIZE, LOOSE, sha256, {"epochs": 3})
    return data


def noise_image(seed: int, height: int = SIZE, width: int = SIZE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def posed(
    euler_deg: tuple[float, float, float], centre: tuple[float, float], scale: float = 600.0
) -> np.ndarray:
    """(413,) parameters of the mean head."""
    from ml.flame.rotation import matrix_from_euler_deg, sixd_from_matrix

    flame = np.zeros(413, np.float32)
    matrix = matrix_from_euler_deg(torch.tensor(euler_deg, dtype=torch.float64))
    flame[403:409] = sixd_from_matrix(matrix).numpy()
    flame[409:411], flame[412] = centre, scale
    return flame


def heads_of(*flames: np.ndarray) -> Heads:
    """Heads with boxes of 100 px about their skulls."""
    flame = np.stack(flames)
    centres = flame[:, 409:411]
    boxes = np.concatenate([centres - 50, centres + 50], axis=1)
    return Heads(boxes, np.linspace(0.9, 0.5, len(flame)), flame)
