"""Trackers: everything lands in one MLflow run; the null tracker takes anything."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import socket
import subprocess
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from ml.training.tracking import (
    EXPERIMENT_TAGS,
    PROCESS,
    NullTracker,
    Tracker,
    TrackingUnavailable,
    mlflow_run,
    open_store,
)
from tests.fixtures.adder_model import adder


def test_null_tracker_is_a_tracker(tmp_path: Path) -> None:
    tracker = NullTracker()
    assert isinstance(tracker, Tracker)
    tracker.log_params({"a": 1})
    tracker.log_metrics({"m": 1.0}, 3)
    tracker.log_artifact(tmp_path / "missing")
    tracker.log_image(np.zeros((2, 2, 3), np.uint8), "x")
    tracker.set_tags({"t": "v"})
    assert tracker.lightning_logger() is None


def test_everything_lands_in_one_run(tmp_path: Path, mlflow_folder: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    (tmp_path / "note.txt").write_text("hello")
    with mlflow_run(mlflow_folder, "tests", "first", {"stage": "toy"}) as tracker:
        assert isinstance(tracker, Tracker)
        tracker.log_params({f"p{i}": i for i in range(150)} | {"long": "x" * 9000})
        tracker.log_metrics({"loss": 2.0}, 0)
        tracker.log_metrics({"loss": 1.0}, 1)
        tracker.log_artifact(tmp_path / "note.txt", "notes")
        tracker.log_image(np.zeros((4, 4, 3), np.uint8), "images/black")
        tracker.set_tags({"more": "yes"})
        logger = tracker.lightning_logger()
        assert logger is not None
        logger.log_metrics({"lightning": 5.0}, 2)
        uri = tracker.log_model(adder(tmp_path, 2.5))
    assert uri == "models:/adder/1"
    client = mlflow.MlflowClient(tracker.tracking_uri)
    run = client.get_run(tracker.run_id)
    assert run.info.status == "FINISHED"
    assert len(run.data.params) == 151
    assert len(run.data.params["long"]) <= 6000
    assert run.data.metrics["loss"] == 1.0
    assert run.data.metrics["lightning"] == 5.0
    assert [m.value for m in client.get_metric_history(tracker.run_id, "loss")] == [2.0, 1.0]
    assert run.data.tags["stage"] == "toy"
    assert run.data.tags["more"] == "yes"
    paths = {a.path for f in ("notes", "images") for a in client.list_artifacts(run.info.run_id, f)}
    assert paths == {"notes/note.txt", "images/black.png"}
    assert {path.name for path in mlflow_folder.iterdir()} >= {"mlflow.db", "artifacts"}
    version = client.get_model_version("adder", "1")
    assert version.tags["licence"] == "Apache-2.0"
    assert version.description == "adds"
    loaded = mlflow.pyfunc.load_model(uri)
    assert loaded.predict(np.ones((1, 2))).tolist() == [[3.5, 3.5]]


def test_failed_body_marks_the_run(mlflow_folder: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    with (
        pytest.raises(RuntimeError, match="boom"),
        mlflow_run(mlflow_folder, "tests", "bad") as tracker,
    ):
        raise RuntimeError("boom")
    client = mlflow.MlflowClient(tracker.tracking_uri)
    assert client.get_run(tracker.run_id).info.status == "FAILED"


def test_runs_of_killed_processes_are_closed_by_the_next_one(mlflow_folder: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    done = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"],
                          capture_output=True, text=True, check=True)  # fmt: skip
    gone, here = done.stdout.strip(), socket.gethostname()
    _, experiment = open_store(mlflow_folder, "kills")
    client = mlflow.MlflowClient()
    places = (f"{here}:{gone}", f"{here}:{os.getpid()}", f"elsewhere:{gone}", "")
    runs = [
        client.create_run(experiment, tags={PROCESS: place} if place else {}) for place in places
    ]
    with mlflow_run(mlflow_folder, "kills", "next"):
        pass
    found = [client.get_run(run.info.run_id).info.status for run in runs]
    assert found == ["KILLED", "RUNNING", "RUNNING", "RUNNING"]


def test_a_server_that_goes_away_within_a_run_is_named(mlflow_folder: Path, monkeypatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    with (
        pytest.raises(TrackingUnavailable, match=r"127\.0\.0\.1:9, and no server answers there"),
        mlflow_run(mlflow_folder, "gone", "run"),
    ):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        raise mlflow.MlflowException("a request failed after retries")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with pytest.raises(mlflow.MlflowException), mlflow_run(mlflow_folder, "gone", "run"):
        raise mlflow.MlflowException("a fault of ours")


def test_a_server_that_cannot_store_is_told_from_one_that_is_away(
    mlflow_folder: Path, monkeypatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    server = ThreadingHTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    uri = f"http://127.0.0.1:{server.server_port}"
    try:
        with (
            pytest.raises(TrackingUnavailable, match=rf"{uri}; the server answers.*Max retries"),
            mlflow_run(mlflow_folder, "store", "run"),
        ):
            monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
            raise mlflow.MlflowException("API request failed: Max retries exceeded" + 999 * "x")
        wrong = mlflow.MlflowException.invalid_parameter_value("bad value")
        monkeypatch.delenv("MLFLOW_TRACKING_URI")
        with (
            pytest.raises(mlflow.MlflowException, match="bad value"),
            mlflow_run(mlflow_folder, "store", "run"),
        ):
            monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
            raise wrong
    finally:
        server.shutdown()
        server.server_close()


def test_an_experiment_opens_as_model_training(mlflow_folder: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    uri, experiment = open_store(mlflow_folder, "tagged")
    client = mlflow.MlflowClient(uri)
    (key,) = EXPERIMENT_TAGS
    assert key == "mlflow.experimentKind", "the name that MLflow's pages read"
    assert client.get_experiment(experiment).tags[key] == "custom_model_development"
    client.set_experiment_tag(experiment, key, "genai_development")
    assert open_store(mlflow_folder, "tagged") == (uri, experiment)
    assert client.get_experiment(experiment).tags[key] == "custom_model_development"


def test_processes_may_make_the_store_at_once_and_a_torn_one_is_made_again(tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    folder = tmp_path / "mlruns"
    folder.mkdir()
    (folder / ".tmp-mlflow.db").write_bytes(b"what a killed process left")
    # Forks of this one, which all have the libraries that a new interpreter loads first.
    context = multiprocessing.get_context("fork")
    barrier, experiments = context.Barrier(2), context.Queue()

    def open_at_once() -> None:
        barrier.wait(60)
        experiments.put(open_store(folder, "together")[1])

    processes = [context.Process(target=open_at_once) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert {experiments.get(timeout=60) for _ in processes} == {open_store(folder, "together")[1]}


@pytest.mark.parametrize("name", ["plain", "50%20 of what?uri=true#ñ"])
def test_a_store_works_in_a_folder_of_any_name_and_after_it_was_moved(tmp_path: Path, name: str):
    import mlflow

    folder = tmp_path / name / "mlruns"
    with mlflow_run(folder, "test", "first") as tracker:
        first = tracker.run_id
        (tmp_path / "note.txt").write_text("x")
        tracker.log_artifact(tmp_path / "note.txt")
    assert (folder / "mlflow.db").stat().st_size > 0
    assert list((folder / "artifacts").rglob("note.txt"))
    if name != "plain":
        return
    moved = tmp_path / "copy of it" / "mlruns"
    shutil.copytree(folder, moved)
    (tmp_path / "other.txt").write_text("y")
    with mlflow_run(moved, "test", "second") as tracker:
        tracker.log_artifact(tmp_path / "other.txt")
        client = mlflow.MlflowClient()
        assert [item.path for item in client.list_artifacts(first)] == ["note.txt"]
        assert str(moved.as_uri()) in client.get_run(first).info.artifact_uri
    assert list(moved.rglob("other.txt"))
    assert not list(folder.rglob("other.txt"))
