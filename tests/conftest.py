"""Fixtures of several packages."""

from __future__ import annotations

import gc

import pytest

pytest_plugins = [
    "tests.fixtures.once",
    "tests.fixtures.ball_head",
    "tests.fixtures.mlflow_folder",
    "tests.fixtures.model_hub",
    "tests.fixtures.scenes",
    "tests.fixtures.small_dataset",
]


# The libraries make millions of objects that live as long as the process: to look through them
# again and again took 6 of the 27 s of tests/ml/records.
gc.disable()


def pytest_collection_finish() -> None:
    """Leave out of later collections what was imported, and collect more rarely."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    gc.enable()


@pytest.fixture(scope="session")
def open_head(made_once):
    """The head model of MakeHuman's data, built once: it takes seconds."""
    from ml.flame.head_model import HeadModel
    from ml.flame.open_head import build_open_head

    folder = made_once(
        "open-head",
        lambda folder: build_open_head().save(folder / "head_model.npz"),
    )
    return HeadModel.load(folder / "head_model.npz")


@pytest.fixture(scope="session")
def tiny_models(made_once):
    """Tiny random models in local folders; `tiny_models.path("sdxl")` builds one when asked."""
    from tests.tiny_models import TinyModels

    return TinyModels(made_once("tiny-models", lambda folder: None))
