"""The suites of images, of their exact ground truth, and of each shard as a whole."""

from __future__ import annotations

from great_expectations import expectations as gxe

from assets.checks import statistics
from assets.checks.custom import ExpectColumnQuantilesBetween
from assets.checks.shared import NOT_EMPTY, SPLITS, box_checks, flame_checks
from assets.checks.suite import Suite, critical, warning
from assets.checks.tables import boxes, heads, shard_tables

IMAGES = Suite(
    "images",
    shard_tables("images"),
    (
        NOT_EMPTY,
        SPLITS,
        critical(
            "sample_unique",
            gxe.ExpectColumnValuesToBeUnique,
            "An image is listed once.",
            column="sample_id",
        ),
        critical(
            "image_unique",
            gxe.ExpectColumnValuesToBeUnique,
            "No image is stored twice.",
            column="sha256",
        ),
        critical(
            "sha256_form",
            gxe.ExpectColumnValuesToMatchRegex,
            "The hash is a sha256.",
            column="sha256",
            regex="^[0-9a-f]{64}$",
        ),
        critical(
            "bytes_there",
            gxe.ExpectColumnValuesToBeBetween,
            "An encoded image has bytes.",
            column="size",
            min_value=200,
            max_value=50_000_000,
        ),
        critical(
            "offset_valid",
            gxe.ExpectColumnValuesToBeBetween,
            "An image begins after its tar header.",
            column="offset",
            min_value=512,
        ),
        warning(
            "not_black_or_white",
            gxe.ExpectColumnValuesToBeBetween,
            "Images are neither black nor white.",
            column="mean_luma",
            min_value=8,
            max_value=247,
            mostly=0.98,
        ),
    ),
)


TRUTH = Suite(
    "truth",
    shard_tables("truth", boxes, heads),
    (
        SPLITS,
        critical(
            "head_unique",
            gxe.ExpectCompoundColumnsToBeUnique,
            "A head of an image is listed once.",
            column_list=["sample_id", "head_id"],
        ),
        *box_checks(),
        critical(
            "flame_there",
            gxe.ExpectColumnValuesToBeInSet,
            "Every true head has its parameters.",
            column="has_flame",
            value_set=[True],
        ),
        *flame_checks(),
        critical(
            "visible_is_share",
            gxe.ExpectColumnValuesToBeBetween,
            "The visible part of a head is a fraction.",
            column="visible",
            min_value=0,
            max_value=1,
        ),
        critical(
            "skin_tone_on_monk_scale",
            gxe.ExpectColumnValuesToBeBetween,
            "Skin tones are on the Monk scale.",
            column="skin_tone",
            min_value=1,
            max_value=10,
        ),
    ),
)


IMAGE_STATISTICS = Suite(
    "image_statistics",
    statistics.image_statistics,
    (
        NOT_EMPTY,
        critical(
            "images_in_every_shard",
            gxe.ExpectColumnValuesToBeBetween,
            "A shard holds images.",
            column="images",
            min_value=1,
        ),
        critical(
            "truth_where_it_is_known",
            gxe.ExpectColumnValuesToBeInSet,
            "A generator that knows the heads of its images wrote them down.",
            column="has_expected_truth",
            value_set=[True],
        ),
        warning(
            "brightness_typical",
            gxe.ExpectColumnValuesToBeBetween,
            "No shard is over- or underexposed as a whole.",
            column="mean_luma",
            min_value=60,
            max_value=190,
        ),
        warning(
            "heads_per_image_typical",
            gxe.ExpectColumnValuesToBeBetween,
            "Shards hold images of one to eight people.",
            column="heads_per_image",
            min_value=1,
            max_value=6,
        ),
        warning(
            "heads_visible",
            gxe.ExpectColumnValuesToBeBetween,
            "Most of the heads are seen.",
            column="mean_visible",
            min_value=0.5,
            max_value=1,
        ),
        warning(
            "skin_tones_even",
            gxe.ExpectColumnValuesToBeBetween,
            "A shard shows most of the Monk scale.",
            column="skin_tones",
            min_value=5,
        ),
        warning(
            "head_sizes_spread",
            ExpectColumnQuantilesBetween,
            "The typical head is neither a dot nor the whole image.",
            column="median_head_px",
            quantile_ranges={"quantiles": [0.1, 0.9], "value_ranges": [[12, None], [None, 400]]},
        ),
    ),
)

SUITES = (
    IMAGES,
    TRUTH,
    IMAGE_STATISTICS,
)
