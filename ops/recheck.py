"""Job: run all checks on the data as it is on disk, without making anything."""

import dagster as dg
from pydantic import Field

from ops.resources import Judge


class RecheckConfig(dg.Config):
    """Stages to check."""

    stages: list[str] = Field(default_factory=list)
    """Stages; none given: all that have finished data."""


@dg.op
def judge_stages(context: dg.OpExecutionContext, config: RecheckConfig, judge: Judge) -> None:
    """Report every check's result on its asset's page.

    Raises:
        dg.Failure: a critical check fails; the message names shard and row.
    """
    problems = []
    for result, problem in judge.judge(config.stages):
        context.instance.report_runless_asset_event(result)
        if problem:
            context.log.error(problem)
            problems.append(problem)
    if problems:
        raise dg.Failure("\n".join(problems), allow_retries=False)


@dg.job(description="Run the checks of all or selected stages on existing data.")
def recheck_job() -> None:
    """The checks alone."""
    judge_stages()


audit_schedule = dg.ScheduleDefinition(
    name="audit",
    job=recheck_job,
    cron_schedule="0 6 * * 1",
    default_status=dg.DefaultScheduleStatus.STOPPED,
    description="Checks all data on disk every Monday: files altered or lost since they were made.",
)
"""Off until switched on in the UI: every Monday at six."""
