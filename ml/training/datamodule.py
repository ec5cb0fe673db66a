"""Batches of any samples: order, division among processes, resumption."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import cv2
import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader, Dataset

from ml.training.determinism import EpochSampler, ResumableLoader, ShardWindows


def _start_worker(_: int) -> None:
    """Keep a loader process to one thread; the training owns the cores."""
    cv2.setNumThreads(0)


class EpochDataModule(pl.LightningDataModule, ABC):
    """Shuffled training batches and held-out batches in order; subclasses define the samples.

    Run seed, stage, epoch and sample id decide the order and, by the `SampleKey` that a dataset is
    asked with, every random change. Several processes share a batch; a training that was stopped
    within an epoch resumes there.
    """

    val_in_every_process = False
    """Whether each process validates on all samples, not on its part."""
    windows: ShardWindows | None = None
    """Which shards training reads together; none: any sample may follow any other."""

    def __init__(self, seed: int, stage: str, batch_size: int, num_workers: int = 0) -> None:
        """Remember how batches are made.

        Args:
            seed: the run's seed.
            stage: name of the training.
            batch_size: samples in a batch of one process.
            num_workers: processes that prepare training batches; the batches do not depend on it.
        """
        super().__init__()
        self.seed, self.stage = seed, stage
        self.batch_size, self.num_workers = batch_size, num_workers

    @abstractmethod
    def dataset(self, training: bool) -> Dataset[Any]:
        """Return the samples, which are asked for by `SampleKey`.

        Args:
            training: with random changes, else held out.
        """

    @abstractmethod
    def sample_ids(self, training: bool) -> Sequence[str]:
        """Return the ids of the samples in the dataset's order."""

    @abstractmethod
    def collate(self, items: Sequence[Any]) -> Any:
        """Join samples to a batch."""

    def train_dataloader(self) -> DataLoader[Any]:
        """Return shuffled batches; an incomplete last batch is dropped."""
        return self._loader(training=True)

    def val_dataloader(self) -> DataLoader[Any]:
        """Return held-out batches in order."""
        return self._loader(training=False)

    def _loader(self, training: bool) -> DataLoader[Any]:
        rank, world_size = 0, 1
        if self.trainer and not (self.val_in_every_process and not training):
            rank, world_size = self.trainer.global_rank, self.trainer.world_size
        ids = self.sample_ids(training)
        windows = self.windows if training else None
        sampler = EpochSampler(ids, self.seed, self.stage, training, rank, world_size, windows)
        workers = self.num_workers if training else 0
        return ResumableLoader(
            self.dataset(training),
            batch_size=self.batch_size,
            sampler=sampler,
            num_workers=workers,
            # Within a spawned training process the default is to spawn, which pickles all samples.
            multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
            collate_fn=self.collate,
            drop_last=training and len(sampler) >= self.batch_size,
            persistent_workers=workers > 0,
            prefetch_factor=4 if workers else None,
            worker_init_fn=_start_worker,
            pin_memory=torch.cuda.is_available(),
        )
