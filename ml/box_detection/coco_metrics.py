"""Average precision by the public reference tool, and metrics at a score threshold."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ml.box_detection.base import Boxes, Scores
from ml.imaging.boxes import xywh_to_xyxy, xyxy_to_xywh
from ml.imaging.matching import match_heads
from ml.labels.coco import HEAD_CATEGORY_ID, CocoDataset, to_coco_dict

MAX_DETECTIONS = 100
_STATISTICS = {
    "ap50_95": 0,
    "ap50": 1,
    "ap75": 2,
    "ap50_95_small": 3,
    "ap50_95_medium": 4,
    "ap50_95_large": 5,
    "recall_max": 8,
}


def average_precision(
    truth: CocoDataset, detections: Sequence[tuple[Boxes, Scores]]
) -> dict[str, float]:
    """Return COCO's average precision and recall.

    Args:
        truth: labelled images; boxes marked ignore count neither as found nor as missed.
        detections: (N, 4) xyxy image px and (N,) scores for each image, in the order of `truth`.

    Returns:
        `ap50`, `ap50_95`, `ap75`, `ap50_95_small|medium|large` (areas below 32^2, below 96^2,
        and above, px^2) and `recall_max` (at most 100 detections); a metric without any labelled
        head of its kind is left out.

    Raises:
        ValueError: not one entry of detections for each image.
    """
    _check_lengths(truth, detections)
    evaluation = run_coco(to_coco_dict(truth), _as_results(truth, detections))
    # The tool reports by printing.
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.summarize()
    values = {name: float(evaluation.stats[index]) for name, index in _STATISTICS.items()}
    # COCOeval writes -1 where there is nothing to find.
    return {name: value for name, value in values.items() if value >= 0}


def operating_point(
    truth: CocoDataset,
    detections: Sequence[tuple[Boxes, Scores]],
    threshold: float,
    iou: float = 0.5,
) -> dict[str, float]:
    """Return precision, recall and counts at one score threshold.

    Greedy matching, best score first. A detection that matches no head but overlaps an ignored one
    is neither right nor wrong.

    Args:
        truth: labelled images.
        detections: as in `average_precision`.
        threshold: lowest score that counts as a head.
        iou: smallest overlap of a match.

    Returns:
        `precision`, `recall`, and `count_correct`: the fraction of images in which as many heads
        are found as are labelled.

    Raises:
        ValueError: not one entry of detections for each image.
    """
    _check_lengths(truth, detections)
    right = wrong = heads = equal = 0
    for image, (boxes, scores) in zip(truth.images, detections, strict=True):
        labels = truth.boxes_of(image.image_id)
        strong = scores >= threshold
        found = match_heads(
            boxes[strong].astype(np.float32),
            scores[strong],
            xywh_to_xyxy(
                np.array([label.bbox_xywh for label in labels], np.float32).reshape(-1, 4)
            ),
            np.array([label.ignore for label in labels], bool),
            iou,
        )
        right += len(found.pairs)
        wrong += len(found.false_positives)
        num_true = sum(not label.ignore for label in labels)
        heads += num_true
        equal += len(found.pairs) + len(found.false_positives) == num_true
    return {
        "precision": right / max(right + wrong, 1),
        "recall": right / max(heads, 1),
        "count_correct": equal / max(len(truth.images), 1),
    }


def _as_results(
    truth: CocoDataset, detections: Sequence[tuple[Boxes, Scores]]
) -> list[dict[str, object]]:
    return [
        {
            "image_id": image.image_id,
            "category_id": HEAD_CATEGORY_ID,
            "bbox": [float(value) for value in box],
            "score": float(score),
        }
        for image, (boxes, scores) in zip(truth.images, detections, strict=True)
        for box, score in zip(xyxy_to_xywh(boxes), scores, strict=True)
    ]


def run_coco(
    truth: Mapping[str, Any],
    results: Sequence[Mapping[str, Any]],
    max_detections: int = MAX_DETECTIONS,
    every_size: bool = True,
) -> COCOeval:
    """Match and accumulate boxes with COCO's reference tool.

    Args:
        truth: COCO's dictionary: images, categories, annotations with bbox xywh, area, iscrowd.
        results: image_id, category_id, bbox xywh and score of each detection.
        max_detections: the best so many of each image count.
        every_size: measure small, medium and large boxes apart too, in four times the time.

    Returns:
        The tool's state after `accumulate`: `evalImgs` and `eval`.
    """
    # The tool reports by printing.
    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO()
        reference.dataset = dict(truth)
        reference.createIndex()
        evaluation = COCOeval(reference, _loaded(reference, results), "bbox")
        evaluation.params.maxDets = [1, 10, max_detections]
        if not every_size:
            evaluation.params.areaRng = evaluation.params.areaRng[:1]
            evaluation.params.areaRngLbl = evaluation.params.areaRngLbl[:1]
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def _loaded(reference: COCO, results: Sequence[Mapping[str, object]]) -> COCO:
    """Return `loadRes` refuses an empty list, although a detector may well find nothing."""
    if results:
        return reference.loadRes(list(results))
    empty = COCO()
    empty.dataset = {**reference.dataset, "annotations": []}
    empty.createIndex()
    return empty


def _check_lengths(truth: CocoDataset, detections: Sequence[tuple[Boxes, Scores]]) -> None:
    if len(detections) != len(truth.images):
        raise ValueError(
            f"average precision: expected detections for {len(truth.images)} images, got "
            f"{len(detections)}; an image without heads needs empty arrays"
        )
