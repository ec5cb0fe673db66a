"""The preflight of a project: its page in the docs, its job, and what it holds back."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import pytest

from dagster_project import cli, preflight
from dagster_project.preflight import ensure, needs_outside, table
from dagster_project.profiles import read_profile
from dagster_project.stages import STAGES
from ml.preflight.report import Problem, Report, Tried
from ops.preflight import preflight_job
from ops.resources import Preflight

PROJECT = Path(__file__).parents[2]
PROBLEM = Problem("poses", "poses.images.describer.model", "nothing at models/blip", "get it")


def test_the_page_has_the_register_s_table():
    page = (PROJECT / "docs" / "production.md").read_text()
    start, end = "<!-- preflight table -->\n", "<!-- end of the preflight table -->"
    shown = page.partition(start)[2].partition(end)[0]
    assert shown == table(PROJECT), "write it again: vggheads preflight --table"
    assert shown.count("\n") > 20


@pytest.mark.parametrize(
    ("profile", "stages"),
    [
        ("demo", []),
        ("smoke", []),
        (
            "research",
            ["head_model", "poses", "captions", "images", "labels", "head_detector",
             "annotations", "filtered_dataset", "trained_model"],
        ),
        # Of `released_model`, which is `like` the other, the profile's own text names no weights.
        ("official", ["head_model", "trained_model", "released_dataset"]),
        ("finetune", ["head_model", "annotations", "trained_model"]),
    ],
)  # fmt: skip
def test_only_profiles_with_outside_models_are_looked_at(profile, stages):
    values = read_profile(PROJECT, profile).values
    found = [name for name in STAGES if needs_outside(name, values.get(name) or {})]
    assert found == stages


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project of two stages, one with a model, and a preflight that finds what a test says."""
    model = tmp_path / "model.onnx"
    model.write_bytes(b"1")
    values = {
        "run": {},
        "poses": {"images": {"model": {"path": "model.onnx", "asset": "yunet"}}},
        "labels": {"source": "file", "file": "labels.json"},
        "crops": {},
    }
    looked = []
    found = []

    def look(pipeline, stages):
        looked.append(list(stages))
        return [problem for problem in found if problem.stage in stages]

    monkeypatch.setattr(preflight, "_in_own_process", look)
    monkeypatch.setattr(preflight, "prepare", lambda root: tmp_path)
    pipeline = SimpleNamespace(
        root=tmp_path,
        graph=dict.fromkeys(("poses", "labels", "crops")),
        params=SimpleNamespace(values=values),
    )
    return SimpleNamespace(pipeline=pipeline, looked=looked, found=found, model=model)


def test_it_is_repeated_only_for_what_has_changed(project):
    assert ensure(project.pipeline, ["poses", "crops"]) == []
    assert ensure(project.pipeline, ["poses"]) == []
    assert project.looked == [["poses", "labels"]]
    project.model.write_bytes(b"12")
    assert ensure(project.pipeline, ["poses"]) == []
    assert project.looked[1:] == [["poses"]]


def test_what_was_looked_at_on_demand_is_not_looked_at_again(project):
    label = Problem("labels", "labels.file", "no file")
    preflight.remember(project.pipeline, [], [label])
    assert ensure(project.pipeline, ["poses"]) == []
    assert project.looked == []
    project.found.append(label)
    assert ensure(project.pipeline, ["labels"]) == [label]
    preflight.remember(project.pipeline, ["poses"], [PROBLEM])
    project.model.write_bytes(b"12")
    ensure(project.pipeline, ["poses"])
    assert project.looked == [["labels"], ["poses"]]


def test_a_stage_without_outside_models_starts_nothing(project):
    assert ensure(project.pipeline, ["crops"]) == []
    assert project.looked == []


def test_problems_stop_their_stage_and_others_are_reported_once(project):
    label = Problem("labels", "labels.file", "no file")
    project.found += [PROBLEM, label]
    assert ensure(project.pipeline, ["poses"]) == [PROBLEM]
    assert ensure(project.pipeline, ["poses"]) == [PROBLEM]
    assert ensure(project.pipeline, ["poses", "labels"]) == [PROBLEM, label]
    assert project.looked == [["poses", "labels"], ["poses"], ["poses", "labels"]]
    project.found.clear()
    assert ensure(project.pipeline, ["poses", "labels"]) == []


@pytest.mark.parametrize("as_json", [False, True])
def test_the_command_prints_a_line_for_each_problem_and_fails(monkeypatch, capsys, as_json):
    problems = [Problem("poses", f"poses.{n}", f"gone\nor {n}", "get it") for n in range(9)]
    report = Report(problems=problems, found=[{}])
    monkeypatch.setattr(preflight, "look", lambda pipeline, stages: report)
    monkeypatch.setattr(preflight, "remember", lambda *_: None)
    command = ["preflight", *(["--json"] if as_json else [])]
    assert cli.main(command, SimpleNamespace(root=PROJECT)) == 1
    said = capsys.readouterr().out
    if as_json:
        assert json.loads(said)["problems"][8]["problem"] == "gone\nor 8"
    else:
        assert said.splitlines()[:9] == [f"poses: poses.{n}: gone or {n}; get it" for n in range(9)]
    report.problems = []
    assert cli.main(command, SimpleNamespace(root=PROJECT)) == 0


class Ahead(Preflight):
    def look(self, stages):
        problems = [PROBLEM] if "poses" in stages else []
        return Report(problems=problems, tried=[Tried("images", "images.diffusion", 0.5, "cpu")])


def run_job(stages):
    return preflight_job.execute_in_process(
        run_config={"ops": {"look_ahead": {"config": {"stages": stages}}}},
        resources={"preflight": Ahead()},
        raise_on_error=False,
    )


def test_the_job_fails_with_every_problem_on_a_line():
    result = run_job(["poses"])
    assert not result.success
    failure = result.failure_data_for_node("look_ahead").user_failure_data
    assert failure.description == str(PROBLEM)
    assert isinstance(result, dg.ExecuteInProcessResult)
    assert run_job([]).success


def test_it_runs_in_a_process_of_its_own_and_must_report(tmp_path):
    """A program that stands for the command line: what it prints is the report, or it is none."""
    pipeline = SimpleNamespace(root=tmp_path, program=("program.py",))
    program = tmp_path / "program.py"
    told = json.dumps({"problems": [vars(PROBLEM)]})
    program.write_text(
        f"import sys\nassert sys.argv[1:] == ['preflight', '--json', 'poses']\nprint({told!r})\n"
    )
    assert preflight._in_own_process(pipeline, ["poses"]) == [PROBLEM]
    program.write_text("import sys\nsys.exit(3)\n")
    with pytest.raises(RuntimeError, match="status 3 and no report; run `vggheads preflight`"):
        preflight._in_own_process(pipeline, ["poses"])
