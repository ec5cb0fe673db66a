"""Stage `annotation_quality`: detections and parameters of the annotator against ground truth.

Requires a renderer: images of a diffusion model have no ground truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from ml.evaluation.groups import group_table
from ml.evaluation.metrics import nullable
from ml.evaluation.protocol import Evaluation, evaluate
from ml.evaluation.samples import EVALUATED, has_truth, read_samples, split_ids
from ml.flame.geometry import HeadGeometry
from ml.flame.head_model import HeadModel
from ml.imaging.boxes import xywh_to_xyxy
from ml.imaging.grids import contact_sheet
from ml.imaging.io import encode_jpeg
from ml.inference.drawing import draw_heads
from ml.records.atomic import write_bytes, write_json
from ml.records.config import Count, StageConfig
from ml.records.determinism import prepare_torch
from ml.records.exclusions import Exclusions
from ml.records.heads import NUM_FLAME_PARAMETERS, Heads
from ml.records.ids import sample_rng
from ml.records.report import StageReport
from ml.records.tables import HEADS, read_table, stack
from ml.records.workspace import Workspace
from ml.training_data.labels import LabelLimits

STAGE = "annotation_quality"


class AnnotationQualityConfig(StageConfig):
    """Section `annotation_quality` of params.yaml."""

    limits: LabelLimits = EVALUATED
    """Which ground-truth heads are ignored."""
    resamples: Count = 500
    """Bootstrap resamples of the images."""
    num_images: Count = 12
    """Number of shown images with the worst pseudo-labels."""


def run(ws: Workspace, config: AnnotationQualityConfig) -> StageReport:
    """Compare the annotations of the test split with the truth.

    The test split is one that neither the box detector nor the regressor was trained on.

    Args:
        ws: the workspace; annotations, images, truth and head model must exist.
        config: limits and sizes.

    Returns:
        Counts of test images, metrics with intervals, and an image of the worst labels; nothing
        where the images have no ground truth.
    """
    prepare_torch(ws, STAGE)
    out = ws.stage_dir(STAGE)
    exclusions = Exclusions(STAGE)
    if not has_truth(ws):
        return _without_truth(ws)
    samples = read_samples(ws, "test", config.limits, exclusions)
    counts = exclusions.account(split_ids(ws, "test"), [s.sample_id for s in samples])
    geometry = HeadGeometry(HeadModel.load(ws.stage_dir("head_model") / "head_model.npz"))
    heads, num_small, num_annotated = _read_annotations(ws, [s.sample_id for s in samples])
    # A pseudo-label has no threshold to move: all of them are shown to the training.
    found = evaluate(heads, samples, geometry, operating_score=0.0)
    labelled = _with_parameters(found, heads)
    metrics = _measured(ws, labelled, config.resamples)
    failing = _measured(ws, _without_parameters_fail(found, heads), config.resamples)
    metrics |= {name: value for name, value in failing.items() if name.startswith("failure_rate")}
    metrics["num_images"] = float(len(samples))
    metrics["num_small"] = float(num_small)
    metrics["small_fraction"] = num_small / num_annotated if num_annotated else float("nan")
    write_json(out / "metrics.json", nullable(metrics))
    exclusions.write(ws, STAGE)
    image = out / "images" / "worst.jpg"
    worst = labelled.pairs.sort_values("nme_bbox", ascending=False)["image"].unique()
    shown = worst[: config.num_images]
    write_bytes(
        image,
        encode_jpeg(
            contact_sheet(
                [draw_heads(samples[i].image_rgb, heads[i], geometry) for i in shown], 6, 220
            )
        ),
    )
    rng = sample_rng(ws.seed, STAGE, "groups")
    tables = group_table(labelled, rng, config.resamples)
    groups = {title: table for title, table in tables.items() if len(table)}
    return StageReport(
        *counts,
        metadata={k: round(v, 4) for k, v in metrics.items() if np.isfinite(v)},
        tables=groups,
        images={"worst": image},
    )


def _measured(ws: Workspace, evaluation: Evaluation, resamples: int) -> dict[str, float]:
    """Return all metrics with their intervals; every call draws the same resamples."""
    metrics = evaluation.metrics()
    rng = sample_rng(ws.seed, STAGE, "bootstrap")
    for name, (low, high) in evaluation.intervals(rng, resamples).items():
        metrics[f"{name}_low"], metrics[f"{name}_high"] = low, high
    return metrics


def _without_truth(ws: Workspace) -> StageReport:
    """Record that the generator's images have no truth to compare with."""
    write_json(ws.stage_dir(STAGE) / "metrics.json", {})
    Exclusions(STAGE).write(ws, STAGE)
    why = "none: the images' generator does not know their heads exactly"
    return StageReport(num_in=0, num_out=0, metadata={"truth": why})


def _read_annotations(ws: Workspace, sample_ids: Sequence[str]) -> tuple[list[Heads], int, int]:
    """Return the annotated heads of some images, and how many of all heads are small, and all."""
    heads = dict.fromkeys(sample_ids, Heads.empty())
    num_small = num_annotated = 0
    for shard in ws.shards:
        rows = read_table(ws.table_path("annotations", shard), HEADS)
        num_small += int(rows["flame_status"].eq("small").sum())
        num_annotated += len(rows)
        wanted = rows[rows["sample_id"].map(heads.__contains__).astype(bool)]
        for sample_id, of_image in wanted.groupby("sample_id", sort=False):
            heads[str(sample_id)] = annotated_heads(of_image)
    return list(heads.values()), num_small, num_annotated


def annotated_heads(rows: pd.DataFrame) -> Heads:
    """Return rows of the HEADS table as heads; those without parameters carry NaN."""
    if not len(rows):
        return Heads.empty()
    xywh = stack(rows["bbox_xywh"])
    nothing = np.full(NUM_FLAME_PARAMETERS, np.nan, np.float32)
    flame = np.stack([nothing if value is None else value for value in rows["flame"]])
    return Heads(xywh_to_xyxy(xywh), rows["score"].to_numpy(), flame)


def _without_parameters_fail(evaluation: Evaluation, heads: list[Heads]) -> Evaluation:
    """Return the evaluation in which labels without parameters have no vertex error and fail."""
    nme = np.where(_finite(evaluation, heads), evaluation.pairs["nme_bbox"], np.nan)
    return replace(evaluation, pairs=evaluation.pairs.assign(nme_bbox=nme))


def _with_parameters(evaluation: Evaluation, heads: list[Heads]) -> Evaluation:
    """Measure vertex and pose errors on the heads that were given parameters."""
    has = _finite(evaluation, heads)
    return replace(
        evaluation,
        pairs=evaluation.pairs[has].reset_index(drop=True),
        coefficients=evaluation.coefficients[has],
    )


def _finite(evaluation: Evaluation, heads: list[Heads]) -> np.ndarray:
    """Return (pairs,) bool: whether the found head was given parameters."""
    pairs = evaluation.pairs
    return np.array(
        [
            np.isfinite(heads[image].flame[place]).all()
            for image, place in zip(pairs["image"], pairs["prediction"], strict=True)
        ],
        bool,
    )
