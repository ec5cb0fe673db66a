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

import lightning.pytorch as pl
import pandas as pd
import torch
from lightning.fabric.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy

from ml.records.workspace import Workspace
from ml.training.base import TrainingModule
from ml.training.callbacks import EpochMeans, EpochProgress, History, write_history
from ml.training.checkpoint import TrainingCheckpoint
from ml.training.config import FitConfig
from ml.training.determinism import ProcessSettings, SeedEachBatch
from ml.training.optim import EMA
from ml.training.processes import await_first, launched, release_followers
from ml.training.quiet import quiet_lightning
from ml.training.tracking import Tracker

logger = logging.getLogger(__name__)

HISTORY_NAME = "history.csv"


@dataclass(frozen=True)
class FitResult:
    """Results of a training; the module itself holds the averaged weights.

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
    """Train, or resume from the last checkpoint of the same training.

    Call `prepare_torch(ws, stage)` before building the module. After a kill, calling again gives
    bit-identical weights to an uninterrupted run, provided the data module orders samples with
    `EpochSampler` and augments from the `SampleKey`, and gives a `ResumableLoader` if there are
    checkpoints in mid-epoch. When the stage's results are written, call `finish_work`.

    Gradients of several processes are averaged. Those of `config.devices` are spawned from this
    one, so everything given must be picklable. Those that torchrun or srun started all call this
    function; it returns in the first, whose checkpoint all resume from.

    Args:
        module: the model with its losses; trained in place, ends with the averaged weights.
        datamodule: gives the training and validation batches.
        ws: seed, threads and the work folder.
        stage: name of the training stage.
        config: the loop's configuration.
        tracker: receives curves, history and checkpoint.
        callbacks: the stage's own, e.g. `PredictionGrid`; run before the weights are swapped back.

    Returns:
        History, last metrics and where the checkpoint is.

    Raises:
        NonFiniteTraining: a loss term or the gradient is not finite.
        RuntimeError: the training was interrupted, or the first process failed.
        TrainedAlong: this process is not the first, which has written its results.
        ValueError: the checkpoint is that of another number of processes.
    """
    threads = config.threads or ws.threads
    torch.set_num_threads(threads)
    work = ws.work_dir(stage)
    if config.channels_last:
        module.to(memory_format=torch.channels_last)
    optim, history = module.optim_config, History()
    key = _fit_key(module, ws, stage, config, threads)
    launch = launched()
    processes = launch.world_size if launch else config.devices
    checkpoint = TrainingCheckpoint(work, key, processes, config.checkpoint_every_steps)
    ema = EMA(optim.ema_decay, optim.ema_growth) if optim.ema_decay else None
    resume_from = checkpoint.resumable()
    resumed_epoch, resumed_step = _done_in(checkpoint) if resume_from else (0, 0)
    if resume_from:
        logger.info("%s: going on after step %d from %s", stage, resumed_step, resume_from)
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
    if config.devices > 1 and launch is None:
        # The spawned processes are gone; the weights came back by Lightning, the rest by the file.
        stored = checkpoint.read()
        history.load_state_dict(stored["callbacks"][history.state_key])
    elif ema:
        ema.copy_to(module)
    if trainer.interrupted or len(history.rows) < config.epochs:
        raise RuntimeError(
            f"{stage}: stopped after {len(history.rows)} of {config.epochs} epochs; "
            "run the stage again to resume from its checkpoint"
        )
    await_first()
    module.eval()
    seconds = time.monotonic() - started
    write_history(work / HISTORY_NAME, history.frame())
    tracker.log_metrics({"cost/train_seconds": seconds})
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
    """Return Lightning's trainer of a configuration."""
    launch = launched()
    strategy: DDPStrategy | str = "auto"
    if launch is not None:
        strategy = DDPStrategy()
    elif config.devices > 1:
        strategy = DDPStrategy(start_method="spawn")
    return pl.Trainer(
        max_epochs=config.epochs,
        accelerator=config.accelerator,
        devices=launch.local_size if launch else config.devices,
        num_nodes=launch.num_nodes if launch else 1,
        strategy=strategy,
        # Given, for in an allocation of SLURM Lightning would wait for as many processes as it has
        # tasks, whether srun started them or not.
        plugins=[launch.environment() if launch else LightningEnvironment()],
        sync_batchnorm=config.sync_batchnorm,
        precision=config.precision_here(),
        gradient_clip_val=config.gradient_clip or None,
        accumulate_grad_batches=config.accumulate_batches,
        check_val_every_n_epoch=config.validation_interval,
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
    release_followers()
    # On NFS a file that a process still has open cannot go; it goes when the stage is recorded.
    shutil.rmtree(ws.work_dir(stage), ignore_errors=True)


def _fit_key(
    module: TrainingModule, ws: Workspace, stage: str, config: FitConfig, threads: int
) -> str:
    """Return a digest of a training's settings, except its data (in the folder's name)."""
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
    """Return epochs and optimiser steps that a checkpoint has behind it."""
    stored = checkpoint.read()
    return int(stored["epoch"]) + bool(stored["epoch_is_over"]), int(stored["global_step"])
