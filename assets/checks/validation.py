"""Runs a suite with Great Expectations and says in which shard and row it fails."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import great_expectations as gx
import pandas as pd
from great_expectations.data_context.types.base import ProgressBarsConfig

from assets.checks.pages import write_pages
from assets.checks.suite import Check, Severity, Suite
from ml.records.workspace import Workspace

MAX_ROWS = 20
"""Unexpected rows named in a result; the rest is counted."""
ROW = ["shard", "row"]


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
        num_unexpected: how many rows break it.
        num_rows: how many rows were judged.
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

    def sentence(self) -> str:
        """Return the failure in words: check, what was seen, and the first places."""
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
    if docs is not None:
        write_pages(docs, suite, outcomes)
    return outcomes


def _judge(ws: Workspace, suite: Suite, shards: Sequence[str]) -> list[Outcome]:
    try:
        frame = suite.table(ws, shards)
    except (ValueError, OSError, KeyError) as error:
        return [
            Outcome(suite.name, suite.check_name(c), False, c.severity, c.why, f"no table: {error}")
            for c in suite.checks
        ]
    return [
        _outcome(suite, check, result, frame)
        for check, result in zip(suite.checks, _run(suite, frame), strict=True)
    ]


def _run(suite: Suite, frame: pd.DataFrame) -> list[Any]:
    """Return the raw results of Great Expectations, in the order of the suite's checks."""
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    source = context.data_sources.add_pandas("tables")
    batch = source.add_dataframe_asset(suite.name).add_batch_definition_whole_dataframe("all")
    # Copies: Great Expectations gives an expectation an id of the suite that it is added to.
    expectations = [check.expectation.copy(deep=True) for check in suite.checks]
    gx_suite = context.suites.add(gx.ExpectationSuite(name=suite.name, expectations=expectations))
    definition = context.validation_definitions.add(
        gx.ValidationDefinition(name=suite.name, data=batch, suite=gx_suite)
    )
    result_format: dict[str, Any] = {"result_format": "COMPLETE"}
    if set(ROW) <= set(frame.columns):
        result_format["unexpected_index_column_names"] = ROW
    result = definition.run(batch_parameters={"dataframe": frame}, result_format=result_format)
    by_name = {
        r.expectation_config.meta["check"]: r
        for r in result.results
        if r.expectation_config is not None and r.expectation_config.meta is not None
    }
    return [by_name[check.name] for check in suite.checks]


def _outcome(suite: Suite, check: Check, result: Any, frame: pd.DataFrame) -> Outcome:
    details = result.result
    rows = _unexpected_rows(details, check)
    # bool(): numpy's bool is not one to Dagster.
    return Outcome(
        suite=suite.name,
        name=suite.check_name(check),
        passed=bool(result.success),
        severity=check.severity,
        why=check.why,
        observed=_observed(result),
        unexpected=tuple(rows[:MAX_ROWS]),
        num_unexpected=int(details.get("unexpected_count") or len(rows)),
        num_rows=int(details.get("element_count") or len(frame)),
    )


def _observed(result: Any) -> str:
    if message := _exception(result.exception_info or {}):
        return f"an error: {_short(message)}"
    details = result.result
    if "observed_value" in details:
        return _short(details["observed_value"])
    count = details.get("unexpected_count")
    return f"{count} unexpected rows" if count is not None else "nothing"


def _unexpected_rows(details: dict[str, Any], check: Check) -> list[dict[str, Any]]:
    rows = []
    for found in details.get("unexpected_index_list") or []:
        value = {key: val for key, val in found.items() if key not in ROW}
        rows.append(
            {
                "shard": found["shard"],
                "row": int(found["row"]),
                "column": check.column or ", ".join(value),
                "value": _short(next(iter(value.values())) if len(value) == 1 else value),
            }
        )
    return rows


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
