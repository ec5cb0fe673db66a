"""Damaged records are named with their remedy, moved aside, and dvc.lock comes from the markers."""

import argparse
import os
import re
import shutil
import sqlite3
import sys

import dagster
import pytest

from dagster_project import cli, doctor, project_commands
from dagster_project.env import CLI_CONFIG, prepare
from dagster_project.locks import StageLock


def damages(toy):
    """The records that may break: name -> path."""
    home = toy.root / ".dagster"
    return {
        "lock": toy.root / "dvc.lock",
        "rwlock": toy.root / ".dvc" / "tmp" / "rwlock",
        "runs": home / "history" / "runs.db",
        "mlflow": toy.root / "mlruns" / "mlflow.db",
    }


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("lock", b""),
        ("rwlock", b"{"),
        ("rwlock", b"[]"),
        ("runs", b""),
        ("mlflow", b"\0\1half of something: ["),
    ],
)
def test_damage_is_named_with_its_remedy_and_repaired(toy, capsys, name, content):
    path = damages(toy)[name]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    before = toy.bytes()
    assert toy.run("status") == 2
    error = capsys.readouterr().err
    assert str(path) in error
    assert "vggheads doctor" in error
    assert len(error.splitlines()) == 1
    assert toy.run("doctor") == 1
    assert str(path) in capsys.readouterr().out
    assert path.read_bytes() == content, "only --repair changes anything"
    assert toy.run("doctor", "--repair") == 0
    (aside,) = (toy.root / ".dagster" / "damaged").iterdir()
    assert aside.read_bytes() == content
    assert toy.run("demo") == 0
    assert toy.made() == []
    assert toy.bytes() == before
    assert "up to date" in toy.dvc("status")


def test_the_log_of_a_run_that_just_starts_is_no_damage(toy):
    log = toy.root / ".dagster" / "history" / "runs" / "0a1b2c3d.db"
    log.write_bytes(b"")
    assert toy.run("status") == 0
    (log.parent.parent / "runs.db").write_bytes(b"")
    assert toy.run("status") == 2


def test_a_restored_lock_is_the_one_that_was_lost(toy):
    path = toy.root / "dvc.lock"
    lost = path.read_text()
    # Some of these cuts leave YAML that can be read.
    for end in range(len(lost) // 2, len(lost) // 2 + 60, 7):
        path.write_text(lost[:end])
        assert toy.run("doctor", "--repair") == 0
        assert path.read_text() == lost


def test_altered_files_are_not_vouched_for(toy, capsys):
    (toy.root / "dvc.lock").write_text("<<<<<<< HEAD\n")
    path = toy.root / "data" / "numbers" / "shard-00001.parquet"
    path.write_bytes(path.read_bytes() + b"more")
    assert toy.run("doctor", "--repair") == 0
    assert toy.pipeline.bridge.locked() == {}
    assert toy.run("status") == 1


def test_damage_inside_a_database_is_found(toy, capsys):
    path = toy.root / ".dagster" / "history" / "runs.db"
    data = bytearray(path.read_bytes())
    data[4096 : len(data) // 2] = os.urandom(len(data) // 2 - 4096)
    path.write_bytes(data)
    assert toy.run("demo", "--force") == 2
    assert "`vggheads doctor`" in capsys.readouterr().err
    assert toy.run("doctor", "--repair") == 0
    assert toy.run("demo", "--force") == 0


def test_a_database_without_tables_is_moved_aside_with_its_journals(toy, capsys):
    path = toy.root / "mlruns" / "mlflow.db"
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 1")
    assert toy.run("doctor") == 1
    assert f"{path}: a database without tables" in capsys.readouterr().out
    journal = path.with_name("mlflow.db-journal")
    journal.write_bytes(b"of another database")
    assert toy.run("doctor", "--repair") == 0
    moved = {found.name for found in (toy.root / ".dagster" / "damaged").iterdir()}
    assert moved == {"000-mlflow.db", "000-mlflow.db-journal"}
    assert not journal.exists(), "a new database would be rolled back by it"


def test_a_database_in_use_is_not_touched(toy, capsys, monkeypatch):
    monkeypatch.setattr(doctor, "_BUSY_SECONDS", 0.1)
    path = toy.root / ".dagster" / "history" / "runs.db"
    before = path.stat().st_ino
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        connection.execute("BEGIN EXCLUSIVE")
        toy.run("doctor", "--repair")
        connection.rollback()
    assert path.stat().st_ino == before


def test_what_killed_writers_left_is_found(toy, capsys):
    left = toy.root / "data" / "squares" / ".tmp-1-x"
    left.mkdir()
    with StageLock(toy.root, "squares").alone():
        assert toy.run("doctor", "--repair") == 0
        assert left.exists(), "its writer may be at work"
    assert toy.run("doctor", "--repair") == 0
    assert not left.exists()


def test_a_copied_project_is_not_worked_on_from_elsewhere(toy, tmp_path, monkeypatch):
    copy = tmp_path / "copy"
    shutil.copytree(toy.root, copy)
    monkeypatch.chdir(copy / "data")
    with pytest.raises(ValueError, match=f"installed from {toy.root}, but .* the project {copy};"):
        cli._check_place(toy.root)
    monkeypatch.chdir(toy.root / "data")
    cli._check_place(toy.root)


def test_a_checkout_without_values_is_a_project_of_its_own_within_another(
    toy, tmp_path, monkeypatch
):
    inner = tmp_path / "outer" / "build" / "inner"
    for folder in (tmp_path / "outer", inner):
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(toy.root / "dvc.yaml", folder)
        (folder / "dagster_project").mkdir()
    (tmp_path / "outer" / "params.yaml").write_text("run: {}\n")
    monkeypatch.chdir(inner)
    cli._check_place(inner)
    with pytest.raises(ValueError, match="but the current folder belongs to the project"):
        cli._check_place(tmp_path / "outer")


def test_children_are_started_on_the_project_s_own_code(toy):
    options = argparse.Namespace(verbose=False, force=True)
    command = project_commands._materialize_command(("-m", "x"), "numbers", options)
    assert command == [sys.executable, "-m", "x", "materialize", "numbers", "--force"]


def test_errors_of_the_machine_are_one_line(toy, capsys, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device", "data/x")

    monkeypatch.setattr(type(toy.pipeline.bridge), "locked", full)
    assert toy.run("status") == 2
    assert (
        "No space left on device: 'data/x'; finished work is preserved" in capsys.readouterr().err
    )


def test_a_limit_within_which_no_library_loads_is_refused_at_once(toy, capsys, monkeypatch):
    for limit, status in ((cli.LEAST_ADDRESS_SPACE - 1, 2), (cli.LEAST_ADDRESS_SPACE, 0)):
        monkeypatch.setattr("resource.getrlimit", lambda _, limit=limit: (limit, limit))
        assert toy.run("status") == status
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: no memory is left")
    assert "ulimit -v" in line


@pytest.mark.parametrize(("name", "refused"), [("a%20b", "%20"), ("what?", "?"), ("50% #ü", "")])
def test_a_folder_in_which_dagster_opens_no_database_is_refused(
    name, refused, tmp_path, monkeypatch
):
    monkeypatch.setenv("DAGSTER_HOME", "")
    monkeypatch.delenv("DAGSTER_HOME")
    root = tmp_path / name
    root.mkdir()
    if refused:
        with pytest.raises(ValueError, match=re.escape(f"has {refused!r}") + ".*DAGSTER_HOME"):
            prepare(root)
        monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    home = prepare(root)
    with dagster.DagsterInstance.from_config(str(home), CLI_CONFIG) as instance:
        assert instance.get_runs() == []
