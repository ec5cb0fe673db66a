"""Resources of the assets: where shards are made, and where trainings report to."""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg

from dagster_project.engine import ShardTask, make_shards
from dagster_project.pipeline import Pipeline
from dagster_project.stage import Stage, load
from ml.records.report import StageReport
from ml.records.workspace import Workspace
from ops.resources import Dataset, ModelStore, Removed, Takedown

#: Addresses of the pages that `vggheads ui` serves beside Dagster's, for links to them.
MLFLOW_ADDRESS = "VGGHEADS_MLFLOW_ADDRESS"
MLFLOW_PORT = 5000
#: All stages report to one experiment, so that they compare on one page.
EXPERIMENT = "vggheads"


class ProjectResource(Dataset):
    """A project: the folder of dvc.yaml and data/, and its stages."""

    root: str
    """The project folder."""
    registry: str
    """Where its stages are declared, `module:name`."""

    @property
    def pipeline(self) -> Pipeline:
        """The project's pipeline."""
        return Pipeline(Path(self.root), load(self.registry), self.registry)

    def workspace(self) -> Workspace:
        """Return the workspace that holds the data."""
        return self.pipeline.workspace()

    def values(self) -> Mapping[str, Mapping[str, Any]]:
        """Return the effective values, section -> key -> value."""
        return self.pipeline.effective_values()


class TakedownResource(Takedown):
    """Removes samples from a project."""

    project: ProjectResource
    """The project."""

    def remove(self, samples: Sequence[str], sources: Sequence[str]) -> Removed:
        """Remove images, and all images of sources, and search for what is left.

        Raises:
            ValueError: an id is unknown.
        """
        from dagster_project.takedown import run_takedown

        report = run_takedown(self.project.pipeline, samples, sources)
        return Removed(report.samples, report.stale, report.left)


class ShardEngine(dg.ConfigurableResource):
    """Makes the shards of a stage; the number of processes never changes a byte."""

    workers: int | None = None
    """Processes; none given: `run.workers` of params.yaml; 0: no other process."""

    def make(
        self, tasks: Sequence[ShardTask], default_workers: int
    ) -> Iterator[tuple[str, StageReport]]:
        """Make shards and yield reports as they are finished.

        Args:
            tasks: the shards.
            default_workers: `run.workers`.
        """
        workers = default_workers if self.workers is None else self.workers
        yield from make_shards(tasks, min(workers, len(tasks)))


class MLflowResource(ModelStore):
    """Opens MLflow runs in mlruns/, tied to the Dagster run and to the data's versions."""

    folder: str
    """Folder of the database and the artifacts."""
    experiment: str = EXPERIMENT
    """Name of the experiment."""
    address: str = f"http://127.0.0.1:{MLFLOW_PORT}"
    """Where MLflow's pages are served, for links."""

    @property
    def tracking_uri(self) -> str:
        """Address of the store."""
        from ml.training.tracking import sqlite_uri

        return sqlite_uri(Path(self.folder) / "mlflow.db")

    @property
    def runs_folder(self) -> Path:
        """Folder of the database and the artifacts."""
        return Path(self.folder)

    @contextmanager
    def run(
        self, pipeline: Pipeline, asset: Stage, dagster_run_id: str
    ) -> Iterator[tuple[Any, str]]:
        """Open a run for a stage; it is ended as failed if the body raises.

        Args:
            pipeline: the project.
            asset: the stage.
            dagster_run_id: the Dagster run that makes it.

        Yields:
            The tracker, and the run's address while `vggheads ui` is up.
        """
        import lightning.pytorch  # sets its logger's level when it is imported
        import mlflow

        from ml.training.tracking import mlflow_run

        logging.getLogger(lightning.pytorch.__name__).setLevel(logging.WARNING)
        tags = run_tags(pipeline, asset.name, dagster_run_id)
        name = f"{asset.name}-{dagster_run_id[:8]}"
        with mlflow_run(Path(self.folder), self.experiment, name, tags) as tracker:
            values = pipeline.params.subset(pipeline.graph[asset.name].params)
            tracker.log_params(flatten(values))
            info = mlflow.get_run(tracker.run_id).info
            page = f"experiments/{info.experiment_id}/runs/{info.run_id}"
            yield tracker, f"{self.address}/#/{page}"


def run_tags(pipeline: Pipeline, stage: str, dagster_run_id: str) -> dict[str, str]:
    """What an MLflow run is made from: code, data, and the run that made it."""
    locked = pipeline.bridge.locked()
    tags = {
        "dagster.run_id": dagster_run_id,
        "dagster.asset": stage,
        "dvc.stage": stage,
        "dvc.lock": pipeline.bridge.lock_hash(),
        "code_version": pipeline.code_version(stage),
        **git_tags(pipeline.root),
    }
    for maker in pipeline.graph[stage].upstream:
        tags.update({f"dvc.{path}": md5 for path, md5 in locked.get(maker, {}).items()})
    return tags


def git_tags(root: Path) -> dict[str, str]:
    """The commit of the code, and whether it was changed since; empty outside of git."""
    commit = _git(root, "rev-parse", "HEAD")
    if commit is None:
        return {}
    # Only tracked files count, and not dvc.lock, which the pipeline itself moves on.
    dirty = _git(root, "status", "--porcelain", "--untracked-files=no", "--", ".", ":!dvc.lock")
    return {"mlflow.source.git.commit": commit, "git.dirty": str(bool(dirty)).lower()}


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=root, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
