"""Data on S3: a real server of its protocol on loopback, DVC's remote, MLflow's artifacts."""

import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest

from dagster_project.cli import main
from dagster_project.comparing import compare_runs
from ml.benchmarks.content import content_of
from ml.benchmarks.model_runs import log_scores
from ml.inference.loading import WEIGHTS_NAME
from ml.training.tracking import (
    CANDIDATE,
    EXPERIMENT_TAGS,
    WEIGHTS_TAG,
    TrackingUnavailable,
    build_tables,
    mlflow_run,
    open_store,
    remote_store,
)
from tests.dagster_project.conftest import entered
from tests.fixtures.adder_model import adder
from tests.fixtures.gate import gate
from tests.fixtures.ports import free_port
from tests.fixtures.s3 import MISSING, address_of, needs_s3, s3_server


@pytest.fixture(scope="module")
def s3():
    """The server's address, with one bucket."""
    with s3_server() as server:
        yield address_of(server)


def keys(address, prefix):
    import boto3

    listing = boto3.client("s3", endpoint_url=address).list_objects_v2(Bucket="lab", Prefix=prefix)
    return [item["Key"] for item in listing.get("Contents", [])]


@needs_s3
def test_a_clone_continues_with_pushed_data(s3, toy, tmp_path, monkeypatch, capsys):
    toy.dvc("remote", "add", "-d", "lab", "s3://lab/dvc")
    toy.dvc("remote", "modify", "lab", "endpointurl", s3)
    toy.dvc("push")
    assert len(keys(s3, "dvc/")) > 8

    git("add", "-A", cwd=toy.root)
    git("commit", "-qm", "data", cwd=toy.root)
    clone = tmp_path / "elsewhere" / "toy"
    clone.parent.mkdir()
    git("clone", "-q", str(toy.root), str(clone), cwd=tmp_path)
    assert not (clone / "data").exists()
    with entered(clone, monkeypatch) as elsewhere:
        elsewhere.dvc("pull")
        capsys.readouterr()
        assert elsewhere.run("status") == 0
        said = capsys.readouterr().out
        assert (said.count("up to date"), said.count("3/3 shards")) == (3, 2), said
        assert elsewhere.run("demo") == 0
        assert "nothing to do" in capsys.readouterr().out
        assert elsewhere.made() == []


def git(*arguments, cwd):
    identity = ["-c", "user.name=t", "-c", "user.email=t@localhost"]
    subprocess.run(["git", *identity, *arguments], cwd=cwd, check=True, capture_output=True)


def run_dvc(root, *arguments):
    """Run DVC in a process of its own; returns status and what it says."""
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments], cwd=root, capture_output=True, text=True,
        timeout=500, env={**os.environ, "AWS_MAX_ATTEMPTS": "1"}, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def set_endpoint(root, address):
    assert run_dvc(root, "remote", "modify", "--local", "lab", "endpointurl", address)[0] == 0


@pytest.mark.rehearsal
@needs_s3
def test_push_pull_and_demo_survive_a_store_that_goes_away(s3, toy, tmp_path, monkeypatch, capsys):
    """Nothing is lost, what was transferred is kept, and the same command resumes."""
    toy.dvc("remote", "add", "-d", "lab", "s3://lab/away")
    git("add", "-A", cwd=toy.root)
    git("commit", "-qm", "data", cwd=toy.root)
    before = toy.bytes()
    with gate(s3, rb"^PUT /lab/away", 4) as proxy:
        set_endpoint(toy.root, proxy.address)
        status, said = run_dvc(toy.root, "push", "--jobs", "1")
        assert proxy.closed
    assert status != 0
    assert "ERROR" in said, said
    pushed = keys(s3, "away/")
    assert 0 < len(pushed) <= 4
    assert toy.bytes() == before
    set_endpoint(toy.root, s3)
    status, said = run_dvc(toy.root, "push")
    assert status == 0, said
    everything = keys(s3, "away/")
    assert set(pushed) < set(everything)

    clone = tmp_path / "elsewhere" / "toy"
    clone.parent.mkdir()
    git("clone", "-q", str(toy.root), str(clone), cwd=tmp_path)
    with gate(s3, rb"^GET /lab/away/files", len(everything) * 2 // 3) as proxy:
        set_endpoint(clone, proxy.address)
        status, said = run_dvc(clone, "pull", "--jobs", "1")
        assert proxy.closed
    assert status != 0
    assert "ERROR" in said, said
    cache = clone / ".dvc" / "cache" / "files"
    kept = [path for path in cache.rglob("*") if path.is_file()]
    assert 0 < len(kept) < len(everything)
    with entered(clone, monkeypatch) as elsewhere:
        # The store is still away: what is missing can be made again, which needs no store.
        capsys.readouterr()
        assert elsewhere.run("status") == 1
        said = capsys.readouterr().out
        assert "up to date" not in said
        assert "`dvc pull` fetches them" in said
        copy = tmp_path / "made" / "toy"
        shutil.copytree(clone, copy)
        set_endpoint(clone, s3)
        status, said = run_dvc(clone, "pull")
        assert status == 0, said
        assert elsewhere.bytes() == before
        assert all(path.is_file() for path in kept)
        assert elsewhere.run("demo") == 0
        assert "nothing to do" in capsys.readouterr().out
        assert elsewhere.made() == []
    with entered(copy, monkeypatch) as away:
        assert away.run("demo") == 0
        assert away.bytes() == before


@contextmanager
def mlflow_server(folder, artifacts):
    """MLflow's own server as the store that the variable names."""
    import mlflow

    port = free_port()
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", str(port)),
        *("--backend-store-uri", f"sqlite:///{folder}/server.db"),
        *("--artifacts-destination", artifacts),
    ]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    server = subprocess.Popen(
        command, cwd=folder, env=environment, start_new_session=True, stdout=subprocess.DEVNULL
    )
    try:
        with pytest.MonkeyPatch.context() as patch:
            uri = f"http://127.0.0.1:{port}"
            wait_until_up(f"{uri}/health", server)
            patch.setenv("MLFLOW_TRACKING_URI", uri)
            yield uri
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
        mlflow.set_tracking_uri(None)


@pytest.mark.rehearsal
def test_runs_model_scores_and_registry_are_on_the_server_that_the_variable_names(
    request, tmp_path
):
    """With artifacts on S3 where its server is installed, else in a folder."""
    import mlflow

    stored = tmp_path / "stored"
    artifacts = str(stored) if MISSING else "s3://lab/mlflow"
    address = None if MISSING else request.getfixturevalue("s3")
    (tmp_path / "note.txt").write_text("kept")
    (tmp_path / WEIGHTS_NAME).write_bytes(b"weights")
    tags = {WEIGHTS_TAG: content_of(tmp_path / WEIGHTS_NAME)}
    here = tmp_path / "mlruns"
    build_tables(tmp_path / "server.db")
    with mlflow_server(tmp_path, artifacts) as uri:
        with mlflow_run(here, "vggheads", "first", tags) as tracker:
            tracker.log_metrics({"loss": 0.5}, step=1)
            tracker.log_artifact(tmp_path / "note.txt")
            model = tracker.log_model(adder(tmp_path, 2.5))
        with mlflow_run(here, "vggheads", "second"):
            pass
        assert tracker.tracking_uri == uri
        assert log_scores(here, tmp_path, {"benchmark/ap50": 0.75}) == tracker.run_id
        assert compare_runs(here, "first", "second").metrics == {
            "benchmark/ap50": ("0.75", "-"),
            "loss": ("0.5", "-"),
        }
        client = mlflow.MlflowClient(uri)
        run = client.get_run(tracker.run_id)
        assert run.info.status == "FINISHED"
        assert client.get_experiment(run.info.experiment_id).tags.items() >= EXPERIMENT_TAGS.items()
        version = client.get_model_version_by_alias("adder", CANDIDATE)
        assert (f"models:/adder/{version.version}", version.run_id) == (model, tracker.run_id)
        assert version.tags["licence"] == "Apache-2.0"
        loaded = mlflow.pyfunc.load_model(f"models:/adder@{CANDIDATE}")
        assert loaded.predict(np.ones((1, 2))).tolist() == [[3.5, 3.5]]
    names = keys(address, "mlflow/") if address else [str(p) for p in stored.rglob("*")]
    for name in ("note.txt", "MLmodel", "offset.txt"):
        assert any(one.endswith(name) for one in names), name
    assert not here.exists(), "nothing is kept here"


def test_a_server_that_is_away_is_a_clear_refusal(tmp_path, monkeypatch, capsys):
    address = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    with pytest.raises(TrackingUnavailable, match=f"{address}, and no server answers.*unset"):
        open_store(tmp_path / "mlruns", "vggheads")
    assert not (tmp_path / "mlruns").exists()
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    assert main(["compare", "a", "b"], SimpleNamespace(root=tmp_path)) == 2
    assert f"error: MLFLOW_TRACKING_URI is {address}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", None),
        ("sqlite:////x/mlflow.db", None),
        ("file:///x", None),
        ("/x/mlruns", None),
        ("https://lab:5000", "https://lab:5000"),
        ("postgresql://lab/mlflow", "postgresql://lab/mlflow"),
    ],
)
def test_local_addresses_are_our_own_store(value, expected, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", value)
    assert remote_store() == expected


def wait_until_up(address, server, seconds=300):
    deadline = time.monotonic() + seconds
    while True:
        assert server.poll() is None, "the server ended"
        assert time.monotonic() < deadline
        try:
            urllib.request.urlopen(address, timeout=5).close()
        except OSError:
            time.sleep(0.3)
        else:
            return
