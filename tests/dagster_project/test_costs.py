"""Costs of runs, from Dagster's own records."""

import pytest

from dagster_project.costs import measure


def test_every_stage_is_measured(toy):
    numbers, squares, total = measure(toy.pipeline, {})
    assert [m.stage for m in (numbers, squares, total)] == ["numbers", "squares", "total"]
    for measured in (numbers, squares, total):
        assert 0 < measured.seconds < 120
        assert measured.size_bytes > 0
        assert measured.images == 12


def test_what_was_measured_elsewhere_takes_its_place(toy):
    given = {"squares": {"seconds_per_image": 0.5, "device": "H100", "batch": 8}}
    measured = {m.stage: m for m in measure(toy.pipeline, given)}
    assert (measured["squares"].seconds, measured["squares"].device) == (6.0, "H100")
    assert measured["numbers"].device == "this machine"
    with pytest.raises(ValueError, match=r"\['cubes'\] are no stages"):
        measure(toy.pipeline, {"cubes": {}})


def test_a_stage_that_was_never_made_must_be_given(fresh_toy):
    with pytest.raises(ValueError, match="stage numbers has not been made here"):
        measure(fresh_toy.pipeline, {})


def test_before_anything_is_made_a_preflight_s_times_make_a_plan(fresh_toy):
    given = {"squares": {"seconds_per_image": 2.0, "device": "cuda", "batch": 1,
                         "bytes_per_image": 300}}  # fmt: skip
    (squares,) = measure(fresh_toy.pipeline, given, planned=12)
    assert (squares.stage, squares.seconds, squares.images) == ("squares", 24.0, 12)
    assert (squares.size_bytes, squares.device) == (3600, "cuda")
