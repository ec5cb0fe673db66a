"""DAD-3DHeads in its own layout, from exactly known meshes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ml.benchmarks.conventions import rotations_from_euler
from ml.benchmarks.generated import meshes as generated
from tests.benchmark_sets.boxes import noise

# item -> pitch, yaw, roll in degrees
DAD_HEADS = {"a1": (5.0, -30.0, 10.0), "b2": (-10.0, 20.0, 0.0), "c3": (0.0, 60.0, -20.0)}
SIZE = (300, 400)
FOCAL = 900.0
_FLIP = np.diag([1.0, -1.0, -1.0, 1.0])


def model_view(item: str) -> np.ndarray:
    """(4, 4): turns the head and puts it a metre in front of a camera that looks along -z."""
    view = np.eye(4)
    view[:3, :3] = (_FLIP[:3, :3]) @ rotations_from_euler(np.array([DAD_HEADS[item]]))[0]
    view[:3, 3] = (0.02, -0.01, -1.0)
    return view


def projection() -> np.ndarray:
    """(4, 4): a pinhole; x over w and the height less y over w are pixels."""
    height, width = SIZE
    return np.array(
        [
            [FOCAL, 0, -width / 2, 0],
            [0, FOCAL, -height / 2, 0],
            [0, 0, -1, -0.1],
            [0, 0, -1.0, 0],
        ]
    )


def world(item: str, vertices: np.ndarray) -> np.ndarray:
    view = model_view(item)
    return vertices @ view[:3, :3].T + view[:3, 3]


def pixels(item: str, vertices: np.ndarray) -> np.ndarray:
    """By hand: a camera at the origin, the image's middle where it looks, y turned down."""
    points = world(item, vertices)
    height, width = SIZE
    depth = -points[:, 2]
    x = width / 2 + FOCAL * points[:, 0] / depth
    y = height / 2 - FOCAL * points[:, 1] / depth
    return np.stack([x, y], axis=1)


def write_dad(root: Path, vertices: np.ndarray, subset: str = "val") -> Path:
    height, width = SIZE
    attributes = {"quality": "hq", "pose": "front", "expression": False}
    items = [
        generated.DadItem(
            item,
            noise(width, height, seed),
            vertices,
            model_view(item),
            projection(),
            attributes,
        )
        for seed, item in enumerate(DAD_HEADS)
    ]
    return generated.write_dad(root, items, subset)
