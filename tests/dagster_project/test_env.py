"""DAGSTER_HOME: one's own, unless the user chose another for this project."""

import os
from pathlib import Path

import pytest

from dagster_project.env import prepare


@pytest.fixture
def main_project(tmp_path, monkeypatch):
    """A project whose home is exported, as docs/dagster.md says."""
    root = tmp_path / "main"
    root.mkdir()
    (root / "dvc.yaml").write_text("stages: {}\n")
    monkeypatch.setenv("DAGSTER_HOME", str(root / ".dagster"))
    assert prepare(root) == root / ".dagster"
    return root


EXPERIMENTS = Path(".dvc", "tmp", "exps")


@pytest.mark.parametrize(
    "place", [EXPERIMENTS / "a", EXPERIMENTS / "standalone" / "a", Path("../b")]
)
def test_an_experiment_and_a_copy_keep_records_of_their_own(main_project, place):
    before = {path: path.stat().st_mtime_ns for path in main_project.rglob("*")}
    root = main_project / place
    root.mkdir(parents=True)
    home = prepare(root)
    assert home == root / ".dagster"
    assert os.environ["DAGSTER_HOME"] == str(home)
    after = {path: path.stat().st_mtime_ns for path in (main_project / ".dagster").rglob("*")}
    assert after == {path: time for path, time in before.items() if path in after}


def test_an_experiment_leaves_a_chosen_home_alone(main_project, tmp_path, monkeypatch):
    chosen = tmp_path / "chosen"
    monkeypatch.setenv("DAGSTER_HOME", str(chosen))
    assert prepare(main_project) == chosen
    root = main_project / EXPERIMENTS / "a"
    root.mkdir(parents=True)
    assert prepare(root) == root / ".dagster"


def test_an_empty_variable_is_none(tmp_path, monkeypatch):
    monkeypatch.setenv("DAGSTER_HOME", "")
    assert prepare(tmp_path) == tmp_path / ".dagster"
