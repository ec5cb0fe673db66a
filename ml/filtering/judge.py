"""Judging images: at most three batched detector passes, then the rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import numpy as np
from pydantic import Field

from ml.box_detection.base import Boxes, HeadBoxDetector, Image, select_detections
from ml.box_detection.faces import FaceBoxDetector
from ml.filtering.rules import (
    KEEP,
    CutForm,
    Finding,
    Sightings,
    check_cut,
    check_faces,
    check_flip,
    check_heads,
    confirmed_count,
    cut_column,
    cut_image,
    first_finding,
    flip_boxes,
    flip_image,
    stability,
    uncovered_faces,
)
from ml.filtering.screens import ImageScreen
from ml.records.config import StageConfig

NOT_TESTED = -1
"""Count of a test that was not made."""


class DetectionLimits(StageConfig):
    """Limits of detections; equal to the annotation stage's, whose boxes are reused."""

    threshold: float = Field(default=0.5, gt=0, lt=1)
    """Minimum score of a head."""
    nms_iou: float = Field(default=0.5, gt=0, le=1)
    """IoU above which the weaker of two boxes is suppressed."""
    max_heads: int = Field(default=100, ge=1, le=10**9)
    """Maximum number of heads in an image."""


class RulesConfig(StageConfig):
    """Application of the rules."""

    cut: CutForm = "at_gap"
    """Rule 4: `at_gap` as in the official code, `half` as in the paper's text."""
    min_part_px: int = Field(default=10, ge=1, le=10**9)
    """Rule 4, `at_gap`: minimum width of a part, px."""
    confirm_threshold: float = Field(default=0.25, gt=0, lt=1)
    """Rules 2 and 4: minimum score that confirms a head which another view detects at the
    threshold. If it is not below the threshold, the rules compare counts only, as in the paper."""


@dataclass(frozen=True)
class Judgement:
    """The verdict on one image with its evidence; boxes in px of the image.

    Attributes:
        sample_id: the image.
        finding: the rule that decided, and its numbers.
        boxes: (N, 4) heads of the image.
        boxes_flipped: (M, 4) heads of the mirrored image, mirrored back.
        boxes_parts: (K, 4) heads of the two parts; empty when not cut.
        faces: (F, 4) faces; None when there was no face detector.
        column: where the image was cut; None when it was not.
        num_heads_flipped: heads on the mirrored image, confirmed ones included.
        num_heads_halves: heads on both parts likewise, -1 when the image was not cut.
    """

    sample_id: str
    finding: Finding
    boxes: Boxes
    boxes_flipped: Boxes
    boxes_parts: Boxes
    faces: Boxes | None
    column: int | None
    num_heads_flipped: int
    num_heads_halves: int

    @property
    def keep(self) -> bool:
        """Whether the image stays."""
        return self.finding.reason == KEEP

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
        """Return plain values, to keep unfinished work on disk."""
        return {
            "sample_id": self.sample_id,
            "reason": self.finding.reason,
            "detail": self.finding.detail,
            "boxes": self.boxes.tolist(),
            "boxes_flipped": self.boxes_flipped.tolist(),
            "boxes_parts": self.boxes_parts.tolist(),
            "faces": None if self.faces is None else self.faces.tolist(),
            "column": self.column,
            "num_heads_flipped": self.num_heads_flipped,
            "num_heads_halves": self.num_heads_halves,
        }

    @staticmethod
    def from_json(values: dict[str, Any]) -> Judgement:
        """Return the inverse of `to_json`; float32 survives the round trip exactly.

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
            values["num_heads_flipped"],
            values["num_heads_halves"],
        )


@dataclass(frozen=True)
class Judge:
    """Detectors and settings that judge images.

    Attributes:
        detector: finds heads.
        face_detector: finds faces; None skips rule 3.
        limits: which detections count.
        rules: how the rules are applied.
        screens: run before the rules; an image that one of them rejects is removed.

    Threads may share a judge: parts other than torch may have state and see one batch at a time.
    """

    detector: HeadBoxDetector
    face_detector: FaceBoxDetector | None
    limits: DetectionLimits
    rules: RulesConfig
    screens: tuple[ImageScreen, ...] = ()
    _one_at_a_time: Lock = field(default_factory=Lock, repr=False, compare=False)

    def judge(
        self,
        sample_ids: Sequence[str],
        images: Sequence[Image],
        known_boxes: Sequence[Boxes] | None = None,
    ) -> list[Judgement]:
        """Judge a batch of images.

        Pass 1 sees the images, unless their heads are known; pass 2 the mirrored ones; pass 3 both
        parts of every image without a finding that can be cut, each part letterboxed separately.

        Args:
            sample_ids: ids of the images.
            images: (H, W, 3) uint8 RGB each.
            known_boxes: (N, 4) heads of each image by the same detector and limits, or None.

        Returns:
            A judgement for each image, in order.
        """
        if known_boxes is None:
            whole = self._detect(images)
        else:
            # Annotations hold no weak detections; `can_reuse` has made sure that none are asked
            # for.
            whole = [Sightings(boxes, boxes) for boxes in known_boxes]
        mirrored = self._detect([flip_image(image) for image in images])
        flipped = [
            Sightings(*(flip_boxes(boxes, image.shape[1]) for boxes in (seen.strong, seen.weak)))
            for seen, image in zip(mirrored, images, strict=True)
        ]
        faces: Sequence[Boxes | None] = [None] * len(images)
        # ONNX sessions and tokenizers are not known to be safe for threads.
        with self._one_at_a_time:
            if self.face_detector is not None:
                faces = self.face_detector.detect_faces(images)
            screened = [screen.screen(images) for screen in self.screens]
        # In the order of `RULES`, after the screens: the first finding decides, and only images
        # without any reach the third pass.
        early = [
            [
                *(findings[index] for findings in screened),
                check_heads(len(seen.strong)),
                check_flip(len(seen.strong), confirmed_count(seen, seen_flipped)),
                None if faces_of is None else check_faces(faces_of, seen.strong),
            ]
            for index, (seen, seen_flipped, faces_of) in enumerate(
                zip(whole, flipped, faces, strict=True)
            )
        ]
        columns = [
            None
            if any(findings)
            else cut_column(seen.strong, image.shape[1], self.rules.cut, self.rules.min_part_px)
            for findings, seen, image in zip(early, whole, images, strict=True)
        ]
        parts = self._detect_parts(images, columns)
        return [
            self._judgement(sample_id, *views)
            for sample_id, *views in zip(
                sample_ids, whole, flipped, faces, early, columns, parts, strict=True
            )
        ]

    def _judgement(
        self,
        sample_id: str,
        whole: Sightings,
        flipped: Sightings,
        faces: Boxes | None,
        early: list[Finding | None],
        column: int | None,
        parts: tuple[Sightings, Sightings] | None,
    ) -> Judgement:
        """Put the passes of one image together."""
        num_heads, num_halves, late = len(whole.strong), NOT_TESTED, None
        boxes_parts = np.zeros((0, 4), np.float32)
        if column is not None and parts is not None:
            both = Sightings(
                np.concatenate([part.strong for part in parts]),
                np.concatenate([part.weak for part in parts]),
            )
            boxes_parts, num_halves = both.strong, confirmed_count(whole, both)
            late = check_cut(num_heads, num_halves, len(parts[0].strong), column)
        return Judgement(
            sample_id,
            first_finding([*early, late], num_heads),
            whole.strong,
            flipped.strong,
            boxes_parts,
            faces,
            column,
            confirmed_count(whole, flipped),
            num_halves,
        )

    def _detect(self, images: Sequence[Image]) -> list[Sightings]:
        """Return one pass: heads, and weaker detections that may confirm heads."""
        if not images:
            return []
        limits = self.limits
        lowest = min(limits.threshold, self.rules.confirm_threshold)
        seen = []
        for (boxes, scores), image in zip(self.detector.detect(images), images, strict=True):
            # Suppressed once, at the lower threshold: a strong head is then the same box in both
            # lists.
            weak, weak_scores = select_detections(
                boxes, scores, image.shape[:2], lowest, limits.nms_iou, limits.max_heads
            )
            seen.append(Sightings(weak[weak_scores >= limits.threshold], weak))
        return seen

    def _detect_parts(
        self, images: Sequence[Image], columns: Sequence[int | None]
    ) -> list[tuple[Sightings, Sightings] | None]:
        """Return heads of left and right parts in px of the whole image, in one pass."""
        to_cut = [(index, column) for index, column in enumerate(columns) if column is not None]
        found = self._detect(
            # left, right, left, right, ...
            [part for i, column in to_cut for part in cut_image(images[i], column)]
        )
        result: list[tuple[Sightings, Sightings] | None] = [None] * len(images)
        for position, (index, column) in enumerate(to_cut):
            left, right = found[2 * position : 2 * position + 2]
            shift = np.array([column, 0, column, 0], np.float32)  # back to px of the whole image
            result[index] = (left, Sightings(right.strong + shift, right.weak + shift))
        return result


def _boxes(values: list[list[float]]) -> Boxes:
    return np.array(values, np.float32).reshape(-1, 4)
