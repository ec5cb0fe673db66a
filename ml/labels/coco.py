"""The one reader and writer of COCO detection files; the only category is `head`, id 1."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ml.records.atomic import write_text
from ml.records.limits import MAX_JSON_BYTES, check_limit

HEAD_CATEGORY_ID: Final = 1
HEAD_CATEGORY_NAME: Final = "head"
EDGE_TOLERANCE_PX: Final = 1.0
"""Boxes of labelling tools may overhang the image by a rounded pixel, not by more."""


class CocoError(ValueError):
    """A COCO detection file or dataset is not what it must be."""


@dataclass(frozen=True)
class CocoImage:
    """An image of a COCO file.

    Attributes:
        image_id: Number unique in the file, >= 1.
        file_name: `<shard>/<sample_id>.jpg`.
        width: px.
        height: px.
        shard: Image shard that holds the image.
        sample_id: Id of the image inside the shard.
    """

    image_id: int
    file_name: str
    width: int
    height: int
    shard: str
    sample_id: str


@dataclass(frozen=True)
class CocoBox:
    """A head box of a COCO file.

    Attributes:
        annotation_id: Number unique in the file, >= 1.
        image_id: Image the box belongs to.
        bbox_xywh: Left, top, width, height in px.
        ignore: True for a head to ignore: written as `iscrowd: 1, ignore: 1`, so
            that COCOeval counts it neither as missed nor as a false alarm.
    """

    annotation_id: int
    image_id: int
    bbox_xywh: tuple[float, float, float, float]
    ignore: bool = False


@dataclass(frozen=True)
class CocoDataset:
    """Images and head boxes of one split, checked when built.

    Attributes:
        images: In file order.
        boxes: In file order.
        description: Free text for `info`.

    Raises:
        CocoError: Names every offending image or annotation (up to ten).
    """

    images: tuple[CocoImage, ...]
    boxes: tuple[CocoBox, ...]
    description: str = ""
    _by_image: dict[int, tuple[CocoBox, ...]] = field(
        init=False, repr=False, compare=False, default_factory=dict
    )

    def __post_init__(self) -> None:
        """Check ids, references and boxes, then index the boxes by image."""
        problems = _problems(self.images, self.boxes)
        if problems:
            shown = "; ".join(problems[:10])
            raise CocoError(f"coco: {len(problems)} problem(s): {shown}")
        grouped: dict[int, list[CocoBox]] = {image.image_id: [] for image in self.images}
        for box in self.boxes:
            grouped[box.image_id].append(box)
        self._by_image.update({key: tuple(value) for key, value in grouped.items()})

    def boxes_of(self, image_id: int) -> tuple[CocoBox, ...]:
        """Return boxes of one image.

        Args:
            image_id: Number of the image.

        Returns:
            Its boxes in file order; empty for an image without heads.

        Raises:
            CocoError: No such image.
        """
        if image_id not in self._by_image:
            raise CocoError(f"coco: no image with id {image_id} among {len(self.images)} images")
        return self._by_image[image_id]


def write_coco(path: Path, dataset: CocoDataset) -> None:
    """Write a COCO detection file, atomically and with the same bytes for the same dataset.

    Args:
        path: Target `.json`.
        dataset: Checked images and boxes.
    """
    write_text(path, json.dumps(to_coco_dict(dataset), indent=1, sort_keys=True) + "\n")


def to_coco_dict(dataset: CocoDataset) -> dict[str, Any]:
    """Return COCO detection structure of a dataset, as pycocotools reads it.

    Args:
        dataset: Checked images and boxes.

    Returns:
        Keys `info`, `categories`, `images`, `annotations`; boxes as xywh px, area in px^2.
    """
    return {
        "info": {"description": dataset.description},
        "categories": [{"id": HEAD_CATEGORY_ID, "name": HEAD_CATEGORY_NAME}],
        "images": [
            {
                "id": image.image_id,
                "file_name": image.file_name,
                "width": image.width,
                "height": image.height,
                "shard": image.shard,
                "sample_id": image.sample_id,
            }
            for image in dataset.images
        ],
        "annotations": [
            {
                "id": box.annotation_id,
                "image_id": box.image_id,
                "category_id": HEAD_CATEGORY_ID,
                "bbox": [round(float(value), 3) for value in box.bbox_xywh],
                "area": round(float(box.bbox_xywh[2] * box.bbox_xywh[3]), 3),
                "iscrowd": int(box.ignore),
                "ignore": int(box.ignore),
            }
            for box in dataset.boxes
        ],
    }


def read_coco(path: Path) -> CocoDataset:
    """Read and checks a COCO detection file, ours or one that comes back from a labelling tool.

    Args:
        path: `.json`; images without `shard`/`sample_id` get them from `file_name`
            (`<shard>/<sample_id>.jpg`).

    Returns:
        The checked dataset.

    Raises:
        CocoError: Not a file, not JSON, a key is missing, a category is not `head`, or an image
            or box is invalid.
    """
    try:
        check_limit(path.stat().st_size, MAX_JSON_BYTES, "bytes in the file")
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CocoError(f"coco: no file {path}; run the labels stage or import one") from error
    except (ValueError, RecursionError) as error:
        raise CocoError(f"coco: {path.name} is not valid JSON: {error}") from error
    except OSError as error:
        raise CocoError(f"coco: {path} cannot be read: {error}") from error
    if not isinstance(raw, dict):
        raise CocoError(f"coco: {path.name}: expected an object at the top, got {type(raw)}")
    absent = sorted({"images", "annotations", "categories"} - set(raw))
    if absent:
        raise CocoError(f"coco: {path.name}: keys {absent} are missing, got {sorted(raw)}")
    try:
        _check_categories(path, raw["categories"])
        return CocoDataset(
            images=tuple(_image_from_dict(item) for item in raw["images"]),
            boxes=tuple(_box_from_dict(item) for item in raw["annotations"]),
            description=str(raw.get("info", {}).get("description", "")),
        )
    except KeyError as error:
        raise CocoError(f"coco: {path.name}: an entry has no key {error}") from error
    except CocoError as error:
        raise CocoError(f"{path.name}: {error}") from error
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        # A text where a number belongs, a number where a list belongs, ...
        detail = f"an entry has a value of the wrong kind: {error}"
        raise CocoError(f"coco: {path.name}: {detail}") from error


def _check_categories(path: Path, categories: list[dict[str, Any]]) -> None:
    found = {(int(item["id"]), str(item["name"])) for item in categories}
    if found != {(HEAD_CATEGORY_ID, HEAD_CATEGORY_NAME)}:
        raise CocoError(
            f"coco: {path.name}: expected the one category (1, 'head'), got {sorted(found)}; "
            "map the labelling tool's classes to it before importing"
        )


def _image_from_dict(item: dict[str, Any]) -> CocoImage:
    file_name = str(item["file_name"])
    inferred = Path(file_name)
    return CocoImage(
        image_id=int(item["id"]),
        file_name=file_name,
        width=int(item["width"]),
        height=int(item["height"]),
        shard=str(item.get("shard", inferred.parent.name)),
        sample_id=str(item.get("sample_id", inferred.stem)),
    )


def _box_from_dict(item: dict[str, Any]) -> CocoBox:
    if int(item["category_id"]) != HEAD_CATEGORY_ID:
        raise CocoError(
            f"coco: annotation {item['id']}: category_id must be 1 (head), got "
            f"{item['category_id']}"
        )
    values = [float(value) for value in item["bbox"]]
    if len(values) != 4:
        raise CocoError(f"coco: annotation {item['id']}: bbox needs 4 numbers, got {values}")
    return CocoBox(
        annotation_id=int(item["id"]),
        image_id=int(item["image_id"]),
        bbox_xywh=(values[0], values[1], values[2], values[3]),
        ignore=bool(item.get("iscrowd", 0)) or bool(item.get("ignore", 0)),
    )


def _problems(images: tuple[CocoImage, ...], boxes: tuple[CocoBox, ...]) -> list[str]:
    by_id = {image.image_id: image for image in images}
    problems = [
        f"image id {key} is used {count} times"
        for key, count in Counter(image.image_id for image in images).items()
        if count > 1
    ]
    problems += [
        f"file_name {name!r} is used {count} times"
        for name, count in Counter(image.file_name for image in images).items()
        if count > 1
    ]
    problems += [
        f"image {image.image_id} ({image.file_name}) has size {image.width}x{image.height}"
        for image in images
        if image.width < 1 or image.height < 1
    ]
    problems += [
        f"annotation id {key} is used {count} times"
        for key, count in Counter(box.annotation_id for box in boxes).items()
        if count > 1
    ]
    for box in boxes:
        problem = _box_problem(box, by_id.get(box.image_id))
        if problem:
            problems.append(problem)
    return problems


def _box_problem(box: CocoBox, image: CocoImage | None) -> str:
    """Return what is wrong with one box, or an empty text."""
    if image is None:
        return f"annotation {box.annotation_id}: no image with id {box.image_id}"
    x, y, width, height = box.bbox_xywh
    where = f"annotation {box.annotation_id} of {image.file_name}: bbox {list(box.bbox_xywh)}"
    if not all(math.isfinite(value) for value in box.bbox_xywh):
        return f"{where} is not finite"
    if width <= 0 or height <= 0:
        return f"{where} has no area (expected left, top, width, height in px)"
    overhang = max(-x, -y, x + width - image.width, y + height - image.height)
    if overhang > EDGE_TOLERANCE_PX:
        return (
            f"{where} leaves the {image.width}x{image.height} image by {overhang:.1f} px "
            "(expected left, top, width, height, clipped)"
        )
    return ""
