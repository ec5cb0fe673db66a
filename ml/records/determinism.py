"""Reproducibility: fixed threads, deterministic algorithms, seeded generators."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ml.records.ids import sample_seed
from ml.records.workspace import Workspace


def prepare_torch(ws: Workspace, stage: str) -> None:
    """Fix torch's threads and seed every generator, before a model's weights are drawn.

    Args:
        ws: gives the run's seed and the number of threads (sums depend on it).
        stage: name of the training, part of the seed.
    """
    torch.set_num_threads(ws.threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Filling every new tensor guards against reading before writing; it costs more than it finds.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    seed_all(sample_seed(ws.seed, stage, "weights"))


def seed_all(seed: int) -> None:
    """Seed torch and `random`; our own code draws from generators it makes itself.

    Args:
        seed: 63-bit seed.
    """
    torch.manual_seed(seed)
    random.seed(seed)


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one thread: the order of a sum, and so its last bit, depends on their number.

    Parallelism is across shards.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Run the linear algebra of numpy and scipy on one thread, as workers do by their environment.

    Long sums are divided among threads, so their last bits would depend on the number of cores.
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1, user_api="blas"):
        yield
