"""The suites of images, of their exact ground truth, and of each shard as a whole."""

from __future__ import annotations

import pandas as pd
from great_expectations import expectations as gxe

from assets.checks import statistics
from assets.checks.accounts import LOST, counts_rule, images_account
from assets.checks.bounded import (
    bounded,
    bounds_of,
    drift_rule,
    drop_rate_rule,
    face_evidence,
    only_told,
    truth_statistics,
    world_of_truth,
)
from assets.checks.custom import ExpectColumnQuantilesBetween
from assets.checks.rules import Rule, Shelf, rules_suite, whole_suite
from assets.checks.shared import HEAD_UNIQUE, NOT_EMPTY, SPLITS, box_checks, flame_checks
from assets.checks.suite import Suite, critical, warning
from assets.checks.tables import boxes, heads, shard_tables
from ml.generation.config import EXACT_BACKENDS
from ml.quality import head_invariants, invariants
from ml.quality.findings import findings
from ml.records.shards import ShardReader

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
            "An encoded image is not empty.",
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
        HEAD_UNIQUE,
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
            "visible_is_fraction",
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
            "Every shard contains images.",
            column="images",
            min_value=1,
        ),
        critical(
            "truth_where_it_is_known",
            gxe.ExpectColumnValuesToBeInSet,
            "A generator that knows the ground truth of its images has written it.",
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
            "Shards contain images of one to eight people.",
            column="heads_per_image",
            min_value=1,
            max_value=6,
        ),
        warning(
            "heads_visible",
            gxe.ExpectColumnValuesToBeBetween,
            "Most heads are visible.",
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
            "The typical head is neither tiny nor fills the image.",
            column="median_head_px",
            quantile_ranges={"quantiles": [0.1, 0.9], "value_ranges": [[12, None], [None, 400]]},
        ),
    ),
)


def _bytes(shelf: Shelf, shard: str) -> pd.DataFrame:
    with ShardReader(shelf.ws.stage_dir("images") / f"{shard}.tar") as reader:
        return invariants.image_files(shelf.table("images", shard), reader)


def _exact(shelf: Shelf, shard: str) -> pd.DataFrame:
    """Return the images with exact ground truth."""
    images = shelf.table("images", shard)
    return images[images["generator"].str.split(":").str[0].isin(EXACT_BACKENDS)]


def _people(shelf: Shelf, shard: str) -> pd.DataFrame:
    bound = bounds_of(shelf).bounds["images"]["people_without_head"]
    if bound is None or bound[1] is None:
        return findings([], [])
    return invariants.heads_of_people(shelf.table("truth", shard), _exact(shelf, shard), bound[1])


def _flame_differs(shelf: Shelf, shard: str) -> pd.DataFrame:
    truth = shelf.table("truth", shard)
    return head_invariants.distinct(
        truth["flame"].tolist(), head_invariants.head_names(truth), "parameters"
    )


IMAGE_RULES = rules_suite(
    "image_rules",
    Rule("accounted", LOST, images_account),
    counts_rule("images"),
    Rule(
        "of_their_captions",
        "An image has the pose, split, people and seed of its own caption.",
        lambda shelf, shard: invariants.images_follow_captions(
            shelf.table("images", shard), shelf.table("captions", shard)
        ),
    ),
    Rule("bytes_as_listed", "The stored bytes are those of the table, and show its size.", _bytes),
)

TRUTH_RULES = rules_suite(
    "truth_rules",
    Rule(
        "of_their_images",
        "Ground-truth heads belong to existing images and their splits, each person once.",
        lambda shelf, shard: invariants.truth_of_images(
            shelf.table("truth", shard), shelf.table("images", shard)
        ),
    ),
    Rule(
        "of_their_poses",
        "Ground-truth rotation, scale and position are those of the skeleton.",
        lambda shelf, shard: invariants.truth_follows_poses(
            shelf.table("truth", shard), shelf.table("images", shard), shelf.table("poses", shard)
        ),
    ),
    Rule(
        "of_their_scenes",
        "Ground-truth skin tone, hair, glasses and hat are those of the scene.",
        lambda shelf, shard: invariants.truth_follows_scenes(
            shelf.table("truth", shard), shelf.table("captions", shard)
        ),
    ),
    Rule(
        "parameters_fit_boxes",
        "Rotations are orthonormal, and the box of a complete head encloses it tightly.",
        lambda shelf, shard: head_invariants.heads_sound(
            shelf.table("truth", shard), head_invariants.whole_heads(shelf.table("truth", shard))
        ),
    ),
    Rule("people_have_heads", "Missing heads are explained by occlusion, in every shard.", _people),
    Rule("heads_differ", "No two heads have the same parameters.", _flame_differs),
)

TRUTH_BOUNDS = whole_suite(
    "truth_bounds",
    drop_rate_rule("images"),
    bounded(
        "angles_typical",
        "Head rotations have the expected distribution: spread, tails, fraction of rear views.",
        "images",
        truth_statistics,
        "yaw",
        "pitch",
        "roll",
        "from_",
    ),
    bounded(
        "sizes_typical",
        "Heads have the sizes and numbers of the profile, and are visible.",
        "images",
        truth_statistics,
        "head_px",
        "heads_per_image",
        "images_with_heads",
        "visible",
    ),
    bounded(
        "shapes_vary",
        "Leading shape and expression coefficients differ from head to head.",
        "images",
        truth_statistics,
        "shape",
        "expression",
    ),
    bounded(
        "looks_vary",
        "Tones, hair, glasses and hats are used evenly.",
        "images",
        truth_statistics,
        "skin_tone",
        "hair_style",
        "glasses",
        "hat",
    ),
    bounded(
        "people_have_heads",
        "Every requested person has a head, unless it is completely hidden.",
        "images",
        truth_statistics,
        "people_without_head",
    ),
    bounded(
        "faces_where_told",
        "Pixels show faces at the listed heads, with the listed skin tones.",
        "images",
        face_evidence,
    ),
    only_told("images", truth_statistics, face_evidence),
    drift_rule("images"),
    sharded=True,
)

WORLD = whole_suite(
    "world",
    bounded(
        "people_per_image",
        "Images show as many people, and groups as often, as docs/world.md declares.",
        "world",
        world_of_truth,
        "heads_per_image",
        "groups",
        severity="warning",
    ),
    bounded(
        "seen_from_all_sides",
        "Profiles and heads seen from behind are as frequent as declared.",
        "world",
        world_of_truth,
        "turned",
        severity="warning",
    ),
    bounded(
        "heads_bend",
        "Pitch and roll have the declared tails.",
        "world",
        world_of_truth,
        "pitched",
        "leaning",
        severity="warning",
    ),
    bounded(
        "sizes_spread",
        "Heads are as small and as large as declared.",
        "world",
        world_of_truth,
        "head_px",
        "head_of_image",
        severity="warning",
    ),
    bounded(
        "heads_are_covered",
        "Hats, glasses, borders and other people cover as many heads as declared.",
        "world",
        world_of_truth,
        "glasses",
        "hats",
        "cut",
        "hidden",
        severity="warning",
    ),
    sharded=True,
)

SUITES = (
    IMAGES,
    TRUTH,
    IMAGE_STATISTICS,
    IMAGE_RULES,
    TRUTH_RULES,
    TRUTH_BOUNDS,
    WORLD,
)
