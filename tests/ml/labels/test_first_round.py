"""The first images to label: spread over groups, with boxes from poses or faces, back again."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from ml.labels.coco import read_coco
from ml.labels.first_round import (
    PreBoxes,
    boxes_of_poses,
    choose_first,
    head_box,
    heads_from_faces,
)
from ml.labels.tool_export import CVAT_FILE, STUDIO_FILE, export_first_round
from ml.labels.tool_import import import_labels
from ml.records.exclusions import Exclusions
from ml.records.tables import IMAGES, POSES, read_stage, write_table
from ml.records.workspace import Workspace


def skeleton(x: float, y: float, size: float) -> np.ndarray:
    """A frontal person whose eyes are `size` apart, nose at (x, y)."""
    points = np.zeros((17, 3))
    points[:, 2] = 1
    points[0, :2] = x, y
    points[1:5, 0] = x + size * np.array([0.5, -0.5, 1, -1])
    points[1:5, 1] = y - 0.3 * size
    points[5:7, 0] = x + 2.4 * size * np.array([1, -1])
    points[5:7, 1] = y + 2.5 * size
    return points


def images_table(rows: list[tuple[str, str, int, int]]) -> pd.DataFrame:
    """Rows of id, split, number of people, width."""
    return pd.DataFrame(
        [
            {
                "sample_id": name,
                "pose_id": f"pose-{name}",
                "split": split,
                "num_people": people,
                "width": width,
                "height": width,
                "shard": "shard-00000",
            }
            for name, split, people, width in rows
        ]
    )


@pytest.fixture
def ws(dataset: Workspace) -> Workspace:
    """The small dataset, of whose images the skeletons are known."""
    for shard in dataset.shards:
        images = read_stage(dataset, "images", IMAGES, [shard])
        rows = [
            {
                "pose_id": row["pose_id"],
                "person_id": person,
                "split": row["split"],
                "width": 120,
                "height": 90,
                "num_people": row["num_people"],
                "layout": "portrait",
                "depth": 0,
                "keypoints": skeleton(30 + 40 * person, 40, 8).reshape(-1),
                **dict.fromkeys(
                    ("joints_m", "head_rotation", "scale_px_per_m", "shift_px", "head_centre_m")
                ),
            }
            for row in images.to_dict("records")
            for person in range(row["num_people"])
        ]
        frame = pd.DataFrame(rows).astype({"scale_px_per_m": "float64"})
        write_table(dataset.table_path("poses", shard), frame, POSES)
    return dataset


def test_groups_take_turns_so_that_crowds_and_small_heads_are_there() -> None:
    rows = [(f"one-{n:03d}", "train", 1, 500 + n) for n in range(90)]
    rows += [(f"crowd-{n}", "train", 7, 600 + n) for n in range(4)]
    rows += [(f"val-{n}", "val", 1, 550) for n in range(10)]
    rows += [(f"held-out-{n}", "test", 3, 550) for n in range(10)]
    images = images_table(rows)
    ws = Workspace("/nowhere", seed=3, num_shards=1, shard_size=1)  # type: ignore[arg-type]
    chosen = choose_first(ws, images, 20, 0.2)
    assert chosen["split"].value_counts().to_dict() == {"train": 16, "val": 4}
    assert chosen["sample_id"].str.startswith("crowd").sum() == 4, "by chance it would be one"
    train = chosen[chosen["split"] == "train"]
    sizes = train[train["num_people"] == 1]["reason"].value_counts()
    assert set(sizes.index) == {f"1 person, {size}" for size in ("small", "medium", "large")}
    assert sizes.max() - sizes.min() <= 2
    assert set(train["reason"].iloc[:4]) >= {"1 person, small", "1 person, large"}
    # More images leave the order of those that were there as it was.
    again = choose_first(ws, images.sample(frac=1, random_state=1), 20, 0.2)
    assert set(again["sample_id"]) == set(chosen["sample_id"])
    other = choose_first(Workspace("/nowhere", 4, 1, 1), images, 20, 0.2)  # type: ignore[arg-type]
    assert set(other["sample_id"]) != set(chosen["sample_id"])


def test_sizes_are_those_of_heads_where_poses_tell() -> None:
    images = images_table([(f"i{n}", "train", 1, 500) for n in range(6)])
    boxes = {f"pose-i{n}": np.array([[0, 0, 10, 10 + 10 * n]], np.float32) for n in range(6)}
    ws = Workspace("/nowhere", 3, 1, 1)  # type: ignore[arg-type]
    chosen = choose_first(ws, images, 6, 0.0, boxes).set_index("sample_id")
    assert chosen["reason"].to_dict() == {
        "i0": "1 person, small",
        "i1": "1 person, small",
        "i2": "1 person, medium",
        "i3": "1 person, medium",
        "i4": "1 person, large",
        "i5": "1 person, large",
    }
    assert chosen["detail"]["i3"] == "40 px of a head"


def test_nothing_to_label_is_said() -> None:
    ws = Workspace("/nowhere", 3, 1, 1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no image of the splits train and val; make images first"):
        choose_first(ws, images_table([("a", "test", 1, 500)]), 5, 0.2)


def test_a_box_is_around_the_face_also_from_the_side_and_from_behind() -> None:
    frontal = head_box(skeleton(100, 80, 10))
    assert frontal is not None
    left, top, right, bottom = frontal
    assert left < 90 < 110 < right
    assert top < 77 < 80 < bottom
    # Worked by hand: ears 20 apart and 3 above the nose, 1.8 of that and 0.86 as wide.
    height = 1.8 * np.hypot(20, 3)
    assert bottom - top == pytest.approx(height, abs=0.01)
    assert right - left == pytest.approx(0.86 * height, abs=0.01)
    behind = skeleton(100, 80, 10)
    behind[:5, 2] = 0
    box = head_box(behind)
    assert box is not None
    assert (box[0] + box[2]) / 2 == pytest.approx(100)
    assert box[1] < 80 < box[3] < behind[5, 1]
    behind[5, 2] = 0
    assert head_box(behind) is None


def test_a_head_reaches_further_than_its_face() -> None:
    (head,) = heads_from_faces(np.array([[10, 20, 20, 40]]))
    assert head.tolist() == [8, 13, 22, 42]
    assert heads_from_faces(np.zeros((0, 4))).shape == (0, 4)


def test_labels_come_back_from_images_that_nothing_has_judged(ws, tmp_path) -> None:
    for name in ("annotations", "filtered_dataset"):
        for path in ws.stage_dir(name).glob("*.parquet"):
            path.unlink()
    target = tmp_path / "first"
    boxes = PreBoxes("poses", boxes_of_poses(ws))
    report = export_first_round(ws, target, boxes, count=20, val_fraction=0.3)
    assert (report.num_in, report.num_out, report.num_excluded) == (6, 6, 0)
    exported = read_coco(target / CVAT_FILE)
    assert "image-b1" not in {image.sample_id for image in exported.images}
    page = (target / "index.html").read_text()
    assert page.count("<rect") == len(exported.boxes) == 9 == report.metadata["num_boxes"]
    assert "first round, boxes from poses" in page
    assert "px of a head" in page
    tasks = json.loads((target / STUDIO_FILE).read_text())
    assert {task["predictions"][0]["model_version"] for task in tasks} == {"poses"}
    exclusions = Exclusions("labels")
    back = import_labels(target / CVAT_FILE, read_stage(ws, "images", IMAGES), exclusions)
    assert len(exclusions) == 0
    assert {s: len(d.images) for s, d in back.datasets.items()} == {"train": 4, "val": 2}
    boxes_of = {
        image.sample_id: [box.bbox_xywh for box in data.boxes_of(image.image_id)]
        for data in back.datasets.values()
        for image in data.images
    }
    left, top, right, bottom = head_box(skeleton(30, 40, 8))
    np.testing.assert_allclose(
        boxes_of["image-a1"], [[left, top, right - left, bottom - top]], atol=0.01
    )
    assert boxes_of["image-b0"] == []


def test_faces_are_looked_for_in_the_image(ws, tmp_path) -> None:
    seen = []

    def find_faces(images):
        seen.append(images[0].shape)
        return [np.array([[40, 30, 60, 60]], np.float32)]

    report = export_first_round(ws, tmp_path / "t", PreBoxes("net", {}, find_faces), 20, 0.2)
    assert report.num_out == 6
    assert seen == [(90, 120, 3)] * 6
    boxes = {box.bbox_xywh for box in read_coco(tmp_path / "t" / CVAT_FILE).boxes}
    assert boxes == {(36.0, 19.5, 28.0, 43.5)}
    assert "px of the image" in (tmp_path / "t" / "index.html").read_text()


def test_a_damaged_image_is_left_out_with_its_reason(ws, tmp_path) -> None:
    tar = ws.stage_dir("images") / "shard-00000.tar"
    data = bytearray(tar.read_bytes())
    first = read_stage(ws, "images", IMAGES, ["shard-00000"]).iloc[0]
    data[first["offset"] : first["offset"] + 40] = bytes(40)
    tar.write_bytes(bytes(data))
    report = export_first_round(ws, tmp_path / "t", PreBoxes("nobody", {}), 20, 0.2)
    assert (report.num_in, report.num_out, report.num_excluded) == (6, 5, 1)
    assert report.tables["exclusions"]["sample_id"].tolist() == [first["sample_id"]]
    with pytest.raises(ValueError, match="count of at least 1 and a fraction of val from 0 to 1"):
        export_first_round(ws, tmp_path / "t", PreBoxes("nobody", {}), 20, 1.2)
