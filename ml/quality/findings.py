"""Findings: one row an item that was judged, with what is wrong with it in words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

COLUMNS = ("item", "problem")


def findings(items: Iterable[object], problems: Iterable[str]) -> pd.DataFrame:
    """Make a table of findings.

    Args:
        items: what was judged: ids.
        problems: what is wrong with each, naming it; empty when it is as it should be.

    Returns:
        Columns `item` and `problem`, text.

    Raises:
        ValueError: numbers of items and problems differ.
    """
    rows = list(zip(items, problems, strict=True))
    return pd.DataFrame(
        {
            "item": [str(item) for item, _ in rows],
            "problem": [str(problem) for _, problem in rows],
        },
        dtype=object,
    )


def joined(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return findings of several rules about the same things, one after the other.

    Args:
        parts: from `findings`.
    """
    return pd.concat([findings([], []), *parts], ignore_index=True)


def agree(
    rows: pd.DataFrame,
    source: pd.DataFrame,
    on: Sequence[str],
    columns: Sequence[str],
    here: str,
    there: str,
    tolerance: float = 0.0,
) -> pd.DataFrame:
    """Return whether what a table repeats of another is what the other says.

    Args:
        rows: the table that repeats; columns `on` and `columns`.
        source: the table that is repeated; columns `on`, unique, and `columns`.
        on: the columns that name a row of the source.
        columns: scalar or vector columns that must be equal.
        here: what the first table is called.
        there: what the source is called.
        tolerance: largest difference of numbers.

    Returns:
        One finding a row of `rows`: that the source does not know it, or the first column that
        differs with both values.
    """
    known = {
        key: position
        for position, key in enumerate(source[list(on)].itertuples(index=False, name=None))
    }
    mine = {column: rows[column].tolist() for column in columns}
    theirs = {column: source[column].tolist() for column in columns}
    items, problems = [], []
    for row, key in enumerate(rows[list(on)].itertuples(index=False, name=None)):
        item = "#".join(str(part) for part in key)
        items.append(item)
        if key not in known:
            problems.append(f"{item} of {here} is not in {there}")
            continue
        at = known[key]
        problem = ""
        for column in columns:
            if not _equal(mine[column][row], theirs[column][at], tolerance):
                values = _short(mine[column][row]), _short(theirs[column][at])
                problem = f"{item}: {column} is {values[0]} in {here} and {values[1]} in {there}"
                break
        problems.append(problem)
    return findings(items, problems)


def _equal(first: object, second: object, tolerance: float) -> bool:
    if _missing(first) or _missing(second):
        return _missing(first) and _missing(second)
    if np.ndim(first) or np.ndim(second):  # type: ignore[arg-type]
        a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
        return a.shape == b.shape and bool((np.abs(a - b) <= tolerance).all())
    if isinstance(first, float | np.floating) or isinstance(second, float | np.floating):
        return abs(float(first) - float(second)) <= tolerance  # type: ignore[arg-type]
    return first == second


def _missing(value: object) -> bool:
    return value is None or (isinstance(value, float | np.floating) and bool(np.isnan(value)))


def _short(value: object) -> str:
    if np.ndim(value):  # type: ignore[arg-type]
        numbers = np.asarray(value, np.float64).ravel()
        text = ", ".join(f"{number:.4g}" for number in numbers[:4])
        return f"[{text}{', ...' if len(numbers) > 4 else ''}]"
    return f"{value:.6g}" if isinstance(value, float | np.floating) else repr(value)
