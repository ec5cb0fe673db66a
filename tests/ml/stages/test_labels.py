"""Stage `labels`: a seeded sample of train and val, ignored heads marked, damage excluded."""

import numpy as np
import pandas as pd
import pytest

from ml.imaging.io import decode_image, encode_jpeg
from ml.labels.coco import CocoImage, read_coco
from ml.records.exclusions import LostSamples, TooManyExcluded, read_exclusions
from ml.records.ids import sample_rng
from ml.records.shards import shard_writer
from ml.records.tables import IMAGES, TRUTH, read_table, write_table
from ml.records.workspace import Workspace
from ml.stages import labels
from ml.stages.labels import LabelsConfig, draw_order, to_coco_boxes

IMAGE = CocoImage(1, "shard-00000/x.jpg", 64, 48, "shard-00000", "x")
SPLITS = ("train",) * 6 + ("val",) * 2 + ("test",) * 2


def head(sample_id="x", head_id=0, bbox=(10, 10, 20, 20), visible=1.0, inside=1.0, split="train"):
    return {
        "sample_id": sample_id,
        "head_id": head_id,
        "person_id": head_id,
        "split": split,
        "bbox_xywh": np.array(bbox, np.float32),
        "visible": visible,
        "inside": inside,
        "flame": np.zeros(413, np.float32),
        "skin_tone": 5,
        "hair_style": "short",
        "glasses": "none",
        "hat": "none",
        "head_model": "0" * 64,
    }


def write_shard(ws, shard, damaged=()):
    """Ten 64x48 images with one head each."""
    images, heads = [], []
    with shard_writer(ws.stage_dir("images") / f"{shard}.tar") as writer:
        for index, split in enumerate(SPLITS):
            sample_id = f"{shard}-{index}"
            rng = sample_rng(0, "test", sample_id)
            pixels = rng.integers(0, 255, (48, 64, 3)).astype(np.uint8)
            data = encode_jpeg(pixels)
            data = data[: len(data) // 2] if sample_id in damaged else data
            span = writer.add(sample_id, {"jpg": data, "json": {}})["jpg"]
            images.append(
                {
                    "sample_id": sample_id, "pose_id": sample_id, "split": split, "shard": shard,
                    "width": 64, "height": 48, "offset": span.offset, "size": span.size,
                    "sha256": "0", "seed": 1, "generator": "test", "num_people": 1,
                    "mean_luma": 100.0,
                }
            )  # fmt: skip
            heads.append(head(sample_id, split=split))
    write_table(ws.table_path("images", shard), pd.DataFrame(images), IMAGES)
    write_table(ws.table_path("truth", shard), pd.DataFrame(heads), TRUTH)


def workspace(tmp_path, damaged=()):
    ws = Workspace(tmp_path, seed=3, num_shards=2, shard_size=10)
    for shard in ws.shards:
        write_shard(ws, shard, damaged)
    return ws


def test_labels_are_a_sample_of_train_and_val(tmp_path):
    ws = workspace(tmp_path)
    report = labels.run(ws, LabelsConfig(num_train=7, num_val=3))
    assert (report.num_in, report.num_out) == (10, 10)
    tables = pd.concat([read_table(ws.table_path("images", s), IMAGES) for s in ws.shards])
    split_of = dict(zip(tables["sample_id"], tables["split"], strict=True))
    for split, wanted in (("train", 7), ("val", 3)):
        dataset = read_coco(ws.stage_dir("labels") / f"{split}.json")
        assert len(dataset.images) == wanted
        assert {split_of[image.sample_id] for image in dataset.images} == {split}
        for image in dataset.images:
            assert image.file_name == f"{image.shard}/{image.sample_id}.jpg"
            assert dataset.boxes_of(image.image_id)[0].bbox_xywh == (10, 10, 20, 20)
    assert report.tables["by_split"]["heads"].tolist() == [7, 3]
    assert decode_image(report.images["boxes"]).shape[2] == 3


def test_fewer_images_than_wanted_gives_all(tmp_path):
    report = labels.run(workspace(tmp_path), LabelsConfig(num_train=500, num_val=500))
    assert report.tables["by_split"]["images"].tolist() == [12, 4]


def test_same_bytes_twice(tmp_path):
    ws = workspace(tmp_path)

    def run():
        labels.run(ws, LabelsConfig(num_train=5, num_val=2))
        return [p.read_bytes() for p in sorted(ws.stage_dir("labels").rglob("*")) if p.is_file()]

    assert run() == run()


def test_more_images_do_not_reshuffle(tmp_path):
    ws = workspace(tmp_path)
    tables = [read_table(ws.table_path("images", shard), IMAGES) for shard in ws.shards]
    few = draw_order(tables[0], 3)["sample_id"].tolist()
    many = draw_order(pd.concat(tables), 3)["sample_id"].tolist()
    assert [sample for sample in many if sample in few] == few
    assert few != sorted(few)
    assert few != draw_order(tables[0], 4)["sample_id"].tolist()


def test_truncated_image_is_excluded_and_replaced(tmp_path):
    ws = workspace(tmp_path, damaged=("shard-00001-0",))
    report = labels.run(ws, LabelsConfig(num_train=12, num_val=2))
    # Of 12 train images one is damaged: 11 train and 2 val remain.
    assert (report.num_in, report.num_out, report.num_excluded) == (14, 13, 1)
    excluded = read_exclusions(ws, ["labels"])
    assert excluded["sample_id"].tolist() == ["shard-00001-0"]
    assert excluded["reason"].tolist() == ["damaged_image"]
    assert "shard-00001.tar/shard-00001-0.jpg: JPEG is truncated" in excluded["detail"].iloc[0]
    names = [image.sample_id for image in read_coco(ws.stage_dir("labels") / "train.json").images]
    assert len(names) == 11
    assert "shard-00001-0" not in names


def test_a_drawn_image_that_is_lost_is_named(tmp_path, monkeypatch):
    ws = workspace(tmp_path)
    read = labels.read_image

    def loses_one(reader, sample_id, exclusions):
        return None if sample_id == "shard-00001-3" else read(reader, sample_id, exclusions)

    monkeypatch.setattr(labels, "read_image", loses_one)
    with pytest.raises(LostSamples, match=r"neither used nor excluded: shard-00001-3$"):
        labels.run(ws, LabelsConfig(num_train=50, num_val=50))


def test_image_of_another_size_is_excluded(tmp_path):
    ws = workspace(tmp_path)
    path = ws.table_path("images", "shard-00000")
    table = read_table(path, IMAGES)
    table.loc[0, "width"] = 65
    write_table(path, table, IMAGES)
    labels.run(ws, LabelsConfig(num_train=50, num_val=50))
    excluded = read_exclusions(ws, ["labels"])
    assert excluded["reason"].iloc[0] == "other_size"
    assert "image is 64x48 px, expected 65x48" in excluded["detail"].iloc[0]


def test_too_much_damage_fails_the_stage(tmp_path):
    damaged = tuple(f"shard-0000{shard}-{index}" for shard in (0, 1) for index in range(3))
    with pytest.raises(
        TooManyExcluded, match=r"labels: 6 of 16 drawn images excluded, more than .* 0.1"
    ):
        labels.run(workspace(tmp_path, damaged), LabelsConfig(num_train=50, num_val=50))


def test_split_without_images_fails_with_advice(tmp_path):
    damaged = tuple(f"shard-0000{shard}-{index}" for shard in (0, 1) for index in (6, 7))
    with pytest.raises(ValueError, match=r"no readable image of split val among 4; make more"):
        labels.run(workspace(tmp_path, damaged), LabelsConfig())


@pytest.mark.parametrize(
    ("changes", "ignored"),
    [
        ({}, False),
        ({"visible": 0.19}, True),
        ({"visible": 0.2}, False),
        ({"inside": 0.3}, True),
        ({"bbox": (10, 10, 20, 9.5)}, True),
    ],
)
def test_heads_hardly_seen_are_ignored(changes, ignored):
    (box,) = to_coco_boxes(pd.DataFrame([head(**changes)]), IMAGE, 5, LabelsConfig())
    assert (box.annotation_id, box.ignore) == (5, ignored)


def test_boxes_are_clipped_and_unseen_heads_have_none():
    rows = pd.DataFrame(
        [
            head(head_id=0, bbox=(-5, -5, 20, 30)),
            head(head_id=1, visible=0.0),
            head(head_id=2, bbox=(70, 0, 5, 5)),
            head(head_id=3, bbox=(50, 40, 20, 20)),
        ]
    )
    boxes = to_coco_boxes(rows, IMAGE, 1, LabelsConfig(min_height_px=0))
    assert [box.bbox_xywh for box in boxes] == [(0, 0, 15, 25), (50, 40, 14, 8)]
    assert [box.annotation_id for box in boxes] == [1, 2]


def test_no_heads_no_boxes():
    empty = pd.DataFrame(columns=[column.name for column in TRUTH.columns])
    assert to_coco_boxes(empty, IMAGE, 1, LabelsConfig()) == []
