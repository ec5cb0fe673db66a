"""The benchmark report: one set of metrics, written as Markdown and as HTML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd

from ml.records.atomic import write_text
from ml.records.templates import template_environment

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Metric:
    """How a metric is shown: its key, its label, which way is better, and its format."""

    name: str
    label: str
    arrow: str
    format: str = "{:.1f}"


METRICS = (
    Metric("ap50", "AP50", "↑", "{:.3f}"),
    Metric("recall", "recall", "↑", "{:.3f}"),
    Metric("precision", "precision", "↑", "{:.3f}"),
    Metric("rotation_deg", "rotation error, mean, degrees", "↓"),
    Metric("rotation_median_deg", "rotation error, median, degrees", "↓"),
    Metric("rotation_over_90", "heads turned wrongly by over 90 degrees", "↓", "{:.0f}"),
    Metric("euler_mae_deg", "Euler MAE, degrees", "↓"),
    Metric("yaw_mae_deg", "yaw MAE, degrees", "↓"),
    Metric("pitch_mae_deg", "pitch MAE, degrees", "↓"),
    Metric("roll_mae_deg", "roll MAE, degrees", "↓"),
    Metric("nme_bbox", "NME, % of head box", "↓"),
    Metric("nme_aligned", "face error without pose and size, % of head", "↓"),
    Metric("shape_correlation", "correlation of 10 shape components", "↑", "{:.2f}"),
    Metric("expression_correlation", "correlation of 10 expression components", "↑", "{:.2f}"),
    Metric("failure_rate", "missed or NME over 5 %", "↓", "{:.3f}"),
    Metric("failure_rate_10", "missed or NME over 10 %", "↓", "{:.3f}"),
    Metric("num_missed", "missed heads", "↓", "{:.0f}"),
)


@dataclass(frozen=True)
class GroundTruth:
    """How a report words what predictions were compared with: the title, the heads, a warning."""

    title: str
    heads: str
    warning: str = ""


EXACT, PSEUDO = "exact", "pseudo-labels"
GROUND_TRUTHS = {
    EXACT: GroundTruth("Benchmark on held-out renders", "heads with ground truth"),
    PSEUDO: GroundTruth(
        "Benchmark on held-out pseudo-labels",
        "heads that the annotator labelled",
        "Nobody knows the heads of these images exactly. The metrics say how well the detector "
        "repeats the annotator's labels on images it was not trained on, not how far it is from "
        "the truth: what the annotator misses or gets wrong counts against a detector that does "
        "better.",
    ),
}

# The errors are grouped by these, so that a weakness of one group cannot hide in the mean.
_GROUPS: Mapping[str, tuple[str, tuple[float, ...]]] = {
    "yaw of the head, degrees": ("abs_yaw_deg", (0, 30, 60, 90, 180.1)),
    "size of the head, px": ("size_px", (0, 20, 40, 80, 10_000)),
    "visible fraction": ("visible", (0, 0.5, 0.8, 1.01)),
    "Monk skin tone": ("skin_tone", (1, 4, 7, 11)),
}


def group_table(pairs: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the mean errors of the found heads by yaw, size, visibility and skin tone.

    Args:
        pairs: the found heads of an `Evaluation`.

    Returns:
        Title -> table with columns group, heads, NME and rotation error; no table of what is not
        known of the heads.
    """
    pairs = pairs.assign(abs_yaw_deg=pairs["true_yaw_deg"].abs())
    tables = {}
    for title, (column, edges) in _GROUPS.items():
        if column not in pairs:
            continue
        lines = []
        for low, high in pairwise(edges):
            chosen = pairs[(pairs[column] >= low) & (pairs[column] < high)]
            if len(chosen):
                lines.append(
                    {
                        "group": _range(column, low, high),
                        "heads": len(chosen),
                        "NME %": round(float(chosen["nme_bbox"].mean()), 1),
                        "rotation deg": round(float(chosen["rotation_deg"].mean()), 1),
                    }
                )
        tables[title] = pd.DataFrame(lines, columns=["group", "heads", "NME %", "rotation deg"])
    return tables


def _range(column: str, low: float, high: float) -> str:
    if column == "skin_tone":
        return f"{low:.0f} to {high - 1:.0f}"
    if column == "size_px" and high > 1000:
        return f"from {low:.0f}"
    return (
        f"{low:g} to {np.floor(high * 100) / 100:g}"
        if column == "visible"
        else f"{low:g} to {int(high)}"
    )


def cell(metric: Metric, metrics: Mapping[str, float]) -> str:
    """Return one cell of the results table, with its interval where there is one."""
    value = metrics.get(metric.name, float("nan"))
    if not np.isfinite(value):
        return "n/a"
    text = metric.format.format(value)
    low, high = (metrics.get(f"{metric.name}_{end}", float("nan")) for end in ("low", "high"))
    if np.isfinite(low) and np.isfinite(high) and metric.name != "num_missed":
        text += f" [{metric.format.format(low)}, {metric.format.format(high)}]"
    return text


def results_frame(metrics: Mapping[str, Mapping[str, float]]) -> pd.DataFrame:
    """Return the results table: one row a metric, one column a model or baseline."""
    columns = {title: [cell(m, values) for m in METRICS] for title, values in metrics.items()}
    return pd.DataFrame(columns, index=pd.Index([f"{m.label} {m.arrow}" for m in METRICS]))


def write_report(
    folder: Path,
    metrics: Mapping[str, Mapping[str, float]],
    groups: Mapping[str, pd.DataFrame],
    labels: Mapping[str, str],
    images: Mapping[str, Path],
    metadata: Mapping[str, object],
    provenance: Mapping[str, str],
) -> dict[str, Path]:
    """Write `report.md` and `report.html`.

    Args:
        folder: where to write; images must lie below it.
        metrics: title of a model or baseline -> its metrics.
        groups: title -> errors by group, of the first model.
        labels: quality of the pseudo-labels, as text; empty where it cannot be measured.
        images: title -> path of an image.
        metadata: protocol, ground_truth (key of `GROUND_TRUTHS`), num_images, num_heads,
            num_ignored.
        provenance: date, commit, hardware, command, threads.

    Returns:
        Kind (`markdown`, `html`) -> path.
    """
    environment = template_environment(TEMPLATES)
    values = {
        "metadata": dict(metadata),
        "truth": GROUND_TRUTHS[str(metadata["ground_truth"])],
        "metrics": METRICS,
        "rows": [
            {"title": title, "cells": {m.name: cell(m, row) for m in METRICS}}
            for title, row in metrics.items()
        ],
        "groups": [
            {"title": title, "columns": list(table.columns), "lines": table.astype(str).to_numpy()}
            for title, table in groups.items()
        ],
        "labels": list(labels.items()),
        "images": [
            {"title": title, "path": path.relative_to(folder).as_posix()}
            for title, path in images.items()
        ],
        "provenance": list(provenance.items()),
    }
    written = {}
    for kind, name in (("markdown", "report.md"), ("html", "report.html")):
        path = folder / name
        write_text(path, environment.get_template(f"{name}.jinja").render(**values))
        written[kind] = path
    return written
