"""The suite of the skeletons."""

from __future__ import annotations

from great_expectations import expectations as gxe

from assets.checks.accounts import LOST, counts_rule, poses_account
from assets.checks.bounded import drop_rate_rule, only_told
from assets.checks.rules import Rule, rules_suite, whole_suite
from assets.checks.shared import MAX_PX, NOT_EMPTY, SPLITS
from assets.checks.suite import Suite, critical, warning
from assets.checks.tables import keypoints, shard_tables, whole_pose
from ml.quality.head_invariants import distinct

POSES = Suite(
    "poses",
    shard_tables("poses", keypoints, whole_pose),
    (
        NOT_EMPTY,
        SPLITS,
        critical(
            "person_unique",
            gxe.ExpectCompoundColumnsToBeUnique,
            "Each person of a pose is listed once.",
            column_list=["pose_id", "person_id"],
        ),
        critical(
            "num_people_in_range",
            gxe.ExpectColumnValuesToBeBetween,
            "A pose has one to eight people.",
            column="num_people",
            min_value=1,
            max_value=8,
        ),
        critical(
            "all_people_listed",
            gxe.ExpectColumnValuesToBeInSet,
            "A pose lists as many people as it states.",
            column="all_listed",
            value_set=[True],
        ),
        critical(
            "keypoints_finite",
            gxe.ExpectColumnValuesToBeInSet,
            "Keypoints are 17 finite triples.",
            column="keypoints_finite",
            value_set=[True],
        ),
        critical(
            "confidence_in_range",
            gxe.ExpectColumnValuesToBeBetween,
            "Confidences are fractions.",
            column="confidence_max",
            min_value=0,
            max_value=1,
        ),
        critical(
            "canvas_in_range",
            gxe.ExpectColumnValuesToBeBetween,
            "The image has a size.",
            column="width",
            min_value=32,
            max_value=MAX_PX,
        ),
        warning(
            "skeletons_visible",
            gxe.ExpectColumnValuesToBeBetween,
            "A skeleton contains at least the keypoints of the head.",
            column="keypoints_visible",
            min_value=1,
            max_value=17,
            mostly=0.95,
        ),
    ),
)

POSE_RULES = rules_suite(
    "pose_rules",
    Rule("accounted", LOST, poses_account),
    counts_rule("poses"),
    Rule(
        "people_differ",
        "No skeleton occurs twice with different ids.",
        lambda shelf, shard: distinct(
            shelf.table("poses", shard)["keypoints"],
            [
                f"{p}#{n}"
                for p, n in shelf.table("poses", shard)[["pose_id", "person_id"]].to_numpy()
            ],
            "skeleton",
        ),
    ),
)

POSE_BOUNDS = whole_suite("pose_bounds", drop_rate_rule("poses"), only_told("poses"), sharded=True)

SUITES = (
    POSES,
    POSE_RULES,
    POSE_BOUNDS,
)
