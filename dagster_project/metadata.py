"""A stage's results as Dagster metadata: counts, tables, images, links."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import dagster as dg
import numpy as np
import pandas as pd

from assets.checks.validation import Outcome
from dagster_project.markers import Marker
from dagster_project.reports import report_url

logger = logging.getLogger(__name__)

FILES_URL = "/project"
"""Where the server of `vggheads ui` gives out image files of the project."""
MAX_TABLE_ROWS = 200

Metadata = dict[str, dg.MetadataValue]


def unit_metadata(root: Path, marker: Marker) -> Metadata:
    """Return the metadata of one finished unit: its counts, metadata and images."""
    values: Metadata = {
        "samples in": dg.MetadataValue.int(marker.num_in),
        "samples out": dg.MetadataValue.int(marker.num_out),
        "samples excluded": dg.MetadataValue.int(marker.num_excluded),
    }
    values.update({name: _linked(root, value) for name, value in marker.metadata.items()})
    for name, path in marker.images.items():
        values[f"image: {name}"] = figure(root, path)
    return values


def shard_table(markers: Mapping[str, Marker]) -> dg.TableMetadataValue:
    """Return one row per shard: counts and metadata."""
    rows = [
        {
            "shard": unit,
            "in": marker.num_in,
            "out": marker.num_out,
            "excluded": marker.num_excluded,
            **marker.metadata,
        }
        for unit, marker in markers.items()
    ]
    return table(pd.DataFrame(rows))


def table(frame: pd.DataFrame) -> dg.TableMetadataValue:
    """Return a data frame as a Dagster table; its first `MAX_TABLE_ROWS` rows."""
    if not isinstance(frame.index, pd.RangeIndex):
        frame = frame.reset_index()
    records = [
        dg.TableRecord({str(key): _cell(value) for key, value in row.items()})
        for row in frame.head(MAX_TABLE_ROWS).to_dict("records")
    ]
    columns = [dg.TableColumn(str(name), _column_type(frame[name])) for name in frame.columns]
    return dg.MetadataValue.table(records, dg.TableSchema(columns))


def figure(root: Path, name: str) -> dg.MetadataValue:
    """Return a reference to an image file, which `vggheads ui` shows; the event log holds no pixel.

    The event log cannot be edited: an image in it could not be taken down.

    Args:
        root: the project folder.
        name: the file's path, relative to it.
    """
    if not (root / name).is_file():
        return dg.MetadataValue.text(f"{name} (removed)")
    return dg.MetadataValue.md(f"![{Path(name).stem}]({FILES_URL}/{quote(name)})\n\n`{name}`")


def check_metadata(outcome: Outcome, root: Path, docs: str) -> Metadata:
    """Return the metadata of a check: its reason, the observed value, the rows that break it.

    Args:
        outcome: the check's result.
        root: the project folder.
        docs: the folder of Data Docs in it.
    """
    values: Metadata = {
        "why": dg.MetadataValue.text(outcome.why),
        "observed": dg.MetadataValue.text(outcome.observed),
        "rows checked": dg.MetadataValue.int(outcome.num_rows),
    }
    page = f"{docs}/{outcome.suite}/index.html"
    if (root / page).exists():
        values["data docs"] = dg.MetadataValue.url(report_url(page))
    if outcome.unexpected:
        values["rows that break it"] = dg.MetadataValue.int(outcome.num_unexpected)
        values["first of them"] = table(pd.DataFrame(list(outcome.unexpected)))
    return values


def _linked(root: Path, value: object) -> dg.MetadataValue:
    """Return a value; the path of a page as a link to where `vggheads ui` serves it."""
    if isinstance(value, str) and value.endswith(".html") and (root / value).is_file():
        return dg.MetadataValue.url(report_url(value))
    return _scalar(value)


def _scalar(value: object) -> dg.MetadataValue:
    if isinstance(value, bool):
        return dg.MetadataValue.bool(value)
    if isinstance(value, int):
        return dg.MetadataValue.int(value)
    if isinstance(value, float):
        return dg.MetadataValue.float(value)
    return dg.MetadataValue.text(str(value))


def _cell(value: object) -> str | int | float | bool | None:
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return None if np.isnan(value) else round(value, 6)
    return str(value)


def _column_type(column: pd.Series) -> str:
    if pd.api.types.is_bool_dtype(column):
        return "bool"
    if pd.api.types.is_integer_dtype(column):
        return "int"
    return "float" if pd.api.types.is_float_dtype(column) else "string"
