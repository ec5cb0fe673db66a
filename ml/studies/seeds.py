"""The same training with other seeds: which differences between two detectors are chance."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from ml.evaluation.groups import ERRORS, TONES
from ml.evaluation.report import METRICS, read_group
from ml.records.atomic import write_text
from ml.records.workspace import Workspace
from ml.studies.variants import OpenRun, Variant, run_variants

NUM_SEEDS: Final = 3
SUMMARY_NAME: Final = "seeds.md"
_INTERVAL: Final = re.compile(r"_(low|high)$")


def run_seeds(ws: Workspace, values: Mapping[str, Mapping[str, Any]], open_run: OpenRun) -> Path:
    """Train the detector with two more seeds, and write medians and ranges over all three.

    The images, labels and everything before the training stay: the range is that of the training.

    Args:
        ws: the workspace; the pipeline must have run up to `trained_model`.
        values: effective values, section -> key -> value.
        open_run: opens an MLflow run for a training.

    Returns:
        The folder with the tables and `seeds.md`.

    Raises:
        FileNotFoundError: an input is missing.
    """
    seeds = range(ws.seed, ws.seed + NUM_SEEDS)
    own = ws.stage_dir("trained_model")
    variants = [
        Variant(f"seed {seed}", seed=seed, trained=own if seed == ws.seed else None)
        for seed in seeds
    ]
    folder = run_variants("seeds", ws, values, variants, open_run)
    measured = {
        variant.name: folder / variant.slug / "evaluation" / "data" / "benchmark"
        for variant in variants
    }
    found = {name: _metrics(place) for name, place in measured.items()}
    tones = {name: read_group(place / "report.md", TONES) for name, place in measured.items()}
    write_text(folder / SUMMARY_NAME, summary(found) + skin_tones(tones))
    return folder


def summary(found: Mapping[str, Mapping[str, float | None]]) -> str:
    """Return medians and ranges as Markdown, a table for each model and baseline.

    Args:
        found: name of a training -> `model.metric` -> value, None for no number.

    Returns:
        Tables with columns metric, median, lowest, highest and one for each training.
    """
    keys = {key for metrics in found.values() for key in metrics if "." in key}
    models = sorted({key.split(".")[0] for key in keys if not _INTERVAL.search(key)})
    lines = [f"# {len(found)} trainings on the same data", ""]
    for model in models:
        lines += [f"## {model}", "", *_heading(found)]
        for metric in METRICS:
            numbers = [_number(row.get(f"{model}.{metric.name}")) for row in found.values()]
            if not np.isnan(numbers).all():
                lines.append(_row(f"{metric.label} {metric.arrow}", metric.format, numbers))
        lines.append("")
    return "\n".join(lines)


def skin_tones(found: Mapping[str, pd.DataFrame]) -> str:
    """Return medians and ranges of the errors by skin tone as Markdown.

    Args:
        found: name of a training -> the benchmark's table of its first model, as text.

    Returns:
        A table like those of `summary`; empty where the tones of the heads are not known.
    """
    first = next(iter(found.values()))
    if first.empty:
        return ""
    lines = [f"## {TONES}", "", *_heading(found)]
    for group, heads in zip(first["group"], first["heads"], strict=True):
        for error in ERRORS:
            # A mean, then its interval.
            texts = [table.loc[table["group"] == group, error].item() for table in found.values()]
            means = [float(text.split()[0].replace("n/a", "nan")) for text in texts]
            lines.append(_row(f"{group} ({heads} heads), {error} ↓", "{:.1f}", means))
    return "\n".join([*lines, ""])


def _heading(names: Collection[str]) -> list[str]:
    return [
        f"| | median | lowest | highest | {' | '.join(names)} |",
        "|---|" + "---|" * (3 + len(names)),
    ]


def _row(label: str, template: str, numbers: Sequence[float]) -> str:
    cells = [np.median(numbers), np.min(numbers), np.max(numbers), *numbers]
    return f"| {label} | {' | '.join(_cell(template, float(cell)) for cell in cells)} |"


def _cell(template: str, value: float) -> str:
    return template.format(value) if np.isfinite(value) else "n/a"


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def _metrics(folder: Path) -> dict[str, float | None]:
    metrics: dict[str, float | None] = json.loads((folder / "metrics.json").read_text())
    return metrics
