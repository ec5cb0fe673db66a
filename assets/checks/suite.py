"""Suites of checks: expectations of Great Expectations on one table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd
from great_expectations.expectations.expectation import Expectation

from ml.records.workspace import Workspace

Severity = Literal["critical", "warning"]
Table = Callable[[Workspace, Sequence[str]], pd.DataFrame | Iterator[pd.DataFrame]]


@dataclass(frozen=True)
class Check:
    """One expectation.

    Attributes:
        name: name of the Dagster check, snake_case, says what holds.
        expectation: what must hold, with its arguments; carries `why`, `severity` and `name`.
        why: what it protects from; shown in Data Docs and Dagster.
        severity: `critical` blocks the asset and all that follows, `warning` is only shown.
    """

    name: str
    expectation: Expectation
    why: str
    severity: Severity = "critical"

    @property
    def column(self) -> str:
        """The judged column or columns; empty when the table as a whole is judged."""
        column = getattr(self.expectation, "column", None)
        return column or ", ".join(getattr(self.expectation, "column_list", ()))


@dataclass(frozen=True)
class Suite:
    """Expectations on one table.

    Attributes:
        name: name of the suite and of its Data Docs.
        table: makes the judged table from the given shards, in one piece or, where it grows with
            the dataset, in several; columns `shard` and `row` name the position of a row on disk.
        checks: the expectations.
    """

    name: str
    table: Table
    checks: tuple[Check, ...]

    def pieces(self, ws: Workspace, shards: Sequence[str]) -> Iterator[pd.DataFrame]:
        """Yield the judged table piece by piece; one piece at least, perhaps without rows."""
        found = self.table(ws, shards)
        yield from [found] if isinstance(found, pd.DataFrame) else found

    def check_name(self, check: Check) -> str:
        """Return the check's name on the asset's page; suites of one asset must not collide."""
        return f"{self.name}__{check.name}"


def critical(name: str, expectation: type[Expectation], why: str, **arguments: Any) -> Check:
    """Declare a check that blocks.

    Args:
        name: name of the Dagster check.
        expectation: a class of `great_expectations.expectations`, or of `assets.checks.custom`.
        why: what it protects from.
        **arguments: those of the expectation.

    Raises:
        pydantic.ValidationError: the expectation does not take such arguments.
    """
    return _check(name, expectation, why, "critical", arguments)


def warning(name: str, expectation: type[Expectation], why: str, **arguments: Any) -> Check:
    """Declare a check that is shown and does not block; arguments as for `critical`."""
    return _check(name, expectation, why, "warning", arguments)


def _check(
    name: str,
    expectation: type[Expectation],
    why: str,
    severity: Severity,
    arguments: dict[str, Any],
) -> Check:
    # Great Expectations sorts its results: `meta` identifies the check of each.
    tags: dict[str, Any] = {"notes": why, "meta": {"check": name}, "severity": severity}
    made = expectation(**arguments, **tags)
    return Check(name, made, why, severity)
