"""Invariants of heads: boxes, scores and parameters, exact or labelled.

Rows are of one shard. Frames: boxes and translations in image px, rotations from FLAME axes to
image axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ml.quality.findings import agree, findings, joined
from ml.records.flame_layout import NUM_FLAME_PARAMETERS, ROTATION, SCALE, SHIFT_XY
from ml.records.ids import stable_fraction

ORTHONORMAL: Final = 0.02
"""Largest departure from length 1 and from a right angle."""
WHOLE_VISIBLE: Final = 0.9
WHOLE_INSIDE: Final = 0.98
"""A head seen and inside as far as this is whole: its box is that of the head."""
SAME_BOX_PX: Final = 1e-3


def vectors(column: pd.Series, length: int) -> NDArray[np.float64]:
    """Return a vector column as one array; what is missing or of another length becomes NaN.

    Args:
        column: arrays, lists or None.
        length: numbers of each.

    Returns:
        (N, length) float64.
    """
    stacked = np.full((len(column), length), np.nan)
    for row, value in enumerate(column):
        if value is not None and np.ndim(value) == 1 and len(value) == length:
            stacked[row] = np.asarray(value, np.float64)
    return stacked


def head_names(rows: pd.DataFrame) -> list[str]:
    """Return names of heads, `image#head`.

    Args:
        rows: columns `sample_id` and `head_id`.
    """
    return [f"{image}#{head}" for image, head in zip(rows.sample_id, rows.head_id, strict=True)]


def heads_sound(heads: pd.DataFrame, whole: NDArray[np.bool_] | None = None) -> pd.DataFrame:
    """Return whether parameters fit their box: orthonormal rotation, place and scale of a head.

    The head's origin is within half a box of the box's centre and the box is as high as a head
    of 15 to 60 cm at that scale. Boxes of half hidden heads are smaller, so only their rotation
    is judged.

    Args:
        heads: columns `sample_id`, `head_id`, `bbox_xywh`, `flame`; rows without parameters pass.
        whole: (N,) which boxes hold the whole head; all of them if left out.

    Returns:
        One finding a head.
    """
    flame, box = vectors(heads["flame"], NUM_FLAME_PARAMETERS), vectors(heads["bbox_xywh"], 4)
    first, second = np.split(flame[:, ROTATION], 2, axis=1)
    uneven = np.max(
        [
            np.abs(np.linalg.norm(first, axis=1) - 1),
            np.abs(np.linalg.norm(second, axis=1) - 1),
            np.abs((first * second).sum(axis=1)),
        ],
        axis=0,
    )
    off = np.abs(flame[:, SHIFT_XY] - box[:, :2] - box[:, 2:] / 2) / box[:, 2:]
    metres = box[:, 3] / flame[:, SCALE.start]
    judged = np.ones(len(heads), bool) if whole is None else whole
    problems = []
    for row, name in enumerate(head_names(heads)):
        problem = ""
        if heads["flame"].iloc[row] is not None:
            if not uneven[row] <= ORTHONORMAL:
                problem = f"{name}: rotation columns are {uneven[row]:.3g} from orthonormal"
            elif judged[row] and not off[row].max() <= 0.5:
                problem = f"{name} is {off[row].max():.2f} boxes from its box's centre"
            elif judged[row] and not 0.15 <= metres[row] <= 0.6:
                problem = f"{name}: its box is {metres[row]:.2f} m high at its scale"
        problems.append(problem)
    return findings(head_names(heads), problems)


def whole_heads(truth: pd.DataFrame) -> NDArray[np.bool_]:
    """Return which true heads are seen and inside the image as a whole.

    Args:
        truth: rows of TRUTH.
    """
    return ((truth["visible"] > WHOLE_VISIBLE) & (truth["inside"] > WHOLE_INSIDE)).to_numpy(bool)


def boxes_inside(heads: pd.DataFrame, images: pd.DataFrame) -> pd.DataFrame:
    """Return whether boxes lie in their image, with a pixel of tolerance.

    Args:
        heads: columns `sample_id`, `head_id`, `bbox_xywh`.
        images: columns `sample_id`, `width`, `height`.

    Returns:
        One finding a head.
    """
    sizes = {item: (w, h) for item, w, h in images[["sample_id", "width", "height"]].to_numpy()}
    problems = []
    names = head_names(heads)
    for name, item, box in zip(
        names, heads["sample_id"], vectors(heads["bbox_xywh"], 4), strict=True
    ):
        width, height = sizes.get(item, (np.nan, np.nan))
        (left, top), (right, bottom) = box[:2], box[:2] + box[2:]
        inside = left >= -1 and top >= -1 and right <= width + 1 and bottom <= height + 1
        where = np.round(box, 1).tolist()
        problems.append("" if inside else f"{name}: box {where} is not in its {width}x{height} px")
    return findings(names, problems)


def scores_sound(heads: pd.DataFrame) -> pd.DataFrame:
    """Return whether scores are finite, at the threshold at least, and fall with the head's number.

    Args:
        heads: rows of HEADS.

    Returns:
        One finding a head.
    """
    names, problems = head_names(heads), []
    last: dict[str, tuple[int, float]] = {}
    for name, item, number, score, threshold in zip(
        names, heads["sample_id"], heads["head_id"], heads["score"], heads["threshold"], strict=True
    ):
        problem = ""
        before = last.get(item, (-1, 1.0))
        if not (np.isfinite(score) and threshold - 1e-6 <= score <= 1.0):
            problem = f"{name}: score {score}, expected {threshold:.3g} to 1"
        elif number != before[0] + 1:
            problem = f"{name} follows head {before[0]}"
        elif score > before[1] + 1e-6:
            problem = f"{name}: score {score:.4g} after {before[1]:.4g}; heads are sorted by it"
        last[item] = (int(number), float(score))
        problems.append(problem)
    return findings(names, problems)


def parameters_where_told(heads: pd.DataFrame) -> pd.DataFrame:
    """Check that heads have parameters exactly where their status is ok, none small above one.

    Args:
        heads: rows of HEADS, made with one smallest size.

    Returns:
        One finding a head.
    """
    sides = vectors(heads["bbox_xywh"], 4)[:, 2:].max(axis=1, initial=0)
    status = heads["flame_status"].to_numpy()
    smallest = sides[status == "ok"].min(initial=np.inf)
    problems = []
    for name, flame, state, side in zip(
        head_names(heads), heads["flame"], status, sides, strict=True
    ):
        problem = ""
        if (flame is not None) != (state == "ok"):
            has = "has" if flame is not None else "has no"
            problem = f"{name} {has} parameters, its status is {state}"
        elif state == "small" and side > smallest:
            problem = f"{name} is called small at {side:.1f} px; {smallest:.1f} px was labelled"
        problems.append(problem)
    return findings(head_names(heads), problems)


def one_provenance(heads: pd.DataFrame, head_model: str) -> pd.DataFrame:
    """Return whether all heads of a shard come from the same models, and the run's head model.

    Args:
        heads: rows of HEADS.
        head_model: sha256 of the head model of the run.

    Returns:
        One finding a head.
    """
    names = head_names(heads)
    teacher = heads["teacher"].iloc[0] if len(heads) else ""
    problems = []
    for name, mine, model in zip(names, heads["teacher"], heads["head_model"], strict=True):
        problem = "" if mine == teacher else f"{name} has another teacher: {mine}"
        if model != head_model:
            problem = f"{name} is of head model {model[:12]}, the run's is {head_model[:12]}"
        problems.append(problem)
    return findings(names, problems)


def not_the_truth(heads: pd.DataFrame, truth: pd.DataFrame) -> pd.DataFrame:
    """Return whether no pseudo-label is the ground truth: then the truth leaked into it.

    Args:
        heads: rows of HEADS whose source is pseudo.
        truth: rows of TRUTH of the same images.

    Returns:
        One finding a head.
    """
    boxes = {
        item: (vectors(rows["bbox_xywh"], 4), vectors(rows["flame"], NUM_FLAME_PARAMETERS))
        for item, rows in truth.groupby("sample_id")
    }
    names, problems = head_names(heads), []
    mine = zip(
        names, heads["sample_id"], vectors(heads["bbox_xywh"], 4),
        vectors(heads["flame"], NUM_FLAME_PARAMETERS), strict=True,
    )  # fmt: skip
    for name, item, box, flame in mine:
        true_boxes, true_flames = boxes.get(
            item, (np.zeros((0, 4)), np.zeros((0, NUM_FLAME_PARAMETERS)))
        )
        same = (np.abs(true_boxes - box) < SAME_BOX_PX).all(axis=1).any()
        same |= (np.abs(true_flames - flame) < 1e-6).all(axis=1).any()
        problems.append(f"{name} is the ground truth, not a pseudo-label" if same else "")
    return findings(names, problems)


def annotated_images(
    listed: pd.DataFrame, heads: pd.DataFrame, images: pd.DataFrame
) -> pd.DataFrame:
    """Return whether every annotated image has as many heads as were found in it, and its split.

    Args:
        listed: rows of ANNOTATED_IMAGES.
        heads: rows of HEADS.
        images: rows of IMAGES.

    Returns:
        Findings about images, then about heads of images that are not listed.
    """
    counts = heads.groupby("sample_id").size()
    problems = []
    for item, number in zip(listed["sample_id"], listed["num_heads"], strict=True):
        got = int(counts.get(item, 0))
        problems.append("" if got == number else f"{item}: {number} heads found, {got} listed")
    return joined(
        [
            findings(listed["sample_id"], problems),
            agree(heads, listed, ["sample_id"], ["split"], "annotations", "annotated images"),
            agree(listed, images, ["sample_id"], ["split"], "annotated images", "images"),
        ]
    )


def crops_sound(crops: pd.DataFrame, val_fraction: float | None = None) -> pd.DataFrame:
    """Return whether crops hold their head, and are split by the hash of their id.

    Args:
        crops: rows of CROPS.
        val_fraction: fraction held out; without it only the split's consistency is judged: no
            train crop has a smaller hash than a val crop.

    Returns:
        One finding a crop.
    """
    heads = crops.rename(columns={"crop_id": "sample_id"}).assign(head_id=0)
    sound = heads_sound(heads, (crops["visible"] > WHOLE_VISIBLE).to_numpy(bool))
    fractions = np.array([stable_fraction(str(item)) for item in crops["crop_id"]])
    is_val = (crops["split"] == "val").to_numpy()
    limit = val_fraction if val_fraction is not None else fractions[is_val].max(initial=0.0)
    wrong = (
        (fractions <= limit) != is_val if val_fraction is None else (fractions < limit) != is_val
    )
    problems = [
        f"{item} is {split}, its hash says otherwise" if bad else ""
        for item, split, bad in zip(crops["crop_id"], crops["split"], wrong, strict=True)
    ]
    return joined([sound, findings(crops["crop_id"], problems)])


def distinct(values: Sequence[object], items: Sequence[str], what: str) -> pd.DataFrame:
    """Return whether vectors differ from item to item: one that is there twice was copied.

    Args:
        values: arrays, or None for what has none.
        items: ids.
        what: what the vectors are called.

    Returns:
        One finding an item that has a vector.
    """
    first: dict[bytes, str] = {}
    names, problems = [], []
    for value, item in zip(values, items, strict=True):
        if value is None:
            continue
        key = np.ascontiguousarray(value, np.float32).tobytes()
        other = first.setdefault(key, str(item))
        names.append(item)
        problems.append("" if other == str(item) else f"{item} has the {what} of {other}")
    return findings(names, problems)


def labels_follow_truth(
    boxes: pd.DataFrame, truth: pd.DataFrame, tolerance_px: float = 0.1
) -> pd.DataFrame:
    """Return whether labels that replace an annotator's are ground-truth boxes, cut at the border.

    Args:
        boxes: columns `sample_id`, `box_id`, `bbox_xywh`, `width`, `height` (of the image).
        truth: rows of TRUTH.
        tolerance_px: largest difference of a side.

    Returns:
        One finding a label.
    """
    known = {item: vectors(rows["bbox_xywh"], 4) for item, rows in truth.groupby("sample_id")}
    names = [f"{item} label {n}" for item, n in zip(boxes.sample_id, boxes.box_id, strict=True)]
    problems = []
    for name, item, box, width, height in zip(
        names, boxes["sample_id"], vectors(boxes["bbox_xywh"], 4), boxes["width"], boxes["height"],
        strict=True,
    ):  # fmt: skip
        true = known.get(item, np.zeros((0, 4)))
        limits = np.array([width, height], np.float64)
        start = np.clip(true[:, :2], 0, limits)
        cut = np.concatenate([start, np.clip(true[:, :2] + true[:, 2:], 0, limits) - start], axis=1)
        nearest = np.abs(cut - box).max(axis=1).min(initial=np.inf)
        problems.append(
            "" if nearest <= tolerance_px else f"{name} is {nearest:.1f} px off any head"
        )
    return findings(names, problems)
