"""The suites of the filtered dataset: verdicts, heads, and the dataset as a whole."""

from __future__ import annotations

import pandas as pd
from great_expectations import expectations as gxe

from assets.checks import statistics
from assets.checks.accounts import LOST, verdicts_account
from assets.checks.bounded import bounded, only_told
from assets.checks.bounded import dataset_statistics as bounded_statistics
from assets.checks.rules import Rule, Shelf, rules_suite, whole_suite
from assets.checks.shared import HEAD_UNIQUE, NOT_EMPTY, SPLITS, box_checks, flame_checks
from assets.checks.suite import Suite, critical, warning
from assets.checks.tables import boxes, heads, one_table
from ml.quality import invariants
from ml.quality.findings import joined

FILTERED_VERDICTS = Suite(
    "verdicts",
    one_table("filtered_dataset", "verdicts.parquet"),
    (
        NOT_EMPTY,
        SPLITS,
        critical(
            "sample_unique",
            gxe.ExpectColumnValuesToBeUnique,
            "An image has one verdict.",
            column="sample_id",
        ),
        critical(
            "verdict_there",
            gxe.ExpectColumnValuesToNotBeNull,
            "Every image has a verdict.",
            column="keep",
        ),
        critical(
            "reason_there",
            gxe.ExpectColumnValuesToNotBeNull,
            "Every verdict has a reason.",
            column="reason",
        ),
    ),
)


FILTERED_DATASET = Suite(
    "filtered_dataset",
    one_table("filtered_dataset", "heads.parquet", boxes, heads),
    (
        NOT_EMPTY,
        SPLITS,
        HEAD_UNIQUE,
        *box_checks(),
        *flame_checks(),
    ),
)


DATASET_STATISTICS = Suite(
    "dataset_statistics",
    statistics.dataset_statistics,
    (
        critical(
            "something_to_train_on",
            gxe.ExpectColumnValuesToBeBetween,
            "Training requires images.",
            column="train_images",
            min_value=10,
        ),
        critical(
            "something_to_validate_on",
            gxe.ExpectColumnValuesToBeBetween,
            "Training requires validation images.",
            column="val_images",
            min_value=1,
        ),
        critical(
            "heads_to_train_on",
            gxe.ExpectColumnValuesToBeBetween,
            "Training of the FLAME branches requires labelled heads.",
            column="train_heads_with_flame",
            min_value=10,
        ),
        critical(
            "no_head_of_a_removed_image",
            gxe.ExpectColumnValuesToBeInSet,
            "No head of a removed image remains.",
            column="heads_of_removed_images",
            value_set=[0],
        ),
        warning(
            "filters_keep_most",
            gxe.ExpectColumnValuesToBeBetween,
            "Filters that remove most images indicate a faulty detector.",
            column="fraction_kept",
            min_value=0.3,
        ),
    ),
)


def _verdicts(shelf: Shelf, shard: str) -> pd.DataFrame:
    return shelf.part("filtered_dataset", "verdicts.parquet", shard)


def _heads(shelf: Shelf, shard: str) -> pd.DataFrame:
    return shelf.part("filtered_dataset", "heads.parquet", shard)


def _one_split(shelf: Shelf, shard: str) -> pd.DataFrame:
    images = shelf.table("images", shard)
    parts = (_verdicts(shelf, shard), _heads(shelf, shard))
    return joined([invariants.one_split_a_pose(part, images) for part in parts])


DATASET_RULES = rules_suite(
    "dataset_rules",
    Rule("accounted", LOST, verdicts_account),
    Rule(
        "verdicts_follow_heads",
        "A verdict counts the annotated heads, and follows from its own counts.",
        lambda shelf, shard: invariants.verdicts_follow_heads(
            _verdicts(shelf, shard), shelf.table("annotations", shard)
        ),
    ),
    Rule(
        "one_split_a_pose", "Splits are those of the images, and a pose has one split.", _one_split
    ),
    Rule(
        "heads_as_annotated",
        "The dataset contains all annotated heads of kept images, unchanged.",
        lambda shelf, shard: invariants.dataset_follows(
            _heads(shelf, shard), _verdicts(shelf, shard), shelf.table("annotations", shard)
        ),
    ),
    shards=(),
)

DATASET_BOUNDS = whole_suite(
    "dataset_bounds",
    bounded(
        "removed_typical",
        "The rules remove some, not most images; heads of kept ones are found in the mirror image.",
        "filtered_dataset",
        bounded_statistics,
        "removed",
        "stability",
    ),
    bounded(
        "splits_typical",
        "Every split has its configured fraction of the kept images.",
        "filtered_dataset",
        bounded_statistics,
        "split",
    ),
    bounded(
        "heads_typical",
        "Heads of the dataset vary in angle, size and shape, and have parameters.",
        "filtered_dataset",
        bounded_statistics,
        "yaw",
        "pitch",
        "roll",
        "from_",
        "head",
        "images_with_heads",
        "shape",
        "expression",
        "with_parameters",
    ),
    only_told("filtered_dataset", bounded_statistics),
    sharded=False,
)

SUITES = (
    FILTERED_VERDICTS,
    FILTERED_DATASET,
    DATASET_STATISTICS,
    DATASET_RULES,
    DATASET_BOUNDS,
)
