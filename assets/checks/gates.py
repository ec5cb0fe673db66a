"""Gates on models: metrics as statistics, how many held-out images they were measured on."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd

from assets.checks.bounded import Statistics, Values, bounds_of, rows_of
from assets.checks.rules import Rule, Shelf
from assets.checks.tables import read_raw
from ml.quality import distributions as dist
from ml.quality import gates
from ml.quality.findings import findings
from ml.records.tables import TableError


@dataclass(frozen=True)
class Gate:
    """A model's metrics as statistics, and how far they can be judged.

    Attributes:
        group: section of the bounds.
        measure: computes the statistics, empty where the stage is switched off.
        held_out: number of images that the model was not trained on and is measured on; NaN where
            it is not known, which leaves the gate closed.
        sampled: statistics that say as much as these images do. The others (a loss that is no
            number, images that were not measured) are judged however few images there are.
    """

    group: str
    measure: Statistics
    held_out: Callable[[Shelf], float]
    sampled: tuple[str, ...]

    def judged(self, shelf: Shelf, shards: Sequence[str]) -> Values:
        """Return the statistics that the gate compares with their bounds."""
        values = self.measure(shelf, shards)
        # A stage that is switched off has no tables to count in.
        unjudged = self.sampled if values and self._too_few(shelf) else ()
        return {name: value for name, value in values.items() if name not in unjudged}

    def enough_to_judge(self) -> Rule:
        """Return the rule that there are enough held-out images; else it tells what was seen."""

        def find(shelf: Shelf, shards: Sequence[str]) -> pd.DataFrame:
            values = self.measure(shelf, shards)
            left = {k: v for k, v in values.items() if k in self.sampled}
            if not left or not self._too_few(shelf):
                return findings([], [])
            seen = ", ".join(f"{name} {value:.3g}" for name, value in left.items())
            least = bounds_of(shelf).min_held_out
            reason = f"fewer than {least} held-out images ({self._number(shelf):.0f}) say little"
            # Two findings: a page cuts a long one.
            return findings(["reason", "values"], [reason, f"not judged: {seen}"])

        why = "There are enough held-out images to judge the model by its metrics."
        return Rule("enough_to_judge", why, find, "warning")

    def _too_few(self, shelf: Shelf) -> bool:
        return self._number(shelf) < bounds_of(shelf).min_held_out

    def _number(self, shelf: Shelf) -> float:
        return shelf.once("held out", lambda: self.held_out(shelf))


def read_metrics(shelf: Shelf, stage: str) -> dict[str, float | None]:
    """Return a stage's metrics.

    Raises:
        TableError: there are none, or they are no JSON object.
    """
    path = shelf.ws.stage_dir(stage) / "metrics.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise TableError(f"{path}: not JSON: {error}") from error
    if not isinstance(values, dict):
        raise TableError(f"{path}: expected an object, got {type(values).__name__}")
    return values


def read_history(shelf: Shelf, stage: str) -> pd.DataFrame:
    """Return a training's curves, one row an epoch."""
    return pd.read_csv(shelf.ws.stage_dir(stage) / "history.csv")


def _test_images(shelf: Shelf, stage: str) -> int:
    """Return images of the test split that the stage did not exclude."""
    excluded = set(read_raw(shelf.ws.table_path(stage, f"{stage}.exclusions"))["sample_id"])
    number = 0
    for shard in shelf.ws.shards:
        images = read_raw(shelf.ws.table_path("images", shard))
        number += sum(
            item not in excluded for item in images[images["split"] == "test"]["sample_id"]
        )
    return number


def _head_detector(shelf: Shelf, shards: Sequence[str]) -> Values:
    """Return the metrics of the head detector."""
    history = read_history(shelf, "head_detector")
    values = gates.head_detector(read_metrics(shelf, "head_detector"), history)
    # A detector that was brought has no curve.
    return values if len(history) else {k: v for k, v in values.items() if "loss" not in k}


def _flame_regressor(shelf: Shelf, shards: Sequence[str]) -> Values:
    """Return the metrics of the crop regressor."""
    metrics = read_metrics(shelf, "flame_regressor")
    return gates.flame_regressor(metrics, read_history(shelf, "flame_regressor"))


def _annotation_quality(shelf: Shelf, shards: Sequence[str]) -> Values:
    """Return the metrics of the pseudo-labels; none where the truth is not known."""
    metrics = read_metrics(shelf, "annotation_quality")
    truth, heads = (rows_of(shelf, stage, shards) for stage in ("truth", "annotations"))
    if not len(truth):
        return {}
    test = truth[truth["split"] == "test"]
    frontal = dist.head_columns(test)["from_frontal_deg"]
    base = float(frontal.mean()) if len(frontal) else float("nan")
    return {
        **gates.annotation_quality(metrics, base, _test_images(shelf, "annotation_quality")),
        **gates.label_bias(heads, truth),
    }


def _training(stage: str) -> Statistics:
    """Return what computes the metrics of a one-pass detector; none where it is switched off."""

    def trained(shelf: Shelf, shards: Sequence[str]) -> Values:
        metrics, history = read_metrics(shelf, stage), read_history(shelf, stage)
        return gates.trained_model(metrics, history) if metrics or len(history) else {}

    return trained


def _benchmark_images(shelf: Shelf) -> int:
    """Return the images that the benchmark must have measured."""
    if any(len(read_raw(shelf.ws.table_path("truth", shard))) for shard in shelf.ws.shards):
        return _test_images(shelf, "benchmark")
    return _kept_images(shelf, "filtered_dataset", "benchmark", "test")


def _benchmark(shelf: Shelf, shards: Sequence[str]) -> Values:
    """Return the metrics of the benchmark, against ground truth or, where it is unknown, labels."""
    metrics = read_metrics(shelf, "benchmark")
    val = gates.number(read_metrics(shelf, "trained_model"), "val/ap50")
    return gates.benchmark(metrics, _benchmark_images(shelf), val)


def _released_benchmark(shelf: Shelf, shards: Sequence[str]) -> Values:
    """Return the metrics of the benchmark on an imported release; none where it is switched off."""
    metrics = read_metrics(shelf, "released_benchmark")
    if not metrics:
        return {}
    expected = _kept_images(shelf, "released_dataset", "released_benchmark", "test")
    val = gates.number(read_metrics(shelf, "released_model"), "val/ap50")
    return gates.benchmark(metrics, expected, val)


def _kept_images(shelf: Shelf, dataset: str, stage: str, split: str) -> int:
    """Return images of a split that are in a dataset and that a stage did not exclude."""
    path = shelf.ws.stage_dir(dataset) / "verdicts.parquet"
    verdicts = read_raw(path, ["sample_id", "keep", "split"])
    kept = verdicts[verdicts["keep"].astype(bool) & (verdicts["split"] == split)]
    excluded = read_raw(shelf.ws.table_path(stage, f"{stage}.exclusions"))
    return len(set(kept["sample_id"]) - set(excluded["sample_id"]))


def _told(stage: str, name: str) -> Callable[[Shelf], float]:
    """Return what reads a number of held-out images or crops from a stage's metrics."""
    return lambda shelf: gates.number(read_metrics(shelf, stage), name)


def training_gate(stage: str) -> Gate:
    """Return the gate of a one-pass detector.

    Args:
        stage: the stage that trains it.
    """
    dataset = "released_dataset" if stage.startswith("released_") else "filtered_dataset"

    def held_out(shelf: Shelf) -> float:
        return _kept_images(shelf, dataset, stage, "val")

    return Gate("trained_model", _training(stage), held_out, ("val_ap50", "val_over_train"))


_OF_BENCHMARK = (
    "ap50", "ap50_best", "rotation_gain", "nme_gain", "over_validation", "flip_differs",
    "nan_fraction",
)  # fmt: skip
HEAD_DETECTOR = Gate(
    "head_detector",
    _head_detector,
    _told("head_detector", "val_images"),
    ("ap50", "recall_max", "nan_fraction"),
)
FLAME_REGRESSOR = Gate(
    "flame_regressor",
    _flame_regressor,
    _told("flame_regressor", "num_val_crops"),
    ("rotation_gain", "nme_percent", "val_over_train"),
)
ANNOTATION_QUALITY = Gate(
    "annotation_quality",
    _annotation_quality,
    lambda shelf: _test_images(shelf, "annotation_quality"),
    # The bias is that of all labels, not of the test images alone.
    ("recall", "precision", "rotation_gain", "nme_percent", "nan_fraction"),
)
BENCHMARK = Gate("benchmark", _benchmark, _benchmark_images, _OF_BENCHMARK)
RELEASED_BENCHMARK = Gate(
    "benchmark",
    _released_benchmark,
    lambda shelf: _kept_images(shelf, "released_dataset", "released_benchmark", "test"),
    _OF_BENCHMARK,
)
