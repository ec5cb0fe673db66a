"""The suites of single heads."""

from __future__ import annotations

import pandas as pd

from assets.checks.accounts import LOST, counts_rule, crops_account
from assets.checks.bounded import (
    bounded,
    crop_statistics,
    drift_rule,
    drop_rate_rule,
    only_told,
)
from assets.checks.rules import Rule, Shelf, rules_suite, whole_suite
from ml.quality import head_invariants
from ml.quality.invariants import image_files, seeds_derived
from ml.records.shards import ShardReader


def _bytes(shelf: Shelf, shard: str) -> pd.DataFrame:
    crops = shelf.table("crops", shard).rename(columns={"crop_id": "sample_id"})
    with ShardReader(shelf.ws.stage_dir("crops") / f"{shard}.tar") as reader:
        return image_files(crops, reader)


def _differ(shelf: Shelf, shard: str) -> pd.DataFrame:
    crops = shelf.table("crops", shard)
    return head_invariants.distinct(
        crops["flame"].tolist(), crops["crop_id"].tolist(), "parameters"
    )


CROP_RULES = rules_suite(
    "crop_rules",
    Rule("accounted", LOST, crops_account),
    counts_rule("crops"),
    Rule(
        "seeds_of_the_run",
        "Seeds derive from the run's seed and the id.",
        lambda shelf, shard: seeds_derived(
            shelf.table("crops", shard), shelf.ws.seed, "crops", "crop_id"
        ),
    ),
    Rule(
        "heads_in_crops",
        "A crop holds its head, and is split by the hash of its id.",
        lambda shelf, shard: head_invariants.crops_sound(shelf.table("crops", shard)),
    ),
    Rule("heads_differ", "No two crops have the same parameters.", _differ),
    Rule("bytes_as_listed", "Every listed crop is stored and has the recorded size.", _bytes),
)

CROP_BOUNDS = whole_suite(
    "crop_bounds",
    drop_rate_rule("crops"),
    bounded(
        "heads_typical",
        "Training heads vary in angle, size and shape.",
        "crops",
        crop_statistics,
    ),
    only_told("crops", crop_statistics),
    drift_rule("crops"),
    sharded=True,
)

SUITES = (CROP_RULES, CROP_BOUNDS)
