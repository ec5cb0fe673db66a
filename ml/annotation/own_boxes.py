"""One's own images with boxes of heads, given parameters by a teacher: a release of one's own.

The output has the official layout, so that every reader of the published release can read it.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ml.annotation.estimates import cut_crops, estimate_heads
from ml.annotation.regressor import FlameRegressor
from ml.flame.params import NUM_PARAMETERS
from ml.imaging.boxes import clip_boxes, xywh_to_xyxy
from ml.imaging.io import UnreadableImage, decode_image, encode_jpeg
from ml.records import reasons
from ml.records.atomic import atomic_folder
from ml.records.exclusions import Exclusions
from ml.records.files import UnreadableFile, read_file
from ml.records.ids import sample_seed
from ml.records.limits import MAX_IMAGE_FILE_BYTES, MAX_JSON_BYTES, check_limit
from ml.records.progress import progress
from ml.release.official_writer import write_official
from ml.release.source import DatasetItem

_JPEG: Final = b"\xff\xd8\xff"
HELD_OUT: Final = (("val", 0.1), ("test", 0.1))
"""Fractions of the images, by their ids, that are validated and benchmarked on."""


class BoxesError(ValueError):
    """A file of boxes cannot be used; the message gives the cause."""


def write_own_release(
    images: Path,
    boxes: Path,
    regressor: FlameRegressor,
    heads: Collection[str],
    min_side_px: float,
    target: Path,
) -> tuple[int, int]:
    """Label user-provided boxes and write them in the official layout, with exclusions.

    Args:
        images: as `label_own_boxes` takes it, as are the next four.
        boxes: likewise.
        regressor: likewise.
        heads: likewise.
        min_side_px: likewise.
        target: output folder, replaced if it exists; `exclusions.csv` in it lists the exclusions.

    Returns:
        Images written, and images and heads left out.

    Raises:
        BoxesError: the file is no COCO detection file, or has none of the categories, or none of
            its images can be used.
    """
    exclusions = Exclusions("fine-tune")
    items = label_own_boxes(images, boxes, regressor, heads, min_side_px, exclusions)
    with atomic_folder(target) as folder:
        count = write_official(items, folder)
        exclusions.to_frame().to_csv(folder / "exclusions.csv", index=False)
        if not count:
            first = next((f": {row['detail']}" for row in exclusions.rows()), "")
            raise BoxesError(f"{boxes}: none of its images can be used{first}")
    return count, len(exclusions)


def label_own_boxes(
    images: Path,
    boxes: Path,
    regressor: FlameRegressor,
    heads: Collection[str],
    min_side_px: float,
    exclusions: Exclusions,
) -> Iterator[DatasetItem]:
    """Give every box of a head its FLAME parameters, image by image.

    Args:
        images: folder of the images.
        boxes: COCO detection file; its file names are relative to the folder.
        regressor: the teacher.
        heads: names of the categories that mean a head.
        min_side_px: heads whose longer side is smaller get no parameters and are ignored.
        exclusions: receives images that are missing or damaged, have a name twice or a box that
            cannot be used, and heads (`id#number`) for which the teacher has no answer.

    Yields:
        The samples; a head without parameters, or marked iscrowd, is not valid.

    Raises:
        BoxesError: the file is no COCO detection file, or has none of the categories.
    """
    coco = _read(boxes)
    known = {c["id"]: str(c["name"]) for c in coco.loadCats(coco.getCatIds())}
    wanted = [key for key, name in known.items() if name in set(heads)]
    if not wanted:
        raise BoxesError(
            f"{boxes}: none of its categories {sorted(known.values())} is one of {sorted(heads)}; "
            "name the one that means a head with --label"
        )
    seen: dict[str, str] = {}
    for record in progress(coco.loadImgs(sorted(coco.getImgIds())), "own images"):
        file_name = str(record.get("file_name", ""))
        sample_id = re.sub(r"[^\w-]+", "_", str(Path(file_name).with_suffix("")))
        first = seen.setdefault(sample_id.casefold(), file_name)
        if first != file_name:
            detail = f"{file_name}: {first} has the name too, as ids have it"
            exclusions.add(sample_id, reasons.DUPLICATE, detail)
            continue
        rows = coco.loadAnns(coco.getAnnIds(imgIds=[record["id"]], catIds=wanted))
        item = _label(images, file_name, sample_id, rows, regressor, min_side_px, exclusions)
        if item is not None:
            yield item


def _read(path: Path) -> Any:
    from pycocotools.coco import COCO

    if not path.is_file():
        raise BoxesError(f"{path}: no such file; expected COCO detection JSON")
    try:
        check_limit(path.stat().st_size, MAX_JSON_BYTES, "bytes in the file")
        # It reports its progress on the standard output.
        with contextlib.redirect_stdout(io.StringIO()):
            coco = COCO(str(path))
        if missing := {"images", "annotations", "categories"} - set(coco.dataset):
            raise KeyError(*sorted(missing))
        return coco
    except (ValueError, KeyError, TypeError, AssertionError, RecursionError) as error:
        raise BoxesError(f"{path}: no COCO detection file: {error!r}") from error


def _label(
    folder: Path,
    file_name: str,
    sample_id: str,
    rows: Sequence[dict[str, Any]],
    regressor: FlameRegressor,
    min_side_px: float,
    exclusions: Exclusions,
) -> DatasetItem | None:
    path = folder / file_name
    try:
        if not path.resolve().is_relative_to(folder.resolve()):
            raise UnreadableFile(f"leads out of {folder.name}")
        data = read_file(path, MAX_IMAGE_FILE_BYTES)
        image = decode_image(data)
    except (UnreadableImage, UnreadableFile) as error:
        exclusions.add(sample_id, reasons.DAMAGED_IMAGE, f"{file_name}: {error}")
        return None
    height, width = image.shape[:2]
    try:
        given = np.array([row["bbox"] for row in rows], np.float32).reshape(-1, 4)
    except (KeyError, ValueError, TypeError) as error:
        exclusions.add(sample_id, reasons.DAMAGED_BOX, f"{file_name}: {error}")
        return None
    boxes = clip_boxes(xywh_to_xyxy(given), width, height)
    sides = boxes[:, 2:] - boxes[:, :2]
    if not np.isfinite(given).all() or (sides < 1).any():
        # A dropped box would become background.
        worst = given[int(np.argmin(np.nan_to_num(sides.min(axis=1), nan=-1.0)))].tolist()
        detail = f"{file_name}: box {worst} xywh has no area inside {width}x{height} px"
        exclusions.add(sample_id, reasons.DAMAGED_BOX, detail)
        return None
    asked = sides.max(axis=1, initial=0) >= min_side_px
    asked &= np.array([not row.get("iscrowd", 0) for row in rows], bool)
    flame, valid = _regress(sample_id, image, boxes, asked, regressor, exclusions)
    return DatasetItem(
        sample_id=sample_id,
        split=_split(sample_id),
        shard="",
        width=width,
        height=height,
        jpeg=data if data.startswith(_JPEG) else encode_jpeg(image),
        boxes_xyxy=boxes,
        scores=np.ones(len(boxes), np.float32),
        flame=flame,
        flame_valid=valid,
    )


def _regress(
    sample_id: str,
    image: NDArray[np.uint8],
    boxes: NDArray[np.float32],
    asked: NDArray[np.bool_],
    regressor: FlameRegressor,
    exclusions: Exclusions,
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return parameters (N, 413) of the requested heads, and whether they are usable."""
    flame, valid = np.zeros((len(boxes), NUM_PARAMETERS), np.float32), asked.copy()
    if not asked.any():
        return flame, valid
    crops, frames = cut_crops(regressor, image, boxes[asked])
    found = estimate_heads(regressor, crops, frames)
    for number, parameters, reason, detail in zip(
        np.flatnonzero(asked), found.flame, found.reasons, found.details, strict=True
    ):
        if reason:
            where = f"head at {boxes[number].tolist()} px"
            exclusions.add(f"{sample_id}#{number}", reason, f"{detail}; {where}")
            valid[number] = False
        else:
            flame[number] = parameters
    return flame, valid


def _split(sample_id: str) -> str:
    draw = sample_seed(0, "own boxes", sample_id) / 2**63
    for split, fraction in HELD_OUT:
        if draw < fraction:
            return split
        draw -= fraction
    return "train"
