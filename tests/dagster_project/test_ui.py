"""`vggheads ui` as a person uses it: an asset is materialised from Dagster's page."""

import json
import os
import socket
import time
import urllib.request
from pathlib import Path

import pytest

from tests.rehearsal import copy_project, run, start

LAUNCH = """mutation Launch($what: ExecutionParams!) {
  launchPipelineExecution(executionParams: $what) {
    __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
  }
}"""
STATUS = """query Status($run: ID!) {
  runOrError(runId: $run) { ... on Run { status } }
  assetNodes(assetKeys: [{path: ["head_model"]}]) { repository { location { name } } }
}"""


def ask(port: int, query: str, **variables):
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/graphql",
        json.dumps({"query": query, "variables": variables}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)["data"]


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@pytest.mark.rehearsal
def test_what_the_page_materialises_is_made(tmp_path: Path):
    project = tmp_path / "project"
    copy_project(project)
    run(project, "-m", "dagster_project.cli", "profile", "smoke")
    ports = free_ports(3)
    options = zip(("--port", "--mlflow-port", "--reports-port"), map(str, ports), strict=True)
    command = ("-m", "dagster_project.cli", "ui", *(word for pair in options for word in pair))
    server = start(project, *command)
    try:
        for line in server.stdout:
            if "Ctrl-C" in line:
                break
        selector = {
            "repositoryLocationName": "vggheads", "repositoryName": "__repository__",
            "jobName": "__ASSET_JOB", "assetSelection": [{"path": ["head_model"]}],
        }  # fmt: skip
        what = {"selector": selector, "mode": "default", "runConfigData": {}}
        launched = ask(ports[0], LAUNCH, what=what)["launchPipelineExecution"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        ended, status = time.monotonic() + 300, "QUEUED"
        while status not in ("SUCCESS", "FAILURE", "CANCELED") and time.monotonic() < ended:
            time.sleep(1)
            status = ask(ports[0], STATUS, run=launched["run"]["runId"])["runOrError"]["status"]
        assert status == "SUCCESS"
        assert (project / "data" / "head_model" / "head_model.npz").exists()
    finally:
        # Not SIGINT, which processes started in the background ignore.
        server.terminate()
        server.wait(timeout=60)
    assert not os.path.exists(f"/proc/{server.pid}")
