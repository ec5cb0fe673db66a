"""Origin of a sample and all decisions about it, gathered from the stages' tables."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd

from ml.records.exclusions import read_exclusions
from ml.records.shards import DamagedSample, ShardReader
from ml.records.tables import (
    CAPTIONS,
    HEADS,
    IMAGES,
    POSE_SOURCES,
    VERDICTS,
    TableSpec,
    read_table,
)
from ml.records.workspace import Workspace

_STAGES = ("poses", "captions", "images", "annotations", "filtered_dataset")


class UnknownSample(LookupError):
    """No stage has recorded anything about a sample."""


def sample_lineage(ws: Workspace, sample_id: str) -> dict[str, Any]:
    """Return everything recorded about one image.

    Args:
        ws: the workspace.
        sample_id: the image's id.

    Returns:
        Pose, what its source was seen with, caption, prompts, choices, seed and generator; what a
        diffusion model was run with; the heads found in it with their teachers; the filters'
        verdict; exclusions. Stages that have not run are absent.

    Raises:
        UnknownSample: no stage knows the sample.
    """
    lineage: dict[str, Any] = {"sample_id": sample_id}
    caption = _find(ws, "captions", CAPTIONS, sample_id)
    image = _find(ws, "images", IMAGES, sample_id)
    heads = _find(ws, "annotations", HEADS, sample_id)
    if len(caption):
        row = caption.iloc[0].to_dict()
        lineage["caption"] = {**row, "choices": json.loads(row["choices"])}
        lineage["caption"]["scene"] = json.loads(row["scene"])
        source = _source(ws, str(row["pose_id"]))
        if source:
            lineage["source"] = source
    if len(image):
        lineage["image"] = image.iloc[0].to_dict()
        if settings := _settings(ws, str(image["shard"].iloc[0]), sample_id):
            lineage["settings"] = settings
    if len(heads):
        columns = ["head_id", "score", "flame_status", "teacher", "threshold", "head_model"]
        lineage["heads"] = heads[columns].to_dict("records")
    verdicts = ws.stage_dir("filtered_dataset") / "verdicts.parquet"
    if verdicts.exists():
        verdict = _rows(read_table(verdicts, VERDICTS), sample_id)
        if len(verdict):
            lineage["verdict"] = verdict.iloc[0].to_dict()
    excluded = _rows(read_exclusions(ws, list(_STAGES)), sample_id)
    if len(excluded):
        lineage["exclusions"] = excluded.to_dict("records")
    if len(lineage) == 1:
        raise UnknownSample(
            f"lineage: no stage knows sample {sample_id!r}; ids look like those of images"
        )
    return lineage


def _source(ws: Workspace, pose_id: str) -> dict[str, Any]:
    """Return source and estimator of a pose; empty for a sampled pose."""
    for shard in ws.shards:
        path = ws.table_path("poses", f"{shard}.sources")
        if path.exists():
            rows = read_table(path, POSE_SOURCES)
            own = rows[rows["pose_id"] == pose_id]
            if len(own):
                return {str(key): value for key, value in own.iloc[0].items()}
    return {}


def _settings(ws: Workspace, shard: str, sample_id: str) -> dict[str, Any]:
    """Return the generation settings recorded in the shard; empty for renders."""
    path = ws.stage_dir("images") / f"{shard}.tar"
    if not path.exists():
        return {}
    with ShardReader(path) as reader:
        try:
            settings: dict[str, Any] = reader.read_json(sample_id).get("settings", {})
        except DamagedSample as error:
            return {"damaged": str(error)}
    return settings


def _find(ws: Workspace, stage: str, spec: TableSpec, sample_id: str) -> pd.DataFrame:
    for shard in ws.shards:
        path = ws.table_path(stage, shard)
        if path.exists():
            rows = _rows(read_table(path, spec), sample_id)
            if len(rows):
                return rows
    return pd.DataFrame()


def _rows(frame: pd.DataFrame, sample_id: str) -> pd.DataFrame:
    return frame[frame["sample_id"] == sample_id]
