"""Sums over image features for FID, KID and inception score; their size is constant."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

POOL = 5000
"""Features kept for KID: 5,000 of 2,048 numbers are 41 MB."""
KID_SUBSETS, KID_SUBSET_SIZE = 100, 1000
_KERNEL_ROWS = 64
SPLITS = 10


@dataclass
class Moments:
    """Running mean and covariance of vectors, in float64.

    Attributes:
        size: length of the vectors.
        count: how many were added.
        mean: (size,).
        scatter: (size, size) sum of the products of deviations from the mean.
    """

    size: int
    count: int = 0
    mean: Array = field(init=False)
    scatter: Array = field(init=False)

    def __post_init__(self) -> None:
        self.mean = np.zeros(self.size)
        self.scatter = np.zeros((self.size, self.size))

    def add(self, vectors: np.ndarray) -> None:
        """Add (B, size) vectors.

        The batch's own moments are merged (Chan et al. 1983): sums of squares would lose the digits
        in which a covariance differs from a large mean.
        """
        vectors = np.asarray(vectors, np.float64)
        if not len(vectors):
            return
        mean = vectors.mean(axis=0)
        away = vectors - mean
        shift = mean - self.mean
        total = self.count + len(vectors)
        self.scatter += away.T @ away
        self.scatter += np.outer(shift, shift) * (self.count * len(vectors) / total)
        self.mean += shift * (len(vectors) / total)
        self.count = total

    @property
    def covariance(self) -> Array:
        """(size, size), divided by the count less one; NaN with fewer than two vectors."""
        if self.count < 2:
            return np.full((self.size, self.size), np.nan)
        return self.scatter / (self.count - 1)


def frechet_distance(first: Moments, second: Moments) -> float:
    """Return the squared Fréchet distance of two Gaussians: of features, this is FID.

    Args:
        first: moments of at least two vectors.
        second: likewise, of the same size.

    Returns:
        At least 0; NaN with fewer than two vectors.

    Source: Heusel et al. 2017, "GANs trained by a two time-scale update rule".
    """
    if min(first.count, second.count) < 2:
        return float("nan")
    a, b = first.covariance, second.covariance
    values, vectors = np.linalg.eigh(a)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    # The trace of sqrt(a b) is that of sqrt(sqrt(a) b sqrt(a)), which is symmetric and so has real
    # eigenvalues however few images there are.
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ b @ root), 0.0)).sum()
    distance = ((first.mean - second.mean) ** 2).sum() + np.trace(a) + np.trace(b) - 2 * cross
    return float(max(distance, 0.0))


@dataclass
class Reservoir:
    """An even sample of the vectors seen so far (Vitter 1985, algorithm R).

    Attributes:
        rng: seeded generator.
        capacity: largest number of vectors kept.
        seen: number of vectors added.
    """

    rng: np.random.Generator
    capacity: int = POOL
    seen: int = 0
    _kept: list[NDArray[np.float32]] = field(default_factory=list)

    def add(self, vectors: np.ndarray) -> None:
        """Add (B, size) vectors."""
        for vector in np.asarray(vectors, np.float32):
            if len(self._kept) < self.capacity:
                self._kept.append(vector.copy())
            else:
                place = int(self.rng.integers(0, self.seen + 1))
                if place < self.capacity:
                    self._kept[place] = vector.copy()
            self.seen += 1

    def vectors(self) -> NDArray[np.float32]:
        """Return what is kept, (N, size); (0, 0) if nothing was added."""
        return np.stack(self._kept) if self._kept else np.zeros((0, 0), np.float32)


def kernel_distance(
    first: np.ndarray, second: np.ndarray, rng: np.random.Generator
) -> tuple[float, float]:
    """Return KID: squared maximum mean discrepancy of subsets, kernel (x y / size + 1)^3.

    Args:
        first: (N, size) features.
        second: (M, size) features.
        rng: seeded generator that draws the subsets.

    Returns:
        Mean and standard deviation over `KID_SUBSETS` subsets of `KID_SUBSET_SIZE` vectors, or of
        all where there are fewer; the estimate is unbiased and may be below 0. NaN with fewer than
        two vectors.

    Source: Binkowski et al. 2018, "Demystifying MMD GANs".
    """
    size = min(len(first), len(second), KID_SUBSET_SIZE)
    if size < 2:
        return float("nan"), float("nan")
    values = []
    for _ in range(KID_SUBSETS):
        x = first[rng.permutation(len(first))[:size]].astype(np.float64)
        y = second[rng.permutation(len(second))[:size]].astype(np.float64)
        within = _kernel_sum(x, x) - _self_sum(x) + _kernel_sum(y, y) - _self_sum(y)
        values.append(within / (size * (size - 1)) - 2 * _kernel_sum(x, y) / size**2)
    return float(np.mean(values)), float(np.std(values))


def _kernel_sum(x: Array, y: Array) -> float:
    """Sum the kernel over all pairs, in pieces that fit the processor's cache."""
    total = 0.0
    for start in range(0, len(x), _KERNEL_ROWS):
        base = x[start : start + _KERNEL_ROWS] @ y.T
        base /= x.shape[1]
        base += 1.0
        cube = base * base
        cube *= base
        total += float(cube.sum())
    return total


def _self_sum(x: Array) -> float:
    """Sum the kernel of each vector with itself."""
    return float(((np.square(x).sum(axis=1) / x.shape[1] + 1.0) ** 3).sum())


@dataclass
class InceptionScore:
    """Running inception score over splits of equal size.

    Each ten images after another go to the ten splits in a random order, so the splits are even
    and random although the number of images is not known in advance.

    Attributes:
        rng: seeded generator.
        splits: how many.
    """

    rng: np.random.Generator
    splits: int = SPLITS
    _order: list[int] = field(default_factory=list)
    _counts: Array = field(init=False)
    _entropies: Array = field(init=False)
    _sums: Array | None = None

    def __post_init__(self) -> None:
        self._counts = np.zeros(self.splits)
        self._entropies = np.zeros(self.splits)

    def add(self, scores: np.ndarray) -> None:
        """Add (B, classes) scores of the classes before the softmax."""
        from scipy.special import log_softmax

        logs = log_softmax(np.asarray(scores, np.float64), axis=1)
        chances = np.exp(logs)
        if self._sums is None:
            self._sums = np.zeros((self.splits, scores.shape[1]))
        for chance, log in zip(chances, logs, strict=True):
            if not self._order:
                self._order = self.rng.permutation(self.splits).tolist()
            split = self._order.pop()
            self._counts[split] += 1
            self._sums[split] += chance
            self._entropies[split] += float((chance * log).sum())

    def result(self) -> tuple[float, float]:
        """Return the mean and standard deviation over the splits that have images; NaN without any.

        Source: Salimans et al. 2016, "Improved techniques for training GANs".
        """
        used = self._counts > 0
        if self._sums is None or not used.any():
            return float("nan"), float("nan")
        counts = self._counts[used]
        mean = self._sums[used] / counts[:, None]
        logs = np.log(np.maximum(mean, np.finfo(np.float64).tiny))
        divergence = self._entropies[used] / counts - (mean * logs).sum(axis=1)
        values = np.exp(divergence)
        return float(values.mean()), float(values.std(ddof=1)) if used.sum() > 1 else float("nan")
