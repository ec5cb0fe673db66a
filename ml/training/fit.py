"""The one training loop: Lightning's trainer with exact resume, weight average and reporting."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import lightning.pytorch as pl
import pandas as pd
import torch
from lightning.pytorch.strategies import DDPStrategy
from pydantic import Field

from ml.records.config import StageConfig
from ml.records.workspace import Workspace
from ml.training.base import TrainingModule
from ml.training.callbacks import EpochMeans, EpochProgress, History, write_history
from ml.training.checkpoint import TrainingCheckpoint
from ml.training.determinism import ProcessSettings, SeedEachBatch
from ml.training.optim import EMA
from ml.training.quiet import quiet_lightning
from ml.training.tracking import Tracker

_LOGGER = logging.getLogger(__name__)

HISTORY_NAME = "history.csv"


class FitConfig(StageConfig):
    """The loop of one training."""

    epochs: int = 10
    """Passes over the training samples."""
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "auto"
    """Number format. auto: bf16 where the device computes with it; a CPU that only emulates it
    takes eight times as long as with 32 bits. 16 is for older GPUs."""
    gradient_clip: float = 10.0
    """Largest norm of the gradient; 0 clips nothing."""
    channels_last: bool = True
    """Memory layout that convolutions are faster in."""
    accumulate_batches: int = 1
    """Batches whose gradients are summed before a step."""
    validate_every_epochs: int = 1
    """Largest distance of validations; the last epoch is always validated."""
    log_every_steps: int = 10
    """Distance of logged steps."""
    accelerator: Literal["cpu", "gpu", "auto"] = "cpu"
    """Device; weights are bit-identical between runs only on the same one."""
    devices: int = 1
    """Processes on this machine, each with a device; more than one trains data-parallel, with
    batches of the loader's size in every one."""
    threads: int = Field(default=0, ge=0)
    """Torch threads of each process, part of what decides the weights' bits; 0: `run.threads`."""
    sync_batchnorm: bool = False
    """Share the statistics of batch normalisation between processes (GPU only)."""
    checkpoint_every_steps: int = 0
    """Optimiser steps between checkpoints within an epoch, for epochs of hours; 0: none, a killed
    training goes on from its last epoch."""

    def precision_here(self) -> Literal["32-true", "bf16-mixed", "16-mixed"]:
        """The number format that `precision` means on this machine."""
        if self.precision != "auto":
            return self.precision
        if self.accelerator == "gpu" or (self.accelerator == "auto" and torch.cuda.is_available()):
            native = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            capabilities = torch.cpu.get_capabilities()
            native = any(capabilities.get(name) for name in ("amx_bf16", "avx512_bf16"))
        return "bf16-mixed" if native else "32-true"

    @property
    def validation_distance(self) -> int:
        """The largest divisor of the epochs that is no larger than asked for."""
        wanted = range(min(self.validate_every_epochs, self.epochs), 0, -1)
        return next(distance for distance in wanted if self.epochs % distance == 0)


@dataclass(frozen=True)
class FitResult:
    """What a training left behind; the module itself holds the averaged weights.

    Attributes:
        history: one row per epoch (`epoch`, `lr/...`, `train/...`, `val/...`).
        metrics: the last epoch's values by name.
        seconds: time of this process; a resumed training counts only its own part.
        resumed_epoch: epochs that were already done when this process started.
        resumed_step: optimiser steps that were already done.
        checkpoint: the training's last checkpoint, in the work folder.
    """

    history: pd.DataFrame
    metrics: dict[str, float]
    seconds: float
    resumed_epoch: int
    resumed_step: int
    checkpoint: Path


def fit(
    module: TrainingModule,
    datamodule: pl.LightningDataModule,
    ws: Workspace,
    stage: str,
    config: FitConfig,
    tracker: Tracker,
    callbacks: Sequence[pl.Callback] = (),
) -> FitResult:
    """Train, or go on from the last checkpoint of the same training.

    Call `prepare_torch(ws, stage)` before building the module. After a kill, calling again gives
    bit-identical weights to an uninterrupted run, provided the data module orders samples with
    `EpochSampler` and augments from the `SampleKey`, and gives a `ResumableLoader` if there are
    checkpoints in mid-epoch. When the stage's results are written, call `finish_work`.

    Several processes are spawned from this one, so everything given must be picklable; their
    gradients are averaged.

    Args:
        module: the model with its losses; trained in place, ends with the averaged weights.
        datamodule: gives the training and validation batches.
        ws: seed, threads and the work folder.
        stage: name of the training stage.
        config: the loop's configuration.
        tracker: receives curves, history and checkpoint.
        callbacks: the stage's own, e.g. `PredictionGrid`; run before the weights are swapped back.

    Returns:
        History, last metrics and where the checkpoint lies.

    Raises:
        NonFiniteTraining: a loss term or the gradient is not finite.
        RuntimeError: the training was interrupted.
    """
    threads = config.threads or ws.threads
    torch.set_num_threads(threads)
    work = ws.work_dir(stage)
    if config.channels_last:
        module.to(memory_format=torch.channels_last)
    optim, history = module.optim_config, History()
    key = _fit_key(module, ws, stage, config, threads)
    checkpoint = TrainingCheckpoint(work, key, config.checkpoint_every_steps)
    ema = EMA(optim.ema_decay, optim.ema_growth) if optim.ema_decay else None
    resume_from = checkpoint.resumable()
    resumed_epoch, resumed_step = _done_in(checkpoint) if resume_from else (0, 0)
    if resume_from:
        _LOGGER.info("%s: going on after step %d from %s", stage, resumed_step, resume_from)
    started = time.monotonic()
    with quiet_lightning():
        trainer = _trainer(
            config,
            tracker,
            work,
            [
                ProcessSettings(threads),
                SeedEachBatch(ws.seed, stage),
                EpochMeans(),
                history,
                EpochProgress(stage),
                *callbacks,
                *([ema] if ema else []),
                checkpoint,
            ],
        )
        trainer.fit(module, datamodule=datamodule, ckpt_path=resume_from, weights_only=True)
    if config.devices > 1:
        # The spawned processes are gone; the weights came back by Lightning, the rest by the file.
        stored = checkpoint.read()
        history.load_state_dict(stored["callbacks"][history.state_key])
    elif ema:
        ema.copy_to(module)
    if trainer.interrupted or len(history.rows) < config.epochs:
        raise RuntimeError(
            f"{stage}: stopped after {len(history.rows)} of {config.epochs} epochs; "
            "run the stage again to go on from its checkpoint"
        )
    module.eval()
    seconds = time.monotonic() - started
    write_history(work / HISTORY_NAME, history.frame())
    tracker.log_metrics({"train_seconds": seconds})
    tracker.log_artifact(work / HISTORY_NAME)
    tracker.log_artifact(checkpoint.path, "checkpoints")
    return FitResult(
        history=history.frame(),
        metrics={k: v for k, v in history.rows[-1].items() if k != "epoch"},
        seconds=seconds,
        resumed_epoch=resumed_epoch,
        resumed_step=resumed_step,
        checkpoint=checkpoint.path,
    )


def _trainer(
    config: FitConfig, tracker: Tracker, work: Path, callbacks: list[pl.Callback]
) -> pl.Trainer:
    """Lightning's trainer of a configuration."""
    return pl.Trainer(
        max_epochs=config.epochs,
        accelerator=config.accelerator,
        devices=config.devices,
        strategy=DDPStrategy(start_method="spawn") if config.devices > 1 else "auto",
        sync_batchnorm=config.sync_batchnorm,
        precision=config.precision_here(),
        gradient_clip_val=config.gradient_clip or None,
        accumulate_grad_batches=config.accumulate_batches,
        check_val_every_n_epoch=config.validation_distance,
        log_every_n_steps=config.log_every_steps,
        logger=tracker.lightning_logger() or False,
        callbacks=callbacks,
        default_root_dir=work,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        deterministic="warn",
    )


def finish_work(ws: Workspace, stage: str) -> None:
    """Remove a training's work folder, once its results are in the stage's folder.

    Args:
        ws: the workspace.
        stage: name of the training stage.
    """
    shutil.rmtree(ws.work_dir(stage))


def _fit_key(
    module: TrainingModule, ws: Workspace, stage: str, config: FitConfig, threads: int
) -> str:
    """Digest of what decides a training, beside its data (which the work folder's name covers)."""
    parts = {
        "stage": stage,
        "seed": ws.seed,
        "threads": threads,
        "config": config.model_dump(mode="json"),
        "precision": config.precision_here(),
        "optim": module.optim_config.model_dump(mode="json"),
        "parameters": [[name, list(p.shape)] for name, p in module.named_parameters()],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _done_in(checkpoint: TrainingCheckpoint) -> tuple[int, int]:
    """Epochs and optimiser steps that a checkpoint has behind it."""
    stored = checkpoint.read()
    return int(stored["epoch"]) + bool(stored["epoch_is_over"]), int(stored["global_step"])
