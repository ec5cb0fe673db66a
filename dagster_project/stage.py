"""What a stage is to the scheduler and its workers: light to import, no Dagster needed."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ml.records.config import StageConfig
from ml.records.report import StageReport

OwnShards = Callable[[Mapping[str, Any]], list[str]]


@dataclass(frozen=True)
class Stage:
    """A stage's library code, named as text: it is imported where the work is done.

    Attributes:
        name: the stage's one name: asset, DVC stage, section of params.yaml, folder in data/.
        config: its configuration class, `module:Class`.
        function: does the work, `module:function`; takes `(ws, config, shard)` if sharded, else
            `(ws, config)`, and a tracker as last argument if tracked.
        asset_module: the module in which its Dagster asset stands.
        sharded: whether the work is divided into shards, which any process may make.
        own_shards: names of the shards from the stage's section of params.yaml, for a stage that
            is not divided as the dataset is; Dagster then shows it without partitions.
        tracked: whether the stage trains, and reports to MLflow.
    """

    name: str
    config: str
    function: str
    asset_module: str
    sharded: bool = False
    own_shards: OwnShards | None = None
    tracked: bool = False

    @property
    def partitioned(self) -> bool:
        """Whether its shards are the dataset's: Dagster's partitions."""
        return self.sharded and self.own_shards is None

    def config_class(self) -> type[StageConfig]:
        """Import the stage's configuration class (and with it, its libraries)."""
        return load(self.config)

    def run(self, *arguments: Any) -> StageReport:
        """Do the work in this process, with the arguments that `function` names."""
        return load(self.function)(*arguments)


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
