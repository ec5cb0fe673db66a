"""Rendered images with their exact truth, as evaluation samples."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ml.evaluation.protocol import EvaluationSample
from ml.records.exclusions import Exclusions
from ml.records.heads import Heads
from ml.records.progress import progress
from ml.records.tables import IMAGES, TRUTH, read_stage
from ml.records.workspace import Workspace
from ml.training_data.samples import HeadLabels, HeadSamples, LabelLimits, exact_labels

GROUP_COLUMNS = ("visible", "skin_tone", "hair_style", "glasses", "hat")


def ignored_heads(labels: HeadLabels, limits: LabelLimits) -> np.ndarray:
    """Which true heads are not asked for: hidden, cut off, or smaller than can be measured.

    Args:
        labels: true heads, image px.
        limits: the same limits that training uses, applied to the stored image.

    Returns:
        (N,) bool.
    """
    sides = labels.boxes_xyxy[:, 2:] - labels.boxes_xyxy[:, :2]
    return labels.ignore | (np.sqrt(sides.prod(axis=1)) < limits.min_side_px)


def read_samples(
    ws: Workspace, split: str, limits: LabelLimits, exclusions: Exclusions
) -> list[EvaluationSample]:
    """Read every image of a split with its truth.

    Args:
        ws: the workspace.
        split: train, val or test.
        limits: which true heads are not asked for.
        exclusions: receives the images that cannot be read.

    Returns:
        The samples, in order of shard and sample.
    """
    images = read_stage(ws, "images", IMAGES)
    images = images[images["split"] == split]
    truth = read_stage(ws, "truth", TRUTH)
    truth = truth[truth["sample_id"].isin(images["sample_id"])].reset_index(drop=True)
    shards = [ws.stage_dir("images") / f"{shard}.tar" for shard in images["shard"]]
    readable = HeadSamples(
        list(images["sample_id"]), shards, exact_labels(truth, limits)
    ).without_damaged(exclusions)
    attributes = {str(key): rows for key, rows in truth.groupby("sample_id", sort=False)}
    samples = []
    for index in progress(range(len(readable)), f"reading {split} images"):
        sample = readable[index]
        labels = sample.labels
        rows = attributes.get(sample.sample_id, truth.iloc[:0])[list(GROUP_COLUMNS)]
        heads = Heads(labels.boxes_xyxy, np.ones(len(labels)), labels.flame)
        samples.append(
            EvaluationSample(
                sample.sample_id,
                sample.image_rgb,
                heads,
                ignored_heads(labels, limits),
                pd.DataFrame(rows.reset_index(drop=True)),
            )
        )
    return samples
