"""Bounds of a profile: between which values a statistic must lie, from conf/checks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pandas as pd
from pydantic import Field, model_validator

from ml.quality.findings import findings
from ml.records.config import StageConfig, parse_yaml

FOLDER: Final = Path("conf/checks")
UNMEASURED: Final = "unmeasured"
"""The file whose bounds a profile without one of its own takes: it only warns of guesses."""
Bound = tuple[float | None, float | None]


class DriftBounds(StageConfig):
    """How far a column may move from the stored reference profile."""

    max_ks: float = Field(gt=0, le=1)
    """Numbers: largest distance of the distribution functions (Kolmogorov and Smirnov)."""
    max_psi: float = Field(gt=0)
    """Words: largest population stability index; 0.25 is the usual sign of another population."""
    max_p: float = Field(gt=0, lt=1)
    """A distance counts only when chance gives one as large more rarely than this."""
    unasked: tuple[str, ...] = ()
    """Groups that are not compared: a model of seconds labels differently on every processor."""


class CheckBounds(StageConfig):
    """The bounds of a profile."""

    min_rows: int = Field(ge=1)
    """Statistics of fewer rows are left alone: they say nothing of the whole."""
    min_held_out: int = Field(ge=1)
    """Metrics of a model on fewer held-out images are shown and stop nothing."""
    random_models: bool = False
    """The models' weights are random, as in a rehearsal: what they label need fit no head."""
    drift: DriftBounds
    bounds: dict[str, dict[str, Bound | None]]
    """Group -> statistic -> lowest and highest value; null where the profile judges none."""
    only_warn: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Reason -> groups, or group.statistic, of which a value outside is shown and stops nothing."""

    def blocks(self, group: str, name: str) -> bool:
        """Return whether a statistic outside its bound stops what follows.

        Args:
            group: whose statistic it is.
            name: the statistic.
        """
        return not any({group, f"{group}.{name}"} & set(of) for of in self.only_warn.values())

    @model_validator(mode="after")
    def _ordered(self) -> CheckBounds:
        for group, values in self.bounds.items():
            for name, bound in values.items():
                if bound and None not in bound and bound[0] > bound[1]:  # type: ignore[operator]
                    raise ValueError(f"{group}.{name}: {bound[0]} is above {bound[1]}")
        known = {*self.bounds, *(f"{g}.{n}" for g, names in self.bounds.items() for n in names)}
        unknown = {name for names in self.only_warn.values() for name in names} - known
        if unknown:
            raise ValueError(f"only_warn: {sorted(unknown)}: no such group or group.statistic")
        return self


def active_profile(root: Path) -> str:
    """Return the profile that params.yaml names.

    Args:
        root: the project folder.

    Raises:
        FileNotFoundError: there is no params.yaml.
        ValueError: it names no profile.
    """
    values = parse_yaml((root / "params.yaml").read_text(encoding="utf-8")) or {}
    profile = values.get("profile") or (values.get("run") or {}).get("profile")
    if not isinstance(profile, str):
        raise ValueError(f"{root / 'params.yaml'}: no profile named; `vggheads profile` writes it")
    return profile


def read_bounds(root: Path, profile: str | None = None) -> CheckBounds:
    """Read the bounds of a profile, laid over those of the one that it extends.

    Args:
        root: the project folder.
        profile: its name; the active one if left out. One without a file takes
            `unmeasured.yaml`.

    Raises:
        FileNotFoundError: there is no folder of bounds.
        ValueError: a key is unknown or a bound is no pair of numbers; names file and key.
    """
    name = profile or active_profile(root)
    path = root / FOLDER / f"{name}.yaml"
    if not path.exists():
        path = path.with_stem(UNMEASURED)
    values = _composed(path, ())
    try:
        return CheckBounds.model_validate(values)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def judge(
    values: Mapping[str, float], bounds: CheckBounds, group: str, blocking: bool | None = None
) -> pd.DataFrame:
    """Compare statistics with their bounds.

    Args:
        values: statistic -> value.
        bounds: of the profile.
        group: whose statistics they are.
        blocking: judge only those that block, or only those that do not; all if left out.

    Returns:
        One finding a statistic: outside, no number where one is asked for, or without any bound.
    """
    known = bounds.bounds.get(group, {})
    values = {
        name: value
        for name, value in values.items()
        if blocking is None or bounds.blocks(group, name) == blocking
    }
    problems = []
    for name, value in values.items():
        if name not in known:
            problems.append(
                f"{group}.{name} = {value:.4g} has no bound; null says that none is meant"
            )
            continue
        problems.append(_outside(f"{group}.{name}", value, known[name]))
    return findings([f"{group}.{name}" for name in values], problems)


def _outside(name: str, value: float, bound: Bound | None) -> str:
    if bound is None:
        return ""
    low, high = (
        (-math.inf if bound[0] is None else bound[0]),
        (math.inf if bound[1] is None else bound[1]),
    )
    return "" if low <= value <= high else f"{name} = {value:.4g}, expected {low:g} to {high:g}"


def _composed(path: Path, seen: tuple[str, ...]) -> dict[str, Any]:
    if path.stem in seen:
        raise ValueError(
            f"{path.parent}: bounds extend each other: {' -> '.join((*seen, path.stem))}"
        )
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such bounds of checks")
    values = dict(parse_yaml(path.read_text(encoding="utf-8")) or {})
    parent = values.pop("extends", None)
    if parent is None:
        return values
    return _laid_over(_composed(path.with_stem(parent), (*seen, path.stem)), values)


def _laid_over(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _laid_over(merged[key], value) if both else value
    return merged
