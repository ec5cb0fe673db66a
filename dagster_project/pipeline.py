"""One project: its stages, their graph, values, versions and finished parts."""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dagster_project.dvc_sync import DvcBridge, Versions
from dagster_project.graph import Node, code_hash, read_graph
from dagster_project.markers import (
    WHOLE,
    Marker,
    complete,
    marker_path,
    md5_of,
    read_marker,
    unit_files,
    write_marker,
)
from dagster_project.params import Params, read_params
from dagster_project.stage import Stage
from ml.records.atomic import remove, remove_temporaries
from ml.records.ids import shard_name
from ml.records.workspace import Workspace

if TYPE_CHECKING:
    from ml.records.report import StageReport

_NUM_SHARDS = "run.num_shards"
"""Does not change a shard's bytes, so it is no part of the version of a sharded stage's code: a
larger dataset keeps the shards it has."""
_SHARD_NAME = re.compile(r".*?-\d{5}")


class InputError(RuntimeError):
    """An input of a stage differs from what its producer recorded."""


@dataclass(frozen=True)
class Pipeline:
    """A project folder and the stages declared for it.

    Attributes:
        root: the folder of dvc.yaml, params.yaml and data/.
        assets: stage -> its declaration.
        registry: where `assets` is defined, `module:name`; Dagster's resources find it there.
        program: arguments of the interpreter that start the command line in `root`.
    """

    root: Path
    assets: Mapping[str, Stage]
    registry: str = "dagster_project.stages:STAGES"
    program: tuple[str, ...] = ("-m", "dagster_project.cli")

    @cached_property
    def graph(self) -> dict[str, Node]:
        """The stages in order, as dvc.yaml declares them.

        Raises:
            ValueError: dvc.yaml and the assets disagree about which stages there are.
        """
        graph = read_graph(self.root)
        if set(graph) != set(self.assets):
            declared, assets = set(graph), set(self.assets)
            raise ValueError(
                f"dvc.yaml and the assets differ: only in dvc.yaml {sorted(declared - assets)}, "
                f"only among the assets {sorted(assets - declared)}"
            )
        return graph

    @cached_property
    def bridge(self) -> DvcBridge:
        """The bridge to DVC."""
        return DvcBridge(self.root)

    @property
    def params(self) -> Params:
        """The values of params.yaml, read again."""
        return read_params(self.root, self.assets)

    def effective_values(self) -> dict[str, dict[str, Any]]:
        """Return the section -> every key -> value, defaults included.

        Imports all stages' libraries.
        """
        return self.params.effective(self.assets.values())

    def require_stages(self, command: str, stages: Sequence[str]) -> None:
        """Check that stages exist.

        Args:
            command: what was asked to work on them.
            stages: their names.

        Raises:
            ValueError: one does not; the message lists those that do.
        """
        if unknown := sorted(set(stages) - set(self.assets)):
            raise ValueError(
                f"{command}: no stage {', '.join(unknown)}; there are {', '.join(self.assets)}"
            )

    @property
    def shards(self) -> list[str]:
        """The shards of the sharded stages: Dagster's partitions."""
        return [shard_name(index) for index in range(self.params.run.num_shards)]

    def stage_dir(self, stage: str) -> Path:
        """Return the folder of a stage's results."""
        return self.root / "data" / stage

    def units(self, stage: str) -> list[str]:
        """Return the units of a stage: its shards, or the stage as a whole."""
        asset = self.assets[stage]
        if not asset.sharded:
            return [WHOLE]
        return asset.own_shards(self.params.values[stage]) if asset.own_shards else self.shards

    def workspace(self, fingerprint: str = "adhoc") -> Workspace:
        """Return the workspace that a stage works in."""
        run = self.params.run
        return Workspace(
            root=self.root,
            seed=run.seed,
            num_shards=run.num_shards,
            shard_size=run.shard_size,
            workers=run.workers,
            threads=run.threads,
            fingerprint=fingerprint,
        )

    def code_version(self, stage: str) -> str:
        """Return the hash of a stage's code, values and edges, as dvc.yaml lists them."""
        node = self.graph[stage]
        keys = [k for k in node.params if not (self.assets[stage].partitioned and k == _NUM_SHARDS)]
        return _hash(self.params.subset(keys), code_hash(self.root, node.code), sorted(node.data))

    def fingerprints(self, stage: str, units: Sequence[str]) -> dict[str, str]:
        """Return each unit's fingerprint: hash of code version and versions of inputs.

        A shard made from another stage's shard depends on that shard alone.
        """
        code, locked = self.code_version(stage), self.bridge.locked()
        return {unit: _hash(code, self._inputs(stage, unit, locked)) for unit in units}

    def step_fingerprints(self, stage: str) -> dict[str, str]:
        """Return shard -> hash of all inputs of the stage's step; empty without a step."""
        step = self.assets[stage].step
        if step is None:
            return {}
        code, locked = self.code_version(stage), self.bridge.locked()
        data = {p: m for p, m in self.graph[stage].data.items() if m in step.inputs}
        return {
            shard: _hash(code, self._versions(data, shard, locked, by_shard=True))
            for shard in self.shards
        }

    def _inputs(self, stage: str, unit: str, locked: Mapping[str, Versions]) -> dict[str, object]:
        by_shard = self.assets[stage].partitioned
        return self._versions(self.graph[stage].data, unit, locked, by_shard=by_shard)

    def _versions(
        self,
        data: Mapping[str, str],
        unit: str,
        locked: Mapping[str, Versions],
        *,
        by_shard: bool,
    ) -> dict[str, object]:
        """Return versions of inputs: of one sharded as the dataset, that of the unit's shard."""
        versions: dict[str, object] = {}
        for path, maker in data.items():
            if by_shard and self.assets[maker].partitioned:
                marker = read_marker(self.stage_dir(maker), unit)
                files = marker.files if marker else {}
                versions[path] = {n: md5 for n, md5 in files.items() if n.startswith(f"{path}/")}
            else:
                out = _out_of(path, self.graph[maker].outs)
                versions[path] = locked.get(maker, {}).get(out)
        return versions

    def require_inputs(self, stage: str, units: Sequence[str]) -> None:
        """Check inputs against their recorded versions.

        Raises:
            InputError: an input is missing, unfinished, or was altered after it was recorded.
        """
        if problem := self.input_problem(stage, units):
            raise InputError(problem)

    def input_problem(self, stage: str, units: Sequence[str]) -> str | None:
        """Return the fault of a stage's inputs, None if there is none.

        When only some shards are asked for, it is enough that those are finished upstream.
        """
        locked = self.bridge.locked()
        some = self.assets[stage].partitioned and set(units) != set(self.units(stage))
        on_disk = self.bridge.on_disk(self.graph[stage].upstream)
        for maker, versions in on_disk.items():
            if versions and versions == locked.get(maker):
                continue
            if some and self.assets[maker].partitioned and not self.unfinished(maker, units):
                continue
            state = "differs from what dvc.lock records" if locked.get(maker) else "is not recorded"
            return (
                f"{stage}: its input from '{maker}' {state}; materialise '{maker}' first, "
                "its checks will say what is wrong with it"
            )
        return None

    def unfinished(self, stage: str, units: Sequence[str]) -> list[str]:
        """Return those of some units that are missing or outdated."""
        fingerprints = self.fingerprints(stage, units)
        return [unit for unit in units if not self.is_finished(stage, unit, fingerprints[unit])]

    def is_finished(self, stage: str, unit: str, fingerprint: str) -> bool:
        """Return whether a unit has the current fingerprint and all its files."""
        return self._is_current(self.stage_dir(stage), unit, fingerprint)

    def _is_current(self, folder: Path, unit: str, fingerprint: str) -> bool:
        marker = read_marker(folder, unit)
        return (
            marker is not None and marker.fingerprint == fingerprint and complete(self.root, marker)
        )

    def step_dir(self, stage: str) -> Path:
        """Return the folder of a stage's step.

        Raises:
            ValueError: the stage has no step.
        """
        step = self.assets[stage].step
        if step is None:
            raise ValueError(f"{stage}: has no step")
        return self.stage_dir(stage) / step.name

    def start_step(self, stage: str, *, force: bool = False) -> dict[str, str]:
        """Remove outdated results of a stage's step.

        Args:
            stage: the stage.
            force: remove current results as well.

        Returns:
            Shard -> fingerprint, of the shards to make; empty without a step.
        """
        missing: dict[str, str] = {}
        for shard, fingerprint in self.step_fingerprints(stage).items():
            folder = self.step_dir(stage)
            if force or not self._is_current(folder, shard, fingerprint):
                marker_path(folder, shard).unlink(missing_ok=True)
                for path in folder.glob(f"{shard}.*"):
                    remove(path)
                missing[shard] = fingerprint
        return missing

    def finish_step(self, stage: str, shard: str, fingerprint: str, report: StageReport) -> None:
        """Write the marker of a shard of a stage's step whose files are all written."""
        folder = self.step_dir(stage)
        files = unit_files(self.root, (str(folder.relative_to(self.root)),), shard)
        counts = (report.num_in, report.num_out, report.num_excluded)
        write_marker(folder, shard, Marker(fingerprint, files, *counts))

    def altered(self, stage: str, units: Sequence[str], *, audit: bool = False) -> list[str]:
        """Return files of finished units that were changed by something else since.

        Args:
            stage: the stage.
            units: which of its units.
            audit: read every byte again; else a file whose time, size and inode are those that DVC
                saw when it last read it is taken to be the same.
        """
        expected = {
            name: md5
            for unit in units
            if (marker := read_marker(self.stage_dir(stage), unit))
            for name, md5 in marker.files.items()
        }
        if audit:
            return [name for name in expected if self._md5(name) != expected[name]]
        found = self.bridge.md5s(expected)
        return [name for name in expected if found.get(name) != expected[name]]

    def _md5(self, name: str) -> str | None:
        path = self.root / name
        return md5_of(path) if path.exists() else None

    def finish(self, stage: str, unit: str, fingerprint: str, report: StageReport) -> Marker:
        """Write the marker of a unit whose files are all written."""
        marker = Marker(
            fingerprint=fingerprint,
            files=unit_files(self.root, self.graph[stage].outs, unit),
            num_in=report.num_in,
            num_out=report.num_out,
            num_excluded=report.num_excluded,
            # Without the timings: all files in the data folder must be the same in every run.
            metadata={name: _plain(value) for name, value in report.metadata.items()},
            images={
                name: str(Path(path).relative_to(self.root)) for name, path in report.images.items()
            },
        )
        write_marker(self.stage_dir(stage), unit, marker)
        return marker

    def markers(self, stage: str, units: Sequence[str]) -> dict[str, Marker]:
        """Return the markers of those units that have one."""
        found = {unit: read_marker(self.stage_dir(stage), unit) for unit in units}
        return {unit: marker for unit, marker in found.items() if marker}

    def forget(self, stage: str, units: Sequence[str]) -> None:
        """Remove the markers of units, so that they are processed again."""
        for unit in units:
            marker_path(self.stage_dir(stage), unit).unlink(missing_ok=True)

    def tidy(self, stage: str) -> None:
        """Remove what a killed writer left, and shards that no longer belong to the dataset.

        The caller must ensure that no process is writing there.
        """
        for out in self.graph[stage].outs:
            folder = self.root / out
            remove_temporaries(folder)
            if self.assets[stage].sharded:
                _remove_others(folder, set(self.units(stage)))
        if self.assets[stage].step is not None:
            _remove_others(self.step_dir(stage), set(self.shards))

    def drop_work(self, stage: str) -> None:
        """Remove unfinished work of a stage, once it is recorded."""
        shutil.rmtree(self.root / "data" / ".work" / stage, ignore_errors=True)

    def stale(self) -> list[str]:
        """Return stages that DVC finds changed, in order."""
        changed = self.bridge.changed(list(self.graph))
        return [stage for stage in self.graph if stage in changed]


def _remove_others(folder: Path, wanted: set[str]) -> None:
    """Remove the files of shards that are not wanted."""
    for path in list(folder.rglob("*-[0-9][0-9][0-9][0-9][0-9][.-_]*")):
        shard = _SHARD_NAME.match(path.name)
        if shard is not None and shard[0] not in wanted:
            remove(path)


def _out_of(path: str, outs: Sequence[str]) -> str:
    """Return the out that a dependency equals or is inside."""
    return next(out for out in outs if path == out or path.startswith(f"{out}/"))


def _plain(value: Any) -> Any:
    """Return a value as JSON can hold it: numpy's scalars as Python's, NaN and infinity as text."""
    if isinstance(value, np.generic):
        value = value.item()
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _hash(*parts: object) -> str:
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
