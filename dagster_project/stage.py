"""Description of a stage for scheduler and workers: light to import, without Dagster."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ml.records.config import StageConfig

if TYPE_CHECKING:
    # It imports pandas.
    from ml.records.report import StageReport

OwnShards = Callable[[Mapping[str, Any]], list[str]]


@dataclass(frozen=True)
class Step:
    """Work of a stage that is done shard by shard, before what needs all of it together.

    Any process may make a shard of it, as of a sharded stage; the stage itself is one piece. A
    shard is made again only when something that it is made from has changed.

    Attributes:
        name: folder of its results, in the stage's.
        function: makes one shard, `module:function`; takes `(ws, config, shard)`.
        inputs: those of the stage's inputs in dvc.yaml that a shard is made from; of a stage that
            is sharded as the dataset is, the same shard.
    """

    name: str
    function: str
    inputs: tuple[str, ...]


@dataclass(frozen=True)
class Stage:
    """A stage's library code, named as text: it is imported where the work is done.

    Attributes:
        name: the stage's one name: asset, DVC stage, section of params.yaml, folder in data/.
        config: its configuration class, `module:Class`.
        function: does the work, `module:function`; takes `(ws, config, shard)` if sharded, else
            `(ws, config)`, and a tracker as last argument if tracked.
        asset_module: the module that defines its Dagster asset.
        sharded: whether the work is divided into shards, which any process may make.
        own_shards: names of the shards from the stage's section of params.yaml, for a stage that
            is not divided as the dataset is; Dagster then shows it without partitions.
        tracked: whether the stage trains, and reports to MLflow.
        step: work that an unsharded stage does shard by shard before the rest.
    """

    name: str
    config: str
    function: str
    asset_module: str
    sharded: bool = False
    own_shards: OwnShards | None = None
    tracked: bool = False
    step: Step | None = None

    @property
    def shares_work(self) -> bool:
        """Return whether several processes can work on it."""
        return self.sharded or self.step is not None

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
