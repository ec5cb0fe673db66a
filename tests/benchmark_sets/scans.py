"""Feng et al. and NoW in their own layouts, from a smooth face whose surface is exactly known."""

from __future__ import annotations

import io
import pickle
from pathlib import Path

import numpy as np

from tests.benchmark_sets.boxes import write_image

BOX = {"left": 20.0, "top": 10.0, "right": 120.0, "bottom": 140.0}
NOW_IMAGES = {
    "val": (
        "FaMoS_1_TA/multiview_neutral/IMG_1.jpg",
        "FaMoS_1_TA/multiview_occlusions/IMG_2.jpg",
        "FaMoS_2_TA/selfie/IMG_3.jpg",
    ),
    "test": ("FaMoS_3_TA/selfie/IMG_4.jpg",),
}
FENG_IMAGES = {"HQ": ("F1001_01.jpg", "m1002_01.JPG"), "LQ": ("f1001_02.png",)}
_N = 41
#: Grid positions of the seven landmarks: eye corners, nose, corners of the mouth.
_SEVEN_MM = ((-42, 30), (-16, 30), (16, 30), (42, 30), (0, -10), (-24, -34), (24, -34))


def face_mesh() -> tuple[np.ndarray, np.ndarray]:
    """(V, 3) mm, (F, 3): half an ellipsoid over a grid, with a ridge for the nose."""
    x, y = np.meshgrid(np.linspace(-60, 60, _N), np.linspace(-80, 80, _N))
    z = 70 * np.sqrt(1 - (x / 90) ** 2 - (y / 120) ** 2) + 12 * np.exp(-((x / 9) ** 2))
    vertices = np.stack([x, y, z], axis=-1).reshape(-1, 3)
    corner = (np.arange(_N - 1)[:, None] * _N + np.arange(_N - 1)).reshape(-1)
    upper = np.stack([corner, corner + 1, corner + _N + 1], axis=1)
    lower = np.stack([corner, corner + _N + 1, corner + _N], axis=1)
    return vertices, np.concatenate([upper, lower])


def seven(vertices: np.ndarray) -> np.ndarray:
    """(7, 3): the vertices nearest to the landmarks' places."""
    flat, _ = face_mesh()
    places = np.array(_SEVEN_MM)
    index = [np.linalg.norm(flat[:, :2] - place, axis=1).argmin() for place in places]
    return vertices[index]


def write_obj(path: Path, vertices: np.ndarray, faces: np.ndarray) -> None:
    """As scanners write them: materials, texture coordinates, corners with slashes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ["mtllib scan.mtl", *(f"v {x:.5f} {y:.5f} {z:.5f}" for x, y, z in vertices), "vt 0 0"]
    lines += ["usemtl skin", *("f " + " ".join(f"{c + 1}/1" for c in face) for face in faces)]
    path.write_text("\n".join(lines) + "\n")


def picked_points(points: np.ndarray) -> str:
    rows = [
        f'<point {order(x, y, z)} active="1" name="{n}"/>'
        for n, ((x, y, z), order) in enumerate(
            zip(points, [_xyz, _zyx] * len(points), strict=False), 1
        )
    ]
    return "<!DOCTYPE PickedPoints>\n<PickedPoints>" + "\n".join(rows) + "</PickedPoints>\n"


def _xyz(x: float, y: float, z: float) -> str:
    return f'x="{x:.5f}" y="{y:.5f}" z="{z:.5f}"'


def _zyx(x: float, y: float, z: float) -> str:
    return f'z="{z:.5f}" y="{y:.5f}" x="{x:.5f}"'


def pickled_dictionary(content: object, protocol: int = 3) -> bytes:
    """An .npy file of one Python object, as `np.save` of a dictionary writes it."""
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": "|O", "fortran_order": False, "shape": ()})
    pickle.dump(np.array(content, dtype=object), out, protocol=protocol)
    return out.getvalue()


def write_now(root: Path) -> Path:
    top = root / "NoW_Dataset" / "final_release_version"
    vertices, faces = face_mesh()
    for subset, name in (("val", "imagepathsvalidation.txt"), ("test", "imagepathstest.txt")):
        for seed, line in enumerate(NOW_IMAGES[subset]):
            write_image(top / "iphone_images" / line, 150, 160, seed)
            box = (top / "detected_face" / line).with_suffix(".npy")
            box.parent.mkdir(parents=True, exist_ok=True)
            box.write_bytes(pickled_dictionary(BOX))
            subject = line.split("/")[0]
            if subset == "val":
                write_obj(top / "scans" / subject / "scan.obj", vertices, faces)
                points = top / "scans_lmks_onlypp" / subject / "scan_picked_points.pp"
                points.parent.mkdir(parents=True, exist_ok=True)
                points.write_text(picked_points(seven(vertices)))
        (top / name).write_text("".join(f"{line}\n" for line in NOW_IMAGES[subset]))
    return root


def write_feng(root: Path) -> Path:
    vertices, faces = face_mesh()
    for quality, names in FENG_IMAGES.items():
        for name in names:
            write_image(root / "Subset_2D_FG2018" / quality / name)
    for folder, subject in (("F_3D_N", "F1001"), ("M_3D_N", "M1002")):
        write_obj(root / "3D" / folder / f"{subject}_N.obj", vertices, faces)
        rows = [f"{i} {x:.5f} {y:.5f} {z:.5f}" for i, (x, y, z) in enumerate(seven(vertices))]
        (root / "3D" / folder / f"{subject.lower()}_n.lnd").write_text("\n".join(rows) + "\n")
    return root
