"""Held-out images as evaluation samples, with ground truth if known, else with labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial

import numpy as np
import pandas as pd

from ml.evaluation.protocol import EvaluationSample
from ml.imaging.boxes import box_area
from ml.records.exclusions import Exclusions
from ml.records.heads import Heads
from ml.records.tables import (
    DATASET_HEADS,
    IMAGES,
    TRUTH,
    VERDICTS,
    TableSpec,
    empty_table,
    iter_table,
    read_table,
    table_rows,
)
from ml.records.workspace import Workspace
from ml.training_data.labels import (
    HeadLabels,
    LabelLimits,
    exact_labels,
    pseudo_labels,
)
from ml.training_data.samples import HeadSamples

CACHE_BYTES = 256 << 20
"""Decoded images that are kept; beyond it they are decoded again for each predictor."""
EVALUATED = LabelLimits(min_side_px=11.0)
"""Which heads an evaluation asks for: of smaller ones even exact labels are off by much."""
GROUP_COLUMNS = ("visible", "skin_tone", "hair_style", "glasses", "hat")


def ignored_heads(labels: HeadLabels, limits: LabelLimits) -> np.ndarray:
    """Return which true heads are ignored: hidden, cut off, or too small to be measured.

    Args:
        labels: true heads, image px.
        limits: the same limits that training uses, applied to the stored image.

    Returns:
        (N,) bool.
    """
    return labels.ignore | (np.sqrt(box_area(labels.boxes_xyxy)) < limits.min_side_px)


def has_truth(ws: Workspace) -> bool:
    """Return whether the generator knew the heads of its images exactly.

    Args:
        ws: the workspace; the truth of every shard must exist, with or without rows.
    """
    return any(table_rows(ws.table_path("truth", shard), TRUTH) for shard in ws.shards)


def split_ids(ws: Workspace, split: str) -> list[str]:
    """Return the ids of the images of a split, of which `read_samples` reads every one.

    Args:
        ws: the workspace.
        split: train, val or test.
    """
    tables = (read_table(ws.table_path("images", shard), IMAGES) for shard in ws.shards)
    ids = (table.loc[table["split"] == split, "sample_id"] for table in tables)
    return [str(item) for part in ids for item in part]


def read_samples(
    ws: Workspace, split: str, limits: LabelLimits, exclusions: Exclusions
) -> list[EvaluationSample]:
    """Read every image of a split with its ground truth; pixels are decoded on demand.

    Args:
        ws: the workspace.
        split: train, val or test.
        limits: which true heads are not asked for.
        exclusions: receives the images that cannot be read.

    Returns:
        The samples, in order of shard and sample.
    """
    tables = (read_table(ws.table_path("images", shard), IMAGES) for shard in ws.shards)
    images = _joined((table[table["split"] == split] for table in tables), IMAGES)
    wanted = pd.Index(images["sample_id"])
    pieces = (
        piece
        for shard in ws.shards
        for piece in iter_table(ws.table_path("truth", shard), TRUTH, sample_ids=wanted)
    )
    truth = _joined(pieces, TRUTH)
    return _samples(ws, images, exact_labels(truth, limits), truth, limits, exclusions)


def read_labelled_samples(
    ws: Workspace, split: str, limits: LabelLimits, exclusions: Exclusions
) -> list[EvaluationSample]:
    """Read every kept image of a split with its labels in the filtered dataset.

    The benchmark of images without ground truth: it measures how well
    a detector repeats the labels on images it has not seen.

    Args:
        ws: the workspace.
        split: train, val or test.
        limits: which labelled heads are ignored, in addition to those without parameters.
        exclusions: receives the images that cannot be read.

    Returns:
        The samples, in the order of the verdicts.
    """
    dataset = ws.stage_dir("filtered_dataset")
    tables = iter_table(dataset / "verdicts.parquet", VERDICTS)
    kept = (table[table["keep"] & (table["split"] == split)] for table in tables)
    images = _joined(kept, VERDICTS)
    wanted = pd.Index(images["sample_id"])
    pieces = iter_table(dataset / "heads.parquet", DATASET_HEADS, sample_ids=wanted)
    heads = _joined(pieces, DATASET_HEADS)
    return _samples(ws, images, pseudo_labels(heads), heads, limits, exclusions)


def _joined(pieces: Iterable[pd.DataFrame], spec: TableSpec) -> pd.DataFrame:
    """Return pieces of a table as one."""
    return pd.concat([empty_table(spec), *pieces], ignore_index=True)


def _samples(
    ws: Workspace,
    images: pd.DataFrame,
    labels: Mapping[str, HeadLabels],
    rows: pd.DataFrame,
    limits: LabelLimits,
    exclusions: Exclusions,
) -> list[EvaluationSample]:
    """Pair images (columns sample_id, shard) with labels and with the attributes of their rows."""
    shards = [ws.stage_dir("images") / f"{shard}.tar" for shard in images["shard"]]
    readable = HeadSamples(list(images["sample_id"]), shards, labels, CACHE_BYTES).without_damaged(
        exclusions
    )
    columns = [name for name in GROUP_COLUMNS if name in rows]
    of_images = rows.groupby("sample_id", sort=False).indices
    attributes = {str(key): rows.iloc[of][columns] for key, of in of_images.items()}
    samples = []
    for index, sample_id in enumerate(readable.sample_ids):
        of_image = labels.get(sample_id, HeadLabels.empty())
        heads = Heads(of_image.boxes_xyxy, np.ones(len(of_image)), of_image.flame)
        samples.append(
            EvaluationSample(
                sample_id,
                partial(_image, readable, index),
                heads,
                ignored_heads(of_image, limits),
                attributes.get(sample_id, rows.iloc[:0][columns]).reset_index(drop=True),
            )
        )
    return samples


def _image(samples: HeadSamples, index: int) -> np.ndarray:
    return samples[index].image_rgb
