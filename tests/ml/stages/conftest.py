import pytest

from ml.flame.head_model import HeadModel


@pytest.fixture(scope="session")
def head_model(open_head: HeadModel) -> HeadModel:
    return open_head
