"""A small filtered dataset on disk: two shards, three splits, heads with and without parameters."""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd
import pytest

from ml.imaging.io import encode_jpeg
from ml.records.shards import shard_writer
from ml.records.tables import (
    CAPTIONS,
    DATASET_HEADS,
    HEADS,
    IMAGES,
    VERDICTS,
    table_writer,
    write_table,
)
from ml.records.workspace import Workspace

WIDTH, HEIGHT = 120, 90
# sample id -> shard, split, keep, statuses of its heads
SAMPLES = {
    "image-a0": (0, "train", True, ("ok", "ok")),
    "image-a1": (0, "val", True, ("ok",)),
    "image-a2": (0, "train", False, ("ok",)),
    "image-a3": (0, "train", True, ("ok", "small")),
    "image-b0": (1, "val", True, ()),
    "image-b1": (1, "test", True, ("small", "ok")),
    "image-b2": (1, "train", True, ("ok", "ok", "ok")),
}


def picture(sample_id: str) -> np.ndarray:
    rng = np.random.default_rng(int(hashlib.sha256(sample_id.encode()).hexdigest()[:8], 16))
    coarse = rng.integers(0, 255, (6, 8, 3)).astype(np.uint8)
    return np.kron(coarse, np.ones((15, 15, 1), np.uint8))


def head_row(sample_id: str, head_id: int, status: str) -> dict:
    rng = np.random.default_rng(head_id + 7 * len(sample_id) + sum(sample_id.encode()))
    flame = rng.normal(size=413).astype(np.float32)
    flame[403:409] = (1, 0, 0, 0, -1, 0)
    flame[409:411] = rng.uniform(0, 90, 2)
    flame[411] = 0
    flame[412] = rng.uniform(50, 900)
    left, top = rng.uniform(-3, 60, 2)
    return {
        "sample_id": sample_id,
        "head_id": head_id,
        "split": SAMPLES[sample_id][1],
        "bbox_xywh": np.array([max(left, 0), max(top, 0), 25.4, 28.6], np.float32),
        "score": 0.9 - 0.1 * head_id,
        "flame": flame if status == "ok" else None,
        "flame_status": status,
        "head_model": "f" * 64,
        "teacher": "t",
        "threshold": 0.5,
        "source": "pseudo",
    }


def write_dataset(root) -> Workspace:
    ws = Workspace(root, seed=1, num_shards=2, shard_size=4)
    dataset = ws.stage_dir("filtered_dataset")
    verdicts = []
    with table_writer(dataset / "heads.parquet", DATASET_HEADS) as kept_heads:
        for index, shard in enumerate(ws.shards):
            mine = [s for s, (where, *_) in SAMPLES.items() if where == index]
            images, captions, heads = [], [], []
            with shard_writer(ws.stage_dir("images") / f"{shard}.tar") as writer:
                for sample_id in mine:
                    _, split, keep, statuses = SAMPLES[sample_id]
                    jpeg = encode_jpeg(picture(sample_id))
                    span = writer.add(sample_id, {"jpg": jpeg, "json": {"id": sample_id}})["jpg"]
                    common = {"sample_id": sample_id, "pose_id": f"pose-{sample_id}"}
                    images.append(
                        {
                            **common,
                            "split": split,
                            "shard": shard,
                            "width": WIDTH,
                            "height": HEIGHT,
                            "offset": span.offset,
                            "size": span.size,
                            "sha256": hashlib.sha256(jpeg).hexdigest(),
                            "seed": 1,
                            "generator": "renderer",
                            "num_people": len(statuses),
                            "mean_luma": 100.0,
                        }
                    )
                    captions.append(
                        {
                            **common,
                            "split": split,
                            "num_people": len(statuses),
                            "caption": "people",
                            "prompt": f"people in {sample_id}",
                            "negative_prompt": "",
                            "choices": "{}",
                            "scene": "{}",
                            "captioner": "grammar",
                            "seed": 1,
                        }
                    )
                    rows = [head_row(sample_id, i, s) for i, s in enumerate(statuses)]
                    heads += rows
                    if keep:
                        kept_heads.append(pd.DataFrame([{**r, "shard": shard} for r in rows]))
                    verdicts.append(
                        {
                            "sample_id": sample_id,
                            "split": split,
                            "shard": shard,
                            "keep": keep,
                            "reason": "keep" if keep else "flip_count",
                            "detail": "",
                            "num_heads": len(statuses),
                            "num_heads_flipped": len(statuses),
                            "num_heads_halves": -1,
                            "num_faces_missed": -1,
                            "stability": 0.8 if statuses else np.nan,
                        }
                    )
            write_table(ws.table_path("images", shard), pd.DataFrame(images), IMAGES)
            write_table(ws.table_path("captions", shard), pd.DataFrame(captions), CAPTIONS)
            write_table(ws.table_path("annotations", shard), pd.DataFrame(heads), HEADS)
    write_table(dataset / "verdicts.parquet", pd.DataFrame(verdicts), VERDICTS)
    return ws


@pytest.fixture
def dataset(tmp_path) -> Workspace:
    return write_dataset(tmp_path / "project")
