"""Only its declared error leaves a reader of published files or of predictions."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import trimesh
from scipy.io import savemat

from ml.benchmarks.dad_3dheads import DadSubmission
from ml.benchmarks.fddb import read_fddb_predictions
from ml.benchmarks.files import UnreadableBenchmarkFile, read_mat
from ml.benchmarks.meshes import read_mesh, read_picked_points
from ml.benchmarks.pickled_box import read_box
from ml.benchmarks.predictions import FORMAT, PredictionError, PredictionFile, read_angle_table
from tests.benchmark_sets.scans import BOX, face_mesh, picked_points, pickled_dictionary
from tests.doors import Door, Files, knock

PER_DOOR = 60


def mat_files() -> Files:
    cell = np.empty((2, 1), object)
    cell[0, 0], cell[1, 0] = np.arange(12, dtype=np.int32).reshape(3, 4), np.array(["name"])
    files = []
    for compressed in (False, True):
        out = io.BytesIO()
        savemat(out, {"a": cell, "b": np.eye(3)}, do_compression=compressed)
        files.append((".mat", out.getvalue()))
    return files


def mesh_files() -> Files:
    vertices, faces = face_mesh()
    mesh = trimesh.Trimesh(vertices[:60], faces[(faces < 60).all(axis=1)], process=False)
    plain = mesh.export(file_type="ply", encoding="ascii")
    return [
        (".ply", mesh.export(file_type="ply")),
        (".ply", plain.encode() if isinstance(plain, str) else plain),
        (".obj", b"v 0 0 0\nv 1 0 0\nv 1 1 0\nf 1/1 2/1 3/1\n"),
    ]


def lines_file() -> Files:
    entries = [
        {"format": FORMAT, "model": "x"},
        {"image": "a", "boxes_xyxy": [[0, 0, 1, 1]], "scores": [0.5], "euler_deg": [[1, 2, 3]]},
        {"image": "b", "rotations": [np.eye(3).tolist()]},
    ]
    return [(".jsonl", "\n".join(map(json.dumps, entries)).encode())]


def whole(mapping) -> None:
    for key in mapping:
        mapping[key]


def submission_file() -> Files:
    item = {"68_landmarks_2d": np.ones((68, 2)).tolist(), "rotation_matrix": np.eye(3).tolist()}
    return [(".json", json.dumps({"a": item, "b": item}).encode())]


DOORS = {
    "MAT file": Door(lambda p: read_mat(p, ["a"]), (UnreadableBenchmarkFile,), mat_files),
    "mesh": Door(read_mesh, (UnreadableBenchmarkFile,), mesh_files),
    "picked points": Door(
        read_picked_points,
        (UnreadableBenchmarkFile,),
        lambda: [(".pp", picked_points(np.ones((7, 3))).encode())],
    ),
    "face box": Door(
        read_box,
        (UnreadableBenchmarkFile,),
        lambda: [(".npy", pickled_dictionary(BOX, protocol)) for protocol in (2, 3, 4)],
    ),
    "predictions": Door(lambda p: whole(PredictionFile(p)), (ValueError,), lines_file),
    "submission": Door(lambda p: whole(DadSubmission(p)), (PredictionError,), submission_file),
    "FDDB text": Door(
        read_fddb_predictions,
        (PredictionError,),
        lambda: [(".txt", b"a/b\n2\n1 2 3 4 0.5\n1 2 3 4 0.25\nc\n0\n")],
    ),
    "angles": Door(
        read_angle_table,
        (PredictionError,),
        lambda: [(".csv", b"image,pitch,yaw,roll\na,1,2,3\nb,4.5,-6,7\n")],
    ),
}


@pytest.mark.parametrize("name", sorted(DOORS))
def test_whole_files_are_taken(name: str, tmp_path: Path) -> None:
    for number, (suffix, content) in enumerate(DOORS[name].files()):
        path = tmp_path / f"{number}{suffix}"
        path.write_bytes(content)
        DOORS[name].read(path)


@pytest.mark.parametrize("name", sorted(DOORS))
def test_only_the_declared_error_leaves_a_reader(name: str, tmp_path: Path) -> None:
    found = knock(name, DOORS[name], PER_DOOR, tmp_path)
    assert found["taken"] + found["refused"] == PER_DOOR
    assert found["mute"] == found["endless"] == 0
    assert found["refused"] > PER_DOOR / 6
