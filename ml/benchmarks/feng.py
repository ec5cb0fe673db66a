"""Feng et al. (FG2018): photographs of people and one neutral scan of each of them.

An image's id is its path below the images' folder without ending, such as `HQ/F1001_01`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ml.benchmarks.files import MissingBenchmarkFile, find_path, image_loader
from ml.benchmarks.meshes import MESH_SUFFIXES, read_landmark_rows, read_mesh
from ml.benchmarks.samples import BenchmarkSample, BrokenAnnotation, FaceScan
from ml.records import reasons
from ml.records.exclusions import Exclusions

NAME = "feng"
QUALITIES = ("HQ", "LQ")
SCAN_FOLDERS = ("F_3D_N", "M_3D_N")
_SUBJECT = re.compile(r"[fm]\d+", re.IGNORECASE)
_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")


def read_feng(root: Path, exclusions: Exclusions) -> Iterator[BenchmarkSample[FaceScan]]:
    """Yield the set of Feng et al. The public names differ in case, so case is not looked at.

    Args:
        root: the folder that holds `HQ` and `LQ` images and the folders `F_3D_N` and `M_3D_N` of
            scans and .lnd files, at any depth.
        exclusions: receives images whose name names no person, or whose person has no usable scan.

    Yields:
        Images sorted by name, so that those of a person follow each other; `group` is HQ or LQ.

    Raises:
        MissingBenchmarkFile: there are no images, or no scans.
    """
    root = Path(root)
    scans = _by_subject(root)
    last: tuple[str, np.ndarray, np.ndarray] | None = None
    for quality, path in _images(root):
        image = f"{quality}/{path.stem}"
        named = _SUBJECT.match(path.stem)
        subject = named[0].lower() if named else ""
        try:
            if last is None or last[0] != subject:
                last = (subject, *_scan(subject, path.name, scans))
            truth = FaceScan(last[1], last[2], subject=subject, group=quality)
        except (ValueError, FileNotFoundError) as error:
            exclusions.add(image, reasons.DAMAGED_ANNOTATION, str(error))
            continue
        yield BenchmarkSample(image, image_loader(path), truth)


def _images(root: Path) -> list[tuple[str, Path]]:
    found = []
    for quality in QUALITIES:
        folder = find_path(root, (quality, f"*/{quality}", f"*/*/{quality}"), "Feng et al.")
        paths = (p for p in folder.rglob("*") if p.suffix.lower() in _IMAGE_SUFFIXES)
        found += [(quality, p) for p in sorted(paths, key=lambda p: p.name.lower())]
    return found


def _by_subject(root: Path) -> dict[str, dict[str, Path]]:
    """Return lower-case subject -> ending -> file, of scans and landmarks."""
    found: dict[str, dict[str, Path]] = {}
    for name in SCAN_FOLDERS:
        for folder in sorted(p for p in root.rglob("*") if p.is_dir() and p.name.upper() == name):
            for path in sorted(folder.rglob("*")):
                subject = _SUBJECT.match(path.stem)
                if subject and path.is_file():
                    files = found.setdefault(subject[0].lower(), {})
                    files.setdefault(path.suffix.lower(), path)
    if not found:
        raise MissingBenchmarkFile(
            f"Feng et al.: no scans below {root}; looked for folders {', '.join(SCAN_FOLDERS)}"
        )
    return found


def _scan(
    subject: str, name: str, scans: dict[str, dict[str, Path]]
) -> tuple[np.ndarray, np.ndarray]:
    files = scans.get(subject, {})
    mesh = next((files[suffix] for suffix in MESH_SUFFIXES if suffix in files), None)
    if mesh is None or ".lnd" not in files:
        raise BrokenAnnotation(f"{name}: no scan and .lnd of subject {subject or '?'}")
    vertices, _ = read_mesh(mesh)
    landmarks = read_landmark_rows(files[".lnd"])
    if len(landmarks) != 7:
        raise BrokenAnnotation(f"{files['.lnd']}: expected 7 landmarks, got {len(landmarks)}")
    return vertices, landmarks
