"""The README's tables of results, from a finished demo: `make figures` writes them.

    python -m docs.results --project .

Medians and ranges come from `vggheads study seeds`, if it was run; everything else from the
benchmark's metrics and report.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from ml.dataset.card import markdown_table
from ml.evaluation.report import METRICS, Metric, cell, read_group
from ml.records.atomic import write_text

README: Final = Path(__file__).parents[1] / "README.md"
_BEGIN, _END = "<!-- results -->\n", "<!-- /results -->\n"
_COLUMNS: Final = {
    "pseudo_labels": "pseudo-labels",
    "pseudo_labels_flip": "pseudo-labels + flip",
    "mean_head": "mean head",
    "always_frontal": "always frontal",
}
_ROWS: Final = ("ap50", "recall", "precision", "rotation_deg", "rotation_median_deg", "nme_bbox")
#: What the baselines take over from the detector.
_SAME: Final = {
    **dict.fromkeys(("ap50", "recall", "precision"), ("mean_head", "always_frontal")),
    **dict.fromkeys(("rotation_deg", "rotation_median_deg"), ("mean_head",)),
}
TURN: Final = "rotation of the head from the camera, degrees"
_TURN_COLUMNS: Final = {
    "group": "view angle, degrees",
    "heads": "heads",
    "found %": "found, %",
    "rotation deg": "rotation error, mean",
    "always frontal: rotation deg": "always frontal",
    "NME %": "NME, %",
    "always frontal: NME %": "NME, %, always frontal",
}

Values = Mapping[str, float | None]
_Cell = Callable[[str, Metric], str]


def tables(project: Path) -> str:
    """Return the tables of a finished demo as Markdown.

    Args:
        project: the folder with `data/`.

    Raises:
        FileNotFoundError: the benchmark was not run.
    """
    benchmark = project / "data" / "benchmark"
    values = _read(benchmark)
    parts = []
    seeds = sorted((project / "data" / "studies" / "seeds").glob("*/evaluation/data/benchmark"))
    if seeds:
        found = [_read(folder) for folder in seeds]
        title = f"median (range) of {len(found)} trainings"
        parts += [_table(title, lambda model, metric: _spread(found, model, metric))]
        parts += ["The first of them, with 95 % intervals, and by view angle:"]
    title = f"{values['num_images']:.0f} held-out renders, "
    title += f"{values['pseudo_labels.num_heads']:.0f} heads"
    parts += [_table(title, lambda model, metric: _interval(values, model, metric))]
    turns = read_group(benchmark / "report.md", TURN)
    parts += [markdown_table(turns[list(_TURN_COLUMNS)].rename(columns=_TURN_COLUMNS))]
    return "\n\n".join(parts) + "\n"


def replaced(text: str, new: str) -> str:
    """Return the README with other tables.

    Args:
        text: the README.
        new: the tables.

    Raises:
        ValueError: the README does not mark their place.
    """
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not (begin and end):
        raise ValueError(f"README.md: expected tables between {_BEGIN!r} and {_END!r}")
    return before + begin + new + end + after


def _read(benchmark: Path) -> Values:
    values: Values = json.loads((benchmark / "metrics.json").read_text())
    return values


def _table(title: str, cell_of: _Cell) -> str:
    metrics = [metric for metric in METRICS if metric.name in _ROWS]
    rows = [[f"{m.label} {m.arrow}", *_cells(m, cell_of)] for m in metrics]
    return markdown_table(pd.DataFrame(rows, columns=[title, *_COLUMNS.values()]))


def _cells(metric: Metric, cell_of: _Cell) -> Iterator[str]:
    for model in _COLUMNS:
        if model in _SAME.get(metric.name, ()):
            yield "same rotations" if "rotation" in metric.name else "same boxes"
        else:
            yield cell_of(model, metric)


def _interval(values: Values, model: str, metric: Metric) -> str:
    return cell(metric, {key: _number(values, model, key) for key in _keys(metric)})


def _spread(found: Sequence[Values], model: str, metric: Metric) -> str:
    numbers = [_number(values, model, metric.name) for values in found]
    shown = [metric.format.format(f(numbers)) for f in (np.median, np.min, np.max)]
    return f"{shown[0]} ({shown[1]} to {shown[2]})"


def _keys(metric: Metric) -> tuple[str, ...]:
    return metric.name, f"{metric.name}_low", f"{metric.name}_high"


def _number(values: Values, model: str, name: str) -> float:
    value = values.get(f"{model}.{name}")
    return float("nan") if value is None else value


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the tables.

    Args:
        arguments: those of the command line by default.

    Returns:
        Exit status.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--project", type=Path, default=README.parent, help="a finished demo")
    options = parser.parse_args(arguments)
    write_text(README, replaced(README.read_text(), tables(options.project)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
