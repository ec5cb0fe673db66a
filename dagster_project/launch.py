"""Runs Dagster jobs in this process, on the same instance that the UI shows."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import psutil

from dagster_project.console import say
from dagster_project.definitions import DEMO_JOB, build_definitions
from dagster_project.env import CLI_CONFIG
from dagster_project.partitions import range_tags
from dagster_project.pipeline import Pipeline
from dagster_project.runner import FORCE
from vggheads.cli import LACKS_MEMORY, NO_MEMORY

_INTERRUPTED = "DagsterExecutionInterruptedError"
_PID, _HOST, _BY = "vggheads/pid", "vggheads/host", "launched_by"


@contextmanager
def open_instance(home: Path) -> Iterator[dg.DagsterInstance]:
    """Open Dagster's instance in `home`, with this process's output left on the terminal."""
    with dg.DagsterInstance.from_config(str(home), CLI_CONFIG) as instance:
        _close_abandoned(instance)
        yield instance


def launch(
    pipeline: Pipeline,
    instance: dg.DagsterInstance,
    stages: Sequence[str],
    *,
    shard: str | None = None,
    force: bool = False,
    verbose: bool = False,
) -> bool:
    """Materialise stages in one run; report failures.

    Args:
        pipeline: the project.
        instance: Dagster's instance.
        stages: which stages.
        shard: only this shard of a stage with partitions.
        force: rerun finished stages.
        verbose: show Dagster's own log.

    Returns:
        Whether all succeeded.

    Raises:
        ValueError: there is no such shard, or the stage has no partitions.
        KeyboardInterrupt: Ctrl-C ended the run.
    """
    partitioned = [stage for stage in stages if pipeline.assets[stage].partitioned]
    if shard and (not partitioned or shard not in pipeline.shards):
        known = ", ".join(pipeline.shards)
        raise ValueError(f"{', '.join(stages)}: no partition {shard}; there are {known}")
    tags = {_PID: str(os.getpid()), _HOST: socket.gethostname(), _BY: _launched_by()}
    if partitioned:
        tags.update(range_tags([shard] if shard else pipeline.shards))
    if force:
        tags[FORCE] = "true"
    job = build_definitions(pipeline).resolve_job_def(DEMO_JOB)
    result = job.execute_in_process(
        instance=instance,
        asset_selection=[dg.AssetKey(stage) for stage in stages],
        tags=tags,
        run_config=_quiet(verbose),
        raise_on_error=False,
    )
    for event in result.all_events:
        if event.is_step_failure:
            error = event.step_failure_data.error
            if error is not None and error.cls_name == _INTERRUPTED:
                raise KeyboardInterrupt
            say(_failure(event))
    return result.success


def _quiet(verbose: bool) -> Mapping[str, object]:
    return {"loggers": {"console": {"config": {"log_level": "DEBUG" if verbose else "CRITICAL"}}}}


def _launched_by() -> str:
    return "dvc repro" if os.environ.get("DVC_STAGE") else "command line"


def _failure(event: dg.DagsterEvent) -> str:
    """Return a failed step in words: our own explanation, or the exception with its place."""
    data = event.step_failure_data
    if data.user_failure_data is not None:
        return str(data.user_failure_data.description)
    error = data.error
    if error is None:
        return f"{event.step_key} failed: {data.error_display_string}"
    # Dagster wraps what a stage raises.
    while error.cause is not None and str(error.cls_name).startswith("Dagster"):
        error = error.cause
    # A library that finds no memory to load is reported as missing by the next one;
    # the cause of a worker's error is its traceback.
    said, cause = "", data.error
    while cause is not None:
        said += f"{cause.cls_name}: {cause.message}\n"
        cause = cause.cause or cause.context
    if LACKS_MEMORY.search(said):
        return f"{event.step_key} failed: {error.message.strip()}; {NO_MEMORY}"
    place = "".join(error.stack[-3:])
    return f"{event.step_key} failed: {error.message.strip()}\n{place}"


def _close_abandoned(instance: dg.DagsterInstance) -> None:
    """Mark runs of killed processes as failed; Dagster would show them as running forever."""
    running = dg.RunsFilter(
        statuses=[dg.DagsterRunStatus.STARTED], tags={_HOST: socket.gethostname()}
    )
    for run in instance.get_runs(running):
        if not psutil.pid_exists(int(run.tags[_PID])):
            instance.report_run_failed(run, "The process of this run was killed.")
