"""The gate of the tables: counts as published, every score a number, every set measured."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from assets.checks.rules import Rule, Shelf, whole_suite
from ml.quality.findings import findings

STAGE = "benchmark_scores"


def _scores(shelf: Shelf) -> list[dict[str, Any]]:
    def read() -> list[dict[str, Any]]:
        path = shelf.ws.stage_dir(STAGE) / "scores.json"
        return list(json.loads(path.read_text(encoding="utf-8")))

    return shelf.once("scores", read)


def counts_as_published(shelf: Shelf, shards: Sequence[str]) -> pd.DataFrame:
    """Find sets of which a copy has other counts than its publisher's; the text names both."""
    differences = {
        f"{one['set']}: {text}": f"{one['set']}: {text}"
        for one in _scores(shelf)
        for text in one.get("count_differences", ())
    }
    return findings(differences, differences.values())


def scores_are_numbers(shelf: Shelf, shards: Sequence[str]) -> pd.DataFrame:
    """Find scores that are infinite or NaN; what was not measured is null."""
    items, problems = [], []
    for one in _scores(shelf):
        name = f"{one['set']}, {one['protocol']}, {one['model']}"
        for key, value in one.items():
            if isinstance(value, float) and not math.isfinite(value):
                items.append(name)
                problems.append(f"{name}: {key} is {value}")
    return findings(items, problems)


def models_have_scores(shelf: Shelf, shards: Sequence[str]) -> pd.DataFrame:
    """Find models that were scored on some sets and not on others."""
    scored: dict[str, set[str]] = {}
    for one in _scores(shelf):
        if one["origin"] == "ours" and "num_images" in one:
            scored.setdefault(str(one["set"]), set()).add(str(one["model"]))
    public = {name: who for name, who in scored.items() if not name.startswith(_OWN)}
    everyone = set().union(*public.values())
    lacking = [
        (name, f"{name}: no score of {', '.join(sorted(everyone - who))}")
        for name, who in public.items()
        if everyone - who
    ]
    return findings([name for name, _ in lacking], [text for _, text in lacking])


def something_was_measured(shelf: Shelf, shards: Sequence[str]) -> pd.DataFrame:
    """Find sets of which no image was scored."""
    empty = [
        f"{one['set']}, {one['protocol']}, {one['model']}: no image was scored"
        for one in _scores(shelf)
        if one.get("num_images") == 0
    ]
    return findings(empty, empty)


_OWN = ("benchmark", "generated-")
"""Beginnings of names of sets that are this project's own."""

SUITES = (
    whole_suite(
        "scores",
        Rule(
            "counts_as_published",
            "A copy of a public set has as many images, faces and rows as the published one.",
            counts_as_published,
            "warning",
        ),
        Rule("scores_are_numbers", "No score is infinite.", scores_are_numbers),
        Rule("images_were_scored", "Every set had images.", something_was_measured),
        Rule(
            "models_on_the_same_sets",
            "Models in one table were measured on the same public sets.",
            models_have_scores,
            "warning",
        ),
        sharded=False,
    ),
)
