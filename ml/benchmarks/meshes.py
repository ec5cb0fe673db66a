"""Meshes, landmarks and predicted faces as the scan benchmarks store them."""

from __future__ import annotations

import io
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from ml.benchmarks.files import (
    MissingBenchmarkFile,
    UnreadableBenchmarkFile,
    read_bytes,
    read_lines,
)
from ml.benchmarks.metrics_scan import MeshPrediction
from ml.benchmarks.ply_check import check_ply
from ml.benchmarks.predictions import PredictionError
from ml.benchmarks.samples import BrokenAnnotation, checked
from ml.records.arrays import UnreadableArrays, read_array
from ml.records.atomic import atomic_write, write_bytes
from ml.records.limits import MAX_PICKLE_BYTES, short

MESH_SUFFIXES = (".obj", ".ply")
# Errors of trimesh on files whose header `check_ply` accepts.
_PLY_DAMAGE = (ValueError, IndexError, EOFError, OverflowError)


def read_mesh(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return vertices and triangles of an .obj or .ply file, in the file's order.

    Args:
        path: the file; polygons are cut into triangles.

    Returns:
        (V, 3) float64 vertices and (F, 3) int64 triangles, of which there may be none.

    Raises:
        MissingBenchmarkFile: there is no such file.
        UnreadableBenchmarkFile: it is no such mesh.
    """
    data = read_bytes(path, MAX_PICKLE_BYTES)
    vertices, faces = _read_obj(path, data) if path.suffix == ".obj" else _read_ply(path, data)
    if len(vertices) == 0 or not np.isfinite(vertices).all():
        raise UnreadableBenchmarkFile(f"{path}: expected finite vertices, got {len(vertices)}")
    if len(faces) and (faces.min() < 0 or faces.max() >= len(vertices)):
        raise UnreadableBenchmarkFile(
            f"{path}: a triangle names vertex {faces.max()} of {len(vertices)}"
        )
    return vertices, faces


def _read_obj(path: Path, data: bytes) -> tuple[np.ndarray, np.ndarray]:
    # Not by trimesh: it leaves out vertices that no triangle uses, and protocols count vertices.
    points, triangles = [], []
    try:
        for line in data.splitlines():
            if line.startswith(b"v "):
                points.append(line.split()[1:4])
            elif line.startswith(b"f "):
                corners = [int(word.split(b"/")[0]) for word in line.split()[1:]]
                if len(corners) < 3:
                    raise ValueError(f"a face of {len(corners)} corners")
                # indices count from 1, or backwards from the last vertex so far
                ring = [c - 1 if c > 0 else len(points) + c for c in corners]
                triangles += [(ring[0], *ring[i : i + 2]) for i in range(1, len(ring) - 1)]
        vertices = np.array(points, np.float64).reshape(-1, 3)
        return vertices, np.array(triangles, np.int64).reshape(-1, 3)
    except (ValueError, IndexError, OverflowError) as error:
        raise UnreadableBenchmarkFile(f"{path}: no OBJ file: {short(str(error))}") from error


def _read_ply(path: Path, data: bytes) -> tuple[np.ndarray, np.ndarray]:
    import trimesh

    try:
        stated = check_ply(data)
        mesh = trimesh.load(io.BytesIO(data), file_type="ply", process=False)
        vertices = np.array(getattr(mesh, "vertices", np.zeros((0, 3))), np.float64)
        faces = np.array(getattr(mesh, "faces", np.zeros((0, 3))), np.int64)
    except _PLY_DAMAGE as error:
        raise UnreadableBenchmarkFile(f"{path}: no PLY file: {short(str(error))}") from error
    vertices, faces = vertices.reshape(-1, 3), faces.reshape(-1, 3)
    if len(vertices) != stated[0] or len(faces) < stated[1]:
        raise UnreadableBenchmarkFile(
            f"{path}: is cut or damaged: {len(vertices)} of {stated[0]} vertices, "
            f"{len(faces)} of {stated[1]} polygons"
        )
    return vertices, faces


def read_picked_points(path: Path) -> np.ndarray:
    """Return points of a MeshLab .pp file, in the file's order; attributes may be in any order.

    Args:
        path: the file.

    Returns:
        (N, 3) float64.

    Raises:
        MissingBenchmarkFile: there is no such file.
        UnreadableBenchmarkFile: it is no XML, a coordinate of a point is missing, or something else
            has coordinates.
    """
    data = read_bytes(path)
    if b"<!ENTITY" in data:
        raise UnreadableBenchmarkFile(f"{path}: declares entities, which no .pp file needs")
    try:
        placed = [e for e in ElementTree.fromstring(data).iter() if e.tag == "point" or e.get("x")]
        points = [[float(point.attrib[axis]) for axis in "xyz"] for point in placed]
    except KeyError as error:
        raise UnreadableBenchmarkFile(f"{path}: a point is missing {error}") from error
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise UnreadableBenchmarkFile(f"{path}: no MeshLab points: {short(str(error))}") from error
    if strange := [element.tag for element in placed if element.tag != "point"]:
        raise UnreadableBenchmarkFile(f"{path}: coordinates of a {short(strange[0])!r}, no point")
    return np.array(points).reshape(-1, 3)


def read_landmark_rows(path: Path) -> np.ndarray:
    """Return the rows `i x y z` of a .lnd file of Feng et al.

    Returns:
        (N, 3) float64 in the file's order, mm.

    Raises:
        MissingBenchmarkFile: there is no such file.
        UnreadableBenchmarkFile: a row has another form.
    """
    rows = [line.replace(",", " ").split() for line in read_lines(path) if line.strip()]
    try:
        return np.array([[float(word) for word in row[-3:]] for row in rows]).reshape(-1, 3)
    except ValueError as error:
        raise UnreadableBenchmarkFile(f"{path}: expected rows i x y z: {error}") from error


class MeshFolder(Mapping[str, MeshPrediction]):
    """Predicted faces as NoW's submissions have them: a mesh and its seven landmarks an image.

    For an image `a/b/c.jpg` they are `a/b/c.obj` or `.ply`, and `a/b/c.npy` of shape (7, 3).
    """

    def __init__(self, folder: Path) -> None:
        """List the meshes.

        Raises:
            PredictionError: there are none.
        """
        self.folder = Path(folder)
        self._meshes = {
            path.relative_to(folder).with_suffix("").as_posix(): path
            for path in sorted(self.folder.rglob("*"))
            if path.suffix in MESH_SUFFIXES
        }
        if not self._meshes:
            raise PredictionError(f"{folder}: expected meshes .obj or .ply, found none")

    def __getitem__(self, image: str) -> MeshPrediction:
        """Read one face.

        Raises:
            KeyError: there is no mesh for the image.
            PredictionError: mesh or landmarks cannot be used.
        """
        path = self._meshes[without_ending(image)]
        try:
            vertices, faces = read_mesh(path)
            seven = checked("landmarks", read_array(path.with_suffix(".npy")), (7, 3))
        except (
            UnreadableBenchmarkFile,
            MissingBenchmarkFile,
            UnreadableArrays,
            BrokenAnnotation,
        ) as error:
            raise PredictionError(f"{image}: {error}") from error
        if not len(faces):
            raise PredictionError(f"{image}: {path} has no triangles, so no surface")
        return MeshPrediction(vertices, faces, seven)

    def __contains__(self, image: object) -> bool:
        return isinstance(image, str) and without_ending(image) in self._meshes

    def __iter__(self) -> Iterator[str]:
        return iter(self._meshes)

    def __len__(self) -> int:
        return len(self._meshes)


def write_mesh_prediction(folder: Path, image: str, prediction: MeshPrediction) -> None:
    """Write a face as :class:`MeshFolder` reads it.

    Args:
        folder: receives the mesh and the landmarks.
        image: the image's id.
        prediction: the face.
    """
    stem = Path(folder) / without_ending(image)
    lines = [f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in prediction.vertices]
    lines += [f"f {a} {b} {c}" for a, b, c in prediction.faces + 1]
    write_bytes(stem.with_name(f"{stem.name}.obj"), ("\n".join(lines) + "\n").encode())
    with (
        atomic_write(stem.with_name(f"{stem.name}.npy")) as temporary,
        temporary.open("wb") as file,
    ):
        np.save(file, np.asarray(prediction.seven, np.float64), allow_pickle=False)


def without_ending(image: str) -> str:
    """Return an image's id without the ending of an image file."""
    stem, dot, ending = image.rpartition(".")
    return stem if dot and ending.lower() in ("jpg", "jpeg", "png", "bmp") else image
