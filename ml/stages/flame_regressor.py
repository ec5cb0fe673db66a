"""Stage `flame_regressor`: train the crop regressor and measure it on held-out crops."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ml.annotation.augment import NO_AUGMENTATION, CropAugmentConfig
from ml.annotation.crop_data import (
    STAGE,
    CropBatch,
    CropDataModule,
    CropDataset,
    CropExamples,
    crop_ids,
    load_crops,
)
from ml.annotation.drawing import draw_meshes
from ml.annotation.regressor import (
    CropRegressor,
    MirroredRegressor,
    RegressorArchitecture,
    TrainedRegressor,
    save_regressor,
)
from ml.annotation.training import CropErrors, CropLossConfig, RegressorTraining, crop_errors
from ml.evaluation.metrics import aligned_error
from ml.flame.geometry import HeadGeometry
from ml.flame.head_model import HeadModel
from ml.imaging.grids import contact_sheet
from ml.imaging.io import encode_jpeg
from ml.records.atomic import write_bytes, write_json
from ml.records.config import Count, Index, StageConfig
from ml.records.determinism import prepare_torch
from ml.records.exclusions import Exclusions
from ml.records.report import StageReport
from ml.records.tables import EXCLUSIONS, write_samples, write_table
from ml.records.workspace import Workspace
from ml.training.callbacks import write_history
from ml.training.determinism import SampleKey
from ml.training.fit import FitConfig, finish_work, fit
from ml.training.optim import OptimConfig
from ml.training.tracking import Tracker, log_data

logger = logging.getLogger(__name__)

_CHUNK = 256
"""Heads of which all vertices are held at once."""


class FlameRegressorConfig(StageConfig):
    """Network, data and training of the crop regressor.

    The network is ours, and so is its recipe: nothing is published. The defaults are AdamW's; a
    profile that trains it states its own.
    """

    architecture: RegressorArchitecture = RegressorArchitecture()
    """Size of the network and its crops."""
    augment: CropAugmentConfig = CropAugmentConfig()
    """Random changes of the training crops."""
    loss: CropLossConfig = CropLossConfig()
    """Weights of the loss terms."""
    optim: OptimConfig = OptimConfig()
    """Optimiser and schedule."""
    fit: FitConfig = FitConfig(epochs=40)
    """The training loop."""
    batch_size: Count = 64
    """Crops in a batch."""
    cache_mb: Index = 4096
    """Memory for decoded crops of each split; beyond it they are decoded again in every epoch."""
    preview_crops: Count = 24
    """Held-out crops in each preview."""


def run(ws: Workspace, config: FlameRegressorConfig, tracker: Tracker) -> StageReport:
    """Train on the rendered crops.

    Args:
        ws: the workspace.
        config: network, data and training.
        tracker: receives parameters, curves, metrics and images.

    Returns:
        Counts of crops, and the measures on the held-out ones.

    Raises:
        FileNotFoundError: crops or head model are missing.
        NonFiniteTraining: the training diverged.
    """
    prepare_torch(ws, STAGE)
    head_model = HeadModel.load(ws.stage_dir("head_model") / "head_model.npz")
    exclusions = Exclusions(STAGE)
    train = load_crops(ws, "train", exclusions, config.cache_mb)
    val = load_crops(ws, "val", exclusions, config.cache_mb)
    counts = exclusions.account(crop_ids(ws), [*train.crop_ids, *val.crop_ids])
    tracker.log_params(_flat_params(config))
    log_data(tracker, "crops", {"train": {"crops": len(train)}, "val": {"crops": len(val)}})
    module = RegressorTraining(
        CropRegressor(config.architecture), head_model, config.loss, config.optim
    )
    data = CropDataModule(
        train, val, config.architecture, config.augment, head_model, config.batch_size, ws.seed
    )
    result = fit(module, data, ws, STAGE, config.fit, tracker)
    folder = ws.stage_dir(STAGE)
    sha256 = save_regressor(module.network, folder)
    geometry = HeadGeometry(head_model)
    batch = held_out_batch(val, config.architecture, head_model, ws.seed)
    regressor = MirroredRegressor(TrainedRegressor(module.network, sha256), head_model)
    predicted = regressor.predict(batch.crops).numpy()
    errors = crop_errors(predicted, batch.flame.numpy(), batch.box_size.numpy(), geometry)
    metrics = _metrics(errors, len(train)) | shape_metrics(predicted, batch.flame.numpy(), geometry)
    write_json(folder / "metrics.json", metrics)
    write_history(folder / "history.csv", result.history)
    write_table(folder / "exclusions.parquet", exclusions.to_frame(), EXCLUSIONS)
    write_samples(folder, train.crop_ids, val.crop_ids)
    images = _write_images(folder, batch, predicted, errors, geometry, config.preview_crops)
    _report(tracker, metrics, images)
    finish_work(ws, STAGE)
    return StageReport(
        *counts,
        metadata={**metrics, "sha256": sha256},
        tables={"history": result.history},
        images=images,
    )


def held_out_batch(
    val: CropExamples, architecture: RegressorArchitecture, head_model: HeadModel, seed: int
) -> CropBatch:
    """Return all held-out crops, cut as the annotation stage cuts them.

    Args:
        val: the held-out images.
        architecture: size and margin of the crops.
        head_model: the head model of the parameters.
        seed: the run's seed.

    Returns:
        One batch.
    """
    dataset = CropDataset(val, architecture, NO_AUGMENTATION, head_model, seed)
    return CropDataModule.collate([dataset[SampleKey(index, 0)] for index in range(len(val))])


def shape_metrics(
    predicted: NDArray[np.float32], true: NDArray[np.float32], geometry: HeadGeometry
) -> dict[str, float]:
    """Measure shape, expression and jaw alone, next to a regressor that answers the mean head.

    Args:
        predicted: (N, 413) crop frame, px.
        true: (N, 413) crop frame, px.
        geometry: the head region's vertices.

    Returns:
        Mean error after alignment of pose and size, percent of the head: `nme_aligned`, and
        `nme_aligned_mean_head`.
    """
    mean_head = geometry.canonical_vertices(np.zeros_like(true[:1]))
    own, of_mean_head = [], []
    for start in range(0, len(true), _CHUNK):
        part = slice(start, start + _CHUNK)
        vertices = geometry.canonical_vertices(true[part])
        own.append(aligned_error(geometry.canonical_vertices(predicted[part]), vertices))
        of_mean_head.append(aligned_error(np.broadcast_to(mean_head, vertices.shape), vertices))
    return {
        "nme_aligned": float(np.concatenate(own).mean()),
        "nme_aligned_mean_head": float(np.concatenate(of_mean_head).mean()),
    }


def _metrics(errors: CropErrors, num_train: int) -> dict[str, float]:
    return {
        "num_train_crops": num_train,
        "num_val_crops": len(errors.rotation_deg),
        "rotation_deg": float(errors.rotation_deg.mean()),
        "rotation_median_deg": float(np.median(errors.rotation_deg)),
        "rotation_frontal_deg": float(errors.frontal_deg.mean()),
        "nme_bbox": float(100 * errors.nme_bbox.mean()),
        "nme_bbox_median": float(100 * np.median(errors.nme_bbox)),
        "failure_rate_10": float((errors.nme_bbox > 0.1).mean()),
    }


def _write_images(
    folder: Path,
    batch: CropBatch,
    predicted: NDArray[np.float32],
    errors: CropErrors,
    geometry: HeadGeometry,
    num_crops: int,
) -> dict[str, Path]:
    """Return held-out crops with predicted mesh points: the first ones, and the worst ones."""
    choices = {
        "held_out": np.arange(min(num_crops, len(predicted))),
        "worst": np.argsort(-errors.rotation_deg, kind="stable")[:num_crops],
    }
    images = {}
    for name, indices in choices.items():
        drawn = [
            draw_meshes(
                batch.crops[index].permute(1, 2, 0).contiguous().numpy(),
                [predicted[index]],
                geometry,
            )
            for index in indices
        ]
        labels = [
            f"{errors.rotation_deg[i]:.0f} deg  {100 * errors.nme_bbox[i]:.1f} %" for i in indices
        ]
        images[name] = folder / "images" / f"{name}.jpg"
        write_bytes(images[name], encode_jpeg(contact_sheet(drawn, 6, 192, labels)))
    return images


def _report(tracker: Tracker, metrics: dict[str, float], images: dict[str, Path]) -> None:
    tracker.log_metrics({f"final/{name}": value for name, value in metrics.items()})
    for name, path in images.items():
        tracker.log_image(path, f"images/{name}")
    logger.info(
        "%s: rotation error %.1f deg (always frontal %.1f), NME %.1f %%, aligned %.2f %% "
        "(mean head %.2f) on %d held-out crops",
        STAGE,
        metrics["rotation_deg"],
        metrics["rotation_frontal_deg"],
        metrics["nme_bbox"],
        metrics["nme_aligned"],
        metrics["nme_aligned_mean_head"],
        metrics["num_val_crops"],
    )


def _flat_params(config: FlameRegressorConfig) -> dict[str, object]:
    frame = pd.json_normalize(config.model_dump(mode="json"))
    return {str(name): frame[name].iloc[0] for name in frame.columns}
