"""Run a suite with Great Expectations and locate failures by shard and row.

A table comes in pieces: expectations of single rows are judged piece by piece and their counts
added; for the others, uniqueness, quantiles and the number of rows, the columns that they need are
kept of all pieces. So everything is exact, and memory grows by those columns alone.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import great_expectations as gx
import pandas as pd
import pyarrow as pa
from great_expectations import expectations as gxe
from great_expectations.data_context.types.base import ProgressBarsConfig
from great_expectations.expectations.expectation import ColumnMapExpectation

from assets.checks.pages import write_pages
from assets.checks.suite import Check, Severity, Suite
from assets.checks.tables import PIECE_ROWS
from ml.records.workspace import Workspace

MAX_ROWS = 20
"""Unexpected rows named in a result; the rest is counted."""
ROW = ["shard", "row"]
_ABOUT_OTHER_ROWS = (gxe.ExpectColumnValuesToBeUnique, gxe.ExpectCompoundColumnsToBeUnique)
"""Judge rows by other rows, and so need all of them."""


@dataclass(frozen=True)
class Outcome:
    """The result of one check.

    Attributes:
        suite: the suite's name.
        name: the check's name, unique on the asset.
        passed: whether it holds.
        severity: whether a failure blocks.
        why: what it protects from.
        observed: the value that was seen, as text.
        unexpected: rows that break it: shard, row, column, value; at most `MAX_ROWS`.
        num_unexpected: number of failing rows.
        num_rows: number of judged rows.
    """

    suite: str
    name: str
    passed: bool
    severity: Severity
    why: str
    observed: str
    unexpected: tuple[dict[str, Any], ...] = ()
    num_unexpected: int = 0
    num_rows: int = 0

    @property
    def blocks(self) -> bool:
        """Whether nothing may be built on the data."""
        return not self.passed and self.severity == "critical"

    def remark(self) -> str:
        """Return what a warning says in a line: check and first findings, or check and reason."""
        if not self.unexpected:
            return f"{self.name}: {self.why} Observed {self.observed}"
        told = "; ".join(str(row["value"]) for row in self.unexpected[:5])
        more = self.num_unexpected - len(self.unexpected[:5])
        return f"{self.name}: {told}" + (f"; and {more} more" if more > 0 else "")

    def sentence(self) -> str:
        """Return the failure in words: check, observed values, and the first places."""
        text = f"{self.name}: {self.why} Observed {self.observed}."
        if self.unexpected:
            places = "; ".join(
                f"{row['shard']} row {row['row']}: {row['column']} = {row['value']}"
                for row in self.unexpected[:5]
            )
            text += f" {self.num_unexpected} of {self.num_rows} rows: {places}"
        return text


def validate(
    ws: Workspace, suite: Suite, shards: Sequence[str], docs: Path | None
) -> list[Outcome]:
    """Judge some shards of a stage by a suite.

    Args:
        ws: the workspace that holds the data.
        suite: what must hold.
        shards: the shards to judge; ignored by suites on unsharded tables.
        docs: folder of the Data Docs; the suite's page is made in a folder of its own there; None:
            none is made.

    Returns:
        One outcome a check, in the suite's order. A table that cannot be read fails every
        check, each naming the file.
    """
    outcomes = _judge(ws, suite, shards)
    if max((outcome.num_rows for outcome in outcomes), default=0) > PIECE_ROWS:
        _release()
    if docs is not None:
        write_pages(docs, suite, outcomes)
    return outcomes


def _judge(ws: Workspace, suite: Suite, shards: Sequence[str]) -> list[Outcome]:
    """Judge rows piece by piece, and whole-table expectations on their columns only."""
    by_row = [check for check in suite.checks if _is_by_row(check)]
    of_all = [check for check in suite.checks if not _is_by_row(check)]
    needed = dict.fromkeys([*ROW, *(name for check in of_all for name in _columns_of(check))])
    tallies = {check.name: _Tally() for check in by_row}
    kept = []
    pieces = suite.pieces(ws, shards)
    while True:
        try:
            frame = next(pieces, None)
        except (ValueError, OSError, KeyError) as error:
            return [_no_table(suite, check, error) for check in suite.checks]
        if frame is None:
            break
        for check, result in zip(by_row, _run(suite, by_row, frame), strict=True):
            tallies[check.name].add(result, len(frame))
        kept.append(frame[[name for name in needed if name in frame.columns]])
    outcomes = {check.name: tallies[check.name].outcome(suite, check) for check in by_row}
    if of_all:
        table = pd.concat(kept, ignore_index=True)
        for check, result in zip(of_all, _run(suite, of_all, table), strict=True):
            tally = _Tally()
            tally.add(result, len(table))
            outcomes[check.name] = tally.outcome(suite, check)
    return [outcomes[check.name] for check in suite.checks]


def _release() -> None:
    """Return the memory of a large table to the system.

    Great Expectations' objects refer to each other in circles, and pyarrow keeps freed memory:
    over the stages of 1,700 shards both grew to gigabytes.
    """
    gc.collect()
    pa.default_memory_pool().release_unused()


def _is_by_row(check: Check) -> bool:
    """Return whether an expectation judges each row without the others."""
    if isinstance(check.expectation, _ABOUT_OTHER_ROWS):
        return False
    return isinstance(check.expectation, ColumnMapExpectation)


def _columns_of(check: Check) -> list[str]:
    column = getattr(check.expectation, "column", None)
    return [column] if column else list(getattr(check.expectation, "column_list", ()))


def _no_table(suite: Suite, check: Check, error: Exception) -> Outcome:
    name = suite.check_name(check)
    return Outcome(suite.name, name, False, check.severity, check.why, f"no table: {error}")


def _run(suite: Suite, checks: Sequence[Check], frame: pd.DataFrame) -> list[Any]:
    """Return the raw results of Great Expectations, in the order of the checks."""
    if not checks:
        return []
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    source = context.data_sources.add_pandas("tables")
    batch = source.add_dataframe_asset(suite.name).add_batch_definition_whole_dataframe("all")
    # Copies: Great Expectations gives an expectation an id of the suite that it is added to.
    expectations = [check.expectation.copy(deep=True) for check in checks]
    gx_suite = context.suites.add(gx.ExpectationSuite(name=suite.name, expectations=expectations))
    definition = context.validation_definitions.add(
        gx.ValidationDefinition(name=suite.name, data=batch, suite=gx_suite)
    )
    result_format: dict[str, Any] = {"result_format": "COMPLETE"}
    if set(ROW) <= set(frame.columns):
        result_format["unexpected_index_column_names"] = ROW
    result = definition.run(batch_parameters={"dataframe": frame}, result_format=result_format)
    # The context outlives this call, and the table with it.
    context.data_sources.delete("tables")
    by_name = {
        r.expectation_config.meta["check"]: r
        for r in result.results
        if r.expectation_config is not None and r.expectation_config.meta is not None
    }
    return [by_name[check.name] for check in checks]


class _Tally:
    """Results of one check on the pieces of a table, merged: the counts are exact."""

    def __init__(self) -> None:
        self._failed = False
        self._observed: list[str] = []
        self._rows: list[dict[str, Any]] = []
        self._num_rows = self._num_missing = self._num_unexpected = 0
        self._counted = False

    def add(self, result: Any, num_rows: int) -> None:
        """Take over the result on a piece."""
        details = result.result
        # bool(): numpy's bool is not one to Dagster.
        self._failed |= not bool(result.success)
        if (text := _observed(result)) is not None:
            self._observed.append(text)
        rows = details.get("unexpected_index_list") or []
        self._rows += rows[: MAX_ROWS - len(self._rows)]
        self._num_unexpected += int(details.get("unexpected_count") or len(rows))
        self._num_missing += int(details.get("missing_count") or 0)
        self._num_rows += int(details.get("element_count") or num_rows)
        self._counted |= "unexpected_count" in details

    def outcome(self, suite: Suite, check: Check) -> Outcome:
        """Return the combined outcome of all pieces."""
        counted = f"{self._num_unexpected} unexpected rows" if self._counted else "nothing"
        return Outcome(
            suite=suite.name,
            name=suite.check_name(check),
            passed=not self._failed or self._mostly(check),
            severity=check.severity,
            why=check.why,
            observed=self._observed[0] if self._observed else counted,
            unexpected=tuple(_unexpected_row(row, check) for row in self._rows),
            num_unexpected=self._num_unexpected,
            num_rows=self._num_rows,
        )

    def _mostly(self, check: Check) -> bool:
        """Return whether `mostly` holds for all rows, even if one piece alone exceeds it."""
        mostly = getattr(check.expectation, "mostly", 1.0)
        if self._observed or not self._counted or mostly >= 1:
            return False
        judged = self._num_rows - self._num_missing
        return judged == 0 or (judged - self._num_unexpected) / judged >= mostly


def _observed(result: Any) -> str | None:
    """Return the observed value, or the error; None where only rows are counted."""
    if message := _exception(result.exception_info or {}):
        return f"an error: {_short(message)}"
    details = result.result
    return _short(details["observed_value"]) if "observed_value" in details else None


def _unexpected_row(found: dict[str, Any], check: Check) -> dict[str, Any]:
    value = {key: val for key, val in found.items() if key not in ROW}
    return {
        "shard": found["shard"],
        "row": int(found["row"]),
        "column": check.column or ", ".join(value),
        "value": _short(next(iter(value.values())) if len(value) == 1 else value),
    }


def _exception(info: dict[str, Any]) -> str:
    """Return the first error in an exception record, which is flat or keyed by metric."""
    for record in (info, *(value for value in info.values() if isinstance(value, dict))):
        if message := record.get("exception_message"):
            return str(message)
    return ""


def _short(value: object, limit: int = 160) -> str:
    if isinstance(value, dict):
        text = ", ".join(f"{key} {_short(part)}" for key, part in value.items())
    elif isinstance(value, float):
        text = f"{value:.6g}"
    else:
        text = str(value)
    return text if len(text) <= limit else f"{text[:limit]}…"
