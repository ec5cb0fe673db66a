"""The paper's four rules as pure functions of boxes and counts, and the stability metric.

Source: appendix of the paper on filtering, and the official `filter_pipeline`. Where the two differ
(rule 4) both forms are here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ml.box_detection.base import Boxes, Image
from ml.imaging.boxes import box_iou
from ml.records.reasons import CUT_COUNT, FACE_WITHOUT_HEAD, FLIP_COUNT, NO_HEAD

KEEP = "keep"
RULES = (NO_HEAD, FLIP_COUNT, FACE_WITHOUT_HEAD, CUT_COUNT)
"""Reasons in the order in which they are tried; the first hit decides."""

CONFIRM_IOU = 0.4
"""Two views show the same head when its boxes overlap at least so much."""

CutForm = Literal["at_gap", "half"]


@dataclass(frozen=True)
class Finding:
    """The objection of a rule.

    Attributes:
        reason: one of `RULES`, or `KEEP`.
        detail: the numbers behind it.
    """

    reason: str
    detail: str


@dataclass(frozen=True)
class Sightings:
    """The heads one detector pass sees in an image.

    Attributes:
        strong: (N, 4) heads at the threshold, px.
        weak: (M, 4) detections at the lower confirming threshold, px; includes `strong`.
    """

    strong: Boxes
    weak: Boxes


def confirmed_count(first: Sightings, second: Sightings) -> int:
    """Return heads the second view shows, when a weak sighting may confirm a strong one.

    A head whose score crosses the threshold between two views is no contradiction: both found it.
    So a strong head of one view without strong partner counts in the other view too if that has a
    weak sighting in its place. When `weak` equals `strong` this is the plain count of the paper.
    Without it, a head at 0.49 in one view and 0.51 in the other costs an image.

    Args:
        first: the image.
        second: another view of it, boxes in the first's frame.

    Returns:
        The number to compare with `len(first.strong)`.
    """
    confirmed_in_second = _confirmed(first.strong, second)
    confirmed_in_first = _confirmed(second.strong, first)
    # Equal to len(first.strong) exactly when the heads that neither view confirms balance out.
    return len(second.strong) + confirmed_in_second - confirmed_in_first


def _confirmed(heads: Boxes, view: Sightings) -> int:
    """Return heads that a view has no strong sighting of, but a weak one."""
    if not len(heads) or not len(view.weak):
        return 0
    weak = np.asarray(box_iou(heads, view.weak)).max(axis=1) >= CONFIRM_IOU  # (N,)
    if not len(view.strong):
        return int(weak.sum())
    strong = np.asarray(box_iou(heads, view.strong)).max(axis=1) >= CONFIRM_IOU
    return int((weak & ~strong).sum())


def flip_image(image: Image) -> Image:
    """Mirror an image left to right.

    Args:
        image: (H, W, 3) uint8 RGB.

    Returns:
        (H, W, 3) uint8, contiguous.
    """
    return np.ascontiguousarray(image[:, ::-1])


def flip_boxes(boxes_xyxy: Boxes, width: int) -> Boxes:
    """Mirror boxes left to right; twice is the identity.

    Args:
        boxes_xyxy: (N, 4) px.
        width: image width, px.

    Returns:
        (N, 4) px, in the mirrored image.
    """
    x0, y0, x1, y1 = boxes_xyxy.T
    # left and right change places
    return np.stack([width - x1, y0, width - x0, y1], axis=1).astype(np.float32)


def check_heads(num_heads: int) -> Finding | None:
    """Apply rule 1: an image without any head is removed.

    Args:
        num_heads: heads found.

    Returns:
        The finding, or None when the rule is content.
    """
    return Finding(NO_HEAD, "0 heads") if num_heads == 0 else None


def check_flip(num_heads: int, num_heads_flipped: int) -> Finding | None:
    """Apply rule 2: the mirrored image must hold as many heads.

    Args:
        num_heads: heads found.
        num_heads_flipped: heads found on the mirrored image.

    Returns:
        The finding, or None when the rule is content.
    """
    if num_heads == num_heads_flipped:
        return None
    return Finding(FLIP_COUNT, f"{num_heads} heads, {num_heads_flipped} on the mirrored image")


def uncovered_faces(faces_xyxy: Boxes, heads_xyxy: Boxes) -> NDArray[np.bool_]:
    """Return which faces share no area with any head.

    Args:
        faces_xyxy: (F, 4) px.
        heads_xyxy: (N, 4) px.

    Returns:
        (F,) True where a face is on its own.
    """
    if not len(faces_xyxy) or not len(heads_xyxy):
        return np.ones(len(faces_xyxy), bool)
    return np.asarray((box_iou(faces_xyxy, heads_xyxy) > 0).sum(axis=1) == 0)


def check_faces(faces_xyxy: Boxes, heads_xyxy: Boxes) -> Finding | None:
    """Apply rule 3: a face where no head was found means that a head was missed.

    Args:
        faces_xyxy: (F, 4) px.
        heads_xyxy: (N, 4) px.

    Returns:
        The finding, or None when the rule is content.
    """
    alone = uncovered_faces(faces_xyxy, heads_xyxy)
    if not alone.any():
        return None
    where = np.round(faces_xyxy[int(np.argmax(alone))]).astype(int).tolist()
    return Finding(
        FACE_WITHOUT_HEAD, f"{int(alone.sum())} of {len(alone)} faces without head, one at {where}"
    )


def cut_column(
    boxes_xyxy: Boxes, width: int, form: CutForm = "at_gap", min_part_px: int = 10
) -> int | None:
    """Return where rule 4 cuts an image in two.

    `half` is the paper's text: always through the middle. A head on the middle line is then cut in
    two, is found twice or not at all, and a perfectly labelled image is removed. `at_gap`, the form
    the official code runs and our default, takes the column nearest to the middle that crosses no
    box, and cuts only where there is a head wholly on each side. It tests the same thing, whether
    heads are detected again in other surroundings, without penalising their position.

    Args:
        boxes_xyxy: (N, 4) heads, px.
        width: image width, px.
        form: `at_gap` or `half`.
        min_part_px: `at_gap`: narrowest part worth testing, px.

    Returns:
        The first column of the right part; None when the image is not to be cut. Of two columns
        equally near to the middle the left one is taken.
    """
    if form == "half":
        return width // 2 if width >= 2 else None
    columns = np.arange(1, width)
    left, right = boxes_xyxy[:, 0], boxes_xyxy[:, 2]
    crossed = ((left < columns[:, None]) & (columns[:, None] < right)).any(axis=1)  # (W - 1,)
    free = columns[~crossed]
    if not len(free):
        return None
    # argmin takes the first of equals, which is the left one.
    column = int(free[np.argmin(np.abs(free - width / 2))])
    both_sides = (right <= column).any() and (left >= column).any()
    wide_enough = min(column, width - column) >= min_part_px
    return column if both_sides and wide_enough else None


def cut_image(image: Image, column: int) -> tuple[Image, Image]:
    """Return the two parts of an image.

    Args:
        image: (H, W, 3) uint8 RGB.
        column: first column of the right part, 0 < column < W.

    Returns:
        (H, column, 3) and (H, W - column, 3), contiguous.
    """
    left, right = image[:, :column], image[:, column:]
    return np.ascontiguousarray(left), np.ascontiguousarray(right)


def check_cut(num_heads: int, num_parts: int, num_left: int, column: int) -> Finding | None:
    """Apply rule 4: the parts must hold as many heads as the whole.

    Args:
        num_heads: heads found on the whole image.
        num_parts: heads the parts show together.
        num_left: of these, found on the left part; for the text.
        column: where the image was cut, px.

    Returns:
        The finding, or None when the rule is content.
    """
    if num_heads == num_parts:
        return None
    return Finding(
        CUT_COUNT,
        f"{num_heads} heads, {num_parts} when cut at column {column} ({num_left} on the left)",
    )


def first_finding(findings: Sequence[Finding | None], num_heads: int) -> Finding:
    """Return the verdict: the first rule that objects, or that the image is kept.

    Args:
        findings: of the rules, in order.
        num_heads: heads found, for the text of a kept image.

    Returns:
        The finding that decides.
    """
    objections = [finding for finding in findings if finding is not None]
    return objections[0] if objections else Finding(KEEP, f"{num_heads} heads")


def stability(boxes_xyxy: Boxes, boxes_flipped_back: Boxes) -> float | None:
    """Return the mean best IoU of the heads with those of the mirrored image, mirrored back.

    The official metric never mirrors the image before the second detection, so it compares boxes
    with the mirror of themselves; here the second detection really sees the mirrored image.

    Args:
        boxes_xyxy: (N, 4) heads of the image, px.
        boxes_flipped_back: (M, 4) heads of the mirrored image, in the image's frame.

    Returns:
        In [0, 1]; heads without counterpart count 0. None without any head.
    """
    if not len(boxes_xyxy):
        return None
    if not len(boxes_flipped_back):
        return 0.0
    return float(box_iou(boxes_xyxy, boxes_flipped_back).max(axis=1).mean())
