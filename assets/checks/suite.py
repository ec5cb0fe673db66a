"""What a suite of checks is. Declarative: Great Expectations is imported only when one runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from ml.records.workspace import Workspace

Severity = Literal["critical", "warning"]
Table = Callable[[Workspace, Sequence[str]], pd.DataFrame]


@dataclass(frozen=True)
class Check:
    """One expectation.

    Attributes:
        name: name of the Dagster check, snake_case, says what holds.
        expectation: class in `great_expectations.expectations`, or in `assets.checks.custom`.
        arguments: its arguments.
        why: what it protects from; shown in Data Docs and Dagster.
        severity: `critical` blocks the asset and all that follows, `warning` is only shown.
    """

    name: str
    expectation: str
    arguments: dict[str, Any]
    why: str
    severity: Severity = "critical"


@dataclass(frozen=True)
class Suite:
    """Expectations on one table.

    Attributes:
        name: name of the suite and of its Data Docs.
        table: makes the judged table from the given shards; columns `shard` and `row` name where
            a row lies on disk.
        checks: the expectations.
    """

    name: str
    table: Table
    checks: tuple[Check, ...]

    def check_name(self, check: Check) -> str:
        """The check's name on the asset's page; suites of one asset must not collide."""
        return f"{self.name}__{check.name}"


def critical(name: str, expectation: str, why: str, **arguments: Any) -> Check:
    """A check that blocks."""
    return Check(name, expectation, arguments, why, "critical")


def warning(name: str, expectation: str, why: str, **arguments: Any) -> Check:
    """A check that is shown and does not block."""
    return Check(name, expectation, arguments, why, "warning")
