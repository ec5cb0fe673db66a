"""`--json`: one value on stdout with what the command otherwise prints, and the same status."""

import json
from types import SimpleNamespace

import pytest

from dagster_project import cli, costs
from ml.records.atomic import remove
from ml.records.cost import StageMeasurement, paper_hours


def asked(capsys, run, *arguments):
    """Status and value of a command with `--json`; nothing else is on stdout."""
    capsys.readouterr()
    status = run(*arguments, "--json")
    return status, json.loads(capsys.readouterr().out)


def test_status_and_config_give_states_and_edits(toy, capsys):
    status, found = asked(capsys, toy.run, "status")
    assert status == 0
    # The toy's profile is not in conf/.
    assert (found["profile"], found["edits"]) == (toy.pipeline.params.run.profile, None)
    assert found["stages"][0] == {
        "stage": "numbers", "state": "up to date", "finished": 3, "units": 3,
    }  # fmt: skip
    toy.set_param("power: 2", "power: 3")
    status, found = asked(capsys, toy.run, "status")
    assert status == 1
    states = {row["stage"]: row["state"] for row in found["stages"]}
    assert states == {"numbers": "up to date", "squares": "changed", "total": "up to date"}
    status, found = asked(capsys, toy.run, "config", "squares")
    assert status == 0
    assert list(found["values"]) == ["squares"]
    assert found["values"]["squares"]["power"]["value"] == 3


def test_status_tells_what_is_recorded_and_not_here_from_what_changed(toy, capsys):
    for out in toy.pipeline.graph["squares"].outs:
        remove(toy.root / out)
    status, found = asked(capsys, toy.run, "status")
    assert status == 1
    states = {row["stage"]: row["state"] for row in found["stages"]}
    assert states == {"numbers": "up to date", "squares": "not here", "total": "changed"}
    assert toy.run("status") == 1
    assert "`dvc pull`" in capsys.readouterr().out


def test_check_gives_every_check_and_what_is_unfinished(toy, capsys):
    status, found = asked(capsys, toy.run, "check")
    assert status == 0
    assert found["unfinished"] == []
    assert {one["stage"] for one in found["checks"]} == {"numbers", "squares", "total"}
    assert all(one["passed"] and one["description"] is None for one in found["checks"])
    path = toy.root / "data" / "numbers" / "shard-00001.parquet"
    path.write_bytes(path.read_bytes() + b"more")
    status, found = asked(capsys, toy.run, "check", "numbers")
    assert status == 1
    failed = [one for one in found["checks"] if not one["passed"]]
    assert (failed[0]["check"], failed[0]["critical"]) == ("files_unaltered", True)
    assert "shard-00001" in failed[0]["description"]


def test_check_names_stages_of_which_nothing_is_finished(fresh_toy, capsys):
    status, found = asked(capsys, fresh_toy.run, "check")
    assert (status, found["checks"]) == (1, [])
    assert found["unfinished"] == ["numbers", "squares", "total"]


def test_doctor_gives_findings_and_what_is_left_of_them(toy, capsys):
    assert asked(capsys, toy.run, "doctor") == (0, {"findings": [], "left": []})
    path = toy.root / "dvc.lock"
    path.write_bytes(b"")
    status, found = asked(capsys, toy.run, "doctor")
    assert status == 1
    assert found["left"] == found["findings"]
    assert found["findings"][0]["path"] == str(path)
    assert found["findings"][0]["remedy"].startswith("move it aside")
    status, repaired = asked(capsys, toy.run, "doctor", "--repair")
    assert (status, repaired["findings"], repaired["left"]) == (0, found["findings"], [])


def test_plan_gives_unrounded_rows(tmp_path, monkeypatch, capsys):
    measured = [StageMeasurement("images", 7.0, 3, 10, "this machine")]
    monkeypatch.setattr(costs, "measure", lambda pipeline, given: measured)
    monkeypatch.setattr(costs, "kept_images", lambda pipeline: 3)
    project = SimpleNamespace(root=tmp_path, units=lambda stage: [], markers=lambda *_: {})
    status, found = asked(
        capsys, lambda *words: cli.main(list(words), project), "plan", "--images", "300"
    )
    assert (status, found["assumed"], found["paper_hours"]) == (0, "", paper_hours(300))
    images, total = found["stages"]
    assert images["hours"] == pytest.approx(700 / 3600, rel=1e-12)
    assert (images["stage"], images["images"], total["stage"]) == ("images", 300, "total")
