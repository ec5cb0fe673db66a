"""FDDB: its ten ellipse lists, its images, and the detection files of its tool.

An image's id is its name in the lists, such as `2002/08/11/big/img_591`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from ml.benchmarks.files import (
    MissingBenchmarkFile,
    NumberedLines,
    UnreadableBenchmarkFile,
    detections_by_image,
    find_path,
    image_loader,
)
from ml.benchmarks.predictions import HeadPredictions, PredictionError
from ml.benchmarks.samples import BenchmarkSample, BrokenAnnotation, FaceBoxes
from ml.imaging.boxes import ellipse_boxes, xywh_to_xyxy, xyxy_to_xywh
from ml.records import reasons
from ml.records.atomic import write_text
from ml.records.exclusions import Exclusions

NAME = "fddb"
NUM_FOLDS = 10
_ELLIPSE = ("major", "minor", "angle", "cx", "cy", "score")
#: Numbers in a row of detections -> what they are.
_FORMS = {5: "x y w h score", len(_ELLIPSE): " ".join(_ELLIPSE)}
_PLACES = ("{}", "FDDB-folds/{}", "*/FDDB-folds/{}")


def read_fddb(root: Path, exclusions: Exclusions) -> Iterator[BenchmarkSample[FaceBoxes]]:
    """Yield FDDB as published, in the order of its folds.

    Args:
        root: the folder that holds `FDDB-folds` and `originalPics`, or the lists themselves.
        exclusions: receives images with a broken ellipse.

    Yields:
        Images; `attributes["fold"]` counts from 1.

    Raises:
        MissingBenchmarkFile: no list is there.
        UnreadableBenchmarkFile: a list has another form.
    """
    root = Path(root)
    for fold, path in fold_lists(root):
        lines = NumberedLines(path)
        while lines.skip_blank():
            image = lines.take("an image's name")
            count = lines.count("the number of its faces")
            ellipses = lines.rows(count, 6, "major minor angle cx cy 1")[:, [0, 1, 2, 3, 4]]
            try:
                if count and (ellipses[:, :2] <= 0).any():
                    raise BrokenAnnotation(f"an axis is not positive: {ellipses.tolist()}")
                truth = FaceBoxes(
                    ellipse_boxes(ellipses),
                    ellipses=ellipses,
                    attributes={"fold": np.full(count, fold)},
                )
            except BrokenAnnotation as error:
                exclusions.add(image, reasons.DAMAGED_ANNOTATION, str(error))
                continue
            yield BenchmarkSample(image, image_loader(image_path(root, image)), truth)


def fold_lists(root: Path) -> list[tuple[int, Path]]:
    """Return the number and list of each fold that is there, usually all ten.

    Raises:
        MissingBenchmarkFile: none is there.
    """
    found = []
    for fold in range(1, NUM_FOLDS + 1):
        name = f"FDDB-fold-{fold:02d}-ellipseList.txt"
        try:
            found.append((fold, find_path(root, [p.format(name) for p in _PLACES], "FDDB")))
        except MissingBenchmarkFile:
            if fold == NUM_FOLDS and not found:
                raise
    return found


def image_path(root: Path, image: str) -> Path:
    """Return where an image is; the path may not exist."""
    images = Path(root) / "originalPics"
    return (images if images.is_dir() else Path(root)) / f"{image}.jpg"


# ------------------------------------------------------------------ predictions
def read_fddb_predictions(path: Path) -> dict[str, HeadPredictions]:
    """Read detections as FDDB's tool does: `name`, `n`, n rows of rectangles or of ellipses.

    A rectangle is `x y w h score`, an ellipse `major minor angle cx cy score`, its half axes and
    centre in px and its angle in rad, as in the lists of the ground truth.

    Args:
        path: one text file of all images, or a folder of one file per fold.

    Returns:
        Image -> scores with boxes or ellipses.

    Raises:
        PredictionError: there is no file, it has another format, or an image occurs twice.
    """
    path = Path(path)
    files = sorted(path.glob("*.txt")) if path.is_dir() else [path]
    if not files:
        raise PredictionError(f"{path}: expected text files of detections, found none")
    found: dict[str, HeadPredictions] = {}
    for file in files:
        try:
            for image, rows in detections_by_image(file, _FORMS):
                if image in found:
                    raise PredictionError(f"{file}: image {image!r} again")
                found[image] = _detections(file, image, rows)
        except (UnreadableBenchmarkFile, MissingBenchmarkFile) as error:
            raise PredictionError(str(error)) from error
    return found


def _detections(file: Path, image: str, rows: np.ndarray) -> HeadPredictions:
    try:
        if rows.shape[1] == len(_ELLIPSE):
            return HeadPredictions(scores=rows[:, 5], ellipses=rows[:, :5])
        return HeadPredictions(scores=rows[:, 4], boxes_xyxy=xywh_to_xyxy(rows[:, :4]))
    except PredictionError as error:
        raise PredictionError(f"{file}: image {image!r}: {error}") from error


def write_fddb_text(path: Path, predictions: Iterable[tuple[str, HeadPredictions]]) -> None:
    """Write detections as FDDB's tool reads them.

    Args:
        path: the text file.
        predictions: images in the order of the folds; an image without a detection has an entry.
    """
    lines = []
    for image, heads in predictions:
        rows = xyxy_to_xywh(heads.boxes) if heads.ellipses is None else heads.ellipses
        # radians need more digits than pixels do
        digits = 3 if heads.ellipses is None else 6
        lines += [image, str(len(rows))]
        lines += [
            " ".join(f"{value:.{digits}f}" for value in row) + f" {score:.9g}"
            for row, score in zip(rows, heads.confidences, strict=True)
        ]
    write_text(path, "\n".join(lines) + "\n")
