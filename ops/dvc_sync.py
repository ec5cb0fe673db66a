"""Job: report to Dagster what dvc.lock records and Dagster does not know."""

import dagster as dg

from ops.resources import RecordedData


@dg.op
def report_recorded_data(context: dg.OpExecutionContext, recorded: RecordedData) -> int:
    """Report one materialization a stage, or a shard; returns how many."""
    events = recorded.unknown(context.instance)
    for event in events:
        context.instance.report_runless_asset_event(event)
        context.log.info("%s %s reported", event.asset_key.to_user_string(), event.partition or "")
    return len(events)


@dg.job(description="Report data obtained by git, `dvc pull` or DVC's run cache to Dagster.")
def dvc_sync_job() -> None:
    """The sensor's work, on demand."""
    report_recorded_data()
