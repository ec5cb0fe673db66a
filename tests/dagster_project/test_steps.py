"""A stage that does part of its work shard by shard: by any process, again only where needed."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from dagster_project.stage import Step, load
from dagster_project.stages import STAGES, project

SHARDS = ["shard-00000", "shard-00001", "shard-00002"]


@pytest.fixture
def stepped(fresh_toy, monkeypatch):
    """Return the toy project, whose total first halves every shard."""
    import toy_stages

    step = Step("halves", "toy_work:make_halves", ("squares",))
    monkeypatch.setitem(toy_stages.STAGES, "total", replace(toy_stages.STAGES["total"], step=step))
    assert fresh_toy.run("demo") == 0
    return fresh_toy


def test_one_changed_shard_makes_one_shard_of_every_stage_and_step(stepped, monkeypatch):
    import toy_work

    made = stepped.made()
    assert [line for line in made if line.startswith("halves")] == [f"halves {s}" for s in SHARDS]
    assert made[-1] == "total stage"
    halves = stepped.root / "data" / "total" / "halves"
    assert sorted(path.name for path in halves.iterdir()) == sorted(
        f"{shard}.{suffix}" for shard in SHARDS for suffix in ("json", "parquet")
    )
    # The marker of the whole vouches for the step's files, too.
    files = json.loads((halves.parent / "stage.json").read_text())["files"]
    assert f"data/total/halves/{SHARDS[2]}.parquet" in files

    def other_numbers(ws, config, shard):
        report = original(ws, config, shard)
        frame = pd.DataFrame({"value": np.arange(config.count)})
        frame.to_parquet(ws.table_path("numbers", shard))
        return report

    original = toy_work.make_numbers
    monkeypatch.setattr(toy_work, "make_numbers", other_numbers)
    assert stepped.run("materialize", "numbers", "--shard", SHARDS[1], "--force") == 0
    assert stepped.run("demo") == 0
    of_one = [f"{stage} {SHARDS[1]}" for stage in ("numbers", "squares", "halves")]
    assert stepped.made() == [*of_one, "total stage"]
    assert stepped.run("demo") == 0
    assert stepped.made() == []


def test_a_lost_file_of_a_step_is_made_again_and_a_shard_too_many_goes(stepped):
    stepped.made()
    halves = stepped.root / "data" / "total" / "halves"
    before = stepped.bytes()
    (halves / f"{SHARDS[0]}.parquet").unlink()
    (halves / "shard-00009.parquet").write_bytes(b"of a larger dataset")
    assert stepped.run("demo") == 0
    assert stepped.made() == [f"halves {SHARDS[0]}", "total stage"]
    assert stepped.bytes() == before
    assert stepped.run("materialize", "total", "--force") == 0
    assert stepped.made() == [*(f"halves {shard}" for shard in SHARDS), "total stage"]


def test_the_steps_of_this_project_read_what_their_stages_declare():
    steps = {name: stage.step for name, stage in STAGES.items() if stage.step}
    assert list(steps) == ["filtered_dataset"]
    for name, step in steps.items():
        assert set(step.inputs) < set(project().graph[name].upstream)
        function = load(step.function)
        count = function.__code__.co_argcount
        assert function.__code__.co_varnames[:count] == ("ws", "config", "shard")
