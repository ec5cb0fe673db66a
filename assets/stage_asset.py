"""The declaration of a stage's asset: one decorator, used once in every module of this package."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from assets.checks.suite import Suite
from ml.records.config import StageConfig
from ml.records.report import StageReport

OwnShards = Callable[[Mapping[str, Any]], list[str]]


@dataclass(frozen=True)
class StageAsset:
    """A stage as Dagster and DVC see it.

    Attributes:
        name: the stage's one name: asset, DVC stage, section of params.yaml, folder in data/.
        description: shown on the asset's page.
        function: does the work; `(ws, config, shard)` if sharded, else `(ws, config)`, and a
            tracker as last argument if tracked.
        config: where the stage's `StageConfig` lives, `module:Class`; imported when needed.
        group: the group of the asset graph it is drawn in.
        kinds: labels drawn on the asset (at most three).
        sharded: whether the work is divided into shards, which any process may make.
        own_shards: names of the shards from the stage's section of params.yaml, for a stage that
            is not divided as the dataset is; Dagster then shows it without partitions.
        tracked: whether the stage trains or evaluates, and reports to MLflow.
        suites: the checks that its results must pass before they are recorded.
    """

    name: str
    description: str
    function: Callable[..., StageReport]
    config: str
    group: str
    kinds: frozenset[str]
    sharded: bool
    own_shards: OwnShards | None
    tracked: bool
    suites: tuple[Suite, ...]

    @property
    def partitioned(self) -> bool:
        """Whether its shards are the dataset's: Dagster's partitions."""
        return self.sharded and self.own_shards is None

    @property
    def function_path(self) -> str:
        """Where a worker process finds this declaration, `module:name`."""
        return f"{self.function.__module__}:{self.name}"

    def config_class(self) -> type[StageConfig]:
        """Import the stage's configuration class (and with it, its libraries)."""
        return load(self.config)


def stage_asset(
    *,
    config: str,
    group: str,
    kinds: set[str],
    sharded: bool = False,
    own_shards: OwnShards | None = None,
    tracked: bool = False,
    suites: tuple[Suite, ...] = (),
) -> Callable[[Callable[..., StageReport]], StageAsset]:
    """Declare the decorated function as a stage; its name and docstring become the asset's.

    Args:
        config: `module:Class` of the stage's configuration.
        group: group in the asset graph.
        kinds: labels of the asset.
        sharded: the function makes one shard.
        own_shards: names of the shards, when they are not the dataset's.
        tracked: the function takes a tracker as last argument.
        suites: gating checks, in order.
    """

    def declare(function: Callable[..., StageReport]) -> StageAsset:
        return StageAsset(
            name=function.__name__,
            description=(function.__doc__ or "").strip(),
            function=function,
            config=config,
            group=group,
            kinds=frozenset(kinds),
            sharded=sharded,
            own_shards=own_shards,
            tracked=tracked,
            suites=suites,
        )

    return declare


def load(path: str) -> Any:
    """Import what `module:name` names.

    Raises:
        ValueError: the module has no such name.
    """
    module, _, name = path.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except AttributeError as error:
        raise ValueError(f"{path}: module '{module}' has no '{name}'") from error
