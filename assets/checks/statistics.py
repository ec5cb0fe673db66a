"""Statistics of the dataset as tables to judge: one row per shard, and one of the whole."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from assets.checks.tables import boxes, heads, read_raw
from ml.generation.config import EXACT_BACKENDS
from ml.records.workspace import Workspace


def image_statistics(ws: Workspace, shards: Sequence[str]) -> pd.DataFrame:
    """Return one row per shard: images, brightness, true heads and their sizes."""
    rows = []
    for shard in shards:
        images = read_raw(ws.table_path("images", shard))
        truth = heads(boxes(read_raw(ws.table_path("truth", shard))))
        rows.append(
            {
                "shard": shard,
                "row": 0,
                "images": len(images),
                "mean_luma": float(images["mean_luma"].mean()),
                "has_expected_truth": len(truth) > 0
                or not set(images["generator"]) & set(EXACT_BACKENDS),
                "heads_per_image": len(truth) / max(len(images), 1),
                "mean_visible": float(truth["visible"].mean()),
                "median_head_px": float(
                    np.median(np.sqrt(truth["box_width"] * truth["box_height"]))
                )
                if len(truth)
                else float("nan"),
                "skin_tones": truth["skin_tone"].nunique(),
            }
        )
    return pd.DataFrame(rows)


def annotation_statistics(ws: Workspace, shards: Sequence[str]) -> pd.DataFrame:
    """Return one row per shard: images with heads, heads per image."""
    rows = []
    for shard in shards:
        found = read_raw(ws.table_path("annotations", shard))
        images = read_raw(ws.table_path("images", shard))
        rows.append(
            {
                "shard": shard,
                "row": 0,
                "images_with_heads": found["sample_id"].nunique() / max(len(images), 1),
                "heads_per_image": len(found) / max(len(images), 1),
            }
        )
    return pd.DataFrame(rows)


def dataset_statistics(ws: Workspace, shards: Sequence[str]) -> pd.DataFrame:
    """Return one row: the filtered dataset as a whole."""
    folder = ws.stage_dir("filtered_dataset")
    verdicts = read_raw(folder / "verdicts.parquet", ["sample_id", "split", "keep"])
    kept = read_raw(folder / "heads.parquet", ["sample_id", "split", "flame_status"])
    train = kept[kept["split"] == "train"]
    images_of = verdicts[verdicts["keep"]].groupby("split")["sample_id"].nunique()
    return pd.DataFrame(
        [
            {
                "shard": "heads.parquet",
                "row": 0,
                "fraction_kept": float(verdicts["keep"].mean()),
                "train_images": int(images_of.get("train", 0)),
                "val_images": int(images_of.get("val", 0)),
                "train_heads_with_flame": int((train["flame_status"] == "ok").sum()),
                "heads_per_image": len(kept) / max(int(verdicts["keep"].sum()), 1),
                "heads_of_removed_images": int(
                    (~kept["sample_id"].isin(verdicts.loc[verdicts["keep"], "sample_id"])).sum()
                ),
            }
        ]
    )
