"""The command line and the server of docker/ record to one database, a real Postgres."""

import os
import shutil
import socket
import subprocess
import tempfile
from glob import glob
from pathlib import Path

import dagster as dg
import pytest

from dagster_project.env import CLI_CONFIG, prepare
from dagster_project.takedown import _outside

HOME = Path(__file__).parents[2] / "docker" / "home"
SERVERS = sorted(glob("/usr/lib/postgresql/*/bin"))


@pytest.fixture
def postgres(tmp_path):
    """Address of a database server with an empty database."""
    pytest.importorskip("dagster_postgres")
    initdb = Path(shutil.which("initdb") or f"{(SERVERS or [''])[-1]}/initdb").resolve()
    if not initdb.exists():
        pytest.skip("no Postgres on this machine")
    programs = initdb.parent
    # Postgres refuses to run as root, and every folder above its data must be open to its user.
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = Path(tempfile.mkdtemp(prefix="vggheads-postgres-"))
    user: dict = {"user": "nobody", "group": "nogroup"} if os.geteuid() == 0 else {}
    if user:
        shutil.chown(folder, **user)

    def run(program, *arguments):
        subprocess.run(
            [programs / program, *arguments], cwd=folder, check=True, capture_output=True,
            stdin=subprocess.DEVNULL, env={**os.environ, "LC_ALL": "C"}, **user,
        )  # fmt: skip

    data = folder / "data"
    try:
        run("initdb", "-D", data, "-U", "dagster", "--auth=trust", "--no-sync")
        options = f"-p {port} -k {folder} -h 127.0.0.1 -c fsync=off"
        run("pg_ctl", "-D", data, "-w", "-l", folder / "log", "-o", options, "start")
        try:
            run("createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "dagster", "dagster")
            yield f"postgresql+psycopg2://dagster@127.0.0.1:{port}/dagster"
        finally:
            run("pg_ctl", "-D", data, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder)


def test_runs_of_the_command_line_are_on_the_server_s_page(fresh_toy, postgres, monkeypatch):
    home = fresh_toy.root / "home"
    shutil.copytree(HOME, home)
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    monkeypatch.setenv("DAGSTER_POSTGRES", postgres)
    assert fresh_toy.run("demo") == 0
    with dg.DagsterInstance.from_config(str(home)) as instance:
        runs = instance.get_runs()
        assert {run.status for run in runs} == {dg.DagsterRunStatus.SUCCESS}
        assert instance.get_latest_materialization_event(dg.AssetKey("squares")) is not None
    assert list(home.rglob("*.db")) == []
    fresh_toy.made()
    assert fresh_toy.run("demo") == 0
    assert fresh_toy.made() == [], "a second run does no work"


def test_the_command_line_s_configuration_follows_the_server_s(tmp_path, monkeypatch):
    home = tmp_path / "home"
    shutil.copytree(HOME, home)
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    before = (home / "dagster.yaml").read_bytes()
    for storage in ("storage: {postgres: {postgres_url: a}}", "storage: {sqlite: {base_dir: b}}"):
        (home / "dagster.yaml").write_text(before.decode().split("storage:")[0] + storage)
        changed = (home / "dagster.yaml").read_bytes()
        prepare(tmp_path)
        assert (home / "dagster.yaml").read_bytes() == changed, "the user's own file"
        text = (home / CLI_CONFIG).read_text()
        assert storage.split("{")[1].split(":")[0] in text
        assert "NoOpComputeLogManager" in text


def test_a_takedown_names_the_database_server_that_it_did_not_search(tmp_path, monkeypatch):
    home = tmp_path / "docker" / "home"
    shutil.copytree(HOME, home)
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    assert f"{home}: Dagster's storage on postgres" in _outside(tmp_path)
    (home / "dagster.yaml").write_text("storage: {sqlite: {base_dir: x}}\n")
    assert not any("storage" in place for place in _outside(tmp_path))
