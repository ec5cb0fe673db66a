"""Lightning callbacks shared by all trainings: means, history, progress, prediction grids."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from ml.imaging.io import encode_jpeg
from ml.records.atomic import atomic_write, write_bytes
from ml.records.progress import Progress, open_progress
from ml.training.base import TrainingModule
from ml.training.tracking import Tracker

logger = logging.getLogger(__name__)


class EpochMeans(pl.Callback):
    """Log the mean loss terms of an epoch; a resume within an epoch continues the sums."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._count = 0

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Add the batch's terms.

        Args:
            trainer: unused.
            pl_module: a `TrainingModule`.
            outputs: unused.
            batch: unused.
            batch_idx: unused.
        """
        assert isinstance(pl_module, TrainingModule)
        for name, value in pl_module.batch_terms.items():
            part = value.float() * pl_module.batch_size
            self._sums[name] = self._sums[name] + part if name in self._sums else part
        self._count += pl_module.batch_size

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log; must precede the callbacks that read the logged values.

        Args:
            trainer: unused.
            pl_module: receives the means.
        """
        for name, value in self._sums.items():
            suffix = "_epoch" if name == "loss" else ""
            mean = value / self._count
            pl_module.log(f"train/{name}{suffix}", mean, sync_dist=trainer.world_size > 1)
        self._sums, self._count = {}, 0

    def state_dict(self) -> dict[str, Any]:
        """Return sums for the checkpoint.

        Returns:
            The state.
        """
        return {"sums": dict(self._sums), "count": self._count}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the sums of the epoch's batches before the resume.

        Args:
            state_dict: what `state_dict` returned.
        """
        self._sums, self._count = dict(state_dict["sums"]), state_dict["count"]


def _epoch_values(trainer: pl.Trainer) -> dict[str, float]:
    """Return the logged values of this epoch, by name.

    Lightning would repeat an older validation's.
    """
    validated = (trainer.current_epoch + 1) % (trainer.check_val_every_n_epoch or 1) == 0
    return {
        name.removesuffix("_epoch"): float(value)
        for name, value in sorted(trainer.callback_metrics.items())
        if not name.endswith("_step") and (validated or not name.startswith("val/"))
    }


class History(pl.Callback):
    """One row of numbers per epoch, kept in checkpoints so that a resume loses none.

    Only values that depend on the data are kept: times would make equal runs differ.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add the epoch's row; must come before the checkpoint callback.

        Args:
            trainer: gives the logged values.
            pl_module: unused.
        """
        row: dict[str, float] = {"epoch": float(trainer.current_epoch)}
        for group in trainer.optimizers[0].param_groups:
            row[f"lr/{group.get('name', 'all')}"] = float(group["lr"])
        self.rows.append({**row, **_epoch_values(trainer)})

    def frame(self) -> pd.DataFrame:
        """Return the rows so far.

        Returns:
            Epoch rows; `epoch` first.
        """
        frame = pd.DataFrame(self.rows)
        return frame.astype({"epoch": int}) if len(frame) else frame

    def state_dict(self) -> dict[str, Any]:
        """Return rows for the checkpoint.

        Returns:
            The state.
        """
        return {"rows": [dict(row) for row in self.rows]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the rows of the epochs before the resume.

        Args:
            state_dict: what `state_dict` returned.
        """
        self.rows = [dict(row) for row in state_dict["rows"]]


def write_history(path: Path, history: pd.DataFrame) -> None:
    """Write curves as CSV with six significant digits, atomically.

    Args:
        path: the CSV file.
        history: epoch rows.
    """
    with atomic_write(path) as temporary:
        history.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")


class EpochProgress(pl.Callback):
    """Progress over all steps, and one line per epoch in the log."""

    def __init__(self, stage: str) -> None:
        """Name the training.

        Args:
            stage: shown in front.
        """
        self._stage = stage
        self._bar: Progress | None = None
        self._shown = 0
        self._started = 0.0
        self._first_epoch = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the bar.

        Args:
            trainer: gives the length.
            pl_module: unused.
        """
        if not trainer.is_global_zero:
            return
        self._started = time.monotonic()
        self._first_epoch = trainer.current_epoch
        total = int(trainer.estimated_stepping_batches)
        self._shown = trainer.global_step
        self._bar = open_progress(f"{self._stage} steps", total, self._shown, "step")

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Advance.

        Args:
            trainer: gives the step.
            pl_module: unused.
            outputs: unused.
            batch: unused.
            batch_idx: unused.
        """
        if self._bar is not None:
            self._bar.update(trainer.global_step - self._shown)
            self._shown = trainer.global_step

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report the epoch's losses and the remaining time.

        Args:
            trainer: gives the values.
            pl_module: unused.
        """
        if not trainer.is_global_zero:
            return
        done = trainer.current_epoch + 1
        total = trainer.max_epochs or done
        elapsed = time.monotonic() - self._started
        left = elapsed / max(done - self._first_epoch, 1) * (total - done)
        values = _epoch_values(trainer).items()
        text = "  ".join(f"{name.removeprefix('train/')} {value:.4g}" for name, value in values)
        logger.info(
            "%s epoch %d/%d  %s  [%s, %s left]",
            self._stage,
            done,
            total,
            text,
            _clock(elapsed),
            _clock(left),
        )

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Close the bar.

        Args:
            trainer: unused.
            pl_module: unused.
        """
        if self._bar is not None:
            self._bar.close()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Close the bar.

        Args:
            trainer: unused.
            pl_module: unused.
            exception: unused.
        """
        if self._bar is not None:
            self._bar.close()


def _clock(seconds: float) -> str:
    """Return minutes and seconds."""
    whole = math.ceil(seconds)
    return f"{whole // 60}:{whole % 60:02d}"


class PredictionGrid(pl.Callback):
    """Images with predictions of the averaged weights, after validation of chosen epochs."""

    def __init__(
        self,
        draw: Callable[[pl.LightningModule], NDArray[np.uint8]],
        folder: Path,
        tracker: Tracker,
        every_n_epochs: int = 1,
    ) -> None:
        """Remember how to draw.

        Args:
            draw: gives an RGB image from the module, which is in evaluation mode.
            folder: receives `epoch-<n>.jpg`.
            tracker: receives the image as `predictions/epoch-<n>`.
            every_n_epochs: distance; the last epoch always gets one.
        """
        self._draw = draw
        self._folder = folder
        self._tracker = tracker
        self._every_n_epochs = every_n_epochs

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw with the averaged weights; `fit` orders this before they are swapped back.

        Args:
            trainer: gives the epoch.
            pl_module: the module under validation.
        """
        if trainer.sanity_checking or trainer.global_rank:
            return
        epoch = trainer.current_epoch + 1
        if epoch % self._every_n_epochs and epoch != trainer.max_epochs:
            return
        with torch.no_grad():
            image = self._draw(pl_module)
        path = self._folder / f"epoch-{epoch:03d}.jpg"
        write_bytes(path, encode_jpeg(image, 90))
        self._tracker.log_image(path, f"predictions/{path.stem}")
