"""The command line in processes that a launcher started, on the toy project."""

import hashlib
from argparse import Namespace
from dataclasses import replace

import pytest

from dagster_project.followers import followed_stage
from dagster_project.pipeline import Pipeline
from ml.records.report import StageReport
from ml.training.processes import launched, leave_to_first, own_folder
from tests.fixtures.launchers import SECOND_OF_TWO


@pytest.fixture
def follower(toy, monkeypatch):
    """A made toy project whose total is a training, as its second process sees it."""
    import toy_work

    def make_total(ws, config, tracker):
        assert not tracker.active
        toy.prepared = True
        (own_folder(ws.work_dir("total")) / "labels").write_text("mine")
        leave_to_first()
        (ws.stage_dir("total") / "metrics.json").write_text("not mine to write")
        return StageReport(0, 0)

    monkeypatch.setattr(toy_work, "make_total", make_total)
    total = replace(toy.pipeline.assets["total"], tracked=True)
    toy.pipeline = Pipeline(
        toy.root, {**toy.pipeline.assets, "total": total}, toy.pipeline.registry
    )
    toy.prepared = False
    for name, value in SECOND_OF_TWO.items():
        monkeypatch.setenv(name, value)
    return toy


def digests(root):
    return {
        str(path.relative_to(root)): hashlib.md5(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_a_follower_writes_nothing_outside_its_folder_of_unfinished_work(follower):
    follower.set_param("total: {}", "total: {offset: 1}")
    before = digests(follower.root)
    assert follower.run("materialize", "total") == 0
    assert follower.prepared
    (new,) = digests(follower.root).items() - before.items()
    assert new[0].startswith("data/.work/total/")
    assert new[0].endswith("/process-1/labels")
    assert not before.items() - digests(follower.root).items()


def test_a_follower_of_a_finished_training_has_nothing_to_do(follower, capsys):
    assert follower.run("materialize", "total") == 0
    assert "process 2 of 2: the stage is finished, nothing to do" in capsys.readouterr().out
    assert not follower.prepared
    assert follower.run("materialize", "total", "--force") == 0
    assert follower.prepared


@pytest.mark.parametrize("command", [["demo"], ["materialize", "total", "--upstream"]])
def test_several_processes_are_refused_where_not_all_would_train(follower, capsys, command):
    assert follower.run(*command) == 2
    assert "torchrun started 2 processes, which can share one training" in capsys.readouterr().err


def test_processes_of_other_stages_run_side_by_side(follower):
    """And the first process of a training is an ordinary run."""
    launch = launched()
    for stage, rank in (("squares", 1), ("total", 0)):
        options = Namespace(name_of_command="materialize", stage=stage, upstream=False)
        assert followed_stage(follower.pipeline, options, replace(launch, rank=rank)) is None
