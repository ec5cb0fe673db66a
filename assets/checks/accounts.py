"""Accounts of stages: ids counted in the table that was read and in the one that was written."""

from __future__ import annotations

import json
from collections.abc import Iterable

import pandas as pd

from assets.checks.rules import Rule, Shelf
from assets.checks.tables import read_raw
from ml.quality.accounting import account, belong, marked, people_listed, variants
from ml.quality.findings import joined
from ml.records import reasons
from ml.records.workspace import Workspace
from ml.takedown.removal import hash_id, taken_down

LOST = "Every input is in the output or in the exclusions, exactly once."
UNREADABLE = (reasons.DAMAGED_IMAGE, reasons.DAMAGED_SHARD)
"""Exclusion reasons of images that could not be screened."""
COUNTS = "The counts that the stage reported are those of its files."


def reported(ws: Workspace, stage: str, unit: str) -> dict[str, int]:
    """Return the counts that a stage reported when it finished a unit; empty if it reported none.

    Args:
        ws: the workspace.
        stage: the stage.
        unit: the shard, or `stage` for the whole.
    """
    path = ws.stage_dir(stage) / f"{unit}.json"
    if not path.is_file():
        return {}
    values = json.loads(path.read_text())
    return {key: int(values[key]) for key in ("num_in", "num_out", "num_excluded")}


def forgiven(ws: Workspace, names: Iterable[str]) -> set[str]:
    """Return which ids were taken down, and so are missing on purpose.

    Args:
        ws: the workspace.
        names: ids.
    """
    known = taken_down(ws.root)
    return {name for name in names if hash_id(name) in known} if known else set()


def poses_account(shelf: Shelf, shard: str) -> pd.DataFrame:
    """Account for the poses of a shard: as many as it should hold, with all their people."""
    number = reported(shelf.ws, "poses", shard).get("num_in", shelf.ws.shard_size)
    given = [f"pose-{shard.rsplit('-', 1)[-1]}-{index:05d}" for index in range(number)]
    poses = shelf.table("poses", shard)
    kept = poses["pose_id"].unique()
    excluded = shelf.excluded("poses", shard)
    gone = forgiven(shelf.ws, given)
    found = account(given, kept, excluded, "the shard", "poses", gone)
    return joined([found, belong(kept, shard, "poses"), people_listed(poses)])


def captions_account(shelf: Shelf, shard: str) -> pd.DataFrame:
    """Account for the captions of a shard's poses."""
    kept = shelf.table("captions", shard)["sample_id"]
    excluded = shelf.excluded("captions", shard)
    given = variants(shelf.table("poses", shard)["pose_id"].unique(), [*kept, *excluded])
    gone = forgiven(shelf.ws, given)
    found = account(given, kept, excluded, "poses", "captions", gone)
    return joined([found, belong(kept, shard, "captions")])


def images_account(shelf: Shelf, shard: str) -> pd.DataFrame:
    """Account for the images of a shard's captions."""
    kept = shelf.table("images", shard)["sample_id"]
    given = shelf.table("captions", shard)["sample_id"]
    found = account(given, kept, shelf.excluded("images", shard), "captions", "images")
    return joined([found, belong(kept, shard, "images")])


def annotations_account(shelf: Shelf, shard: str) -> pd.DataFrame:
    """Account for the images of a shard that were looked at, with or without a head."""
    kept = shelf.table("annotations", shard, ".images")["sample_id"]
    given = shelf.table("images", shard)["sample_id"]
    excluded = shelf.excluded("annotations", shard)
    return account(given, kept, excluded, "images", "annotations")


def verdicts_account(shelf: Shelf, shard: str) -> pd.DataFrame:
    """Account for the verdicts on a shard's annotated images, and for the images they remove."""
    verdicts = shelf.part("filtered_dataset", "verdicts.parquet", shard)
    given = [str(item) for item in shelf.table("annotations", shard, ".images")["sample_id"]]
    excluded = shelf.once("excluded from the dataset", lambda: _excluded(shelf.ws))
    mine = {name for name in given if name in excluded}
    # A removed image has a verdict and is excluded; only what cannot be read has no verdict.
    unread = {name for name in mine if excluded[name] in UNREADABLE}
    removed = {str(item) for item in verdicts.loc[~verdicts["keep"].astype(bool), "sample_id"]}
    kept = [str(item) for item in verdicts["sample_id"] if item not in removed]
    doubled = [str(item) for item in verdicts["sample_id"][verdicts["sample_id"].duplicated()]]
    unlisted = removed - mine
    return joined(
        [
            account(given, [*kept, *doubled], removed | (mine & unread), "annotations", "verdicts"),
            account(removed, removed - unlisted, (), "removed images", "the exclusions"),
        ]
    )


def crops_account(shelf: Shelf, shard: str) -> pd.DataFrame:
    """Account for the crops of a shard: as many as it should hold, numbered over the shards."""
    kept = shelf.table("crops", shard)["crop_id"]
    number = reported(shelf.ws, "crops", shard).get("num_in", len(kept))
    index = int(shard.rsplit("-", 1)[-1])
    size = reported(shelf.ws, "crops", "crops-00000").get("num_in", number)
    given = [f"crop-{place:06d}" for place in range(index * size, index * size + number)]
    return account(given, kept, shelf.excluded("crops", shard), "the shard", "crops")


def _excluded(ws: Workspace) -> dict[str, str]:
    """Return the reason of each image that the dataset excludes."""
    path = ws.table_path("filtered_dataset", "all.exclusions")
    table = read_raw(path, ["sample_id", "reason"])
    return {str(name): str(why) for name, why in table.to_numpy().tolist()}


def counts_rule(stage: str) -> Rule:
    """Return the rule that a sharded stage's own counts are those of its files.

    Args:
        stage: poses, captions, images or annotations.
    """
    part, key = {
        "poses": ("", "pose_id"),
        "captions": ("", "sample_id"),
        "images": ("", "sample_id"),
        "annotations": (".images", "sample_id"),
        "crops": ("", "crop_id"),
    }[stage]

    def find(shelf: Shelf, shard: str) -> pd.DataFrame:
        counts = reported(shelf.ws, stage, shard)
        if not counts:
            return joined([])
        kept = shelf.table(stage, shard, part)[key].nunique()
        excluded = {item for item in shelf.excluded(stage, shard) if "#" not in item}
        return marked(counts, kept, len(excluded), shard, len(taken_down(shelf.ws.root)))

    return Rule("counts_of_its_files", COUNTS, find)
