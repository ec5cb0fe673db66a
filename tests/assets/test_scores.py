"""Gate of the score tables: what is no number, was not measured, or differs from the publisher."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from assets.checks.benchmark_scores import STAGE, SUITES
from assets.checks.validation import Outcome, validate
from ml.records.workspace import Workspace

SOUND = {
    "set": "fddb", "protocol": "discrete", "model": "ours", "origin": "ours", "num_images": 3,
    "ap": 0.5, "nme": None, "count_differences": [],
}  # fmt: skip


def judged(root: Path, *scores: dict[str, Any]) -> dict[str, Outcome]:
    ws = Workspace(root, seed=1, num_shards=1, shard_size=4)
    path = ws.stage_dir(STAGE) / "scores.json"
    path.parent.mkdir(parents=True)
    # Not by `write_json`, which refuses what is no number.
    path.write_text(json.dumps([SOUND | score for score in scores]))
    return {o.name.split("__")[1]: o for o in validate(ws, SUITES[0], (), None)}


def failed(outcomes: dict[str, Outcome]) -> list[str]:
    return [name for name, outcome in outcomes.items() if not outcome.passed]


def test_sound_scores_pass(tmp_path: Path) -> None:
    assert failed(judged(tmp_path, {}, {"set": "aflw", "count_differences": []})) == []


def test_a_score_that_is_no_number_is_named_and_null_is_none(tmp_path: Path) -> None:
    found = judged(tmp_path, {}, {"set": "aflw", "ap": float("nan"), "nme": float("inf")})
    assert failed(found) == ["scores_are_numbers"]
    outcome = found["scores_are_numbers"]
    assert outcome.blocks
    assert [row["value"] for row in outcome.unexpected] == [
        "aflw, discrete, ours: ap is nan", "aflw, discrete, ours: nme is inf",
    ]  # fmt: skip


def test_a_set_without_images_blocks(tmp_path: Path) -> None:
    found = judged(tmp_path, {}, {"num_images": 0})
    assert failed(found) == ["images_were_scored"]
    assert found["images_were_scored"].blocks


def test_other_counts_than_the_publishers_are_a_warning(tmp_path: Path) -> None:
    found = judged(tmp_path, {"count_differences": ["2 images, published 3"]})
    assert failed(found) == ["counts_as_published"]
    assert found["counts_as_published"].unexpected[0]["value"] == "fddb: 2 images, published 3"
    assert not found["counts_as_published"].blocks


def test_a_model_without_score_on_a_set_of_others_is_a_warning(tmp_path: Path) -> None:
    other = {"model": "official"}
    mine = {"set": "generated-7", **other}  # the project's own sets are not compared
    found = judged(tmp_path, {}, other, {"set": "aflw"}, mine)
    assert failed(found) == ["models_on_the_same_sets"]
    texts = [row["value"] for row in found["models_on_the_same_sets"].unexpected]
    assert texts == ["aflw: no score of official"]
