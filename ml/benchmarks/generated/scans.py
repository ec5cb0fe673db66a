"""Feng et al. and NoW in their own layouts."""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ml.benchmarks.feng import QUALITIES
from ml.benchmarks.generated.images import write_image
from ml.benchmarks.now import LISTS
from ml.records.atomic import write_bytes, write_text


@dataclass(frozen=True)
class Scan:
    """A person's scan.

    Attributes:
        vertices: (V, 3) mm.
        faces: (F, 3) triangles.
        seven: (7, 3) mm: right eye outer, inner, left eye inner, outer, nose bottom, mouth right,
            left.
    """

    vertices: np.ndarray
    faces: np.ndarray
    seven: np.ndarray


@dataclass(frozen=True)
class ScanImage:
    """An image of a person who was scanned.

    Attributes:
        name: NoW: `<subject>/<challenge>/<file>.jpg`; Feng et al.: `HQ/F1001_01.jpg`.
        image_rgb: (H, W, 3) uint8 RGB.
        box_xyxy: (4,) px of the face, which NoW has and Feng et al. have not.
    """

    name: str
    image_rgb: np.ndarray
    box_xyxy: np.ndarray


def write_now(
    root: Path, images: Iterable[ScanImage], scans: Mapping[str, Scan], subset: str = "val"
) -> Path:
    """Write a list, its images, boxes and scans.

    Args:
        root: receives the folder `NoW_Dataset/final_release_version`.
        images: of the subset.
        scans: subject -> scan; those of the test set are withheld.
        subset: val or test.

    Returns:
        `root`.
    """
    top = root / "NoW_Dataset" / "final_release_version"
    lines = []
    for image in images:
        lines.append(image.name)
        write_image(top / "iphone_pictures" / image.name, image.image_rgb)
        sides = zip(("left", "top", "right", "bottom"), map(float, image.box_xyxy), strict=True)
        box = (top / "detected_face" / image.name).with_suffix(".npy")
        write_bytes(box, pickled_dictionary(dict(sides)))
    for subject, scan in scans.items():
        write_obj(top / "scans" / subject / "scan.obj", scan.vertices, scan.faces)
        points = top / "scans_lmks_onlypp" / subject / "scan_picked_points.pp"
        write_text(points, picked_points(scan.seven))
    write_text(top / LISTS[subset], "".join(f"{line}\n" for line in lines))
    return root


def write_feng(root: Path, images: Iterable[ScanImage], scans: Mapping[str, Scan]) -> Path:
    """Write images, scans and landmarks; names differ in case, as the published ones do.

    Args:
        root: receives the folders `Subset_2D_FG2018` and `3D`.
        images: named by quality and subject.
        scans: subject such as `F1001` -> scan.

    Returns:
        `root`.
    """
    for quality in QUALITIES:
        (root / "Subset_2D_FG2018" / quality).mkdir(parents=True, exist_ok=True)
    for image in images:
        write_image(root / "Subset_2D_FG2018" / image.name, image.image_rgb)
    for subject, scan in scans.items():
        folder = root / "3D" / f"{subject[0].upper()}_3D_N"
        write_obj(folder / f"{subject}_N.obj", scan.vertices, scan.faces)
        rows = [f"{i} {x:.5f} {y:.5f} {z:.5f}\n" for i, (x, y, z) in enumerate(scan.seven)]
        write_text(folder / f"{subject.lower()}_n.lnd", "".join(rows))
    return root


def write_obj(path: Path, vertices: np.ndarray, faces: np.ndarray) -> None:
    """Write a mesh as scanners do: materials, texture coordinates, corners with slashes.

    Args:
        path: the .obj file.
        vertices: (V, 3).
        faces: (F, 3).
    """
    lines = ["mtllib scan.mtl", *(f"v {x:.5f} {y:.5f} {z:.5f}" for x, y, z in vertices), "vt 0 0"]
    lines += ["usemtl skin", *("f " + " ".join(f"{c + 1}/1" for c in face) for face in faces)]
    write_text(path, "\n".join(lines) + "\n")


def picked_points(points: np.ndarray) -> str:
    """Return points as MeshLab writes them; every other one with its attributes backwards.

    Args:
        points: (N, 3).
    """
    rows = []
    for number, point in enumerate(points, 1):
        words = [f'{axis}="{value:.5f}"' for axis, value in zip("xyz", point, strict=True)]
        order = words if number % 2 else words[::-1]
        rows.append(f'<point {" ".join(order)} active="1" name="{number}"/>')
    return "<!DOCTYPE PickedPoints>\n<PickedPoints>" + "\n".join(rows) + "</PickedPoints>\n"


def pickled_dictionary(content: object, protocol: int = 3) -> bytes:
    """Return an .npy file of one Python object, as `np.save` of a dictionary writes it.

    Args:
        content: the object.
        protocol: of the pickle.
    """
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": "|O", "fortran_order": False, "shape": ()})
    pickle.dump(np.array(content, dtype=object), out, protocol=protocol)
    return out.getvalue()
