"""A backfill over partitions is one run, whose processes share the work."""

import logging
import time

import dagster as dg
import pytest
from dagster._core.asset_graph_view.asset_graph_view import AssetGraphView
from dagster._core.definitions.temporal_context import TemporalContext
from dagster._core.execution.asset_backfill import (
    AssetBackfillData,
    execute_asset_backfill_iteration_inner,
)
from dagster._time import get_current_datetime

from dagster_project.definitions import build_definitions
from dagster_project.stages import project

RANGE = "dagster/asset_partition_range_"


@pytest.fixture(scope="module")
def pipeline():
    return project()


@pytest.fixture(scope="module")
def graph(pipeline):
    return build_definitions(pipeline).get_repository_def().asset_graph


def requested(graph, stage, shards=None):
    """The runs that Dagster's daemon requests for a backfill which a click has started."""
    keys = [dg.AssetKey(stage)]
    now = time.time()
    with dg.DagsterInstance.ephemeral() as instance:
        view = AssetGraphView(
            temporal_context=TemporalContext(
                effective_dt=get_current_datetime(), last_event_id=None
            ),
            instance=instance,
            asset_graph=graph,
        )
        data = AssetBackfillData.from_asset_partitions(
            graph, shards, keys, view.get_inner_queryer_for_back_compat(), now, shards is None
        )
        return execute_asset_backfill_iteration_inner(
            "backfill", data, view, now, logging.getLogger(__name__), None
        ).run_requests


def ends(run):
    return [run.tags[f"{RANGE}{end}"] for end in ("start", "end")]


def test_a_backfill_of_all_partitions_of_a_stage_is_one_run(graph, pipeline):
    partitioned = [name for name, stage in pipeline.assets.items() if stage.partitioned]
    assert len(partitioned) > 3
    for name in partitioned:
        (run,) = requested(graph, name)
        assert [key.to_user_string() for key in run.asset_selection] == [name]
        assert ends(run) == [pipeline.shards[0], pipeline.shards[-1]]


def test_a_backfill_of_a_range_is_one_run(graph, pipeline):
    chosen = list(pipeline.shards[1:3])
    (run,) = requested(graph, "poses", chosen)
    assert ends(run) == chosen
