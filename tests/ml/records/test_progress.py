"""Progress where there is no terminal."""

import sys

import pytest

from ml.records import progress as module
from ml.records.progress import open_progress, progress


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 0.0

    monkeypatch.setattr(module.time, "monotonic", lambda: Clock.now)
    return Clock


def test_a_line_now_and_then_with_the_time_left(clock, capsys):
    for _ in progress(list(range(10)), "reading"):
        clock.now += 10.0
    assert capsys.readouterr().err.splitlines() == [
        "reading: 3/10 [00:30, 01:10 left]",
        "reading: 6/10 [01:00, 00:40 left]",
        "reading: 9/10 [01:30, 00:10 left]",
    ]


def test_what_is_quick_is_silent(clock, capsys):
    assert list(progress(iter(range(1000)), "reading", 1000)) == list(range(1000))
    clock.now += 29.0
    assert capsys.readouterr().err == ""


def test_steps_of_an_earlier_run_are_not_reckoned_with(clock, capsys):
    shown = open_progress("steps", 100, done=90)
    clock.now += 40.0
    shown.update(5)
    assert capsys.readouterr().err == "steps: 95/100 [00:40, 00:40 left]\n"


def test_a_terminal_has_a_bar(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    list(progress([1, 2], "reading"))
    assert "reading:   0%" in capsys.readouterr().err
