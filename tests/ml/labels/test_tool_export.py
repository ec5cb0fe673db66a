"""Export to a labelling tool and back: nothing moves, and errors are named."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pytest

from ml.imaging.io import decode_image
from ml.labels.coco import read_coco
from ml.labels.tool_export import CVAT_FILE, STUDIO_FILE, agreement_order, export_for_labelling
from ml.labels.tool_import import LabelImportError, import_labels, map_labels
from ml.records.exclusions import Exclusions
from ml.records.tables import HEADS, IMAGES, read_stage
from ml.stages.labels import LabelsConfig, run

LABELLED = {"image-a0", "image-a1", "image-a2", "image-a3", "image-b0", "image-b2"}


@pytest.fixture
def exported(dataset, tmp_path):
    target = tmp_path / "labelling"
    report = export_for_labelling(dataset, target, count=20, fraction_worst=0.5)
    assert (report.num_in, report.num_out) == (6, 6)
    return target


def imported(ws, path):
    exclusions = Exclusions("labels")
    result = import_labels(path, read_stage(ws, "images", IMAGES), exclusions)
    return result, exclusions.to_frame()


def finished(target):
    """What Label Studio exports when the annotator only confirmed the predictions."""
    tasks = json.loads((target / STUDIO_FILE).read_text())
    for task in tasks:
        task["annotations"] = [{"result": task["predictions"][0]["result"]}]
    return tasks


def write(tmp_path, value):
    path = tmp_path / "back.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def boxes_by_id(result):
    return {
        image.sample_id: [box.bbox_xywh for box in data.boxes_of(image.image_id)]
        for data in result.datasets.values()
        for image in data.images
    }


def test_both_tools_bring_the_boxes_back_unmoved(exported, dataset, tmp_path):
    heads = read_stage(dataset, "annotations", HEADS)
    for path in (exported / CVAT_FILE, write(tmp_path, finished(exported))):
        result, excluded = imported(dataset, path)
        assert len(excluded) == 0
        found = boxes_by_id(result)
        # The held-out test image belongs to the benchmark.
        assert set(found) == LABELLED
        assert found["image-b0"] == []
        for sample_id, boxes in found.items():
            expected = heads[heads["sample_id"] == sample_id]["bbox_xywh"]
            assert len(boxes) == len(expected)
            for box, wanted in zip(boxes, expected, strict=True):
                np.testing.assert_allclose(box, wanted, atol=0.01)
        assert {i.sample_id for i in result.datasets["val"].images} == {"image-a1", "image-b0"}
        assert len(result.sha256) == 64


def test_the_folder_serves_tools_and_eyes(exported):
    labels = ET.parse(exported / "label_studio.xml").getroot()
    assert [label.get("value") for label in labels.iter("Label")] == ["head"]
    coco = read_coco(exported / CVAT_FILE)
    for image in coco.images:
        assert decode_image(exported / "images" / image.file_name).shape == (90, 120, 3)
    page = (exported / "index.html").read_text()
    assert page.count("<figure>") == 6
    assert page.count("<rect") == len(coco.boxes) == 9
    assert "http" not in page


def test_worst_agreement_comes_first():
    verdicts = pd.DataFrame(
        {
            "sample_id": ["calm", "shaky", "lost", "none"],
            "num_heads": [2, 2, 3, 0],
            "num_heads_flipped": [2, 2, 1, 0],
            "stability": [0.9, 0.3, 0.9, np.nan],
        }
    )
    assert agreement_order(verdicts)["sample_id"].tolist() == ["lost", "shaky", "none", "calm"]


def test_every_fault_has_its_reason(exported, dataset, tmp_path):
    tasks = {task["data"]["sample_id"]: task for task in finished(exported)}

    def value(name):
        return tasks[name]["annotations"][0]["result"][0]["value"]

    value("image-a0")["x"] = 95
    value("image-a1")["width"] = 0
    value("image-a2")["rotation"] = 30
    tasks["image-a3"]["annotations"] = [{"result": [], "was_cancelled": True}]
    # Not an image without heads: its regions are lost.
    tasks["image-b0"]["annotations"] = [{"result": None}]
    twice = tasks["image-b2"]["annotations"][0]["result"]
    twice.append({**twice[0], "id": "again"})
    stranger = {"data": {"image": "x/unknown.jpg"}, "annotations": [{"result": []}]}
    held_out = {"data": {"image": "x/image-b1.jpg"}, "annotations": [{"result": []}]}
    back = [*tasks.values(), tasks["image-b2"], stranger, held_out, {"data": 3}]
    result, excluded = imported(dataset, write(tmp_path, back))
    reasons = dict(zip(excluded["sample_id"], excluded["reason"], strict=True))
    assert reasons == {
        "image-a0": "box_outside",
        "image-a1": "damaged_box",
        "image-a2": "rotated_box",
        "image-a3": "not_annotated",
        "image-b0": "damaged_entry",
        "image-b2": "duplicate_image",
        "image-b2#3": "duplicate_box",
        "unknown": "unknown_image",
        "image-b1": "test_image",
        f"tasks[{len(back) - 1}]": "damaged_entry",
    }
    assert boxes_by_id(result).keys() == {"image-b2"}
    assert len(result.sample_ids) == len(back) == 1 + (len(reasons) - 1)
    detail = excluded.set_index("sample_id")["detail"]["image-a0"]
    assert "leaves the 120x90 image by" in detail


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty; export the project again"),
        ("{", "not valid JSON"),
        ("3", "expected COCO's object or Label Studio's list, got int"),
        ("{}", r"missing or no lists: \['annotations', 'categories', 'images'\]"),
        (
            '{"images": [], "annotations": [], "categories": [{"id": 1, "name": "face"}]}',
            "no category 'head'",
        ),
        ("[]", "no usable image among 0"),
        (
            '{"images": [], "annotations": [{"image_id": 7}], '
            '"categories": [{"id": 1, "name": "head"}]}',
            r"annotations\[0\] belongs to no image of the file",
        ),
    ],
)
def test_files_that_cannot_be_used(dataset, tmp_path, content, message):
    with pytest.raises(LabelImportError, match=message):
        imported(dataset, write(tmp_path, content))
    with pytest.raises(LabelImportError, match="no readable file"):
        imported(dataset, tmp_path / "none.json")


def change_first(tasks, **changes):
    """Change the first region of the first task that has one; returns the image's id."""
    task = next(t for t in tasks if t["annotations"][0]["result"])
    region = task["annotations"][0]["result"][0]
    region["value"] |= changes.pop("value", {})
    region.update(changes)
    return task["data"]["sample_id"]


@pytest.mark.parametrize(
    ("changes", "reason", "words"),
    [
        ({"type": "polygonlabels"}, "unknown_region", "type 'polygonlabels'"),
        ({"type": "ellipselabels"}, "unknown_region", "type 'ellipselabels'"),
        ({"type": "rectangle"}, "unknown_region", "type 'rectangle'"),
        ({"value": {"rectanglelabels": ["face"]}}, "unknown_region", "called face"),
        ({"value": {"rectanglelabels": ["head", "cat"]}}, "unknown_region", "called cat, head"),
        ({"value": {"rectanglelabels": []}}, "unknown_region", "called nothing"),
        ({"value": {"rotation": 12}}, "rotated_box", "is rotated"),
    ],
)
def test_an_image_with_a_region_that_is_not_understood_is_no_negative(
    exported, dataset, tmp_path, changes, reason, words
):
    tasks = finished(exported)
    sample_id = change_first(tasks, id="r-17", **changes)
    result, excluded = imported(dataset, write(tmp_path, tasks))
    assert sample_id not in boxes_by_id(result)
    (row,) = excluded.to_dict("records")
    assert (row["sample_id"], row["reason"]) == (sample_id, reason)
    assert "region 'r-17'" in row["detail"]
    assert words in row["detail"]


def test_remarks_on_the_whole_image_are_no_regions(exported, dataset, tmp_path):
    tasks = finished(exported)
    for task in tasks:
        task["annotations"][0]["result"].append({"type": "choices", "value": {"choices": ["ok"]}})
    result, excluded = imported(dataset, write(tmp_path, tasks))
    assert len(excluded) == 0
    assert sum(map(len, boxes_by_id(result).values())) > 0


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"category_id": 5}, "unknown_region"),
        ({"category_id": None}, "unknown_region"),
        ({"attributes": {"rotation": 20.0}}, "rotated_box"),
        ({"rotation": -3}, "rotated_box"),
        ({"bbox": [1, 2, 3, 4, 0.5]}, "damaged_box"),
    ],
)
def test_coco_boxes_of_another_class_or_turned_exclude_their_image(
    exported, dataset, tmp_path, change, reason
):
    coco = json.loads((exported / CVAT_FILE).read_text())
    coco["categories"].append({"id": 5, "name": "dog"})
    coco["annotations"][0].update(change, id=4711)
    names = {image["id"]: image["sample_id"] for image in coco["images"]}
    result, excluded = imported(dataset, write(tmp_path, coco))
    (row,) = excluded.to_dict("records")
    assert row["sample_id"] == names[coco["annotations"][0]["image_id"]]
    assert row["sample_id"] not in boxes_by_id(result)
    assert row["reason"] == reason
    assert "annotation 4711" in row["detail"]


def test_a_file_without_heads_is_refused_or_mapped(exported, dataset, tmp_path):
    expected, _ = imported(dataset, write(tmp_path, finished(exported)))
    tasks = finished(exported)
    for task in tasks:
        for region in task["annotations"][0]["result"]:
            region["value"]["rectanglelabels"] = ["Gesicht"]
        task["annotations"][0]["result"] += [
            {"type": "rectanglelabels", "value": {"rectanglelabels": ["hat"]}}
        ]
    coco = json.loads((exported / CVAT_FILE).read_text())
    coco["categories"] = [{"id": 1, "name": "Gesicht"}, {"id": 2, "name": "hat"}]
    hat = {"id": 99, "image_id": 1, "category_id": 2, "bbox": [0, 0, 1, 1]}
    coco["annotations"].append(hat)
    for content in (tasks, coco):
        path = write(tmp_path, content)
        with pytest.raises(LabelImportError, match=r"gesicht|Gesicht.*--label NAME"):
            imported(dataset, path)
        path.write_bytes(map_labels(path.read_bytes(), ["head", "gesicht"], ["Hat"]))
        result, excluded = imported(dataset, path)
        assert len(excluded) == 0
        found = boxes_by_id(result)
        assert found.keys() == boxes_by_id(expected).keys()
        for name, boxes in boxes_by_id(expected).items():
            assert found[name] == [pytest.approx(box, abs=0.01) for box in boxes]


def test_the_labels_stage_reads_the_file(exported, dataset):
    (dataset.root / "labels").mkdir()
    path = dataset.root / "labels" / "back.json"
    path.write_bytes((exported / CVAT_FILE).read_bytes())
    config = LabelsConfig(source="file", file="labels/back.json", preview_images=2)
    report = run(dataset, config)
    assert (report.num_in, report.num_out) == (6, 6)
    assert len(read_coco(dataset.stage_dir("labels") / "train.json").images) == 4
    assert "back.json" in read_coco(dataset.stage_dir("labels") / "val.json").description
    with pytest.raises(ValueError, match="import it again with `vggheads label-import`"):
        run(dataset, config.model_copy(update={"file_sha256": "0" * 64}))
    with pytest.raises(ValueError, match="source file needs file"):
        LabelsConfig(source="file")


def test_wrong_requests(dataset, tmp_path):
    with pytest.raises(ValueError, match="a count of at least 1"):
        export_for_labelling(dataset, tmp_path / "x", count=0)
