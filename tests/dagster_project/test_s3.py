"""Data on S3: a real server of its protocol on loopback, DVC's remote, MLflow's artifacts."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
import urllib.request

import pytest

from ml.training.tracking import TrackingUnavailable, mlflow_run, open_store, remote_store
from tests.dagster_project.conftest import entered
from tests.fixtures.ports import free_port

NEEDED = ("moto", "dvc_s3", "boto3")
MISSING = [name for name in NEEDED if importlib.util.find_spec(name) is None]
needs_s3 = pytest.mark.skipif(
    bool(MISSING), reason=f"{', '.join(MISSING)} not installed (extras `s3` and `scale-tests`)"
)


@pytest.fixture(scope="module")
def s3():
    """The server's address, with one bucket."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    before = dict(os.environ)
    os.environ.update(
        AWS_ACCESS_KEY_ID="test",
        AWS_SECRET_ACCESS_KEY="test",
        AWS_DEFAULT_REGION="us-east-1",
        MLFLOW_S3_ENDPOINT_URL=address,
    )
    boto3.client("s3", endpoint_url=address).create_bucket(Bucket="lab")
    yield address
    os.environ.clear()
    os.environ.update(before)
    server.stop()


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

    def git(*arguments, cwd):
        identity = ["-c", "user.name=t", "-c", "user.email=t@localhost"]
        subprocess.run(["git", *identity, *arguments], cwd=cwd, check=True, capture_output=True)

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


@needs_s3
def test_runs_and_artifacts_go_to_the_server_that_the_variable_names(s3, tmp_path, monkeypatch):
    port = free_port()
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", str(port)),
        *("--backend-store-uri", f"sqlite:///{tmp_path}/server.db"),
        *("--artifacts-destination", "s3://lab/mlflow"),
    ]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    server = subprocess.Popen(
        command, cwd=tmp_path, env=environment, start_new_session=True, stdout=subprocess.DEVNULL
    )
    try:
        uri = f"http://127.0.0.1:{port}"
        wait_until_up(f"{uri}/health", server)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        (tmp_path / "note.txt").write_text("kept")
        with mlflow_run(tmp_path / "mlruns", "vggheads", "a run") as tracker:
            tracker.log_metrics({"loss": 0.5}, step=1)
            tracker.log_artifact(tmp_path / "note.txt")
        assert tracker.tracking_uri == uri
        assert not (tmp_path / "mlruns").exists(), "nothing is kept here"
        assert any(key.endswith("note.txt") for key in keys(s3, "mlflow/"))
        import mlflow

        run = mlflow.MlflowClient(uri).get_run(tracker.run_id)
        assert (run.info.status, run.data.metrics) == ("FINISHED", {"loss": 0.5})
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
        import mlflow

        mlflow.set_tracking_uri(None)


def test_a_server_that_is_away_is_a_clear_refusal(tmp_path, monkeypatch):
    address = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    with pytest.raises(TrackingUnavailable, match=f"{address}, and no server answers.*unset"):
        open_store(tmp_path / "mlruns", "vggheads")
    assert not (tmp_path / "mlruns").exists()


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
