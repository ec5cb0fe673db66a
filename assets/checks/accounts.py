"""Accounts of stages: ids counted in the table that was read and in the one that was written."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TypeVar

import pandas as pd

from assets.checks.rules import Rule, Shelf
from assets.checks.tables import read_raw
from ml.labels.coco import read_coco
from ml.quality.accounting import account, belong, marked, people_listed
from ml.quality.findings import findings, joined
from ml.records import reasons
from ml.records.config import StageConfig, parse_yaml, read_config
from ml.records.tables import SAMPLES_NAME
from ml.records.workspace import Workspace
from ml.takedown.removal import hash_id, taken_down

C = TypeVar("C", bound=StageConfig)
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


def configured(ws: Workspace, stage: str, config_class: type[C]) -> C:
    """Return a stage's configuration from params.yaml.

    Args:
        ws: the workspace.
        stage: the stage, whose section does not inherit from another.
        config_class: of the section.

    Raises:
        ConfigError: a key is unknown, missing or of the wrong kind.
    """
    values = parse_yaml((ws.root / "params.yaml").read_text(encoding="utf-8")) or {}
    return read_config(config_class, stage, values.get(stage) or {})


def poses_account(shelf: Shelf, shard: str) -> pd.DataFrame:
    """Account for the poses of a shard: as many as it should hold, with all their people."""
    from ml.poses.config import PosesConfig
    from ml.stages.poses import pose_ids

    given = pose_ids(shelf.ws, shard)
    if shelf.once("poses", lambda: configured(shelf.ws, "poses", PosesConfig)).source != "sampled":
        # Photographs may end within a shard; how many there were is known to the stage alone.
        given = given[: reported(shelf.ws, "poses", shard).get("num_in", len(given))]
    poses = shelf.table("poses", shard)
    kept = poses["pose_id"].unique()
    excluded = shelf.excluded("poses", shard)
    gone = forgiven(shelf.ws, given)
    found = account(given, kept, excluded, "the shard", "poses", gone)
    return joined([found, belong(kept, shard, "poses"), people_listed(poses)])


def captions_account(shelf: Shelf, shard: str) -> pd.DataFrame:
    """Account for the captions of a shard's poses, as many of each as configured."""
    from ml.captions.config import CaptionsConfig
    from ml.stages.captions import sample_ids

    kept = shelf.table("captions", shard)["sample_id"]
    excluded = shelf.excluded("captions", shard)
    config = shelf.once("captions", lambda: configured(shelf.ws, "captions", CaptionsConfig))
    poses = map(str, shelf.table("poses", shard)["pose_id"].unique())
    given = [item for pose in poses for item in sample_ids(pose, config.variants_per_pose)]
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
    """Account for the crops of a shard: as many as configured, numbered over the shards."""
    from ml.generation.config import CropsConfig
    from ml.stages.crops import crop_ids

    config = shelf.once("crops", lambda: configured(shelf.ws, "crops", CropsConfig))
    kept, excluded = shelf.table("crops", shard)["crop_id"], shelf.excluded("crops", shard)
    return account(crop_ids(config, shard), kept, excluded, "the shard", "crops")


def training_account(stage: str) -> Rule:
    """Return the rule that a training used or excluded every sample of the splits that it reads.

    Args:
        stage: head_detector, flame_regressor, or one that trains a one-pass detector.
    """

    def find(shelf: Shelf, shards: Sequence[str]) -> pd.DataFrame:
        folder = shelf.ws.stage_dir(stage)
        if not json.loads((folder / "metrics.json").read_text(encoding="utf-8")):
            return joined([])  # switched off
        given = _given_to(shelf.ws, stage)
        used = read_raw(folder / SAMPLES_NAME).astype(str)
        excluded = [
            str(item)
            for path in sorted(folder.glob("*exclusions.parquet"))
            for item in read_raw(path, ["sample_id"])["sample_id"]
        ]
        gone = forgiven(shelf.ws, given)
        there = used[used["sample_id"].isin(list(given))]
        moved = [
            "" if given[item] == split else f"{item} of {given[item]} was used as {split}"
            for item, split in there[["sample_id", "split"]].to_numpy().tolist()
        ]
        return joined(
            [
                account(given, used["sample_id"], excluded, "its data", f"the {stage}", gone),
                findings(there["sample_id"], moved),
            ]
        )

    return Rule("accounted", "Every sample of its data is used or excluded, exactly once.", find)


def _given_to(ws: Workspace, stage: str) -> dict[str, str]:
    """Return the split of each sample that a training has to use."""
    if stage == "head_detector":
        files = {split: ws.stage_dir("labels") / f"{split}.json" for split in ("train", "val")}
        return {i.sample_id: split for split in files for i in read_coco(files[split]).images}
    if stage == "flame_regressor":
        tables = sorted(ws.stage_dir("crops").glob("crops-[0-9]*[0-9].parquet"))
        crops = pd.concat([read_raw(path, ["crop_id", "split"]) for path in tables])
        return {str(item): str(split) for item, split in crops.to_numpy().tolist()}
    dataset = "released_dataset" if stage.startswith("released_") else "filtered_dataset"
    columns = ["sample_id", "split", "keep"]
    verdicts = read_raw(ws.stage_dir(dataset) / "verdicts.parquet", columns)
    mine = verdicts[verdicts["keep"].astype(bool) & verdicts["split"].isin(["train", "val"])]
    return {str(item): str(split) for item, split, _ in mine.to_numpy().tolist()}


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
