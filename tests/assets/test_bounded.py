"""Bounds as checks: values outside stop the stage, unless the profile only warns of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy.spatial.transform import Rotation

from assets.checks.bounded import bounded, columns_of, drift_rule, drop_rate_rule, only_told
from assets.checks.images import WORLD
from assets.checks.measured import measured
from assets.checks.rules import Shelf, whole_suite
from assets.checks.validation import validate
from ml.captions.scene import NO_SCENE
from ml.flame.rotation import FRONTAL
from ml.records.atomic import write_json
from ml.records.tables import CAPTIONS, HEADS, IMAGES, POSES, TRUTH, write_table
from ml.records.workspace import Workspace
from tests.fixtures.sound_tables import box, flame, sound

BOUNDS = """
min_rows: 3
min_held_out: 1
drift: {max_ks: 0.2, max_psi: 0.25, max_p: 0.001}
bounds:
  toys: {red: [0, 1], blue: [0, 1]}
  drop_rates: {captions: [0.05, 0.3]}
  captions: {prompt_distinct: [0.9, 1.0], caption_distinct: [0.0, 0.4]}
"""
SHARDS = ["shard-00000", "shard-00001"]


@pytest.fixture
def ws(tmp_path) -> Workspace:
    return workspace(tmp_path)


def workspace(root: Path, more: str = "", extends: bool = False) -> Workspace:
    path = root / "conf" / "checks" / "toy.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_stem("base").write_text(BOUNDS)
    path.write_text("extends: base\n" + more if extends else BOUNDS + more)
    (root / "params.yaml").write_text("profile: toy\n")
    return Workspace(root, seed=1, num_shards=2, shard_size=4)


def toys(shelf, shards):
    return {"red": 2.0, "blue": 3.0}


def outcomes(ws: Workspace) -> dict:
    suite = whole_suite(
        "toys",
        bounded("red_toys", "Red.", "toys", toys, "red"),
        bounded("all_toys", "All.", "toys", toys),
        only_told("toys", toys),
        sharded=False,
    )
    return {o.name.split("__")[1]: o for o in validate(ws, suite, SHARDS, None)}


def test_what_lies_outside_stops_the_stage(ws):
    found = outcomes(ws)
    assert found["red_toys"].blocks
    assert found["red_toys"].unexpected[0]["value"] == "toys.red = 2, expected 0 to 1"
    assert found["all_toys"].num_unexpected == 2
    assert found["unproven_bounds"].passed


def test_warnings_of_the_profile_are_reported_and_stop_nothing(tmp_path):
    found = outcomes(workspace(tmp_path, "only_warn: {never measured: [toys.red]}\n"))
    assert found["red_toys"].passed
    assert found["all_toys"].unexpected[0]["value"] == "toys.blue = 3, expected 0 to 1"
    told = found["unproven_bounds"]
    assert not told.passed
    assert not told.blocks
    assert told.unexpected[0]["value"] == "toys.red = 2, expected 0 to 1"


def reported(ws: Workspace, shard: str, given: int, excluded: int) -> None:
    counts = {"num_in": given, "num_out": given - excluded, "num_excluded": excluded}
    write_json(ws.stage_dir("captions") / f"{shard}.json", counts)


@pytest.mark.parametrize(("excluded", "passes"), [(0, False), (1, True), (3, True), (4, False)])
def test_drop_rates_are_of_all_shards(ws, excluded, passes):
    reported(ws, SHARDS[0], 6, excluded)
    reported(ws, SHARDS[1], 4, 0)
    suite = whole_suite("rates", drop_rate_rule("captions"), sharded=True)
    (outcome,) = validate(ws, suite, SHARDS, None)
    assert outcome.passed == passes
    assert outcome.severity == "critical"


def head(yaw: float = 0.0, pitch: float = 0.0, roll: float = 0.0) -> np.ndarray:
    """Parameters of a head that is turned, degrees."""
    rotation = FRONTAL @ Rotation.from_euler("YXZ", [yaw, pitch, roll], degrees=True).as_matrix()
    vector = flame()
    vector[403:406], vector[406:409] = rotation[:, 0], rotation[:, 1]
    return vector


#: Of twelve images of one whole frontal head each, bare, 30 x 40 px: statistic -> bound.
DECLARED = {
    "heads_per_image": [0.9, 1.1], "groups": [0, 0.2], "turned_over_60": [0, 0.1],
    "turned_over_90": None, "pitched_over_20": [0, 0.1], "pitched_over_35": None,
    "leaning_over_15": [0, 0.1], "leaning_over_30": None, "head_px_p01": None,
    "head_px_p10": None, "head_px_p50": [30, 40], "head_of_image_p99": None, "glasses": [0, 0.1],
    "hats": [0, 0.1], "cut": [0, 0.1], "hidden": [0, 0.2],
}  # fmt: skip
#: What another world has in place of it: table, column, value -> the check that tells.
OTHER_WORLDS = {
    "half of the heads": ("truth", "", None, "people_per_image"),
    "groups": ("poses", "layout", "group", "people_per_image"),
    "profiles": ("truth", "flame", head(yaw=80), "seen_from_all_sides"),
    "bent heads": ("truth", "flame", head(pitch=50), "heads_bend"),
    "leaning heads": ("truth", "flame", head(roll=50), "heads_bend"),
    "large heads": ("truth", "bbox_xywh", box(1, 2, 60, 60), "sizes_spread"),
    "glasses": ("truth", "glasses", "glasses", "heads_are_covered"),
    "caps": ("truth", "hat", "cap", "heads_are_covered"),
    "cut heads": ("truth", "inside", 0.5, "heads_are_covered"),
    "hidden heads": ("truth", "visible", 0.5, "heads_are_covered"),
}


def worlds(root: Path, name: str) -> dict:
    """Outcomes of the suite on a world, changed as its name says."""
    ws = workspace(root, yaml.safe_dump({"bounds": {"world": DECLARED}}), extends=True)
    place, column, value, _ = OTHER_WORLDS.get(name, ("", "", None, ""))
    for shard in SHARDS:
        for spec in (POSES, IMAGES, TRUTH):
            table = sound(spec, shard=shard)
            if "generator" in table:
                table["generator"] = "renderer:1"
            if spec.name == place:
                table = (
                    table.head(6)
                    if value is None
                    else table.assign(**{column: [value] * len(table)})
                )
            write_table(ws.table_path(spec.name, shard), table, spec)
    return {o.name.split("__")[1]: o for o in validate(ws, WORLD, SHARDS, None)}


@pytest.mark.parametrize("name", ["as declared", *OTHER_WORLDS])
def test_another_world_than_the_declared_one_is_a_warning(tmp_path, name):
    found = worlds(tmp_path, name)
    failed = [check for check, outcome in found.items() if not outcome.passed]
    assert failed == ([OTHER_WORLDS[name][3]] if name in OTHER_WORLDS else [])
    assert not any(outcome.blocks for outcome in found.values())


def write_captions(ws: Workspace, shard: str, prompts: list[str]) -> None:
    rows = pd.DataFrame({"prompt": prompts, "caption": [p[:3] for p in prompts]})
    rows["sample_id"] = [f"image-{shard[-5:]}-{n:05d}" for n in range(len(rows))]
    rows = rows.assign(
        pose_id=rows["sample_id"].str.replace("image", "pose"), split="train", num_people=1,
        negative_prompt="", choices="{}", scene=NO_SCENE, captioner="toy", seed=1,
    )  # fmt: skip
    write_table(ws.table_path("captions", shard), rows, CAPTIONS)


def test_statistics_are_shown_with_what_chance_does_to_them(ws):
    write_captions(ws, SHARDS[0], ["red ball", "red hat", "red car", "red car"])
    write_captions(ws, SHARDS[1], ["blue ball", "blue hat", "blue car", "blue sky"])
    for shard in SHARDS:
        reported(ws, shard, 5, 1)
    table = measured(ws, []).set_index("statistic")
    assert table["value"]["prompt_distinct"] == 7 / 8
    assert table["error"]["prompt_distinct"] == pytest.approx(np.std([0.75, 1], ddof=1) / 2**0.5)
    assert table["value"]["captions"] == 0.2
    assert table["outside"].to_dict() == {
        "prompt_distinct": True, "caption_distinct": False, "captions": False,
    }  # fmt: skip
    assert table["low"]["prompt_distinct"] == 0.9
    assert table["blocks"].all()


@pytest.mark.parametrize("unasked", [False, True])
def test_drift_is_looked_for_unless_the_profile_says_otherwise(tmp_path, unasked):
    more = "drift: {unasked: [images]}\n" if unasked else ""
    ws = workspace(tmp_path, f"min_rows: 1\n{more}", extends=True)
    for shard in SHARDS:
        write_table(ws.table_path("truth", shard), sound(TRUTH, shard=shard), TRUTH)
    suite = whole_suite("images", drift_rule("images"), sharded=True)
    (outcome,) = validate(ws, suite, SHARDS, None)
    # No reference is accepted here, which is a finding by itself.
    assert outcome.passed == unasked


def test_columns_of_images_are_those_of_their_true_heads(ws):
    for shard in SHARDS:
        for spec in (TRUTH, HEADS):
            write_table(ws.table_path(spec.name, shard), sound(spec, shard=shard), spec)
    of_images, _ = columns_of(Shelf(ws), "images", SHARDS)
    of_labels, _ = columns_of(Shelf(ws), "annotations", SHARDS)
    assert "visible" in of_images
    assert "score" not in of_images
    assert "score" in of_labels
    heads = sum(len(sound(TRUTH, shard=shard)) for shard in SHARDS)
    assert len(of_images["visible"]) == of_images["heads_per_image"].sum() == heads
