"""Kills and faults of the machine on a whole chain: the same bytes afterwards, or a clear refusal.

    python -m tests.chain_faults build/chain/reference build/faults [NAME ...]
    python -m tests.chain_faults --short build/short

The first form works on copies of a finished smoke project, the second on the toy project of
`tests/dagster_project`, in under two minutes. Both print a row of Markdown for each case.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.chain_rehearsal import digests
from tests.rehearsal import ROOT, environment, say

SEED = 20240718
NUM_KILLS = 20
SHORT = ("kill", "hash seed", "umask 077", "empty dvc.lock", "disk full")


@dataclass(frozen=True)
class Chain:
    """A project that is finished, and how it is made again.

    Attributes:
        reference: the finished project.
        program: arguments of the interpreter that start its command line.
        stage: a stage that is quickly made, for faults that need no more.
        kill_after_s: between which times after its start a run is killed.
        num_kills: how many kills.
    """

    reference: Path
    program: tuple[str, ...]
    stage: str
    kill_after_s: tuple[float, float]
    num_kills: int

    def copy(self, folder: Path) -> Path:
        """The finished project in another folder."""
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.reference, folder, symlinks=True)
        return folder


@dataclass(frozen=True)
class Fault:
    """What goes wrong while a stage is made again.

    Attributes:
        what: in words, for the table.
        refusal: part of the message with which it is refused; empty: the same bytes come out.
        variables: of the environment.
        limit: what the process does to itself before it starts.
        before: damages the project.
        beside: holds something while the command runs.
        folder: name of the project's folder.
        remedy: arguments of the command after which all is well again.
    """

    what: str
    refusal: str = ""
    variables: dict[str, str] = field(default_factory=dict)
    limit: Callable[[], Any] | None = None
    before: Callable[[Path], Any] | None = None
    beside: Callable[[Path, Chain], AbstractContextManager[Any]] | None = None
    folder: str = "project"
    remedy: tuple[str, ...] = ()


def _write(name: str, content: bytes) -> Callable[[Path], None]:
    def write(root: Path) -> None:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)

    return write


def _left_folder(root: Path) -> None:
    for stage in (root / "data").iterdir():
        (stage / ".tmp-1-model" / "inner").mkdir(parents=True)


@contextmanager
def _database_locked(root: Path, chain: Chain) -> Any:
    """Hold Dagster's list of runs for three seconds."""
    with closing(sqlite3.connect(root / ".dagster" / "history" / "runs.db")) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3)"])
        yield
        process.wait()
        connection.rollback()


@contextmanager
def _second_run(root: Path, chain: Chain) -> Any:
    """The same stage made by another process at the same time."""
    process = _start(chain, root, ("materialize", chain.stage, "--force"), {}, None)
    yield
    process.communicate()


@contextmanager
def _dvc_beside(root: Path, chain: Chain) -> Any:
    """`dvc repro` of the stage at the same time."""
    command = [sys.executable, "-m", "dvc", "repro", "--force", "--single-item", chain.stage]
    process = subprocess.Popen(
        command, cwd=root, env=environment(root), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    yield
    process.communicate()


def _limited(kind: int, amount: int) -> Callable[[], None]:
    def limit() -> None:
        # Python is told by an error instead of being killed.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(kind, (amount, amount))

    return limit


DOCTOR = ("doctor", "--repair")
FAULTS: dict[str, Fault] = {
    "hash seed": Fault("PYTHONHASHSEED=12345", variables={"PYTHONHASHSEED": "12345"}),
    "locale C": Fault("locale C", variables={"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0"}),
    "locale tr": Fault("Turkish locale", variables={"LC_ALL": "tr_TR.UTF-8", "LANG": "tr_TR"}),
    "time zone": Fault("time zone Pacific/Kiritimati", variables={"TZ": "Pacific/Kiritimati"}),
    "threads": Fault("8 threads in every library", variables={"OMP_NUM_THREADS": "8",
                     "MKL_NUM_THREADS": "8", "NUMBA_NUM_THREADS": "8"}),
    "umask 077": Fault("umask 077", limit=lambda: os.umask(0o077)),
    "old clock": Fault("inputs dated in the future", before=lambda root: [
        os.utime(path, (2**31 - 1, 2**31 - 1)) for path in (root / "data").rglob("*.parquet")]),
    "folder": Fault("folder of another name", folder="a b %20 #ü"),
    "no temp": Fault("TMPDIR names no folder", variables={"TMPDIR": "/nowhere/at/all"}),
    "left folder": Fault("folders of killed writers in every stage", before=_left_folder),
    "empty dvc.lock": Fault("dvc.lock empty", "vggheads doctor", before=_write("dvc.lock", b""),
                            remedy=DOCTOR),
    "cut dvc.lock": Fault("dvc.lock with a conflict", "vggheads doctor", remedy=DOCTOR,
                          before=_write("dvc.lock", b"<<<<<<< HEAD\n")),
    "rwlock": Fault("DVC's rwlock damaged", "vggheads doctor", remedy=DOCTOR,
                    before=_write(".dvc/tmp/rwlock", b"{")),
    "runs": Fault("Dagster's database of runs damaged", "vggheads doctor", remedy=DOCTOR,
                  before=_write(".dagster/history/runs.db", b"no database")),
    "mlflow": Fault("MLflow's database empty", "vggheads doctor", remedy=DOCTOR,
                    before=_write("mlruns/mlflow.db", b"")),
    "locked": Fault("Dagster's database locked for three seconds", beside=_database_locked),
    "two runs": Fault("two runs of one stage", beside=_second_run),
    "dvc repro": Fault("`dvc repro` of the stage at the same time", beside=_dvc_beside),
    "disk full": Fault("files end after 512 bytes, as on a full disk", "disk",
                       limit=_limited(resource.RLIMIT_FSIZE, 512),
                       remedy=("materialize", "STAGE", "--force")),
    "memory": Fault("memory of a process limited to 600 MB", "rror",
                    limit=_limited(resource.RLIMIT_AS, 600 << 20),
                    remedy=("materialize", "STAGE", "--force")),
}  # fmt: skip


def _start(
    chain: Chain,
    root: Path,
    arguments: tuple[str, ...],
    variables: dict[str, str],
    limit: Callable[[], Any] | None,
) -> subprocess.Popen[str]:
    env = {**environment(root), "DAGSTER_HOME": str(root / ".dagster"), **variables}
    env["PYTHONPATH"] = f"{root}:{ROOT}" if chain.program[0] != "-m" else str(root)
    return subprocess.Popen(
        [sys.executable, *chain.program, *arguments], cwd=root, env=env, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=limit,
    )  # fmt: skip


def run_fault(chain: Chain, name: str, folder: Path) -> bool:
    """One fault; prints its row.

    Args:
        chain: the project.
        name: which.
        folder: where to copy it.

    Returns:
        Whether it ended as it should.
    """
    fault, started = FAULTS[name], time.monotonic()
    root = chain.copy(folder / fault.folder)
    if fault.before:
        fault.before(root)
    with fault.beside(root, chain) if fault.beside else nullcontext():
        arguments = ("materialize", chain.stage, "--force")
        process = _start(chain, root, arguments, fault.variables, fault.limit)
        output, _ = process.communicate()
    refused = process.returncode != 0
    good = refused == bool(fault.refusal) and fault.refusal in output
    if fault.remedy and good:
        remedy = tuple(chain.stage if word == "STAGE" else word for word in fault.remedy)
        good = _start(chain, root, remedy, {}, None).communicate() and good
    _remove_leftovers(root)
    equal = digests(root) == digests(chain.reference)
    outcome = "refused, and remedied" if refused else "made"
    return _row(name, fault.what, outcome, equal and bool(good), started, output)


def run_kills(chain: Chain, folder: Path) -> bool:
    """Kill a run that makes everything again and again; prints a row a kill.

    Args:
        chain: the project.
        folder: where to copy it.

    Returns:
        Whether the last run ended in the same bytes.
    """
    root, chance = chain.copy(folder / "killed"), random.Random(SEED)
    shutil.rmtree(root / "data")
    (root / "dvc.lock").unlink()
    for number in range(chain.num_kills):
        started, moment = time.monotonic(), chance.uniform(*chain.kill_after_s)
        process = _start(chain, root, ("demo",), {}, None)
        try:
            process.communicate(timeout=moment)
        except subprocess.TimeoutExpired:
            # Every other time the main process alone: what it started must notice.
            process.kill() if number % 2 else os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
            last = [line for line in output.splitlines() if line.startswith("[")][-1:]
            what = f"SIGKILL after {moment:.1f} s, after {' '.join(last)[:40] or 'nothing'}"
            _row(f"kill {number + 1}", what, "killed", True, started, "")
    started = time.monotonic()
    output, _ = _start(chain, root, ("demo",), {}, None).communicate()
    _remove_leftovers(root)
    equal = digests(root) == digests(chain.reference)
    return _row("kill", f"{chain.num_kills} kills, then one run", "made", equal, started, output)


def _remove_leftovers(root: Path) -> None:
    """Folders that the case itself put into stages that were not made again."""
    for path in (root / "data").rglob(".tmp-1-model"):
        shutil.rmtree(path)


def _row(name: str, what: str, outcome: str, good: bool, started: float, output: str) -> bool:
    seconds = time.monotonic() - started
    verdict = "yes" if good else "NO"
    sys.stdout.write(f"| {name} | {what} | {outcome} | {verdict} | {seconds:.0f} s |\n")
    if not good:
        sys.stdout.write("\n".join(f"    {line}" for line in output.splitlines()[-15:]) + "\n")
    sys.stdout.flush()
    return good


def toy_chain(folder: Path) -> Chain:
    """The toy project, finished."""
    from dvc.repo import Repo

    root = folder / "reference"
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(ROOT / "tests" / "dagster_project" / "toy", root)
    (root / "stages.yaml").rename(root / "dvc.yaml")
    (root / "code").mkdir()
    (root / "code" / "numbers.py").write_text("# stands for the library's code\n")
    (root / ".gitignore").write_text("/data/\n/.dagster/\n/made.log\n/reports/\n")
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    Repo.init(str(root)).close()
    (root / ".dvcignore").write_text(".tmp-*\n")
    chain = Chain(root, ("toy_cli.py",), "numbers", (2.0, 9.0), 2)
    output, _ = _start(chain, root, ("demo",), {}, None).communicate()
    sys.stdout.write(output)
    return chain


def main(arguments: list[str] | None = None) -> int:
    """Run the cases asked for; returns 1 when one did not end as it should."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--short", action="store_true", help="on the toy project")
    parser.add_argument("folders", nargs="+", type=Path, metavar="[REFERENCE] FOLDER")
    parser.add_argument("--case", action="append", choices=["kill", *FAULTS])
    options = parser.parse_args(arguments)
    folder = options.folders[-1].resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if options.short:
        chain = toy_chain(folder)
    else:
        program = ("-m", "dagster_project.cli")
        chain = Chain(options.folders[0].resolve(), program, "captions", (5.0, 70.0), NUM_KILLS)
    say("case | what | outcome | same bytes in the end, or refused as it should | time")
    names = options.case or (SHORT if options.short else ["kill", *FAULTS])
    good = [
        run_kills(chain, folder) if name == "kill" else run_fault(chain, name, folder)
        for name in names
    ]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
