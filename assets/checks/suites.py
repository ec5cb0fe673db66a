"""The suites. `critical` blocks what follows; `warning` is shown."""

from __future__ import annotations

from assets.checks import statistics
from assets.checks.suite import Check, Suite, critical, warning
from assets.checks.tables import (
    boxes,
    heads,
    keypoints,
    one_table,
    shard_tables,
    texts,
    whole_pose,
)

BETWEEN = "ExpectColumnValuesToBeBetween"
IN_SET = "ExpectColumnValuesToBeInSet"
NOT_NULL = "ExpectColumnValuesToNotBeNull"
UNIQUE = "ExpectColumnValuesToBeUnique"
UNIQUE_TOGETHER = "ExpectCompoundColumnsToBeUnique"
MATCH = "ExpectColumnValuesToMatchRegex"
NOT_EMPTY = critical(
    "not_empty", "ExpectTableRowCountToBeBetween", "The table has rows.", min_value=1
)
SPLITS = critical(
    "split_known",
    IN_SET,
    "Every row belongs to one split.",
    column="split",
    value_set=["train", "val", "test"],
)
#: No head of a person is wider than this many pixels in a picture of any profile.
MAX_PX = 4096


def _box_checks() -> tuple[Check, ...]:
    return tuple(
        critical(
            f"box_{side}_positive",
            BETWEEN,
            "A head's box has an area.",
            column=f"box_{side}",
            min_value=0,
            strict_min=True,
            max_value=MAX_PX,
        )
        for side in ("width", "height")
    ) + tuple(
        critical(
            f"box_{side}_there",
            NOT_NULL,
            "A box is four finite numbers.",
            column=f"box_{side}",
        )
        for side in ("left", "top", "width", "height")
    )


def _flame_checks() -> tuple[Check, ...]:
    return (
        critical(
            "flame_finite",
            IN_SET,
            "The 413 parameters are finite numbers.",
            column="flame_finite",
            value_set=[True],
        ),
        critical(
            "rotation_is_6d",
            BETWEEN,
            "The six rotation numbers are two orthonormal columns.",
            column="rotation_error",
            min_value=0,
            max_value=0.02,
        ),
        critical(
            "scale_positive",
            BETWEEN,
            "The scale is in pixels per metre: a head is 5 to 5000 px high.",
            column="scale_px_per_m",
            min_value=20,
            max_value=20_000,
        ),
        warning(
            "coefficients_plausible",
            BETWEEN,
            "Shape and expression stay within a few standard deviations.",
            column="coefficient_max",
            min_value=0,
            max_value=8,
        ),
    )


POSES = Suite(
    "poses",
    shard_tables("poses", keypoints, whole_pose),
    (
        NOT_EMPTY,
        SPLITS,
        critical(
            "person_unique",
            UNIQUE_TOGETHER,
            "A person of a pose is listed once.",
            column_list=["pose_id", "person_id"],
        ),
        critical(
            "num_people_in_range",
            BETWEEN,
            "A pose has one to eight people.",
            column="num_people",
            min_value=1,
            max_value=8,
        ),
        critical(
            "all_people_listed",
            IN_SET,
            "A pose lists as many people as it says it has.",
            column="all_listed",
            value_set=[True],
        ),
        critical(
            "keypoints_finite",
            IN_SET,
            "Keypoints are 17 finite triples.",
            column="keypoints_finite",
            value_set=[True],
        ),
        critical(
            "confidence_in_range",
            BETWEEN,
            "Confidences are shares.",
            column="confidence_max",
            min_value=0,
            max_value=1,
        ),
        critical(
            "canvas_in_range",
            BETWEEN,
            "The picture has a size.",
            column="width",
            min_value=32,
            max_value=MAX_PX,
        ),
        warning(
            "skeletons_visible",
            BETWEEN,
            "A skeleton shows at least a head's keypoints.",
            column="keypoints_visible",
            min_value=1,
            max_value=17,
            mostly=0.95,
        ),
    ),
)

CAPTIONS = Suite(
    "captions",
    shard_tables("captions", texts),
    (
        NOT_EMPTY,
        SPLITS,
        critical("sample_unique", UNIQUE, "An image is described once.", column="sample_id"),
        critical(
            "caption_there",
            BETWEEN,
            "A caption has words.",
            column="caption_chars",
            min_value=3,
            max_value=2000,
        ),
        critical(
            "prompt_there",
            BETWEEN,
            "A prompt has words.",
            column="prompt_chars",
            min_value=3,
            max_value=4000,
        ),
        critical(
            "num_people_in_range",
            BETWEEN,
            "A caption is of one to eight people.",
            column="num_people",
            min_value=1,
            max_value=8,
        ),
        warning(
            "prompts_vary",
            "ExpectColumnProportionOfUniqueValuesToBeBetween",
            "Prompts are not the same few again and again.",
            column="prompt",
            min_value=0.5,
        ),
    ),
)

IMAGES = Suite(
    "images",
    shard_tables("images"),
    (
        NOT_EMPTY,
        SPLITS,
        critical("sample_unique", UNIQUE, "An image is listed once.", column="sample_id"),
        critical("image_unique", UNIQUE, "No image is stored twice.", column="sha256"),
        critical(
            "sha256_form",
            MATCH,
            "The hash is a sha256.",
            column="sha256",
            regex="^[0-9a-f]{64}$",
        ),
        critical(
            "bytes_there",
            BETWEEN,
            "An encoded image has bytes.",
            column="size",
            min_value=200,
            max_value=50_000_000,
        ),
        critical(
            "offset_valid",
            BETWEEN,
            "An image begins after its tar header.",
            column="offset",
            min_value=512,
        ),
        warning(
            "not_black_or_white",
            BETWEEN,
            "Pictures are neither black nor white.",
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
            UNIQUE_TOGETHER,
            "A head of an image is listed once.",
            column_list=["sample_id", "head_id"],
        ),
        *_box_checks(),
        critical(
            "flame_there",
            IN_SET,
            "Every true head has its parameters.",
            column="has_flame",
            value_set=[True],
        ),
        *_flame_checks(),
        critical(
            "visible_is_share",
            BETWEEN,
            "The visible part of a head is a share.",
            column="visible",
            min_value=0,
            max_value=1,
        ),
        critical(
            "skin_tone_on_monk_scale",
            BETWEEN,
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
            BETWEEN,
            "A shard holds images.",
            column="images",
            min_value=1,
        ),
        critical(
            "truth_where_it_is_known",
            IN_SET,
            "A generator that knows the heads of its pictures wrote them down.",
            column="has_expected_truth",
            value_set=[True],
        ),
        warning(
            "brightness_typical",
            BETWEEN,
            "No shard is over- or underexposed as a whole.",
            column="mean_luma",
            min_value=60,
            max_value=190,
        ),
        warning(
            "heads_per_image_typical",
            BETWEEN,
            "Shards hold pictures of one to eight people.",
            column="heads_per_image",
            min_value=1,
            max_value=6,
        ),
        warning(
            "heads_visible",
            BETWEEN,
            "Most of the heads are seen.",
            column="mean_visible",
            min_value=0.5,
            max_value=1,
        ),
        warning(
            "skin_tones_even",
            BETWEEN,
            "A shard shows most of the Monk scale.",
            column="skin_tones",
            min_value=5,
        ),
        warning(
            "head_sizes_spread",
            "ExpectColumnQuantilesBetween",
            "The typical head is neither a dot nor the whole picture.",
            column="median_head_px",
            quantile_ranges={"quantiles": [0.1, 0.9], "value_ranges": [[12, None], [None, 400]]},
        ),
    ),
)

ANNOTATIONS = Suite(
    "annotations",
    shard_tables("annotations", boxes, heads),
    (
        NOT_EMPTY,
        SPLITS,
        critical(
            "head_unique",
            UNIQUE_TOGETHER,
            "A head of an image is listed once.",
            column_list=["sample_id", "head_id"],
        ),
        *_box_checks(),
        *_flame_checks(),
        critical(
            "score_is_share",
            BETWEEN,
            "Confidences are shares.",
            column="score",
            min_value=0,
            max_value=1,
        ),
        critical(
            "teacher_named",
            NOT_NULL,
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
            BETWEEN,
            "The detector finds heads in most images of every shard.",
            column="images_with_heads",
            min_value=0.5,
        ),
        warning(
            "not_flooded",
            BETWEEN,
            "The detector does not see heads everywhere.",
            column="heads_per_image",
            min_value=0.5,
            max_value=10,
        ),
    ),
)

FILTERED_VERDICTS = Suite(
    "verdicts",
    one_table("filtered_dataset", "verdicts.parquet"),
    (
        NOT_EMPTY,
        SPLITS,
        critical("sample_unique", UNIQUE, "An image is judged once.", column="sample_id"),
        critical("verdict_there", NOT_NULL, "Every image has a verdict.", column="keep"),
        critical("reason_there", NOT_NULL, "Every verdict has a reason.", column="reason"),
    ),
)

FILTERED_DATASET = Suite(
    "filtered_dataset",
    one_table("filtered_dataset", "heads.parquet", boxes, heads),
    (
        NOT_EMPTY,
        SPLITS,
        critical(
            "head_unique",
            UNIQUE_TOGETHER,
            "A head of an image is listed once.",
            column_list=["sample_id", "head_id"],
        ),
        *_box_checks(),
        *_flame_checks(),
    ),
)

DATASET_STATISTICS = Suite(
    "dataset_statistics",
    statistics.dataset_statistics,
    (
        critical(
            "something_to_train_on",
            BETWEEN,
            "A detector needs images to learn from.",
            column="train_images",
            min_value=10,
        ),
        critical(
            "something_to_validate_on",
            BETWEEN,
            "Training is watched on held-out images.",
            column="val_images",
            min_value=1,
        ),
        critical(
            "heads_to_train_on",
            BETWEEN,
            "The FLAME branches need labelled heads.",
            column="train_heads_with_flame",
            min_value=10,
        ),
        critical(
            "no_head_of_a_removed_image",
            IN_SET,
            "A filtered image leaves no head behind.",
            column="heads_of_removed_images",
            value_set=[0],
        ),
        warning(
            "filters_keep_most",
            BETWEEN,
            "Filters that remove most images speak of a broken detector.",
            column="share_kept",
            min_value=0.3,
        ),
    ),
)

#: Every suite, for tests and documentation.
ALL_SUITES = (
    POSES,
    CAPTIONS,
    IMAGES,
    TRUTH,
    IMAGE_STATISTICS,
    ANNOTATIONS,
    ANNOTATION_STATISTICS,
    FILTERED_VERDICTS,
    FILTERED_DATASET,
    DATASET_STATISTICS,
)
