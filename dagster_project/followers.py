"""Commands in several processes that torchrun or srun started: one makes a stage, the rest follow.

The first is an ordinary run. A follower opens neither Dagster nor MLflow, takes no lock of the
stage, and writes nothing but its folder of unfinished work.
"""

from __future__ import annotations

import argparse

from dagster_project.console import say
from dagster_project.markers import WHOLE
from dagster_project.pipeline import Pipeline
from dagster_project.stage import Stage
from ml.records.determinism import one_blas_thread
from ml.training.processes import Launch, TrainedAlong
from ml.training.tracking import NullTracker

_SEVERAL_STAGES = frozenset({"demo", "fine-tune", "study"})


def followed_stage(pipeline: Pipeline, options: argparse.Namespace, launch: Launch) -> Stage | None:
    """Return the training in which this process follows the first, None if it is to run alone.

    Processes of a command that trains nothing run side by side; locks keep them apart.

    Args:
        pipeline: the project.
        options: those of the command line.
        launch: the launched processes.

    Raises:
        ValueError: the command may come to a training in which others would not take part.
    """
    command = options.name_of_command
    making = command == "materialize"
    if command in _SEVERAL_STAGES or (making and options.upstream):
        raise ValueError(
            f"{launch.launcher} started {launch.world_size} processes, which can share one "
            "training: `materialize STAGE` without --upstream; run everything else in one process"
        )
    if not making or launch.rank == 0:
        return None
    stage = pipeline.assets.get(options.stage)
    return stage if stage is not None and stage.tracked else None


def follow(pipeline: Pipeline, stage: Stage, launch: Launch, *, force: bool) -> int:
    """Train along with the first process.

    Args:
        pipeline: the project.
        stage: the training.
        launch: the launched processes.
        force: whether the first process makes the stage although it is finished.

    Returns:
        Exit status; errors are raised.
    """
    who = f"{stage.name}: process {launch.rank + 1} of {launch.world_size}"
    fingerprint = pipeline.fingerprints(stage.name, [WHOLE])[WHOLE]
    if not force and pipeline.is_finished(stage.name, WHOLE, fingerprint):
        say(f"{who}: the stage is finished, nothing to do")
        return 0
    say(f"{who} prepares, then waits for the first")
    try:
        with one_blas_thread():
            stage.run(pipeline.workspace(fingerprint), pipeline.params.config(stage), NullTracker())
    except TrainedAlong:
        say(f"{who} is done")
    return 0
