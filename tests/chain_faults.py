"""Kills and faults of the machine on a whole chain: the same bytes afterwards, or a clear refusal.

    python -m tests.chain_faults build/chain/reference build/faults [--case NAME ...] [--jobs N]
    python -m tests.chain_faults --short build/short

The first form works on copies of a finished smoke project, the second on the toy project of
`tests/dagster_project`, in under three minutes. Both print a row of Markdown for each case, with
the largest resident memory of any of its processes. Cases that this machine cannot try are counted,
and make the exit status 1 without `--allow-untried`.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import resource
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from glob import glob
from itertools import repeat
from pathlib import Path
from typing import Any

from dagster_project.doctor import RWLOCK
from tests.chain_kills import Killer
from tests.chain_project import MAX_GB, Chain, row, running, smoke_chain, toy_chain, workers_of
from tests.rehearsal import environment, peak_memory, say, start

SHORT = ("kill", "one worker", "empty dvc.lock", "disk full")
DOCTOR = ("doctor", "--repair")
ON_ALOUD = ("--verbose", "materialize", "STAGE")
AGAIN = ("materialize", "STAGE", "--force")
ON = ("materialize", "STAGE")
FAKETIME = "/usr/lib/*/faketime/libfaketimeMT.so.1"
_LOCKED_S = 3.0


@dataclass(frozen=True)
class Fault:
    """A fault while a stage is rerun.

    Attributes:
        what: in words, for the table.
        refusal: part of the message with which it is refused; empty: the same bytes come out.
        variables: of the environment.
        limit: what the process does to itself before it starts.
        before: damages the project.
        around: is there while the command runs; may give a second process, which must succeed
            too.
        second: with which words the second process may refuse; empty: it may not.
        during: does something to the processes of the command, in a thread of its own; returns
            whether it came to that.
        folder: name of the project's folder.
        remedy: arguments of the command after which all is well again.
        kind: which of the chain's stages is made: `stage`, `sharded` or `tracked`.
        lacks: why it cannot be tried on this machine; empty if it can.
        everything: whether the whole chain is made again from nothing.
        killed: whether `during` kills the command, which therefore refuses nothing.
        after: takes the folder and all that was said, and says what is wrong in the end.
    """

    what: str
    refusal: str = ""
    variables: dict[str, str] = field(default_factory=dict)
    limit: Callable[[], Any] | None = None
    before: Callable[[Path], Any] | None = None
    around: Callable[[Path, Chain], AbstractContextManager[subprocess.Popen[str] | None]] | None = (
        None
    )
    second: str = ""
    during: Callable[[Path, int], bool] | None = None
    folder: str = "project"
    remedy: tuple[str, ...] = ()
    kind: str = "stage"
    lacks: Callable[[], str] = str
    everything: bool = False
    killed: bool = False
    after: Callable[[Path, str], str] | None = None


def _write(name: str | Path, content: bytes) -> Callable[[Path], None]:
    def write(root: Path) -> None:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)

    return write


def _left_folder(root: Path) -> None:
    for stage in (root / "data").iterdir():
        (stage / ".tmp-1-model" / "inner").mkdir(parents=True)


def _date_in_the_future(root: Path) -> None:
    for path in (root / "data").rglob("*.parquet"):
        os.utime(path, (2**31 - 1, 2**31 - 1))


def _one_worker(root: Path) -> None:
    params = root / "params.yaml"
    params.write_text(params.read_text().replace("workers: 2", "workers: 1", 1))


def _lock(database: str) -> Callable[[Path, int], bool]:
    def lock(root: Path, group: int) -> bool:
        """Hold a database from the moment when the command opens it, for three seconds."""
        path = root / database
        if not _wait(group, lambda: any(_has_open(number, path) for number in running(group))):
            return False
        with closing(sqlite3.connect(path, timeout=60, isolation_level=None)) as connection:
            connection.execute("BEGIN EXCLUSIVE")
            time.sleep(_LOCKED_S)
            connection.execute("ROLLBACK")
        return True

    return lock


def _kill_at(sign: Callable[[Path], object]) -> Callable[[Path, int], bool]:
    """Return a function that kills a command and its processes when a sign is seen."""

    def end(root: Path, group: int) -> bool:
        seen = _wait(group, lambda: sign(root))
        if seen:
            os.killpg(group, signal.SIGKILL)
        return seen

    return end


def _within_an_epoch(root: Path) -> bool:
    """Return whether a training has a checkpoint, which is written before its last step."""
    return any((root / "data" / ".work").glob("*/*/last.ckpt"))


def _in_an_mlflow_run(root: Path) -> bool:
    """Return whether a run of MLflow is open."""
    database = f"{(root / 'mlruns' / 'mlflow.db').as_uri()}?mode=ro"
    counting = "SELECT count(*) FROM runs WHERE status = 'RUNNING'"
    try:
        with closing(sqlite3.connect(database, uri=True, timeout=0.1)) as connection:
            return bool(connection.execute(counting).fetchone()[0])
    except sqlite3.OperationalError:
        # It is being written to, or does not exist yet.
        return False


def _no_run_is_open(root: Path, output: str) -> str:
    """Say what is wrong with MLflow's runs after a killed one and the one that followed."""
    with closing(sqlite3.connect(root / "mlruns" / "mlflow.db")) as connection:
        found = [state for (state,) in connection.execute("SELECT status FROM runs")]
    if "RUNNING" in found or found.count("KILLED") != 1:
        return f"MLflow's runs are {found}"
    return ""


def _resumed(root: Path, output: str) -> str:
    """Say what is wrong after a killed training: it goes on, and its run in MLflow is closed."""
    if "going on after step" not in output:
        return "the training began anew"
    return _no_run_is_open(root, output)


def _has_open(number: int, path: Path) -> bool:
    for link in glob(f"/proc/{number}/fd/*"):
        # A process closes files, or ends, while it is looked at.
        with suppress(FileNotFoundError):
            if os.path.samefile(link, path):
                return True
    return False


def _wait(group: int, holds: Callable[[], object]) -> bool:
    """Wait until something holds while a command runs; returns whether it came to hold."""
    while running(group):
        if holds():
            return True
        time.sleep(0.01)
    return False


def _starve_workers(root: Path, group: int) -> bool:
    """Leave every worker that makes shards one more megabyte of addresses than it has."""
    starved: set[int] = set()
    while running(group):
        for number in set(_making(group)) - starved:
            # A worker may have ended since it was found.
            with suppress(FileNotFoundError, ProcessLookupError):
                pages = int(Path(f"/proc/{number}/statm").read_text().split()[0])
                most = pages * resource.getpagesize() + (1 << 20)
                resource.prlimit(number, resource.RLIMIT_AS, (most, most))
                starved.add(number)
        time.sleep(0.01)
    return bool(starved)


def _making(group: int) -> list[int]:
    """Workers that import what they need, or have imported it."""
    found = []
    for number in workers_of(group):
        try:
            if "numpy" in Path(f"/proc/{number}/maps").read_text():
                found.append(number)
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


@contextmanager
def _small_disk(root: Path, chain: Chain) -> Iterator[None]:
    """A disk of four pages under the folder of the stage."""
    folder = root / "data" / chain.stage
    options = ["-t", "tmpfs", "-o", "size=16k", "none", str(folder)]
    subprocess.run(["mount", *options], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def _read_only(root: Path, chain: Chain) -> Iterator[None]:
    """The folder of the stage on a disk that may only be read."""
    folder = str(root / "data" / chain.stage)
    subprocess.run(["mount", "--bind", folder, folder], check=True)
    subprocess.run(["mount", "-o", "remount,ro,bind", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def _no_turkish() -> str:
    known = subprocess.run(["locale", "-a"], capture_output=True, text=True, check=False).stdout
    return "" if "tr_TR" in known else "the system has no Turkish locale"


def _cannot_mount() -> str:
    return "" if os.getuid() == 0 else "only root may mount a small disk"


def _no_moto() -> str:
    missing = [name for name in ("moto", "boto3") if importlib.util.find_spec(name) is None]
    return f"{', '.join(missing)} not installed (extras s3, scale-tests)" if missing else ""


def _no_faketime() -> str:
    return "" if glob(FAKETIME) else "libfaketime is not installed"


@contextmanager
def _second_run(root: Path, chain: Chain) -> Iterator[subprocess.Popen[str]]:
    """The same stage made by another process at the same time."""
    yield chain.start(root, ("materialize", chain.stage, "--force"))


@contextmanager
def _dvc_beside(root: Path, chain: Chain) -> Iterator[subprocess.Popen[str]]:
    """`dvc repro` of the stage at the same time."""
    yield start(root, "-m", "dvc", "repro", "--force", "--single-item", chain.stage)


PORT = 18_519


STORE_PORT = 18_520
_SERVED = {
    "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{PORT}",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
}


@contextmanager
def _tracking_server(root: Path, chain: Chain) -> Iterator[None]:
    """A tracking server that is killed when the first checkpoint of a training is written."""
    with _server(root, _mlflow(root, str(root.parent)), PORT) as process, _doomed(process, root):
        yield


@contextmanager
def _object_store(root: Path, chain: Chain) -> Iterator[None]:
    """A tracking server, and the store of its artifacts, which is killed within a training."""
    import boto3

    address = f"http://127.0.0.1:{STORE_PORT}"
    keys = {
        "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1", "MLFLOW_S3_ENDPOINT_URL": address,
    }  # fmt: skip
    moto = [sys.executable, "-m", "moto.server", "--port", str(STORE_PORT)]
    with _server(root, moto, STORE_PORT) as store:
        client = boto3.client(
            "s3", endpoint_url=address, region_name="us-east-1",
            aws_access_key_id="test", aws_secret_access_key="test",
        )  # fmt: skip
        client.create_bucket(Bucket="lab")
        mlflow = _mlflow(root, "s3://lab/mlflow")
        with _server(root, mlflow, PORT, keys) as served, _doomed(store, root):
            yield
            os.killpg(served.pid, signal.SIGKILL)


def _mlflow(root: Path, artifacts: str) -> list[str]:
    """Return the command of a tracking server."""
    return [
        sys.executable, "-m", "mlflow", "server", "--port", str(PORT), "--workers", "1",
        "--backend-store-uri", f"sqlite:///{root.parent}/server.db",
        "--artifacts-destination", artifacts,
    ]  # fmt: skip


@contextmanager
def _server(
    root: Path, command: list[str], port: int, variables: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A server in a process group of its own, up on its port; killed at the end."""
    with (root.parent / f"server-{port}.log").open("w") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, start_new_session=True,
            env=environment(root) | (variables or {}),
        )  # fmt: skip
    try:
        _await_port(port)
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def _doomed(process: subprocess.Popen[bytes], root: Path) -> Iterator[None]:
    """Kill a server when the first checkpoint of a training is written."""
    stop = threading.Event()

    def end_it() -> None:
        while not stop.is_set() and not _within_an_epoch(root):
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)

    watcher = threading.Thread(target=end_it)
    watcher.start()
    try:
        yield
    finally:
        stop.set()
        watcher.join()


def _await_port(port: int) -> None:
    for _ in range(600):
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise SystemExit(f"chain faults: no server on port {port} within 120 s")


def _limited(kind: int, amount: int) -> Callable[[], None]:
    def limit() -> None:
        # Python gets an error instead of being killed.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(kind, (amount, amount))

    return limit


_ODD = "a b 20% #ü" + "x" * 180
"""Name of a folder that is hard to put into addresses and command lines."""
FAULTS: dict[str, Fault] = {
    "hash seed": Fault("PYTHONHASHSEED=12345", variables={"PYTHONHASHSEED": "12345"}),
    "locale C": Fault("locale C", variables={"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0"}),
    "locale tr": Fault("Turkish locale", lacks=_no_turkish, variables={
                       "LC_ALL": "tr_TR.UTF-8", "LANG": "tr_TR"}),
    "time zone": Fault("time zone Pacific/Kiritimati", variables={"TZ": "Pacific/Kiritimati"}),
    "threads": Fault("8 threads in every library", variables={"OMP_NUM_THREADS": "8",
                     "MKL_NUM_THREADS": "8", "NUMBA_NUM_THREADS": "8"}),
    "umask 077": Fault("umask 077", limit=lambda: os.umask(0o077)),
    "future inputs": Fault("inputs dated in 2038", before=_date_in_the_future),
    "clock back": Fault("clock set back by 400 days", lacks=_no_faketime, variables={
                        "LD_PRELOAD": next(iter(glob(FAKETIME)), ""), "FAKETIME": "-400d",
                        "FAKETIME_DONT_FAKE_MONOTONIC": "1"}),
    "folder": Fault("folder of another name", folder=_ODD),
    "folder %20": Fault("folder whose path reads as an address", "DAGSTER_HOME", folder="a%20b"),
    "no temp": Fault("TMPDIR names no folder", variables={"TMPDIR": "/nowhere/at/all"}),
    "left folder": Fault("folders of killed writers in every stage", before=_left_folder),
    "one worker": Fault("one worker instead of two, everything made again", everything=True,
                        before=_one_worker),
    "all at once": Fault(
        "one worker, hash seed, Turkish locale, time zone, umask 077, 8 threads, another folder, "
        "everything made again", everything=True, before=_one_worker, folder=_ODD,
        limit=lambda: os.umask(0o077), variables={
            "PYTHONHASHSEED": "12345", "LC_ALL": "tr_TR.UTF-8", "TZ": "Pacific/Kiritimati",
            "OMP_NUM_THREADS": "8", "MKL_NUM_THREADS": "8", "NUMBA_NUM_THREADS": "8"}),
    "empty dvc.lock": Fault("dvc.lock empty", "vggheads doctor", before=_write("dvc.lock", b""),
                            remedy=DOCTOR),
    "conflict": Fault("dvc.lock with a conflict", "vggheads doctor", remedy=DOCTOR,
                      before=_write("dvc.lock", b"<<<<<<< HEAD\n")),
    "rwlock": Fault("DVC's rwlock damaged", "vggheads doctor", remedy=DOCTOR,
                    before=_write(RWLOCK, b"{")),
    "runs": Fault("Dagster's database of runs damaged", "vggheads doctor", remedy=DOCTOR,
                  before=_write(".dagster/history/runs.db", b"no database")),
    "mlflow": Fault("MLflow's database empty", "vggheads doctor", remedy=DOCTOR,
                    before=_write("mlruns/mlflow.db", b"")),
    "kill in epoch": Fault("SIGKILL of all within an epoch of a training", killed=True,
                           remedy=ON_ALOUD, during=_kill_at(_within_an_epoch), kind="tracked",
                           after=_resumed),
    "kill in run": Fault("SIGKILL of all while a run of MLflow is open", killed=True, remedy=ON,
                         during=_kill_at(_in_an_mlflow_run), kind="tracked",
                         after=_no_run_is_open),
    "locked runs": Fault("Dagster's database locked for three seconds when it is opened",
                         during=_lock(".dagster/history/runs.db")),
    "locked mlflow": Fault("MLflow's database locked for three seconds when it is opened",
                           during=_lock("mlruns/mlflow.db"), kind="tracked"),
    "no server": Fault("tracking server killed in a training", "no server answers", kind="tracked",
                       around=_tracking_server, remedy=AGAIN, variables=_SERVED),
    "no store": Fault("store of the tracking server's artifacts killed in a training",
                      "could not store", kind="tracked", around=_object_store, remedy=AGAIN,
                      variables=_SERVED, lacks=_no_moto),
    "two runs": Fault("two runs of one stage", around=_second_run),
    "dvc repro": Fault("`dvc repro` of the stage at the same time", around=_dvc_beside,
                       second="is busy, it is being blocked by"),
    "disk full": Fault("disk full after 16 kB", "o space left", around=_small_disk, remedy=AGAIN,
                       lacks=_cannot_mount),
    "quota": Fault("files end after 512 bytes", "disk I/O error", remedy=AGAIN,
                   limit=_limited(resource.RLIMIT_FSIZE, 512)),
    "read-only": Fault("the stage's folder may only be read", "ead-only file system", remedy=AGAIN,
                       around=_read_only, lacks=_cannot_mount),
    "memory": Fault("memory of a process limited to 600 MB", "no memory is left", remedy=AGAIN,
                    limit=_limited(resource.RLIMIT_AS, 600 << 20)),
    "worker memory": Fault("memory of workers limited to what they have", "no memory is left",
                           remedy=AGAIN, during=_starve_workers, kind="sharded"),
}  # fmt: skip


def run_fault(chain: Chain, name: str, folder: Path) -> bool | None:
    """Try one fault; prints its row.

    Args:
        chain: the project.
        name: which.
        folder: where to copy it.

    Returns:
        Whether it ended as it should; None if it was not tried.
    """
    fault, started = FAULTS[name], time.monotonic()
    stage = getattr(chain, fault.kind)
    if lacks := fault.lacks():
        return row(name, fault.what, lacks, None, started)
    place = folder / name.replace(" ", "-").replace("`", "")
    root = chain.copy(place / fault.folder)
    if fault.everything:
        shutil.rmtree(root / "data")
        (root / "dvc.lock").unlink()
    if fault.before:
        fault.before(root)
    command = ("demo",) if fault.everything else ("materialize", stage, "--force")
    problems = []
    with peak_memory() as peak_gb:
        with fault.around(root, chain) if fault.around else nullcontext() as second:
            process = chain.start(root, command, fault.variables, fault.limit)
            with ThreadPoolExecutor(1) as beside:
                during = fault.during or (lambda root, group: True)
                happening = beside.submit(during, root, process.pid)
                output, _ = process.communicate()
            if second:
                said, _ = second.communicate()
                refused = fault.second and fault.second in said and "Traceback" not in said
                if second.returncode != 0 and not refused:
                    problems.append(f"the second process ended with {second.returncode}")
                    output += said
        # The folder is named after the case, so it may hold the words of the refusal.
        output = output.replace(str(place), "...")
        # An exception of the fault itself ends the rehearsal: what follows would prove nothing.
        if not happening.result():
            problems.append("the fault did not come about")
        status = process.returncode
        if fault.killed:
            outcome, right = "killed", status == -signal.SIGKILL
        elif fault.refusal:
            outcome = f"refused: {_sentence(output, fault.refusal)}"
            right = status > 0 and fault.refusal in output
        else:
            outcome, right = "made", status == 0
        # A traceback is not a refusal: it shows the code, not the remedy.
        if not right or "Traceback" in output:
            problems.append(f"it ended with {status}")
        if fault.remedy:
            remedy = [stage if word == "STAGE" else word for word in fault.remedy]
            repair = chain.start(root, remedy)
            output += repair.communicate()[0]
            outcome += f"; `{' '.join(remedy)}`"
            if repair.returncode != 0:
                problems.append(f"which ended with {repair.returncode}")
        for path in (root / "data").rglob(".tmp-1-model"):
            # The case put them into all stages, and only one was made.
            shutil.rmtree(path)
        problems += filter(None, [chain.difference(root)])
        if fault.after:
            problems += filter(None, [fault.after(root, output)])
    if peak_gb() > MAX_GB:
        problems.append(f"a process took more than {MAX_GB:.2f} GB")
    if not problems:
        shutil.rmtree(place)
    outcome = "; ".join([outcome, *problems])
    return row(name, fault.what, outcome, not problems, started, output, peak_gb())


def _sentence(output: str, part: str) -> str:
    """The line that refuses, without the folder."""
    found = [line for line in output.splitlines() if part and part in line]
    return (found[-1].strip() if found else "nothing said")[:200].replace("|", "/")


def _try(chain: Chain, name: str, folder: Path) -> bool | None:
    """Try one case; returns whether it ended as it should, None if it was not tried."""
    return Killer(chain, folder).run() if name == "kill" else run_fault(chain, name, folder)


def main(arguments: list[str] | None = None) -> int:
    """Run the cases asked for; returns 1 when one did not end as it should, or was not tried."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--short", action="store_true", help="on the toy project")
    parser.add_argument("folders", nargs="+", type=Path, metavar="[REFERENCE] FOLDER")
    parser.add_argument("--case", action="append", choices=["kill", *FAULTS])
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="cases at the same time")
    parser.add_argument("--allow-untried", action="store_true", help="cases may be impossible here")
    options = parser.parse_args(arguments)
    folder = options.folders[-1].resolve()
    folder.mkdir(parents=True, exist_ok=True)
    reference = options.folders[0].resolve()
    chain = toy_chain(folder) if options.short else smoke_chain(reference)
    say("case | what | outcome | same bytes in the end, refused as it should | memory | time")
    names = options.case or (SHORT if options.short else ["kill", *FAULTS])
    # Each in a process and a folder of its own; the longest, the kills, begin first.
    with ProcessPoolExecutor(options.jobs) as pool:
        good = list(pool.map(_try, repeat(chain), names, repeat(folder)))
    untried = [name for name, one in zip(names, good, strict=True) if one is None]
    say(
        f"{len(names)} cases: {good.count(True)} as they should be, {good.count(False)} not, "
        f"{len(untried)} NOT TRIED{': ' if untried else ''}{', '.join(untried)}"
    )
    return 1 if False in good or (untried and not options.allow_untried) else 0


if __name__ == "__main__":
    sys.exit(main())
