"""Scores of a benchmark under one protocol: metrics by name, their intervals, and counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from ml.evaluation.metrics import bootstrap_intervals
from ml.records.ids import sample_rng

RESAMPLES = 500

Statistics = Callable[[np.ndarray], dict[str, float]]


@dataclass(frozen=True)
class Scores:
    """Metrics of one benchmark under one protocol.

    Attributes:
        protocol: whose rules were followed; see docs/metrics.md.
        metrics: metric name -> value, NaN where there was nothing to measure.
        intervals: metric name -> lower and upper end of its 95 % bootstrap interval.
        counts: num_images, num_heads, num_found, num_missed and further counts of the protocol.
        notes: remarks on the numbers.
    """

    protocol: str
    metrics: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, float]:
        """Return one flat mapping: metrics, `<name>_low` and `<name>_high`, counts."""
        ends = {
            f"{name}_{end}": value
            for name, interval in self.intervals.items()
            for end, value in zip(("low", "high"), interval, strict=True)
        }
        return {**self.metrics, **ends, **{k: float(v) for k, v in self.counts.items()}}


def score_heads(
    protocol: str,
    statistics: Statistics,
    images: np.ndarray,
    found: np.ndarray,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    notes: tuple[str, ...] = (),
) -> Scores:
    """Return metrics of a benchmark's heads, with intervals over its images.

    Args:
        protocol: whose rules `statistics` follows.
        statistics: takes positions of heads, repeated where an image was drawn twice, and gives the
            metrics of these heads.
        images: (N,) the image of each true head, any numbers.
        found: (N,) bool, whether the head was predicted.
        seed: run seed of the bootstrap.
        resamples: number of bootstrap resamples over the images.
        notes: remarks for the reader.

    Returns:
        The scores of all heads in the order given.

    Raises:
        ValueError: `images` and `found` differ in length.
    """
    found = np.asarray(found, bool)
    if len(images) != len(found):
        raise ValueError(f"{protocol}: {len(images)} images for {len(found)} heads, expected equal")
    _, position = np.unique(images, return_inverse=True)
    order = np.argsort(position, kind="stable")
    bounds = np.append(np.flatnonzero(np.diff(position[order], prepend=-1)), len(order))
    num_images = len(bounds) - 1
    single = num_images == len(order)

    def drawn(draw: np.ndarray) -> dict[str, float]:
        if single:
            return statistics(order[draw])
        parts = [order[bounds[i] : bounds[i + 1]] for i in draw]
        return statistics(np.concatenate(parts) if parts else order[:0])

    return Scores(
        protocol=protocol,
        metrics=statistics(np.arange(len(found))),
        intervals=bootstrap_intervals(
            drawn, num_images, sample_rng(seed, "benchmarks", protocol), resamples
        ),
        counts={
            "num_images": num_images,
            "num_heads": len(found),
            "num_found": int(found.sum()),
            "num_missed": int((~found).sum()),
        },
        notes=notes,
    )


def mean(values: np.ndarray) -> float:
    """Return the mean without NaN rows; NaN if no row is left."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else float("nan")


def median(values: np.ndarray) -> float:
    """Return the median without NaN rows; NaN if no row is left."""
    values = values[~np.isnan(values)]
    return float(np.median(values)) if len(values) else float("nan")


def failed(errors: np.ndarray, threshold: float) -> float:
    """Return the fraction of errors over a threshold; NaN, a missed head, counts as over it.

    Args:
        errors: (N,) errors, NaN where a head was missed.
        threshold: largest error that passes.

    Returns:
        Fraction in [0, 1]; NaN when there are no heads.
    """
    return float(1.0 - (errors <= threshold).mean()) if len(errors) else float("nan")
