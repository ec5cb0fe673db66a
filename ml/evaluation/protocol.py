"""One protocol for every benchmark: predict heads, match them to the ground truth, count.

A benchmark yields samples with ground truth; a predictor turns images into `Heads`; `evaluate`
matches and measures. Missed heads count. Every metric carries its sample count and an interval.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import pandas as pd

from ml.evaluation.metrics import (
    aligned_error,
    angle_error_deg,
    average_precision,
    bootstrap_intervals,
    component_correlation,
    failure_rate,
    geodesic_deg,
    nme_bbox,
    turn_deg,
)
from ml.flame.geometry import HeadGeometry
from ml.flame.params import EXPRESSION, SHAPE
from ml.imaging.boxes import box_area
from ml.imaging.matching import match_heads
from ml.records.heads import OPERATING_SCORE, Heads

ANGLES = ("pitch", "yaw", "roll")
LEADING = 10
"""Number of shape and of expression components whose correlation is reported."""
# Predictions under this confidence enter the average precision but no other metric: they are not
# what a user would be shown.


class Predictor(Protocol):
    """Anything that finds heads in images."""

    def predict(self, images_rgb: Sequence[np.ndarray]) -> list[Heads]:
        """Find the heads of each image.

        Args:
            images_rgb: (H, W, 3) uint8 RGB images of any sizes.

        Returns:
            The heads of each image, in that image's pixels.
        """
        ...


@dataclass(frozen=True)
class EvaluationSample:
    """One image and its true heads.

    Attributes:
        sample_id: the image's id.
        image: (H, W, 3) uint8 RGB, or a function that reads it: a benchmark may exceed memory.
        heads: true heads, image px.
        ignore: (N,) bool, heads too hidden, cut off or small to be asked for.
        attributes: one row a true head; columns to group the errors by.
    """

    sample_id: str
    image: np.ndarray | Callable[[], np.ndarray]
    heads: Heads
    ignore: np.ndarray
    attributes: pd.DataFrame = field(default_factory=pd.DataFrame)

    @property
    def image_rgb(self) -> np.ndarray:
        """Return the image, (H, W, 3) uint8 RGB."""
        return self.image() if callable(self.image) else self.image


@dataclass(frozen=True)
class Evaluation:
    """Matched predictions of a whole benchmark.

    Attributes:
        predictions: one row a prediction that counts: image, score, correct.
        pairs: one row a found head: image, prediction, truth, errors and attributes.
        num_true: (images,) true heads that count.
        num_missed: (images,) of those, not found at the operating score.
        num_ignored: ignored true heads.
        annotated: (images,) predictions at the operating score that count.
        coefficients: (pairs, 2, 2 * LEADING) leading shape and expression coefficients of each
            pair, predicted and true.
        asked: one row a true head that counts: image, truth, found, turn_deg, size_px, people (the
            image's heads that count) and attributes.
    """

    predictions: pd.DataFrame
    pairs: pd.DataFrame
    num_true: np.ndarray
    num_missed: np.ndarray
    num_ignored: int
    annotated: np.ndarray
    coefficients: np.ndarray
    asked: pd.DataFrame = field(default_factory=pd.DataFrame)

    @property
    def num_images(self) -> int:
        """Images in the benchmark."""
        return len(self.num_true)

    @property
    def flawless(self) -> np.ndarray:
        """(images,) bool: every head is found and nothing else is taken for one."""
        return (self.num_missed == 0) & (self.annotated == self.num_true)

    def metrics(self) -> dict[str, float]:
        """Return all metrics of the benchmark; see docs/metrics.md for each definition."""
        metrics = _metrics(
            self.predictions, self.pairs, self.num_true, self.num_missed, self.annotated
        )
        # Not resampled: a correlation over the few distinct heads of a draw is unreliable.
        predicted, true = self.coefficients[:, 0], self.coefficients[:, 1]
        for name, part in (("shape", slice(LEADING)), ("expression", slice(LEADING, None))):
            metrics[f"{name}_correlation"] = component_correlation(
                predicted[:, part], true[:, part]
            )
        return metrics

    def intervals(
        self, rng: np.random.Generator, resamples: int = 500
    ) -> dict[str, tuple[float, float]]:
        """Return 95 % bootstrap intervals of all metrics.

        Args:
            rng: seeded generator.
            resamples: number of bootstrap resamples over the images.
        """
        prediction_rows = _by_image(self.predictions, self.num_images)
        pair_rows = _by_image(self.pairs, self.num_images)

        def statistics(draw: np.ndarray) -> dict[str, float]:
            return _metrics(
                self.predictions.iloc[np.concatenate([prediction_rows[i] for i in draw])],
                self.pairs.iloc[np.concatenate([pair_rows[i] for i in draw])],
                self.num_true[draw],
                self.num_missed[draw],
                self.annotated[draw],
            )

        return bootstrap_intervals(statistics, self.num_images, rng, resamples)


def evaluate(
    predictions: Sequence[Heads],
    samples: Sequence[EvaluationSample],
    geometry: HeadGeometry,
    operating_score: float = OPERATING_SCORE,
) -> Evaluation:
    """Match predictions to the truth and measure every found head.

    Args:
        predictions: heads of each sample, in the order of `samples`.
        samples: images with their true heads.
        geometry: turns parameters into vertices, rotations and angles.
        operating_score: confidence from which a prediction counts outside average precision.

    Returns:
        The matched benchmark.

    Raises:
        ValueError: the numbers of predictions and samples differ.
    """
    if len(predictions) != len(samples):
        raise ValueError(f"evaluate: {len(predictions)} predictions for {len(samples)} samples")
    all_predictions, all_pairs, num_true, num_missed, annotated = [], [], [], [], []
    asked = []
    coefficients = [np.zeros((0, 2, 2 * LEADING))]
    for index, (heads, sample) in enumerate(zip(predictions, samples, strict=True)):
        matches = match_heads(
            heads.boxes_xyxy, heads.scores, sample.heads.boxes_xyxy, sample.ignore
        )
        counted = np.concatenate([matches.pairs[:, 0], matches.false_positives])
        correct = np.arange(len(counted)) < len(matches.pairs)
        scores = heads.scores[counted]
        all_predictions.append(pd.DataFrame({"image": index, "score": scores, "correct": correct}))
        shown = matches.pairs[heads.scores[matches.pairs[:, 0]] >= operating_score]
        all_pairs.append(_measure(index, heads, sample, shown, geometry))
        asked.append(_asked(index, sample, shown[:, 1], geometry))
        coefficients.append(
            np.stack([_leading(heads[shown[:, 0]]), _leading(sample.heads[shown[:, 1]])], axis=1)
        )
        num_true.append(int((~sample.ignore).sum()))
        num_missed.append(num_true[-1] - len(shown))
        annotated.append(int((scores >= operating_score).sum()))
    return Evaluation(
        predictions=pd.concat(all_predictions, ignore_index=True),
        pairs=pd.concat(all_pairs, ignore_index=True),
        num_true=np.array(num_true),
        num_missed=np.array(num_missed),
        num_ignored=int(sum(sample.ignore.sum() for sample in samples)),
        annotated=np.array(annotated),
        coefficients=np.concatenate(coefficients),
        asked=pd.concat(asked, ignore_index=True),
    )


def join_evaluations(parts: Sequence[Evaluation]) -> Evaluation:
    """Join evaluations of consecutive images into one.

    Args:
        parts: at least one, in the order of their images.

    Returns:
        What `evaluate` returns for all of these images at once.
    """
    firsts = np.cumsum([0, *(part.num_images for part in parts)])

    def table(frames: Iterable[pd.DataFrame]) -> pd.DataFrame:
        numbered = (
            frame.assign(image=frame["image"] + first)
            for frame, first in zip(frames, firsts, strict=False)
        )
        return pd.concat(numbered, ignore_index=True)

    return Evaluation(
        predictions=table(part.predictions for part in parts),
        pairs=table(part.pairs for part in parts),
        num_true=np.concatenate([part.num_true for part in parts]),
        num_missed=np.concatenate([part.num_missed for part in parts]),
        num_ignored=sum(part.num_ignored for part in parts),
        annotated=np.concatenate([part.annotated for part in parts]),
        coefficients=np.concatenate([part.coefficients for part in parts]),
        asked=table(part.asked for part in parts),
    )


def _leading(heads: Heads) -> np.ndarray:
    """Return the first shape and expression coefficients, (N, 2 * LEADING) float64."""
    parts = [heads.flame[:, part][:, :LEADING] for part in (SHAPE, EXPRESSION)]
    return np.concatenate(parts, axis=1).astype(np.float64)


def _measure(
    index: int, heads: Heads, sample: EvaluationSample, shown: np.ndarray, geometry: HeadGeometry
) -> pd.DataFrame:
    predicted, true = heads[shown[:, 0]], sample.heads[shown[:, 1]]
    columns: dict[str, object] = {
        "image": index,
        "prediction": shown[:, 0],
        "truth": shown[:, 1],
        "nme_bbox": nme_bbox(
            geometry.vertices_px(predicted.flame), geometry.vertices_px(true.flame)
        ),
        "nme_aligned": aligned_error(
            geometry.canonical_vertices(predicted.flame), geometry.canonical_vertices(true.flame)
        ),
        "rotation_deg": geodesic_deg(
            geometry.rotations(predicted.flame), geometry.rotations(true.flame)
        ),
    }
    predicted_angles, true_angles = (geometry.euler_deg(h.flame) for h in (predicted, true))
    for axis, name in enumerate(ANGLES):
        columns[f"{name}_deg"] = angle_error_deg(predicted_angles[:, axis], true_angles[:, axis])
    frame = pd.DataFrame(columns, index=range(len(shown)))
    return pd.concat([frame, _described(sample, shown[:, 1], geometry)], axis=1)


def _asked(
    index: int, sample: EvaluationSample, found: np.ndarray, geometry: HeadGeometry
) -> pd.DataFrame:
    """Return the true heads of an image that count, whether found or not."""
    heads = np.flatnonzero(~sample.ignore)
    columns = {"image": index, "truth": heads, "found": np.isin(heads, found)}
    frame = pd.DataFrame(columns, index=range(len(heads)))
    return pd.concat([frame, _described(sample, heads, geometry)], axis=1)


def _described(sample: EvaluationSample, heads: np.ndarray, geometry: HeadGeometry) -> pd.DataFrame:
    """Return what some true heads are like: the columns that errors are grouped by."""
    true = sample.heads[heads]
    frame = pd.DataFrame(
        {
            "turn_deg": turn_deg(geometry.rotations(true.flame)),
            "size_px": np.sqrt(box_area(true.boxes_xyxy)),
            "people": int((~sample.ignore).sum()),
        },
        index=range(len(heads)),
    )
    return pd.concat([frame, sample.attributes.iloc[heads].reset_index(drop=True)], axis=1)


def _metrics(
    predictions: pd.DataFrame,
    pairs: pd.DataFrame,
    num_true: np.ndarray,
    num_missed: np.ndarray,
    annotated: np.ndarray,
) -> dict[str, float]:
    total, missed, shown = int(num_true.sum()), int(num_missed.sum()), int(annotated.sum())
    nme = pairs["nme_bbox"].to_numpy()
    metrics = {
        "ap50": average_precision(
            predictions["score"].to_numpy(), predictions["correct"].to_numpy(bool), total
        ),
        "recall": (total - missed) / total if total else float("nan"),
        "precision": (total - missed) / shown if shown else float("nan"),
        "nme_bbox": _mean(nme),
        "nme_bbox_median": _median(nme),
        "nme_aligned": _mean(pairs["nme_aligned"].to_numpy()),
        "rotation_deg": _mean(pairs["rotation_deg"].to_numpy()),
        "rotation_median_deg": _median(pairs["rotation_deg"].to_numpy()),
        "rotation_over_90": float((pairs["rotation_deg"] > 90).sum()),
        "failure_rate": failure_rate(nme, missed),
        "failure_rate_10": failure_rate(nme, missed, 10.0),
        "num_heads": float(total),
        "num_missed": float(missed),
    }
    angles = [_mean(pairs[f"{name}_deg"].to_numpy()) for name in ANGLES]
    metrics |= {f"{name}_mae_deg": value for name, value in zip(ANGLES, angles, strict=True)}
    metrics["euler_mae_deg"] = float(np.mean(angles))
    return metrics


def _by_image(frame: pd.DataFrame, num_images: int) -> list[np.ndarray]:
    """Return the row numbers of each image; rows are in the order of the images."""
    firsts = np.searchsorted(frame["image"].to_numpy(), np.arange(1, num_images))
    return np.split(np.arange(len(frame)), firsts)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _median(values: np.ndarray) -> float:
    return float(np.median(values)) if len(values) else float("nan")
