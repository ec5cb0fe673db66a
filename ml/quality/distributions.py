"""Columns of a shard's rows that statistics and drift look at, and the statistics themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ml.captions.scene import NO_SCENE, Scene
from ml.evaluation.metrics import view_angles_deg
from ml.quality.head_invariants import vectors
from ml.records.flame_layout import NUM_FLAME_PARAMETERS

MAX_ROWS: Final = 100_000
"""Statistics are of so many rows at most, the first ones of every shard."""
LEADING_SHAPE: Final = 5
LEADING_EXPRESSION: Final = 3
BEHIND_DEG: Final = 90.0
CROWDED_LAYOUTS: Final = ("group", "scattered")
"""Layouts of many people, with overlaps and small heads."""
Columns = dict[str, NDArray[np.float64]]
Words = dict[str, list[str]]


def head_columns(heads: pd.DataFrame) -> Columns:
    """Return numbers that describe heads.

    Args:
        heads: columns `bbox_xywh`, `flame`; rows without finite parameters have no angles.

    Returns:
        `head_px` of all heads; `yaw_deg`, `pitch_deg`, `roll_deg`, `from_frontal_deg`, `shape_0`
        to `shape_4`, `expression_0` to `expression_2` of those with parameters.
    """
    from ml.flame.geometry import HeadGeometry  # loads torch, which declaring checks must not

    box = vectors(heads["bbox_xywh"], 4)
    flame = vectors(heads["flame"], NUM_FLAME_PARAMETERS)
    flame = np.asarray(flame[np.isfinite(flame).all(axis=1)], np.float32)
    columns: Columns = {"head_px": np.sqrt(np.abs(box[:, 2] * box[:, 3]))}
    rotations = HeadGeometry.rotations(flame) if len(flame) else np.zeros((0, 3, 3))
    # Euler angles would give a head seen from behind half a turn of pitch and of roll.
    for name, angles in zip(
        ("pitch_deg", "yaw_deg", "roll_deg"), view_angles_deg(rotations).T, strict=True
    ):
        columns[name] = angles
    columns["from_frontal_deg"] = from_frontal_deg(flame)
    for index in range(LEADING_SHAPE):
        columns[f"shape_{index}"] = flame[:, index].astype(np.float64)
    for index in range(LEADING_EXPRESSION):
        columns[f"expression_{index}"] = flame[:, 300 + index].astype(np.float64)
    return columns


def from_frontal_deg(flame: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return angles between heads and one that looks straight into the camera.

    Args:
        flame: (N, 413).

    Returns:
        (N,) degrees, 0 to 180.
    """
    from ml.flame.geometry import HeadGeometry

    if not len(flame):
        return np.zeros(0)
    m = HeadGeometry.rotations(flame).astype(np.float64)
    trace = m[:, 0, 0] - m[:, 1, 1] - m[:, 2, 2]
    return np.degrees(np.arccos(np.clip((trace - 1) / 2, -1.0, 1.0)))


def scene_words(captions: pd.DataFrame) -> Words:
    """Return words of the scenes: one per caption for place and light, one per person for the look.

    Args:
        captions: rows of CAPTIONS; those without a scene have none.

    Returns:
        `place`, `light`, `skin_tone`, `hair_style`, `glasses`, `hat`.
    """
    scenes = [Scene.from_json(text) for text in captions["scene"] if text != NO_SCENE]
    people = [person for scene in scenes for person in scene.people]
    return {
        "place": [scene.place for scene in scenes],
        "light": [scene.light for scene in scenes],
        "skin_tone": [str(person.skin_tone) for person in people],
        "hair_style": [person.hair_style for person in people],
        "glasses": [person.glasses for person in people],
        "hat": [person.hat for person in people],
    }


def head_statistics(columns: Columns) -> dict[str, float]:
    """Return spread, tails and sizes of heads.

    Args:
        columns: from `head_columns`.

    Returns:
        Standard deviations and largest absolute angle of the middle 98 %, fraction seen from
        behind, mean angle from frontal, head size (5th, 50th, 95th percentile), and of the leading
        shape and expression coefficients the smallest standard deviation and the largest absolute
        mean: coefficients are differences from the mean head. NaN without heads.
    """
    values: dict[str, float] = {}
    for name in ("yaw_deg", "pitch_deg", "roll_deg"):
        values[f"{name}_std"] = _std(columns[name])
        values[f"{name}_mean"] = _mean(columns[name])
    values["yaw_deg_p99"] = _percentile(np.abs(columns["yaw_deg"]), 99)
    angle = columns["from_frontal_deg"]
    values["from_frontal_deg_mean"] = _mean(angle)
    values["from_behind"] = _mean((angle > BEHIND_DEG).astype(np.float64))
    for percent in (5, 50, 95):
        values[f"head_px_p{percent:02d}"] = _percentile(columns["head_px"], percent)
    for name, number in (("shape", LEADING_SHAPE), ("expression", LEADING_EXPRESSION)):
        leading = [columns[f"{name}_{i}"] for i in range(number)]
        values[f"{name}_std_min"] = min(_std(column) for column in leading)
        values[f"{name}_mean_max"] = max(abs(_mean(column)) for column in leading)
    return values


def world_statistics(heads: pd.DataFrame, images: pd.DataFrame) -> dict[str, float]:
    """Return what a world of people is like, by the quantities that docs/world.md declares.

    Angles are those of `ml.evaluation.metrics.view_angles_deg`, which tell a head seen from behind
    from one that is upside down.

    Args:
        heads: columns `sample_id`, `bbox_xywh`, `flame`, `glasses`, `hat`; `inside` and `visible`
            where they are known. One row a head.
        images: columns `sample_id`, `width`, `height`, `layout`, one row an image; the layout
            is empty when the pose was estimated.

    Returns:
        `heads_per_image`; `groups` (fraction of images whose layout is a group or scattered
        people); fractions of heads turned by more than 60 and 90 degrees, pitched by more than 20
        and 35, leaning by more than 15 and 30; size percentiles, and the 99th as a fraction of the
        image's shorter side; fractions with glasses and hats; fractions cut by the border (less
        than 95 % inside) and hidden (less than 80 % seen). NaN without heads or layouts.
    """
    from ml.flame.geometry import HeadGeometry  # loads torch, which declaring checks must not

    box = vectors(heads["bbox_xywh"], 4)
    flame = np.asarray(vectors(heads["flame"], NUM_FLAME_PARAMETERS), np.float32)
    rotations = HeadGeometry.rotations(flame) if len(flame) else np.zeros((0, 3, 3))
    pitch, yaw, roll = np.abs(view_angles_deg(rotations)).T
    size = np.sqrt(np.abs(box[:, 2] * box[:, 3]))
    sides = images.set_index("sample_id")[["width", "height"]].min(axis=1)
    of_image = size / sides.reindex(heads["sample_id"]).to_numpy(np.float64)
    layouts = [name for name in images["layout"] if name]
    values = {
        "heads_per_image": len(heads) / max(len(images), 1),
        "groups": _fraction([name in CROWDED_LAYOUTS for name in layouts]),
        "turned_over_60": _fraction(yaw > 60),
        "turned_over_90": _fraction(yaw > BEHIND_DEG),
        "pitched_over_20": _fraction(pitch > 20),
        "pitched_over_35": _fraction(pitch > 35),
        "leaning_over_15": _fraction(roll > 15),
        "leaning_over_30": _fraction(roll > 30),
        "head_px_p01": _percentile(size, 1),
        "head_px_p10": _percentile(size, 10),
        "head_px_p50": _percentile(size, 50),
        "head_of_image_p99": _percentile(of_image, 99),
        "glasses": _fraction(heads["glasses"] != "none"),
        "hats": _fraction(heads["hat"] != "none"),
    }
    for name, column, limit in (("cut", "inside", 0.95), ("hidden", "visible", 0.8)):
        if column in heads:
            values[name] = _fraction(heads[column].to_numpy(np.float64) < limit)
    return values


def word_statistics(words: Words) -> dict[str, float]:
    """Return how evenly words are used.

    Args:
        words: name -> words.

    Returns:
        `<name>_distinct`, and `<name>_commonest`: fraction of the commonest word. NaN without any.
    """
    values = {}
    for name, all_words in words.items():
        counts = Counter(all_words)
        most = max(counts.values(), default=0)
        values[f"{name}_distinct"] = float(len(counts))
        values[f"{name}_commonest"] = most / len(all_words) if all_words else float("nan")
    return values


def per_image(rows: pd.DataFrame, num_images: int) -> dict[str, float]:
    """Return heads per image.

    Args:
        rows: column `sample_id`, one row per head.
        num_images: images, with or without heads.

    Returns:
        `heads_per_image`, `heads_per_image_max`, `images_with_heads`.
    """
    counts = rows.groupby("sample_id").size()
    total = max(num_images, 1)
    return {
        "heads_per_image": len(rows) / total,
        "heads_per_image_max": float(counts.max()) if len(counts) else 0.0,
        "images_with_heads": len(counts) / total,
    }


def spread(values: Mapping[str, NDArray[np.float64]]) -> dict[str, float]:
    """Return the mean and standard deviation of columns.

    Args:
        values: name -> (N,) numbers; a NaN among them shows in both.
    """
    statistics = {}
    for name, column in values.items():
        statistics[f"{name}_mean"], statistics[f"{name}_std"] = _mean(column), _std(column)
    return statistics


def _fraction(holds: Sequence[bool] | NDArray[np.bool_] | pd.Series) -> float:
    return _mean(np.asarray(holds, np.float64))


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _std(values: NDArray[np.float64]) -> float:
    return float(values.std()) if len(values) else float("nan")


def _percentile(values: NDArray[np.float64], percent: float) -> float:
    return float(np.percentile(values, percent)) if len(values) else float("nan")
