"""What the training tests share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def mlflow_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One MLflow store for all tests: making its database takes seconds."""
    return tmp_path_factory.mktemp("store") / "mlruns"
