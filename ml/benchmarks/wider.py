"""WIDER FACE: its MAT and text ground truth, its images, and the prediction files of its tools.

An image's id is `<event>/<file>` without ending, such as `0--Parade/0_Parade_marchingband_1_849`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ml.benchmarks.files import (
    MissingBenchmarkFile,
    NumberedLines,
    UnreadableBenchmarkFile,
    detections_by_image,
    find_path,
    image_loader,
    read_mat,
)
from ml.benchmarks.predictions import HeadPredictions, PredictionError
from ml.benchmarks.samples import BenchmarkSample, BrokenAnnotation, FaceBoxes
from ml.imaging.boxes import xywh_to_xyxy, xyxy_to_xywh
from ml.records import reasons
from ml.records.atomic import write_text
from ml.records.exclusions import Exclusions

NAME = "wider"
DIFFICULTIES = ("easy", "medium", "hard")
ATTRIBUTES = ("blur", "expression", "illumination", "invalid", "occlusion", "pose")
SUBSETS = ("val", "train")
_SPLIT_PLACES = ("{}", "wider_face_split/{}", "*/wider_face_split/{}")
_KEEP_PLACES = (
    "{}",
    "ground_truth/{}",
    "eval_tools/ground_truth/{}",
    "wider_face_split/{}",
    "*/ground_truth/{}",
)
_TEXT_ATTRIBUTES = ("blur", "expression", "illumination", "invalid", "occlusion", "pose")

Rows = tuple[str, np.ndarray, dict[str, np.ndarray], dict[str, np.ndarray]]


def read_wider(
    root: Path, exclusions: Exclusions, subset: str = "val"
) -> Iterator[BenchmarkSample[FaceBoxes]]:
    """Yield WIDER FACE as published.

    The MAT files are taken if they are there, else the text file, which knows no difficulties. Rows
    whose width or height is not positive stay, ignored, because the difficulties count rows; each
    is excluded as `<image>#<row>`, but for the one row of zeros that means "no face".

    Args:
        root: the folder that holds `WIDER_val`, `wider_face_split` and the ground truth of the
            evaluation tools, or all the files at once.
        exclusions: receives degenerate rows and broken images.
        subset: `val` or `train`.

    Yields:
        Images with all rows of the ground truth, in file order; `kept` has the difficulties.

    Raises:
        MissingBenchmarkFile: there is no ground truth.
        UnreadableBenchmarkFile: a ground-truth file is damaged.
        ValueError: no such subset.
    """
    if subset not in SUBSETS:
        raise ValueError(f"wider: subset must be one of {', '.join(SUBSETS)}, got {subset!r}")
    root = Path(root)
    for image, boxes_xywh, attributes, kept in _rows(root, subset):
        try:
            truth = _truth(image, boxes_xywh, attributes, kept, exclusions)
        except BrokenAnnotation as error:
            exclusions.add(image, reasons.DAMAGED_ANNOTATION, str(error))
            continue
        yield BenchmarkSample(image, image_loader(image_path(root, image, subset)), truth)


def image_path(root: Path, image: str, subset: str = "val") -> Path:
    """Return where an image is; the path may not exist."""
    inside = Path(root) / f"WIDER_{subset}" / "images"
    return (inside if inside.is_dir() else Path(root) / "images") / f"{image}.jpg"


def _rows(root: Path, subset: str) -> Iterable[Rows]:
    name = f"wider_face_{subset}.mat"
    try:
        mat = find_path(root, [place.format(name) for place in _SPLIT_PLACES], "WIDER FACE")
    except MissingBenchmarkFile:
        text = f"wider_face_{subset}_bbx_gt.txt"
        places = [place.format(file) for file in (name, text) for place in _SPLIT_PLACES]
        return _text_rows(find_path(root, places, "WIDER FACE ground truth"))
    return _mat_rows(root, mat, with_difficulties=subset == "val")


def _truth(
    image: str,
    boxes_xywh: np.ndarray,
    attributes: dict[str, np.ndarray],
    kept: dict[str, np.ndarray],
    exclusions: Exclusions,
) -> FaceBoxes:
    degenerate = np.asarray((boxes_xywh[:, 2:] <= 0).any(axis=1))
    if not (len(boxes_xywh) == 1 and not boxes_xywh.any()):
        for row in np.flatnonzero(degenerate):
            detail = f"row {row + 1}: x, y, w, h = {boxes_xywh[row].astype(int).tolist()}"
            exclusions.add(f"{image}#{row + 1}", reasons.DAMAGED_BOX, detail)
    invalid = attributes.get("invalid", np.zeros(len(boxes_xywh))) > 0
    return FaceBoxes(
        xywh_to_xyxy(boxes_xywh.astype(np.float64)),
        ignore=degenerate | invalid,
        kept=kept,
        attributes={**attributes, "degenerate": degenerate},
    )


def _mat_rows(root: Path, path: Path, with_difficulties: bool) -> Iterator[Rows]:
    lists = {name: f"{name}_label_list" for name in ATTRIBUTES}
    content = read_mat(path, ["event_list", "file_list", "face_bbx_list", *lists.values()])
    keep = {}
    if with_difficulties:
        for name in DIFFICULTIES:
            file = f"wider_{name}_val.mat"
            found = find_path(root, [place.format(file) for place in _KEEP_PLACES], "WIDER FACE")
            keep[name] = read_mat(found, ["gt_list"])["gt_list"]
    try:
        for e in range(len(content["event_list"])):
            event = str(content["event_list"][e, 0][0])
            for i, file in enumerate(content["file_list"][e, 0]):
                boxes = np.asarray(content["face_bbx_list"][e, 0][i, 0], np.float64).reshape(-1, 4)
                attributes = {
                    name: np.asarray(content[key][e, 0][i, 0]).reshape(-1).astype(np.int64)
                    for name, key in lists.items()
                }
                kept = {n: _kept(g[e, 0][i, 0], len(boxes), path) for n, g in keep.items()}
                yield f"{event}/{file[0][0]}", boxes, attributes, kept
    except (IndexError, TypeError, ValueError) as error:
        raise UnreadableBenchmarkFile(
            f"{path}: its lists do not have WIDER FACE's form: {error}"
        ) from error


def _kept(indices: Any, count: int, path: Path) -> np.ndarray:
    """Return 1-based row numbers, stored in the smallest type that holds them, as a mask."""
    rows = np.asarray(indices).reshape(-1).astype(np.int64) - 1
    if len(rows) and (rows.min() < 0 or rows.max() >= count):
        raise UnreadableBenchmarkFile(
            f"{path}: a keep list names row {rows.max() + 1} of {count} faces"
        )
    mask = np.zeros(count, bool)
    mask[rows] = True
    return mask


def _text_rows(path: Path) -> Iterator[Rows]:
    lines = NumberedLines(path)
    form = "x y w h blur expression illumination invalid occlusion pose"
    while lines.skip_blank():
        image = lines.take("an image's path").removesuffix(".jpg")
        # an image without a face has a count of 0 and still one row of zeros
        rows = lines.rows(max(lines.count("the number of its faces"), 1), 10, form)
        attributes = {
            name: rows[:, 4 + column].astype(np.int64)
            for column, name in enumerate(_TEXT_ATTRIBUTES)
        }
        yield image, rows[:, :4], attributes, {}


# ------------------------------------------------------------------ predictions
class WiderPredictions(Mapping[str, HeadPredictions]):
    """A folder of `<event>/<image>.txt`, read on demand."""

    def __init__(self, folder: Path) -> None:
        """List the files.

        Args:
            folder: holds one folder per event.

        Raises:
            PredictionError: it holds no such files.
        """
        self.folder = Path(folder)
        self._images = sorted(
            str(path.relative_to(folder).with_suffix("")) for path in self.folder.glob("*/*.txt")
        )
        if not self._images:
            raise PredictionError(f"{folder}: expected files <event>/<image>.txt, found none")
        self._known = set(self._images)

    def __getitem__(self, image: str) -> HeadPredictions:
        """Read one image's file.

        Raises:
            KeyError: there is none.
            PredictionError: it has another format, or lists several images.
        """
        if image not in self._known:
            raise KeyError(image)
        path = self.folder / f"{image}.txt"
        try:
            entries = list(detections_by_image(path, {5: "x y w h score"}))
        except UnreadableBenchmarkFile as error:
            raise PredictionError(str(error)) from error
        if len(entries) > 1:
            raise PredictionError(f"{path}: expected one image, got {len(entries)}")
        rows = entries[0][1] if entries else np.zeros((0, 5))
        return HeadPredictions(scores=rows[:, 4], boxes_xyxy=xywh_to_xyxy(rows[:, :4]))

    def __iter__(self) -> Iterator[str]:
        return iter(self._images)

    def __len__(self) -> int:
        return len(self._images)


def write_wider_text(folder: Path, image: str, predictions: HeadPredictions) -> None:
    """Write one image's detections as WIDER FACE's tools read them.

    Args:
        folder: receives `<event>/<image>.txt`.
        image: the image's id.
        predictions: boxes and scores.
    """
    order = np.argsort(-predictions.confidences, kind="stable")
    rows = xyxy_to_xywh(predictions.boxes)[order]
    lines = [image.rpartition("/")[2], str(len(rows))]
    lines += [
        " ".join(f"{value:.3f}" for value in row) + f" {score:.9g}"
        for row, score in zip(rows, predictions.confidences[order], strict=True)
    ]
    write_text(Path(folder) / f"{image}.txt", "\n".join(lines) + "\n")
