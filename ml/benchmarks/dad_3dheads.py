"""DAD-3DHeads: one annotated mesh per image, and the benchmark's submission file.

An image's id is its `item_id`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ml.benchmarks.files import (
    MissingBenchmarkFile,
    UnreadableBenchmarkFile,
    find_path,
    image_loader,
    image_size,
    read_json,
)
from ml.benchmarks.metrics_dad import DadPrediction
from ml.benchmarks.object_file import ObjectFile
from ml.benchmarks.predictions import PredictionError
from ml.benchmarks.samples import BenchmarkSample, BrokenAnnotation, HeadMesh, checked
from ml.imaging.boxes import xywh_to_xyxy
from ml.records import reasons
from ml.records.atomic import atomic_write
from ml.records.exclusions import Exclusions

NAME = "dad"
TEST_NAME = "dad-test"
SUBSETS = ("val", "test", "train")
SUBMISSION_FIELDS = {
    "68_landmarks_2d": "landmarks_px",
    "N_landmarks_3d": "vertices",
    "7_landmarks_3d": "seven",
    "rotation_matrix": "rotation",
}
"""Name in the submission -> field of a prediction."""
_FLIP = np.diag([1.0, -1.0, -1.0, 1.0])


def read_dad(
    root: Path, exclusions: Exclusions, subset: str = "val"
) -> Iterator[BenchmarkSample[HeadMesh | None]]:
    """Yield DAD-3DHeads as published.

    Args:
        root: the folder `DAD-3DHeadsDataset`, or the one above it.
        exclusions: receives items whose annotation is missing or broken, and those whose image is
            missing, because its height is needed to place the projection.
        subset: `val`, `train`, or `test`, whose annotations are withheld.

    Yields:
        Items in the order of `<subset>.json`; their truth is None in the test set.

    Raises:
        MissingBenchmarkFile: the subset's list is not there.
        UnreadableBenchmarkFile: the list is no such list.
        ValueError: no such subset.
    """
    if subset not in SUBSETS:
        raise ValueError(f"dad: subset must be one of {', '.join(SUBSETS)}, got {subset!r}")
    name = f"{subset}.json"
    places = (f"{subset}/{name}", name, f"*/{subset}/{name}", f"*/{name}")
    path = find_path(Path(root), places, "DAD-3DHeads")
    items = read_json(path)
    if not isinstance(items, list):
        raise UnreadableBenchmarkFile(f"{path}: expected a list of items, got {type(items)}")
    for number, item in enumerate(items):
        try:
            identity = str(item["item_id"])
            image = _beside(path, item.get("img_path"), subset, f"images/{identity}.png")
            truth = None if subset == "test" else _truth(path, item, subset, image)
        except (TypeError, KeyError, AttributeError) as error:
            exclusions.add(
                f"{name}#{number}", reasons.DAMAGED_ANNOTATION, f"item is missing {error}"
            )
            continue
        except (BrokenAnnotation, UnreadableBenchmarkFile, MissingBenchmarkFile) as error:
            exclusions.add(identity, reasons.DAMAGED_ANNOTATION, str(error))
            continue
        yield BenchmarkSample(identity, image_loader(image), truth)


def _beside(path: Path, named: object, subset: str, usual: str) -> Path:
    """Return a file of an item: where the list says, or where the layout has it."""
    candidates = [path.parent / subset / usual, path.parent / usual]
    if isinstance(named, str):
        candidates = [path.parent / named, path.parent.parent / named, *candidates]
    return next((candidate for candidate in candidates if candidate.is_file()), candidates[-1])


def _truth(path: Path, item: Mapping[str, Any], subset: str, image: Path) -> HeadMesh:
    annotation = _beside(
        path, item.get("annotation_path"), subset, f"annotations/{item['item_id']}.json"
    )
    content = read_json(annotation)
    if not isinstance(content, dict):
        raise BrokenAnnotation(f"{annotation}: expected an object")
    missing = {"vertices", "model_view_matrix", "projection_matrix"} - set(content)
    if missing:
        raise BrokenAnnotation(f"{annotation}: missing {', '.join(sorted(missing))}")
    vertices = checked("vertices", content["vertices"], (None, 3))
    view = checked("model_view_matrix", content["model_view_matrix"], (4, 4))
    projection = checked("projection_matrix", content["projection_matrix"], (4, 4))
    height, _ = image_size(image)
    world = np.concatenate([vertices, np.ones((len(vertices), 1))], axis=1) @ view.T
    clip = world @ projection.T
    return HeadMesh(
        vertices_world=world[:, :3],
        vertices_px=np.stack([clip[:, 0] / clip[:, 3], height - clip[:, 1] / clip[:, 3]], axis=1),
        rotation=(_FLIP @ view)[:3, :3],
        box_xyxy=xywh_to_xyxy(checked("bbox", item["bbox"], (4,))),
        attributes=dict(item.get("attributes") or {}),
    )


# ------------------------------------------------------------------ submission
class DadSubmission(Mapping[str, DadPrediction]):
    """A submission file, one item read at a time."""

    def __init__(self, path: Path) -> None:
        """Find the items.

        Args:
            path: the .json file: item id -> its fields.

        Raises:
            PredictionError: it is not there or no object.
        """
        self._file = ObjectFile(path)

    def __getitem__(self, item: str) -> DadPrediction:
        """Read one item.

        Raises:
            KeyError: the file does not hold it.
            PredictionError: a field is unknown or has another shape.
        """
        entry, where = self._file[item], f"{self._file.path} ({item})"
        if not isinstance(entry, dict):
            raise PredictionError(f"{where}: expected an object, got {type(entry).__name__}")
        if unknown := sorted(set(entry) - set(SUBMISSION_FIELDS)):
            raise PredictionError(f"{where}: unknown {unknown}; known are {[*SUBMISSION_FIELDS]}")
        shapes: dict[str, tuple[int | None, ...]] = {
            "68_landmarks_2d": (68, 2),
            "N_landmarks_3d": (None, 3),
            "7_landmarks_3d": (7, 3),
            "rotation_matrix": (3, 3),
        }
        try:
            fields = {
                SUBMISSION_FIELDS[name]: checked(name, value, shapes[name])
                for name, value in entry.items()
                if value is not None
            }
        except BrokenAnnotation as error:
            raise PredictionError(f"{where}: {error}") from error
        return DadPrediction(**fields)

    def __iter__(self) -> Iterator[str]:
        return iter(self._file)

    def __len__(self) -> int:
        return len(self._file)


def write_dad_submission(
    path: Path, predictions: Iterator[tuple[str, DadPrediction]], digits: int = 5
) -> None:
    """Write the benchmark's submission file, item by item.

    Args:
        path: the .json file.
        predictions: item ids and what was predicted; fields that are None are left out.
        digits: decimals of the numbers.
    """
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write("{")
        for number, (item, prediction) in enumerate(predictions):
            entry = {
                name: np.asarray(getattr(prediction, field), np.float64).round(digits).tolist()
                for name, field in SUBMISSION_FIELDS.items()
                if getattr(prediction, field) is not None
            }
            file.write(",\n" if number else "\n")
            file.write(f"{json.dumps(item)}: {json.dumps(entry, allow_nan=False)}")
        file.write("\n}\n")
