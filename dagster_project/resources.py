"""Resources of the assets: workers for shards, and tracking of trainings."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg

from dagster_project.config_commands import profile_of
from dagster_project.console import say
from dagster_project.engine import ShardTask, Workers, make_shards
from dagster_project.local_workers import open_local
from dagster_project.params import RunConfig
from dagster_project.pipeline import Pipeline
from dagster_project.placement import WorkerConfig
from dagster_project.profiles import NOT_SET, edits
from dagster_project.stage import Stage, load
from ml.preflight.report import Report
from ml.records.report import StageReport
from ml.records.workspace import Workspace
from ops.resources import (
    CommandFailed,
    Dataset,
    FineTuning,
    ModelStore,
    Preflight,
    Removed,
    Takedown,
)

MLFLOW_ADDRESS = "VGGHEADS_MLFLOW_ADDRESS"
"""Addresses of the pages that `vggheads ui` serves in addition to Dagster's, for links to them."""
MLFLOW_PORT = 5000
EXPERIMENT = "vggheads"
"""All stages report to one experiment, so that they compare on one page."""
_NAMED_EDITS = 3
_LAST_LINES = 20


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
        """Return the data's workspace."""
        return self.pipeline.workspace()

    def values(self) -> Mapping[str, Mapping[str, Any]]:
        """Return the effective values, section -> key -> value."""
        return self.pipeline.effective_values()


class TakedownResource(Takedown):
    """Removes samples from a project."""

    project: ProjectResource
    """The project."""

    def remove(self, samples: Sequence[str], sources: Sequence[str]) -> Removed:
        """Remove images and all images of sources, and search for remaining traces.

        Raises:
            ValueError: an id is unknown.
        """
        from dagster_project.takedown import run_takedown

        report = run_takedown(self.project.pipeline, samples, sources)
        return Removed(report.samples, report.stale, report.left)


class PreflightResource(Preflight):
    """Verifies the external requirements of a project's profile."""

    project: ProjectResource
    """The project."""

    def look(self, stages: Sequence[str]) -> Report:
        """Return all problems, and the duration of the models' forward passes."""
        from dagster_project.preflight import look

        return look(self.project.pipeline, stages)


class FineTuningResource(FineTuning):
    """Trains a project's detector on the user's own boxes."""

    project: ProjectResource
    """The project."""

    def run(self, images: Path, boxes: Path, labels: Sequence[str]) -> Path:
        """Run the command in a separate process, whose stages are separate runs.

        Raises:
            CommandFailed: a step of it failed.
        """
        pipeline = self.project.pipeline
        named = [argument for label in labels for argument in ("--label", label)]
        command = [sys.executable, *pipeline.program, "fine-tune", str(images), str(boxes), *named]
        said: deque[str] = deque(maxlen=_LAST_LINES)
        with subprocess.Popen(
            command,
            cwd=pipeline.root,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process:
            for line in process.stdout or ():
                said.append(line.rstrip())
                say(line.rstrip())
        if process.returncode:
            raise CommandFailed("\n".join(said) or f"status {process.returncode}")
        return pipeline.stage_dir("released_benchmark") / "report.html"


class ShardEngine(dg.ConfigurableResource):
    """Makes the shards of a stage: with processes of this machine, or actors of a Ray cluster."""

    workers: int | None = None
    """Workers; none given: those of `run` in params.yaml; 0: this process alone."""

    def make(
        self, tasks: Iterable[ShardTask], num_tasks: int, pipeline: Pipeline, stage: str
    ) -> Generator[tuple[str, StageReport], None, None]:
        """Process shards and yield reports as they are finished; close the iterator when done.

        Args:
            tasks: the shards; each is taken when a worker is there for it.
            num_tasks: largest number of tasks.
            pipeline: the project.
            stage: the stage.
        """
        run = pipeline.params.run
        resources = run.resources.get(stage, WorkerConfig())
        wanted = run.workers if resources.workers is None else resources.workers
        wanted = min(wanted if self.workers is None else self.workers, num_tasks)
        workers, number = open_workers(run, resources, wanted, pipeline.root, stage)
        yield from make_shards(tasks, workers, number)


def open_workers(
    run: RunConfig, resources: WorkerConfig, wanted: int, root: Path, stage: str
) -> tuple[Workers | None, int]:
    """Return the workers of the engine that `run.engine` names, and how many there may be.

    Args:
        run: section `run` of params.yaml.
        resources: what a worker has.
        wanted: workers wanted; none for 0.
        root: the project folder.
        stage: whose shards they make.

    Raises:
        EngineError: the cluster cannot be used, or a local worker is to have more CUDA devices
            than there are.
    """
    if wanted == 0:
        return None, 0
    if run.engine == "local":
        return open_local(resources, wanted)
    from dagster_project.ray_workers import RayWorkers

    return RayWorkers(root, run.ray, resources, stage), wanted


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
        from ml.training.tracking import DATABASE, remote_store, sqlite_uri

        return remote_store() or sqlite_uri(Path(self.folder) / DATABASE)

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

        from ml.training.tracking import mlflow_run, page_address, remote_store

        logging.getLogger(lightning.pytorch.__name__).setLevel(logging.WARNING)
        tags = run_tags(pipeline, asset.name, dagster_run_id)
        name = run_name(pipeline, asset.name)
        with mlflow_run(Path(self.folder), self.experiment, name, tags) as tracker:
            values = pipeline.params.subset(pipeline.graph[asset.name].params)
            tracker.log_params(flatten(values))
            info = mlflow.get_run(tracker.run_id).info
            page = f"experiments/{info.experiment_id}/runs/{info.run_id}"
            remote = remote_store() or ""
            address = remote if remote.startswith("http") else self.address
            yield tracker, page_address(address, page)


def run_name(pipeline: Pipeline, stage: str) -> str:
    """Return a run's name: stage, profile, and the changed values.

    Args:
        pipeline: the project.
        stage: the stage.

    Returns:
        Such as `trained_model demo fit.epochs=3`; of many edits the first, and how many more.
    """
    profile = profile_of(pipeline)
    found = edits(profile, pipeline.params.written) if profile else []
    own = [edit for edit in found if edit.place[0] in (stage, "run")]
    changed = [
        f"{'.'.join(edit.place[1:])}={'default' if edit.value is NOT_SET else edit.value}"
        for edit in own
    ]
    more = [f"+{len(changed) - _NAMED_EDITS}"] if len(changed) > _NAMED_EDITS else []
    return " ".join([stage, pipeline.params.run.profile, *changed[:_NAMED_EDITS], *more])


def run_tags(pipeline: Pipeline, stage: str, dagster_run_id: str) -> dict[str, str]:
    """Return the origin of an MLflow run: code, data, and the Dagster run."""
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
    """Return the commit of the code, and whether it was changed since; empty outside of git."""
    commit = _git(root, "rev-parse", "HEAD")
    if commit is None:
        return {}
    # Only tracked files count, and not dvc.lock, which the pipeline itself moves on.
    dirty = _git(root, "status", "--porcelain", "--untracked-files=no", "--", ".", ":!dvc.lock")
    return {"mlflow.source.git.commit": commit, "git.dirty": str(bool(dirty)).lower()}


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one, with dotted keys."""
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
