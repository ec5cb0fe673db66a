"""Names of shards, and the seeds and fractions derived from a sample's name."""

from __future__ import annotations

import hashlib

import numpy as np


def shard_name(index: int, prefix: str = "shard") -> str:
    """Return the name of a shard, sorted as text in the order of its number: `shard-00007`."""
    return f"{prefix}-{index:05d}"


def sample_seed(run_seed: int, stage: str, sample_id: str) -> int:
    """Return a 63-bit seed that depends on nothing but its three arguments.

    No worker, order or retry can change it, which is what makes shards reproducible.

    Args:
        run_seed: the run's seed, `run.seed` in params.yaml.
        stage: the stage's name.
        sample_id: the sample's id, or any text that names the random draw.
    """
    digest = hashlib.sha256(f"{run_seed}/{stage}/{sample_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def sample_rng(run_seed: int, stage: str, sample_id: str) -> np.random.Generator:
    """Return a generator seeded by `sample_seed`."""
    return np.random.Generator(np.random.PCG64(sample_seed(run_seed, stage, sample_id)))


def stable_fraction(key: str) -> float:
    """Return a number in [0, 1), uniform over keys, always the same for a key."""
    digest = hashlib.sha256(key.encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
