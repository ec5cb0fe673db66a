"""Serves Dagster and MLflow on this machine until interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

from dagster_project.console import say
from dagster_project.resources import EXPERIMENT, MLFLOW_PORT

HOST = "127.0.0.1"
DAGSTER_PORT = 3000
_START_SECONDS = 120


def serve(root: Path, home: Path) -> int:
    """Start both servers, print their addresses, and stop both on Ctrl-C.

    Args:
        root: the project folder.
        home: DAGSTER_HOME, where the servers' logs go.

    Returns:
        Exit status: 0 after Ctrl-C, 1 if a server did not start or died.
    """
    from ml.training.tracking import open_store

    store, experiment = open_store(root / "mlruns", EXPERIMENT)
    artifacts = (root / "mlruns" / "artifacts").as_uri()
    python = [sys.executable, "-m"]
    dagster = [*python, "dagster_project.webserver", str(root), "--port", str(DAGSTER_PORT)]
    # Sensors and schedules; it listens nowhere.
    daemon = [*python, "dagster._daemon", "run", "-m", "dagster_project.definitions"]
    mlflow = [*python, "mlflow", "server", "--workers", "1", "--backend-store-uri", store]
    commands = {
        "Dagster": (f"http://{HOST}:{DAGSTER_PORT}", dagster),
        "daemon": ("", daemon),
        "MLflow": (
            # Its own start page is an overview of things that are not runs.
            f"http://{HOST}:{MLFLOW_PORT}/#/experiments/{experiment}/runs",
            [*mlflow, "--default-artifact-root", artifacts, *_address(MLFLOW_PORT)],
        ),
    }
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
        say("Ctrl-C stops both.")
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


def _address(port: int) -> list[str]:
    return ["--host", HOST, "--port", str(port)]


def _start(command: Sequence[str], root: Path, log: Path) -> subprocess.Popen[bytes]:
    # A session of its own: the terminal's Ctrl-C reaches only this process, which stops them.
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
