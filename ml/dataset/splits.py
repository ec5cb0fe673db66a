"""The check that splits do not leak: all images of a source pose share its split."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import pandas as pd

SPLITS: Final[tuple[str, str, str]] = ("train", "val", "test")


class LeakError(ValueError):
    """A source pose has images in more than one split."""


class SplitLedger:
    """Which split each source pose is in, piece by piece; keeps nine bytes per image."""

    def __init__(self) -> None:
        """Start without samples."""
        self._poses: list[np.ndarray] = []
        self._splits: list[np.ndarray] = []

    def add(self, samples: pd.DataFrame) -> None:
        """Take over samples.

        Args:
            samples: as for `check_no_leak`, which looks at them first.

        Raises:
            LeakError: A pose is in more than one split of these samples.
            ValueError: A column is missing or a split is unknown.
        """
        check_no_leak(samples)
        self._poses.append(_hashes(samples))
        self._splits.append(samples["split"].map(SPLITS.index).to_numpy(np.int8))

    def leaking(self) -> np.ndarray:
        """Return hashes of the poses that are in more than one split, (N,) uint64."""
        if not self._poses:
            return np.zeros(0, np.uint64)
        table = pd.DataFrame(
            {"pose": np.concatenate(self._poses), "split": np.concatenate(self._splits)}
        ).drop_duplicates()
        return np.unique(table.loc[table["pose"].duplicated(), "pose"].to_numpy(np.uint64))


def samples_of(samples: pd.DataFrame, poses: np.ndarray) -> pd.DataFrame:
    """Return the rows of some poses.

    Args:
        samples: with column `pose_id`.
        poses: hashes, as `SplitLedger.leaking` gives them.
    """
    return samples[np.isin(_hashes(samples), poses)]


def _hashes(samples: pd.DataFrame) -> np.ndarray:
    """Return (N,) uint64; among a million poses two collide with probability 3e-8."""
    return np.asarray(pd.util.hash_array(samples["pose_id"].to_numpy(dtype=object)))


def check_no_leak(samples: pd.DataFrame) -> None:
    """Check that no source pose has samples in two splits.

    Args:
        samples: One row per sample with columns `sample_id`, `pose_id`, `split`.

    Raises:
        LeakError: A pose is in more than one split; names up to three poses with their samples.
        ValueError: A column is missing or a split is unknown.
    """
    missing = sorted({"sample_id", "pose_id", "split"} - set(samples.columns))
    if missing:
        raise ValueError(f"splits: columns {missing} are missing, got {sorted(samples.columns)}")
    unknown = sorted(set(samples["split"]) - set(SPLITS))
    if unknown:
        raise ValueError(f"splits: expected one of {list(SPLITS)}, got {unknown}")
    num_splits = samples.groupby("pose_id")["split"].nunique()
    leaking = sorted(num_splits.index[num_splits > 1])
    if not leaking:
        return
    examples = "; ".join(
        f"{pose_id}: " + ", ".join(f"{row.sample_id} in {row.split}" for row in group.itertuples())
        for pose_id, group in samples[samples["pose_id"].isin(leaking[:3])].groupby("pose_id")
    )
    raise LeakError(
        f"splits: {len(leaking)} source pose(s) have samples in more than one split ({examples}). "
        "Give all samples of a pose the split the poses stage wrote, then rerun from there."
    )


def split_counts(samples: pd.DataFrame) -> Mapping[str, int]:
    """Return the number of samples of each split.

    Args:
        samples: One row per sample, with a column `split`.

    Returns:
        Count by split name, every split present, in the order of `SPLITS`.
    """
    counts = samples["split"].value_counts()
    return {name: int(counts.get(name, 0)) for name in SPLITS}
