"""Measured values of the data on disk with their bounds, for setting and reviewing bounds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from assets.checks import bounded, gates
from assets.checks.rules import Shelf
from ml.quality.bounds import CheckBounds, read_bounds
from ml.records.tables import TableError
from ml.records.workspace import Workspace

_SHARDED: tuple[tuple[str, str, bounded.Statistics], ...] = (
    ("captions", "captions", bounded.caption_statistics),
    ("images", "images", bounded.truth_statistics),
    ("images", "images", bounded.face_evidence),
    ("world", "images", bounded.world_of_truth),
    ("crops", "crops", bounded.crop_statistics),
    ("annotations", "annotations", bounded.annotation_statistics),
    *(("drop_rates", stage, bounded.drop_rates(stage)) for stage in bounded.WITH_DROP_RATES),
)
_WHOLE: tuple[tuple[str, bounded.Statistics], ...] = (
    ("filtered_dataset", bounded.dataset_statistics),
    ("head_detector", gates.HEAD_DETECTOR.measure),
    ("flame_regressor", gates.FLAME_REGRESSOR.measure),
    ("annotation_quality", gates.ANNOTATION_QUALITY.measure),
    ("trained_model", gates.training_gate("trained_model").measure),
    ("benchmark", gates.BENCHMARK.measure),
)


def measured(ws: Workspace, crop_shards: Sequence[str]) -> pd.DataFrame:
    """Measure every bounded statistic of the data on disk.

    Args:
        ws: the workspace.
        crop_shards: names of the crops' shards.

    Returns:
        One row a statistic: `group`, `statistic`, `value`, `error`: its standard error, from what
        single shards measure (NaN where a stage has none), `low`, `high`: the profile's bounds
        (NaN for none), `blocks`, and `outside`. Stages that did not run yet have no rows.
    """
    bounds = read_bounds(ws.root)
    rows = []
    for group, stage, compute in _SHARDED:
        shards = list(crop_shards if stage == "crops" else ws.shards)
        if not shards:
            continue
        whole, *parts = (
            _values(ws, bounds, compute, some) for some in (shards, *([s] for s in shards))
        )
        for name, value in whole.items():
            alone = [part[name] for part in parts if name in part]
            error = np.std(alone, ddof=1) / np.sqrt(len(alone)) if len(alone) > 1 else np.nan
            rows.append((group, name, value, float(error)))
    for group, compute in _WHOLE:
        values = _values(ws, bounds, compute, ws.shards)
        rows += [(group, name, value, np.nan) for name, value in values.items()]
    frame = pd.DataFrame(rows, columns=["group", "statistic", "value", "error"])
    keys = list(zip(frame["group"], frame["statistic"], strict=True))
    pairs = [bounds.bounds.get(group, {}).get(name) or (None, None) for group, name in keys]
    frame["low"], frame["high"] = (
        np.array([np.nan if pair[end] is None else pair[end] for pair in pairs], np.float64)
        for end in (0, 1)
    )
    frame["blocks"] = [key[0] != "world" and bounds.blocks(*key) for key in keys]
    frame["outside"] = (frame["value"] < frame["low"]) | (frame["value"] > frame["high"])
    return frame


def _values(
    ws: Workspace, bounds: CheckBounds, compute: bounded.Statistics, shards: Sequence[str]
) -> dict[str, float]:
    """Return statistics of however few rows; none where the stage did not run."""
    shelf = Shelf(ws)
    shelf.once("bounds", lambda: bounds.model_copy(update={"min_rows": 1}))
    try:
        return dict(compute(shelf, shards))
    except (TableError, FileNotFoundError):
        return {}
