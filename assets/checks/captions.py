"""The suite of captions and prompts."""

from __future__ import annotations

from great_expectations import expectations as gxe

from assets.checks.accounts import LOST, captions_account, counts_rule
from assets.checks.bounded import (
    bounded,
    caption_statistics,
    drift_rule,
    drop_rate_rule,
    only_told,
)
from assets.checks.rules import Rule, rules_suite, whole_suite
from assets.checks.shared import NOT_EMPTY, SPLITS
from assets.checks.suite import Suite, critical, warning
from assets.checks.tables import shard_tables, texts
from ml.quality.invariants import captions_follow_poses, seeds_derived

CAPTIONS = Suite(
    "captions",
    shard_tables("captions", texts),
    (
        NOT_EMPTY,
        SPLITS,
        critical(
            "sample_unique",
            gxe.ExpectColumnValuesToBeUnique,
            "Each image has one caption.",
            column="sample_id",
        ),
        critical(
            "caption_there",
            gxe.ExpectColumnValuesToBeBetween,
            "A caption has words.",
            column="caption_chars",
            min_value=3,
            max_value=2000,
        ),
        critical(
            "prompt_there",
            gxe.ExpectColumnValuesToBeBetween,
            "A prompt has words.",
            column="prompt_chars",
            min_value=3,
            max_value=4000,
        ),
        critical(
            "num_people_in_range",
            gxe.ExpectColumnValuesToBeBetween,
            "A caption describes one to eight people.",
            column="num_people",
            min_value=1,
            max_value=8,
        ),
        warning(
            "prompts_vary",
            gxe.ExpectColumnProportionOfUniqueValuesToBeBetween,
            "Prompts vary instead of repeating a few.",
            column="prompt",
            min_value=0.5,
        ),
    ),
)

CAPTION_RULES = rules_suite(
    "caption_rules",
    Rule("accounted", LOST, captions_account),
    counts_rule("captions"),
    Rule(
        "of_their_poses",
        "A caption has the split and the people of its own pose.",
        lambda shelf, shard: captions_follow_poses(
            shelf.table("captions", shard), shelf.table("poses", shard)
        ),
    ),
    Rule(
        "seeds_of_the_run",
        "Seeds derive from the run's seed and the id; another run's shard has others.",
        lambda shelf, shard: seeds_derived(
            shelf.table("captions", shard), shelf.ws.seed, "images", "sample_id"
        ),
    ),
)

CAPTION_BOUNDS = whole_suite(
    "caption_bounds",
    drop_rate_rule("captions"),
    bounded(
        "words_typical",
        "Places, lighting and appearance of people are used evenly; prompts differ.",
        "captions",
        caption_statistics,
    ),
    only_told("captions", caption_statistics),
    drift_rule("captions"),
    sharded=True,
)

SUITES = (
    CAPTIONS,
    CAPTION_RULES,
    CAPTION_BOUNDS,
)
