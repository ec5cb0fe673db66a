"""Head boxes as labelling tools hand them back: COCO (CVAT) or Label Studio's JSON, validated.

An image whose boxes cannot be trusted is left out as a whole: a dropped box would be trained as
background.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import pandas as pd

from ml.labels.coco import (
    EDGE_TOLERANCE_PX,
    HEAD_CATEGORY_NAME,
    CocoBox,
    CocoDataset,
    CocoImage,
)
from ml.records import reasons
from ml.records.exclusions import Exclusions
from ml.records.files import UnreadableFile, read_file
from ml.records.limits import MAX_JSON_BYTES, MAX_LABELLED_BOXES, brief, short_names

LABEL_SPLITS: Final = ("train", "val")
"""Splits that may be labelled; `test` belongs to the benchmark."""
_OF_THE_WHOLE_IMAGE: Final = frozenset(
    {"choices", "textarea", "rating", "number", "datetime", "taxonomy", "pairwise", "relation"}
)
"""Label Studio's results that mark no place in the image."""
Box = tuple[float, float, float, float]


class LabelImportError(ValueError):
    """A file of labels cannot be used at all; the message says why and what is expected."""


@dataclass
class _Entry:
    """An image of the file while it is being checked; `problem` says why it is left out."""

    sample_id: str
    boxes: list[tuple[Box, bool]] = field(default_factory=list)
    problem: tuple[str, str] | None = None
    size: tuple[float, float] | None = None

    def refuse(self, reason: str, detail: str) -> None:
        """Keep the first problem."""
        self.problem = self.problem or (reason, detail)


@dataclass(frozen=True)
class ImportedLabels:
    """What a file of labels holds for our images.

    Attributes:
        datasets: split -> checked boxes.
        sample_ids: images in the file.
        sha256: of the file.
    """

    datasets: Mapping[str, CocoDataset]
    sample_ids: tuple[str, ...]
    sha256: str


def import_labels(path: Path, images: pd.DataFrame, exclusions: Exclusions) -> ImportedLabels:
    """Read labels of some of our images.

    Args:
        path: the tool's JSON: COCO detection (CVAT exports it), or Label Studio's list of tasks.
        images: columns of `IMAGES`; what is not among them is unknown.
        exclusions: receives every image of the file that is left out, and doubled boxes as
            `sample_id#number`.

    Returns:
        Boxes by split; an image without boxes was labelled as one without heads.

    Raises:
        LabelImportError: the file is missing, empty, no JSON, of no known format, or holds no
            usable image.
    """
    raw, digest = _read(path)
    if isinstance(raw, list):
        _check_names(path, raw)
        entries = list(_label_studio(raw))
    else:
        entries = list(_coco(path, raw))
    known = {str(row["sample_id"]): row for row in images.to_dict("records")}
    seen: set[str] = set()
    parts: dict[str, tuple[list[CocoImage], list[CocoBox]]] = {s: ([], []) for s in LABEL_SPLITS}
    for entry in entries:
        row = known.get(entry.sample_id)
        _check_image(entry, row, seen)
        seen.add(entry.sample_id)
        boxes = [] if entry.problem or row is None else _checked_boxes(entry, row)
        if entry.problem or row is None:
            reason, detail = entry.problem or ("unknown image", "")
            exclusions.add(entry.sample_id, reason, f"{path.name}: {detail}")
            continue
        _append(parts[str(row["split"])], row, boxes, exclusions, path.name)
    if not any(images_of for images_of, _ in parts.values()):
        first = exclusions.to_frame()["detail"].iloc[0] if len(exclusions) else "it names no image"
        raise LabelImportError(
            f"labels: {path} has no usable image among {len(entries)}; first problem: {first}"
        )
    datasets = {
        split: CocoDataset(tuple(found), tuple(boxes), f"heads, {split} split; source: {path.name}")
        for split, (found, boxes) in parts.items()
    }
    return ImportedLabels(datasets, tuple(entry.sample_id for entry in entries), digest)


def join_rounds(rounds: Sequence[ImportedLabels]) -> CocoDataset:
    """Put several rounds of labelling together; of an image in several, the last round's boxes.

    Args:
        rounds: earliest first.

    Returns:
        The boxes of all splits, to be written with `write_coco` and imported again.
    """
    newest: dict[str, tuple[CocoImage, tuple[CocoBox, ...]]] = {}
    for imported in rounds:
        for data in imported.datasets.values():
            for image in data.images:
                newest.pop(image.sample_id, None)
                newest[image.sample_id] = image, data.boxes_of(image.image_id)
    images: list[CocoImage] = []
    boxes: list[CocoBox] = []
    for number, (image, of_image) in enumerate(newest.values(), start=1):
        images.append(replace(image, image_id=number))
        for box in of_image:
            boxes.append(replace(box, annotation_id=len(boxes) + 1, image_id=number))
    return CocoDataset(tuple(images), tuple(boxes), f"heads, {len(rounds)} rounds")


def map_labels(data: bytes, heads: Collection[str], ignored: Collection[str]) -> bytes:
    """Return a tool's file with its classes named as we name them.

    Args:
        data: the file.
        heads: names that mean a head.
        ignored: names of what is known to be none; their regions are dropped.

    Returns:
        The file, in which every one of `heads` is called `head`.

    Raises:
        LabelImportError: it is no JSON.
    """
    wanted, dropped = {h.lower() for h in heads}, {i.lower() for i in ignored}
    raw = _parsed(data, Path("labels"))

    def name(value: Any) -> Any:
        return HEAD_CATEGORY_NAME if str(value).lower() in wanted else value

    if isinstance(raw, list):
        for results in _results(raw):
            results[:] = [item for item in results if not _names_of(item) & dropped]
            for item in results:
                if _names_of(item):
                    labels = item["value"]["rectanglelabels"]
                    item["value"]["rectanglelabels"] = [name(label) for label in labels]
    elif isinstance(raw, dict):
        categories = [c for c in _list(raw.get("categories")) if isinstance(c, dict)]
        gone = [c.get("id") for c in categories if str(c.get("name")).lower() in dropped]
        for category in categories:
            category["name"] = name(category.get("name"))
        raw["annotations"] = [
            item
            for item in _list(raw.get("annotations"))
            if not (isinstance(item, dict) and item.get("category_id") in gone)
        ]
    return json.dumps(raw).encode("utf-8", "surrogatepass")


def _results(raw: list[Any]) -> Iterator[list[Any]]:
    """Yield the lists of regions of all annotations of Label Studio's tasks."""
    for task in raw:
        for annotation in _list(task.get("annotations")) if isinstance(task, dict) else ():
            if isinstance(annotation, dict) and isinstance(annotation.get("result"), list):
                yield annotation["result"]


def _names_of(item: Any) -> set[str]:
    """Return what a region is called, lower case."""
    value = item.get("value") if isinstance(item, dict) else None
    labels = _list(value.get("rectanglelabels")) if isinstance(value, dict) else []
    return {str(label).lower() for label in labels}


def _check_names(path: Path, raw: list[Any]) -> None:
    """Refuse a file that has regions, of which none is called head."""
    found: set[str] = set()
    for results in _results(raw):
        for item in results:
            found |= _names_of(item)
    if found and HEAD_CATEGORY_NAME not in found:
        raise LabelImportError(
            f"labels: {path}: no region is called head, but {short_names(sorted(found))}; name the "
            "tool's class with --label NAME"
        )


def _read(path: Path) -> tuple[Any, str]:
    try:
        data = read_file(path, MAX_JSON_BYTES)
    except UnreadableFile as error:
        raise LabelImportError(f"labels: no readable file {path}: {error}") from error
    if not data.strip():
        raise LabelImportError(f"labels: {path} is empty; export the project again")
    raw = _parsed(data, path)
    if not isinstance(raw, list | dict):
        raise LabelImportError(
            f"labels: {path}: expected COCO's object or Label Studio's list, got "
            f"{type(raw).__name__}"
        )
    return raw, hashlib.sha256(data).hexdigest()


def _parsed(data: bytes, path: Path) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise LabelImportError(f"labels: {path} is not valid JSON: {error}") from error


def _coco(path: Path, raw: dict[str, Any]) -> Iterator[_Entry]:
    absent = sorted({"images", "annotations", "categories"} - set(raw))
    wrong = [k for k in ("images", "annotations", "categories") if not isinstance(raw.get(k), list)]
    if absent or wrong:
        raise LabelImportError(
            f"labels: {path}: COCO needs the lists images, annotations and categories; missing or "
            f"no lists: {sorted({*absent, *wrong})}"
        )
    heads = {
        _key(item.get("id"))
        for item in raw["categories"]
        if isinstance(item, dict) and str(item.get("name", "")).lower() == HEAD_CATEGORY_NAME
    }
    if not heads:
        raise LabelImportError(
            f"labels: {path}: no category 'head' among {brief(raw['categories'])}; name the "
            "tool's class with --label NAME"
        )
    entries: dict[Any, _Entry] = {}
    doubled: list[_Entry] = []
    for number, item in enumerate(raw["images"]):
        entry = _coco_image(item, number)
        key = _key(item.get("id")) if isinstance(item, dict) else None
        if key is None or key in entries:
            entry.refuse(
                reasons.DAMAGED_ENTRY, f"images[{number}]: its id is missing or used twice"
            )
            doubled.append(entry)
        else:
            entries[key] = entry
    for number, item in enumerate(raw["annotations"]):
        _coco_box(item, number, entries, heads, path)
    yield from [*entries.values(), *doubled]


def _coco_image(item: Any, number: int) -> _Entry:
    if not isinstance(item, dict) or not isinstance(item.get("file_name"), str):
        entry = _Entry(f"images[{number}]")
        entry.refuse(reasons.DAMAGED_ENTRY, f"images[{number}] has no file_name")
        return entry
    name = str(item.get("sample_id") or PurePosixPath(item["file_name"]).stem)
    width, height = _number(item.get("width")), _number(item.get("height"))
    return _Entry(name, size=None if width is None or height is None else (width, height))


def _coco_box(
    item: Any, number: int, entries: dict[Any, _Entry], heads: set[Any], path: Path
) -> None:
    entry = entries.get(_key(item.get("image_id"))) if isinstance(item, dict) else None
    if entry is None:
        raise LabelImportError(
            f"labels: {path}: annotations[{number}] belongs to no image of the file; whose box is "
            "lost is unknown, so nothing is imported"
        )
    name = f"annotation {brief(item['id'])}" if _has_id(item) else f"annotations[{number}]"
    box = _box(item.get("bbox"))
    if _key(item.get("category_id")) not in heads:
        detail = f"{name} has category {brief(item.get('category_id'))}, which is not called head"
        entry.refuse(reasons.UNKNOWN_REGION, f"{detail}; see --label and --ignore")
    elif box is None:
        detail = f"{name}: bbox must be 4 finite numbers, got {brief(item.get('bbox'))}"
        entry.refuse(reasons.DAMAGED_BOX, detail)
    elif _is_turned(item):
        entry.refuse(reasons.ROTATED_BOX, f"{name} is rotated; a head's box is upright")
    else:
        entry.boxes.append((box, bool(item.get("iscrowd")) or bool(item.get("ignore"))))


def _is_turned(item: dict[str, Any]) -> bool:
    """Return whether a COCO box has an angle, where CVAT and others write it."""
    attributes = item.get("attributes")
    holders = (item, attributes if isinstance(attributes, dict) else {})
    angles = (holder.get(key) for holder in holders for key in ("rotation", "angle"))
    return any(angle not in (None, 0, 0.0) for angle in angles)


def _has_id(item: Any) -> bool:
    return isinstance(item, dict) and isinstance(item.get("id"), int | str)


def _label_studio(raw: list[Any]) -> Iterator[_Entry]:
    for number, task in enumerate(raw):
        data = task.get("data") if isinstance(task, dict) else None
        image = data.get("image") if isinstance(data, dict) else None
        if not isinstance(image, str) or not isinstance(data, dict):
            entry = _Entry(f"tasks[{number}]")
            entry.refuse(reasons.DAMAGED_ENTRY, f"tasks[{number}] has no data.image")
            yield entry
            continue
        entry = _Entry(str(data.get("sample_id") or _name_in_url(image)))
        finished = [
            a
            for a in _list(task.get("annotations"))
            if isinstance(a, dict) and not a.get("was_cancelled")
        ]
        if not finished:
            entry.refuse(reasons.NOT_ANNOTATED, f"tasks[{number}] has no finished annotation")
        elif not isinstance(regions := finished[-1].get("result"), list):
            # The last annotation is the reviewer's.
            detail = f"tasks[{number}]: result must be a list of regions, got {brief(regions)}"
            entry.refuse(reasons.DAMAGED_ENTRY, detail)
        else:
            for place, item in enumerate(regions):
                _studio_box(item, f"tasks[{number}].result[{place}]", entry)
        yield entry


def _studio_box(item: Any, where: str, entry: _Entry) -> None:
    """Add one region; its numbers are percents of the image."""
    if isinstance(item, dict) and item.get("type") in _OF_THE_WHOLE_IMAGE:
        return
    name = f"region {brief(item['id'])} ({where})" if _has_id(item) else where
    if isinstance(item, dict) and item.get("type") != "rectanglelabels":
        detail = f"{name} is of type {brief(item.get('type'))}, expected rectanglelabels"
        entry.refuse(reasons.UNKNOWN_REGION, detail)
        return
    value = item.get("value") if isinstance(item, dict) else None
    if not isinstance(value, dict):
        entry.refuse(reasons.DAMAGED_BOX, f"{where} has no value")
        return
    labels = [str(label).lower() for label in _list(value.get("rectanglelabels"))]
    if labels != [HEAD_CATEGORY_NAME]:
        detail = f"{name} is called {short_names(labels) or 'nothing'}, expected head"
        entry.refuse(reasons.UNKNOWN_REGION, f"{detail}; see --label and --ignore")
        return
    box = _box([value.get(key) for key in ("x", "y", "width", "height")])
    size = (_number(item.get("original_width")), _number(item.get("original_height")))
    if box is None or size[0] is None or size[1] is None:
        entry.refuse(reasons.DAMAGED_BOX, f"{name}: x, y, width, height must be finite percents")
    elif abs(_number(value.get("rotation")) or 0.0) > 1e-3:
        entry.refuse(reasons.ROTATED_BOX, f"{name} is rotated; a head's box is upright")
    else:
        entry.size = entry.size or (size[0], size[1])
        x, y = size[0] / 100, size[1] / 100
        entry.boxes.append(((box[0] * x, box[1] * y, box[2] * x, box[3] * y), False))


def _check_image(entry: _Entry, row: Mapping[Any, Any] | None, seen: set[str]) -> None:
    if row is None:
        entry.refuse(reasons.UNKNOWN_IMAGE, f"{entry.sample_id!r} is none of ours")
    elif entry.sample_id in seen:
        entry.refuse(reasons.DUPLICATE_IMAGE, f"{entry.sample_id!r} occurs in the file twice")
    elif row["split"] not in LABEL_SPLITS:
        entry.refuse(reasons.TEST_IMAGE, f"{entry.sample_id!r} belongs to split {row['split']}")
    elif entry.size is not None and (
        abs(entry.size[0] - row["width"]) > 0.5 or abs(entry.size[1] - row["height"]) > 0.5
    ):
        entry.refuse(
            reasons.OTHER_SIZE,
            f"{entry.sample_id!r} was labelled at {entry.size[0]:g}x{entry.size[1]:g} px, ours has "
            f"{row['width']}x{row['height']}",
        )


def _checked_boxes(entry: _Entry, row: Mapping[Any, Any]) -> list[tuple[Box, bool]]:
    """Return boxes cut at the borders.

    The image is refused when a box is outside it or has no area.
    """
    if len(entry.boxes) > MAX_LABELLED_BOXES:
        entry.refuse(reasons.DAMAGED_ENTRY, f"{len(entry.boxes)} boxes in one image")
        return []
    checked = []
    width, height = float(row["width"]), float(row["height"])
    for (left, top, w, h), ignore in entry.boxes:
        shown = [round(v, 1) for v in (left, top, w, h)]
        if w <= 0 or h <= 0:
            entry.refuse(reasons.DAMAGED_BOX, f"{entry.sample_id}: box {shown} has no area")
            return []
        overhang = max(-left, -top, left + w - width, top + h - height)
        if overhang > EDGE_TOLERANCE_PX:
            entry.refuse(
                reasons.BOX_OUTSIDE,
                f"{entry.sample_id}: box {shown} leaves the {width:g}x{height:g} image by "
                f"{overhang:.1f} px",
            )
            return []
        x0, y0 = max(left, 0.0), max(top, 0.0)
        box = (x0, y0, min(left + w, width) - x0, min(top + h, height) - y0)
        if min(box[2:]) <= 0:
            entry.refuse(reasons.DAMAGED_BOX, f"{entry.sample_id}: box {shown} has no area")
            return []
        checked.append((box, ignore))
    return checked


def _append(
    part: tuple[list[CocoImage], list[CocoBox]],
    row: Mapping[Any, Any],
    boxes: list[tuple[Box, bool]],
    exclusions: Exclusions,
    file_name: str,
) -> None:
    images, all_boxes = part
    sample_id, shard = str(row["sample_id"]), str(row["shard"])
    image = CocoImage(
        len(images) + 1,
        f"{shard}/{sample_id}.jpg",
        int(row["width"]),
        int(row["height"]),
        shard,
        sample_id,
    )
    images.append(image)
    known: set[Box] = set()
    for number, (box, ignore) in enumerate(boxes):
        rounded = (round(box[0], 1), round(box[1], 1), round(box[2], 1), round(box[3], 1))
        if rounded in known:
            detail = f"{file_name}: {sample_id} has the box {list(rounded)} twice"
            exclusions.add(f"{sample_id}#{number}", reasons.DUPLICATE_BOX, detail)
            continue
        known.add(rounded)
        all_boxes.append(CocoBox(len(all_boxes) + 1, image.image_id, box, ignore))


def _box(values: Any) -> Box | None:
    if not isinstance(values, list) or len(values) != 4:
        return None
    numbers = [_number(value) for value in values]
    if any(number is None for number in numbers):
        return None
    x, y, w, h = (float(number) for number in numbers if number is not None)
    return x, y, w, h


def _number(value: Any) -> float | None:
    """Return a finite number, not what merely looks like one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) and abs(number) < 1e9 else None


def _key(value: Any) -> Any:
    return value if isinstance(value, int | str) and not isinstance(value, bool) else None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _name_in_url(url: str) -> str:
    """Return the image's name in `/data/local-files/?d=images/x.jpg` or in a plain path."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return url
    inner = parse_qs(parts.query).get("d", [parts.path])[0]
    return PurePosixPath(inner).stem or url
