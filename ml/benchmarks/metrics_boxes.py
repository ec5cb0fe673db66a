"""Average precision of boxes as COCO's reference tool computes it, with intervals over images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ml.benchmarks.predictions import HeadPredictions
from ml.benchmarks.samples import FaceBoxes
from ml.benchmarks.scores import RESAMPLES, Scores
from ml.box_detection.coco_metrics import MAX_DETECTIONS, run_coco
from ml.evaluation.metrics import bootstrap_intervals
from ml.imaging.boxes import xyxy_to_xywh
from ml.records.ids import sample_rng

PROTOCOL = "coco"
_CATEGORY = 1


class BoxCollector:
    """Collects boxes image by image for COCO's tool."""

    def __init__(self, max_detections: int = MAX_DETECTIONS) -> None:
        """Start empty.

        Args:
            max_detections: the best so many of each image count; COCO's rule is 100.
        """
        self.max_detections = max_detections
        self.annotations: list[dict[str, Any]] = []
        self.results: list[dict[str, Any]] = []
        self.num_images = 0

    def add(self, truth: FaceBoxes, predictions: HeadPredictions) -> None:
        """Add an image.

        Args:
            truth: its faces; those without an area are left out, ignored ones count neither way.
            predictions: its detections.
        """
        self.num_images += 1
        boxes = xyxy_to_xywh(truth.boxes_xyxy)
        for box, ignore in zip(boxes, truth.ignored, strict=True):
            if (box[2:] > 0).all():
                self.annotations.append(
                    {
                        "id": len(self.annotations) + 1,
                        "image_id": self.num_images,
                        "category_id": _CATEGORY,
                        "bbox": box.tolist(),
                        "area": float(box[2] * box[3]),
                        # COCO's crowd: a detection on it is neither right nor wrong.
                        "iscrowd": int(ignore),
                    }
                )
        # Stable: of equal scores the first detection counts, on any machine.
        best = np.argsort(-predictions.confidences, kind="stable")[: self.max_detections]
        found = xyxy_to_xywh(predictions.boxes)[best]
        for box, score in zip(found, predictions.confidences[best], strict=True):
            self.results.append(
                {
                    "image_id": self.num_images,
                    "category_id": _CATEGORY,
                    "bbox": box.tolist(),
                    "score": float(score),
                }
            )

    def truth(self) -> dict[str, Any]:
        """Return COCO's dictionary of the images and faces."""
        return {
            "info": {},
            "images": [{"id": number} for number in range(1, self.num_images + 1)],
            "categories": [{"id": _CATEGORY, "name": "face"}],
            "annotations": self.annotations,
        }


class MatchedBoxes:
    """COCO's matches of all images; metrics of any bootstrap draw follow from them."""

    def __init__(self, images: Sequence[dict[str, Any] | None], num_thresholds: int) -> None:
        """Sort all detections by score.

        Args:
            images: `evalImgs` of the tool for boxes of every size, None for an empty image.
            num_thresholds: number of IoU thresholds.
        """
        self.num_images = len(images)
        self.num_true = np.array(
            [0 if e is None else int((np.asarray(e["gtIgnore"]) == 0).sum()) for e in images]
        )
        kept = [(i, e) for i, e in enumerate(images) if e is not None]
        scores = np.concatenate([np.zeros(0), *(e["dtScores"] for _, e in kept)])
        order = np.argsort(-scores, kind="stable")
        empty = np.zeros((num_thresholds, 0))
        # (thresholds, detections)
        matched = np.concatenate([empty, *(e["dtMatches"] for _, e in kept)], axis=1)
        ignored = np.concatenate([empty, *(e["dtIgnore"] for _, e in kept)], axis=1)
        self._image = np.repeat([i for i, _ in kept], [len(e["dtScores"]) for _, e in kept])
        self._image = self._image[order].astype(np.int64)
        self._counted = (ignored == 0)[:, order]
        self._correct = ((matched > 0) & (ignored == 0))[:, order]

    def num_found(self) -> int:
        """Return true faces that some detection found at the lowest threshold."""
        return int(self._correct[0].sum()) if len(self._correct) else 0

    def average_precision(self, weights: np.ndarray, thresholds: int) -> np.ndarray:
        """Return AP at 101 levels of recall at the first IoU thresholds.

        Args:
            weights: (images,) multiplicity of each image.
            thresholds: number of thresholds.

        Returns:
            (thresholds,) AP; NaN when there is nothing to find.
        """
        total = float(weights @ self.num_true)
        if not total:
            return np.full(thresholds, np.nan)
        drawn = weights[self._image]  # (detections,) by falling score
        values = []
        for correct, counted in zip(
            self._correct[:thresholds], self._counted[:thresholds], strict=True
        ):
            # A draw of the images weighs its detections; the matches themselves do not change.
            hits, shown = np.cumsum(drawn * correct), np.cumsum(drawn * counted)
            precision = hits / np.maximum(shown, np.spacing(1))
            # precision made to fall with recall
            envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
            # first detection of each recall
            levels = np.searchsorted(hits / total, np.linspace(0, 1, 101), side="left")
            values.append(envelope[np.minimum(levels, len(precision))].mean())
        return np.array(values)


def score_boxes(collected: BoxCollector, seed: int = 0, resamples: int = RESAMPLES) -> Scores:
    """Return AP50 and AP50-95 by pycocotools; AP50 with an interval.

    Args:
        collected: all images.
        seed: run seed of the bootstrap.
        resamples: number of bootstrap resamples over the images.

    Returns:
        The scores with intervals and counts.
    """
    tool = run_coco(collected.truth(), collected.results, collected.max_detections, False)
    precision = tool.eval["precision"][:, :, 0, 0, -1]
    nothing = bool((precision < 0).all())
    matched = MatchedBoxes(tool.evalImgs, len(tool.params.iouThrs))
    count = matched.num_images

    def statistics(draw: np.ndarray) -> dict[str, float]:
        weights = np.bincount(draw, minlength=count).astype(float)
        return {"ap50": float(matched.average_precision(weights, 1)[0])}

    total = int(matched.num_true.sum())
    return Scores(
        PROTOCOL,
        {
            "ap50": float("nan") if nothing else float(precision[0].mean()),
            "ap50_95": float("nan") if nothing else float(precision.mean()),
        },
        bootstrap_intervals(statistics, count, sample_rng(seed, "benchmarks", PROTOCOL), resamples),
        {
            "num_images": count,
            "num_faces": total,
            "num_missed": total - matched.num_found(),
            "num_ignored": sum(a["iscrowd"] for a in collected.annotations),
        },
        (f"at most {collected.max_detections} detections of an image count",),
    )
