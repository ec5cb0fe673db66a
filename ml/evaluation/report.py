"""The benchmark report: one set of metrics, written as Markdown and as HTML."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ml.records.atomic import write_text
from ml.records.templates import template_environment

TEMPLATES = Path(__file__).parent / "templates"
_MADE = "<!-- made -->"
"""Place at which `standalone` inserts time and place of the report."""


@dataclass(frozen=True)
class Metric:
    """Presentation of a metric: its key, its label, the better direction, and its format."""

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
    Metric("rotation_over_90", "heads with a rotation error over 90 degrees", "↓", "{:.0f}"),
    Metric("euler_mae_deg", "Euler MAE, degrees", "↓"),
    Metric("yaw_mae_deg", "yaw MAE, degrees", "↓"),
    Metric("pitch_mae_deg", "pitch MAE, degrees", "↓"),
    Metric("roll_mae_deg", "roll MAE, degrees", "↓"),
    Metric("nme_bbox", "NME, % of head box", "↓"),
    Metric("nme_aligned", "vertex error after alignment of pose and size, % of head", "↓"),
    Metric("shape_correlation", "correlation of 10 shape components", "↑", "{:.2f}"),
    Metric("expression_correlation", "correlation of 10 expression components", "↑", "{:.2f}"),
    Metric("failure_rate", "missed or NME over 5 %", "↓", "{:.3f}"),
    Metric("failure_rate_10", "missed or NME over 10 %", "↓", "{:.3f}"),
    Metric("num_missed", "missed heads", "↓", "{:.0f}"),
)


@dataclass(frozen=True)
class GroundTruth:
    """A report's words for its reference labels: the title, the heads, a warning."""

    title: str
    heads: str
    warning: str = ""


EXACT, PSEUDO = "exact", "pseudo-labels"
GROUND_TRUTHS = {
    EXACT: GroundTruth("Benchmark on held-out renders", "heads with ground truth"),
    PSEUDO: GroundTruth(
        "Benchmark on held-out pseudo-labels",
        "heads that the annotator labelled",
        "There is no ground truth for these images. The metrics measure how well the detector "
        "reproduces the annotator's labels on images it was not trained on, not its accuracy: a "
        "detector that avoids an error of the annotator is penalised.",
    ),
}


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
    """Return the results table: one row per metric, one column per model or baseline."""
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
    charts: Mapping[str, str] | None = None,
    remarks: Mapping[str, str] | None = None,
) -> dict[str, Path]:
    """Write `report.md` and `report.html`, and the charts as `charts/*.svg`.

    Args:
        folder: where to write; images must be below it.
        metrics: title of a model or baseline -> its metrics.
        groups: title -> errors by group, of the first model.
        labels: quality of the pseudo-labels, as text; empty where it cannot be measured.
        images: title -> path of an image.
        metadata: protocol, ground_truth (key of `GROUND_TRUTHS`), num_images, num_heads,
            num_ignored.
        provenance: seed, versions, command: independent of the time of the report.
        charts: title -> SVG.
        remarks: title of a group table or image -> a sentence that belongs below it.

    Returns:
        Kind (`markdown`, `html`) -> path.
    """
    environment = template_environment(TEMPLATES)
    files = {title: f"charts/{number:02}.svg" for number, title in enumerate(charts or {}, start=1)}
    for title, name in files.items():
        write_text(folder / name, (charts or {})[title])
    values = {
        "charts": [
            {"title": title, "svg": svg, "path": files[title]}
            for title, svg in (charts or {}).items()
        ],
        "remarks": dict(remarks or {}),
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


def read_group(report: Path, title: str) -> pd.DataFrame:
    """Return a table of errors by group from a report that `write_report` wrote.

    Args:
        report: report.md.
        title: the table's.

    Returns:
        Its cells as text; empty if the report has no such table.
    """
    _, _, section = report.read_text(encoding="utf-8").partition(f"### {title}\n\n")
    lines = section.partition("\n\n")[0].splitlines()
    cells = [line.strip("| ").split(" | ") for line in lines]
    return pd.DataFrame(cells[2:], columns=cells[0]) if cells else pd.DataFrame()


def standalone(page: Path, made: Mapping[str, str]) -> str:
    """Return a report as one file, with embedded images and its origin.

    Args:
        page: report.html, next to its images.
        made: date, commit, machine: they differ between runs.

    Raises:
        ValueError: the page has no place for it, so `write_report` did not write it.
    """
    text = page.read_text()
    if text.count(_MADE) != 1:
        raise ValueError(f"{page}: expected one line {_MADE!r}; make the stage again")
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{html.escape(value)}</td></tr>"
        for name, value in made.items()
    )

    def inside(match: re.Match[str]) -> str:
        data = base64.b64encode((page.parent / html.unescape(match[1])).read_bytes()).decode()
        return f'src="data:image/jpeg;base64,{data}"'

    return re.sub(r'src="(images/[^"]+\.jpg)"', inside, text.replace(_MADE, rows))
