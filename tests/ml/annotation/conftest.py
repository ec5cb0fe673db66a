import pytest

from ml.flame.head_model import HeadModel


@pytest.fixture(scope="session")
def head_model(ball_head: HeadModel) -> HeadModel:
    return ball_head
