"""Checks that no falsification here sets off: the test in which each was seen to fail."""

from __future__ import annotations

from fnmatch import fnmatch

LIMITS = "tests/assets/test_suite_limits.py"
SCORES = "tests/ml/stages/test_benchmark_scores.py"
RELEASE = "tests/ml/stages/test_released_dataset.py"
#: Check, or a pattern of them -> test. Checks of single rows have one row each beyond their limit.
ELSEWHERE = {
    "poses__*": LIMITS,
    "captions__*": LIMITS,
    "images__*": LIMITS,
    "truth__*": LIMITS,
    "annotations__*": LIMITS,
    "verdicts__*": LIMITS,
    "filtered_dataset__*": LIMITS,
    "image_statistics__not_empty": LIMITS,
    "image_statistics__images_in_every_shard": LIMITS,
    "image_statistics__truth_where_it_is_known": LIMITS,
    "image_statistics__brightness_typical": LIMITS,
    "image_statistics__heads_per_image_typical": LIMITS,
    "image_statistics__heads_visible": LIMITS,
    "image_statistics__skin_tones_even": LIMITS,
    "image_statistics__head_sizes_spread": LIMITS,
    "annotation_statistics__*": LIMITS,
    "dataset_statistics__*": LIMITS,
    "release_rules__*": RELEASE,
    "scores__counts_as_published": SCORES,
    "scores__models_on_the_same_sets": SCORES,
    "*__unproven_bounds": "tests/assets/test_bounded.py",
    "*__enough_to_judge": "tests/assets/test_gates.py",
}


def elsewhere(check: str) -> str:
    """The test that sees a check fail; empty when there is none."""
    return next((test for name, test in ELSEWHERE.items() if fnmatch(check, name)), "")
