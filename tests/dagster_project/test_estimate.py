"""The time that a run still takes."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from dagster_project.estimate import MeasuredRun, TimeLeft, duration, measured_run
from dagster_project.graph import read_graph

ROOT = Path(__file__).parents[2]
# Two at a time: 100 s of stages in 50 s.
BEFORE = MeasuredRun(seconds=50, stages={"a": 40, "b": 40, "c": 20})


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


def test_a_machine_as_fast_as_the_measured_one_takes_what_that_took():
    clock = Clock()
    left = TimeLeft(BEFORE, ["a", "b", "c"], clock)
    assert left.seconds == pytest.approx(50)
    clock.now += 40
    left.finish("a")
    left.finish("b")
    assert left.seconds == pytest.approx(10)
    assert str(left) == "about 10 s left"


def test_a_slow_machine_is_noticed():
    clock = Clock()
    left = TimeLeft(BEFORE, ["a", "b", "c"], clock)
    clock.now += 400
    left.finish("a")
    left.finish("b")
    # Ten times slower; the measured run still counts with its 60 s.
    assert 40 < left.seconds < 100


def test_only_what_is_to_be_made_counts():
    assert TimeLeft(BEFORE, ["c"], Clock()).seconds == pytest.approx(10)


@pytest.mark.parametrize(("measured", "stages"), [(None, ["a"]), (BEFORE, ["a", "new"])])
def test_nothing_is_said_of_what_was_never_measured(measured, stages):
    left = TimeLeft(measured, stages, Clock())
    left.finish("a")
    assert left.seconds is None
    assert str(left) == ""


@pytest.mark.parametrize("path", sorted((ROOT / "conf" / "timings").glob("*.yaml")), ids=str)
def test_recorded_runs_know_every_stage(path):
    run = measured_run(ROOT, path.stem)
    assert set(run.stages) == set(read_graph(ROOT))
    # Two at a time at most, and the rest of the program takes less than the stages.
    assert run.seconds / 2 < sum(run.stages.values()) < 2 * run.seconds
    assert (ROOT / "conf" / path.name).is_file(), "no such profile"


def test_a_profile_that_was_not_measured(tmp_path):
    assert measured_run(tmp_path, "demo") is None


def test_a_mistyped_record_is_refused(tmp_path):
    (tmp_path / "conf" / "timings").mkdir(parents=True)
    (tmp_path / "conf" / "timings" / "demo.yaml").write_text("seconds: 0\nstages: {a: -1}\n")
    with pytest.raises(ValidationError, match="2 validation errors"):
        measured_run(tmp_path, "demo")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(3, "10 s"), (84, "80 s"), (100, "2 min"), (5300, "88 min"), (9000, "2.5 h")],
)
def test_times_as_a_person_says_them(seconds, text):
    assert duration(seconds) == text
