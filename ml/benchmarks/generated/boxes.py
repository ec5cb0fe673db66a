"""FDDB and WIDER FACE in their own layouts."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ml.benchmarks.generated.images import write_image
from ml.records.atomic import write_bytes, write_text

NUM_FOLDS = 10
DIFFICULTIES = ("easy", "medium", "hard")
_LABELS = ("blur", "expression", "illumination", "invalid", "occlusion", "pose")


@dataclass(frozen=True)
class FddbImage:
    """An image of FDDB.

    Attributes:
        name: such as `2002/08/11/big/img_591`.
        fold: 1 to 10.
        ellipses: rows half axes, angle of the first to the x axis (rad), centre; px.
        image_rgb: (H, W, 3) uint8 RGB; None to write the annotation alone.
    """

    name: str
    fold: int
    ellipses: Sequence[Sequence[float]]
    image_rgb: np.ndarray | None = None


def ellipse_of_box(box_xyxy: np.ndarray) -> tuple[float, float, float, float, float]:
    """Return the ellipse that touches the sides of a box, the longer half axis first, as FDDB does.

    Args:
        box_xyxy: (4,) px.
    """
    left, top, right, bottom = (float(value) for value in box_xyxy)
    half_width, half_height = (right - left) / 2, (bottom - top) / 2
    centre = ((left + right) / 2, (top + bottom) / 2)
    if half_height >= half_width:
        return half_height, half_width, float(np.pi / 2), *centre
    return half_width, half_height, 0.0, *centre


def write_fddb(root: Path, images: Iterable[FddbImage]) -> Path:
    """Write the ten lists of ellipses and the images.

    Args:
        root: receives the folders `FDDB-folds` and `originalPics`.
        images: the images.

    Returns:
        `root`.
    """
    lines: dict[int, list[str]] = {fold: [] for fold in range(1, NUM_FOLDS + 1)}
    for image in images:
        lines[image.fold] += [image.name, str(len(image.ellipses))]
        lines[image.fold] += [
            f"{a:.6f} {b:.6f} {t:.6f} {x:.6f} {y:.6f}  1" for a, b, t, x, y in image.ellipses
        ]
        if image.image_rgb is not None:
            write_image(root / "originalPics" / f"{image.name}.jpg", image.image_rgb)
    for fold, of_fold in lines.items():
        path = root / "FDDB-folds" / f"FDDB-fold-{fold:02d}-ellipseList.txt"
        write_text(path, "".join(f"{line}\n" for line in of_fold))
    return root


@dataclass(frozen=True)
class WiderImage:
    """An image of WIDER FACE.

    Attributes:
        event: such as `0--Parade`.
        name: the file's name without ending.
        rows: (N, 5) integers x, y, w, h, invalid; a row of zeros means no face.
        kept: difficulty -> numbers of the rows that it asks for, from 1.
        image_rgb: (H, W, 3) uint8 RGB; None to write the annotation alone.
    """

    event: str
    name: str
    rows: Sequence[Sequence[int]]
    kept: Mapping[str, Sequence[int]] = field(default_factory=dict)
    image_rgb: np.ndarray | None = None


def write_wider(root: Path, images: Iterable[WiderImage], mat: bool = True) -> Path:
    """Write the validation split: text, MAT files and images.

    Args:
        root: receives the folders `wider_face_split`, `eval_tools` and `WIDER_val`.
        images: the images; their pixels are not kept.
        mat: whether to write the MAT files.

    Returns:
        `root`.
    """
    events: dict[str, list[WiderImage]] = {}
    text: list[str] = []
    for image in images:
        if image.image_rgb is not None:
            path = root / "WIDER_val" / "images" / image.event / f"{image.name}.jpg"
            write_image(path, image.image_rgb)
        kept = WiderImage(image.event, image.name, image.rows, image.kept)
        events.setdefault(image.event, []).append(kept)
    for event, of_event in events.items():
        for image in of_event:
            rows = np.array(image.rows).reshape(-1, 5)
            empty = len(rows) == 1 and not rows.any()
            text += [f"{event}/{image.name}.jpg", "0" if empty else str(len(rows))]
            text += [f"{x} {y} {w} {h} 0 0 0 {bad} 0 0 " for x, y, w, h, bad in rows]
    split = root / "wider_face_split"
    write_text(split / "wider_face_val_bbx_gt.txt", "".join(f"{line}\n" for line in text))
    if mat:
        _write_mats(root, events)
    return root


def _write_mats(root: Path, events: Mapping[str, list[WiderImage]]) -> None:
    rows = [
        [np.array(image.rows, np.int32).reshape(-1, 5) for image in of_event]
        for of_event in events.values()
    ]
    content = {
        "event_list": _cell(list(events)),
        "file_list": _cell([_cell([i.name for i in of_event]) for of_event in events.values()]),
        "face_bbx_list": _cell([_cell([r[:, :4] for r in of_event]) for of_event in rows]),
    }
    for name in _LABELS:
        column = [
            _cell([(r[:, 4:] * (name == "invalid")).astype(np.uint8) for r in of_event])
            for of_event in rows
        ]
        content[f"{name}_label_list"] = _cell(column)
    _write_mat(root / "wider_face_split" / "wider_face_val.mat", content)
    for difficulty in DIFFICULTIES:
        # the published files have both of these types, each where MATLAB found it fit
        keep = [
            _cell(
                [
                    np.array(image.kept.get(difficulty, []), (np.uint8, np.uint16)[number % 2])
                    .reshape(-1, 1)
                    for image in of_event
                ]
            )
            for number, of_event in enumerate(events.values())
        ]  # fmt: skip
        path = root / "eval_tools" / "ground_truth" / f"wider_{difficulty}_val.mat"
        _write_mat(path, {**content, "gt_list": _cell(keep)})


def _write_mat(path: Path, content: Mapping[str, np.ndarray]) -> None:
    from scipy.io import savemat

    file = io.BytesIO()
    savemat(file, dict(content))
    # scipy writes the date into the first 116 bytes
    write_bytes(path, b"MATLAB 5.0 MAT-file".ljust(116) + file.getvalue()[116:])


def _cell(items: Sequence[object]) -> np.ndarray:
    """Return a column of MATLAB cells."""
    cell = np.empty((len(items), 1), object)
    for row, item in enumerate(items):
        cell[row, 0] = item
    return cell
