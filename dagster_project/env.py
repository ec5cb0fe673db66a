"""Environment variables of the tools we run, and Dagster's home with its configuration."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import yaml

from ml.records.atomic import write_text
from ml.records.config import parse_yaml

_ENVIRONMENT = {
    "DVC_NO_ANALYTICS": "1",
    "GX_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "1",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    # MLflow's server otherwise starts processes for scheduled jobs, which we do not use.
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    # Events of many partitions are stored together (`event_log.py`).
    "DAGSTER_EVENT_BATCH_SIZE": "200",
}
# Runs started in the UI are queued; `vggheads ui` starts the daemon that takes them off the queue.
# Two at a time: a training and another run. Runs of the command line do not queue.
_DAGSTER_YAML = """\
telemetry:
  enabled: false
nux:
  enabled: false
concurrency:
  runs:
    max_concurrent_runs: 2
freshness:
  enabled: true
storage:
  custom:
    module: dagster_project.event_log
    class: BatchingSqliteStorage
    config: {base_dir: {env: DAGSTER_HOME}}
"""
STORAGE = yaml.safe_load(_DAGSTER_YAML)["storage"]
"""Dagster's databases: files in its home."""
# The command line writes its output to the terminal; capturing it would hide progress bars.
_NO_COMPUTE_LOGS = {
    "compute_logs": {
        "module": "dagster._core.storage.noop_compute_log_manager",
        "class": "NoOpComputeLogManager",
    }
}
CLI_CONFIG = "dagster-cli.yaml"
_EXPERIMENTS = (".dvc", "tmp", "exps")
"""Folders within which DVC makes a temporary workspace for every experiment."""
_NO_PATH_OF_A_DATABASE = re.compile(r"\?|%[0-9a-fA-F]{2}")
"""Dagster puts the path unescaped into the address of its databases."""


def prepare(root: Path) -> Path:
    """Set the environment and make DAGSTER_HOME.

    Args:
        root: the project folder.

    Returns:
        DAGSTER_HOME: the variable's value if it is set and meant for this project, else
        `<root>/.dagster`.

    Raises:
        ValueError: Dagster could not open its databases there.
    """
    os.environ.update(_ENVIRONMENT)
    own = root / ".dagster"
    home = Path(os.environ.get("DAGSTER_HOME") or own)
    if _is_of_another(home, root):
        home = own
    if found := _NO_PATH_OF_A_DATABASE.search(str(home.absolute())):
        raise ValueError(
            f"{home}: Dagster opens no database in a folder whose path has {found.group()!r}, for "
            "it reads it as an address; rename the folder, or set DAGSTER_HOME to another one"
        )
    os.environ["DAGSTER_HOME"] = str(home)
    server = home / "dagster.yaml"
    # A home that the user chose keeps the configuration it has.
    if not server.exists() or home == own:
        _write_changed(server, _DAGSTER_YAML)
    # The command line's is the server's apart from the logs: both record to one storage.
    config = {**dagster_config(home), **_NO_COMPUTE_LOGS}
    _write_changed(home / CLI_CONFIG, yaml.safe_dump(config, sort_keys=False))
    return home


def _is_of_another(home: Path, root: Path) -> bool:
    """Return whether a DAGSTER_HOME belongs to another project than this one.

    `dvc exp run --temp` inherits the variable of the project from which it copies, and would record
    its runs and materialisations there; a copy of a project has its own records, too.
    """
    folder = root.resolve()
    if any(parent.parts[-len(_EXPERIMENTS) :] == _EXPERIMENTS for parent in folder.parents):
        return True
    other = home.resolve().parent
    return home.name == ".dagster" and other != folder and (other / "dvc.yaml").is_file()


def dagster_config(home: Path) -> dict[str, Any]:
    """Return the content of a DAGSTER_HOME's dagster.yaml, empty without one.

    Args:
        home: the folder.

    Raises:
        ValueError: the file is not valid YAML.
    """
    path = home / "dagster.yaml"
    return parse_yaml(path.read_text(encoding="utf-8"), str(path)) or {} if path.exists() else {}


def _write_changed(path: Path, text: str) -> None:
    if not path.exists() or path.read_text() != text:
        write_text(path, text)
