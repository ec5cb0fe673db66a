"""Experiment tracking: the protocol, a tracker that drops everything, and one for MLflow."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import sqlite3
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from ml.records.atomic import remove_temporaries, temporary_path

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger
    from mlflow import MlflowClient
    from mlflow.entities import Experiment, Run
    from mlflow.models import ModelSignature

logger = logging.getLogger(__name__)

DATABASE = "mlflow.db"
"""File of the project's own store, in its folder."""
MAX_PARAM_CHARS = 6000
"""MLflow's SQLAlchemy store rejects longer parameter values."""
EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}
"""Setting with which MLflow's pages show trainings, not conversations with language models."""
_AS_TRAININGS = "workflowType=machine_learning"
"""The same for one page: MLflow follows the tag only where an address leads to no view."""
CANDIDATE = "candidate"
"""Alias of the version that was registered last, until one is made the champion."""
MAX_PARAMS_PER_CALL = 100
"""MLflow takes at most this many parameters in one call."""
WEIGHTS_TAG = "model.sha256"
"""Tag of a training's run: sha256 of the weights that it wrote, by which scores find their run."""
PROCESS = "vggheads.process"
"""Tag of a run: machine and number of the process that reports to it."""
_ANSWERS_IN_S = 15
"""A server that is silent for so long is taken to be away."""
_SERVER_ERROR = "INTERNAL_ERROR"
"""MLflow's code of requests that failed after all retries."""
_MOST_QUOTED = 300
"""Characters of its message that are repeated: it contains the address several times."""


@dataclass(frozen=True)
class ModelPackage:
    """A servable model with the files and texts for its registration.

    Args:
        name: name in the registry.
        python_file: models-from-code file; it ends with `mlflow.models.set_model(...)`.
        artifacts: files or folders the model loads, by the key its `load_context` uses.
        code_paths: packages copied next to the model, so that it loads without this checkout.
        signature: input and output schema.
        input_example: an input the signature accepts, stored next to the model.
        pip_requirements: packages of a serving environment.
        tags: tags of the registered version (licences, parents, profile).
        description: of this version, on the registry's page.
        summary: of the model whatever its version.
    """

    name: str
    python_file: Path
    artifacts: Mapping[str, Path]
    signature: ModelSignature
    code_paths: Sequence[Path] = ()
    input_example: Any = None
    pip_requirements: Sequence[str] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    description: str = ""
    summary: str = ""


@runtime_checkable
class Tracker(Protocol):
    """Receiver of parameters, metrics, files and models of one run.

    Attributes:
        active: False if nothing is kept, so that costly preparations may be skipped.
    """

    active: bool

    def log_params(self, params: Mapping[str, object]) -> None:
        """Record the run's parameters.

        Args:
            params: flat mapping; values are stored as text.
        """
        ...

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Record numbers.

        Args:
            metrics: name to finite number.
            step: position on the curve's axis; None for a run's single metrics.
        """
        ...

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        """Store a file or a folder with the run.

        Args:
            path: an existing file or folder.
            folder: folder among the run's artifacts; None for the top.
        """
        ...

    def log_image(self, image: Path | NDArray[np.uint8], name: str) -> None:
        """Store an image with the run.

        Args:
            image: file, or (H, W, 3) RGB uint8.
            name: path among the run's artifacts without suffix, e.g. `predictions/epoch-03`.
        """
        ...

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Attach searchable text to the run.

        Args:
            tags: name to value.
        """
        ...

    def log_dataset(self, name: str, split: str, counts: Mapping[str, int]) -> None:
        """Record the run's data.

        Args:
            name: the stage that made the data.
            split: which part of it, such as `train`.
            counts: its size: images, heads.
        """
        ...

    def lightning_logger(self) -> Logger | None:
        """Return a Lightning logger that writes to this same run.

        Returns:
            The logger, or None when nothing is recorded.
        """
        ...

    def log_model(self, package: ModelPackage) -> str | None:
        """Register a model as a new version.

        Args:
            package: the model and what it needs.

        Returns:
            URI of the registered version, or None when nothing is recorded.
        """
        ...


def log_data(tracker: Tracker, name: str, splits: Mapping[str, Mapping[str, int]]) -> None:
    """Log the data of a training: as the run's datasets, and their sizes as parameters.

    The size of the validation split is a metric too, next to those that are measured on it.

    Args:
        tracker: the training's run.
        name: the stage that made the data.
        splits: split -> what it contains, such as images and heads.
    """
    for split, counts in splits.items():
        tracker.log_params({f"data.{split}_{what}": count for what, count in counts.items()})
        tracker.log_dataset(name, split, counts)
    tracker.log_metrics({f"val/{what}": count for what, count in splits["val"].items()})


class NullTracker:
    """Tracker that records nothing: unit tests, runs without MLflow, ranks other than zero."""

    active: bool = False

    def log_params(self, params: Mapping[str, object]) -> None:
        """Drop the parameters.

        Args:
            params: ignored.
        """

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Drop the metrics.

        Args:
            metrics: ignored.
            step: ignored.
        """

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        """Drop the file.

        Args:
            path: ignored.
            folder: ignored.
        """

    def log_image(self, image: Path | NDArray[np.uint8], name: str) -> None:
        """Drop the image.

        Args:
            image: ignored.
            name: ignored.
        """

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Drop the tags.

        Args:
            tags: ignored.
        """

    def log_dataset(self, name: str, split: str, counts: Mapping[str, int]) -> None:
        """Drop the dataset.

        Args:
            name: ignored.
            split: ignored.
            counts: ignored.
        """

    def lightning_logger(self) -> Logger | None:
        """Return None: there is no logger.

        Returns:
            None.
        """
        return None

    def log_model(self, package: ModelPackage) -> str | None:
        """Register nothing.

        Args:
            package: ignored.

        Returns:
            None.
        """
        return None


class MLflowTracker:
    """Tracker that writes to one open MLflow run.

    The run belongs to the caller, who also ends it; `mlflow_run` is such a caller.
    """

    active: bool = True

    def __init__(self, run: Run, tracking_uri: str) -> None:
        """Bind to a run.

        Args:
            run: an MLflow run that exists in the store.
            tracking_uri: store of the run, e.g. `sqlite:///.../mlruns/mlflow.db`.
        """
        from mlflow import MlflowClient

        self.run_id: str = run.info.run_id
        self.tracking_uri = tracking_uri
        self._client: MlflowClient = MlflowClient(tracking_uri)

    def log_params(self, params: Mapping[str, object]) -> None:
        """Record parameters; values longer than MLflow allows are cut.

        Args:
            params: flat mapping.
        """
        from mlflow.entities import Param

        rows = [Param(key, str(value)[:MAX_PARAM_CHARS]) for key, value in params.items()]
        for start in range(0, len(rows), MAX_PARAMS_PER_CALL):
            self._client.log_batch(self.run_id, params=rows[start : start + MAX_PARAMS_PER_CALL])

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Record numbers in one call.

        Args:
            metrics: name to number.
            step: position on the axis, 0 when None.
        """
        import time

        from mlflow.entities import Metric

        now_ms = int(time.time() * 1000)
        rows = [Metric(key, float(value), now_ms, step or 0) for key, value in metrics.items()]
        self._client.log_batch(self.run_id, metrics=rows)

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        """Copy a file or a folder's content to the run's artifacts.

        Args:
            path: an existing file or folder.
            folder: destination folder.
        """
        if path.is_dir():
            self._client.log_artifacts(self.run_id, str(path), folder)
        else:
            self._client.log_artifact(self.run_id, str(path), folder)

    def log_image(self, image: Path | NDArray[np.uint8], name: str) -> None:
        """Copy an image to the run's artifacts.

        Args:
            image: file (kept under its own name in the folder of `name`), or RGB uint8.
            name: path without suffix.
        """
        if isinstance(image, Path):
            folder = str(Path(name).parent)
            self.log_artifact(image, None if folder == "." else folder)
        else:
            self._client.log_image(self.run_id, np.ascontiguousarray(image), f"{name}.png")

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Tag the run.

        Args:
            tags: name to value.
        """
        for key, value in tags.items():
            self._client.set_tag(self.run_id, key, value)

    def log_dataset(self, name: str, split: str, counts: Mapping[str, int]) -> None:
        """Name data in the run's column of datasets.

        Its digest is the one that the run's tags give the stage's folder, `dvc.data/<name>`: what
        DVC knows the data by.

        Args:
            name: the stage that made the data.
            split: which part of it.
            counts: what is in it.
        """
        from mlflow.entities import Dataset, DatasetInput, InputTag

        folder = f"data/{name}"
        tags = self._client.get_run(self.run_id).data.tags
        dataset = Dataset(
            # MLflow keeps one entry for a name and a digest, whatever the part.
            name=f"{name}/{split}",
            digest=tags.get(f"dvc.{folder}", "not recorded"),
            source_type="dvc",
            source=json.dumps({"path": folder}),
            profile=json.dumps(dict(counts)),
        )
        used = DatasetInput(dataset, [InputTag("mlflow.data.context", split)])
        self._client.log_inputs(self.run_id, [used])

    def lightning_logger(self) -> Logger | None:
        """Return Lightning's MLflow logger bound to this run.

        Returns:
            The logger.
        """
        from lightning.pytorch.loggers import MLFlowLogger

        return MLFlowLogger(tracking_uri=self.tracking_uri, run_id=self.run_id)

    def log_model(self, package: ModelPackage) -> str | None:
        """Log and register a pyfunc model from its code file.

        Args:
            package: the model and what it needs.

        Returns:
            `models:/<name>/<version>`.
        """
        import mlflow

        mlflow.set_tracking_uri(self.tracking_uri)
        with _active_run(self.run_id), warnings.catch_warnings():
            # The signature is given; it need not be inferred from the code's type hints.
            warnings.filterwarnings("ignore", message=r"(?s).*[Tt]ype hint.*")
            info = mlflow.pyfunc.log_model(
                name=package.name,
                python_model=str(package.python_file),
                artifacts={key: str(path) for key, path in package.artifacts.items()},
                code_paths=[str(path) for path in package.code_paths] or None,
                signature=package.signature,
                input_example=package.input_example,
                pip_requirements=list(package.pip_requirements) or None,
                registered_model_name=package.name,
            )
        version = str(info.registered_model_version)
        for key, value in package.tags.items():
            self._client.set_model_version_tag(package.name, version, key, value)
        if package.description:
            self._client.update_model_version(package.name, version, package.description)
        if package.summary:
            self._client.update_registered_model(package.name, package.summary)
        self._client.set_registered_model_alias(package.name, CANDIDATE, version)
        logger.info("registered model %s version %s", package.name, version)
        return f"models:/{package.name}/{version}"


@contextlib.contextmanager
def _active_run(run_id: str) -> Iterator[None]:
    """Make a run MLflow's active one, leaving it open if it was open."""
    import mlflow

    active = mlflow.active_run()
    if active is not None and active.info.run_id == run_id:
        yield
        return
    client = mlflow.MlflowClient()
    status = client.get_run(run_id).info.status
    with mlflow.start_run(run_id=run_id, nested=active is not None):
        yield
    client.update_run(run_id, status=status)


def sqlite_uri(database: Path) -> str:
    """Return the address of a database for MLflow, with special characters escaped.

    Args:
        database: path of the file.

    Returns:
        `sqlite:///...`, in which `%`, `?` and `#` are literal.
    """
    from sqlalchemy import URL

    address = URL.create("sqlite", database=str(Path(database).resolve()))
    return str(address.render_as_string(hide_password=False))


def page_address(server: str, page: str) -> str:
    """Return the address of a page of MLflow, which opens it as model training.

    Args:
        server: address of the server.
        page: its path, such as `experiments/1/runs`.
    """
    return f"{server.rstrip('/')}/#/{page}?{_AS_TRAININGS}"


def _relocate(database: Path, old: str, new: str) -> None:
    """Bring addresses of artifacts up to a folder that was moved or copied.

    MLflow stores them as absolute: without this, a copied project would write into the original.
    """
    logger.warning("the runs' artifacts were at %s and are now at %s", old, new)
    places = [
        ("experiments", "artifact_location"), ("runs", "artifact_uri"),
        ("model_versions", "source"), ("model_versions", "storage_location"),
        ("logged_models", "artifact_location"),
    ]  # fmt: skip
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        for table, column in places:
            connection.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                (new, len(old) + 1, old, len(old) + 1, f"{old}/"),
            )


class TrackingUnavailable(RuntimeError):
    """The server that MLFLOW_TRACKING_URI names does not answer, or cannot store results."""


def remote_store() -> str | None:
    """Return the store that MLFLOW_TRACKING_URI names: a server or a database server.

    Addresses of local files do not count: MLflow itself sets the variable to our own store.

    Returns:
        The address, None for the project's own store.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI", "").strip()
    return uri if urlsplit(uri).scheme not in ("", "file", "sqlite") else None


def found_store(folder: Path) -> str | None:
    """Return the address of a store that is there: that of MLFLOW_TRACKING_URI, else of a folder.

    Args:
        folder: e.g. `<repository>/mlruns`.

    Returns:
        The address, None if the folder contains no database.

    Raises:
        TrackingUnavailable: the server that MLFLOW_TRACKING_URI names does not answer.
    """
    if remote := remote_store():
        _check_answer(remote)
        return remote
    database = folder / DATABASE
    return sqlite_uri(database) if database.is_file() else None


def _experiment(name: str, artifacts: str | None = None) -> Experiment:
    """Return an experiment of the current store, made if missing, shown as model training."""
    import mlflow

    found = mlflow.get_experiment_by_name(name)
    if found is None:
        made = mlflow.create_experiment(name, artifacts, EXPERIMENT_TAGS)
        return mlflow.get_experiment(made)
    for key, value in EXPERIMENT_TAGS.items():
        if found.tags.get(key) != value:
            mlflow.MlflowClient().set_experiment_tag(found.experiment_id, key, value)
    return found


def _check_answer(uri: str) -> None:
    """Check that a server answers.

    Raises:
        TrackingUnavailable: it does not, after some seconds.
    """
    if uri.startswith(("http://", "https://")):
        try:
            urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=_ANSWERS_IN_S).close()
        except urllib.error.HTTPError:
            pass  # it answers; permission is checked below
        except OSError as error:
            raise TrackingUnavailable(
                f"MLFLOW_TRACKING_URI is {uri}, and no server answers there ({error}); start it, "
                "or unset the variable to log to mlruns/ of the project"
            ) from error


def open_store(folder: Path, experiment: str) -> tuple[str, str]:
    """Make a store usable: that of MLFLOW_TRACKING_URI, else a database and artifacts in a folder.

    On a server, where the artifacts go is the server's business.

    MLflow builds its tables in many steps. Two processes that build them at once fail both, and a
    process killed between the steps leaves a database that nothing can open. So one process
    builds, under a lock, in a file that gets its name when it is whole.

    Args:
        folder: e.g. `<repository>/mlruns`; created if missing.
        experiment: name of the experiment; created if missing.

    Returns:
        Tracking URI, also set as MLflow's current one, and the experiment's id.

    Raises:
        TrackingUnavailable: the server that MLFLOW_TRACKING_URI names does not answer.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    import mlflow
    from filelock import FileLock

    if remote := remote_store():
        _check_answer(remote)
        mlflow.set_tracking_uri(remote)
        return remote, str(_experiment(experiment).experiment_id)
    folder.mkdir(parents=True, exist_ok=True)
    database = folder.resolve() / DATABASE
    uri = sqlite_uri(database)
    with FileLock(database.with_suffix(".lock")):
        if not database.exists():
            remove_temporaries(folder)
            unfinished = temporary_path(database)
            build_tables(unfinished)
            unfinished.replace(database)
        mlflow.set_tracking_uri(uri)
        artifacts = (folder / "artifacts").resolve().as_uri()
        found = _experiment(experiment, artifacts)
        if found.artifact_location != artifacts:
            _relocate(database, str(found.artifact_location), artifacts)
        return uri, str(found.experiment_id)


def build_tables(database: Path) -> None:
    """Make an empty database of MLflow's, which takes seconds.

    Args:
        database: the file to write.
    """
    import mlflow

    # Any request creates the tables.
    mlflow.MlflowClient(sqlite_uri(database)).get_experiment_by_name("")


@contextlib.contextmanager
def mlflow_run(
    folder: Path, experiment: str, run_name: str, tags: Mapping[str, str] | None = None
) -> Iterator[MLflowTracker]:
    """Open a run in the store that `open_store` finds.

    Args:
        folder: e.g. `<repository>/mlruns`; created if missing.
        experiment: name of the experiment; created if missing.
        run_name: name shown in the run list.
        tags: tags of the run (git commit, dvc versions, Dagster run id).

    Yields:
        The tracker; the run is ended as FINISHED, or FAILED if the body raises.

    Raises:
        TrackingUnavailable: the server does not answer, or no longer, or cannot store a result.
    """
    import mlflow

    uri, experiment_id = open_store(folder, experiment)
    _end_killed(experiment_id)
    own = {**(tags or {}), PROCESS: f"{socket.gethostname()}:{os.getpid()}"}
    try:
        with mlflow.start_run(experiment_id=experiment_id, run_name=run_name, tags=own) as run:
            yield MLflowTracker(run, uri)
    except mlflow.MlflowException as error:
        if remote := remote_store():
            # If the server has gone, that is the error to report.
            _check_answer(remote)
            if error.error_code == _SERVER_ERROR:
                raise TrackingUnavailable(
                    f"MLFLOW_TRACKING_URI is {remote}; the server answers, but could not store a "
                    f"result ({str(error)[:_MOST_QUOTED]}); check the server's log and the store "
                    "of its artifacts, then run the command again"
                ) from error
        raise


def _end_killed(experiment_id: str) -> None:
    """Mark runs of ended processes on this machine as killed: they would stay running."""
    import mlflow

    client = mlflow.MlflowClient()
    for run in client.search_runs([experiment_id], "attributes.status = 'RUNNING'"):
        host, _, number = run.data.tags.get(PROCESS, "").rpartition(":")
        if host == socket.gethostname() and not _lives(int(number)):
            client.set_terminated(run.info.run_id, status="KILLED")


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        # Somebody else's.
        return True
    return True
