import numpy as np
import pytest
import torch

from ml.flame.head_model import HeadModel
from ml.model.building import model_config
from ml.model.config import HeadConfig, ModelConfig
from tests.tiny_models.detector import tiny_detector


@pytest.fixture(scope="session")
def head_model() -> HeadModel:
    """A bumpy ball with FLAME's counts whose lower half follows the jaw."""
    rng = np.random.default_rng(0)
    points = rng.normal(size=(5023, 3))
    points = 0.1 * points / np.linalg.norm(points, axis=1, keepdims=True)
    weights = np.zeros((5023, 5), np.float32)
    weights[:, 2] = np.clip(-10 * points[:, 1], 0, 1)
    weights[:, 1] = 1 - weights[:, 2]
    shapedirs = np.zeros((5023, 3, 400), np.float32)
    for leading in (slice(0, 40), slice(300, 320)):
        shapedirs[:, :, leading] = 0.002 * rng.normal(size=shapedirs[:, :, leading].shape)
    return HeadModel(
        v_template=points.astype(np.float32),
        faces=rng.integers(0, 5023, (9976, 3), dtype=np.int32),
        shapedirs=shapedirs,
        posedirs=np.zeros((5023, 3, 36), np.float32),
        J_regressor=np.full((5, 5023), 1 / 5023, np.float32),
        weights=weights,
        landmark_faces=np.arange(68, dtype=np.int32),
        landmark_barycentric=np.full((68, 3), 1 / 3, np.float32),
        mirror_vertices=np.arange(5023, dtype=np.int32),
        mirror_shape=np.ones(300, np.float32),
        mirror_expression=np.ones(100, np.float32),
        regions={
            "all": np.arange(5023, dtype=np.int32),
            "head": np.arange(0, 5023, 2, dtype=np.int32),
        },
    )


@pytest.fixture(scope="session")
def nano() -> ModelConfig:
    return model_config("nano")


@pytest.fixture(scope="session")
def tiny() -> ModelConfig:
    """The published network, small."""
    return tiny_detector()


@pytest.fixture
def head_config(tiny) -> HeadConfig:
    return tiny.head


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
