"""A pipeline of three stages on numbers: two partitioned ones and a total."""

import dagster as dg
import great_expectations.expectations as gxe
from toy_work import read

from assets.checks.suite import Suite, critical
from assets.stage_asset import StageEvents, StageRunner, stage_asset
from dagster_project.pipeline import Pipeline
from dagster_project.stage import Stage

NUMBERS = Suite(
    "numbers",
    lambda ws, shards: read(ws, "numbers", shards),
    (
        critical(
            "value_in_range",
            gxe.ExpectColumnValuesToBeBetween,
            "Values are from 0 to 99.",
            column="value",
            min_value=0,
            max_value=99,
        ),
    ),
)


@stage_asset(group="toy", kinds={"python"}, owner="toys", suites=(NUMBERS,))
def numbers(context: dg.AssetExecutionContext, stages: StageRunner) -> StageEvents:
    """Random numbers."""
    yield from stages.make(context)


@stage_asset(group="toy", kinds={"python"}, owner="toys")
def squares(context: dg.AssetExecutionContext, stages: StageRunner) -> StageEvents:
    """Their powers."""
    yield from stages.make(context)


@stage_asset(group="toy", kinds={"python"}, owner="toys")
def total(context: dg.AssetExecutionContext, stages: StageRunner) -> StageEvents:
    """Their sum."""
    yield from stages.make(context)


def stage(name, config, **options):
    return Stage(name, f"toy_work:{config}", f"toy_work:make_{name}", "toy_stages", **options)


STAGES = {
    "numbers": stage("numbers", "NumbersConfig", sharded=True),
    "squares": stage("squares", "SquaresConfig", sharded=True),
    "total": Stage("total", "toy_total:TotalConfig", "toy_work:make_total", "toy_stages"),
}


def toy_pipeline(root):
    return Pipeline(root, STAGES, "toy_stages:STAGES", program=("toy_cli.py",))
