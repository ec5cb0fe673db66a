"""The suites of the pseudo-labels, and of each shard of them as a whole."""

from __future__ import annotations

from great_expectations import expectations as gxe

from assets.checks import statistics
from assets.checks.shared import NOT_EMPTY, SPLITS, box_checks, flame_checks
from assets.checks.suite import Suite, critical, warning
from assets.checks.tables import boxes, heads, shard_tables

ANNOTATIONS = Suite(
    "annotations",
    shard_tables("annotations", boxes, heads),
    (
        NOT_EMPTY,
        SPLITS,
        critical(
            "head_unique",
            gxe.ExpectCompoundColumnsToBeUnique,
            "A head of an image is listed once.",
            column_list=["sample_id", "head_id"],
        ),
        *box_checks(),
        *flame_checks(),
        critical(
            "score_is_share",
            gxe.ExpectColumnValuesToBeBetween,
            "Confidences are fractions.",
            column="score",
            min_value=0,
            max_value=1,
        ),
        critical(
            "teacher_named",
            gxe.ExpectColumnValuesToNotBeNull,
            "A pseudo-label names its teacher.",
            column="teacher",
        ),
    ),
)


ANNOTATION_STATISTICS = Suite(
    "annotation_statistics",
    statistics.annotation_statistics,
    (
        warning(
            "heads_found",
            gxe.ExpectColumnValuesToBeBetween,
            "The detector finds heads in most images of every shard.",
            column="images_with_heads",
            min_value=0.5,
        ),
        warning(
            "not_flooded",
            gxe.ExpectColumnValuesToBeBetween,
            "The detector does not see heads everywhere.",
            column="heads_per_image",
            min_value=0.5,
            max_value=10,
        ),
    ),
)

SUITES = (
    ANNOTATIONS,
    ANNOTATION_STATISTICS,
)
