"""The one matcher of predicted and true heads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ml.imaging.boxes import box_iou

IOU_THRESHOLD = 0.5


@dataclass(frozen=True)
class Matches:
    """Which prediction found which true head of one image.

    Attributes:
        pairs: (M, 2) int64, positions of prediction and true head.
        false_positives: positions of predictions that found nothing.
        missed: positions of true heads that nothing found; ignored heads are never missed.
        neutral: positions of predictions that found only an ignored head; they count neither way.
    """

    pairs: np.ndarray
    false_positives: np.ndarray
    missed: np.ndarray
    neutral: np.ndarray


def match_heads(
    predicted_xyxy: np.ndarray,
    scores: np.ndarray,
    true_xyxy: np.ndarray,
    ignore: np.ndarray | None = None,
    iou_threshold: float = IOU_THRESHOLD,
) -> Matches:
    """Match by overlap, the most confident prediction first, as COCO's protocol does.

    Each prediction takes the free true head it overlaps most, if by at least the threshold;
    heads that count come before ignored ones, and one ignored head may absorb many predictions.

    Args:
        predicted_xyxy: (P, 4) boxes, px.
        scores: (P,) confidences.
        true_xyxy: (T, 4) boxes, px, of the same image.
        ignore: (T,) bool, heads that are neither to be found nor to be missed; none by default.
        iou_threshold: smallest overlap of a match.

    Returns:
        The matches; false positives are in order of falling score.

    Source: COCO detection protocol (Lin et al. 2014). The official code matches with the
        Hungarian method and then miscounts; greedy matching needs no such repair.
    """
    ignore = np.zeros(len(true_xyxy), bool) if ignore is None else np.asarray(ignore, bool)
    overlaps = box_iou(predicted_xyxy.reshape(-1, 4), true_xyxy.reshape(-1, 4))  # (P, T)
    free = ~ignore
    pairs, false_positives, neutral = [], [], []
    for prediction in np.argsort(-np.asarray(scores), kind="stable"):
        counted = np.where(free, overlaps[prediction], -1.0)  # (T,)
        if counted.size and counted.max() >= iou_threshold:
            truth = int(counted.argmax())
            free[truth] = False
            pairs.append((prediction, truth))
        # Ignored heads stay available: two detections of one crowd are both neutral.
        elif (overlaps[prediction][ignore] >= iou_threshold).any():
            neutral.append(prediction)
        else:
            false_positives.append(prediction)
    return Matches(
        pairs=np.array(pairs, np.int64).reshape(-1, 2),
        false_positives=np.array(false_positives, np.int64),
        missed=np.flatnonzero(free),
        neutral=np.array(neutral, np.int64),
    )
