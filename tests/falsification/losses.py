"""Falsifications that lose or exclude rows: in any shard, and the lost ids must be named."""

from __future__ import annotations

import json

import pandas as pd
import pyarrow.parquet as pq

from ml.records.workspace import Workspace
from tests.falsification.faults import CROP_SHARDS, SHARDS, Fault, Frame, edit, fewer

LOSSES: dict[str, Fault] = {}


def lost(stage: str, folder: str, key: str, shard: str, part: str = "") -> Fault:
    """A falsification that loses 30 % of the rows of a shard, and tells the ids it lost rows of."""

    def apply(ws: Workspace) -> set[str]:
        gone: set[str] = set()

        def without(frame: Frame) -> Frame:
            left = fewer(frame)
            gone.update(map(str, frame.loc[frame.index.difference(left.index), key]))
            return left

        edit(ws.table_path(folder, f"{shard}{part}"), without)
        return gone

    return Fault(stage, apply)


def lost_of_shard(name: str, key: str, shard: str) -> Fault:
    """A falsification that loses 30 % of a shard's rows of a table that holds all shards."""

    def apply(ws: Workspace) -> set[str]:
        gone: set[str] = set()

        def without(frame: Frame) -> Frame:
            mine = frame[frame["shard"] == shard]
            lose = mine.index.difference(fewer(mine).index)
            gone.update(map(str, frame.loc[lose, key]))
            return frame.drop(index=lose)

        edit(ws.stage_dir("filtered_dataset") / name, without)
        return gone

    return Fault("filtered_dataset", apply)


def excluded(stage: str, key: str, shards: tuple[str, ...], part: str = "") -> Fault:
    """A falsification that excludes 60 % of the rows of some shards, with right accounts."""

    def apply(ws: Workspace) -> None:
        for shard in shards:
            names = pq.read_table(ws.table_path(stage, f"{shard}{part}")).to_pandas()[key]
            gone = set(names.drop_duplicates().sample(frac=0.6, random_state=3))
            for table_part in {"", part}:
                path = ws.table_path(stage, f"{shard}{table_part}")
                edit(path, lambda frame, gone=gone: frame[~frame[key].isin(gone)])
            rows = [
                {"sample_id": name, "stage": stage, "reason": "odd", "detail": "all are"}
                for name in sorted(gone)
            ]
            path = ws.table_path(stage, f"{shard}.exclusions")
            edit(path, lambda frame, rows=rows: pd.concat([frame, pd.DataFrame(rows)]))
            marker = ws.stage_dir(stage) / f"{shard}.json"
            told = json.loads(marker.read_text())
            told["num_out"] -= len(gone)
            told["num_excluded"] += len(gone)
            marker.unlink()
            marker.write_text(json.dumps(told))

    return Fault(stage, apply)


#: What loses rows: stage, folder of its tables, column of ids, rest of the file's name.
LOST = {
    "poses": ("poses", "poses", "pose_id", ""),
    "captions": ("captions", "captions", "sample_id", ""),
    "images": ("images", "images", "sample_id", ""),
    "truth": ("images", "truth", "sample_id", ""),
    "annotated images": ("annotations", "annotations", "sample_id", ".images"),
    "annotations": ("annotations", "annotations", "sample_id", ""),
}
for name in SHARDS:
    LOSSES |= {
        f"{what}: 30 % of the rows of {name} lost": lost(stage, folder, key, name, part)
        for what, (stage, folder, key, part) in LOST.items()
    }
    LOSSES |= {
        f"filters: 30 % of the {what} of {name} lost": lost_of_shard(file, "sample_id", name)
        for what, file in (("verdicts", "verdicts.parquet"), ("heads", "heads.parquet"))
    }
LOSSES |= {
    f"{stage}: 30 % of the samples lost": lost(stage, stage, "sample_id", "samples")
    for stage in (
        "head_detector",
        "flame_regressor",
        "trained_model",
        "trained_model_exact",
        "released_model",
    )
}
LOSSES |= {
    f"crops: 30 % of the rows of {name} lost": lost("crops", "crops", "crop_id", name)
    for name in CROP_SHARDS
}
LOSSES |= {
    f"{stage}: 60 % excluded, with right accounts": excluded(stage, key, shards, part)
    for stage, key, shards, part in (
        ("captions", "sample_id", SHARDS, ""),
        ("images", "sample_id", SHARDS, ""),
        ("annotations", "sample_id", SHARDS, ".images"),
        ("poses", "pose_id", SHARDS, ""),
        ("crops", "crop_id", CROP_SHARDS, ""),
    )
}
