"""BIWI Kinect Head Pose: colour frames with the pose of one head.

An image's id is `<sequence>/frame_<number>`, such as `01/frame_00003`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ml.benchmarks.conventions import rotations_from_matrices
from ml.benchmarks.files import (
    MissingBenchmarkFile,
    UnreadableBenchmarkFile,
    find_path,
    image_loader,
    read_lines,
)
from ml.benchmarks.samples import BenchmarkSample, BrokenAnnotation, HeadPose, checked
from ml.records import reasons
from ml.records.exclusions import Exclusions

NAME = "biwi"
CENTRE_PX = (320.0, 240.0)
OFFICIAL_CENTRE_PX = (320.0, 320.0)
"""What the official script of the paper takes for the centre of 640 x 480 px."""
_POSE_NAME = re.compile(r"frame_(\d{5})_pose\.txt")


@dataclass(frozen=True)
class Calibration:
    """A camera of the set, from its `.cal` file.

    Attributes:
        matrix: (3, 3) intrinsics, px.
        rotation: (3, 3) and
        translation: (3,) mm, which bring points of the depth camera to this camera.
    """

    matrix: np.ndarray
    rotation: np.ndarray
    translation: np.ndarray

    def project(self, point_mm: np.ndarray) -> np.ndarray:
        """Return where a point of the depth camera appears, without lens distortion; (2,) px."""
        x, y, z = self.matrix @ (self.rotation @ point_mm + self.translation)
        return np.array([x / z, y / z])


def read_biwi(root: Path, exclusions: Exclusions) -> Iterator[BenchmarkSample[HeadPose]]:
    """Yield BIWI as published. Missing frame numbers are no error, the set has such gaps.

    Args:
        root: the folder `hpdb` of sequences, or the one above it.
        exclusions: receives frames whose pose or image file is broken or missing.

    Yields:
        Frames in order; `rotation` takes FLAME axes to the depth camera's axes, as every protocol
        has it although the image is the colour camera's; `centre_px` is the head's centre in the
        image, if `rgb.cal` states it, else the image's centre; `group` is the sequence.

    Raises:
        MissingBenchmarkFile: there are no sequences.
    """
    first = find_path(Path(root), ("[0-9][0-9]", "hpdb/[0-9][0-9]", "*/hpdb/[0-9][0-9]"), "BIWI")
    for folder in sorted(first.parent.glob("[0-9][0-9]")):
        camera = _colour_camera(folder, exclusions)
        for path in sorted(folder.glob("frame_*_pose.txt")):
            if not (name := _POSE_NAME.fullmatch(path.name)):
                continue
            image = f"{folder.name}/frame_{name[1]}"
            try:
                truth = _truth(path, camera)
            except (BrokenAnnotation, UnreadableBenchmarkFile) as error:
                exclusions.add(image, reasons.DAMAGED_ANNOTATION, str(error))
                continue
            file = folder / f"frame_{name[1]}_rgb.png"
            yield BenchmarkSample(image, image_loader(file), truth)


def _colour_camera(folder: Path, exclusions: Exclusions) -> Calibration | None:
    try:
        return read_calibration(folder / "rgb.cal")
    except (MissingBenchmarkFile, UnreadableBenchmarkFile, BrokenAnnotation) as error:
        exclusions.add(f"{folder.name}/rgb.cal", reasons.NO_CALIBRATION, str(error))
        return None


def read_calibration(path: Path) -> Calibration:
    """Read `rgb.cal` or `depth.cal`: K, four distortion values, R and t, with blank lines between.

    Raises:
        MissingBenchmarkFile: there is no such file.
        UnreadableBenchmarkFile: it has another form.
    """
    rows = _rows(path)
    if [len(row) for row in rows[:8]] != [3, 3, 3, 4, 3, 3, 3, 3]:
        raise UnreadableBenchmarkFile(
            f"{path}: expected three rows of 3 numbers, one of 4, three of 3 and one of 3, got "
            f"rows of {[len(row) for row in rows]}"
        )
    return Calibration(np.array(rows[:3]), np.array(rows[4:7]), np.array(rows[7]))


def _truth(path: Path, camera: Calibration | None) -> HeadPose:
    rows = _rows(path)
    if [len(row) for row in rows] != [3, 3, 3, 3]:
        raise UnreadableBenchmarkFile(
            f"{path}: expected three rows of R and one of the head's centre, got rows of "
            f"{[len(row) for row in rows]} numbers"
        )
    centre = np.array(CENTRE_PX)
    if camera is not None and rows[3][2] > 0:
        centre = camera.project(checked("head centre", rows[3], (3,)))
    rotation = rotations_from_matrices(np.array(rows[:3])[None], "camera")[0]
    return HeadPose(rotation, centre_px=centre, group=path.parent.name)


def _rows(path: Path) -> list[list[float]]:
    """Return the rows of numbers of a text file, blank lines left out."""
    try:
        return [[float(w) for w in line.split()] for line in read_lines(path) if line.strip()]
    except ValueError as error:
        raise UnreadableBenchmarkFile(f"{path}: expected rows of numbers: {error}") from error
