"""COCO files: round trip, pycocotools reads them, every defect is named."""

import io
import json
from contextlib import redirect_stdout

import pytest
from pycocotools.coco import COCO

from ml.labels.coco import CocoBox, CocoDataset, CocoError, CocoImage, read_coco, write_coco

IMAGES = (
    CocoImage(1, "shard-00000/image-a.jpg", 64, 48, "shard-00000", "image-a"),
    CocoImage(2, "shard-00000/image-b.jpg", 64, 48, "shard-00000", "image-b"),
    CocoImage(3, "shard-00001/image-c.jpg", 32, 32, "shard-00001", "image-c"),
)
BOXES = (
    CocoBox(1, 1, (1.0, 2.0, 10.0, 12.0)),
    CocoBox(2, 1, (30.5, 4.0, 8.25, 9.0), ignore=True),
    CocoBox(3, 3, (0.0, 0.0, 32.0, 32.0)),
)
DATASET = CocoDataset(IMAGES, BOXES, "heads")


def test_round_trip_and_same_bytes(tmp_path):
    write_coco(tmp_path / "a.json", DATASET)
    write_coco(tmp_path / "b.json", read_coco(tmp_path / "a.json"))
    assert read_coco(tmp_path / "a.json") == DATASET
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_boxes_by_image():
    assert [len(DATASET.boxes_of(index)) for index in (1, 2, 3)] == [2, 0, 1]
    with pytest.raises(CocoError, match="no image with id 9 among 3 images"):
        DATASET.boxes_of(9)


def test_pycocotools_reads_it(tmp_path):
    write_coco(tmp_path / "a.json", DATASET)
    with redirect_stdout(io.StringIO()):
        coco = COCO(tmp_path / "a.json")
    assert coco.getCatIds(["head"]) == [1]
    assert coco.getAnnIds(imgIds=[1], iscrowd=True) == [2]
    assert coco.loadAnns([3])[0]["area"] == 1024


def test_empty_dataset_is_allowed(tmp_path):
    write_coco(tmp_path / "a.json", CocoDataset((), ()))
    assert read_coco(tmp_path / "a.json").images == ()


def raw(**changes):
    entry = {
        "categories": [{"id": 1, "name": "head"}],
        "images": [{"id": 1, "file_name": "shard-00003/image-x.jpg", "width": 20, "height": 10}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5]}],
    }
    return {**entry, **changes}


def read_raw(tmp_path, value):
    path = tmp_path / "back.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return read_coco(path)


def test_shard_and_sample_come_from_the_file_name(tmp_path):
    (image,) = read_raw(tmp_path, raw()).images
    assert (image.shard, image.sample_id) == ("shard-00003", "image-x")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("{", "back.json is not valid JSON"),
        ("[]", "expected an object at the top"),
        ({"images": []}, r"keys \['annotations', 'categories'\] are missing"),
        (raw(categories=[{"id": 2, "name": "face"}]), r"expected the one category .*'face'"),
        (raw(images=[{"id": 1}]), "an entry has no key 'file_name'"),
        (raw(annotations=[{"id": 1, "image_id": 1, "category_id": 3, "bbox": [1, 1, 2, 2]}]),
         r"annotation 1: category_id must be 1 \(head\), got 3"),
        (raw(annotations=[{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 2]}]),
         "annotation 1: bbox needs 4 numbers"),
    ],
)  # fmt: skip
def test_broken_files_say_what_is_wrong(tmp_path, value, message):
    with pytest.raises(CocoError, match=message):
        read_raw(tmp_path, value)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(CocoError, match=r"no file .*gone.json; run the labels stage"):
        read_coco(tmp_path / "gone.json")


@pytest.mark.parametrize(
    ("images", "boxes", "message"),
    [
        (IMAGES[:1] * 2, (), r"image id 1 is used 2 times.*file_name '.*' is used 2 times"),
        (IMAGES, BOXES[:1] * 2, "annotation id 1 is used 2 times"),
        (IMAGES, (CocoBox(1, 7, (0, 0, 1, 1)),), "annotation 1: no image with id 7"),
        (IMAGES, (CocoBox(1, 1, (0, 0, 0, 4)),), "has no area"),
        (IMAGES, (CocoBox(1, 1, (0, 0, float("nan"), 4)),), "is not finite"),
        (IMAGES, (CocoBox(1, 1, (60, 0, 9, 4)),), r"leaves the 64x48 image by 5.0 px"),
        ((CocoImage(1, "a/b.jpg", 0, 5, "a", "b"),), (), "has size 0x5"),
    ],
)
def test_invalid_datasets_are_refused(images, boxes, message):
    with pytest.raises(CocoError, match=message):
        CocoDataset(images, boxes)


def test_a_rounded_pixel_of_overhang_is_allowed():
    assert CocoDataset(IMAGES, (CocoBox(1, 1, (-0.5, 0, 65.0, 48.0)),)).boxes
