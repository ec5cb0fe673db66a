"""Samples of a benchmark: an image's id, a function that reads it, and its ground truth.

One truth class for each kind of benchmark; every array is checked when the truth is built, so that
metrics need no checks. Pixels are those of the stored image, the origin is its upper left corner.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np

from ml.benchmarks.conventions import euler_from_rotations

ROTATION_TOLERANCE = 1e-3


class BrokenAnnotation(ValueError):
    """The ground truth of one image cannot be used; the message says why."""


def checked(name: str, value: object, shape: tuple[int | None, ...]) -> np.ndarray:
    """Return an array of finite numbers of a given shape.

    Args:
        name: what it is, for the error message.
        value: anything that numpy can convert.
        shape: expected size of each axis; None for any.

    Returns:
        float64 array of that shape.

    Raises:
        BrokenAnnotation: no numbers, another shape, NaN or infinity.
    """
    try:
        array = np.asarray(value, np.float64)
    except (TypeError, ValueError) as error:
        raise BrokenAnnotation(f"{name}: expected numbers: {error}") from error
    fits = array.ndim == len(shape) and all(
        e in (None, n) for e, n in zip(shape, array.shape, strict=True)
    )
    if not fits:
        wanted = ", ".join("N" if n is None else str(n) for n in shape)
        raise BrokenAnnotation(f"{name}: expected shape ({wanted}), got {array.shape}")
    if not np.isfinite(array).all():
        raise BrokenAnnotation(f"{name}: contains NaN or infinity")
    return array


def checked_rotation(name: str, value: object) -> np.ndarray:
    """Return a rotation matrix.

    Args:
        name: what it is, for the error message.
        value: (3, 3) numbers.

    Returns:
        (3, 3) float64.

    Raises:
        BrokenAnnotation: no 3 x 3 matrix, not orthonormal to `ROTATION_TOLERANCE`, or a reflection.
    """
    matrix = checked(name, value, (3, 3))
    error = float(np.abs(matrix @ matrix.T - np.eye(3)).max())
    if error > ROTATION_TOLERANCE or np.linalg.det(matrix) < 0:
        raise BrokenAnnotation(
            f"{name}: expected a rotation, got a matrix whose rows are orthonormal to {error:.2g} "
            f"and whose determinant is {np.linalg.det(matrix):.3g}"
        )
    return matrix


@dataclass(frozen=True)
class FaceBoxes:
    """Boxes of an image: FDDB, WIDER FACE, COCO files.

    Attributes:
        boxes_xyxy: (N, 4) float64 px.
        ignore: (N,) bool, neither to be found nor to be missed; none by default.
        ellipses: (N, 5) float64: half axes a, b (px), angle of a to the x axis (rad), centre x, y
            (px); only FDDB.
        kept: difficulty -> (N,) bool, which faces it asks for; only WIDER FACE.
        attributes: name -> (N,), what the set says of each face.
    """

    boxes_xyxy: np.ndarray
    ignore: np.ndarray | None = None
    ellipses: np.ndarray | None = None
    kept: Mapping[str, np.ndarray] = field(default_factory=dict)
    attributes: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        boxes = checked("boxes", self.boxes_xyxy, (None, 4))
        object.__setattr__(self, "boxes_xyxy", boxes)
        ignore = np.zeros(len(boxes), bool) if self.ignore is None else self.ignore
        object.__setattr__(self, "ignore", np.asarray(ignore, bool))
        columns = {"ignore": self.ignore, **self.kept, **self.attributes}
        for name, values in columns.items():
            if values is None or len(values) != len(boxes):
                raise BrokenAnnotation(f"{name}: expected {len(boxes)} values, one a face")
        if self.ellipses is not None:
            ellipses = checked("ellipses", self.ellipses, (len(boxes), 5))
            object.__setattr__(self, "ellipses", ellipses)

    def __len__(self) -> int:
        return len(self.boxes_xyxy)

    @property
    def ignored(self) -> np.ndarray:
        """(N,) bool, `ignore` as an array."""
        return np.asarray(self.ignore, bool)


@dataclass(frozen=True)
class HeadPose:
    """One head whose rotation is known: AFLW2000-3D, BIWI.

    Attributes:
        rotation: (3, 3) float64, FLAME axes to image axes.
        euler_deg: (3,) float64 pitch, yaw, roll as the set states them; those of the rotation by
            default.
        box_xyxy: (4,) px, where the set has one.
        landmarks_px: (68, 2) or (68, 3) px, iBUG order, where the set has them.
        centre_px: (2,) px, the head's centre or the point nearest to which it is searched for.
        crop_xyxy: (4,) px, what methods are shown that look at one head; may leave the image.
        group: what the images are grouped by, such as BIWI's sequence.
    """

    rotation: np.ndarray
    euler_deg: np.ndarray | None = None
    box_xyxy: np.ndarray | None = None
    landmarks_px: np.ndarray | None = None
    centre_px: np.ndarray | None = None
    crop_xyxy: np.ndarray | None = None
    group: str = ""

    def __post_init__(self) -> None:
        rotation = checked_rotation("rotation", self.rotation)
        euler = euler_from_rotations(rotation)[0] if self.euler_deg is None else self.euler_deg
        object.__setattr__(self, "rotation", rotation)
        object.__setattr__(self, "euler_deg", checked("euler_deg", euler, (3,)))
        shapes: Mapping[str, tuple[int | None, ...]] = {
            "box_xyxy": (4,),
            "landmarks_px": (68, None),
            "centre_px": (2,),
            "crop_xyxy": (4,),
        }
        for name, shape in shapes.items():
            if getattr(self, name) is not None:
                object.__setattr__(self, name, checked(name, getattr(self, name), shape))


@dataclass(frozen=True)
class HeadMesh:
    """One head whose whole mesh is known: DAD-3DHeads.

    Attributes:
        vertices_world: (V, 3) float64: the mesh after the model-view matrix, y up.
        vertices_px: (V, 2) float64 px, projected.
        rotation: (3, 3) float64, `(diag(1, -1, -1, 1) MV)[:3, :3]`: FLAME axes to image axes.
        box_xyxy: (4,) float64 px, of the head.
        attributes: name -> value: quality, gender, expression, age, occlusions, pose, light.
    """

    vertices_world: np.ndarray
    vertices_px: np.ndarray
    rotation: np.ndarray
    box_xyxy: np.ndarray
    attributes: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        world = checked("vertices", self.vertices_world, (None, 3))
        pixels = checked("projected vertices", self.vertices_px, (len(world), 2))
        object.__setattr__(self, "vertices_world", world)
        object.__setattr__(self, "vertices_px", pixels)
        object.__setattr__(self, "rotation", checked_rotation("model_view_matrix", self.rotation))
        object.__setattr__(self, "box_xyxy", checked("bbox", self.box_xyxy, (4,)))


@dataclass(frozen=True)
class FaceScan:
    """The scan of the person in an image, in millimetres: Feng et al., NoW.

    Attributes:
        vertices_mm: (V, 3) float64.
        landmarks_mm: (7, 3) float64: right eye outer, inner, left eye inner, outer, nose bottom,
            mouth right, left.
        faces: (F, 3) int64 triangles of the scan; empty where the protocol needs none.
        subject: who it is.
        group: what the images are grouped by: HQ or LQ, or NoW's challenge.
        box_xyxy: (4,) px, the face in the image, if the set states it.
    """

    vertices_mm: np.ndarray
    landmarks_mm: np.ndarray
    faces: np.ndarray = field(default_factory=lambda: np.zeros((0, 3), np.int64))
    subject: str = ""
    group: str = ""
    box_xyxy: np.ndarray | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "vertices_mm", checked("scan", self.vertices_mm, (None, 3)))
        object.__setattr__(self, "landmarks_mm", checked("landmarks", self.landmarks_mm, (7, 3)))
        if self.box_xyxy is not None:
            object.__setattr__(self, "box_xyxy", checked("face box", self.box_xyxy, (4,)))


TruthT = TypeVar("TruthT")


@dataclass(frozen=True)
class BenchmarkSample(Generic[TruthT]):
    """One image of a benchmark.

    Attributes:
        sample_id: the id that predictions carry; see the set's page in docs/benchmarks.
        load_image: reads the image: (H, W, 3) uint8 RGB; raises `ml.imaging.io.UnreadableImage`.
        truth: its ground truth; None where it is withheld.
    """

    sample_id: str
    load_image: Callable[[], np.ndarray]
    truth: TruthT
