"""Rules of `ml.quality` as suites: a table with one column a rule, empty where all is well."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from great_expectations import expectations as gxe

from assets.checks.suite import Check, Severity, Suite, critical, warning
from assets.checks.tables import read_raw, rows_of_shard
from ml.records.workspace import Workspace

NOTHING = ""
"""What a finding says of an item that is as it should be."""
T = TypeVar("T")


@dataclass
class Shelf:
    """The tables that rules read: a shard's are kept while that shard is judged.

    Attributes:
        ws: the workspace.
    """

    ws: Workspace
    _shard: str = ""
    _tables: dict[Path, pd.DataFrame] = field(default_factory=dict)
    _known: dict[str, Any] = field(default_factory=dict)

    def once(self, name: str, make: Callable[[], T]) -> T:
        """Make something that several rules look at, once.

        Args:
            name: what it is called.
            make: makes it.
        """
        if name not in self._known:
            self._known[name] = make()
        return self._known[name]

    def table(self, stage: str, shard: str, part: str = "") -> pd.DataFrame:
        """Read a table of a shard.

        Args:
            stage: the stage's name.
            shard: the shard.
            part: what else the file's name holds, such as `.exclusions`.

        Raises:
            TableError: it is missing or damaged.
        """
        path = self.ws.table_path(stage, f"{shard}{part}")
        return self._kept(path, shard, lambda: read_raw(path))

    def _kept(self, path: Path, shard: str, read: Callable[[], pd.DataFrame]) -> pd.DataFrame:
        """Return the result of `read`, cached while the same shard is judged."""
        if shard != self._shard:
            self._tables, self._shard = {}, shard
        if path not in self._tables:
            self._tables[path] = read()
        return self._tables[path]

    def excluded(self, stage: str, shard: str) -> list[str]:
        """Return ids that a stage excluded from a shard."""
        return [str(item) for item in self.table(stage, shard, ".exclusions")["sample_id"]]

    def part(self, stage: str, name: str, shard: str) -> pd.DataFrame:
        """Return rows of one shard of a table that holds all; column `shard` names it.

        Args:
            stage: the stage's name.
            name: the file.
            shard: the shard.

        Raises:
            TableError: it is missing or damaged.
        """
        path = self.ws.stage_dir(stage) / name
        return self._kept(path, shard, lambda: rows_of_shard(path, shard))


Find = Callable[[Shelf, str], pd.DataFrame]
FindInAll = Callable[[Shelf, Sequence[str]], pd.DataFrame]


@dataclass(frozen=True)
class Rule:
    """One rule.

    Attributes:
        name: name of the check.
        why: what it protects from.
        find: gives the findings of one shard; in a suite of the whole, of all given shards.
        severity: whether a finding blocks.
    """

    name: str
    why: str
    find: Find | FindInAll
    severity: Severity = "critical"


def rules_suite(name: str, *rules: Rule, shards: Sequence[str] | None = None) -> Suite:
    """Return a suite with a check for every rule.

    Args:
        name: the suite's name.
        *rules: its rules.
        shards: names to judge in place of the stage's units; `()` means the dataset's shards.

    Returns:
        The suite; its table has one row a finding, in the column of the rule.
    """

    def table(ws: Workspace, units: Sequence[str]) -> pd.DataFrame:
        names = units if shards is None else shards or ws.shards
        return _table(rules, ws, [(shard, shard) for shard in names])

    return Suite(name, table, _checks(rules))


def whole_suite(name: str, *rules: Rule, sharded: bool) -> Suite:
    """Return a suite with a check for every rule, each of which looks at all shards together.

    Args:
        name: the suite's name.
        *rules: its rules.
        sharded: whether only the shards that are judged count; else all of the dataset.

    Returns:
        The suite.
    """

    def table(ws: Workspace, units: Sequence[str]) -> pd.DataFrame:
        return _table(rules, ws, [("all", units if sharded else ws.shards)])

    return Suite(name, table, _checks(rules))


def _table(rules: Sequence[Rule], ws: Workspace, given: Sequence[tuple[str, Any]]) -> pd.DataFrame:
    """Return one row a finding, in the column of its rule; the others are empty there."""
    columns = ["shard", "row", *(rule.name for rule in rules)]
    shelf = Shelf(ws)
    frames = [pd.DataFrame(columns=columns, dtype=object)]
    for shard, argument in given:
        for rule in rules:
            found = rule.find(shelf, argument)
            rows = {"shard": shard, "row": np.arange(len(found)), rule.name: found["problem"]}
            frames.append(pd.DataFrame(rows, columns=columns))
    return pd.concat(frames, ignore_index=True)


def _checks(rules: Sequence[Rule]) -> tuple[Check, ...]:
    declare = {"critical": critical, "warning": warning}
    return tuple(
        declare[rule.severity](
            rule.name,
            gxe.ExpectColumnValuesToBeInSet,
            rule.why,
            column=rule.name,
            value_set=[NOTHING],
        )
        for rule in rules
    )
