"""Only its declared error leaves a reader of published files or of predictions."""

from __future__ import annotations

import errno
import io
import json
import re
import tempfile
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
from ml.benchmarks.wider import read_wider
from ml.records.exclusions import Exclusions
from tests.benchmark_sets.boxes import write_wider
from tests.benchmark_sets.scans import BOX, face_mesh, picked_points, pickled_dictionary
from tests.doors import Door, Files, knock
from tests.malformed import damaged_bytes

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


def whole(mapping) -> int:
    return len([mapping[key] for key in mapping])


def lines_in(data: bytes) -> int:
    return sum(bool(line.strip()) for line in data.splitlines())


def mesh_parts_in(data: bytes) -> int:
    """Vertices and triangles as the header says, or one a line."""
    claimed = re.findall(rb"element (?:vertex|face) (\d+)", data)
    return sum(map(int, claimed)) or len(re.findall(rb"^[vf] ", data, re.MULTILINE))


def wider_file() -> Files:
    with tempfile.TemporaryDirectory() as folder:
        write_wider(Path(folder), images=False, mat=False)
        (path,) = Path(folder).rglob("*.txt")
        return [(".txt", path.read_bytes())]


def wider_lines(path: Path) -> int:
    """Lines of the images and faces that are read."""
    root = path.parent / "wider" / "wider_face_split"
    root.mkdir(parents=True, exist_ok=True)
    (root / "wider_face_val_bbx_gt.txt").write_bytes(path.read_bytes())
    return sum(
        2 + len(sample.truth.boxes_xyxy) for sample in read_wider(root.parent, Exclusions("wider"))
    )


def submission_file() -> Files:
    item = {"68_landmarks_2d": np.ones((68, 2)).tolist(), "rotation_matrix": np.eye(3).tolist()}
    return [(".json", json.dumps({"a": item, "b": item}).encode())]


DOORS = {
    "MAT file": Door(
        lambda p: read_mat(p, ["a"]),
        (UnreadableBenchmarkFile,),
        mat_files,
        count=lambda content: content["a"].size,
        given=lambda data: 2,
    ),
    "mesh": Door(
        read_mesh,
        (UnreadableBenchmarkFile,),
        mesh_files,
        count=lambda mesh: len(mesh[0]) + len(mesh[1]),
        given=mesh_parts_in,
    ),
    "picked points": Door(
        read_picked_points,
        (UnreadableBenchmarkFile,),
        lambda: [(".pp", picked_points(np.ones((7, 3))).encode())],
        count=len,
        given=lambda data: 7,
    ),
    "face box": Door(
        read_box,
        (UnreadableBenchmarkFile,),
        lambda: [(".npy", pickled_dictionary(BOX, protocol)) for protocol in (2, 3, 4)],
    ),
    "predictions": Door(
        lambda p: whole(PredictionFile(p)),
        (ValueError,),
        lines_file,
        count=lambda read: read + 1,
        given=lines_in,
    ),
    "submission": Door(
        lambda p: whole(DadSubmission(p)),
        (PredictionError,),
        submission_file,
        count=int,
        given=lambda data: 2,
    ),
    "FDDB text": Door(
        read_fddb_predictions,
        (PredictionError,),
        lambda: [(".txt", b"a/b\n2\n1 2 3 4 0.5\n1 2 3 4 0.25\nc\n0\n")],
        count=lambda found: sum(2 + len(heads) for heads in found.values()),
        given=lines_in,
    ),
    "angles": Door(
        read_angle_table,
        (PredictionError,),
        lambda: [(".csv", b"image,pitch,yaw,roll\na,1,2,3\nb,4.5,-6,7\n")],
        count=lambda found: 1 + len(found),
        given=lines_in,
    ),
    "WIDER text": Door(
        wider_lines, (UnreadableBenchmarkFile,), wider_file, count=int, given=lines_in
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


def with_broken_header(data: bytes, rng: np.random.Generator) -> bytes:
    """Damage where a mesh's types and counts are told, the numbers behind it whole."""
    place = data.find(b"end_header") + len(b"end_header\n")
    return damaged_bytes(data[:place], rng) + data[place:]


@pytest.mark.parametrize("lost", [1, 60])
def test_a_cut_text_mesh_is_refused(lost: int, tmp_path: Path) -> None:
    path = tmp_path / "mesh.ply"
    path.write_bytes(b"\n".join(mesh_files()[1][1].splitlines()[:-lost]) + b"\n")
    with pytest.raises(UnreadableBenchmarkFile, match=r"\d+ of 60 vertices, \d+ of 36 polygons"):
        read_mesh(path)


def test_a_face_that_is_cut_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mesh.obj"
    path.write_bytes(mesh_files()[2][1].rstrip().removesuffix(b" 3/1"))
    with pytest.raises(UnreadableBenchmarkFile, match="a face of 2 corners"):
        read_mesh(path)


def test_coordinates_of_another_element_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pp"
    path.write_text(picked_points(np.ones((7, 3))).replace("<point z", "<poynt z", 1))
    with pytest.raises(UnreadableBenchmarkFile, match="coordinates of a 'poynt'"):
        read_picked_points(path)


@pytest.mark.parametrize("number", [0, 1])
def test_damaged_headers_of_meshes_are_refused(number: int, tmp_path: Path) -> None:
    rng, path = np.random.default_rng(number), tmp_path / "mesh.ply"
    refused = 0
    for _ in range(150):
        path.write_bytes(with_broken_header(mesh_files()[number][1], rng))
        try:
            read_mesh(path)
        except UnreadableBenchmarkFile:
            refused += 1
    assert refused > 75


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"format ascii 1.0", b"format ascii 2.0", "expected format"),
        (b"property float x", b"property flood x", "a property 'flood x'"),
        (b"property float x", b"property float w", "x, y and z"),
        (b"element vertex 60", b"element vertex 6000", "bytes claimed"),
        (b"element vertex 60", b"element vertex", "a header line 'element vertex'"),
        (b"end_header", b"end_haeder", "from `ply` to `end_header`"),
    ],
)
def test_the_error_says_what_is_wrong_with_a_mesh(old, new, message, tmp_path: Path) -> None:
    path = tmp_path / "mesh.ply"
    content = mesh_files()[1][1]
    assert old in content
    path.write_bytes(content.replace(old, new))
    with pytest.raises(UnreadableBenchmarkFile, match=message):
        read_mesh(path)


@pytest.mark.parametrize("first", [b"M\0TL", b"MATL"], ids=["level 4", "version 7.3"])
def test_mat_files_of_other_levels_are_refused(first: bytes, tmp_path: Path) -> None:
    content = bytearray(mat_files()[0][1])
    content[:4] = first
    if first == b"MATL":
        content[124:126] = b"\0\2"
    path = tmp_path / "a.mat"
    path.write_bytes(content)
    with pytest.raises(UnreadableBenchmarkFile, match="up to version 7"):
        read_mat(path, ["a"])


@pytest.mark.parametrize("fault", [TypeError, KeyError, AttributeError])
def test_faults_of_programs_are_no_damage(fault, tmp_path: Path, monkeypatch) -> None:
    def broken(*arguments, **options):
        raise fault("a call that this version no longer takes")

    monkeypatch.setattr("scipy.io.loadmat", broken)
    monkeypatch.setattr(trimesh, "load", broken)
    for name, content, read in (
        ("a.mat", mat_files()[0][1], lambda path: read_mat(path, ["a"])),
        ("a.ply", mesh_files()[0][1], read_mesh),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(fault, match="no longer takes"):
            read(tmp_path / name)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ENOSPC, errno.EMFILE])
def test_faults_of_the_machine_are_no_damage(number: int, tmp_path: Path, monkeypatch) -> None:
    for name, content in (("a.mat", mat_files()[0][1]), ("a.ply", mesh_files()[0][1])):
        (tmp_path / name).write_bytes(content)

    def refuse(self, *arguments, **options):
        raise OSError(number, "the machine's words")

    monkeypatch.setattr(Path, "open", refuse)
    for name, read in (("a.mat", lambda path: read_mat(path, ["a"])), ("a.ply", read_mesh)):
        with pytest.raises(OSError, match="the machine's words"):
            read(tmp_path / name)
