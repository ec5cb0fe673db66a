"""Scores predictions against a benchmark's ground truth: one image at a time, no model needed."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml.benchmarks.predictions import PredictionError
from ml.benchmarks.published import CountDifference, count_differences
from ml.benchmarks.samples import BenchmarkSample, BrokenAnnotation
from ml.benchmarks.scorers import Scorer
from ml.benchmarks.scores import RESAMPLES, Scores
from ml.benchmarks.sets import BenchmarkSet, Situation, benchmark_set
from ml.imaging.io import UnreadableImage
from ml.records import reasons
from ml.records.exclusions import Exclusions
from ml.records.progress import progress

STAGE = "benchmarks"


@dataclass(frozen=True)
class BenchmarkResult:
    """The result of one benchmark.

    Attributes:
        benchmark: the set's name.
        model: name of the predicting model.
        scores: metrics, intervals and counts under one protocol.
        excluded: reason -> how many annotations or images were left out.
        exclusions: the rows behind these numbers.
        differences: counts in which the copy of the set differs from the published one.
        scorer: the scorer, for details beyond the scores.
        num_given: images that the set's reader gave, and rows that are excluded without one.
        num_scored: images that were scored, with heads that the protocol judges or without.
    """

    benchmark: str
    model: str
    scores: Scores
    excluded: Mapping[str, int]
    exclusions: Exclusions
    differences: tuple[CountDifference, ...]
    scorer: Scorer
    num_given: int
    num_scored: int

    def as_json(self) -> dict[str, Any]:
        """Return metrics at the top level, under the names of docs/metrics.md.

        Null where not measured.
        """
        values = {
            name: value if math.isfinite(value) else None
            for name, value in self.scores.as_dict().items()
        }
        return {
            **values,
            "num_excluded": sum(self.excluded.values()),
            "set": self.benchmark,
            "protocol": self.scores.protocol,
            "model": self.model,
            "excluded": dict(self.excluded),
            "count_differences": [str(difference) for difference in self.differences],
            "notes": list(self.scores.notes),
        }


class SetCounter:
    """Adds up the counts of a set's samples."""

    def __init__(self, benchmark: BenchmarkSet) -> None:
        """Start at nothing."""
        self._benchmark = benchmark
        self._numbers: Counter[str] = Counter()
        self._kinds: dict[str, set[str]] = defaultdict(set)

    def add(self, sample: BenchmarkSample[Any]) -> None:
        """Count one sample."""
        for name, value in self._benchmark.count(sample).items():
            if isinstance(value, str):
                self._kinds[name].add(value)
            else:
                self._numbers[name] += value

    def totals(self, excluded: Mapping[str, int]) -> dict[str, int]:
        """Return all counts, those of exclusions among them.

        Args:
            excluded: reason -> number.
        """
        totals = dict(self._numbers) | {name: len(kinds) for name, kinds in self._kinds.items()}
        for reason, name in self._benchmark.excluded_counts.items():
            totals[name] = excluded.get(reason, 0)
            totals["num_annotations"] = totals.get("num_annotations", 0) + totals[name]
        return totals


def score(
    name: str,
    truth: Path,
    predictions: Path,
    protocol: str | None = None,
    head_model: Path | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> BenchmarkResult:
    """Score a file or folder of predictions.

    Args:
        name: the benchmark's name.
        truth: the set's folder; its images are not needed unless docs/benchmarks says so.
        predictions: our predictions file (.jsonl), or the format of the set's own tools.
        protocol: evaluation protocol; the set's first by default.
        head_model: the head model of the predictions, where a metric needs one.
        seed: run seed of the bootstrap.
        resamples: number of bootstrap resamples over the images.

    Returns:
        The result.

    Raises:
        ValueError: no such set or protocol, or the predictions cannot be used.
        FileNotFoundError: a file of the set is missing.
    """
    benchmark = benchmark_set(name)
    opened = benchmark.open_predictions(Path(predictions))
    model = str(getattr(opened, "model", Path(predictions).stem))
    return score_with(
        benchmark,
        Situation(Path(truth), head_model),
        lambda sample: opened.get(sample.sample_id),
        model,
        protocol,
        known=opened,
        seed=seed,
        resamples=resamples,
    )


def score_with(
    benchmark: BenchmarkSet,
    situation: Situation,
    predict: Callable[[BenchmarkSample[Any]], Any | None],
    model: str,
    protocol: str | None = None,
    known: Mapping[str, Any] | None = None,
    exclusions: Exclusions | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> BenchmarkResult:
    """Score the output of any predictor.

    Args:
        benchmark: the set.
        situation: its folder and what the scorer needs.
        predict: sample to predictions, None if there are none.
        model: name of the predicting model.
        protocol: evaluation protocol; the set's first by default.
        known: the predictions by image, if they come from a file: whatever in it belongs to no
            image of the set is counted, and a file in which nothing fits is refused.
        exclusions: receives what is left out; `predict` may add to it too.
        seed: run seed of the bootstrap.
        resamples: number of bootstrap resamples over the images.

    Returns:
        The result.

    Raises:
        ValueError: no such protocol, or the predictions cannot be used.
    """
    protocol = protocol or benchmark.protocols[0]
    if protocol not in benchmark.protocols:
        raise ValueError(
            f"{benchmark.name}: protocol must be one of {', '.join(benchmark.protocols)}, got "
            f"{protocol!r}"
        )
    exclusions = Exclusions(STAGE) if exclusions is None else exclusions
    scorer, counter = benchmark.scorer(protocol, situation), SetCounter(benchmark)
    fitting, first, num_read, num_failed = 0, "", 0, 0
    for sample in progress(benchmark.read(situation.root, exclusions), f"scoring {benchmark.name}"):
        num_read += 1
        try:
            scorer.add(sample, predict(sample))
        except (UnreadableImage, BrokenAnnotation) as error:
            unreadable = isinstance(error, UnreadableImage)
            reason = reasons.DAMAGED_IMAGE if unreadable else reasons.DAMAGED_ANNOTATION
            exclusions.add(sample.sample_id, reason, str(error))
            num_failed += 1
            continue
        fitting += known is not None and sample.sample_id in known
        first = first or sample.sample_id
        counter.add(sample)
    if known is not None and known and not fitting:
        raise PredictionError(
            f"{benchmark.name}: none of the {len(known)} predicted images is in the set; its first "
            f"image is {first!r}, the first prediction is for {next(iter(known))!r}"
        )
    scores = scorer.finish(seed, resamples)
    frame = exclusions.to_frame()
    excluded = {str(k): int(v) for k, v in frame["reason"].value_counts().sort_index().items()}
    counts = {**counter.totals(excluded), **scores.counts}
    if known is not None:
        counts |= {"num_predicted_images": fitting, "num_unknown_images": len(known) - fitting}
    return BenchmarkResult(
        benchmark.name,
        model,
        Scores(scores.protocol, scores.metrics, scores.intervals, counts, scores.notes),
        excluded,
        exclusions,
        tuple(count_differences(benchmark.name, counts)),
        scorer,
        num_read + len(exclusions) - num_failed,
        int(counter.totals({}).get("num_images", 0)),
    )
