import pytest

from ml.flame.head_model import HeadModel


@pytest.fixture(scope="session")
def head_model(procedural_head: HeadModel) -> HeadModel:
    return procedural_head
