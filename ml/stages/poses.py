"""Stage `poses`: the skeletons of one shard's images."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
import pandas as pd

from ml.imaging.grids import contact_sheet
from ml.imaging.io import encode_jpeg
from ml.poses.config import PosesConfig
from ml.poses.figure import HEAD_RADIUS_M, IMAGE_FROM_BODY, looks_like_child
from ml.poses.openpose import draw_openpose, joint_radius
from ml.poses.sampler import STAGE, ImplausiblePose, sample_pose
from ml.poses.skeleton import PoseSample
from ml.records import reasons
from ml.records.atomic import write_bytes
from ml.records.exclusions import Exclusions
from ml.records.progress import progress
from ml.records.report import StageReport
from ml.records.tables import POSES, empty_table, write_table
from ml.records.workspace import Workspace

_PREVIEW_CELL_PX: Final = 192


def pose_ids(ws: Workspace, shard: str) -> list[str]:
    """Return ids of a shard's poses, in order.

    Args:
        ws: The workspace; its `shard_size` says how many.
        shard: Name of the shard, such as `shard-00003`.

    Returns:
        `pose-00003-00000`, `pose-00003-00001`, ...; the number of shards does not matter to them.
    """
    number = shard.rsplit("-", 1)[-1]
    return [f"pose-{number}-{index:05d}" for index in range(ws.shard_size)]


def run_shard(ws: Workspace, config: PosesConfig, shard: str) -> StageReport:
    """Make the poses of one shard and write `<shard>.parquet`, exclusions and a preview.

    Poses that were estimated also get `<shard>.sources.parquet`.

    Args:
        ws: The workspace.
        config: Where poses come from and what the images look like.
        shard: Name of the shard.

    Returns:
        Counts, a table of people per image, metadata of sizes and angles, the preview image.

    Raises:
        ValueError: there is no such source.
        TooManyExcluded: more than `config.max_drop_rate` allows.
    """
    exclusions = Exclusions(STAGE)
    if config.source == "sampled":
        num_in, samples = ws.shard_size, _sample(ws, config, shard, exclusions)
    else:
        from ml.poses.estimation import estimate_shard

        num_in, samples = estimate_shard(ws, config, shard, exclusions)
    exclusions.check_drop_rate(num_in, config.max_drop_rate, "poses", shard)
    frames = [sample.to_frame() for sample in samples]
    table = pd.concat(frames, ignore_index=True) if frames else empty_table(POSES)
    write_table(ws.table_path(STAGE, shard), table, POSES)
    exclusions.write(ws, shard)
    image = ws.stage_dir(STAGE) / "images" / f"{shard}.jpg"
    write_bytes(image, encode_jpeg(preview(samples[: config.preview_poses])))
    counts = pd.Series([len(sample.people) for sample in samples], dtype="int64")
    causes = exclusions.to_frame()["reason"].value_counts()
    return StageReport(
        num_in=num_in,
        num_out=len(samples),
        num_excluded=len(exclusions),
        metadata=_metadata(samples),
        tables={
            "people_per_image": _count_table(counts),
            "excluded_by_reason": pd.DataFrame(
                {"reason": causes.index.astype(str), "poses": causes.to_numpy()}
            ),
        },
        images={"skeletons": image},
    )


def _sample(
    ws: Workspace, config: PosesConfig, shard: str, exclusions: Exclusions
) -> list[PoseSample]:
    """Draw poses from the articulated figure."""
    samples: list[PoseSample] = []
    for pose_id in progress(pose_ids(ws, shard), f"poses {shard}"):
        try:
            samples.append(sample_pose(pose_id, ws.seed, config))
        except ImplausiblePose as error:
            exclusions.add(pose_id, reasons.NO_HEAD, str(error))
    return samples


def preview(samples: list[PoseSample]) -> np.ndarray:
    """Return contact sheet of drawn skeletons, each head with a circle and its facing direction.

    Args:
        samples: Poses to draw; may be empty.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    return contact_sheet([_draw_sample(sample) for sample in samples], 6, _PREVIEW_CELL_PX)


def _draw_sample(sample: PoseSample) -> np.ndarray:
    """Return (H, W, 3) uint8 RGB skeletons at twice the image's size."""
    zoom = 2
    width, height = zoom * sample.width, zoom * sample.height
    far_to_near = sorted(sample.people, key=lambda person: -person.depth)
    keypoints = np.stack([person.keypoints * (zoom, zoom, 1) for person in far_to_near])
    canvas = draw_openpose(keypoints, width, height, joint_radius_px=joint_radius(width, height))
    for person in far_to_near:
        if person.head_rotation is None or person.head_centre_m is None or not person.is_3d:
            continue
        scale = zoom * float(person.scale_px_per_m or 0.0)
        shift_px = np.zeros(2) if person.shift_px is None else person.shift_px
        centre = zoom * shift_px + scale * person.head_centre_m[:2]
        tip = centre + scale * 1.6 * HEAD_RADIUS_M * person.head_rotation[:2, 2]
        start = (round(float(centre[0])), round(float(centre[1])))
        end = (round(float(tip[0])), round(float(tip[1])))
        cv2.circle(canvas, start, round(scale * HEAD_RADIUS_M), (170, 170, 170), 1, cv2.LINE_AA)
        cv2.line(canvas, start, end, (255, 255, 255), 2, cv2.LINE_AA)
    return canvas


def _metadata(samples: list[PoseSample]) -> dict[str, int | float | str | bool]:
    people = [person for sample in samples for person in sample.people]
    if not people:
        return {"num_people": 0}
    angles = np.array(
        [angle_from_frontal_deg(p.head_rotation) for p in people if p.head_rotation is not None]
    )
    children = [looks_like_child(p.joints_m) for p in people if p.joints_m is not None]
    return {
        "num_people": len(people),
        "people_per_image": round(len(people) / len(samples), 3),
        "fraction_children": round(float(np.mean(children)), 3) if children else 0.0,
        "mean_angle_from_frontal_deg": round(float(angles.mean()), 2) if len(angles) else 0.0,
        "fraction_facing_away": round(float((angles > 90).mean()), 3) if len(angles) else 0.0,
        "mean_keypoint_confidence": round(
            float(np.mean([person.keypoints[:, 2].mean() for person in people])), 3
        ),
    }


def angle_from_frontal_deg(head_rotation: np.ndarray) -> float:
    """Return the angle between a head and one that looks straight into the camera.

    Args:
        head_rotation: (3, 3) FLAME head frame to image axes.

    Returns:
        Degrees, 0 to 180: the error of a guess that every head is frontal.
    """
    cosine = (np.trace(IMAGE_FROM_BODY.T @ head_rotation.astype(np.float64)) - 1) / 2
    return float(np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0))))


def _count_table(counts: pd.Series) -> pd.DataFrame:
    table = counts.value_counts().sort_index()
    return pd.DataFrame({"people": table.index.astype(int), "images": table.to_numpy()})
