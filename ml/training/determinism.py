"""Reproducible training: fixed threads, and orders and seeds that depend on names only.

No random state survives from one step to the next, so a training that was killed and resumed
draws exactly what the uninterrupted one would have drawn.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import PurePath
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Sampler

from ml.records.determinism import seed_all
from ml.records.ids import sample_seed
from ml.training.quiet import silence


@dataclass(frozen=True, slots=True)
class SampleKey:
    """Key of a sample: its index, and the epoch, which seeds its augmentation."""

    index: int
    epoch: int


class ShardWindows:
    """Windows of shards that are read together: an epoch passes through windows of a few shards.

    Which shards share a window is drawn again for every epoch. Random access over thousands of
    shards would open each of them for every batch.
    """

    def __init__(
        self, shards: Sequence[Hashable], seed: int, stage: str, window_shards: int
    ) -> None:
        """Assign numbers to the shards.

        Args:
            shards: the shard of each sample, in dataset order.
            seed: the run's seed.
            stage: name of the training.
            window_shards: shards of a window; if there are no more, all samples are one window.
        """
        names = list(dict.fromkeys(shards))
        numbers = {name: number for number, name in enumerate(names)}
        self._names = [str(PurePath(str(name)).name) for name in names]
        self._shard_of = np.fromiter((numbers[shard] for shard in shards), np.int32, len(shards))
        self._seed, self._stage, self._size = seed, stage, window_shards

    @property
    def is_one(self) -> bool:
        """Whether all samples are one window, so that epochs are shuffled as a whole."""
        return len(self._names) <= self._size

    def of_epoch(self, epoch: int) -> NDArray[np.int32]:
        """Return the window of each sample.

        Args:
            epoch: counted from 0.

        Returns:
            (N,) numbers; windows are read in their order.
        """
        purpose = f"{self._stage}/shards/{epoch}"
        order = sorted(
            range(len(self._names)),
            key=lambda i: sample_seed(self._seed, purpose, self._names[i]),
        )
        window = np.empty(len(order), np.int32)
        window[order] = np.arange(len(order), dtype=np.int32) // self._size
        return window[self._shard_of]


class EpochSampler(Sampler[SampleKey]):
    """Order of an epoch's samples, from hash(run seed, stage, epoch, sample id).

    With `windows`, samples are shuffled within windows of shards, and windows come one after the
    other.

    Removing a sample leaves the others in their order. Lightning calls `set_epoch`. With several
    processes each takes every `world_size`-th sample, so that their batches together are the
    batches of one process; a shuffled epoch wraps round to equal lengths, an ordered one does not,
    for no sample may be measured twice.
    """

    def __init__(
        self,
        sample_ids: Sequence[str],
        seed: int,
        stage: str,
        shuffle: bool,
        rank: int = 0,
        world_size: int = 1,
        windows: ShardWindows | None = None,
    ) -> None:
        """Remember the ids.

        Args:
            sample_ids: ids in dataset order.
            seed: the run's seed.
            stage: name of the training.
            shuffle: False keeps the dataset's order.
            rank: number of this process.
            world_size: number of processes.
            windows: which shards are read together; None shuffles all samples as one.

        Raises:
            ValueError: there is nothing to sample, or less than a sample for each process.
        """
        if not sample_ids:
            raise ValueError(f"{stage}: the sampler got no samples; is the split empty?")
        if len(sample_ids) < world_size:
            raise ValueError(
                f"{stage}: {len(sample_ids)} samples for {world_size} processes; each needs one"
            )
        self._sample_ids = list(sample_ids)
        self._seed = seed
        self._stage = stage
        self._shuffle = shuffle
        self._rank = rank
        self._world_size = world_size
        self._windows = None if windows is None or windows.is_one else windows
        self._skip = 0
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iteration.

        Args:
            epoch: counted from 0.
        """
        self.epoch = epoch

    def skip_once(self, count: int) -> None:
        """Leave out the first samples of the next iteration.

        Args:
            count: samples that were seen before a resume.
        """
        self._skip = count

    def __len__(self) -> int:
        count = len(self._sample_ids)
        if self._shuffle:
            return -(-count // self._world_size)
        return len(range(self._rank, count, self._world_size))

    def __iter__(self) -> Iterator[SampleKey]:
        skip, self._skip = self._skip, 0
        count = len(self._sample_ids)
        total = len(self) * self._world_size if self._shuffle else count
        first = self._rank + skip * self._world_size
        for index in islice(cycle(self._order()), first, total, self._world_size):
            yield SampleKey(index, self.epoch)

    def _order(self) -> Iterator[int]:
        """Yield all samples in the epoch's order, a window at a time: hashing all takes seconds."""
        count = len(self._sample_ids)
        if not self._shuffle:
            yield from range(count)
            return
        window = np.zeros(count) if self._windows is None else self._windows.of_epoch(self.epoch)
        by_window = np.argsort(window, kind="stable")
        edges = np.flatnonzero(np.diff(window[by_window])) + 1  # where another window begins
        purpose = f"{self._stage}/order/{self.epoch}"
        for part in np.split(by_window, edges):
            indices: list[int] = part.tolist()
            indices.sort(key=lambda i: sample_seed(self._seed, purpose, self._sample_ids[i]))
            yield from indices


class ResumableLoader(DataLoader[Any]):
    """A loader over an `EpochSampler` that can resume in the middle of an epoch.

    `TrainingCheckpoint` stores and restores its state. Nothing is fetched before the first batch
    is asked for, when the epoch is known.
    """

    sampler: EpochSampler
    _given = 0
    _resume = (-1, 0)

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        epoch, batches = self._resume
        self._given = batches if epoch == self.sampler.epoch and batches < len(self) else 0
        self.sampler.skip_once(self._given * (self.batch_size or 1))
        self._resume = (-1, 0)
        for batch in super().__iter__():
            self._given += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Return where in which epoch the loader is.

        Returns:
            `epoch` and the number of `batches` it gave.
        """
        return {"epoch": self.sampler.epoch, "batches": self._given}

    def load_state_dict(self, state_dict: Mapping[str, int]) -> None:
        """Resume there: the first iteration over that epoch skips batches already seen.

        Args:
            state_dict: what `state_dict` returned.
        """
        self._resume = (state_dict["epoch"], state_dict["batches"])


class ProcessSettings(pl.Callback):
    """Fixes threads and log of every process of a training, spawned ones included."""

    def __init__(self, threads: int) -> None:
        """Store the number of threads.

        Args:
            threads: torch threads of each process.
        """
        self._threads = threads

    def __setstate__(self, state: dict[str, int]) -> None:
        """Apply the settings in a spawned process, before anything is logged there."""
        self.__dict__.update(state)
        silence()

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Set them.

        Args:
            trainer: unused.
            pl_module: unused.
            stage: unused.
        """
        torch.set_num_threads(self._threads)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


class SeedEachBatch(pl.Callback):
    """Seeds torch before every training batch from hash(run seed, stage, epoch, batch).

    Whatever a model draws (dropout, denoising queries) is then the same after a resume.
    """

    def __init__(self, seed: int, stage: str) -> None:
        """Store the origin of the seeds.

        Args:
            seed: the run's seed.
            stage: name of the training.
        """
        self._seed = seed
        self._stage = stage

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seed.

        Args:
            trainer: gives the epoch and the process.
            pl_module: unused.
            batch: unused.
            batch_idx: number of the batch in its epoch.
        """
        name = f"epoch-{trainer.current_epoch}/batch-{batch_idx}/rank-{trainer.global_rank}"
        seed_all(sample_seed(self._seed, f"{self._stage}/step", name))
