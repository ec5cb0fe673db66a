"""One's own boxes with a teacher's parameters become a release of one's own."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from ml.annotation.own_boxes import BoxesError, label_own_boxes
from ml.imaging.io import encode_jpeg, encode_png
from ml.records.exclusions import Exclusions
from ml.records.tables import DATASET_HEADS, IMAGES, read_stage, read_table
from ml.records.workspace import Workspace
from ml.release.official_import import import_official
from ml.release.official_writer import write_official
from tests.fixtures.tiny_world import frontal_flame


class Teacher:
    """Sees a frontal head in the middle of every crop; has no answer for dark ones."""

    name, sha256, crop_size, box_margin = "teacher", "0", 64, 0.25

    def predict(self, crops):
        flame = np.stack([frontal_flame(32, 32, 120) for _ in crops])
        dark = crops.float().mean(dim=(1, 2, 3)).numpy() < 20
        flame[dark] = np.nan
        return torch.from_numpy(flame)


@pytest.fixture
def own(tmp_path):
    """Eight images: seven good for something, each in its own way, and one that is gone."""
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    bright, dark = np.full((100, 120, 3), 150, np.uint8), np.zeros((100, 120, 3), np.uint8)
    names = ["a.jpg", "b.png", "sub/c.v2.jpg", "dark.jpg", "none.jpg", "bad.jpg", "A.JPG", "x.jpg"]
    for name in names[:-1]:
        image = dark if name == "dark.jpg" else bright
        data = encode_png(image) if name.endswith("png") else encode_jpeg(image)
        (folder / name).write_bytes(data)
    boxes = {
        1: [[10, 20, 40, 40], [60, 20, 8, 8]],
        2: [[-5, 20, 40, 50]],
        3: [[10, 20, 40, 40]],
        4: [[10, 20, 40, 40]],
        6: [[10, 20, 40, 40], [200, 20, 30, 30]],
        7: [[10, 20, 40, 40]],
    }
    images = [{"id": n, "file_name": name} for n, name in enumerate(names, start=1)]
    flat = [
        {"image_id": n, "category_id": 7, "bbox": box, "iscrowd": 0, "area": 1.0}
        for n, of_image in boxes.items()
        for box in of_image
    ]
    flat.append({"image_id": 1, "category_id": 3, "bbox": [0, 0, 120, 100], "iscrowd": 0})
    flat.append({"image_id": 3, "category_id": 7, "bbox": [60, 20, 40, 40], "iscrowd": 1})
    annotations = [{**row, "id": n} for n, row in enumerate(flat, start=1)]
    categories = [{"id": 3, "name": "person"}, {"id": 7, "name": "Kopf"}]
    path = tmp_path / "boxes.json"
    path.write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    return folder, path


def label(own, heads=("Kopf",)):
    exclusions = Exclusions("own")
    items = {i.sample_id: i for i in label_own_boxes(*own, Teacher(), heads, 14.0, exclusions)}
    rows = exclusions.to_frame()
    return items, dict(zip(rows["sample_id"], rows["reason"], strict=True))


def test_boxes_get_the_teachers_parameters_in_image_pixels(own):
    items, excluded = label(own)
    assert set(items) == {"a", "b", "sub_c_v2", "dark", "none"}
    assert excluded == {
        "A": "duplicate",
        "bad": "damaged_box",
        "dark#0": "non_finite",
        "x": "damaged_image",
    }
    # Worked by hand: box 40 wide from (10, 20), 25 % more on each side is a crop of 60 from
    # (0, 10); the middle of 64 crop pixels is its middle.
    head = items["a"].flame[0]
    np.testing.assert_allclose(head[409:411], [30, 40], atol=0.6)
    np.testing.assert_allclose(head[412], 120 * 60 / 64, rtol=0.02)
    assert items["a"].flame_valid.tolist() == [True, False], "8 px are too few to be labelled"
    assert items["b"].boxes_xyxy.tolist() == [[0, 20, 35, 70]]
    assert items["b"].jpeg.startswith(b"\xff\xd8\xff")
    assert items["sub_c_v2"].flame_valid.tolist() == [True, False], "a crowd is ignored"
    assert items["dark"].flame_valid.tolist() == [False]
    assert len(items["none"]) == 0


def test_a_release_of_ones_own_is_imported_like_the_published_one(own, tmp_path):
    exclusions = Exclusions("own")
    write_official(
        label_own_boxes(*own, Teacher(), ["Kopf"], 14.0, exclusions), tmp_path / "sources"
    )
    report = import_official(tmp_path / "sources", tmp_path / "project")
    assert report.num_out == 5
    ws = Workspace(tmp_path / "project", 0, report.metadata["num_splits"], 1)
    assert set(read_stage(ws, "images", IMAGES)["sample_id"]) == set(label(own)[0])
    heads = read_table(ws.stage_dir("filtered_dataset") / "heads.parquet", DATASET_HEADS)
    assert heads["flame_status"].value_counts().to_dict() == {"ok": 3, "small": 3}


def test_unusable_box_files_are_reported(own, tmp_path):
    with pytest.raises(BoxesError, match=r"none of its categories \['Kopf', 'person'\] is one of"):
        label(own, ("head",))
    for text in ("", "[]", "{}", '{"images": 3}'):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(BoxesError, match=r"bad\.json"):
            label((own[0], tmp_path / "bad.json"))
    with pytest.raises(BoxesError, match="no such file"):
        label((own[0], tmp_path / "gone.json"))
