"""Error of 68 landmarks, over all heads and by yaw."""

from __future__ import annotations

import numpy as np

from ml.benchmarks.scores import RESAMPLES, Scores, failed, mean, score_heads
from ml.evaluation.metrics import nme_bbox

YAW_BINS = {"0_30": (-1.0, 30.0), "30_60": (30.0, 60.0), "60_90": (60.0, np.inf)}
"""Lower edges of |yaw| in degrees. The last bin has no upper edge, as in the public code: the set
has a few heads between 90 and 99 degrees."""
FAILURE_PERCENT = 10.0


def landmark_nme(predicted_px: np.ndarray, true_px: np.ndarray) -> np.ndarray:
    """Return the mean 2D error of the landmarks over the size of the true landmarks' box, percent.

    Args:
        predicted_px: (N, 68, 2 or more) predicted landmarks, px; NaN where the head was missed.
        true_px: (N, 68, 2 or more) true landmarks, px; depth is ignored.

    Returns:
        (N,) percent, NaN where the head was missed.

    Source: Zhu et al. 2016, "Face alignment across large poses: a 3D solution".
    """
    return nme_bbox(
        np.asarray(predicted_px, np.float64)[..., :2], np.asarray(true_px, np.float64)[..., :2]
    )


def score_landmarks(
    images: np.ndarray,
    predicted_px: np.ndarray,
    true_px: np.ndarray,
    true_yaw_deg: np.ndarray,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Scores:
    """Return NME of 68 landmarks: over all heads, in each bin of |yaw|, and the mean of the bins.

    The mean of the bins is what the literature prints; a bin without heads makes it NaN.

    Args:
        images: (N,) the image of each head.
        predicted_px: (N, 68, 2 or more) px, NaN where the head was missed.
        true_px: (N, 68, 2 or more) px.
        true_yaw_deg: (N,) degrees, of either sign.
        seed: run seed of the bootstrap.
        resamples: number of bootstrap resamples over the images.

    Returns:
        `nme_68`, `nme_68_yaw_0_30`, `nme_68_yaw_30_60`, `nme_68_yaw_60_90`, `nme_68_yaw_mean` in
        percent over the heads that were found, and `failure_rate_68`, which counts the missed; the
        counts hold the found heads of each bin too.

    Raises:
        ValueError: the arrays differ in length or are no 68 landmarks.
    """
    for name, array in (("predicted", predicted_px), ("true", true_px)):
        if array.ndim != 3 or array.shape[:2] != (len(images), 68) or array.shape[2] < 2:
            raise ValueError(
                f"landmarks: {name} must be ({len(images)}, 68, 2 or 3), got {array.shape}"
            )
    nme = landmark_nme(predicted_px, true_px)
    turned = np.abs(true_yaw_deg)
    inside = {name: (turned > low) & (turned <= high) for name, (low, high) in YAW_BINS.items()}

    def statistics(rows: np.ndarray) -> dict[str, float]:
        errors = nme[rows]
        bins = {f"nme_68_yaw_{k}": mean(errors[where[rows]]) for k, where in inside.items()}
        return {
            "nme_68": mean(errors),
            **bins,
            "nme_68_yaw_mean": float(np.mean(list(bins.values()))),
            "failure_rate_68": failed(errors, FAILURE_PERCENT),
        }

    found = np.isfinite(nme)
    scores = score_heads("68", statistics, images, found, seed=seed, resamples=resamples)
    counts = {f"num_found_yaw_{k}": int((found & where).sum()) for k, where in inside.items()}
    return Scores(
        scores.protocol, scores.metrics, scores.intervals, {**scores.counts, **counts}, scores.notes
    )
