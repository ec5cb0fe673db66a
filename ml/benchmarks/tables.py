"""Score files compared with the paper's tables, and all metrics of a set side by side.

Everything becomes a `Grid` first, which is then written as Markdown, HTML and CSV.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ml.benchmarks.paper import PAPER_TABLES, Column, PaperTable
from ml.records.atomic import write_text
from ml.records.templates import template_environment

NOT_MEASURED = "not measured"
NOT_GIVEN = "not given"
ALL_MISSED = "every head missed"
TEMPLATES = Path(__file__).parent / "templates"
Origin = Literal["paper", "ours", "outside"]
_ENDS = ("_low", "_high")
HEADLINES: Mapping[str, tuple[str, ...]] = {
    "held-out-renders/1": ("ap50", "rotation_deg", "nme_bbox"),
    "held-out-pseudo-labels/1": ("ap50", "rotation_deg", "nme_bbox"),
    "coco": ("ap50",),
    "fddb": ("disc_tpr",),
    "wider-python": ("ap_easy", "ap_medium", "ap_hard"),
    "ours": ("rotation_deg",),
    "vggheads": ("euler_mae_deg",),
    "6drepnet": ("euler_mae_deg",),
    "hopenet_crop": ("euler_mae_deg",),
    "img2pose": ("euler_mae_deg",),
    "68": ("nme_68",),
    "dad-3dheads": ("nme_68_published", "z5_published", "chamfer_published", "rotation_frobenius"),
    "feng": ("scan_median_mm",),
    "now": ("scan_median_mm",),
    "now_robust": ("scan_median_mm",),
    "now_metrical": ("scan_median_mm",),
    "generation_quality": ("fid_64",),
    "cost": ("images_per_second",),
}
"""Protocol -> its headline metrics, the most important first."""


@dataclass(frozen=True)
class ModelResults:
    """Score files of one model.

    Attributes:
        model: its name.
        origin: `ours`, or `outside` for predictions of other methods' code.
        scores: contents of score files, as `vggheads score` and `vggheads benchmark` write them.
        labels: name of a label column -> text, such as the dataset it was trained on.
    """

    model: str
    origin: Origin
    scores: Sequence[Mapping[str, Any]]
    labels: Mapping[str, str]

    def find(self, column: Column) -> Mapping[str, Any] | None:
        """Return the scores of a column; of several the last."""
        fitting = [
            one
            for one in self.scores
            if one.get("set") == column.benchmark and one.get("protocol") == column.protocol
        ]
        return fitting[-1] if fitting else None


@dataclass(frozen=True)
class Cell:
    """One number of a grid.

    Attributes:
        text: as shown, also if nothing was measured.
        value: in the unit of the column, None where there is none.
        low: lower end of the 95 % interval.
        high: upper end.
        note: a doubt, or the number of missed heads.
    """

    text: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    note: str = ""


@dataclass(frozen=True)
class GridRow:
    """A row: its names, the origin of its numbers, and the numbers."""

    names: tuple[str, ...]
    origin: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Grid:
    """A table ready to be written.

    Attributes:
        name: for file names: letters, digits and underscores.
        title: heading.
        name_columns: headings of the columns of names.
        columns: group and heading of each column of numbers.
        rows: in order.
        notes: below the table.
    """

    name: str
    title: str
    name_columns: tuple[str, ...]
    columns: tuple[tuple[str, str], ...]
    rows: tuple[GridRow, ...]
    notes: tuple[str, ...] = ()


def read_scores(path: Path) -> dict[str, Any]:
    """Read a score file.

    Args:
        path: JSON with `set`, `protocol`, `model` and metrics.

    Returns:
        Its content.

    Raises:
        ValueError: not a JSON object, or set, protocol or model are missing.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: expected a JSON score file: {error}") from error
    lacking = [
        key
        for key in ("set", "protocol", "model")
        if not isinstance(content, dict) or not isinstance(content.get(key), str)
    ]
    if lacking:
        raise ValueError(
            f"{path}: expected an object with set, protocol and model, as `vggheads score` writes "
            f"it; {', '.join(lacking)} is missing"
        )
    return content


def paper_grid(table: PaperTable, results: Sequence[ModelResults]) -> Grid:
    """Return a table of the paper with our and outside results below.

    Args:
        table: one of `paper.PAPER_TABLES`.
        results: of any models; those that measured nothing of this table are left out.

    Returns:
        The grid; if no model measured anything, a row of ours says so.
    """
    rows = [
        GridRow(
            (row.model, *row.labels),
            "paper",
            tuple(
                Cell(NOT_GIVEN) if v is None else Cell(v.text, v.value, note=v.doubt)
                for v in row.values
            ),
        )
        for row in table.rows
    ]
    measured = [row for row in (_result_row(table, one) for one in results) if row]
    empty = tuple(Cell(NOT_MEASURED) for _ in table.columns)
    nothing = GridRow(("this project", *("" for _ in table.label_columns)), "ours", empty)
    return Grid(
        f"table_{table.number:02d}",
        f"Table {table.number}. {table.title}",
        ("Model", *table.label_columns),
        tuple((column.group, column.label + _arrow(column)) for column in table.columns),
        (*rows, *(measured or [nothing])),
        table.notes,
    )


def _result_row(table: PaperTable, result: ModelResults) -> GridRow | None:
    cells = tuple(_measured_cell(column, result.find(column)) for column in table.columns)
    if all(cell.text == NOT_MEASURED for cell in cells):
        return None
    labels = tuple(result.labels.get(name, "") for name in table.label_columns)
    return GridRow((result.model, *labels), result.origin, cells)


def _measured_cell(column: Column, scores: Mapping[str, Any] | None) -> Cell:
    value = _number(scores, column.metric)
    if scores is None or value is None:
        return Cell(_absent(scores, column.metric))
    low, high = (_number(scores, column.metric + end) for end in _ENDS)
    ends = None if low is None or high is None else (column.factor * low, column.factor * high)
    missed = _number(scores, "num_missed")
    asked = _number(scores, "num_heads")
    note = f"{missed:,.0f} of {asked:,.0f} heads missed" if missed and asked else ""
    return _cell(column.factor * value, ends, column.decimals, note)


def _absent(scores: Mapping[str, Any] | None, metric: str) -> str:
    """Return the text of an empty cell: not measured, or no detection."""
    missed, asked = (_number(scores, name) for name in ("num_missed", "num_heads"))
    if scores is not None and metric in scores and asked and missed == asked:
        return ALL_MISSED
    return NOT_MEASURED


def _cell(value: float, ends: tuple[float, float] | None, decimals: int, note: str = "") -> Cell:
    text = f"{value:,.{decimals}f}"
    if ends is None:
        return Cell(text, value, note=note)
    text += f" [{ends[0]:,.{decimals}f}, {ends[1]:,.{decimals}f}]"
    return Cell(text, value, *ends, note=note)


def _number(scores: Mapping[str, Any] | None, name: str) -> float | None:
    """Return a finite number of a score file; null and NaN mean not measured."""
    value = None if scores is None else scores.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _arrow(column: Column) -> str:
    return {True: " ↑", False: " ↓", None: ""}[column.higher_is_better]


def summary_grids(results: Sequence[ModelResults]) -> list[Grid]:
    """Return one summary table: the first headline metric of each set and protocol.

    Args:
        results: of any models.

    Returns:
        The table; none if nothing was measured.
    """
    # sizes with counted costs alone have no headline metric and need no column
    found = {(one.origin, one.model): _headlines(one) for one in results}
    shown = [one for one in results if found[one.origin, one.model]]
    rows = []
    for name, protocol, metric in dict.fromkeys(key for keys in found.values() for key in keys):
        column = Column("", metric, None, name, protocol, metric)
        cells = tuple(_plain_cell(metric, one.find(column)) for one in shown)
        rows.append(GridRow((name, protocol, metric), "", cells))
    columns = [(one.origin, one.model) for one in shown]
    if not rows:
        return []
    heads = ("Set", "Protocol", "Metric")
    return [Grid("summary", "What was measured", heads, tuple(columns), tuple(rows))]


def _headlines(result: ModelResults) -> list[tuple[str, str, str]]:
    """Set, protocol and first headline of all scores that have one."""
    named = [
        (str(one["set"]), str(one["protocol"]), HEADLINES.get(str(one["protocol"]), ("",))[0], one)
        for one in result.scores
    ]
    return [
        (name, protocol, metric)
        for name, protocol, metric, one in named
        if metric in one and (protocol != "cost" or _number(one, metric) is not None)
    ]


def set_grids(results: Sequence[ModelResults]) -> list[Grid]:
    """Return one grid a set: every metric and count of every protocol, models side by side.

    Args:
        results: of any models.

    Returns:
        Grids in order of the sets' names.
    """
    sets = sorted({str(one["set"]) for result in results for one in result.scores})
    return [_set_grid(name, results) for name in sets]


def _set_grid(name: str, results: Sequence[ModelResults]) -> Grid:
    models: list[ModelResults] = []
    keys: dict[tuple[str, str], None] = {}
    for result in results:
        own = [one for one in result.scores if one["set"] == name]
        if own:
            models.append(result)
        for one in own:
            keys |= dict.fromkeys((str(one["protocol"]), key) for key in _metric_names(one))
    rows = []
    for protocol, key in sorted(keys, key=lambda pair: (pair[0], pair[1].startswith("num_"))):
        column = Column("", key, None, name, protocol, key)
        cells = tuple(_plain_cell(key, model.find(column)) for model in models)
        rows.append(GridRow((protocol, key), "", cells))
    notes = dict.fromkeys(
        f"{one['protocol']}: {note}"
        for model in models
        for one in model.scores
        if one["set"] == name
        for note in one.get("notes", ())
    )
    return Grid(
        f"set_{_safe(name)}",
        f"All metrics of {name}",
        ("Protocol", "Metric"),
        tuple((model.origin, model.model) for model in models),
        tuple(rows),
        tuple(notes),
    )


def _metric_names(scores: Mapping[str, Any]) -> list[str]:
    return [
        name
        for name, value in scores.items()
        if (value is None or (isinstance(value, int | float) and not isinstance(value, bool)))
        and not name.endswith(_ENDS)
    ]


def _plain_cell(name: str, scores: Mapping[str, Any] | None) -> Cell:
    value = _number(scores, name)
    if value is None:
        return Cell(_absent(scores, name))
    low, high = (_number(scores, name + end) for end in _ENDS)
    ends = None if low is None or high is None else (low, high)
    return _cell(value, ends, 0 if name.startswith("num_") else 3)


def _safe(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name)


def to_csv(grid: Grid) -> str:
    """Return a grid as CSV: names, origin, and for each column its value, interval and note."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    heads = [f"{group} {label}".strip() for group, label in grid.columns]
    parts = ("", " low", " high", " note")
    writer.writerow(
        [*grid.name_columns, "Origin", *(head + part for head in heads for part in parts)]
    )
    for row in grid.rows:
        numbers: list[object] = []
        for cell in row.cells:
            value = cell.text if cell.value is None else repr(cell.value)
            ends = ("" if end is None else repr(end) for end in (cell.low, cell.high))
            numbers += [value, *ends, cell.note]
        writer.writerow([*row.names, row.origin, *numbers])
    return out.getvalue()


def write_tables(
    folder: Path,
    results: Sequence[ModelResults],
    provenance: Mapping[str, str],
    pages: Mapping[str, str] | None = None,
) -> dict[str, Path]:
    """Write all of the paper's tables and one table per set; CSV files of other tables are removed.

    Args:
        folder: receives `tables.md`, `tables.html`, and a CSV a table.
        results: of any models; may be empty.
        provenance: date, commit, hardware, command and further context of the numbers.
        pages: title -> page next to the tables, such as a set's gallery; relative to `folder`.

    Returns:
        Name of a file -> its path.

    Raises:
        ValueError: two models have one name and origin.
    """
    names = [(result.origin, result.model) for result in results]
    if len(set(names)) != len(names):
        raise ValueError(f"tables: models must have different names, got {names}")
    papers = [paper_grid(table, results) for table in PAPER_TABLES.values()]
    grids = [*summary_grids(results), *papers, *set_grids(results)]
    environment = template_environment(TEMPLATES)
    environment.filters["in_table"] = _in_table
    values = {
        "grids": [_numbered(grid) for grid in grids],
        "pages": list((pages or {}).items()),
        "provenance": list(provenance.items()),
    }
    for old in folder.glob("*.csv"):
        old.unlink()
    written = {}
    for name in ("tables.md", "tables.html"):
        written[name] = folder / name
        write_text(written[name], environment.get_template(f"{name}.jinja").render(**values))
    for grid in grids:
        written[f"{grid.name}.csv"] = folder / f"{grid.name}.csv"
        write_text(written[f"{grid.name}.csv"], to_csv(grid))
    return written


def _in_table(text: str) -> str:
    """Escape text for a cell of a Markdown table: no bars, no line breaks.

    No tags.
    """
    for sign, written in (("\\", "\\\\"), ("|", "\\|"), ("<", "&lt;"), (">", "&gt;")):
        text = text.replace(sign, written)
    return " ".join(text.split())


def _numbered(grid: Grid) -> dict[str, Any]:
    """Return a grid with the notes of its cells numbered, as the templates show them."""
    footnotes: dict[str, int] = {}
    rows = []
    for row in grid.rows:
        cells = [
            {
                "text": cell.text,
                "missing": cell.value is None,
                "mark": footnotes.setdefault(cell.note, len(footnotes) + 1) if cell.note else 0,
            }
            for cell in row.cells
        ]
        rows.append({"names": row.names, "origin": row.origin, "cells": cells})
    spans: list[tuple[str, int]] = []
    for group, _ in grid.columns:
        if spans and spans[-1][0] == group:
            spans[-1] = (group, spans[-1][1] + 1)
        else:
            spans.append((group, 1))
    return {
        "name": grid.name,
        "title": grid.title,
        "name_columns": grid.name_columns,
        "spans": spans,
        "columns": grid.columns,
        "has_origin": any(row.origin for row in grid.rows),
        "rows": rows,
        "footnotes": [(number, text) for text, number in footnotes.items()],
        "notes": grid.notes,
    }
