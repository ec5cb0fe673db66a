"""Suites on small tables: good ones pass, each planted fault is named with shard and row."""

import html
import importlib

import great_expectations.expectations as gxe
import numpy as np
import pandas as pd
import pytest

from assets.checks import annotations, images
from assets.checks.custom import ExpectColumnQuantilesBetween
from assets.checks.suite import Suite, critical, warning
from assets.checks.validation import validate
from assets.stage_asset import suites_of
from dagster_project.stages import STAGES
from ml.records.tables import HEADS, IMAGES, TRUTH, empty_table, write_table
from ml.records.workspace import Workspace

SHARDS = ["shard-00000", "shard-00001"]


def flame(scale: float = 300.0) -> np.ndarray:
    vector = np.zeros(413, np.float32)
    vector[403], vector[407], vector[412] = 1, -1, scale
    return vector


def truth_rows(shard: str) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "sample_id": f"{shard}-{index}",
                "head_id": 0,
                "person_id": 0,
                "split": "train",
                "bbox_xywh": np.array([1, 2, 30, 40], np.float32),
                "visible": 0.9,
                "inside": 1.0,
                "flame": flame(),
                "skin_tone": 1 + index,
                "hair_style": "short",
                "glasses": "none",
                "hat": "none",
                "head_model": "0" * 64,
            }
            for index in range(3)
        ]
    )


@pytest.fixture
def ws(tmp_path) -> Workspace:
    workspace = Workspace(tmp_path, seed=1, num_shards=2, shard_size=3)
    for shard in SHARDS:
        write_table(workspace.table_path("truth", shard), truth_rows(shard), TRUTH)
    return workspace


def sabotage(ws: Workspace, change) -> None:
    path = ws.table_path("truth", "shard-00001")
    frame = pd.read_parquet(path)
    change(frame)
    frame.to_parquet(path)


def failing(outcomes) -> dict:
    return {outcome.name.split("__")[1]: outcome for outcome in outcomes if not outcome.passed}


def test_a_good_table_passes_and_its_data_docs_are_built(ws, tmp_path):
    outcomes = validate(ws, images.TRUTH, SHARDS, tmp_path / "docs")
    assert [o.name for o in outcomes] == [images.TRUTH.check_name(c) for c in images.TRUTH.checks]
    assert failing(outcomes) == {}
    page = (tmp_path / "docs" / "truth" / "index.html").read_text()
    for check in images.TRUTH.checks:
        assert check.why in html.unescape(page)
    assert page.count(">passed</td>") == len(images.TRUTH.checks)
    index = (tmp_path / "docs" / "index.html").read_text()
    assert '<a href="truth/index.html">Truth: the table</a>' in index
    assert f"{len(outcomes)} of {len(outcomes)} checks of 1 suites held" in index


def test_a_page_of_failures_names_rows_shows_no_markup_and_asks_nobody(ws, tmp_path):
    sabotage(ws, plant_hostile_id)
    outcomes = validate(ws, images.TRUTH, SHARDS, tmp_path / "docs")
    page = (tmp_path / "docs" / "truth" / "index.html").read_text()
    assert failing(outcomes)
    assert ">failed</td>" in page
    assert "&lt;script&gt;" in page
    assert "<script" not in page
    assert "//" not in page.replace("</", "")


def plant_nan(frame):
    broken = flame()
    broken[17] = np.nan
    frame.at[2, "flame"] = broken


def plant_hostile_id(frame):
    frame.loc[[1, 2], "sample_id"] = "<script>alert(1)</script>"


def plant_negative_box(frame):
    frame.at[1, "bbox_xywh"] = np.array([1, 2, -30, 40], np.float32)


def plant_short_vector(frame):
    frame.at[0, "bbox_xywh"] = np.array([1, 2], np.float32)


def plant_skew(frame):
    broken = flame()
    broken[403:409] = (1, 0, 0, 1, 0, 0)
    frame.at[1, "flame"] = broken


def plant_double(frame):
    frame.loc[2, "sample_id"] = frame.loc[1, "sample_id"]


@pytest.mark.parametrize(
    ("plant", "check", "row"),
    [
        (plant_nan, "flame_finite", 2),
        (plant_negative_box, "box_width_positive", 1),
        (plant_short_vector, "box_left_there", 0),
        (plant_skew, "rotation_is_6d", 1),
        (plant_double, "head_unique", 1),
    ],
)
def test_a_planted_fault_is_named_with_shard_and_row(ws, plant, check, row):
    sabotage(ws, plant)
    outcome = failing(validate(ws, images.TRUTH, SHARDS, None))[check]
    assert outcome.blocks
    place = outcome.unexpected[0]
    assert (place["shard"], place["row"]) == ("shard-00001", row)
    assert f"shard-00001 row {row}" in outcome.sentence()


def test_a_damaged_file_fails_every_check_and_is_named(ws):
    ws.table_path("truth", "shard-00001").write_bytes(b"PAR1 not really")
    outcomes = validate(ws, images.TRUTH, SHARDS, None)
    assert all(outcome.blocks for outcome in outcomes if outcome.severity == "critical")
    assert "shard-00001.parquet" in outcomes[0].observed


def test_heads_without_parameters_are_no_fault(ws):
    rows = truth_rows("shard-00000")[["sample_id", "head_id", "split", "bbox_xywh", "head_model"]]
    rows = rows.assign(
        score=0.9,
        flame=[flame(), None, None],
        flame_status=["ok", "small", "small"],
        teacher="detector + regressor",
        threshold=0.5,
        source="pseudo",
    )
    write_table(ws.table_path("annotations", "shard-00000"), rows, HEADS)
    assert failing(validate(ws, annotations.ANNOTATIONS, ["shard-00000"], None)) == {}


def test_a_warning_does_not_block_and_quantiles_are_judged():
    frame = pd.DataFrame({"shard": "s", "row": range(4), "size": [1.0, 2.0, 3.0, 4.0]})
    suite = Suite(
        "sizes",
        lambda ws, shards: frame,
        (
            warning(
                "median",
                ExpectColumnQuantilesBetween,
                "The median is high.",
                column="size",
                quantile_ranges={"quantiles": [0.5], "value_ranges": [[10, 20]]},
            ),
            critical("absent", gxe.ExpectColumnValuesToNotBeNull, "There.", column="nothing"),
        ),
    )
    median, absent = validate(Workspace(None, 1, 1, 1), suite, ["s"], None)
    assert not median.passed
    assert not median.blocks
    assert absent.blocks
    assert '"nothing"' in absent.observed


def test_check_names_are_unique_and_say_why():
    for stage in STAGES.values():
        importlib.import_module(stage.asset_module)
    suites = [suite for name in STAGES for suite in suites_of(name)]
    names = [suite.check_name(check) for suite in suites for check in suite.checks]
    assert len(names) == len(set(names)) > 60
    for suite in suites:
        for check in suite.checks:
            assert check.why.endswith(".")
            assert check.expectation.notes == check.why
            assert check.expectation.severity == check.severity


def test_an_argument_that_the_expectation_does_not_take_is_named_at_once():
    with pytest.raises(ValueError, match=r"least\n +extra fields not permitted"):
        critical("few", gxe.ExpectColumnValuesToBeBetween, "Few.", column="n", least=1)
    with pytest.raises(ValueError, match=r"column\n +field required"):
        critical("few", gxe.ExpectColumnValuesToBeBetween, "Few.", min_value=1)


def test_a_suite_judges_more_than_once(ws):
    for _ in range(2):
        assert failing(validate(ws, images.TRUTH, SHARDS, None)) == {}


@pytest.mark.parametrize(("generator", "fails"), [("sdxl-t2i", False), ("renderer", True)])
def test_only_a_generator_without_exact_truth_may_leave_it_empty(ws, generator, fails):
    for shard in SHARDS:
        image = {
            "sample_id": f"{shard}-0", "pose_id": "pose-0", "split": "train", "shard": shard,
            "width": 64, "height": 64, "offset": 512, "size": 900, "sha256": "0" * 64, "seed": 1,
            "generator": generator, "num_people": 1, "mean_luma": 100.0,
        }  # fmt: skip
        write_table(ws.table_path("images", shard), pd.DataFrame([image]), IMAGES)
        write_table(ws.table_path("truth", shard), empty_table(TRUTH), TRUTH)
    outcomes = [
        *validate(ws, images.TRUTH, SHARDS, None),
        *validate(ws, images.IMAGE_STATISTICS, SHARDS, None),
    ]
    blocking = [outcome.name for outcome in outcomes if outcome.blocks]
    assert blocking == ["image_statistics__truth_where_it_is_known"] * fails
