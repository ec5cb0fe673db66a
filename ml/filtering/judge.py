"""Judging images: at most three batched detector passes, then the rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import Field

from ml.detection.base import Boxes, HeadDetectorBackend, Image, select_detections
from ml.detection.faces import FaceDetectorBackend
from ml.filtering.rules import (
    KEEP,
    CutForm,
    Finding,
    check_cut,
    check_faces,
    check_flip,
    check_heads,
    cut_column,
    cut_image,
    first_finding,
    flip_boxes,
    flip_image,
    stability,
    uncovered_faces,
)
from ml.records.config import StageConfig

NOT_TESTED = -1
"""Count of a test that was not made."""


class DetectionLimits(StageConfig):
    """Which detections count as heads; equal to the annotation stage's, whose boxes are reused."""

    threshold: float = Field(default=0.5, gt=0, lt=1)
    """Lowest score of a head."""
    nms_iou: float = Field(default=0.6, gt=0, le=1)
    """Of two boxes that overlap more than this, the weaker goes."""
    max_heads: int = Field(default=100, ge=1)
    """Most heads of an image."""


class RulesConfig(StageConfig):
    """How the rules are applied."""

    cut: CutForm = "at_gap"
    """Rule 4: `at_gap` as in the official code, `half` as in the paper's text."""
    min_part_px: int = Field(default=10, ge=1)
    """Rule 4, `at_gap`: narrowest part worth testing, px."""


@dataclass(frozen=True)
class Judgement:
    """The verdict on one image with everything it rests on; boxes in px of the image.

    Attributes:
        sample_id: the image.
        finding: the rule that decided, and its numbers.
        boxes: (N, 4) heads of the image.
        boxes_flipped: (M, 4) heads of the mirrored image, mirrored back.
        boxes_parts: (K, 4) heads of the two parts; empty when not cut.
        faces: (F, 4) faces; None when there was no face detector.
        column: where the image was cut; None when it was not.
    """

    sample_id: str
    finding: Finding
    boxes: Boxes
    boxes_flipped: Boxes
    boxes_parts: Boxes
    faces: Boxes | None
    column: int | None

    @property
    def keep(self) -> bool:
        """Whether the image stays."""
        return self.finding.reason == KEEP

    @property
    def num_heads_halves(self) -> int:
        """Heads on both parts, -1 when the image was not cut."""
        return NOT_TESTED if self.column is None else len(self.boxes_parts)

    @property
    def num_faces_missed(self) -> int:
        """Faces without head, -1 when no face detector ran."""
        if self.faces is None:
            return NOT_TESTED
        return int(uncovered_faces(self.faces, self.boxes).sum())

    @property
    def stability(self) -> float | None:
        """Mean best IoU with the mirrored detections; None without heads."""
        return stability(self.boxes, self.boxes_flipped)

    def to_json(self) -> dict[str, Any]:
        """Plain values, to keep unfinished work on disk."""
        return {
            "sample_id": self.sample_id,
            "reason": self.finding.reason,
            "detail": self.finding.detail,
            "boxes": self.boxes.tolist(),
            "boxes_flipped": self.boxes_flipped.tolist(),
            "boxes_parts": self.boxes_parts.tolist(),
            "faces": None if self.faces is None else self.faces.tolist(),
            "column": self.column,
        }

    @staticmethod
    def from_json(values: dict[str, Any]) -> Judgement:
        """The inverse of `to_json`; float32 survives the round trip exactly.

        Args:
            values: what `to_json` gave.

        Returns:
            The judgement.
        """
        return Judgement(
            values["sample_id"],
            Finding(values["reason"], values["detail"]),
            _boxes(values["boxes"]),
            _boxes(values["boxes_flipped"]),
            _boxes(values["boxes_parts"]),
            None if values["faces"] is None else _boxes(values["faces"]),
            values["column"],
        )


@dataclass(frozen=True)
class Judge:
    """Detectors and settings that judge images.

    Attributes:
        detector: finds heads.
        face_detector: finds faces; None skips rule 3.
        limits: which detections count.
        rules: how the rules are applied.
    """

    detector: HeadDetectorBackend
    face_detector: FaceDetectorBackend | None
    limits: DetectionLimits
    rules: RulesConfig

    def judge(
        self,
        sample_ids: Sequence[str],
        images: Sequence[Image],
        known_boxes: Sequence[Boxes] | None = None,
    ) -> list[Judgement]:
        """Judge a batch of images.

        Pass 1 sees the images, unless their heads are known; pass 2 the mirrored ones; pass 3 both
        parts of every image that is still in and is to be cut, each part letterboxed on its own.

        Args:
            sample_ids: ids of the images.
            images: (H, W, 3) uint8 RGB each.
            known_boxes: (N, 4) heads of each image by the same detector and limits, or None.

        Returns:
            A judgement for each image, in order.
        """
        whole = list(known_boxes) if known_boxes is not None else self._detect(images)
        mirrored = self._detect([flip_image(image) for image in images])
        flipped = [
            flip_boxes(boxes, image.shape[1]) for boxes, image in zip(mirrored, images, strict=True)
        ]
        faces: Sequence[Boxes | None] = (
            [None] * len(images)
            if self.face_detector is None
            else self.face_detector.detect_faces(images)
        )
        early = [
            [
                check_heads(len(boxes)),
                check_flip(len(boxes), len(boxes_flipped)),
                None if faces_of is None else check_faces(faces_of, boxes),
            ]
            for boxes, boxes_flipped, faces_of in zip(whole, flipped, faces, strict=True)
        ]
        columns = [
            None
            if any(findings)
            else cut_column(boxes, image.shape[1], self.rules.cut, self.rules.min_part_px)
            for findings, boxes, image in zip(early, whole, images, strict=True)
        ]
        parts = self._detect_parts(images, columns)
        judgements = []
        for index, sample_id in enumerate(sample_ids):
            boxes, column = whole[index], columns[index]
            left, right = parts[index]
            late = None if column is None else check_cut(len(boxes), len(left), len(right), column)
            judgements.append(
                Judgement(
                    sample_id,
                    first_finding([*early[index], late], len(boxes)),
                    boxes,
                    flipped[index],
                    np.concatenate([left, right]),
                    faces[index],
                    column,
                )
            )
        return judgements

    def _detect(self, images: Sequence[Image]) -> list[Boxes]:
        """One pass; only the boxes that count."""
        if not images:
            return []
        limits = self.limits
        return [
            select_detections(
                boxes,
                scores,
                image.shape[:2],
                limits.threshold,
                limits.nms_iou,
                limits.max_heads,
            )[0]
            for (boxes, scores), image in zip(self.detector.detect(images), images, strict=True)
        ]

    def _detect_parts(
        self, images: Sequence[Image], columns: Sequence[int | None]
    ) -> list[tuple[Boxes, Boxes]]:
        """Heads of left and right parts in px of the whole image, in one pass."""
        to_cut = [index for index, column in enumerate(columns) if column is not None]
        parts = [part for i in to_cut for part in cut_image(images[i], columns[i] or 0)]
        found = self._detect(parts)
        nothing = np.zeros((0, 4), np.float32)
        result = [(nothing, nothing)] * len(images)
        for position, index in enumerate(to_cut):
            shift = np.array([columns[index], 0, columns[index], 0], np.float32)
            result[index] = (found[2 * position], found[2 * position + 1] + shift)
        return result


def _boxes(values: list[list[float]]) -> Boxes:
    return np.array(values, np.float32).reshape(-1, 4)
