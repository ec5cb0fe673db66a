"""Where a run keeps its things, and the few values that every stage needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ml.records.ids import shard_name


@dataclass(frozen=True)
class Workspace:
    """One run's folder and its global values (section `run` of params.yaml).

    Attributes:
        root: the project folder; data are in `root/data/<stage>`.
        seed: the run's seed; every random choice derives from it and a sample's id.
        num_shards: number of shards of the sharded stages.
        shard_size: poses in a shard.
        workers: processes that may make shards; never changes a byte of the result.
        threads: torch threads in training stages; fixed, because sums depend on it.
        fingerprint: hash of a stage's code, parameters and inputs; unfinished work is kept
            under it, so that a changed stage never resumes from a stale checkpoint.
        folders: stage -> folder in `data/`, for stages whose results another one wrote in their
            place, such as the images of an imported dataset.
    """

    root: Path
    seed: int
    num_shards: int
    shard_size: int
    workers: int = 1
    threads: int = 2
    fingerprint: str = "adhoc"
    # A mapping has no hash, and loaded models are cached by workspace.
    folders: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def shards(self) -> list[str]:
        """Names of the shards, in order."""
        return [shard_name(index) for index in range(self.num_shards)]

    def stage_dir(self, stage: str) -> Path:
        """Return the folder of a stage's results."""
        return self.root / "data" / self.folders.get(stage, stage)

    def table_path(self, stage: str, shard: str) -> Path:
        """Return the Parquet file of one shard of a stage."""
        return self.stage_dir(stage) / f"{shard}.parquet"

    def work_dir(self, stage: str) -> Path:
        """Return a folder for unfinished work (checkpoints) that survives a kill.

        Made if missing.
        """
        path = self.root / "data" / ".work" / stage / self.fingerprint
        path.mkdir(parents=True, exist_ok=True)
        return path
