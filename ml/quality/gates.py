"""Metrics of trainings and evaluations as statistics to be bounded: gains, losses, leaks.

A gain is the fraction of a trivial baseline's error that is gone: 0 is no better than trivial.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from ml.evaluation.metrics import view_angles_deg
from ml.quality.distributions import BEHIND_DEG
from ml.quality.head_invariants import vectors
from ml.records.flame_layout import NUM_FLAME_PARAMETERS

Metrics = Mapping[str, float | None]
_FLIP = "_flip"
_NO_MODEL = ("mean_head", "always_frontal")


def number(metrics: Metrics, name: str) -> float:
    """Return a metric; NaN where it is missing or null.

    Args:
        metrics: as read from metrics.json.
        name: the metric.
    """
    value = metrics.get(name)
    return float("nan") if value is None else float(value)


def nan_fraction(metrics: Metrics) -> float:
    """Return the fraction of metrics that are no finite numbers; 1 without any.

    Args:
        metrics: as read from metrics.json.
    """
    values = [number(metrics, name) for name in metrics]
    return 1.0 - float(np.isfinite(values).mean()) if values else 1.0


def gain(error: float, baseline: float) -> float:
    """Return the fraction of a baseline's error that is gone.

    Args:
        error: of the model.
        baseline: of the trivial answer, in the same unit.

    Returns:
        1 without error, 0 no better, negative when worse; NaN without a baseline.
    """
    return 1.0 - error / baseline if baseline > 0 else float("nan")


def curve(history: pd.DataFrame) -> dict[str, float]:
    """Return what the curves of a training say.

    Args:
        history: one row per epoch; `train/loss`, and `val/loss` where it was measured.

    Returns:
        `loss_ratio`: last over first training loss; `val_over_train`: last validation over last
        training loss, a leak when far under 1; `loss_nan`: fraction of epochs without a finite
        training loss.
    """
    losses = history.get("train/loss", pd.Series(dtype=float)).to_numpy(np.float64)
    if not len(losses):
        return {"loss_ratio": np.nan, "val_over_train": np.nan, "loss_nan": 1.0}
    held_out = history.get("val/loss", pd.Series(dtype=float)).dropna().to_numpy(np.float64)
    last = held_out[-1] / losses[-1] if len(held_out) else np.nan
    return {
        "loss_ratio": float(losses[-1] / losses[0]),
        "val_over_train": float(last),
        "loss_nan": 1.0 - float(np.isfinite(losses).mean()),
    }


def head_detector(metrics: Metrics, history: pd.DataFrame) -> dict[str, float]:
    """Gate of the head detector.

    Args:
        metrics: its metrics.
        history: its curves.

    Returns:
        `ap50`, `recall_max`, `nan_fraction` and the curve's values.
    """
    values = {name: number(metrics, name) for name in ("ap50", "recall_max")}
    values["nan_fraction"] = nan_fraction(metrics)
    curves = curve(history)
    # Boxes of held-out images have no loss; mAP is what is watched.
    return values | {name: curves[name] for name in ("loss_ratio", "loss_nan")}


def flame_regressor(metrics: Metrics, history: pd.DataFrame) -> dict[str, float]:
    """Gate of the crop regressor.

    Args:
        metrics: its metrics.
        history: its curves.

    Returns:
        `rotation_gain` over always frontal, `nme_percent`, `nan_fraction`, the curve's values.
    """
    frontal = number(metrics, "rotation_frontal_deg")
    return {
        "rotation_gain": gain(number(metrics, "rotation_deg"), frontal),
        "nme_percent": number(metrics, "nme_bbox"),
        "nan_fraction": nan_fraction(metrics),
        **curve(history),
    }


def annotation_quality(
    metrics: Metrics, true_from_frontal_deg: float, num_test_images: int
) -> dict[str, float]:
    """Gate of the pseudo-labels' quality.

    Args:
        metrics: of `annotation_quality`.
        true_from_frontal_deg: mean angle of true heads from frontal: what always frontal errs.
        num_test_images: images of the test split.

    Returns:
        `recall`, `precision`, `rotation_gain`, `nme_percent`, `test_images`: fraction measured,
        `nan_fraction`.
    """
    return {
        "recall": number(metrics, "recall"),
        "precision": number(metrics, "precision"),
        "rotation_gain": gain(number(metrics, "rotation_deg"), true_from_frontal_deg),
        "nme_percent": number(metrics, "nme_bbox"),
        "test_images": number(metrics, "num_images") / max(num_test_images, 1),
        "nan_fraction": nan_fraction(metrics),
    }


def trained_model(metrics: Metrics, history: pd.DataFrame) -> dict[str, float]:
    """Gate of the one-pass detector.

    Args:
        metrics: its last epoch's.
        history: its curves.

    Returns:
        `val_ap50`, `nan_fraction`, the curve's values.
    """
    values = {"val_ap50": number(metrics, "val/ap50"), "nan_fraction": nan_fraction(metrics)}
    return values | curve(history)


def models(metrics: Metrics) -> list[str]:
    """Return titles of the models in a benchmark, without their mirrored twins and the baselines.

    Args:
        metrics: `<title>.<metric>` -> value.
    """
    titles = dict.fromkeys(name.split(".")[0] for name in metrics if "." in name)
    return [t for t in titles if t not in _NO_MODEL and not t.endswith(_FLIP)]


def benchmark(metrics: Metrics, num_test_images: int, val_ap50: float) -> dict[str, float]:
    """Gate of the benchmark; of several models the worst counts.

    Args:
        metrics: `<title>.<metric>` -> value, and `num_images`.
        num_test_images: images of the test split.
        val_ap50: AP50 on validation images, of the first model.

    Returns:
        `ap50`, `ap50_best`: of the best, `rotation_gain` and `nme_gain` over always frontal,
        `over_validation`: AP50 above that of validation, `flip_differs`: fraction of the metrics in
        which a mirrored twin differs, `test_images`: fraction measured, `nan_fraction`.
    """
    titles = models(metrics)
    frontal = {n: number(metrics, f"always_frontal.{n}") for n in ("rotation_deg", "nme_bbox")}
    own = {t: {n: number(metrics, f"{t}.{n}") for n in ("ap50", *frontal)} for t in titles}
    # The baseline takes the first model's boxes; the others find nearly the same heads.
    return {
        "ap50": _worst([own[t]["ap50"] for t in titles]),
        "ap50_best": -_worst([-own[t]["ap50"] for t in titles]),
        "rotation_gain": _worst(
            [gain(own[t]["rotation_deg"], frontal["rotation_deg"]) for t in titles]
        ),
        "nme_gain": _worst([gain(own[t]["nme_bbox"], frontal["nme_bbox"]) for t in titles]),
        "over_validation": own[titles[0]]["ap50"] - val_ap50 if titles else float("nan"),
        "flip_differs": _worst([_differing(metrics, title) for title in titles]),
        "test_images": number(metrics, "num_images") / max(num_test_images, 1),
        "nan_fraction": nan_fraction(metrics),
    }


def _differing(metrics: Metrics, title: str) -> float:
    twin = f"{title}{_FLIP}."
    pairs = [
        (number(metrics, f"{title}.{name[len(twin) :]}"), number(metrics, name))
        for name in metrics
        if name.startswith(twin) and not name.startswith(f"{twin}num_")
    ]
    measured = [(a, b) for a, b in pairs if not (np.isnan(a) and np.isnan(b))]
    return float(np.mean([a != b for a, b in measured])) if measured else float("nan")


def _worst(values: Sequence[float]) -> float:
    """Return the smallest; NaN when one is NaN, or there is none."""
    return float(np.min(values)) if values else float("nan")


def label_bias(heads: pd.DataFrame, truth: pd.DataFrame, min_iou: float = 0.4) -> dict[str, float]:
    """Return what labels err by on average: chance cancels, a wrong convention stays.

    Args:
        heads: rows of HEADS.
        truth: rows of TRUTH of the same images.
        min_iou: overlap from which a label is of a true head.

    Returns:
        `matched`: fraction of labels of a true head; `shift`: mean offset of the box, in boxes; of
        heads that face the camera (others have little to tell their rotation by) `turn_deg`:
        largest mean error of pitch, yaw and roll, and `yaw_correlation` with the truth. NaN with
        fewer than ten matches.
    """
    from ml.flame.geometry import HeadGeometry  # loads torch, which declaring checks must not
    from ml.imaging.boxes import box_iou, xywh_to_xyxy

    true_of = dict(iter(truth.groupby("sample_id")))
    mine, theirs = [], []
    for item, rows in heads.groupby("sample_id"):
        if item not in true_of:
            continue
        boxes = [
            xywh_to_xyxy(vectors(r["bbox_xywh"], 4)).astype(np.float32)
            for r in (rows, true_of[item])
        ]
        overlap = np.asarray(box_iou(boxes[0], boxes[1]))
        for row, best in enumerate(overlap.argmax(axis=1)):
            if overlap[row, best] >= min_iou:
                mine.append(rows.iloc[row])
                theirs.append(true_of[item].iloc[best])
    matched = len(mine) / max(len(heads), 1)
    pairs = pd.DataFrame(mine), pd.DataFrame(theirs)
    if len(mine) < 10:
        nothing = dict.fromkeys(("turn_deg", "shift", "yaw_correlation"), float("nan"))
        return {"matched": matched, **nothing}
    box, true_box = (vectors(p["bbox_xywh"], 4) for p in pairs)
    offset = (box[:, :2] + box[:, 2:] / 2 - true_box[:, :2] - true_box[:, 2:] / 2) / true_box[:, 2:]
    flame, true_flame = (
        vectors(p["flame"], NUM_FLAME_PARAMETERS).astype(np.float32) for p in pairs
    )
    have = np.isfinite(flame).all(axis=1)
    angles, true_angles = (
        view_angles_deg(HeadGeometry.rotations(f[have])) for f in (flame, true_flame)
    )
    facing = np.abs(true_angles[:, 1]) < BEHIND_DEG
    if facing.sum() < 10:
        turn, correlation = float("nan"), float("nan")
    else:
        error = ((angles - true_angles + 180.0) % 360.0 - 180.0)[facing]
        turn = float(np.abs(error.mean(axis=0)).max())
        correlation = float(np.corrcoef(angles[facing, 1], true_angles[facing, 1])[0, 1])
    shift = float(np.abs(offset.mean(axis=0)).max())
    return {"matched": matched, "turn_deg": turn, "shift": shift, "yaw_correlation": correlation}
