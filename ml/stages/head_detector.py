"""Stage `head_detector`: train RT-DETR on the labels and measure it on held-out ones."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch
from pydantic import Field, model_validator
from transformers import RTDetrForObjectDetection

from ml.box_detection import load_box_detector
from ml.box_detection.base import Boxes, HeadBoxDetector, Scores
from ml.box_detection.coco_metrics import average_precision, operating_point
from ml.box_detection.data import (
    BoxDataModule,
    BoxLimits,
    LabelledImages,
    read_labelled_images,
)
from ml.box_detection.module import BoxDetectorModule
from ml.box_detection.pretrained import (
    Feeding,
    PretrainedConfig,
    load_network,
    save_with_feeding,
)
from ml.box_detection.rtdetr import RTDetrArchitecture, RTDetrDetector, build_rtdetr
from ml.imaging.drawing import (
    IGNORED_RGB,
    PREDICTION_RGB,
    TRUTH_RGB,
    draw_boxes,
    enlarge,
)
from ml.imaging.grids import contact_sheet
from ml.imaging.io import encode_jpeg
from ml.labels.coco import CocoDataset, read_coco
from ml.records.atomic import write_bytes, write_json
from ml.records.config import Count, Fraction, Index, StageConfig
from ml.records.determinism import prepare_torch
from ml.records.exclusions import Exclusions
from ml.records.report import StageReport
from ml.records.tables import write_samples
from ml.records.workspace import Workspace
from ml.training.callbacks import write_history
from ml.training.fit import FitConfig, FitResult, finish_work, fit
from ml.training.optim import OptimConfig
from ml.training.processes import leave_to_first
from ml.training.tracking import Tracker, log_data
from ml.training_data.augmentation import AugmentConfig

logger = logging.getLogger(__name__)

STAGE = "head_detector"
SPLITS = ("train", "val")
_GRID_CELL_PX = 256
_SUMMARY = ("ap50", "ap50_95", "precision", "recall", "count_correct")


class HeadDetectorConfig(StageConfig):
    """Box detector of heads: RT-DETR from scratch, or a checkpoint of its family.

    The optimiser's defaults are those published with RT-DETR for COCO: AdamW, 2,000 steps of linear
    warm-up, then a constant rate; decay, clipping, weight average, epochs and images in a step
    likewise. Two things differ: the backbone has the rate of the rest (published: a tenth of it,
    or half, by the release), and the augmentation is ours.

    Source: lyuwenyu/RT-DETR, `rtdetrv2_pytorch/configs/rtdetr/include/optimizer.yml`.
    """

    source: Literal["scratch", "finetune", "pretrained"] = "scratch"
    """`scratch` trains `architecture`; `finetune` fine-tunes the checkpoint of `pretrained` with a
    single label, as in the paper; `pretrained` only evaluates it and uses it unchanged."""
    pretrained: PretrainedConfig = PretrainedConfig()
    """Checkpoint of the sources `finetune` and `pretrained`."""
    architecture: RTDetrArchitecture = RTDetrArchitecture()
    """Size of the network trained from scratch."""
    dense_weight: float = Field(default=0.0, ge=0, le=1e6)
    """Weight of dense encoder supervision; 0: training as published."""
    cache_mb: Index = 1024
    """Memory for decoded images; others are decoded each time."""
    batch_size: Count = 16
    """Images in a batch; convergence of the matching depends on the number of steps more than on
    images."""
    augment: AugmentConfig = AugmentConfig(rotate=0.0, blur=0.05, noise=0.05, jpeg=0.0)
    """Random changes of training images."""
    limits: BoxLimits = BoxLimits()
    """Which heads remain training targets after augmentation."""
    optim: OptimConfig = OptimConfig(
        lr=1e-4, weight_decay=1e-4, warmup_steps=2000, final_lr_fraction=1.0, ema_decay=0.9999
    )
    """Optimiser and schedule."""
    fit: FitConfig = FitConfig(epochs=72, gradient_clip=0.1)
    """The training loop."""
    threshold: float = Field(default=0.5, gt=0, lt=1)
    """Score at which precision and recall are reported."""
    preview_images: int = Field(default=24, ge=1, le=10**9)
    """Held-out images in the prediction grid."""
    max_drop_rate: Fraction = 0.05
    """Maximum unreadable fraction of the labelled images; above it, the stage fails."""

    @model_validator(mode="after")
    def _checkpoint_named(self) -> HeadDetectorConfig:
        if self.source != "scratch" and self.pretrained.model is None:
            raise ValueError(
                f"source {self.source} needs pretrained.model, {{path or hub_id, revision, sha256, "
                "asset}"
            )
        return self

    @property
    def input_size(self) -> int:
        """Side of the network's input, px."""
        scratch = self.source == "scratch"
        return self.architecture.input_size if scratch else self.pretrained.input_size


def run(ws: Workspace, config: HeadDetectorConfig, tracker: Tracker) -> StageReport:
    """Train the box detector, or resume from the last finished epoch.

    Args:
        ws: the workspace; reads `labels` and `images`, writes `data/head_detector`.
        config: sizes, optimiser, loop.
        tracker: receives parameters, curves, metrics and images.

    Returns:
        Counts of labelled images, metrics and the prediction grid.

    Raises:
        CocoError: the labels are missing or damaged.
        FileNotFoundError: an image shard is missing.
        RuntimeError: too many images cannot be read, or no image is left.
    """
    prepare_torch(ws, STAGE)
    exclusions = Exclusions(STAGE)
    labels = {split: read_coco(ws.stage_dir("labels") / f"{split}.json") for split in SPLITS}
    train, val = (_labelled(ws, s, labels[s], exclusions, config) for s in SPLITS)
    given = [image.sample_id for split in SPLITS for image in labels[split].images]
    counts = exclusions.account(given, [*train.sample_ids, *val.sample_ids])
    log_data(tracker, "labels", {"train": _counts(train), "val": _counts(val)})
    tracker.log_params(_flat("", config.model_dump(mode="json")))
    out = ws.stage_dir(STAGE)
    if config.source == "pretrained":
        result = _take_checkpoint(ws, config, out)
    else:
        result = _train(ws, config, tracker, train, val, out)
    write_history(out / "history.csv", result.history)
    exclusions.write(ws, "all")
    write_samples(out, train.sample_ids, val.sample_ids)
    # Measured with the weights that later stages load, not with those in memory.
    detector = load_box_detector(out)
    found = detector.detect(val.images)
    metrics = _measure(config, detector, train, val, found)
    write_json(out / "metrics.json", metrics)
    image = out / "images" / "predictions.jpg"
    write_bytes(image, encode_jpeg(prediction_grid(val, found, config)))
    tracker.log_metrics({f"final/{name}": value for name, value in metrics.items()})
    tracker.log_image(image, "predictions/held-out")
    finish_work(ws, STAGE)
    return _report(counts, config, metrics, result, image, detector)


def _train(
    ws: Workspace,
    config: HeadDetectorConfig,
    tracker: Tracker,
    train: LabelledImages,
    val: LabelledImages,
    out: Path,
) -> FitResult:
    """Train from scratch or from a checkpoint on, and write the model."""
    if config.source == "finetune":
        model = load_checkpoint(ws, config, num_labels=1).train()
    else:
        model = build_rtdetr(config.architecture)
    size = config.input_size
    module = BoxDetectorModule(model, size, config.optim, val, config.dense_weight)
    datamodule = BoxDataModule(
        train, val, size, config.batch_size, config.augment, config.limits, ws.seed, STAGE
    )
    result = fit(module, datamodule, ws, STAGE, config.fit, tracker)
    RTDetrDetector(module.model, size).save_pretrained(out / "model")
    return result


def _take_checkpoint(ws: Workspace, config: HeadDetectorConfig, out: Path) -> FitResult:
    """Write the unchanged checkpoint; its curves have no epochs."""
    leave_to_first()
    feeding = Feeding(**config.pretrained.model_dump(exclude={"model"}))
    save_with_feeding(load_checkpoint(ws, config), feeding, out / "model")
    history = pd.DataFrame(columns=["epoch", "train/loss", "val/ap50", "val/ap50_95"])
    return FitResult(
        history, {}, seconds=0.0, resumed_epoch=0, resumed_step=0, checkpoint=out / "model"
    )


def load_checkpoint(
    ws: Workspace, config: HeadDetectorConfig, num_labels: int | None = None
) -> RTDetrForObjectDetection:
    """Load the checkpoint that is trained further or used unchanged.

    Args:
        ws: the workspace, to whose root its path is relative.
        config: section `head_detector`.
        num_labels: number of labels; the checkpoint's own by default.

    Returns:
        The network.

    Raises:
        ValueError: no checkpoint is named.
        ModelError: it is not there, not the one meant, or of another family.
    """
    if config.pretrained.model is None:
        raise ValueError(f"{STAGE}: source {config.source} needs pretrained.model")
    model = config.pretrained.model.resolve(ws.root)
    return load_network(model.location, num_labels, model.ref.variant, **model.arguments())


def _labelled(
    ws: Workspace,
    split: str,
    truth: CocoDataset,
    exclusions: Exclusions,
    config: HeadDetectorConfig,
) -> LabelledImages:
    of_split = Exclusions(STAGE)
    samples = read_labelled_images(ws, truth, of_split, config.cache_mb)
    of_split.check_drop_rate(
        len(truth.images),
        config.max_drop_rate,
        f"labelled images of split {split}",
        needs_one=True,
        advice="rerun the stages images and labels",
    )
    exclusions.extend(of_split.rows())
    return samples


def _counts(samples: LabelledImages) -> dict[str, int]:
    boxes = samples.truth.boxes
    ignored = sum(box.ignore for box in boxes)
    return {"images": len(samples), "heads": len(boxes), "ignored": ignored}


def _measure(
    config: HeadDetectorConfig,
    detector: HeadBoxDetector,
    train: LabelledImages,
    val: LabelledImages,
    found: Sequence[tuple[Boxes, Scores]],
) -> dict[str, float]:
    """Return all metrics of the run; flat, and floats only."""
    values = average_precision(val.truth, found)
    values |= operating_point(val.truth, found, config.threshold)
    values["threshold"] = config.threshold
    network: torch.nn.Module = detector.model  # type: ignore[attr-defined]
    values["parameters"] = sum(p.numel() for p in network.parameters())
    values["train_images"], values["val_images"] = len(train), len(val)
    values["val_heads"] = sum(not box.ignore for box in val.truth.boxes)
    return {name: float(value) for name, value in values.items()}


def prediction_grid(
    samples: LabelledImages, found: Sequence[tuple[Boxes, Scores]], config: HeadDetectorConfig
) -> np.ndarray:
    """Return held-out images with labels (green, ignored ones grey) and predictions (orange).

    Args:
        samples: labelled images.
        found: boxes and scores of each image, image px.
        config: threshold and number of images.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    cells = []
    for index in range(min(config.preview_images, len(samples))):
        image = samples.images[index]
        zoom = max(1, _GRID_CELL_PX // max(image.shape[:2]))
        boxes, ignore = samples.boxes(index)
        predicted, scores = found[index]
        strong = scores >= config.threshold
        cell = draw_boxes(enlarge(image, zoom), boxes[ignore], IGNORED_RGB, zoom=zoom)
        cell = draw_boxes(cell, boxes[~ignore], TRUTH_RGB, zoom=zoom)
        cells.append(draw_boxes(cell, predicted[strong], PREDICTION_RGB, scores[strong], zoom=zoom))
    return contact_sheet(cells, columns=6, cell_px=_GRID_CELL_PX)


def _report(
    counts: tuple[int, int, int],
    config: HeadDetectorConfig,
    metrics: dict[str, float],
    result: FitResult,
    image: Path,
    detector: HeadBoxDetector,
) -> StageReport:
    table = pd.DataFrame(
        [{"metric": name, "value": round(value, 4)} for name, value in sorted(metrics.items())]
    )
    return StageReport(
        *counts,
        metadata={
            **{name: round(metrics.get(name, 0.0), 4) for name in _SUMMARY},
            "parameters": int(metrics["parameters"]),
            "input_size": config.input_size,
            "epochs": len(result.history),
            "weights_sha256": detector.sha256,
        },
        timings={"train_seconds": round(result.seconds, 1)},
        tables={"metrics": table, "history": result.history},
        images={"predictions": image},
    )


def _flat(prefix: str, values: dict[str, object]) -> dict[str, object]:
    """Return nested configuration as dotted names."""
    flat: dict[str, object] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(f"{prefix}{name}.", value)
        else:
            flat[f"{prefix}{name}"] = value
    return flat
