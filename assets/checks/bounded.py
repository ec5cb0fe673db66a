"""Statistics within the bounds of the profile, conf/checks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from assets.checks.accounts import reported
from assets.checks.rules import Rule, Shelf
from assets.checks.suite import Severity
from assets.checks.tables import first_rows, read_raw
from ml.generation.config import EXACT_BACKENDS
from ml.imaging.io import decode_image
from ml.quality import distributions as dist
from ml.quality import evidence
from ml.quality.bounds import CheckBounds, active_profile, judge, read_bounds
from ml.quality.drift import drift, read_reference, summarise, write_reference
from ml.quality.findings import findings, joined
from ml.quality.invariants import people_without_heads
from ml.records.shards import ShardReader
from ml.records.workspace import Workspace

WITH_DROP_RATES = ("poses", "captions", "images", "annotations", "crops")
"""Stages of which the fraction that they exclude is bounded."""
MAX_LOOKED_AT = 400
"""Images whose pixels are looked at for the truth's evidence."""
Values = Mapping[str, float]
Statistics = Callable[[Shelf, Sequence[str]], Values]


def bounds_of(shelf: Shelf) -> CheckBounds:
    """Return the bounds of the active profile, read once a suite."""
    return shelf.once("bounds", lambda: read_bounds(shelf.ws.root))


def bounded(
    name: str,
    why: str,
    group: str,
    statistics: Statistics,
    *names: str,
    severity: Severity = "critical",
) -> Rule:
    """Return the rule that some statistics lie within the profile's bounds.

    Those that the profile only warns of are judged by `only_told`.

    Args:
        name: name of the check.
        why: what it protects from.
        group: section of the bounds.
        statistics: computes them, empty where they are not to be judged; computed once for all
            rules of a suite.
        *names: prefixes of those that this rule judges; all if none is given.
        severity: whether a value outside blocks.
    """

    def find(shelf: Shelf, shards: Sequence[str]) -> pd.DataFrame:
        values = _statistics_once(shelf, shards, group, statistics)
        mine = {k: v for k, v in values.items() if not names or k.startswith(names)}
        return judge(mine, bounds_of(shelf), group, blocking=True)

    return Rule(name, why, find, severity)


def only_told(group: str, *statistics: Statistics) -> Rule:
    """Return the rule that warns of statistics outside their non-blocking bounds.

    Args:
        group: section of the bounds; `only_warn` there says which, and why.
        *statistics: compute the group's statistics.
    """

    def find(shelf: Shelf, shards: Sequence[str]) -> pd.DataFrame:
        parts = [_statistics_once(shelf, shards, group, compute) for compute in statistics]
        values = {name: value for part in parts for name, value in part.items()}
        told = judge(values, bounds_of(shelf), group, blocking=False)
        if group not in WITH_DROP_RATES:
            return told
        rates = drop_rates(group)(shelf, shards)
        return joined([told, judge(rates, bounds_of(shelf), "drop_rates", blocking=False)])

    why = "Statistics lie within bounds that this profile only warns of; conf/checks says why."
    return Rule("unproven_bounds", why, find, "warning")


def _statistics_once(
    shelf: Shelf, shards: Sequence[str], group: str, statistics: Statistics
) -> Values:
    """Return a group's statistics, computed once for all rules of a suite."""
    key = f"{group}/{statistics.__name__}"
    return shelf.once(key, lambda: dict(statistics(shelf, shards)))


def few(shelf: Shelf, number: int) -> bool:
    """Return whether so few rows say nothing of the whole."""
    return number < bounds_of(shelf).min_rows


def rows_of(shelf: Shelf, stage: str, shards: Sequence[str]) -> pd.DataFrame:
    """Return the first rows of every shard, `MAX_ROWS` together at most."""
    limit = max(dist.MAX_ROWS // max(len(shards), 1), 1)
    tables = [read_raw(shelf.ws.table_path(stage, shard)).head(limit) for shard in shards]
    return pd.concat(tables, ignore_index=True)


def _rows_once(shelf: Shelf, stage: str, shards: Sequence[str]) -> pd.DataFrame:
    return shelf.once(f"rows/{stage}", lambda: rows_of(shelf, stage, shards))


def truth_statistics(shelf: Shelf, shards: Sequence[str]) -> Values:
    """Return the statistics of exact heads; none where there are none to be known."""
    truth, images = (_rows_once(shelf, stage, shards) for stage in ("truth", "images"))
    exact = images[images["generator"].str.split(":").str[0].isin(EXACT_BACKENDS)]
    if few(shelf, len(exact)):
        return {}
    missing, _ = people_without_heads(truth, exact)
    return {
        **dist.head_statistics(dist.head_columns(truth)),
        **dist.per_image(truth, len(exact)),
        **dist.spread({"visible": truth["visible"].to_numpy(np.float64)}),
        **dist.word_statistics(
            {
                "skin_tone": [str(tone) for tone in truth["skin_tone"]],
                "hair_style": truth["hair_style"].tolist(),
                "glasses": truth["glasses"].tolist(),
                "hat": truth["hat"].tolist(),
            }
        ),
        "people_without_head": missing,
    }


def world_of_truth(shelf: Shelf, shards: Sequence[str]) -> Values:
    """Return what the world of exact heads is like; nothing where there are none to be known."""
    # Only complete images: the first rows of a table may end within one.
    limit = max(dist.MAX_ROWS // (8 * max(len(shards), 1)), 1)
    heads, images = [], []
    for shard in shards:
        listed = read_raw(shelf.ws.table_path("images", shard)).head(limit)
        exact = listed[listed["generator"].str.split(":").str[0].isin(EXACT_BACKENDS)]
        poses = read_raw(shelf.ws.table_path("poses", shard), ["pose_id", "layout"])
        layouts = poses.drop_duplicates("pose_id").set_index("pose_id")["layout"]
        images.append(exact.assign(layout=exact["pose_id"].map(layouts).fillna("")))
        truth = read_raw(shelf.ws.table_path("truth", shard))
        heads.append(truth[truth["sample_id"].isin(exact["sample_id"])])
    shown = pd.concat(images, ignore_index=True)
    if few(shelf, len(shown)):
        return {}
    return dist.world_statistics(pd.concat(heads, ignore_index=True), shown)


def face_evidence(shelf: Shelf, shards: Sequence[str]) -> Values:
    """Return what pixels say about exact heads; nothing where there are few of them."""
    limit = max(MAX_LOOKED_AT // max(len(shards), 1), 4)
    parts = []
    for shard in shards:
        truth = read_raw(shelf.ws.table_path("truth", shard))
        chosen = truth["sample_id"].drop_duplicates().head(limit)
        with ShardReader(shelf.ws.stage_dir("images") / f"{shard}.tar") as reader:
            parts.append(
                evidence.face_colours(
                    truth[truth["sample_id"].isin(chosen)].reset_index(drop=True),
                    lambda item, tar=reader: decode_image(tar.read(item)),  # type: ignore[misc]
                )
            )
    colours = np.concatenate(parts)
    return {} if few(shelf, len(colours)) else evidence.colour_statistics(colours)


def caption_statistics(shelf: Shelf, shards: Sequence[str]) -> Values:
    """Return the statistics of captions: words of the scenes where there are scenes."""
    captions = _rows_once(shelf, "captions", shards)
    if few(shelf, len(captions)):
        return {}
    words = {k: v for k, v in dist.scene_words(captions).items() if v}
    return {
        **dist.word_statistics(words),
        "prompt_distinct": captions["prompt"].nunique() / len(captions),
        "caption_distinct": captions["caption"].nunique() / len(captions),
    }


def annotation_statistics(shelf: Shelf, shards: Sequence[str]) -> Values:
    """Return the statistics of pseudo-labels."""
    heads = _rows_once(shelf, "annotations", shards)
    images = _rows_once(shelf, "images", shards)
    if few(shelf, len(images)):
        return {}
    status = heads["flame_status"]
    return {
        **dist.head_statistics(dist.head_columns(heads)),
        **dist.per_image(heads, len(images)),
        **dist.spread({"score": heads["score"].to_numpy(np.float64)}),
        "with_parameters": float((status == "ok").mean()) if len(heads) else float("nan"),
        "small": float((status == "small").mean()) if len(heads) else float("nan"),
        "non_finite": float((status == "non_finite").mean()) if len(heads) else float("nan"),
    }


def dataset_statistics(shelf: Shelf, shards: Sequence[str]) -> Values:
    """Return the statistics of the filtered dataset, and what each rule removed."""
    folder = shelf.ws.stage_dir("filtered_dataset")
    verdicts = read_raw(folder / "verdicts.parquet", ["keep", "reason", "split", "stability"])
    heads = first_rows(folder / "heads.parquet", dist.MAX_ROWS)
    if few(shelf, len(verdicts)):
        return {}
    kept = verdicts[verdicts["keep"].astype(bool)]
    reasons = verdicts["reason"].value_counts(normalize=True)
    splits = kept["split"].value_counts(normalize=True)
    rules = ("no_head", "flip_count", "face_without_head", "cut_count")
    return {
        **dist.head_statistics(dist.head_columns(heads)),
        **dist.per_image(heads, len(kept)),
        **dist.spread({"stability": kept["stability"].to_numpy(np.float64)}),
        "removed": 1.0 - len(kept) / len(verdicts),
        **{f"removed_{rule}": float(reasons.get(rule, 0.0)) for rule in rules},
        **{f"split_{name}": float(splits.get(name, 0.0)) for name in ("train", "val", "test")},
        "with_parameters": float((heads["flame_status"] == "ok").mean()) if len(heads) else np.nan,
    }


def crop_statistics(shelf: Shelf, shards: Sequence[str]) -> Values:
    """Return the statistics of single heads."""
    crops = _rows_once(shelf, "crops", shards)
    if few(shelf, len(crops)):
        return {}
    return {
        **dist.head_statistics(dist.head_columns(crops)),
        **dist.spread({"visible": crops["visible"].to_numpy(np.float64)}),
        "val": float((crops["split"] == "val").mean()),
    }


def drop_rates(stage: str) -> Statistics:
    """Return what computes the fraction that a sharded stage excluded."""

    def drop_rate(shelf: Shelf, shards: Sequence[str]) -> Values:
        counts = [reported(shelf.ws, stage, shard) for shard in shards]
        given = sum(count.get("num_in", 0) for count in counts)
        gone = sum(count.get("num_excluded", 0) for count in counts)
        return {} if few(shelf, given) else {stage: gone / given}

    return drop_rate


def drop_rate_rule(stage: str) -> Rule:
    """Return the rule that a sharded stage excludes neither too much nor too little."""
    why = "A stage that excludes much, or nothing where something is expected, is broken."
    return bounded("drop_rate_typical", why, "drop_rates", drop_rates(stage))


def columns_of(shelf: Shelf, group: str, shards: Sequence[str]) -> tuple[dist.Columns, dist.Words]:
    """Return the columns of a group that drift is looked for in.

    Args:
        shelf: the tables.
        group: captions, images, annotations or crops.
        shards: the shards.
    """
    if group == "captions":
        return {}, dist.scene_words(_rows_once(shelf, "captions", shards))
    stage = "truth" if group == "images" else group
    rows = _rows_once(shelf, stage, shards)
    columns = dist.head_columns(rows)
    for name in ("score", "visible"):
        if name in rows:
            columns[name] = rows[name].to_numpy(np.float64)
    if group == "crops":
        return columns, {}
    columns["heads_per_image"] = rows.groupby("sample_id").size().to_numpy().astype(np.float64)
    return columns, {}


def drift_rule(group: str) -> Rule:
    """Return the rule that no column of a group drifted from the accepted reference profile."""

    def find(shelf: Shelf, shards: Sequence[str]) -> pd.DataFrame:
        bounds = bounds_of(shelf)
        if group in bounds.drift.unasked:
            return findings([], [])
        columns, words = columns_of(shelf, group, shards)
        sizes = [len(v) for v in columns.values()] + [len(v) for v in words.values()]
        number = max(sizes, default=0)
        if few(shelf, number):
            return findings([], [])
        profile = active_profile(shelf.ws.root)
        reference = (read_reference(shelf.ws.root, profile) or {}).get(group)
        if reference is None:
            told = f"{group}: no reference is accepted for profile {profile}; look at the "
            told += "statistics, then `vggheads accept-statistics`"
            return findings([group], [told])
        return drift(columns, words, reference, bounds.drift)

    why = "Columns are distributed as in the accepted reference profile of these settings."
    return Rule("no_drift", why, find, "warning")


def accept_reference(ws: Workspace, crop_shards: Sequence[str]) -> Path:
    """Store the columns of the data on disk as the reference of the active profile.

    Args:
        ws: the workspace.
        crop_shards: names of the crops' shards.

    Returns:
        The written file, which Git is to keep.

    Raises:
        TableError: a stage has no data.
    """
    groups = {}
    for group in ("captions", "images", "annotations", "crops"):
        shards = crop_shards if group == "crops" else ws.shards
        groups[group] = summarise(*columns_of(Shelf(ws), group, shards))
    return write_reference(ws.root, active_profile(ws.root), groups)
