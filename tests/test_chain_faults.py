"""The rehearsal of faults fails when it should, shown on a command line of a few lines."""

from __future__ import annotations

import sqlite3
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests import chain_faults, chain_project
from tests.chain_faults import FAULTS, Fault, main, run_fault
from tests.chain_project import Chain
from tests.rehearsal import peak_memory, start

CLI = """
import sys
from pathlib import Path
command = sys.argv[1]
if command == "doctor":
    Path("dvc.lock").write_text("up to date")
    sys.exit(Path("unrepaired").exists())
if Path("broken").exists():
    sys.exit("error: see `vggheads doctor`")
if command == "beside":
    sys.exit(sys.argv[2])
"""
DOCTOR = ("doctor",)


def broken(root: Path) -> None:
    (root / "broken").touch()


def unrepaired(root: Path) -> None:
    broken(root)
    (root / "unrepaired").touch()


def without_lock(root: Path) -> None:
    (root / "dvc.lock").unlink()


def other_record(root: Path) -> None:
    (root / "dvc.lock").write_text("changed")


def other_bytes(root: Path) -> None:
    (root / "data" / "numbers" / "a").write_text("another")


def beside(words: str):
    @contextmanager
    def second(root, chain):
        yield chain.start(root, ("beside", words))

    return second


CASES = {
    "nothing": (Fault("x"), True),
    "refused": (Fault("x", "vggheads doctor", before=broken, remedy=DOCTOR), True),
    "refused without being asked": (Fault("x", before=broken), False),
    "not refused": (Fault("x", "vggheads doctor", remedy=DOCTOR), False),
    "the remedy fails": (Fault("x", "vggheads doctor", before=unrepaired, remedy=DOCTOR), False),
    "no record": (Fault("x", before=without_lock), False),
    "another record": (Fault("x", before=other_record), False),
    "other bytes": (Fault("x", before=other_bytes), False),
    "the second fails": (Fault("x", around=beside("it broke")), False),
    "the second refuses": (Fault("x", around=beside("it is busy"), second="is busy"), True),
    "the second crashes": (Fault("x", around=beside("Traceback is busy"), second="busy"), False),
    "the second speaks of another": (Fault("x", around=beside("it broke"), second="busy"), False),
    "wrong afterwards": (Fault("x", after=lambda root, output: "a run is open"), False),
    "not about": (Fault("x", during=lambda root, group: False), False),
    "not tried": (Fault("x", lacks=lambda: "no such disk"), None),
}


@pytest.fixture
def chain(tmp_path, monkeypatch):
    root = tmp_path / "reference"
    (root / "data" / "numbers").mkdir(parents=True)
    (root / "data" / "numbers" / "a").write_text("1")
    (root / "dvc.lock").write_text("up to date")
    (root / "cli.py").write_text(CLI)
    # `dvc status` takes a second; it is not asked without a record.
    status = [sys.executable, "-c", "print(open('dvc.lock').read())"]
    monkeypatch.setattr(chain_project, "STATUS", status)
    return Chain(root, ("cli.py",), "numbers", "numbers", "", (1.0, 2.0), 1)


@pytest.mark.parametrize("name", CASES)
def test_a_case_is_judged_by_all_that_it_promises(name, chain, tmp_path, monkeypatch):
    fault, expected = CASES[name]
    monkeypatch.setitem(FAULTS, "it", fault)
    assert run_fault(chain, "it", tmp_path / "cases") is expected


def test_a_process_of_too_much_memory_is_a_failure(chain, tmp_path, monkeypatch):
    monkeypatch.setitem(FAULTS, "it", Fault("x", before=lambda root: None))
    monkeypatch.setattr(chain_faults, "MAX_GB", -1.0)
    assert run_fault(chain, "it", tmp_path / "cases") is False


def test_the_memory_of_children_and_theirs_is_watched(tmp_path):
    child = "x = bytearray(200 << 20); import time; time.sleep(1)"
    middle = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    with peak_memory() as peak_gb:
        start(tmp_path, "-c", middle).communicate()
    assert 0.2 < peak_gb() < 0.3


def test_untried_cases_are_counted_and_fail_unless_allowed(chain, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(FAULTS, "here", Fault("x"))
    monkeypatch.setitem(FAULTS, "elsewhere", Fault("x", lacks=lambda: "no such disk"))
    monkeypatch.setattr(chain_faults, "smoke_chain", lambda reference: chain)
    # Another process would not have these cases.
    monkeypatch.setattr(chain_faults, "ProcessPoolExecutor", ThreadPoolExecutor)
    asked = [str(chain.reference), str(tmp_path / "cases"), "--case", "here", "--case", "elsewhere"]
    assert main(asked) == 1
    assert "2 cases: 1 as they should be, 0 not, 1 NOT TRIED: elsewhere" in capsys.readouterr().out
    assert main([*asked, "--allow-untried"]) == 0


@pytest.mark.parametrize(
    ("states", "problem"),
    [(["FINISHED", "KILLED", "FINISHED"], ""), (["FINISHED", "RUNNING", "FINISHED"], "RUNNING"),
     (["FINISHED", "FINISHED"], "FINISHED")],
)  # fmt: skip
def test_the_killed_run_must_be_closed(states, problem, tmp_path):
    (tmp_path / "mlruns").mkdir()
    with closing(sqlite3.connect(tmp_path / "mlruns" / "mlflow.db")) as connection, connection:
        connection.execute("CREATE TABLE runs (status TEXT)")
        connection.executemany("INSERT INTO runs VALUES (?)", [(state,) for state in states])
    resumed = FAULTS["kill in epoch"].after
    assert resumed is not None
    said = resumed(tmp_path, "flame_regressor: going on after step 3")
    assert problem in said
    assert bool(said) == bool(problem)
    assert "anew" in resumed(tmp_path, "")
