"""A finished project on which kills and faults are tried, and the report of a case."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.chain_rehearsal import digests
from tests.fixtures.toy_project import edit_params, write_toy
from tests.rehearsal import ROOT, environment

MAX_GB = (2 << 30) / 1e9
"""Resident memory that a process of a case may have at most; 2.01 were seen in a whole run."""
STATUS = [sys.executable, "-m", "dvc", "status"]


@dataclass(frozen=True)
class Chain:
    """A project that is finished, and how it is made again.

    Attributes:
        reference: the finished project.
        program: arguments of the interpreter that start its command line.
        stage: a stage that is quickly made, for faults that need no more.
        sharded: a stage whose shards processes of their own make.
        tracked: a stage that reports to MLflow; empty where there is none.
        kill_after_s: after how much work a run is killed, from and to, in seconds of the processor:
            a busy machine does no less until then.
        num_kills: how many kills.
    """

    reference: Path
    program: tuple[str, ...]
    stage: str
    sharded: str
    tracked: str
    kill_after_s: tuple[float, float]
    num_kills: int

    def copy(self, folder: Path) -> Path:
        """Copy the finished project into another folder.

        Args:
            folder: what is there is removed.
        """
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.reference, folder, symlinks=True)
        return folder

    def start(
        self,
        root: Path,
        arguments: Sequence[str],
        variables: dict[str, str] | None = None,
        limit: Callable[[], Any] | None = None,
        output: Path | None = None,
    ) -> subprocess.Popen[str]:
        """Start a command in a copy, in a process group of its own.

        Args:
            root: the copy.
            arguments: of the command line.
            variables: added to the environment.
            limit: what the process does to itself before it starts.
            output: file for what it says; a pipe if left out.
        """
        env = {**environment(root), "DAGSTER_HOME": str(root / ".dagster"), **(variables or {})}
        env["PYTHONPATH"] = f"{root}:{ROOT}" if self.program[0] != "-m" else str(root)
        command = [sys.executable, *self.program, *arguments]
        options: dict[str, Any] = {
            "cwd": root, "env": env, "text": True, "stderr": subprocess.STDOUT,
            "start_new_session": True, "preexec_fn": limit,
        }  # fmt: skip
        if output is None:
            return subprocess.Popen(command, stdout=subprocess.PIPE, **options)
        with output.open("w") as file:
            return subprocess.Popen(command, stdout=file, **options)

    def difference(self, root: Path) -> str:
        """Say in what a copy differs from the finished project; empty if in nothing.

        Args:
            root: the copy: its files must have the same bytes, and dvc.lock must name them.
        """
        if digests(root) != digests(self.reference):
            return "other bytes"
        return _unrecorded(root)


def _unrecorded(root: Path) -> str:
    """Say what `dvc status` finds; empty if everything is recorded."""
    if not (root / "dvc.lock").is_file():
        return "no dvc.lock"
    found = subprocess.run(
        STATUS, cwd=root, env=environment(root), capture_output=True, text=True, check=False
    )
    if found.returncode == 0 and "up to date" in found.stdout:
        return ""
    return f"dvc status: {(found.stdout + found.stderr).strip()[-200:]}"


def row(
    name: str,
    what: str,
    outcome: str,
    good: bool | None,
    started: float,
    output: str = "",
    peak_gb: float = 0.0,
) -> bool | None:
    """Print a case as a row of Markdown, with the output of failed ones.

    Args:
        name: the case.
        what: goes wrong in it.
        outcome: in words.
        good: whether it ended as it should; None if it was not tried.
        started: when it began, by the monotonic clock.
        output: what the command said.
        peak_gb: largest resident memory of one of its processes; 0 if not measured.

    Returns:
        `good`.
    """
    seconds = time.monotonic() - started
    verdict = {True: "yes", False: "NO", None: "NOT TRIED"}[good]
    memory = f"{peak_gb:.2f} GB" if peak_gb else ""
    sys.stdout.write(f"| {name} | {what} | {outcome} | {verdict} | {memory} | {seconds:.0f} s |\n")
    if good is False:
        sys.stdout.write("\n".join(f"    {line}" for line in output.splitlines()[-15:]) + "\n")
    sys.stdout.flush()
    return good


def toy_chain(folder: Path) -> Chain:
    """Make the toy project of `tests/dagster_project`, with shards that take a moment.

    Args:
        folder: to make it in.
    """
    root = folder / "reference"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    write_toy(root)
    edit_params(root, "workers: 0", "workers: 2")
    edit_params(root, "seconds: 0.0", "seconds: 1.0")
    chain = Chain(root, ("toy_cli.py",), "numbers", "numbers", "", (4.0, 10.0), 2)
    output, _ = chain.start(root, ("demo",)).communicate()
    sys.stdout.write(output)
    return chain


def smoke_chain(reference: Path) -> Chain:
    """Return a finished project of the smoke profile.

    Args:
        reference: its folder.
    """
    program = ("-m", "dagster_project.cli")
    return Chain(reference, program, "captions", "poses", "flame_regressor", (8.0, 45.0), 20)


def _fields(number: int) -> list[str]:
    """Fields of /proc/PID/stat after the name; empty for an ended process."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def running(group: int) -> list[int]:
    """Return the processes of a group that run, without those that only wait to be reaped.

    Args:
        group: the group's id.
    """
    numbers = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    found = {number: fields for number in numbers if (fields := _fields(number))}
    return [n for n, fields in found.items() if int(fields[2]) == group and fields[0] not in "ZX"]


def processor_s(group: int) -> float:
    """Return the time of the processor that a group's processes have taken, in seconds.

    Args:
        group: the group's id.
    """
    ticks = sum(
        int(fields[11]) + int(fields[12])
        for number in running(group)
        if (fields := _fields(number))
    )
    return ticks / os.sysconf("SC_CLK_TCK")


def workers_of(group: int) -> list[int]:
    """Return the processes of a group that make shards.

    Args:
        group: the group's id.
    """
    found = []
    for number in running(group):
        try:
            command = Path(f"/proc/{number}/cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if number != group and b"spawn_main" in command:
            found.append(number)
    return found


def kill(number: int, word: int) -> None:
    """Send a signal to a process that may have ended.

    Args:
        number: the process.
        word: the signal.
    """
    try:
        os.kill(number, word)
    except ProcessLookupError:
        return
