"""The numbers: average precision, vertex error, rotation error, and their intervals.

Every function takes plain arrays of matched heads; `matching.py` matches them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

FAILURE_PERCENT = 5.0


def average_precision(scores: np.ndarray, correct: np.ndarray, num_true: int) -> float:
    """Return the area under the precision-recall curve at 101 levels, as pycocotools does.

    Args:
        scores: (P,) confidences of all predictions of all images that count.
        correct: (P,) bool, whether each found a true head.
        num_true: true heads that count.

    Returns:
        AP in [0, 1]; NaN when there is nothing to find.
    """
    if num_true == 0:
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(correct[order])  # (P,) true positives among the best k
    recall = hits / num_true
    precision = hits / np.arange(1, len(hits) + 1)
    # The best precision at this recall or a higher one.
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    # first prediction of each of COCO's 101 recalls
    positions = np.searchsorted(recall, np.linspace(0, 1, 101), side="left")
    # 0 where the recall is never reached
    values = np.append(envelope, 0.0)[np.minimum(positions, len(envelope))]
    return float(values.mean())


def nme_bbox(predicted_px: np.ndarray, true_px: np.ndarray) -> np.ndarray:
    """Return the mean vertex error over the size of the true head, percent.

    The size is sqrt(w * h) of the box of all the given vertices of the true head, also of those
    hidden or outside the image: the box of the visible part would make a half-hidden head look
    harder. The benchmark gives those of the region `head`, without ears, neck and eyeballs.

    Args:
        predicted_px: (N, V, 2) predicted vertices, px.
        true_px: (N, V, 2) true vertices, px.

    Returns:
        (N,) percent.

    Source: the paper's section 5.2; the official DAD script divides by sqrt(x2 * y2).
    """
    extent = true_px.max(axis=1) - true_px.min(axis=1)  # (N, 2) px
    distance = np.linalg.norm(predicted_px - true_px, axis=2).mean(axis=1)  # (N,) px
    return 100.0 * distance / np.sqrt(extent.prod(axis=1))


def aligned_error(predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Return the mean vertex error that is left after the best similarity transform, percent.

    Rotation, scale and translation are fitted to all vertices of each head, so that only shape,
    expression and jaw remain: a detector that gives every person the mean head cannot hide behind a
    good pose.

    Args:
        predicted: (N, V, 3) predicted vertices, any unit and pose.
        true: (N, V, 3) true vertices, facing along z.

    Returns:
        (N,) percent of sqrt(w * h) of the true head seen from the front; NaN where a vertex is.

    Source: Umeyama (1991), Least-squares estimation of transformation parameters.
    """
    predicted, true = predicted.astype(np.float64), true.astype(np.float64)
    error = np.full(len(true), np.nan)
    usable = np.isfinite(predicted).all(axis=(1, 2)) & np.isfinite(true).all(axis=(1, 2))
    a, b = predicted[usable], true[usable]
    a -= a.mean(axis=1, keepdims=True)
    b -= b.mean(axis=1, keepdims=True)
    # (N, 3, 3) covariance of b and a
    left, singular, right = np.linalg.svd(np.einsum("nvi,nvj->nij", b, a))
    # A reflection would fit a mirrored face; the last axis turns back instead.
    sign = np.ones_like(singular)
    sign[:, 2] = np.sign(np.linalg.det(left) * np.linalg.det(right))
    rotation = (left * sign[:, None]) @ right
    scale = (singular * sign).sum(axis=1) / (a**2).sum(axis=(1, 2))  # trace(D S) / variance of a
    fitted = scale[:, None, None] * np.einsum("nij,nvj->nvi", rotation, a)
    extent = np.ptp(b[:, :, :2], axis=1)  # (N, 2)
    distance = np.linalg.norm(fitted - b, axis=2).mean(axis=1)
    error[usable] = 100.0 * distance / np.sqrt(extent.prod(axis=1))
    return error


def component_correlation(predicted: np.ndarray, true: np.ndarray) -> float:
    """Return the mean over components of the correlation between predicted and true coefficients.

    Args:
        predicted: (N, C) coefficients of N heads.
        true: (N, C) coefficients of the same heads.

    Returns:
        Value in [-1, 1]; a predicted component that never varies counts as 0. NaN for fewer than
        three heads, or when no true component varies.
    """
    varies = np.ptp(true, axis=0) > 0 if len(true) else np.zeros(true.shape[1], bool)
    if len(true) < 3 or not varies.any():
        return float("nan")
    a = predicted[:, varies] - predicted[:, varies].mean(axis=0)
    b = true[:, varies] - true[:, varies].mean(axis=0)
    norm = np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))  # (C,)
    products = (a * b).sum(axis=0)
    return float(np.divide(products, norm, out=np.zeros_like(norm), where=norm > 0).mean())


def view_angles_deg(rotations: np.ndarray) -> np.ndarray:
    """Return from where heads are seen: pitch, yaw and roll, with yaw over the full turn.

    The yaw of `ml.flame.rotation.euler_deg_from_matrix` ends at 90 degrees: it calls a head seen
    from behind frontal, with half a turn of pitch and roll. Here yaw turns the face about the
    vertical, pitch raises it, roll leans the head about its own axis. Signs are the same.

    Args:
        rotations: (N, 3, 3) from FLAME's frame to image axes (x right, y down, z away).

    Returns:
        (N, 3) pitch in [-90, 90], yaw and roll in [-180, 180], degrees; 0 is a frontal head.
    """
    m = np.asarray(rotations, np.float64)
    facing = m[:, :, 2]  # (N, 3) FLAME's z, out of the face, in image axes
    pitch = np.arctan2(-facing[:, 1], np.hypot(facing[:, 0], facing[:, 2]))
    yaw = np.arctan2(-facing[:, 0], -facing[:, 2])
    roll = np.arctan2(m[:, 1, 0], -m[:, 1, 1])
    return np.degrees(np.stack([pitch, yaw, roll], axis=1))


def turn_deg(rotations: np.ndarray) -> np.ndarray:
    """Return how far heads are turned away from the camera about the vertical.

    Unlike the yaw of three Euler angles, which ends at 90 degrees and calls a head seen from behind
    frontal with half a turn of pitch, it runs from 0 (facing the camera) to 180 (seen from behind).

    Args:
        rotations: (N, 3, 3) from FLAME's frame to image axes (x right, y down, z away).

    Returns:
        (N,) degrees in [0, 180].
    """
    return np.abs(view_angles_deg(rotations)[:, 1])


def geodesic_deg(predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Return the angle of the rotation between two rotations, degrees.

    Args:
        predicted: (N, 3, 3) rotation matrices.
        true: (N, 3, 3) rotation matrices.

    Returns:
        (N,) degrees in [0, 180].
    """
    # (N, 3, 3) R_predicted R_true^T
    between = np.einsum("nij,nkj->nik", predicted.astype(np.float64), true.astype(np.float64))
    skew = np.stack(
        [
            between[:, 2, 1] - between[:, 1, 2],
            between[:, 0, 2] - between[:, 2, 0],
            between[:, 1, 0] - between[:, 0, 1],
        ],
        axis=1,
    )
    # atan2 keeps its precision near 0 and 180 degrees, where acos of the trace loses it.
    sine = np.linalg.norm(skew, axis=1)  # 2 sin(angle)
    cosine = np.trace(between, axis1=1, axis2=2) - 1.0  # 2 cos(angle)
    return np.degrees(np.arctan2(sine, cosine))


def angle_error_deg(predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Return the absolute difference of angles, the short way round, degrees."""
    return np.abs((predicted - true + 180.0) % 360.0 - 180.0)


def failure_rate(
    nme_percent: np.ndarray, num_missed: int, threshold_percent: float = FAILURE_PERCENT
) -> float:
    """Return the fraction of true heads that were missed or whose error passes the threshold.

    Args:
        nme_percent: (M,) errors of the heads that were found; NaN, for want of parameters, fails.
        num_missed: heads that were not found; each is a failure.
        threshold_percent: largest error that passes.

    Returns:
        Fraction in [0, 1]; NaN when there was nothing to find.
    """
    total = len(nme_percent) + num_missed
    # Not `>`: an error that is no number passes no threshold.
    failed = int((~(nme_percent <= threshold_percent)).sum()) + num_missed
    return failed / total if total else float("nan")


def nullable(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """Return metrics for metrics.json: values that are not finite become null.

    Args:
        metrics: name -> value.

    Returns:
        The same names; None for NaN and infinity, which JSON cannot carry.
    """
    return {name: value if np.isfinite(value) else None for name, value in metrics.items()}


def bootstrap_intervals(
    statistics: Callable[[np.ndarray], dict[str, float]],
    num_images: int,
    rng: np.random.Generator,
    resamples: int = 500,
    confidence: float = 0.95,
) -> dict[str, tuple[float, float]]:
    """Return the percentile intervals of metrics when the images are drawn again, with replacement.

    Images are drawn, not heads: the heads of one image are not independent.

    Args:
        statistics: takes (num_images,) int64 positions of the drawn images, gives the metrics.
        num_images: images in the benchmark.
        rng: seeded generator.
        resamples: number of bootstrap resamples.
        confidence: fraction of the draws inside an interval.

    Returns:
        Lower and upper end of each metric; NaN where no draw gives a number.
    """
    draws = rng.integers(0, max(num_images, 1), (resamples, num_images))
    values = [statistics(draw) for draw in draws]
    tail = 50.0 * (1.0 - confidence)
    intervals = {}
    for name in values[0]:
        finite = np.array([v[name] for v in values])
        finite = finite[np.isfinite(finite)]
        ends = np.percentile(finite, [tail, 100.0 - tail]) if len(finite) else [np.nan, np.nan]
        intervals[name] = (float(ends[0]), float(ends[1]))
    return intervals
