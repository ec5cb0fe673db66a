"""Job: verify every model, file and source of the active profile before a long run."""

import dagster as dg
from pydantic import Field

from ops.resources import Preflight


class PreflightConfig(dg.Config):
    """Stages to verify."""

    stages: list[str] = Field(default_factory=list)
    """Stages; none given: all."""


@dg.op
def look_ahead(
    context: dg.OpExecutionContext, config: PreflightConfig, preflight: Preflight
) -> None:
    """Try every model once; say all problems.

    Raises:
        dg.Failure: there are problems; each is a line of the message.
    """
    report = preflight.look(config.stages)
    context.add_output_metadata(
        {
            "tried": dg.MetadataValue.json([f"{t.place}: {t.seconds:.3f} s" for t in report.tried]),
            "problems": len(report.problems),
        }
    )
    if report.problems:
        raise dg.Failure(
            "\n".join(str(problem) for problem in report.problems), allow_retries=False
        )


@dg.job(description="Verify every model, file and source of the profile; run each model once.")
def preflight_job() -> None:
    """The preflight alone."""
    look_ahead()
