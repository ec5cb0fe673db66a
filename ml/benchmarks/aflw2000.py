"""AFLW2000-3D: one image and one MAT file per head.

An image's id is its name without ending, such as `image00002`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ml.benchmarks.conventions import rotations_from_euler
from ml.benchmarks.files import (
    MissingBenchmarkFile,
    UnreadableBenchmarkFile,
    find_path,
    image_loader,
    read_mat,
)
from ml.benchmarks.samples import BenchmarkSample, BrokenAnnotation, HeadPose, checked
from ml.records import reasons
from ml.records.exclusions import Exclusions

NAME = "aflw2000"
MAX_ANGLE_DEG = 99.0


def read_aflw2000(root: Path, exclusions: Exclusions) -> Iterator[BenchmarkSample[HeadPose]]:
    """Yield AFLW2000-3D as published, less the heads that every protocol leaves out.

    Args:
        root: the folder `AFLW2000` of .jpg and .mat files, or the one above it.
        exclusions: receives heads of which an angle, as written, is over 99 degrees, and those
            whose annotation is broken.

    Yields:
        Heads sorted by name. `euler_deg` is `Pose_Para` in degrees, `box_xyxy` goes around the 68
        landmarks, `crop_xyxy` is Hopenet's, none where every point of `pt2d` is missing.

    Raises:
        MissingBenchmarkFile: there are no MAT files.
    """
    first = find_path(Path(root), ("*.mat", "AFLW2000/*.mat", "*/AFLW2000/*.mat"), "AFLW2000-3D")
    for path in sorted(first.parent.glob("*.mat")):
        try:
            truth = _truth(path)
        except (BrokenAnnotation, UnreadableBenchmarkFile, MissingBenchmarkFile) as error:
            exclusions.add(path.stem, reasons.DAMAGED_ANNOTATION, str(error))
            continue
        if truth is None:
            exclusions.add(path.stem, reasons.ANGLE_OVER_99, "as written, before wrapping")
            continue
        yield BenchmarkSample(path.stem, image_loader(path.with_suffix(".jpg")), truth)


def _truth(path: Path) -> HeadPose | None:
    content = read_mat(path, ["Pose_Para", "pt3d_68"], ["pt2d"])
    pose = checked("Pose_Para", content["Pose_Para"], (1, 7))
    landmarks = checked("pt3d_68", content["pt3d_68"], (3, 68)).T
    euler_deg = np.degrees(pose[0, :3])
    if (np.abs(euler_deg) > MAX_ANGLE_DEG).any():
        return None
    box = np.concatenate([landmarks[:, :2].min(axis=0), landmarks[:, :2].max(axis=0)])
    return HeadPose(
        rotations_from_euler(euler_deg[None])[0],
        euler_deg,
        box_xyxy=box,
        landmarks_px=landmarks,
        crop_xyxy=hopenet_crop(content["pt2d"]) if "pt2d" in content else None,
    )


def hopenet_crop(points_px: np.ndarray) -> np.ndarray | None:
    """Return the crop of Hopenet, FSA-Net and 6DRepNet, widened one side after the other.

    Args:
        points_px: (2, 21) `pt2d`, -1 where a point is missing.

    Returns:
        (4,) xyxy px, not cut at the image's border; None where every point is missing.

    Raises:
        BrokenAnnotation: not an array of points.
    """
    points = checked("pt2d", points_px, (2, None))
    seen = points[:, (points >= 0).all(axis=0)]
    if not seen.shape[1]:
        return None
    (left, top), (right, bottom) = seen.min(axis=1), seen.max(axis=1)
    # in place: each side is extended from the sides updated before it
    left -= 0.4 * (right - left)
    top -= 0.4 * (bottom - top)
    right += 0.4 * (right - left)
    bottom += 0.12 * (bottom - top)
    return np.array([left, top, right, bottom])
