"""Partitions: a shard is one, for every sharded stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import dagster as dg


def shard_partitions(shards: Sequence[str]) -> dg.StaticPartitionsDefinition:
    """Return the shards as Dagster partitions."""
    return dg.StaticPartitionsDefinition(list(shards))


def range_tags(shards: Sequence[str]) -> Mapping[str, str]:
    """Run tags that select a range of shards, from the first to the last given."""
    return {
        "dagster/asset_partition_range_start": shards[0],
        "dagster/asset_partition_range_end": shards[-1],
    }
