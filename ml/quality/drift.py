"""Drift: how far the columns of a run are from a stored reference profile.

Numbers are compared by the two-sample test of Kolmogorov and Smirnov, whose distance is the effect
size; words by the population stability index. With many rows the smallest difference is certain,
with few the largest may be chance: a drift is what is both large and hardly chance.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from scipy.stats import chi2_contingency, ks_2samp

from ml.quality.bounds import FOLDER, DriftBounds
from ml.quality.distributions import Columns, Words
from ml.quality.findings import findings
from ml.records.atomic import write_json

REFERENCES: Final = FOLDER / "references"
NUM_QUANTILES: Final = 129
"""A column is stored as so many evenly spaced quantiles."""
_FLOOR: Final = 1e-4
"""Fraction assigned to an unseen word."""


class ReferenceError(ValueError):
    """A reference profile is damaged; the message names file and column."""


def summarise(columns: Columns, words: Words) -> dict[str, Any]:
    """Return what is stored of columns.

    Args:
        columns: name -> (N,) numbers; those that are not finite are left out.
        words: name -> words.

    Returns:
        JSON-serialisable: number and quantiles of each column, counts of each word.
    """
    levels = np.linspace(0, 1, NUM_QUANTILES)
    stored: dict[str, Any] = {"columns": {}, "words": {}}
    for name, values in sorted(columns.items()):
        finite = values[np.isfinite(values)]
        if len(finite):
            quantiles = [round(float(v), 6) for v in np.quantile(finite, levels)]
            stored["columns"][name] = {"count": len(finite), "quantiles": quantiles}
    for name, all_words in sorted(words.items()):
        if all_words:
            stored["words"][name] = dict(sorted(Counter(all_words).items()))
    return stored


def drift(
    columns: Columns, words: Words, reference: Mapping[str, Any], bounds: DriftBounds
) -> pd.DataFrame:
    """Compare columns with a stored profile.

    Args:
        columns: name -> (N,) numbers.
        words: name -> words.
        reference: what `summarise` stored.
        bounds: how far is too far.

    Returns:
        One finding a column: that it drifted with distance and chance, that it is new, or gone.

    Raises:
        ReferenceError: the reference does not hold what it should.
    """
    stored = summarise(columns, words)
    items, problems = [], []
    for kind in ("columns", "words"):
        for name in sorted(stored[kind].keys() | reference.get(kind, {}).keys()):
            items.append(name)
            if name not in stored[kind]:
                problems.append(f"{name} is in the reference and not in the data")
            elif name not in reference.get(kind, {}):
                problems.append(f"{name} is not in the reference; `vggheads accept-statistics`")
            elif kind == "columns":
                problems.append(_numbers(name, columns[name], reference[kind][name], bounds))
            else:
                problems.append(_words(name, stored[kind][name], reference[kind][name], bounds))
    return findings(items, problems)


def population_stability(first: Mapping[str, int], second: Mapping[str, int]) -> float:
    """Return the population stability index of two counts of words.

    Args:
        first: word -> count.
        second: word -> count.

    Returns:
        Sum over words of the difference of fractions times that of their logarithms; 0 when equal.
    """
    names = sorted(first.keys() | second.keys())
    one, two = (
        np.maximum(np.array([c.get(n, 0) for n in names]) / max(sum(c.values()), 1), _FLOOR)
        for c in (first, second)
    )
    return float(((one - two) * np.log(one / two)).sum())


def read_reference(root: Path, profile: str) -> dict[str, Any] | None:
    """Return the stored reference of a profile; None when none was accepted.

    Args:
        root: the project folder.
        profile: the profile's name.

    Raises:
        ReferenceError: the file is no JSON object.
    """
    path = root / REFERENCES / f"{profile}.json"
    if not path.exists():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ReferenceError(f"{path}: not JSON: {error}") from error
    if not isinstance(values, dict):
        raise ReferenceError(f"{path}: expected an object of groups, got {type(values).__name__}")
    return values


def write_reference(root: Path, profile: str, groups: Mapping[str, Any]) -> Path:
    """Store a run's columns as the profile's reference.

    Args:
        root: the project folder.
        profile: the profile's name.
        groups: group -> from `summarise`.

    Returns:
        The written file, which Git is to keep.
    """
    path = root / REFERENCES / f"{profile}.json"
    write_json(path, groups, indent=None)
    return path


def _numbers(
    name: str, values: np.ndarray, reference: Mapping[str, Any], bounds: DriftBounds
) -> str:
    try:
        quantiles, count = np.asarray(reference["quantiles"], np.float64), int(reference["count"])
    except (KeyError, TypeError, ValueError) as error:
        raise ReferenceError(f"reference column {name}: no count and quantiles: {error}") from error
    finite = values[np.isfinite(values)]
    distance = float(ks_2samp(finite, quantiles).statistic)
    # The quantiles represent all rows of the reference, so its real number determines chance.
    effective = len(finite) * count / (len(finite) + count)
    chance = min(1.0, 2.0 * float(np.exp(-2.0 * effective * distance**2)))
    if distance <= bounds.max_ks or chance >= bounds.max_p:
        return ""
    medians = np.median(finite), np.median(quantiles)
    return (
        f"{name} drifted: distance {distance:.2f} from the reference (chance {chance:.1g}), median "
        f"{medians[0]:.4g}, there {medians[1]:.4g}"
    )


def _words(
    name: str, counts: Mapping[str, int], reference: Mapping[str, int], bounds: DriftBounds
) -> str:
    index = population_stability(counts, reference)
    names = sorted(counts.keys() | reference.keys())
    table = np.array([[c.get(n, 0) for n in names] for c in (counts, reference)])
    chance = float(chi2_contingency(table).pvalue) if len(names) > 1 else 1.0
    if index <= bounds.max_psi or chance >= bounds.max_p:
        return ""
    return f"{name} drifted: stability index {index:.2f} (chance {chance:.1g})"
