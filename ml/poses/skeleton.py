"""COCO-17 skeletons of the people in one image.

Image frame: pixels, x right, y down, z away from the camera. A person is seen under weak
perspective: `keypoint = scale * joint + shift`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

COCO_KEYPOINTS = (
    "nose",
    "left_eye",
    "right_eye",
    "left_ear",
    "right_ear",
    "left_shoulder",
    "right_shoulder",
    "left_elbow",
    "right_elbow",
    "left_wrist",
    "right_wrist",
    "left_hip",
    "right_hip",
    "left_knee",
    "right_knee",
    "left_ankle",
    "right_ankle",
)
NUM_KEYPOINTS = len(COCO_KEYPOINTS)


@dataclass(frozen=True)
class Person:
    """One person of a pose.

    Attributes:
        keypoints: (17, 3) float32, x px, y px, confidence in [0, 1]; COCO order.
        joints_m: (17, 3) float32, metres, image axes (x right, y down, z away), or None when
            the pose was estimated from a photograph and has no third dimension.
        head_rotation: (3, 3) float32, FLAME head frame to image axes; a frontal head has
            diag(1, -1, -1). None when unknown.
        scale_px_per_m: weak-perspective scale, or None when unknown.
        shift_px: (2,) float32 image position of the joints' origin, or None when unknown.
        depth: order from the camera, 0 nearest; persons with larger depth are behind.
        head_centre_m: (3,) float32, position of FLAME's origin (skull centre) in the joints'
            frame, metres, or None when unknown.
    """

    keypoints: np.ndarray
    joints_m: np.ndarray | None
    head_rotation: np.ndarray | None
    scale_px_per_m: float | None
    shift_px: np.ndarray | None
    depth: int
    head_centre_m: np.ndarray | None

    @property
    def is_3d(self) -> bool:
        """Whether the third dimension is known, which the renderer needs."""
        return self.joints_m is not None


@dataclass(frozen=True)
class PoseSample:
    """The people of one image.

    Attributes:
        pose_id: The pose's id.
        width: Width of the image, px.
        height: Height of the image, px.
        split: train, val or test.
        people: The people, nearest first.
        layout: How the sampler placed them, a name of `ml.poses.sampler.LAYOUTS`; empty when the
            pose was estimated.
    """

    pose_id: str
    width: int
    height: int
    split: str
    people: tuple[Person, ...]
    layout: str = ""

    def to_frame(self) -> pd.DataFrame:
        """Return one row per person, as declared by `ml.records.tables.POSES`."""
        rows = []
        for index, person in enumerate(self.people):
            rows.append(
                {
                    "pose_id": self.pose_id,
                    "person_id": index,
                    "split": self.split,
                    "width": self.width,
                    "height": self.height,
                    "num_people": len(self.people),
                    "layout": self.layout,
                    "depth": person.depth,
                    "keypoints": person.keypoints,
                    "joints_m": person.joints_m,
                    "head_rotation": person.head_rotation,
                    "scale_px_per_m": person.scale_px_per_m,
                    "shift_px": person.shift_px,
                    "head_centre_m": person.head_centre_m,
                }
            )
        return pd.DataFrame(rows)

    @staticmethod
    def from_frame(rows: pd.DataFrame) -> PoseSample:
        """Read what `to_frame` wrote (rows of one pose_id, any order).

        Raises:
            ValueError: the rows belong to several poses or some are missing.
        """
        rows = rows.sort_values("person_id")
        ids = rows["pose_id"].unique()
        first = rows.iloc[0]
        if len(ids) != 1 or len(rows) != first["num_people"]:
            raise ValueError(
                f"poses: expected the {first['num_people']} rows of one pose, got {len(rows)} rows "
                f"of {sorted(ids)}"
            )
        people = tuple(_person(row) for _, row in rows.iterrows())
        return PoseSample(
            pose_id=str(first["pose_id"]),
            width=int(first["width"]),
            height=int(first["height"]),
            split=str(first["split"]),
            people=people,
            layout=str(first["layout"]),
        )


def _person(row: pd.Series) -> Person:
    return Person(
        keypoints=_array(row["keypoints"], (NUM_KEYPOINTS, 3)),
        joints_m=_optional_array(row["joints_m"], (NUM_KEYPOINTS, 3)),
        head_rotation=_optional_array(row["head_rotation"], (3, 3)),
        scale_px_per_m=None if pd.isna(row["scale_px_per_m"]) else float(row["scale_px_per_m"]),
        shift_px=_optional_array(row["shift_px"], (2,)),
        depth=int(row["depth"]),
        head_centre_m=_optional_array(row["head_centre_m"], (3,)),
    )


def _array(value: object, shape: tuple[int, ...]) -> np.ndarray:
    return np.asarray(value, dtype=np.float32).reshape(shape)


def _optional_array(value: object, shape: tuple[int, ...]) -> np.ndarray | None:
    return None if value is None else _array(value, shape)
