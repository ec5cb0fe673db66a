"""The two tables of docs/checks.md: every check, and which checks detect each falsification.

`python -m tests.falsification PROJECT --page docs/checks.md` writes both from a campaign.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from pathlib import Path

from assets.checks.suite import Suite
from assets.stage_asset import suites_of
from dagster_project.stages import STAGES

_SHARD = re.compile(r"(shard|crops)-\d{5}")
SUITES_HEAD = "| stage: suite | critical: block dependent stages | warnings |\n|---|---|---|\n"
FAULTS_HEAD = "| falsification | detected by |\n|---|---|\n"


def folded(name: str) -> str:
    """Return a falsification's row: one for all shards in which it is made."""
    return _SHARD.sub("any shard", name)


def every_suite() -> dict[str, tuple[Suite, ...]]:
    """Return the suites of each stage."""
    for stage in STAGES.values():
        import_module(stage.asset_module)
    return {name: suites_of(name) for name in STAGES}


def suites_table() -> str:
    """Return the table of all checks, a row for each suite."""
    rows = []
    for stage, suites in every_suite().items():
        for suite in suites:
            cells = [
                ", ".join(f"`{check.name}`" for check in suite.checks if check.severity == kind)
                for kind in ("critical", "warning")
            ]
            rows.append(f"| {stage}: `{suite.name}` | {cells[0]} | {cells[1]} |\n")
    return SUITES_HEAD + "".join(rows)


def faults_table(stopped: Sequence[tuple[str, Sequence[str]]]) -> str:
    """Return the table of falsifications.

    Args:
        stopped: each falsification and the checks that detect it.
    """
    rows: dict[str, list[str]] = {}
    for name, checks in stopped:
        here = rows.setdefault(folded(name), list(checks))
        # Of several shards, those that detect it in each.
        here[:] = [check for check in here if check in checks]
    return FAULTS_HEAD + "".join(
        f"| {name} | {_told(checks)} |\n" for name, checks in sorted(rows.items(), key=_by_stage())
    )


def _by_stage() -> Callable[[tuple[str, list[str]]], int]:
    order: dict[str, int] = {}
    return lambda row: order.setdefault(row[0].split(":")[0], len(order))


def _told(checks: Sequence[str]) -> str:
    if not checks:
        return "nothing: detectable only in statistics over 100,000 heads"
    more = f" and {len(checks) - 3} more" if len(checks) > 3 else ""
    return ", ".join(f"`{check}`" for check in checks[:3]) + more


def replaced(page: str, tables: Iterable[str]) -> str:
    """Return a page with its tables replaced by those with the same head.

    Raises:
        ValueError: the page has no table with such a head.
    """
    for table in tables:
        head = "".join(table.splitlines(keepends=True)[:2])
        before, found, after = page.partition(head)
        if not found:
            raise ValueError(f"no table with the head {head!r}")
        rest = after.splitlines(keepends=True)
        while rest and rest[0].startswith("|"):
            rest.pop(0)
        page = before + table + "".join(rest)
    return page


def rows_of(page: str, head: str) -> dict[str, str]:
    """Return first and second cell of the rows of a page's table."""
    found = page.partition(head)[2].split("\n\n")[0].splitlines()
    return {cells[1].strip(): cells[2].strip() for cells in (row.split("|") for row in found)}


def write(page: Path, stopped: Sequence[tuple[str, Sequence[str]]]) -> None:
    """Write both tables into a page."""
    page.write_text(replaced(page.read_text(), [suites_table(), faults_table(stopped)]))
