"""FDDB's own metrics: discrete and continuous ROC over rasterised regions.

As the official tool counts: regions are drawn on the image with whole-pixel centres and radii, an
overlap is a ratio of pixel counts, and at each distinct score the detections and ellipses of an
image are assigned so that the sum of overlaps is largest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from scipy.optimize import linear_sum_assignment

from ml.benchmarks.predictions import PredictionError
from ml.benchmarks.samples import BrokenAnnotation
from ml.benchmarks.scores import RESAMPLES, Scores
from ml.evaluation.metrics import bootstrap_intervals
from ml.records.ids import sample_rng
from ml.records.limits import MAX_IMAGE_PIXELS

PROTOCOL = "fddb"
DISCRETE_IOU = 0.5
#: Larger than any image; larger coordinates would overflow when drawn.
_FARTHEST_PX = 1_000_000
FALSE_POSITIVES = (100, 500, 1000, 2000)


def region_overlaps(
    boxes_xyxy: np.ndarray, ellipses: np.ndarray, size_hw: tuple[int, int] | None = None
) -> np.ndarray:
    """Return overlaps of rectangles with ellipses by pixel counts, as FDDB's tool draws them.

    Args:
        boxes_xyxy: (D, 4) detections, px; both corners belong to the rectangle.
        ellipses: (F, 5) half axes (px), angle (rad), centre (px).
        size_hw: the image's size, where regions end; None: unbounded to the right and below.

    Returns:
        (D, F) intersection over union.

    Raises:
        BrokenAnnotation: an ellipse reaches impossibly far.
    """
    low = np.rint(boxes_xyxy[:, :2]).clip(0)
    high = np.rint(boxes_xyxy[:, 2:])
    height, width = _canvas(ellipses, size_hw, BrokenAnnotation)
    if size_hw:
        high = np.minimum(high, [width - 1, height - 1])
    areas = (high - low + 1).clip(0).prod(axis=1)
    # corners of the rectangles in a table of sums, on whose right and lower border they end
    left, top = np.minimum(low, [width, height]).astype(np.int64).T
    right, bottom = np.minimum(high + 1, [width, height]).clip(0).astype(np.int64).T
    right, bottom = np.maximum(right, left), np.maximum(bottom, top)
    overlaps = np.zeros((len(boxes_xyxy), len(ellipses)))
    for column, ellipse in enumerate(ellipses):
        sums = cv2.integral(_drawn(ellipse, height, width)).astype(np.int64)
        common = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
        union = areas + sums[-1, -1] - common
        overlaps[:, column] = common / np.maximum(union, 1)
    return overlaps


def ellipse_overlaps(
    detected: np.ndarray, ellipses: np.ndarray, size_hw: tuple[int, int] | None = None
) -> np.ndarray:
    """Return overlaps of detected ellipses with true ones; both are drawn alike.

    Args:
        detected: (D, 5) half axes (px), angle (rad), centre (px).
        ellipses: (F, 5) likewise.
        size_hw: the image's size, where regions end; None: unbounded to the right and below.

    Returns:
        (D, F) intersection over union.

    Raises:
        BrokenAnnotation: a true ellipse reaches impossibly far.
        PredictionError: a detected one does.
    """
    sizes = (
        _canvas(ellipses, size_hw, BrokenAnnotation),
        _canvas(detected, size_hw, PredictionError),
    )
    height, width = (max(side) for side in zip(*sizes, strict=True))
    true = [_Region.of(_drawn(one, height, width)) for one in ellipses]
    overlaps = np.zeros((len(detected), len(ellipses)))
    for row, ellipse in enumerate(detected):
        own = _Region.of(_drawn(ellipse, height, width))
        for column, other in enumerate(true):
            common = own.common(other)
            overlaps[row, column] = common / max(own.area + other.area - common, 1)
    return overlaps


@dataclass(frozen=True)
class _Region:
    """A drawn region: its mask, cropped to its bounding rectangle, and the rectangle's position."""

    mask: np.ndarray
    left: int
    top: int
    area: int

    @classmethod
    def of(cls, mask: np.ndarray) -> _Region:
        """Cut a mask of the whole image."""
        left, top, width, height = cv2.boundingRect(mask)
        cut = mask[top : top + height, left : left + width].copy()
        return cls(cut, left, top, int(cut.sum(dtype=np.int64)))

    def common(self, other: _Region) -> int:
        """Count the pixels in both."""
        left, top = max(self.left, other.left), max(self.top, other.top)
        right, bottom = (
            min(self.left + self.mask.shape[1], other.left + other.mask.shape[1]),
            min(self.top + self.mask.shape[0], other.top + other.mask.shape[0]),
        )
        if right <= left or bottom <= top:
            return 0
        own, its = (
            one.mask[top - one.top : bottom - one.top, left - one.left : right - one.left]
            for one in (self, other)
        )
        return int((own & its).sum(dtype=np.int64))


def _drawn(ellipse: np.ndarray, height: int, width: int) -> np.ndarray:
    """(H, W) uint8, 1 inside: whole radii, a whole centre."""
    a, b, angle, x, y = (float(value) for value in ellipse)
    mask = np.zeros((height, width), np.uint8)
    centre = (round(x), round(y))
    cv2.ellipse(mask, centre, (int(a), int(b)), float(np.degrees(angle)), 0, 360, 1, -1)
    return mask


def _canvas(
    ellipses: np.ndarray, size_hw: tuple[int, int] | None, error: type[ValueError]
) -> tuple[int, int]:
    """Return the canvas size: the image's, or one that holds all ellipses to the right and below.

    Raises:
        ValueError: of the given type; an ellipse reaches impossibly far.
    """
    if not len(ellipses):
        return size_hw or (1, 1)
    axes = ellipses[:, :2].max(axis=1, keepdims=True)
    far = float((np.abs(ellipses[:, 3:5]) + axes).max())
    width, height = (int(side) for side in (ellipses[:, 3:5] + axes + 2).max(axis=0).clip(1))
    if far > _FARTHEST_PX or (size_hw is None and height * width > MAX_IMAGE_PIXELS):
        raise error(f"an ellipse reaches {far:.0f} px far: {ellipses.tolist()}")
    return size_hw or (height, width)


@dataclass(frozen=True)
class ScoreSteps:
    """Changes in one image as the threshold falls past each of its distinct scores.

    Attributes:
        scores: (K,) falling.
        detections: (K,) number of additional detections.
        discrete: (K,) change of the number of faces found.
        continuous: (K,) change of the sum of overlaps.
    """

    scores: np.ndarray
    detections: np.ndarray
    discrete: np.ndarray
    continuous: np.ndarray


def score_steps(scores: np.ndarray, overlaps: np.ndarray) -> ScoreSteps:
    """Assign detections to ellipses at each distinct score of an image.

    Args:
        scores: (D,) confidences.
        overlaps: (D, F) of detections with ellipses.

    Returns:
        The steps. A detection that overlaps nothing cannot change the assignment and is skipped.
    """
    order = np.argsort(-scores, kind="stable")
    ranked, overlaps = scores[order], overlaps[order]
    starts = np.flatnonzero(np.diff(ranked, prepend=np.inf))
    ends = np.append(starts[1:], len(ranked))[: len(starts)]
    touching = np.asarray((overlaps > 0).any(axis=1))
    found, summed = np.zeros(len(starts)), np.zeros(len(starts))
    for step, (start, end) in enumerate(zip(starts, ends, strict=True)):
        if touching[start:end].any():
            chosen = overlaps[:end][touching[:end]]
            values = chosen[linear_sum_assignment(chosen, maximize=True)]
            found[step], summed[step] = (values > DISCRETE_IOU).sum(), values.sum()
        elif step:
            found[step], summed[step] = found[step - 1], summed[step - 1]
    return ScoreSteps(
        ranked[starts], ends - starts, np.diff(found, prepend=0), np.diff(summed, prepend=0)
    )


@dataclass(frozen=True)
class RocCurves:
    """FDDB's two curves.

    Attributes:
        thresholds: (K,) distinct scores, falling.
        false_positives: (K,) detections that found no face, discretely counted.
        discrete: (K,) true positive rate, a face is found if its overlap is over one half.
        continuous: (K,) true positive rate, a face is found as much as it is overlapped.
    """

    thresholds: np.ndarray
    false_positives: np.ndarray
    discrete: np.ndarray
    continuous: np.ndarray

    def lines(self, kind: str) -> list[str]:
        """Return rows of the official tool's files: `TPR FP threshold` if discrete or `TPR FP`."""
        if kind == "discrete":
            return [
                f"{rate:.6f} {count:.0f} {threshold:g}"
                for rate, count, threshold in zip(
                    self.discrete, self.false_positives, self.thresholds, strict=True
                )
            ]
        pairs = zip(self.continuous, self.false_positives, strict=True)
        return [f"{rate:.6f} {count:.0f}" for rate, count in pairs]


class FddbEvaluation:
    """Steps of all images; curves of any bootstrap draw follow from them."""

    def __init__(self, steps: Sequence[ScoreSteps], num_faces: np.ndarray) -> None:
        """Sort all images' steps by score.

        Args:
            steps: those of each image.
            num_faces: (images,) true faces.
        """
        self.num_faces = np.asarray(num_faces, np.int64)
        image = np.repeat(np.arange(len(steps)), [len(s.scores) for s in steps])
        empty = [np.zeros(0)]
        scores = np.concatenate([s.scores for s in steps] or empty)
        order = np.argsort(-scores, kind="stable")
        self._image, self._scores = image[order], scores[order]
        self._detections, self._discrete, self._continuous = (
            np.concatenate([getattr(s, name) for s in steps] or empty)[order]
            for name in ("detections", "discrete", "continuous")
        )
        self._last = np.flatnonzero(np.diff(self._scores, append=-np.inf))

    def curves(self, weights: np.ndarray | None = None) -> RocCurves:
        """Return the curves for given multiplicities of the images.

        Once by default.
        """
        weights = np.ones(len(self.num_faces)) if weights is None else weights
        faces = max(float(weights @ self.num_faces), 1.0)
        drawn = weights[self._image]
        detections, discrete, continuous = (
            np.cumsum(values * drawn)[self._last]
            for values in (self._detections, self._discrete, self._continuous)
        )
        return RocCurves(
            self._scores[self._last], detections - discrete, discrete / faces, continuous / faces
        )

    def metrics(self, weights: np.ndarray | None = None) -> dict[str, float]:
        """Return true positive rates at given numbers of false positives; see docs/metrics.md."""
        curves = self.curves(weights)
        metrics = {}
        for kind, rates in (("disc", curves.discrete), ("cont", curves.continuous)):
            metrics[f"{kind}_tpr"] = float(rates[-1]) if len(rates) else 0.0
            for most in FALSE_POSITIVES:
                within = rates[curves.false_positives <= most]
                metrics[f"{kind}_tpr_fp{most}"] = float(within.max(initial=0.0))
        return metrics


def score_fddb(
    steps: Sequence[ScoreSteps], num_faces: Sequence[int], seed: int = 0, resamples: int = RESAMPLES
) -> tuple[Scores, RocCurves]:
    """Return FDDB's metrics of all images.

    Args:
        steps: those of each image.
        num_faces: true faces of each image.
        seed: run seed of the bootstrap.
        resamples: number of bootstrap resamples over the images.

    Returns:
        The scores with intervals and counts, and the curves.
    """
    evaluation = FddbEvaluation(steps, np.asarray(num_faces))
    images = len(evaluation.num_faces)
    curves = evaluation.curves()
    total = int(evaluation.num_faces.sum())
    found = round(curves.discrete[-1] * total) if len(curves.discrete) else 0
    false = int(curves.false_positives[-1]) if len(curves.discrete) else 0
    scores = Scores(
        PROTOCOL,
        evaluation.metrics(),
        bootstrap_intervals(
            lambda draw: evaluation.metrics(np.bincount(draw, minlength=images).astype(float)),
            images,
            sample_rng(seed, "benchmarks", PROTOCOL),
            resamples,
        ),
        {
            "num_images": images,
            "num_faces": total,
            "num_missed": total - found,
            "num_false_positives": false,
        },
    )
    return scores, curves
