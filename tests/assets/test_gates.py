"""Gates on models: closed where they can judge, and a word where too few images were held out."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

from assets.checks.annotation_quality import ANNOTATION_QUALITY_GATE
from assets.checks.benchmark import SUITES as BENCHMARK
from assets.checks.flame_regressor import FLAME_REGRESSOR_GATE
from assets.checks.head_detector import HEAD_DETECTOR_GATE
from assets.checks.released_benchmark import SUITES as RELEASED_BENCHMARK
from assets.checks.released_model import SUITES as RELEASED_MODEL
from assets.checks.suite import Suite
from assets.checks.trained_model import SUITES as TRAINED_MODEL
from assets.checks.validation import Outcome, validate
from ml.labels.coco import CocoDataset, write_coco
from ml.quality.bounds import read_bounds
from ml.records.atomic import write_json
from ml.records.exclusions import Exclusions
from ml.records.tables import (
    CROPS,
    HEADS,
    IMAGES,
    TRUTH,
    VERDICTS,
    empty_table,
    write_samples,
    write_table,
)
from ml.records.workspace import Workspace
from tests.fixtures.sound_tables import SHARD, sound

ROOT = Path(__file__).parents[2]
PROFILE = "official"
ENOUGH = 60
NOTHING_FOUND = {
    "ap50": 0.0, "recall": 0.0, "precision": None, "rotation_deg": None, "nme_bbox": None,
}  # fmt: skip


@pytest.fixture
def ws(tmp_path: Path) -> Workspace:
    shutil.copytree(ROOT / "conf" / "checks", tmp_path / "conf" / "checks")
    (tmp_path / "params.yaml").write_text(f"profile: {PROFILE}\n")
    return Workspace(tmp_path, seed=1, num_shards=1, shard_size=4)


def held_out(ws: Workspace, dataset: str, stage: str, split: str, number: int) -> None:
    """Write verdicts with so many images of a split, and one that was removed."""
    rows = pd.concat([sound(VERDICTS).head(1)] * (number + 1), ignore_index=True)
    rows["sample_id"] = [f"i{n}" for n in range(len(rows))]
    rows = rows.assign(keep=True, split=split)
    rows.loc[0, "keep"] = False
    write_table(ws.stage_dir(dataset) / "verdicts.parquet", rows, VERDICTS)
    Exclusions(stage).write(ws, stage)


def trained(ws: Workspace, stage: str, dataset: str, number: int, **metrics: float | None) -> None:
    """A training after which nothing was found in the validation images."""
    held_out(ws, dataset, stage, "val", number)
    values = {"val/ap50": 0.0, "val/loss": 4.0, "train/loss": 4.0, **metrics}
    write_json(ws.stage_dir(stage) / "metrics.json", values)
    history = pd.DataFrame({"train/loss": [5.0, values["train/loss"]], "val/loss": [5.0, 4.0]})
    history.to_csv(ws.stage_dir(stage) / "history.csv", index=False)
    write_samples(ws.stage_dir(stage), [], [f"i{n}" for n in range(1, number + 1)])


def measured(ws: Workspace, stage: str, dataset: str, number: int, of: int = 0) -> None:
    """A benchmark in which nothing was found; `of`: test images, if not all were measured."""
    held_out(ws, dataset, stage, "test", of or number)
    for name, spec in (("images", IMAGES), ("truth", TRUTH)):
        write_table(ws.table_path(name, SHARD), empty_table(spec), spec)
    model = "trained_model" if stage == "benchmark" else "released_model"
    write_json(ws.stage_dir(model) / "metrics.json", {"val/ap50": 0.0})
    flat = {f"m.{name}": value for name, value in NOTHING_FOUND.items()}
    flat |= {"always_frontal.rotation_deg": None, "always_frontal.nme_bbox": None}
    write_json(ws.stage_dir(stage) / "metrics.json", {"num_images": float(number), **flat})


def judged(ws: Workspace, suite: Suite) -> dict[str, Outcome]:
    outcomes = validate(ws, suite, ["all"], None)
    return {outcome.name.split("__")[1]: outcome for outcome in outcomes}


def blocking(found: dict[str, Outcome]) -> set[str]:
    return {name for name, outcome in found.items() if outcome.blocks}


def block_all(ws: Workspace) -> None:
    """Bounds that block, as a profile has them that was run."""
    path = ws.root / "conf" / "checks" / f"{PROFILE}.yaml"
    path.write_text("extends: base\n")


RELEASED = ("released_benchmark", "released_dataset", RELEASED_BENCHMARK[0])
OWN = ("benchmark", "filtered_dataset", BENCHMARK[0])


@pytest.mark.parametrize(("stage", "dataset", "suite"), [RELEASED, OWN])
def test_a_benchmark_of_few_images_is_told_and_one_of_many_is_judged(
    ws: Workspace, stage: str, dataset: str, suite: Suite
) -> None:
    assert read_bounds(ws.root).min_held_out == ENOUGH
    measured(ws, stage, dataset, ENOUGH - 1)
    found = judged(ws, suite)
    assert blocking(found) == set()
    told = found["enough_to_judge"]
    assert not told.passed
    assert told.remark() == (
        f"{stage}_gate__enough_to_judge: fewer than 60 held-out images (59) say little; "
        "not judged: ap50 0, ap50_best 0, rotation_gain nan, nme_gain nan, over_validation 0, "
        "flip_differs nan, nan_fraction 0.625"
    )

    measured(ws, stage, dataset, ENOUGH)
    found = judged(ws, suite)
    assert blocking(found) == {"metrics_are_numbers"}, "the other bounds only warn there"
    assert found["enough_to_judge"].passed
    block_all(ws)
    assert blocking(judged(ws, suite)) > {"finds_heads", "beats_frontal"}
    measured(ws, stage, dataset, ENOUGH - 1)
    assert blocking(judged(ws, suite)) == set()


@pytest.mark.parametrize(("stage", "dataset", "suite"), [RELEASED, OWN])
def test_lost_test_images_do_not_open_the_gate(
    ws: Workspace, stage: str, dataset: str, suite: Suite
) -> None:
    measured(ws, stage, dataset, 2, of=ENOUGH)
    assert blocking(judged(ws, suite)) == {"all_test_images", "metrics_are_numbers"}
    measured(ws, stage, dataset, 2, of=3)
    assert blocking(judged(ws, suite)) == {"all_test_images"}


@pytest.mark.parametrize(
    ("stage", "dataset", "suite"),
    [
        ("released_model", "released_dataset", RELEASED_MODEL[0]),
        ("trained_model", "filtered_dataset", TRAINED_MODEL[0]),
    ],
)
def test_a_training_with_few_validation_images(
    ws: Workspace, stage: str, dataset: str, suite: Suite
) -> None:
    block_all(ws)
    trained(ws, stage, dataset, ENOUGH - 1)
    found = judged(ws, suite)
    assert blocking(found) == set()
    assert "fewer than 60 held-out images (59)" in found["enough_to_judge"].remark()
    trained(ws, stage, dataset, ENOUGH)
    found = judged(ws, suite)
    assert blocking(found) == {"finds_heads"}
    assert found["enough_to_judge"].passed
    # A loss that is no number says what it says after one image.
    trained(ws, stage, dataset, 1, **{"val/loss": None})
    assert blocking(judged(ws, suite)) == {"metrics_are_numbers"}


@pytest.mark.parametrize(
    ("suite", "stage", "count", "metrics", "blocks"),
    [
        (HEAD_DETECTOR_GATE, "head_detector", "val_images", {"ap50": 0.0, "recall_max": 0.0},
         {"finds_heads"}),
        (FLAME_REGRESSOR_GATE, "flame_regressor", "num_val_crops",
         {"rotation_deg": 30.0, "rotation_frontal_deg": 30.0, "nme_bbox": 20.0},
         {"beats_frontal"}),
    ],
)  # fmt: skip
def test_teachers_too(
    ws: Workspace,
    suite: Suite,
    stage: str,
    count: str,
    metrics: dict[str, float],
    blocks: set[str],
) -> None:
    block_all(ws)
    history = pd.DataFrame({"train/loss": [5.0, 2.0], "val/loss": [5.0, 2.0]})
    ws.stage_dir(stage).mkdir(parents=True)
    write_samples(ws.stage_dir(stage), [], [])
    for split in ("train", "val"):
        write_coco(ws.stage_dir("labels") / f"{split}.json", CocoDataset((), (), ""))
    write_table(ws.table_path("crops", "crops-00000"), empty_table(CROPS), CROPS)
    history.to_csv(ws.stage_dir(stage) / "history.csv", index=False)
    for number, expected in ((ENOUGH - 1, set()), (ENOUGH, blocks), (None, blocks)):
        known = {} if number is None else {count: float(number)}
        write_json(ws.stage_dir(stage) / "metrics.json", {**metrics, **known})
        found = judged(ws, suite)
        assert blocking(found) == expected
        assert found["enough_to_judge"].passed == bool(expected)


def test_of_labels_the_bias_is_always_judged(ws: Workspace) -> None:
    block_all(ws)
    truth = sound(TRUTH).assign(split="test")
    write_table(ws.table_path("truth", SHARD), truth, TRUTH)
    images = sound(IMAGES).assign(split="test")
    write_table(ws.table_path("images", SHARD), images, IMAGES)
    write_table(ws.table_path("annotations", SHARD), sound(HEADS), HEADS)
    Exclusions("annotation_quality").write(ws, "annotation_quality")
    metrics = {"recall": 0.0, "precision": None, "rotation_deg": None, "nme_bbox": None}
    numbers = {"num_images": float(len(images)), **metrics}
    write_json(ws.stage_dir("annotation_quality") / "metrics.json", numbers)
    found = judged(ws, ANNOTATION_QUALITY_GATE)
    assert not {"finds_heads", "metrics_are_numbers"} & blocking(found)
    assert (
        "held-out images (12) say little; not judged: recall 0,"
        in found["enough_to_judge"].remark()
    )
    path = ws.root / "conf" / "checks" / f"{PROFILE}.yaml"
    path.write_text("extends: base\nmin_held_out: 12\n")
    assert {"finds_heads", "metrics_are_numbers"} <= blocking(judged(ws, ANNOTATION_QUALITY_GATE))


def test_a_stage_that_is_switched_off_has_nothing_to_judge(ws: Workspace) -> None:
    for stage, suite in (("released_model", RELEASED_MODEL[0]), RELEASED[::2]):
        write_json(ws.stage_dir(stage) / "metrics.json", {})
        pd.DataFrame(columns=["train/loss"]).to_csv(
            ws.stage_dir(stage) / "history.csv", index=False
        )
        assert all(outcome.passed for outcome in judged(ws, suite).values())
