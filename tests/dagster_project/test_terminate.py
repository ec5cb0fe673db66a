"""Dagster terminates a run, as its page asks for it: nothing that the run started lives on."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request

import psutil
import pytest

from tests.dagster_project.conftest import toy_environment
from tests.dagster_project.test_ray_workers import cluster, needs_ray, started, wait_for
from tests.dagster_project.test_s3 import free_port, wait_until_up

assert cluster  # the fixture

DEFINITIONS = """\
from pathlib import Path

from dagster_project.definitions import build_definitions
from toy_stages import toy_pipeline

defs = build_definitions(toy_pipeline(Path(__file__).resolve().parent))
"""
# Without the daemon that takes runs off a queue.
HOME = """\
telemetry: {enabled: false}
run_coordinator: {module: dagster._core.run_coordinator, class: DefaultRunCoordinator}
"""
LAUNCH = """
mutation ($params: ExecutionParams!) {
  launchPipelineExecution(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
  }
}"""
TERMINATE = """
mutation ($run: String!) {
  terminateRun(runId: $run) { __typename ... on TerminateRunFailure { message } }
}"""
STATUS = "query ($run: ID!) { runOrError(runId: $run) { ... on Run { status } } }"


class Page:
    """Dagster's web server on a toy project."""

    def __init__(self, toy):
        (toy.root / "toy_page.py").write_text(DEFINITIONS)
        (toy.root / ".dagster").mkdir(exist_ok=True)
        (toy.root / ".dagster" / "dagster.yaml").write_text(HOME)
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.shards = toy.pipeline.shards
        self.process = subprocess.Popen(
            [sys.executable, "-m", "dagster_webserver", "-m", "toy_page", "-p", str(port)],
            cwd=toy.root,
            env=toy_environment(toy.root),
            start_new_session=True,
        )
        wait_until_up(f"{self.url}/server_info", self.process)

    def ask(self, query, **variables):
        content = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(
            f"{self.url}/graphql", content, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=120) as answer:
            return next(iter(json.load(answer)["data"].values()))

    def launch(self, asset):
        """Materialise all partitions of an asset in one run; return its id."""
        ends = {"start": self.shards[0], "end": self.shards[-1]}
        tags = [
            {"key": f"dagster/asset_partition_range_{end}", "value": shard}
            for end, shard in ends.items()
        ]
        selector = {
            "repositoryName": "__repository__",
            "repositoryLocationName": "toy_page",
            "pipelineName": "__ASSET_JOB",
            "assetSelection": [{"path": [asset]}],
        }
        answer = self.ask(
            LAUNCH,
            params={
                "mode": "default",
                "runConfigData": "{}",
                "selector": selector,
                "executionMetadata": {"tags": tags},
            },
        )
        assert answer["__typename"] == "LaunchRunSuccess", answer
        return answer["run"]["runId"]

    def await_end(self, run, seconds=180):
        deadline = time.monotonic() + seconds
        while (status := self.ask(STATUS, run=run)["status"]) in ("STARTED", "CANCELING"):
            assert time.monotonic() < deadline, status
            time.sleep(0.5)
        return status

    def close(self):
        os.killpg(self.process.pid, signal.SIGTERM)
        self.process.wait(60)


def terminate_and_look(toy):
    """Terminate a run while two workers make shards; return its status and who is left."""
    toy.set_param("seconds: 0.0", "seconds: 600.0")
    page = Page(toy)
    try:
        run = page.launch("numbers")
        wait_for(lambda: len(started(toy)) >= 2, page.process)
        workers = [psutil.Process(pid) for pid in set(started(toy))]
        assert page.ask(TERMINATE, run=run)["__typename"] == "TerminateRunSuccess"
        status = page.await_end(run)
        _, left = psutil.wait_procs(workers, 30)
        return status, left
    finally:
        page.close()


@pytest.mark.rehearsal
def test_a_terminated_run_leaves_no_local_worker(fresh_toy):
    fresh_toy.set_param("workers: 0", "workers: 2")
    assert terminate_and_look(fresh_toy) == ("CANCELED", [])
    assert not list((fresh_toy.root / "data").rglob("*.json")), "a shard was called finished"


@pytest.mark.rehearsal
@needs_ray
def test_a_terminated_run_leaves_no_actor(cluster, fresh_toy):
    fresh_toy.set_param(
        "workers: 0", f"workers: 2, engine: ray, ray: {{address: '{cluster.address}'}}"
    )
    assert terminate_and_look(fresh_toy) == ("CANCELED", [])
