"""Any COCO file of heads or faces: boxes of one category.

An image's id is its `file_name`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ml.benchmarks.files import (
    UnreadableBenchmarkFile,
    find_path,
    image_loader,
    read_json,
)
from ml.benchmarks.samples import BenchmarkSample, BrokenAnnotation, FaceBoxes, checked
from ml.imaging.boxes import xywh_to_xyxy
from ml.records import reasons
from ml.records.exclusions import Exclusions

NAME = "coco"
_PLACES = ("annotations.json", "annotations/*.json", "*.json")


def read_coco_boxes(root: Path, exclusions: Exclusions) -> Iterator[BenchmarkSample[FaceBoxes]]:
    """Yield the images of a COCO detection file that has one category.

    Unlike `ml.labels.coco`, which guards our own labels, it takes boxes that leave the image and a
    category of any name, as files of other projects have them.

    Args:
        root: the file, or a folder with `annotations.json`; images are below the folder or its
            `images`.
        exclusions: receives annotations without a usable box.

    Yields:
        Images in the file's order; crowds are ignored.

    Raises:
        MissingBenchmarkFile: there is no such file.
        UnreadableBenchmarkFile: it is no COCO file, or has several categories in use.
    """
    root = Path(root)
    path = root if root.is_file() else find_path(root, _PLACES, "COCO annotations")
    content = read_json(path)
    absent = {"images", "annotations"} - (set(content) if isinstance(content, dict) else set())
    if absent:
        raise UnreadableBenchmarkFile(f"{path}: missing {', '.join(sorted(absent))}")
    boxes = _boxes_by_image(path, content["annotations"], exclusions)
    for image in content["images"]:
        try:
            name, rows = str(image["file_name"]), boxes.get(image["id"], [])
        except (TypeError, KeyError) as error:
            raise UnreadableBenchmarkFile(f"{path}: an image is missing {error}") from error
        truth = FaceBoxes(
            xywh_to_xyxy(np.array([row for row, _ in rows], np.float64).reshape(-1, 4)),
            ignore=np.array([crowd for _, crowd in rows], bool),
        )
        yield BenchmarkSample(name, image_loader(_image_path(path.parent, name)), truth)


def _boxes_by_image(
    path: Path, annotations: Any, exclusions: Exclusions
) -> dict[Any, list[tuple[np.ndarray, bool]]]:
    boxes: dict[Any, list[tuple[np.ndarray, bool]]] = defaultdict(list)
    categories = set()
    for number, entry in enumerate(annotations):
        try:
            box = checked("bbox", entry["bbox"], (4,))
            if (box[2:] <= 0).any():
                raise BrokenAnnotation(f"bbox has no area: {box.tolist()}")
            crowd = bool(entry.get("iscrowd", 0)) or bool(entry.get("ignore", 0))
            boxes[entry["image_id"]].append((box, crowd))
            categories.add(entry.get("category_id"))
        except (BrokenAnnotation, TypeError, KeyError, AttributeError) as error:
            exclusions.add(f"annotation {number}", reasons.DAMAGED_ANNOTATION, str(error))
    if len(categories) > 1:
        raise UnreadableBenchmarkFile(
            f"{path}: expected boxes of one category, got {sorted(map(str, categories))}"
        )
    return boxes


def _image_path(folder: Path, name: str) -> Path:
    places = [folder / "images" / name, folder / name, folder.parent / "images" / name]
    return next((place for place in places if place.is_file()), folder.parent / name)
