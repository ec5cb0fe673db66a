"""The suites' limits: values at a limit pass, values one step beyond are named with their row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from assets.checks import annotations, captions, filtered_dataset, images, poses
from assets.checks.statistics import (
    annotation_statistics,
    dataset_statistics,
    image_statistics,
)
from assets.checks.suite import Suite
from assets.checks.validation import Outcome, validate
from ml.records import tables
from ml.records.tables import TableSpec, write_table
from ml.records.workspace import Workspace
from tests.fixtures.sound_tables import ROWS, SHARD, box, flame, skeleton, sound

SUITES: dict[str, tuple[Suite, TableSpec]] = {
    "poses": (poses.POSES, tables.POSES),
    "captions": (captions.CAPTIONS, tables.CAPTIONS),
    "images": (images.IMAGES, tables.IMAGES),
    "truth": (images.TRUTH, tables.TRUTH),
    "annotations": (annotations.ANNOTATIONS, tables.HEADS),
    "verdicts": (filtered_dataset.FILTERED_VERDICTS, tables.VERDICTS),
    "filtered_dataset": (filtered_dataset.FILTERED_DATASET, tables.DATASET_HEADS),
}
"""Suites of rows, and the tables that they judge."""

KEY = "key"
"""Not a value: the row takes over the key of the row before."""
Case = tuple[str, object, object]
#: check -> column, a value that just passes, one that just does not.
HEAD_CASES: dict[str, Case] = {
    "box_width_positive": ("bbox_xywh", box(1, 2, 0.01, 4), box(1, 2, 0, 4)),
    "box_height_positive": ("bbox_xywh", box(1, 2, 3, 4096), box(1, 2, 3, 4097)),
    "box_left_there": ("bbox_xywh", box(-9, 2, 3, 4), box(np.nan, 2, 3, 4)),
    "box_top_there": ("bbox_xywh", box(1, -9, 3, 4), box(1, np.nan, 3, 4)),
    "box_width_there": ("bbox_xywh", box(1, 2, 3, 4), box(1, 2, np.nan, 4)),
    "box_height_there": ("bbox_xywh", box(1, 2, 3, 4), box(1, 2, 3, np.nan)),
    "flame_finite": ("flame", flame(_9=7.9), flame(_9=np.inf)),
    "rotation_is_6d": ("flame", flame(_403=1.019), flame(_403=1.021)),
    "scale_positive": ("flame", flame(_412=20), flame(_412=19.9)),
    "coefficients_plausible": ("flame", flame(_399=-8), flame(_399=-8.1)),
    "head_unique": (KEY, None, None),
    "split_known": ("split", "test", "all"),
}
CASES: dict[str, dict[str, Case]] = {
    "poses": {
        "split_known": ("split", "val", "holdout"),
        "person_unique": (KEY, None, None),
        "num_people_in_range": ("num_people", 1, 0),
        "all_people_listed": ("num_people", 1, 2),
        "keypoints_finite": ("keypoints", skeleton(x=-9), skeleton(x=np.nan)),
        "confidence_in_range": ("keypoints", skeleton(1.0), skeleton(1.01)),
        "canvas_in_range": ("width", 4096, 4097),
        "skeletons_visible": ("keypoints", skeleton(seen=1), skeleton(seen=0)),
    },
    "captions": {
        "split_known": ("split", "val", "holdout"),
        "sample_unique": (KEY, None, None),
        "caption_there": ("caption", "c" * 2000, "c" * 2001),
        "prompt_there": ("prompt", "p" * 4000, "p" * 4001),
        "num_people_in_range": ("num_people", 8, 9),
    },
    "images": {
        "split_known": ("split", "val", "holdout"),
        "sample_unique": (KEY, None, None),
        "image_unique": ("sha256", "f" * 64, f"{5:064x}"),
        "sha256_form": ("sha256", "0123456789abcdef" * 4, "0123456789ABCDEF" * 4),
        "bytes_there": ("size", 200, 199),
        "offset_valid": ("offset", 512, 511),
        "not_black_or_white": ("mean_luma", 8.0, 7.9),
    },
    "truth": {
        **HEAD_CASES,
        "flame_there": ("flame", flame(), None),
        "visible_is_fraction": ("visible", 1.0, 1.01),
        "skin_tone_on_monk_scale": ("skin_tone", 10, 11),
    },
    "annotations": {
        **HEAD_CASES,
        "score_is_fraction": ("score", 1.0, 1.01),
        "teacher_named": ("teacher", "detector", None),
    },
    "verdicts": {
        "split_known": ("split", "val", "holdout"),
        "sample_unique": (KEY, None, None),
        "verdict_there": ("keep", False, None),
        "reason_there": ("reason", "no_head", None),
    },
    "filtered_dataset": HEAD_CASES,
}
#: The other end of a range: suite, check, column, passes, does not.
OTHER_ENDS: list[tuple[str, str, str, object, object]] = [
    ("poses", "num_people_in_range", "num_people", 8, 9),
    ("poses", "confidence_in_range", "keypoints", skeleton(0.0), skeleton(-0.01)),
    ("poses", "canvas_in_range", "width", 32, 31),
    ("captions", "num_people_in_range", "num_people", 1, 0),
    ("captions", "caption_there", "caption", "man", "me"),
    ("captions", "prompt_there", "prompt", "man", "me"),
    ("images", "bytes_there", "size", 50_000_000, 50_000_001),
    ("images", "not_black_or_white", "mean_luma", 247.0, 247.1),
    ("truth", "visible_is_fraction", "visible", 0.0, -0.01),
    ("truth", "skin_tone_on_monk_scale", "skin_tone", 1, 0),
    ("truth", "scale_positive", "flame", flame(_412=20_000), flame(_412=20_010)),
    ("truth", "rotation_is_6d", "flame", flame(_408=0.019), flame(_406=0.021)),
    ("annotations", "score_is_fraction", "score", 0.0, -0.01),
]
MOSTLY = {"skeletons_visible": 0.05, "not_black_or_white": 0.02}
"""Checks that some rows may fail: the largest fraction of them."""
WARN = {*MOSTLY, "coefficients_plausible"}


def path_of(ws: Workspace, name: str) -> Path:
    if name in ("verdicts", "filtered_dataset"):
        file = "verdicts" if name == "verdicts" else "heads"
        return ws.stage_dir("filtered_dataset") / f"{file}.parquet"
    return ws.table_path(name, SHARD)


def judged(folder: Path, name: str, frame: pd.DataFrame, *only: str) -> dict[str, Outcome]:
    """Findings of a suite, or some of its checks, on rows."""
    ws = Workspace(folder, seed=1, num_shards=1, shard_size=ROWS)
    suite = SUITES[name][0]
    checks = tuple(c for c in suite.checks if not only or c.name in only)
    path_of(ws, name).parent.mkdir(parents=True, exist_ok=True)
    frame.to_parquet(path_of(ws, name))
    found = validate(ws, Suite(suite.name, suite.table, checks), [SHARD], None)
    return {outcome.name.split("__")[1]: outcome for outcome in found}


def put(frame: pd.DataFrame, row: int, column: str, value: object, key: tuple[str, ...]) -> None:
    if column == KEY:
        frame.loc[row, list(key)] = frame.loc[row - 1, list(key)]
    else:
        frame[column] = frame[column].astype(object)
        frame.at[row, column] = value


@pytest.fixture(scope="module")
def at_limits(tmp_path_factory):
    """Suite -> its outcomes on rows of which each is at a limit or beyond, and those rows."""
    found = {}
    for name, (_, spec) in SUITES.items():
        cases = [case for case in EVERY_CASE if case[0] == name]
        frame, rows = sound(spec, ROWS + 2 * len(cases)), []
        for number, (_, check, column, passes, fails) in enumerate(cases):
            row = ROWS + 2 * number
            if column != KEY:
                put(frame, row, column, passes, spec.key)
            put(frame, row + 1, column, fails, spec.key)
            rows.append((check, column, row))
        found[name] = judged(tmp_path_factory.mktemp(name), name, frame), rows
    return found


@pytest.mark.parametrize("name", SUITES)
def test_sound_rows_pass_and_every_check_of_rows_has_a_case(tmp_path, name):
    outcomes = judged(tmp_path, name, sound(SUITES[name][1]))
    assert [key for key, outcome in outcomes.items() if not outcome.passed] == []
    assert set(CASES[name]) == set(outcomes) - {"not_empty", "prompts_vary"}


EVERY_CASE = [
    (name, check, *case) for name, cases in CASES.items() for check, case in cases.items()
] + OTHER_ENDS


@pytest.mark.parametrize("name", SUITES)
def test_a_value_at_the_limit_passes_and_one_beyond_is_named(at_limits, name):
    outcomes, rows = at_limits[name]
    for check, column, row in rows:
        outcome = outcomes[check]
        named = [place["row"] for place in outcome.unexpected]
        assert row + 1 in named, outcome.sentence()
        assert row not in named or column == KEY, outcome.sentence()
        places = (SHARD, "verdicts.parquet", "heads.parquet")
        assert outcome.unexpected[0]["shard"] in places
        assert outcome.severity == ("warning" if check in WARN else "critical")


@pytest.mark.parametrize("check", MOSTLY)
def test_a_few_rows_may_be_odd_and_more_may_not(tmp_path, check):
    name, column, _, fails = next(c[:1] + c[2:] for c in EVERY_CASE if c[1] == check)
    few = int(200 * MOSTLY[check])
    for number, passes in ((few, True), (few + 1, False)):
        frame = sound(SUITES[name][1], 200)
        for row in range(number):
            put(frame, row, column, fails, ())
        assert judged(tmp_path, name, frame, check)[check].passed == passes


@pytest.mark.parametrize("name", SUITES)
def test_an_empty_table_is_refused_where_rows_are_a_must(tmp_path, name):
    if name != "truth":  # generators without exact heads leave it empty
        empty = sound(SUITES[name][1]).iloc[:0]
        assert judged(tmp_path, name, empty, "not_empty")["not_empty"].blocks


def test_repeated_prompts_are_reported(tmp_path):
    for number, passes in ((7, True), (8, False)):
        frame = sound(tables.CAPTIONS)
        frame.loc[: number - 1, "prompt"] = "a man"
        assert judged(tmp_path, "captions", frame, "prompts_vary")["prompts_vary"].passed == passes


SHARD_CASES: dict[str, tuple[Suite, dict[str, tuple[str, float, float, str]]]] = {
    "image_statistics": (
        images.IMAGE_STATISTICS,
        {
            "images_in_every_shard": ("images", 1, 0, "critical"),
            "truth_where_it_is_known": ("has_expected_truth", True, False, "critical"),
            "brightness_typical": ("mean_luma", 60, 59.9, "warning"),
            "heads_per_image_typical": ("heads_per_image", 6, 6.1, "warning"),
            "heads_visible": ("mean_visible", 0.5, 0.49, "warning"),
            "skin_tones_even": ("skin_tones", 5, 4, "warning"),
        },
    ),
    "annotation_statistics": (
        annotations.ANNOTATION_STATISTICS,
        {
            "heads_found": ("images_with_heads", 0.5, 0.49, "warning"),
            "not_flooded": ("heads_per_image", 10, 10.1, "warning"),
        },
    ),
    "dataset_statistics": (
        filtered_dataset.DATASET_STATISTICS,
        {
            "something_to_train_on": ("train_images", 10, 9, "critical"),
            "something_to_validate_on": ("val_images", 1, 0, "critical"),
            "heads_to_train_on": ("train_heads_with_flame", 10, 9, "critical"),
            "no_head_of_a_removed_image": ("heads_of_removed_images", 0, 1, "critical"),
            "filters_keep_most": ("fraction_kept", 0.3, 0.29, "warning"),
        },
    ),
}
OF_ALL_SHARDS = {"not_empty", "head_sizes_spread"}


@pytest.mark.parametrize("name", SHARD_CASES)
def test_statistics_of_a_shard_have_limits(name):
    suite, cases = SHARD_CASES[name]
    assert {check.name for check in suite.checks} - OF_ALL_SHARDS == set(cases)
    rows = [{column: passes for column, passes, _, _ in cases.values()}]
    rows += [{**rows[0], column: fails} for column, _, fails, _ in cases.values()]
    frame = pd.DataFrame(rows).assign(shard=SHARD, row=range(len(rows)), median_head_px=40.0)
    outcomes = validate(
        Workspace(Path(), 1, 1, 1), Suite(name, lambda ws, shards: frame, suite.checks), [], None
    )
    for outcome in outcomes:
        check = outcome.name.split("__")[1]
        if check in cases:
            expected = 1 + list(cases).index(check)
            assert [place["row"] for place in outcome.unexpected] == [expected], check
            assert outcome.severity == cases[check][3]
        else:
            assert outcome.passed


@pytest.mark.parametrize(("tenth", "ninth", "passes"), [
    (12, 400, True), (11.9, 400, False), (12, 400.1, False),
])  # fmt: skip
def test_typical_heads_of_shards_are_neither_tiny_nor_fill_the_image(tenth, ninth, passes):
    sizes = [tenth, tenth, *[40.0] * 7, ninth, ninth]
    frame = pd.DataFrame({"shard": SHARD, "row": range(11), "median_head_px": sizes})
    (outcome,) = of_statistics("head_sizes_spread", frame)
    assert (outcome.passed, outcome.severity) == (passes, "warning")


def test_statistics_of_no_shard_are_refused():
    frame = pd.DataFrame({"shard": [SHARD], "row": [0], "median_head_px": [40.0]})
    assert [of_statistics("not_empty", part)[0].blocks for part in (frame, frame[:0])] == [
        False,
        True,
    ]


def of_statistics(check: str, frame: pd.DataFrame) -> list[Outcome]:
    checks = tuple(c for c in images.IMAGE_STATISTICS.checks if c.name == check)
    suite = Suite("image_statistics", lambda ws, shards: frame, checks)
    return validate(Workspace(Path(), 1, 1, 1), suite, [], None)


def test_statistics_are_counted_from_the_tables(tmp_path):
    ws = Workspace(tmp_path, seed=1, num_shards=1, shard_size=ROWS)
    heads = sound(tables.DATASET_HEADS)
    heads.loc[:2, "flame_status"] = "small"
    verdicts = sound(tables.VERDICTS)
    verdicts.loc[[3, 10], "keep"] = False
    verdicts.loc[[3, 10], "reason"] = "no_head"
    folder = ws.stage_dir("filtered_dataset")
    write_table(folder / "heads.parquet", heads, tables.DATASET_HEADS)
    write_table(folder / "verdicts.parquet", verdicts, tables.VERDICTS)
    (row,) = dataset_statistics(ws, []).to_dict("records")
    assert row["fraction_kept"] == pytest.approx(10 / 12)
    assert (row["train_images"], row["val_images"]) == (9, 0)
    assert row["train_heads_with_flame"] == 7
    assert row["heads_of_removed_images"] == 2
    assert row["heads_per_image"] == pytest.approx(1.2)
    write_table(ws.table_path("images", SHARD), sound(tables.IMAGES), tables.IMAGES)
    truth = sound(tables.TRUTH).iloc[:6]
    write_table(ws.table_path("truth", SHARD), truth, tables.TRUTH)
    (row,) = image_statistics(ws, [SHARD]).to_dict("records")
    assert (row["images"], row["skin_tones"]) == (12, 6)
    assert row["heads_per_image"] == 0.5
    assert row["median_head_px"] == pytest.approx(np.sqrt(1200))
    found = sound(tables.HEADS).iloc[3:].assign(score=0.5)
    write_table(ws.table_path("annotations", SHARD), found, tables.HEADS)
    (row,) = annotation_statistics(ws, [SHARD]).to_dict("records")
    assert row["images_with_heads"] == row["heads_per_image"] == 0.75
