"""A published release becomes a trained and measured model with one command."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
import yaml

import ml.stages.head_model
from dagster_project import cli, preflight
from dagster_project.pipeline import Pipeline
from dagster_project.stages import ROOT
from ml.inference.loading import load_detector
from ml.records.config import parse_yaml
from ml.records.exclusions import read_exclusions
from tests.fixtures.release import STAGES, release_files, two_archives
from tests.fixtures.tiny_world import ball_model


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    """A project with the stages of a release alone, and two archives of one in its sources."""
    root = tmp_path / "project"
    declared = parse_yaml((ROOT / "dvc.yaml").read_text())
    stages = {name: declared["stages"][name] for name in STAGES}
    # There only for sections that are `like` it.
    stages["released_model"]["params"].remove("trained_model")
    root.mkdir()
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}, sort_keys=False))
    for name in ("ml", "conf"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("*.pyc"))
    values = {
        "run": {
            **{"profile": "official", "seed": 1, "num_shards": 1, "shard_size": 1},
            **{"workers": 0, "threads": 1},
        },
        "head_model": {},
        "released_dataset": {
            "enabled": True,
            "sources": ["sources"],
            "source_asset": "vggheads-release",
            "any_head_model": True,
            "val_fraction": 0.2,
            "max_drop_rate": 0.3,
        },
        "released_model": {
            "enabled": True,
            "size": "nano",
            "loader": {"image_size": 64, "batch_size": 2},
            "loss": {"num_vertices": 50},
            "fit": {"epochs": 1, "precision": "32-true"},
            "num_grid_images": 2,
            "registered_name": "",
        },
        "released_benchmark": {"enabled": True, "resamples": 3, "num_images": 2},
    }
    (root / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    (root / ".gitignore").write_text("/data/\n/.dagster/\n/mlruns/\n/reports/\n")
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    from dvc.repo import Repo

    Repo.init(str(root)).close()
    two_archives(release_files(tmp_path / "drawn"), root / "sources")
    # The real one takes seconds; the parameters of this release are the ball's.
    monkeypatch.setattr(ml.stages.head_model, "build_open_head", lambda *a: ball_model())
    monkeypatch.setattr(ml.stages.head_model, "_images", lambda *_: {})
    monkeypatch.setenv("DAGSTER_HOME", str(root / ".dagster"))
    # A process of its own would look for this checkout's command line in the folder of the test.
    monkeypatch.setattr(
        preflight, "_in_own_process", lambda project, names: preflight.look(project, names).problems
    )
    monkeypatch.chdir(root)
    return Pipeline(root, STAGES, "tests.fixtures.release:STAGES")


@pytest.mark.rehearsal
def test_one_command_imports_trains_and_measures(
    project: Pipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["materialize", "released_benchmark", "--upstream"], project) == 0
    told = capsys.readouterr().out
    (lacking,) = [line for line in told.splitlines() if "nothing_lacks" in line]
    assert "split_00002: 1 missing: of laion_split_00002_s1.jpg" in lacking
    few = "enough_to_judge: fewer than 60 held-out images (5) say little; not judged: "
    for gate, value in (("released_model_gate", "val_ap50"), ("released_benchmark_gate", "ap50")):
        assert f"{gate}__{few}{value} " in told
    folder = project.stage_dir("released_dataset")
    assert json.loads((folder / "metrics.json").read_text()) == {
        "num_images": 17,
        "num_train": 7,
        "num_val": 5,
        "num_test": 5,
        "num_excluded": 3,
        "num_lacks": 4,
    }
    lacks = pd.read_csv(folder / "lacks.csv")
    missing = lacks.set_index(["what", "where"])["detail"]
    assert missing["annotation", "split_00002"] == "1 missing: of laion_split_00002_s1.jpg"
    assert missing["image", "split_00002"] == "1 missing: of laion_split_00002_s2.npz"
    assert missing["splits", "large"] == "97 of 100 are missing: 3 to 99"
    excluded = read_exclusions(project.workspace(), ["released_dataset"])
    assert dict(zip(excluded["sample_id"], excluded["reason"], strict=True)) == {
        "laion_split_00001_s4": "exclusion_list",
        "laion_split_00002_s1": "no_annotation",
        "laion_split_00002_s2": "no_image",
    }
    predictor = load_detector(project.stage_dir("released_model"))
    assert predictor.description["training"]["stage"] == "released_model"
    card = (project.stage_dir("released_model") / "CARD.md").read_text()
    assert "not stated" in card, "the licence is that of the release"
    metrics = json.loads((project.stage_dir("released_benchmark") / "metrics.json").read_text())
    assert metrics["num_images"] == 5
    assert metrics["has_ground_truth"] == 0
    report = (project.stage_dir("released_benchmark") / "report.md").read_text()
    assert "held-out pseudo-labels" in report
    assert project.stale() == []
    capsys.readouterr()
    assert cli.main(["materialize", "released_benchmark", "--upstream"], project) == 0
    assert "nothing to do" in capsys.readouterr().out
