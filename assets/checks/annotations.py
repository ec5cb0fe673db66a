"""The suites of the pseudo-labels, and of each shard of them as a whole."""

from __future__ import annotations

import numpy as np
import pandas as pd
from great_expectations import expectations as gxe

from assets.checks import statistics
from assets.checks.accounts import LOST, annotations_account, counts_rule
from assets.checks.bounded import (
    annotation_statistics,
    bounded,
    bounds_of,
    drift_rule,
    drop_rate_rule,
    only_told,
)
from assets.checks.rules import Rule, Shelf, rules_suite, whole_suite
from assets.checks.shared import HEAD_UNIQUE, NOT_EMPTY, SPLITS, box_checks, flame_checks
from assets.checks.suite import Suite, critical, warning
from assets.checks.tables import boxes, heads, shard_tables
from ml.quality import head_invariants

ANNOTATIONS = Suite(
    "annotations",
    shard_tables("annotations", boxes, heads),
    (
        NOT_EMPTY,
        SPLITS,
        HEAD_UNIQUE,
        *box_checks(),
        *flame_checks(),
        critical(
            "score_is_fraction",
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
            "The detector does not report implausibly many heads.",
            column="heads_per_image",
            min_value=0.5,
            max_value=10,
        ),
    ),
)


def heads_of_images(shelf: Shelf, shard: str) -> pd.DataFrame:
    """Return images of a shard that list another number of heads, or another split."""
    return head_invariants.annotated_images(
        shelf.table("annotations", shard, ".images"),
        shelf.table("annotations", shard),
        shelf.table("images", shard),
    )


def boxes_in_images(shelf: Shelf, shard: str) -> pd.DataFrame:
    """Return labels of a shard that lie outside their image."""
    return head_invariants.boxes_inside(
        shelf.table("annotations", shard), shelf.table("images", shard)
    )


def _pseudo(shelf: Shelf, shard: str) -> pd.DataFrame:
    heads = shelf.table("annotations", shard)
    pseudo = heads[heads["source"] == "pseudo"]
    return head_invariants.not_the_truth(pseudo, shelf.table("truth", shard))


def _fitting(shelf: Shelf, shard: str) -> pd.DataFrame:
    heads = shelf.table("annotations", shard)
    judged = np.full(len(heads), not bounds_of(shelf).random_models)
    return head_invariants.heads_sound(heads, judged)


def _differ(shelf: Shelf, shard: str) -> pd.DataFrame:
    heads = shelf.table("annotations", shard)
    if bounds_of(shelf).random_models:
        heads = heads.iloc[:0]
    # Shape and expression: rotation, place and scale differ even where one head is repeated.
    looks = [None if flame is None else flame[:400] for flame in heads["flame"]]
    return head_invariants.distinct(looks, head_invariants.head_names(heads), "face")


def _provenance(shelf: Shelf, shard: str) -> pd.DataFrame:
    from ml.flame.head_model import HeadModel

    path = shelf.ws.stage_dir("head_model") / "head_model.npz"
    sha256 = shelf.once("head model", lambda: HeadModel.load(path).sha256)
    return head_invariants.one_provenance(shelf.table("annotations", shard), sha256)


ANNOTATION_RULES = rules_suite(
    "annotation_rules",
    Rule("accounted", LOST, annotations_account),
    counts_rule("annotations"),
    Rule(
        "heads_of_images",
        "Each image lists as many heads as were found, in its split.",
        heads_of_images,
    ),
    Rule(
        "boxes_in_images",
        "A label is inside its image.",
        boxes_in_images,
    ),
    Rule(
        "parameters_fit_boxes",
        "Rotations are orthonormal, and a head's box encloses it tightly.",
        _fitting,
    ),
    Rule(
        "scores_sound",
        "Scores are numbers not below the threshold, in decreasing order.",
        lambda shelf, shard: head_invariants.scores_sound(shelf.table("annotations", shard)),
    ),
    Rule(
        "parameters_where_told",
        "A head has parameters exactly if its status says so; only small heads have none.",
        lambda shelf, shard: head_invariants.parameters_where_told(
            shelf.table("annotations", shard)
        ),
    ),
    Rule("heads_differ", "No two heads have the same shape and expression.", _differ),
    Rule("one_provenance", "All heads come from the same models.", _provenance),
    Rule("not_the_truth", "Pseudo-labels contain no ground truth.", _pseudo),
)

ANNOTATION_BOUNDS = whole_suite(
    "annotation_bounds",
    drop_rate_rule("annotations"),
    bounded(
        "angles_typical",
        "Rotations of labelled heads have the expected distribution: spread, tails, rear views.",
        "annotations",
        annotation_statistics,
        "yaw",
        "pitch",
        "roll",
        "from_",
    ),
    bounded(
        "sizes_typical",
        "Labelled heads have the sizes and numbers of the profile.",
        "annotations",
        annotation_statistics,
        "head_px",
        "heads_per_image",
        "images_with_heads",
    ),
    bounded(
        "shapes_vary",
        "Leading shape and expression coefficients differ from head to head.",
        "annotations",
        annotation_statistics,
        "shape",
        "expression",
    ),
    bounded(
        "scores_vary",
        "Scores differ from head to head.",
        "annotations",
        annotation_statistics,
        "score",
    ),
    bounded(
        "parameters_there",
        "The expected fraction of heads has parameters.",
        "annotations",
        annotation_statistics,
        "with_parameters",
        "small",
        "non_finite",
    ),
    only_told("annotations", annotation_statistics),
    drift_rule("annotations"),
    sharded=True,
)

SUITES = (
    ANNOTATIONS,
    ANNOTATION_STATISTICS,
    ANNOTATION_RULES,
    ANNOTATION_BOUNDS,
)
