"""Landmark embeddings on FLAME's mesh in every public format, read without executing code.

Public forms: `flame_static_embedding.pkl` (51 points), `flame_dynamic_embedding.npy` (the contour's
17 for each of 79 head turns; an array of one object), `landmark_embedding.npy` of DECA and MICA (a
dictionary with static, dynamic and full points; an array of one object), the pairs of RingNet and
DAD-3DNet (the first two forms), and `mediapipe_landmark_embedding.npz` (105 points).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml.flame.head_model import NUM_FACES
from ml.flame.safe_pickle import FlameFileError, load_pickle, numeric, objects, plain_array
from ml.records.arrays import UnreadableArrays, read_arrays
from ml.records.limits import short_names

Points = tuple[NDArray[np.int32], NDArray[np.float32]]
"""(N,) triangles and (N, 3) barycentric weights."""

# kind -> the names of its triangles and weights in public files, each with how many points it has
_NAMES: dict[str, tuple[tuple[str, str, int | None], ...]] = {
    "full": (("full_lmk_faces_idx", "full_lmk_bary_coords", 68),),
    "static": (
        ("static_lmk_faces_idx", "static_lmk_bary_coords", 51),
        ("lmk_face_idx", "lmk_b_coords", None),
    ),
    "dynamic": (
        ("dynamic_lmk_faces_idx", "dynamic_lmk_bary_coords", 17),
        ("lmk_face_idx", "lmk_b_coords", 17),
    ),
}
_MEDIAPIPE = 105
_NUMBERS = "landmark_indices"


@dataclass(frozen=True)
class LandmarkEmbedding:
    """The landmarks that one or several files have.

    Attributes:
        contour: the 17 of the contour of the resting head, None where no file has them.
        static: the 51 of brows, nose, eyes and mouth.
        mediapipe: the 105 of MediaPipe's embedding.
        mediapipe_numbers: (105,) their indices among MediaPipe's 468 or 478 points, None where the
            file does not state them.
    """

    contour: Points | None = None
    static: Points | None = None
    mediapipe: Points | None = None
    mediapipe_numbers: NDArray[np.int64] | None = None

    def describe(self) -> str:
        """Describe the available points and what the 68 landmarks still need."""
        parts = [("contour", 17), ("static", 51), ("mediapipe", _MEDIAPIPE)]
        found = [f"{count} {name}" for name, count in parts if getattr(self, name) is not None]
        hints = {
            "contour": "the contour of flame_dynamic_embedding.npy",
            "static": "the static points of flame_static_embedding.pkl",
        }
        lacking = [hint for name, hint in hints.items() if getattr(self, name) is None]
        text = f"found {', '.join(found) if found else 'no points'}"
        return f"{text}; the 68 landmarks still need {' and '.join(lacking)}" if lacking else text

    def all_68(self, where: str) -> Points:
        """Return the 68 landmarks, contour first.

        Args:
            where: the files, for the message.

        Returns:
            (68,) int32 triangles and (68, 3) float32 barycentric weights.

        Raises:
            FlameFileError: contour or static points are missing.
        """
        if self.contour is None or self.static is None:
            raise FlameFileError(
                f"landmark embedding {where}: {self.describe()}; landmark_embedding.npy of DECA "
                "or MICA has all of them"
            )
        faces = np.concatenate([self.contour[0], self.static[0]])
        return faces, np.concatenate([self.contour[1], self.static[1]])


def read_embedding(paths: Sequence[Path]) -> LandmarkEmbedding:
    """Read the landmarks of one file, or of a pair that belongs together.

    Args:
        paths: files in any of the public forms, see the head of this module.

    Returns:
        What was found; of points that several files have, the first file's.

    Raises:
        FileNotFoundError: there is no such file.
        FlameFileError: a file is damaged, names a class, or holds no landmarks.
    """
    found: dict[str, Points] = {}
    numbers = None
    for path in map(Path, paths):
        if not path.is_file():
            raise FileNotFoundError(
                f"landmark embedding: no file {path}; it comes with FLAME, DECA, MICA or RingNet"
            )
        content = _content(path)
        for kind, points in _parts(content, path).items():
            found.setdefault(kind, points)
        if numbers is None and _NUMBERS in content:
            numbers = _mediapipe_numbers(content[_NUMBERS], path)
    return LandmarkEmbedding(**found, mediapipe_numbers=numbers)


def read_landmarks(path: Path, *others: Path) -> Points:
    """Read the 68 landmarks: the contour of the resting head, then the 51 static ones.

    Args:
        path: a file in any of the public forms, or an npz with the 68 as `lmk_face_idx` and
            `lmk_b_coords`.
        others: further files, such as the dynamic embedding next to the static one.

    Returns:
        (68,) int32 triangles and (68, 3) float32 barycentric weights.

    Raises:
        FileNotFoundError: there is no such file.
        FlameFileError: a file cannot be read, or landmarks are missing in total; the message lists
            them.
    """
    paths = [path, *others]
    return read_embedding(paths).all_68(" and ".join(str(p) for p in paths))


def _content(path: Path) -> Mapping[str, Any]:
    """Return what a file holds under its keys; values are plain arrays or stubs of them."""
    if path.suffix == ".npz":
        try:
            return read_arrays(path)
        except UnreadableArrays as error:
            raise FlameFileError(f"landmark embedding {path}: {error}") from error
    content = objects(load_pickle(path))
    if not isinstance(content, dict):
        raise FlameFileError(
            f"landmark embedding {path}: expected a dictionary of landmarks, got "
            f"{type(content).__name__.strip('_')}"
        )
    return {str(key): value for key, value in content.items()}


def _parts(content: Mapping[str, Any], path: Path) -> dict[str, Points]:
    """Return the kind of points -> points."""
    parts: dict[str, Points] = {}
    for kind, names in _NAMES.items():
        for faces_name, weights_name, _ in names:
            if kind in parts or not {faces_name, weights_name} <= set(content):
                continue
            faces = _numbers(content[faces_name], f"landmark embedding {path}: {faces_name}")
            weights = _numbers(content[weights_name], f"landmark embedding {path}: {weights_name}")
            parts = _sorted_out(kind, faces, weights, path) | parts
    if not parts:
        raise FlameFileError(
            f"landmark embedding {path}: needs lmk_face_idx and lmk_b_coords, or the static and "
            f"dynamic keys of DECA, found {short_names(content)}"
        )
    return parts


def _sorted_out(kind: str, faces: NDArray, weights: NDArray, path: Path) -> dict[str, Points]:
    """Return points of one pair of keys, by their number: many turns of 17, 51, 68 or 105."""
    turns = faces.ndim == 2 and faces.shape[1] == 17 and faces.shape[0] > 1
    if turns and weights.shape == (*faces.shape, 3):
        # at rest the contour is that of the frontal head, the first row
        return {"contour": _checked(faces[0], weights[0], path)}
    if turns or kind == "dynamic":
        return {}
    flat = faces.reshape(-1)
    if weights.size != 3 * len(flat):
        raise FlameFileError(
            f"landmark embedding {path}: shapes do not fit: {faces.shape} triangles, "
            f"{weights.shape} weights"
        )
    points = _checked(flat, weights.reshape(-1, 3), path)
    if len(flat) == 68:
        return {
            "contour": (points[0][:17], points[1][:17]), "static": (points[0][17:], points[1][17:])
        }  # fmt: skip
    if len(flat) not in (51, _MEDIAPIPE):
        raise FlameFileError(
            f"landmark embedding {path}: expected 51, 68 or 105 landmarks, got {len(flat)}"
        )
    return {"static" if len(flat) == 51 else "mediapipe": points}


def _mediapipe_numbers(value: Any, path: Path) -> NDArray[np.int64]:
    what = f"landmark embedding {path}: {_NUMBERS}"
    numbers = _numbers(value, what).reshape(-1)
    whole = np.array_equal(numbers, np.round(numbers))
    if len(numbers) != _MEDIAPIPE or not whole or numbers.min() < 0 or numbers.max() >= 478:
        raise FlameFileError(f"{what} must be {_MEDIAPIPE} numbers of points in 0..477")
    return numbers.astype(np.int64)


def _numbers(value: Any, what: str) -> NDArray:
    array = value if isinstance(value, np.ndarray) else plain_array(value, what)
    if array.dtype.kind not in "iuf":
        raise FlameFileError(f"{what} must be numbers")
    return numeric(array, what)


def _checked(faces: NDArray, weights: NDArray, path: Path) -> Points:
    if faces.min() < 0 or faces.max() >= NUM_FACES:
        raise FlameFileError(
            f"landmark embedding {path}: triangles must lie in 0..{NUM_FACES - 1}, got "
            f"{faces.min()}..{faces.max()}"
        )
    return faces.astype(np.int32), weights.astype(np.float32)
