"""The checkpoint a killed training resumes from."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

from ml.records.atomic import atomic_write
from ml.training.determinism import ResumableLoader

logger = logging.getLogger(__name__)

CHECKPOINT_NAME = "last.ckpt"


class TrainingCheckpoint(pl.Callback):
    """Keeps one checkpoint, of the last epoch or of some steps later, complete or not at all."""

    def __init__(self, folder: Path, key: str, processes: int = 1, every_steps: int = 0) -> None:
        """Store path and key.

        Args:
            folder: folder of the checkpoint.
            key: digest of all settings of the training; a resume requires the same.
            processes: number of processes; a resume requires the same, for batches and steps of
                an epoch depend on it.
            every_steps: optimiser steps between checkpoints within an epoch; 0: none there.
        """
        self.path = folder / CHECKPOINT_NAME
        self.key = key
        self._processes = processes
        self._every_steps = every_steps
        self._last_step = 0
        self._epoch_is_over = False
        self._loader_state: dict[str, int] | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restore the position in the training data; fail early if that would be impossible.

        Processes on several machines may read parameters or the checkpoint differently.

        Args:
            trainer: has the loader, made by now but not asked for a batch yet.
            pl_module: unused.

        Raises:
            ValueError: the loader would restart the epoch, or this process does not train the
                same as the first.
        """
        self._last_step = trainer.global_step
        own = (self.key, trainer.global_step)
        first = trainer.strategy.broadcast(own)
        if own != first:
            what = "starts from another step than" if own[0] == first[0] else "is configured unlike"
            raise ValueError(
                f"process {trainer.global_rank} {what} the first: all need the same params.yaml, "
                f"files, devices and number formats, and the checkpoint in {self.path.parent}"
            )
        loader = trainer.train_dataloader
        if self._every_steps and not isinstance(loader, ResumableLoader):
            raise ValueError(
                f"checkpoint_every_steps: expected a ResumableLoader for training, got "
                f"{type(loader).__name__}, which would repeat samples; set it to 0"
            )
        if self._loader_state and isinstance(loader, ResumableLoader):
            # Lightning makes the loaders while it builds the optimiser, before it restores them.
            loader.load_state_dict(self._loader_state)
            self._loader_state = None

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Store the key, whether the epoch is over, and where in it the training data is.

        Args:
            trainer: has the loader.
            pl_module: unused.
            checkpoint: receives `fit_key`, `processes`, `epoch_is_over` and `loader`.
        """
        checkpoint["fit_key"] = self.key
        checkpoint["processes"] = self._processes
        checkpoint["epoch_is_over"] = self._epoch_is_over
        if isinstance(trainer.train_dataloader, ResumableLoader):
            checkpoint["loader"] = trainer.train_dataloader.state_dict()

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Remember where the training data was.

        Args:
            trainer: unused.
            pl_module: unused.
            checkpoint: what was stored.
        """
        self._loader_state = checkpoint.get("loader")

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Write every given number of steps, except at the last step of an epoch.

        Args:
            trainer: saves its whole state.
            pl_module: unused.
            outputs: unused.
            batch: unused.
            batch_idx: number of the batch in its epoch.
        """
        stepped = trainer.global_step > self._last_step
        self._last_step = trainer.global_step
        due = self._every_steps and stepped and trainer.global_step % self._every_steps == 0
        if due and batch_idx + 1 < trainer.num_training_batches:
            self._write(trainer, epoch_is_over=False)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write.

        Args:
            trainer: saves its whole state.
            pl_module: unused.
        """
        self._write(trainer, epoch_is_over=True)

    def _write(self, trainer: pl.Trainer, epoch_is_over: bool) -> None:
        """Write and rename; of several processes all take part and the first writes."""
        self._epoch_is_over = epoch_is_over
        if trainer.is_global_zero:
            with atomic_write(self.path) as temporary:
                trainer.save_checkpoint(temporary)
        else:
            trainer.save_checkpoint(self.path)

    def resumable(self) -> Path | None:
        """Return the checkpoint from which a training can resume.

        Returns:
            Its path, or None when there is none or it belongs to another training.

        Raises:
            ValueError: it belongs to the same training in another number of processes. Each has
                `batch_size` samples of a step, so an epoch has other batches and another number
                of steps; to start again would silently give up what may be days of work.
        """
        if not self.path.is_file():
            return None
        stored = self.read()
        if stored.get("fit_key") != self.key:
            logger.warning("%s: written by a different configuration, starting again", self.path)
            return None
        # Earlier versions had the number in the key.
        wrote = stored.get("processes", self._processes)
        if wrote != self._processes:
            raise ValueError(
                f"{self.path}: written by a training in {wrote} processes, now there would be "
                f"{self._processes}, with other batches; resume with {wrote}, or delete "
                f"{self.path.parent} to start again"
            )
        return self.path

    def read(self) -> dict[str, Any]:
        """Return the checkpoint's content.

        Returns:
            What Lightning stored; tensors are read from the file when they are used.
        """
        content: dict[str, Any] = torch.load(
            self.path, map_location="cpu", weights_only=True, mmap=True
        )
        return content
