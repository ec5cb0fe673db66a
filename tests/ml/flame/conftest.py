import pytest
import torch

from ml.flame.head_model import HeadModel
from ml.flame.procedural import build_procedural_head


@pytest.fixture(scope="session")
def head_model() -> HeadModel:
    return build_procedural_head(0)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
