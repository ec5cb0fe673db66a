import numpy as np
import pytest
import torch

from ml.flame.head_model import HeadModel
from ml.model.building import model_config
from ml.model.config import HeadConfig, ModelConfig
from tests.fixtures.ball_head import head_of_points
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
    return head_of_points(points, rng, shapedirs, weights, np.arange(5023))


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
