"""NoW: photographs of people and one scan of each of them.

An image's id is its line in the list, `<subject>/<challenge>/<file>.jpg`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ml.benchmarks.files import (
    MissingBenchmarkFile,
    UnreadableBenchmarkFile,
    find_path,
    image_loader,
    read_lines,
)
from ml.benchmarks.meshes import read_mesh, read_picked_points
from ml.benchmarks.pickled_box import read_box
from ml.benchmarks.samples import BenchmarkSample, BrokenAnnotation, FaceScan
from ml.records import reasons
from ml.records.exclusions import Exclusions

NAME, TEST_NAME = "now", "now-test"
LISTS = {"val": "imagepathsvalidation.txt", "test": "imagepathstest.txt"}
_FOLDERS = ("{}", "NoW_Dataset/final_release_version/{}", "final_release_version/{}", "*/{}")


def read_now(
    root: Path, exclusions: Exclusions, subset: str = "val"
) -> Iterator[BenchmarkSample[FaceScan | None]]:
    """Yield NoW as published. A subject's scan is kept while its images follow each other.

    Args:
        root: the folder with the lists, `iphone_pictures`, `detected_face`, `scans` and
            `scans_lmks_onlypp`, or one above.
        exclusions: receives images whose scan, landmarks or box cannot be used.
        subset: `val`, or `test`, whose scans are withheld.

    Yields:
        Images in the list's order; `group` is the challenge, their truth is None in the test set.

    Raises:
        MissingBenchmarkFile: the list is not there.
        ValueError: no such subset.
    """
    if subset not in LISTS:
        raise ValueError(f"now: subset must be one of {', '.join(LISTS)}, got {subset!r}")
    root = Path(root)
    lines = read_lines(find_path(root, [f.format(LISTS[subset]) for f in _FOLDERS], "NoW"))
    images = _folder(root, "iphone_pictures")
    scans = _Scans(_folder(root, "scans"), _folder(root, "scans_lmks_onlypp"))
    for line in filter(None, (line.strip() for line in lines)):
        try:
            subject, challenge, _ = line.split("/")
            truth = None if subset == "test" else scans.truth(subject, challenge, _box(root, line))
        except (ValueError, FileNotFoundError) as error:
            exclusions.add(line, reasons.DAMAGED_ANNOTATION, str(error))
            continue
        yield BenchmarkSample(line, image_loader(images / line), truth)


def _folder(root: Path, name: str) -> Path:
    try:
        return find_path(root, [f.format(name) for f in _FOLDERS], "NoW")
    except MissingBenchmarkFile:
        # any use of the withheld truth raises
        return root / name


def _box(root: Path, line: str) -> np.ndarray | None:
    path = _folder(root, "detected_face") / Path(line).with_suffix(".npy")
    return read_box(path) if path.is_file() else None


class _Scans:
    """Reads scans by subject; the last one is cached."""

    def __init__(self, scans: Path, landmarks: Path) -> None:
        self._scans, self._landmarks = scans, landmarks
        self._last: tuple[str, np.ndarray, np.ndarray, np.ndarray] | None = None

    def truth(self, subject: str, challenge: str, box: np.ndarray | None) -> FaceScan:
        if self._last is None or self._last[0] != subject:
            vertices, faces = read_mesh(_only(self._scans / subject, "*.obj"))
            points = read_picked_points(_only(self._landmarks / subject, "*.pp"))
            if len(points) != 7:
                raise BrokenAnnotation(f"{subject}: expected 7 landmarks, got {len(points)}")
            self._last = subject, vertices, faces, points
        _, vertices, faces, points = self._last
        return FaceScan(vertices, points, faces, subject, challenge, box)


def _only(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if not found:
        raise MissingBenchmarkFile(f"{folder}: no file {pattern}")
    if len(found) > 1:
        raise UnreadableBenchmarkFile(f"{folder}: expected one file {pattern}, got {len(found)}")
    return found[0]
