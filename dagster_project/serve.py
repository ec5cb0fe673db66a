"""Serves Dagster, MLflow and the reports on this machine until interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from dagster_project.console import say
from dagster_project.reports import ADDRESS as REPORTS_ADDRESS
from dagster_project.reports import PORT as REPORTS_PORT
from dagster_project.resources import EXPERIMENT, MLFLOW_ADDRESS, MLFLOW_PORT
from ml.inference.ports import not_free

HOST = "127.0.0.1"
DAGSTER_PORT = 3000
OPEN_GROUPS = ("generation", "annotation", "filtering", "detector")
"""Groups of the lineage that are opened at first: the paper's figure 2, from left to right."""
_START_SECONDS = 300  # seconds, on a machine that does something else as well


@dataclass(frozen=True)
class Ports:
    """Where the three servers listen, on this machine alone.

    Attributes:
        dagster: Dagster's pages.
        mlflow: MLflow's pages.
        reports: reports and Data Docs.
    """

    dagster: int = DAGSTER_PORT
    mlflow: int = MLFLOW_PORT
    reports: int = REPORTS_PORT

    def __post_init__(self) -> None:
        given = (self.dagster, self.mlflow, self.reports)
        if len(set(given)) < len(given) or not all(0 < port < 65536 for port in given):
            raise ValueError(f"ui: expected three different ports from 1 to 65535, got {given}")


def lineage_address(address: str) -> str:
    """Return the page of the lineage, with the groups of the paper's pipeline opened.

    Args:
        address: that of Dagster.
    """
    groups = ",".join(f"global@global:{group}" for group in OPEN_GROUPS)
    return f"{address}/asset-groups?expanded={quote(groups)}"


def serve(root: Path, home: Path, ports: Ports) -> int:
    """Start the servers, print their addresses, and stop all on Ctrl-C.

    Args:
        root: the project folder.
        home: DAGSTER_HOME, where the servers' logs go.
        ports: where they listen.

    Returns:
        Exit status: 0 after Ctrl-C, 1 if a server did not start or died.

    Raises:
        ValueError: another program listens on one of the ports.
    """
    for name, port in vars(ports).items():
        _require_free(name, port)
    # Dagster's pages link to the other two.
    os.environ[MLFLOW_ADDRESS] = f"http://{HOST}:{ports.mlflow}"
    os.environ[REPORTS_ADDRESS] = f"http://{HOST}:{ports.reports}"
    from ml.training.tracking import open_store, page_address, remote_store

    store, experiment = open_store(root / "mlruns", EXPERIMENT)
    artifacts = (root / "mlruns" / "artifacts").as_uri()
    python = [sys.executable, "-m"]
    dagster = [*python, "dagster_project.webserver", str(root), "--port", str(ports.dagster)]
    # Starts the runs that the pages queue, sensors and schedules; it listens nowhere. Without
    # arguments it loads what pyproject.toml names, as the web server does.
    daemon = [*python, "dagster._daemon", "run"]
    mlflow = [*python, "mlflow", "server", "--workers", "1", "--backend-store-uri", store]
    reports = [*python, "dagster_project.reports", str(root), "--port", str(ports.reports)]
    commands = {
        "Dagster": (lineage_address(f"http://{HOST}:{ports.dagster}"), dagster),
        "daemon": ("", daemon),
        "MLflow": (
            # Its own start page is an overview of things that are not runs.
            page_address(f"http://{HOST}:{ports.mlflow}", f"experiments/{experiment}/runs"),
            [*mlflow, "--default-artifact-root", artifacts, *_address(ports.mlflow)],
        ),
        "reports": (f"http://{HOST}:{ports.reports}", reports),
    }
    if remote := remote_store():
        del commands["MLflow"]
        say(f"MLflow   {remote} (MLFLOW_TRACKING_URI)")
    servers: dict[str, subprocess.Popen[bytes]] = {}
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        for name, (_, command) in commands.items():
            servers[name] = _start(command, root, home / f"{name.lower()}.log")
        for name, (address, _) in commands.items():
            if not address:
                continue
            if not _wait_until_up(address, servers[name]):
                say(f"{name} did not start; its log: {home / f'{name.lower()}.log'}")
                return 1
            say(f"{name:<8} {address}")
        say("Ctrl-C stops all.")
        return _watch(servers)
    except KeyboardInterrupt:
        return 0
    finally:
        stop(servers)


def stop(servers: Mapping[str, subprocess.Popen[bytes]]) -> None:
    """End servers with all processes they started."""
    for server in servers.values():
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGTERM)
    for server in servers.values():
        try:
            server.wait(timeout=15)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def _require_free(name: str, port: int) -> None:
    """Check that a port is free: a taken one would show another program's page.

    Raises:
        ValueError: something listens on it.
    """
    option = "--port" if name == "dagster" else f"--{name}-port"
    if reason := not_free(HOST, port):
        raise ValueError(
            f"ui: port {port} cannot be used for {name} ({reason}); another `vggheads ui` may be "
            f"running; choose another with {option}"
        )


def _address(port: int) -> list[str]:
    return ["--host", HOST, "--port", str(port)]


def _start(command: Sequence[str], root: Path, log: Path) -> subprocess.Popen[bytes]:
    # A new session: the terminal's Ctrl-C reaches only this process, which stops the servers.
    with log.open("wb") as file:
        return subprocess.Popen(
            command, cwd=root, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )


def _wait_until_up(address: str, server: subprocess.Popen[bytes]) -> bool:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=5):
                return True
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.5)
    return False


def _watch(servers: Mapping[str, subprocess.Popen[bytes]]) -> int:
    while True:
        for name, server in servers.items():
            if server.poll() is not None:
                say(f"{name} ended with status {server.returncode}")
                return 1
        time.sleep(1)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt
