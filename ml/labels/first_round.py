"""The first images to label, chosen from the images alone: nothing has looked at them yet.

A detector needs labels, and better labels need a detector. The first round is drawn evenly over
numbers of people and sizes, so that crowds and small heads, which a plain sample has few of, are
there; boxes to start from come from the poses that the images were made from, or from a face
detector.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ml.imaging.boxes import clip_boxes
from ml.labels.tool_import import LABEL_SPLITS
from ml.records.ids import sample_seed
from ml.records.tables import POSES, read_stage, stack
from ml.records.workspace import Workspace

_MOST_PEOPLE: Final = 6
"""Images of this many people or more are one group."""
_SIZES: Final = ("small", "medium", "large")
_MIN_CONFIDENCE: Final = 0.3
_FACE: Final = slice(0, 5)
_SHOULDERS: Final = (5, 6)
# Of COCO-17's points, fitted to rendered heads: a head is 1.8 times as high as nose, eyes and ears
# are apart, at least 0.6 times as high as the shoulders are wide, and 0.86 times as wide as high.
_HEIGHT_OF_FACE: Final = 1.8
_HEIGHT_OF_SHOULDERS: Final = 0.6
_WIDTH_OF_HEIGHT: Final = 0.86
# From behind: the middle of the head above the middle of the shoulders, in shoulder widths.
_ABOVE_SHOULDERS: Final = 0.75
# A face box ends at the brow and leaves out hair and ears.
_FACE_GROWTH: Final = (0.2, 0.35, 0.2, 0.1)
"""Left, top, right and bottom, in sides of the face box."""

FindFaces = Callable[[Sequence[NDArray[np.uint8]]], list[NDArray[np.float32]]]
"""(H, W, 3) uint8 RGB images -> (N, 4) boxes xyxy of each, px."""


@dataclass(frozen=True)
class PreBoxes:
    """Where the boxes come from that an annotator corrects.

    Attributes:
        source: what the labelling tool shows as their origin.
        by_pose: pose id -> (N, 4) boxes xyxy, px; empty when faces are searched for.
        find_faces: looks for faces in the images; None when the poses give the boxes.
    """

    source: str
    by_pose: Mapping[str, NDArray[np.float32]]
    find_faces: FindFaces | None = None

    def of(
        self, pose_id: str, image_rgb: NDArray[np.uint8]
    ) -> list[tuple[float, float, float, float]]:
        """Return the boxes of an image, xywh px, inside it.

        Args:
            pose_id: the pose it was made from.
            image_rgb: (H, W, 3) uint8.
        """
        height, width = image_rgb.shape[:2]
        if self.find_faces is not None:
            (faces,) = self.find_faces([image_rgb])
            boxes = heads_from_faces(faces)
        else:
            boxes = self.by_pose.get(pose_id, np.zeros((0, 4), np.float32))
        boxes = clip_boxes(boxes, width, height)
        sides = boxes[:, 2:] - boxes[:, :2]
        kept = boxes[(sides >= 1).all(axis=1)]
        return [(float(a), float(b), float(c - a), float(d - b)) for a, b, c, d in kept]


def boxes_of_poses(ws: Workspace) -> dict[str, NDArray[np.float32]]:
    """Return a box around the head of every person of every pose.

    Args:
        ws: the workspace; reads `poses`.

    Returns:
        Pose id -> (N, 4) float32 xyxy, px.

    Raises:
        FileNotFoundError: the stage has no results.
    """
    poses = read_stage(ws, "poses", POSES)
    keypoints = stack(poses["keypoints"]).reshape(-1, 17, 3)
    boxes = [head_box(points) for points in keypoints]
    found: dict[str, list[NDArray[np.float32]]] = {}
    for pose_id, box in zip(poses["pose_id"], boxes, strict=True):
        of_pose = found.setdefault(str(pose_id), [])
        if box is not None:
            of_pose.append(box)
    return {key: np.array(rows, np.float32).reshape(-1, 4) for key, rows in found.items()}


def head_box(keypoints: NDArray[np.floating]) -> NDArray[np.float32] | None:
    """Return a box around the head of a skeleton.

    Args:
        keypoints: (17, 3) COCO-17: x px, y px, confidence.

    Returns:
        (4,) float32 xyxy, px; None where neither two points of the face nor both shoulders are
        seen.
    """
    seen = keypoints[:, 2] > _MIN_CONFIDENCE
    shoulders = keypoints[list(_SHOULDERS), :2] if seen[list(_SHOULDERS)].all() else None
    width_of_shoulders = 0.0 if shoulders is None else float(np.linalg.norm(np.ptp(shoulders, 0)))
    face = keypoints[_FACE, :2][seen[_FACE]]
    if len(face) >= 2:
        centre = face.mean(axis=0)
        extent = float(np.linalg.norm(np.ptp(face, axis=0)))
        height = max(_HEIGHT_OF_FACE * extent, _HEIGHT_OF_SHOULDERS * width_of_shoulders)
    elif shoulders is not None:
        centre = shoulders.mean(axis=0) - (0.0, _ABOVE_SHOULDERS * width_of_shoulders)
        height = width_of_shoulders
    else:
        return None
    half = np.array([_WIDTH_OF_HEIGHT * height, height]) / 2
    return np.concatenate([centre - half, centre + half]).astype(np.float32)


def heads_from_faces(faces_xyxy: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return boxes of heads around boxes of faces.

    Args:
        faces_xyxy: (N, 4), px.

    Returns:
        (N, 4) float32 xyxy, px; may reach over the image's border.
    """
    faces = np.asarray(faces_xyxy, np.float32).reshape(-1, 4)
    sides = np.tile(faces[:, 2:] - faces[:, :2], 2)
    outwards = np.array([-1, -1, 1, 1], np.float32) * np.array(_FACE_GROWTH, np.float32)
    return (faces + sides * outwards).astype(np.float32)


def choose_first(
    ws: Workspace,
    images: pd.DataFrame,
    count: int,
    val_fraction: float,
    boxes: Mapping[str, NDArray[np.float32]] | None = None,
) -> pd.DataFrame:
    """Draw images evenly over numbers of people and sizes.

    Sizes are the median height of the heads in an image where poses provide it, else the image's
    own. Groups take turns; one that is used up leaves its turns to the others. Which images of a
    group come first depends on their ids and the run's seed alone.

    Args:
        ws: the workspace, for its seed.
        images: columns of `IMAGES`.
        count: how many; fewer where there are fewer.
        val_fraction: fraction of them from the val split, 0 to 1.
        boxes: pose id -> (N, 4) boxes xyxy of heads, px; none without poses.

    Returns:
        Rows of `images` with columns `reason` (the group) and `detail`, in the order drawn: any
        first part of them is spread over the groups as well.

    Raises:
        ValueError: no image may be labelled.
    """
    images = images[images["split"].isin(LABEL_SPLITS)].reset_index(drop=True)
    if not len(images):
        raise ValueError(
            "labelling: no image of the splits train and val; make images first, those of the test "
            "split belong to the benchmark"
        )
    sizes = _sizes(images, boxes or {})
    people = np.minimum(images["num_people"].to_numpy(), _MOST_PEOPLE)
    ranks = np.empty(len(sizes), np.int64)
    ranks[np.argsort(sizes, kind="stable")] = np.arange(len(sizes))
    thirds = ranks * len(_SIZES) // len(sizes)
    groups = [
        f"{_people(number)}, {_SIZES[third]}" for number, third in zip(people, thirds, strict=True)
    ]
    unit = "px of a head" if boxes else "px of the image"
    images = images.assign(reason=groups, detail=[f"{size:.0f} {unit}" for size in sizes])
    wanted = {"val": round(count * val_fraction)}
    wanted["train"] = count - wanted["val"]
    parts = [
        _take_turns(ws, images[images["split"] == split], wanted[split]) for split in LABEL_SPLITS
    ]
    return pd.concat(parts, ignore_index=True)


def _take_turns(ws: Workspace, images: pd.DataFrame, count: int) -> pd.DataFrame:
    """Return one image of each group, then a second one of each, until there are enough."""
    seeds = [sample_seed(ws.seed, "labelling", str(item)) for item in images["sample_id"]]
    shuffled = images.assign(_seed=seeds).sort_values("_seed", kind="stable")
    turn = shuffled.groupby("reason").cumcount()
    ordered = shuffled.assign(_turn=turn).sort_values(["_turn", "reason"], kind="stable")
    return ordered.drop(columns=["_seed", "_turn"]).head(count)


def _people(number: int) -> str:
    if number == _MOST_PEOPLE:
        return f"{number} or more people"
    return "1 person" if number == 1 else f"{number} people"


def _sizes(images: pd.DataFrame, boxes: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float64]:
    sizes = np.sqrt((images["width"].astype(float) * images["height"].astype(float)).to_numpy())
    if not boxes:
        return sizes
    none = np.zeros((0, 4), np.float32)
    heights = [of[:, 3] - of[:, 1] for of in (boxes.get(str(p), none) for p in images["pose_id"])]
    return np.array([float(np.median(of)) if len(of) else 0.0 for of in heights])
