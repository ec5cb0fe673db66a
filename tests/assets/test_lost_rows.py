"""A stage that loses 30 % of its rows, in any shard: a check that blocks names every lost id."""

from __future__ import annotations

import pandas as pd
import pytest

from assets.checks import annotations, captions, crops, filtered_dataset, images, labels, poses
from assets.checks.accounts import training_account
from assets.checks.rules import Shelf
from assets.checks.suite import Suite
from assets.checks.validation import validate
from dagster_project.stages import ROOT, STAGES
from ml.labels.coco import CocoBox, CocoDataset, CocoImage, read_coco, write_coco
from ml.quality.bounds import FOLDER
from ml.records import tables
from ml.records.atomic import write_json
from ml.records.exclusions import Exclusions
from ml.records.shards import shard_writer
from ml.records.tables import empty_table, write_samples, write_table
from ml.records.workspace import Workspace
from ml.stages.labels import draw_order
from tests.fixtures.sound_tables import sound

NUM = 20
SHARDS = [f"shard-{number:05d}" for number in range(3)]
CROPS = [f"crops-{number:05d}" for number in range(3)]
#: What may lose rows: its suite, the check that accounts for it, the column of ids.
LOSERS = {
    "poses": (poses.POSE_RULES, "accounted", "pose_id"),
    "captions": (captions.CAPTION_RULES, "accounted", "sample_id"),
    "images": (images.IMAGE_RULES, "accounted", "sample_id"),
    "truth": (images.TRUTH_RULES, "people_have_heads", "sample_id"),
    "labels": (labels.LABEL_RULES, "accounted", "sample_id"),
    "boxes": (labels.LABEL_RULES, "all_heads", "sample_id"),
    "crops": (crops.CROP_RULES, "accounted", "crop_id"),
    "annotated images": (annotations.ANNOTATION_RULES, "accounted", "sample_id"),
    "annotations": (annotations.ANNOTATION_RULES, "heads_of_images", "sample_id"),
    "verdicts": (filtered_dataset.DATASET_RULES, "accounted", "sample_id"),
    "dataset": (filtered_dataset.DATASET_RULES, "heads_as_annotated", "sample_id"),
}
SHARDED = {
    "poses": ("poses", "", tables.POSES),
    "captions": ("captions", "", tables.CAPTIONS),
    "images": ("images", "", tables.IMAGES),
    "truth": ("truth", "", tables.TRUTH),
    "annotated images": ("annotations", ".images", tables.ANNOTATED_IMAGES),
    "annotations": ("annotations", "", tables.HEADS),
    "crops": ("crops", "", tables.CROPS),
}
WHOLE = {
    "verdicts": ("verdicts.parquet", tables.VERDICTS),
    "dataset": ("heads.parquet", tables.DATASET_HEADS),
}


def rows_of(what: str, shard: str) -> pd.DataFrame:
    """The whole table of a shard."""
    spec = SHARDED[what][2] if what in SHARDED else WHOLE[what][1]
    rows = sound(spec, NUM, shard)
    if what == "images":
        rows = rows.assign(generator="renderer:1")
    removed = [number % 3 == 0 for number in range(NUM)]
    if what == "verdicts":
        rows = rows.assign(keep=[not out for out in removed])
        rows["reason"] = ["flip_count" if out else "keep" for out in removed]
    if what == "dataset":
        rows = rows[[not out for out in removed]]
    if what == "crops":
        first = NUM * CROPS.index(shard)
        numbers = range(first, first + NUM)
        rows = rows.assign(crop_id=[f"crop-{n:06d}" for n in numbers])
        rows["split"] = rows["split"].replace("test", "val")
    return rows


def without(rows: pd.DataFrame) -> pd.DataFrame:
    """Seven of ten rows."""
    return rows.sample(frac=0.7, random_state=1).sort_index()


@pytest.fixture(scope="module")
def ws(tmp_path_factory, ball_head) -> Workspace:
    """Three shards of every table, nothing lost."""
    root = tmp_path_factory.mktemp("run")
    (root / FOLDER).mkdir(parents=True)
    for path in (ROOT / FOLDER).glob("*.yaml"):
        (root / FOLDER / path.name).write_bytes(path.read_bytes())
    crops = f"crops: {{num_crops: {NUM * len(CROPS)}, crops_per_shard: {NUM}}}"
    train = sum(int((rows_of("images", shard)["split"] == "train").sum()) for shard in SHARDS)
    labels = f"labels: {{num_train: {train - 1}}}"
    (root / "params.yaml").write_text(f"profile: demo\n{crops}\n{labels}\n")
    ws = Workspace(root, seed=1, num_shards=len(SHARDS), shard_size=NUM)
    for what, (stage, part, spec) in SHARDED.items():
        for shard in CROPS if what == "crops" else SHARDS:
            write_table(ws.table_path(stage, f"{shard}{part}"), rows_of(what, shard), spec)
            excluded = ws.table_path(stage, f"{shard}.exclusions")
            write_table(excluded, empty_table(tables.EXCLUSIONS), tables.EXCLUSIONS)
            if what in ("images", "crops"):
                with shard_writer(ws.stage_dir(stage) / f"{shard}.tar") as writer:
                    for item in rows_of(what, shard)[LOSERS[what][2]]:
                        writer.add(item, {"jpg": b"no image"})
            counts = {"num_in": NUM, "num_out": NUM, "num_excluded": 0}
            write_json(ws.stage_dir(stage) / f"{shard}.json", counts)
    for what, (name, spec) in WHOLE.items():
        whole = pd.concat([rows_of(what, shard) for shard in SHARDS], ignore_index=True)
        write_table(ws.stage_dir("filtered_dataset") / name, whole, spec)
    verdicts = pd.concat([rows_of("verdicts", shard) for shard in SHARDS])
    excluded = verdicts[~verdicts["keep"]].assign(stage="filtered_dataset")
    for stage, rows in (
        ("filtered_dataset", excluded[[column.name for column in tables.EXCLUSIONS.columns]]),
        ("labels", empty_table(tables.EXCLUSIONS)),
    ):
        write_table(ws.table_path(stage, "all.exclusions"), rows, tables.EXCLUSIONS)
    ball_head.save(ws.stage_dir("head_model") / "head_model.npz")
    write_labels(ws)
    return ws


def write_labels(ws: Workspace, lose: str = "", shard: str = "") -> set[str]:
    """Labels of all images but one; what is lost of a shard is returned."""
    parts = [rows_of("images", name) for name in SHARDS]
    every = pd.concat(parts, ignore_index=True)
    gone: set[str] = set()
    for split in ("train", "val"):
        mine = draw_order(every[every["split"] == split], ws.seed)
        mine = mine.iloc[: -1 if split == "train" else len(mine)]
        if lose and split == "train":
            here = mine[mine["shard"] == shard]
            gone = set(here["sample_id"]) - set(without(here)["sample_id"])
        kept = mine[~mine["sample_id"].isin(gone)] if lose == "labels" else mine
        listed = [
            CocoImage(number, f"{s}/{item}.jpg", 64, 64, s, item)
            for number, (item, s) in enumerate(kept[["sample_id", "shard"]].to_numpy(), start=1)
        ]
        boxes = [
            CocoBox(image.image_id, image.image_id, (1.0, 2.0, 30.0, 40.0))
            for image in listed
            if lose != "boxes" or image.sample_id not in gone
        ]
        data = CocoDataset(tuple(listed), tuple(boxes), "source: renderer's truth")
        write_coco(ws.stage_dir("labels") / f"{split}.json", data)
    return gone


def lose(ws: Workspace, what: str, shard: str) -> set[str]:
    """Lose 30 % of a shard's rows, and say which."""
    if what in ("labels", "boxes"):
        return write_labels(ws, what, shard)
    rows = rows_of(what, shard)
    left = without(rows)
    if what in WHOLE:
        name, spec = WHOLE[what]
        others = [left if other == shard else rows_of(what, other) for other in SHARDS]
        path = ws.stage_dir("filtered_dataset") / name
        write_table(path, pd.concat(others, ignore_index=True), spec)
    else:
        stage, part, spec = SHARDED[what]
        write_table(ws.table_path(stage, f"{shard}{part}"), left, spec)
    key = LOSERS[what][2]
    return set(rows[key]) - set(left[key])


def put_back(ws: Workspace, what: str, shard: str) -> None:
    """Undo `lose`."""
    if what in ("labels", "boxes"):
        write_labels(ws)
    elif what in WHOLE:
        name, spec = WHOLE[what]
        whole = pd.concat([rows_of(what, other) for other in SHARDS], ignore_index=True)
        write_table(ws.stage_dir("filtered_dataset") / name, whole, spec)
    else:
        stage, part, spec = SHARDED[what]
        write_table(ws.table_path(stage, f"{shard}{part}"), rows_of(what, shard), spec)


def told(ws: Workspace, what: str) -> list[str]:
    """Findings of the accounting check."""
    suite, name, _ = LOSERS[what]
    rows = suite.table(ws, CROPS if what == "crops" else SHARDS)[name].dropna()
    return [text for text in rows if text]


@pytest.mark.parametrize("what", LOSERS)
def test_lost_rows_of_any_shard_stop_the_stage_with_their_ids(ws, what):
    suite, name, _ = LOSERS[what]
    assert told(ws, what) == []
    shards = CROPS if what == "crops" else SHARDS
    for shard in shards:
        lost = lose(ws, what, shard)
        assert len(lost) >= 3
        found = told(ws, what)
        assert len(found) == len(lost), found
        assert all(any(item in text for text in found) for item in lost), (lost, found)
        if shard == shards[-1]:
            (check,) = (check for check in suite.checks if check.name == name)
            (outcome,) = validate(ws, Suite(suite.name, suite.table, (check,)), shards, None)
            assert outcome.blocks
            assert [row["value"] for row in outcome.unexpected] == found
        put_back(ws, what, shard)


def write_used(ws: Workspace, stage: str) -> pd.DataFrame:
    """The samples of a training that used all of its data."""
    if stage == "head_detector":
        labels = {s: read_coco(ws.stage_dir("labels") / f"{s}.json") for s in ("train", "val")}
        parts = {s: [image.sample_id for image in data.images] for s, data in labels.items()}
    else:
        crops = stage == "flame_regressor"
        rows = pd.concat(
            [rows_of("crops" if crops else "verdicts", s) for s in (CROPS if crops else SHARDS)]
        )
        rows = rows if crops else rows[rows["keep"]]
        key = "crop_id" if crops else "sample_id"
        parts = {s: rows.loc[rows["split"] == s, key].tolist() for s in ("train", "val")}
    folder = ws.stage_dir(stage)
    write_samples(folder, parts["train"], parts["val"])
    write_json(folder / "metrics.json", {"val/ap50": 0.5})
    Exclusions(stage).write(ws, stage)
    return tables.read_table(folder / tables.SAMPLES_NAME, tables.TRAINING_SAMPLES)


@pytest.mark.parametrize("stage", ["head_detector", "flame_regressor", "trained_model"])
def test_samples_that_a_training_loses_stop_the_chain_with_their_ids(ws, stage):
    find = training_account(stage).find
    whole = write_used(ws, stage)
    assert (find(Shelf(ws), ["stage"])["problem"] == "").all()
    left = without(whole)
    write_table(ws.stage_dir(stage) / tables.SAMPLES_NAME, left, tables.TRAINING_SAMPLES)
    lost = sorted(set(whole["sample_id"]) - set(left["sample_id"]))
    problems = find(Shelf(ws), ["stage"])["problem"]
    assert [text.split()[0] for text in problems if text] == lost
    excluded = Exclusions(stage)
    for item in lost[1:]:
        excluded.add(item, "damaged_image", "x")
    excluded.write(ws, stage)
    problems = find(Shelf(ws), ["stage"])["problem"]
    assert [text.split()[0] for text in problems if text] == lost[:1]


def test_a_validation_crop_that_is_trained_on_is_named(ws):
    rows = write_used(ws, "flame_regressor").assign(split="train")
    path = ws.stage_dir("flame_regressor") / tables.SAMPLES_NAME
    moved = write_used(ws, "flame_regressor")["split"].eq("val").sum()
    write_table(path, rows, tables.TRAINING_SAMPLES)
    problems = training_account("flame_regressor").find(Shelf(ws), ["stage"])["problem"]
    told = [text for text in problems if text]
    assert len(told) == moved > 0
    assert told[0].endswith("of val was used as train")


@pytest.mark.parametrize("what", ["poses", "crops"])
def test_a_count_that_a_stage_reports_hides_no_lost_row(ws, what):
    shards = CROPS if what == "crops" else SHARDS
    rows = rows_of(what, shards[1])
    key = LOSERS[what][2]
    fewer = rows[rows[key] != rows[key].iloc[-1]]
    write_table(ws.table_path(what, shards[1]), fewer, SHARDED[what][2])
    marker = ws.stage_dir(what) / f"{shards[1]}.json"
    write_json(marker, {"num_in": NUM - 1, "num_out": NUM - 1, "num_excluded": 0})
    assert [text.split()[0] for text in told(ws, what)] == [rows[key].iloc[-1]]
    write_json(marker, {"num_in": NUM, "num_out": NUM, "num_excluded": 0})
    put_back(ws, what, shards[1])


def test_every_variant_of_a_pose_is_expected_even_if_all_second_ones_are_lost(ws):
    path = ws.root / "params.yaml"
    text = path.read_text()
    path.write_text(f"{text}captions: {{variants_per_pose: 2}}\n")
    found = told(ws, "captions")
    path.write_text(text)
    assert len(found) == NUM * len(SHARDS)
    assert found[0].startswith("image-00000-00000-v1 is lost")


def test_every_stage_that_writes_rows_is_among_them():
    """A new stage that is made in shards needs a case here."""
    covered = {
        "poses", "captions", "images", "crops", "annotations", "labels", "filtered_dataset",
    }  # fmt: skip
    assert {name for name, stage in STAGES.items() if stage.sharded} <= covered
