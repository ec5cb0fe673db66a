"""The declaration of a stage's asset: one decorator, used once in every module of this package.

It makes an ordinary `dg.AssetsDefinition`. Edges, code version and partitions are not written here:
`dagster_project.definitions` adds them from dvc.yaml and params.yaml, the only places that declare
them.
"""

from __future__ import annotations

import inspect
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

import dagster as dg

from assets.checks.suite import Suite
from ml.records.tables import Column, TableSpec

StageEvents = Iterator[dg.AssetCheckResult | dg.MaterializeResult]

UNALTERED = "files_unaltered"
"""The check that every asset has."""
UNALTERED_WHY = "Finished files are as they were written."
LINEAGE = "dagster/column_lineage"
"""A metadata entry with the upstream column of each unchanged column."""

_SUITES: dict[str, tuple[Suite, ...]] = {}


class StageRunner(dg.ConfigurableResource, ABC):
    """Runs and checks stages; `dagster_project.runner` provides the one that DVC records."""

    @abstractmethod
    def make(self, context: dg.AssetExecutionContext) -> StageEvents:
        """Run missing units of the stage, check and record them; if only checks run, check only.

        Args:
            context: Dagster's, of the stage's asset.
        """


def stage_asset(
    *,
    group: str,
    kinds: set[str],
    owner: str,
    paper: str = "",
    suites: Sequence[Suite] = (),
    tables: Sequence[TableSpec] = (),
    taken_over: Mapping[str, Sequence[str]] | None = None,
    max_age_days: int | None = None,
) -> Callable[[Callable[..., StageEvents]], dg.AssetsDefinition]:
    """Make the decorated function a stage's asset, with its name and docstring.

    The definition can be subset, so that its checks can be executed without making the asset.

    Args:
        group: group in the asset graph.
        kinds: labels drawn on the asset (at most three).
        owner: the team that owns it, without `team:`.
        paper: section of the paper that describes it.
        suites: checks that its results must pass before they are recorded.
        tables: the tables it writes; the first is the one that Dagster shows as its columns.
        taken_over: upstream asset -> columns of the first table that come from it unchanged.
        max_age_days: age in days from which Dagster shows it as overdue.
    """

    def declare(function: Callable[..., StageEvents]) -> dg.AssetsDefinition:
        name = function.__name__
        _SUITES[name] = tuple(suites)
        spec = dg.AssetSpec(
            name,
            description=inspect.getdoc(function),
            group_name=group,
            kinds=kinds,
            owners=[f"team:{owner}"],
            tags={"paper_section": paper} if paper else {},
            metadata=_table_metadata(tables, taken_over or {}),
            freshness_policy=_freshness(max_age_days),
        )
        return _define(function, spec, _check_specs(name, suites))

    return declare


def completed(
    asset: dg.AssetsDefinition, priority: int = 0, **attributes: Any
) -> dg.AssetsDefinition:
    """Return the asset with attributes that its module does not state, such as `deps`.

    Made again: `map_asset_specs` of Dagster 1.13 shows added dependencies, and runs do not follow
    them.

    Args:
        asset: made by `stage_asset`.
        priority: of two that could run now, the one of higher priority runs first.
        **attributes: those of `dg.AssetSpec`.
    """
    (spec,) = asset.specs
    function = asset.op.compute_fn.decorated_fn  # type: ignore[union-attr]
    spec = spec.replace_attributes(**attributes)
    return _define(function, spec, list(asset.check_specs), {"dagster/priority": str(priority)})


def _define(
    function: Callable[..., StageEvents],
    spec: dg.AssetSpec,
    check_specs: Sequence[dg.AssetCheckSpec],
    op_tags: Mapping[str, str] | None = None,
) -> dg.AssetsDefinition:
    with warnings.catch_warnings():
        # Backfill policies are beta in Dagster 1.13, and it says so for every asset.
        warnings.simplefilter("ignore", dg.BetaWarning)
        return dg.multi_asset(
            name=function.__name__,
            specs=[spec],
            check_specs=check_specs,
            can_subset=True,
            backfill_policy=dg.BackfillPolicy.single_run(),
            op_tags=op_tags,
        )(function)


def suites_of(stage: str) -> tuple[Suite, ...]:
    """Return the suites of a stage whose module has been imported.

    Raises:
        KeyError: no such asset was declared.
    """
    return _SUITES[stage]


def table_schema(table: TableSpec) -> dg.TableSchema:
    """Return a table's columns as Dagster shows them."""
    return dg.TableSchema(
        [
            dg.TableColumn(
                column.name,
                _column_type(column),
                column.doc,
                dg.TableColumnConstraints(
                    nullable=column.nullable, unique=table.key == (column.name,)
                ),
            )
            for column in table.columns
        ]
    )


def _column_type(column: Column) -> str:
    return column.kind if column.length is None else f"{column.kind}[{column.length}]"


def _table_metadata(
    tables: Sequence[TableSpec], taken_over: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    if not tables:
        return {}
    first, *others = tables
    metadata: dict[str, Any] = {"dagster/column_schema": table_schema(first)}
    metadata.update({f"columns of {table.name}": table_schema(table) for table in others})
    if taken_over:
        metadata[LINEAGE] = _lineage(first, taken_over)
    return metadata


def _lineage(table: TableSpec, taken_over: Mapping[str, Sequence[str]]) -> dg.TableColumnLineage:
    columns: dict[str, list[dg.TableColumnDep]] = {}
    for upstream, names in taken_over.items():
        for name in names:
            dep = dg.TableColumnDep(dg.AssetKey(upstream), name)
            columns.setdefault(name, []).append(dep)
    if unknown := sorted(set(columns) - {column.name for column in table.columns}):
        raise ValueError(f"{table.name}: has no columns {unknown} that could be taken over")
    return dg.TableColumnLineage(columns)


def _check_specs(name: str, suites: Sequence[Suite]) -> list[dg.AssetCheckSpec]:
    unaltered = dg.AssetCheckSpec(UNALTERED, asset=name, description=UNALTERED_WHY, blocking=True)
    return [
        unaltered,
        *(
            dg.AssetCheckSpec(
                suite.check_name(check),
                asset=name,
                description=check.why,
                blocking=check.severity == "critical",
            )
            for suite in suites
            for check in suite.checks
        ),
    ]


def _freshness(max_age_days: int | None) -> dg.FreshnessPolicy | None:
    if max_age_days is None:
        return None
    return dg.FreshnessPolicy.time_window(fail_window=timedelta(days=max_age_days))
