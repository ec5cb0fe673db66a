"""Which stages run in this process, which in the background, and in what order."""

import sys
from types import SimpleNamespace

import pytest

from dagster_project import schedule
from dagster_project.schedule import Schedule
from dagster_project.stage import Stage

GRAPH = {
    "model": (),
    "poses": (),
    "data": ("poses", "model"),
    "boxes": ("data",),
    "crops": ("model",),
    "detector": ("data", "boxes"),
    "regressor": ("crops",),
    "labels": ("detector", "regressor"),
    "network": ("labels",),
    "rival": ("labels",),
}
TRACKED = {"detector", "regressor", "network", "rival"}
SHARDED = {"poses", "data", "crops", "labels"}


@pytest.fixture
def run(tmp_path):
    def start(
        workers=2, fail=(), off=(), alone=(), script="open('{stage}', 'w'); print('made {stage}')"
    ):
        pipeline = SimpleNamespace(
            root=tmp_path,
            graph={name: SimpleNamespace(upstream=up) for name, up in GRAPH.items()},
            assets={
                name: Stage(name, "", "", "", sharded=name in SHARDED, tracked=name in TRACKED)
                for name in GRAPH
            },
            params=SimpleNamespace(
                run=SimpleNamespace(workers=workers, profile="none"),
                values={
                    name: {"enabled": name not in off, "fit": {"threads": 1 + (name in alone)}}
                    for name in GRAPH
                },
            ),
        )
        here = []

        def make(stage):
            here.append(stage)
            upstream = [tmp_path / name for name in GRAPH[stage]]
            assert all(path.exists() for path in upstream), stage
            (tmp_path / stage).touch()
            return stage not in fail

        def aside(stage):
            return [sys.executable, "-c", script.format(stage=stage)]

        return Schedule(pipeline, list(GRAPH), make, aside).run(), here

    return start


def test_stages_are_numbered_as_they_end_wherever_they_run(run, capsys):
    run(script="open('{stage}', 'w'); print('warning: slow'); print('{stage} made')")
    told = capsys.readouterr().out.splitlines()
    numbers = [line for line in told if line.startswith("[")]
    assert [line.split()[-1] for line in numbers] == ["made"] * 4
    positions = [int(line[1:3]) for line in numbers]
    assert positions == sorted(positions)
    assert positions[-1] == len(GRAPH)
    assert told.count("warning: slow") == 4, "what is no stage's line has no number"


def test_without_a_terminal_a_long_background_stage_is_reported(run, capsys, monkeypatch):
    monkeypatch.setattr(schedule, "LINE_SECONDS", 0.2)
    steps = "print('steps: 3/9 [00:10, 00:20 left]', file=sys.stderr, flush=True)"
    run(script="import sys, time; open('{stage}', 'w'); " + steps + "; time.sleep(0.7)")
    told = capsys.readouterr().out
    assert "rival runs for 10 s (steps: 3/9 [00:10, 00:20 left])" in told


def test_trainings_wait_for_shared_work_and_then_run_side_by_side(run, tmp_path, capsys):
    succeeded, here = run()
    assert succeeded
    assert here == ["poses", "data", "crops", "detector", "labels", "network"]
    told = capsys.readouterr().out
    for stage in ("model", "boxes", "regressor", "rival"):
        assert f"made {stage}" in told
        assert (tmp_path / stage).exists()


def test_what_is_switched_off_takes_no_process(run, capsys):
    succeeded, here = run(off={"rival"})
    assert succeeded
    assert here[-2:] == ["rival", "network"]
    assert "rival" not in capsys.readouterr().out


def test_trainings_that_want_all_cores_run_one_after_the_other(run, capsys):
    succeeded, here = run(alone={"network", "rival"})
    assert succeeded
    assert here[-3:] == ["labels", "network", "rival"]
    assert "made regressor" in capsys.readouterr().out


def test_one_worker_makes_everything_here(run, capsys):
    succeeded, here = run(workers=1)
    assert succeeded
    assert sorted(here) == sorted(GRAPH), "each once; `make` asserts the order"
    assert "made" not in capsys.readouterr().out


def test_a_failure_here_stops_what_depends_on_it(run):
    succeeded, here = run(fail={"detector"})
    assert not succeeded
    assert "labels" not in here


def test_a_background_failure_is_reported_and_stops_dependent_stages(run, capsys):
    succeeded, here = run(script="import sys; print('no memory', file=sys.stderr); sys.exit(1)")
    assert not succeeded
    assert "labels" not in here
    assert "no memory" in capsys.readouterr().out
