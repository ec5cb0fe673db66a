"""Predictions of any method, ours or not: the checked container, and the file that carries it.

A predictions file is JSON Lines. Its first line describes it, each further line is one image:

    {"format": "vggheads-predictions/1", "model": "6DRepNet", "euler_convention":
     "pitch_yaw_roll_deg"}
    {"image": "image00002", "euler_deg": [[1.5, -20.1, 0.3]]}

Every field of an image is optional, and holds one entry for each head: `boxes_xyxy` (px), `scores`,
`rotations` (3 x 3) or `euler_deg` in the conventions that the first line names (see
`ml.benchmarks.conventions`), `ellipses` (regions of FDDB), `landmarks_px` (68 points of 2 or 3
numbers), `vertices_px` (points of 3 numbers), or `vertices_file`, an .npy file of the same next to
the predictions. An image without a line counts as one in which nothing was found. The format is
documented in docs/benchmarks.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from ml.benchmarks.conventions import (
    euler_from_rotations,
    rotations_from_euler,
    rotations_from_matrices,
)
from ml.imaging.boxes import ellipse_boxes
from ml.records.arrays import UnreadableArrays, read_array
from ml.records.atomic import atomic_write

FORMAT = "vggheads-predictions/1"
_HEADER_KEYS = {"format", "model", "euler_convention", "rotation_convention", "note"}
_FIELDS = {
    "boxes_xyxy", "scores", "ellipses", "rotations", "euler_deg", "landmarks_px", "vertices_px",
    "vertices_file",
}  # fmt: skip


class PredictionError(ValueError):
    """A predictions file cannot be used; the message gives place, expected and found values."""


@dataclass(frozen=True)
class HeadPredictions:
    """Predictions for one image, checked when built; what a method does not provide is None.

    Rotations and Euler angles follow from each other: if one is given, both are there.

    Attributes:
        scores: (N,) float64 confidences, higher is better; ones by default.
        boxes_xyxy: (N, 4) float64 px.
        ellipses: (N, 5) float64 regions of FDDB: half axes a, b (px), angle of a to the x axis
            (rad), centre x, y (px).
        rotations: (N, 3, 3) float64, FLAME axes to image axes.
        euler_deg: (N, 3) float64 pitch, yaw, roll.
        landmarks_px: (N, 68, 2) or (N, 68, 3) float64 px, iBUG order.
        vertices_px: (N, V, 3) float64 px, x right, y down, z away from the camera.
    """

    scores: np.ndarray | None = None
    boxes_xyxy: np.ndarray | None = None
    ellipses: np.ndarray | None = None
    rotations: np.ndarray | None = None
    euler_deg: np.ndarray | None = None
    landmarks_px: np.ndarray | None = None
    vertices_px: np.ndarray | None = None

    def __post_init__(self) -> None:
        shapes: dict[str, tuple[int | None, ...]] = {
            "scores": (None,),
            "boxes_xyxy": (None, 4),
            "ellipses": (None, 5),
            "rotations": (None, 3, 3),
            "euler_deg": (None, 3),
            "landmarks_px": (None, 68, None),
            "vertices_px": (None, None, 3),
        }
        lengths = {}
        for name, shape in shapes.items():
            if getattr(self, name) is not None:
                array = _array(name, getattr(self, name), shape)
                object.__setattr__(self, name, array)
                lengths[name] = len(array)
        if self.ellipses is not None and (self.ellipses[:, :2] <= 0).any():
            raise PredictionError("ellipses: expected half axes over 0 px")
        if len(set(lengths.values())) > 1:
            listed = ", ".join(f"{name} {count}" for name, count in lengths.items())
            raise PredictionError(f"expected as many entries in each field, got {listed}")
        count = next(iter(lengths.values()), 0)
        if self.scores is None:
            object.__setattr__(self, "scores", np.ones(count))
        if self.rotations is not None and self.euler_deg is None:
            object.__setattr__(self, "euler_deg", euler_from_rotations(self.rotations))
        elif self.rotations is None and self.euler_deg is not None:
            object.__setattr__(self, "rotations", rotations_from_euler(self.euler_deg))

    def __len__(self) -> int:
        return len(self.confidences)

    @property
    def confidences(self) -> np.ndarray:
        """(N,) float64, `scores` as an array."""
        return np.zeros(0) if self.scores is None else self.scores

    @property
    def boxes(self) -> np.ndarray:
        """(N, 4) px: the boxes, or those around the ellipses, landmarks or else the vertices.

        Raises:
            PredictionError: there are heads but nothing that locates them.
        """
        if self.boxes_xyxy is not None:
            return self.boxes_xyxy
        if self.ellipses is not None:
            return ellipse_boxes(self.ellipses)
        points = self.landmarks_px if self.landmarks_px is not None else self.vertices_px
        if points is not None:
            return np.concatenate([points[..., :2].min(axis=1), points[..., :2].max(axis=1)], 1)
        if len(self):
            raise PredictionError("expected boxes_xyxy or what they follow from, got none")
        return np.zeros((0, 4))

    def __getitem__(self, index: np.ndarray | slice | list[int]) -> HeadPredictions:
        """Return some of the heads, by mask, slice or list of positions."""
        chosen = {
            name: None if getattr(self, name) is None else getattr(self, name)[index]
            for name in self.__dataclass_fields__
        }
        return HeadPredictions(**chosen)


NOTHING = HeadPredictions()
"""Predictions for an image that a file does not mention: no heads."""


def _array(name: str, value: object, shape: tuple[int | None, ...]) -> np.ndarray:
    try:
        array = np.asarray(value, np.float64)
    except (TypeError, ValueError) as error:
        raise PredictionError(f"{name}: expected numbers, as many in each row: {error}") from error
    if array.size == 0 and len(array) == 0:
        array = np.zeros([n or 0 for n in shape])
    fits = array.ndim == len(shape) and all(
        e in (None, n) for e, n in zip(shape, array.shape, strict=True)
    )
    if not fits or (name == "landmarks_px" and len(array) and array.shape[2] not in (2, 3)):
        wanted = ", ".join("N" if n is None else str(n) for n in shape)
        raise PredictionError(f"{name}: expected shape ({wanted}), got {array.shape}")
    if not np.isfinite(array).all():
        raise PredictionError(f"{name}: contains NaN or infinity")
    return array


# ------------------------------------------------------------------ the file
class PredictionFile(Mapping[str, HeadPredictions]):
    """A predictions file; only the offset of each image's line is kept in memory."""

    def __init__(self, path: Path) -> None:
        """Read the header and locate the other lines.

        Args:
            path: a .jsonl file.

        Raises:
            PredictionError: the file is not there, not JSON Lines, of another format, has unknown
                keys, or lists an image twice.
        """
        self.path = Path(path)
        self._offsets: dict[str, tuple[int, int]] = {}
        try:
            with self.path.open("rb") as file:
                self._index(file)
        except OSError as error:
            raise PredictionError(f"predictions {path}: cannot be read: {error}") from error

    def _index(self, file: IO[bytes]) -> None:
        self.header = self._object(file.readline(), 1)
        if self.header.get("format") != FORMAT:
            raise PredictionError(
                f"{self.path}, line 1: expected format {FORMAT!r}, got "
                f"{self.header.get('format')!r}; the first line describes the file"
            )
        _known(set(self.header), _HEADER_KEYS, f"{self.path}, line 1")
        rotations_from_euler(np.zeros((0, 3)), self._euler)
        rotations_from_matrices(np.zeros((0, 3, 3)), self._rotation)
        number, offset = 1, file.tell()
        while line := file.readline():
            number += 1
            if line.strip():
                name = self._image(self._object(line, number), number)
                if name in self._offsets:
                    raise PredictionError(f"{self.path}, line {number}: image {name!r} again")
                self._offsets[name] = (offset, number)
            offset = file.tell()

    @property
    def model(self) -> str:
        """Name of the model, from the file's header."""
        return str(self.header.get("model", self.path.stem))

    @property
    def _euler(self) -> str:
        return str(self.header.get("euler_convention", "pitch_yaw_roll_deg"))

    @property
    def _rotation(self) -> str:
        return str(self.header.get("rotation_convention", "flame_to_image"))

    def __getitem__(self, image: str) -> HeadPredictions:
        """Read one image's line.

        Raises:
            KeyError: the file has no line for it.
            PredictionError: its line holds something else than the form asks for.
        """
        offset, number = self._offsets[image]
        with self.path.open("rb") as file:
            file.seek(offset)
            entry = self._object(file.readline(), number)
        del entry["image"]
        where = f"{self.path}, line {number} ({image})"
        _known(set(entry), _FIELDS, where)
        try:
            return self._predictions(entry)
        except PredictionError as error:
            raise PredictionError(f"{where}: {error}") from error

    def __iter__(self) -> Iterator[str]:
        return iter(self._offsets)

    def __len__(self) -> int:
        return len(self._offsets)

    def _predictions(self, entry: dict[str, Any]) -> HeadPredictions:
        if "vertices_file" in entry:
            if "vertices_px" in entry:
                raise PredictionError("expected vertices_px or vertices_file, got both")
            entry["vertices_px"] = self._vertices(str(entry.pop("vertices_file")))
        for name, shape, convert, convention in (
            ("euler_deg", (None, 3), rotations_from_euler, self._euler),
            ("rotations", (None, 3, 3), rotations_from_matrices, self._rotation),
        ):
            if entry.get(name) is not None:
                converted = convert(_array(name, entry[name], shape), convention)
                # angles stay as written if they are ours: at 90 degrees of yaw they are not unique
                if name == "rotations":
                    entry[name] = converted
                elif self._euler != "pitch_yaw_roll_deg":
                    entry[name] = euler_from_rotations(converted)
        return HeadPredictions(**entry)

    def _vertices(self, name: str) -> np.ndarray:
        path = (self.path.parent / name).resolve()
        if not path.is_relative_to(self.path.parent.resolve()):
            raise PredictionError(f"vertices_file {name!r} is outside {self.path.parent}")
        try:
            return read_array(path)
        except UnreadableArrays as error:
            raise PredictionError(
                f"vertices_file {name!r}: not a readable .npy: {error}"
            ) from error

    def _object(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise PredictionError(f"{self.path}, line {number}: not JSON: {error}") from error
        if not isinstance(entry, dict):
            raise PredictionError(
                f"{self.path}, line {number}: expected an object, got {type(entry).__name__}"
            )
        return entry

    def _image(self, entry: dict[str, Any], number: int) -> str:
        if not isinstance(entry.get("image"), str):
            raise PredictionError(f"{self.path}, line {number}: expected a text under 'image'")
        return str(entry["image"])


class PredictionWriter:
    """Writes a predictions file line by line, in our own conventions; see `open_predictions`."""

    def __init__(self, file: IO[str], model: str) -> None:
        """Write the first line."""
        self._file = file
        self._line({"format": FORMAT, "model": model})

    def add(self, image: str, predictions: HeadPredictions, vertices: bool = True) -> None:
        """Write the predictions for one image.

        Args:
            image: its id in the benchmark.
            predictions: its heads.
            vertices: write vertices too; they take 100 KB per head.
        """
        entry: dict[str, Any] = {"image": image, "scores": predictions.confidences.tolist()}
        # Both: a yaw over 90 degrees, as some methods state it, is another triple by its matrix.
        for name in (
            "boxes_xyxy", "ellipses", "rotations", "euler_deg", "landmarks_px", "vertices_px"
        ):  # fmt: skip
            value = getattr(predictions, name)
            if value is not None and (vertices or name != "vertices_px"):
                entry[name] = value.tolist()
        self._line(entry)

    def _line(self, entry: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(entry, allow_nan=False) + "\n")


@contextmanager
def open_predictions(path: Path, model: str) -> Iterator[PredictionWriter]:
    """Open a predictions file for writing; it appears only when it is complete.

    Args:
        path: a .jsonl file.
        model: name of the predicting model.

    Yields:
        The writer.
    """
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        yield PredictionWriter(file, model)


def _known(found: set[str], known: set[str], where: str) -> None:
    if found - known:
        raise PredictionError(
            f"{where}: unknown {', '.join(sorted(found - known))}; known are "
            f"{', '.join(sorted(known))}"
        )


def read_angle_table(path: Path) -> dict[str, HeadPredictions]:
    """Return angles of one head an image, from a table with the columns image, pitch, yaw, roll.

    Args:
        path: a .csv file; degrees, `pitch_yaw_roll_deg`.

    Returns:
        Image -> its one head.

    Raises:
        PredictionError: it does not exist, a column is missing, an image occurs twice, or a value
            is not a number.
    """
    columns = ["image", "pitch", "yaw", "roll"]
    found: dict[str, HeadPredictions] = {}
    try:
        with Path(path).open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            if missing := sorted(set(columns) - set(reader.fieldnames or ())):
                raise PredictionError(
                    f"{path}: expected a .jsonl file, or a table with the columns "
                    f"{', '.join(columns)}; missing {', '.join(missing)}"
                )
            for row in reader:
                image = str(row["image"])
                if image in found:
                    raise PredictionError(f"{path}, line {reader.line_num}: image {image!r} again")
                try:
                    angles = [[float(row[name]) for name in columns[1:]]]
                    found[image] = HeadPredictions(euler_deg=np.array(angles))
                except (TypeError, ValueError) as error:
                    raise PredictionError(f"{path}, line {reader.line_num}: {error}") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise PredictionError(f"{path}: cannot be read as a table: {error}") from error
    return found
