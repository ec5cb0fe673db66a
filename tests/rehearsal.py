"""Shared parts of rehearsals: a separate project, commands run in it, and their memory."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]


def say(text: str) -> None:
    """Announce the next part."""
    sys.stdout.write(f"\n== {text}\n")
    sys.stdout.flush()


def copy_project(folder: Path) -> None:
    """Copy this checkout's code into a project of its own; data made there stays."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("assets", "ops", "ml", "dagster_project", "vggheads", "conf"):
        shutil.rmtree(folder / name, ignore_errors=True)
        # Compiled loops come along (*.nbi, *.nbc), byte code does not.
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("*.pyc"))
    for name in ("dvc.yaml", "pyproject.toml", ".gitignore", ".dvcignore", ".dvc/config"):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target)
    if not (folder / ".git").exists():
        subprocess.run(["git", "init", "-q"], cwd=folder, check=True)


def environment(folder: Path) -> dict[str, str]:
    """The variables of a command in a project: its own code comes before an installed one."""
    return {
        **{k: v for k, v in os.environ.items() if not k.startswith(("DVC_", "DAGSTER_"))},
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(folder),
        "DVC_NO_ANALYTICS": "1",
        "TRANSFORMERS_VERBOSITY": "error",
    }


def run(folder: Path, *arguments: str) -> None:
    """Run Python in a project; fails when it fails."""
    command = [sys.executable, *arguments]
    subprocess.run(command, cwd=folder, env=environment(folder), check=True)


@contextmanager
def peak_memory() -> Iterator[Callable[[], float]]:
    """Watch all processes that this one starts, and those that they start.

    Yields:
        A function that returns the largest resident memory of any of them until now, GB.
    """
    peaks: dict[int, float] = {}
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.2):
            for process in psutil.Process().children(recursive=True):
                peaks[process.pid] = max(peaks.get(process.pid, 0.0), _peak_gb(process.pid))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield lambda: max(list(peaks.values()), default=0.0)
    finally:
        stop.set()
        watcher.join()


def _peak_gb(pid: int) -> float:
    """What Linux remembers as the most that a process had resident; 0 when it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) * 1024 / 1e9 if found else 0.0


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start Python in a project, in a process group of its own, its output kept together."""
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
