"""A workspace of a few drawn pictures with labels: enough to run the training stage for real."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from torch import nn

from ml.flame.geometry import HeadGeometry
from ml.flame.head_model import NUM_FACES, NUM_VERTICES, HeadModel
from ml.imaging.io import encode_jpeg
from ml.records.heads import Heads
from ml.records.shards import shard_writer
from ml.records.tables import DATASET_HEADS, TRUTH, VERDICTS, write_table
from ml.records.workspace import Workspace
from ml.training.module import HeadDetectorModule

SIZE = 96
SPLITS = ("train", "train", "train", "train", "train", "train", "val", "val")


class FrozenNormModule(HeadDetectorModule):
    """A detector whose batch normalisation does not see the batch, so that its size is all one."""

    def train(self, mode: bool = True) -> FrozenNormModule:
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self


def count_images(
    predicted: Sequence[Heads], labelled: Sequence[Heads], ignored: Sequence[np.ndarray]
) -> dict[str, float]:
    """Figures that tell how many images were measured, and in which order."""
    order = sum(index * len(heads) for index, heads in enumerate(labelled))
    return {"images": float(len(predicted)), "order": float(order)}


def ball_model() -> HeadModel:
    """A mirror-symmetric ball with a nose in the head model's format."""
    rng = np.random.default_rng(0)
    half = rng.normal(size=(NUM_VERTICES // 2, 3))
    half = half / np.linalg.norm(half, axis=1, keepdims=True) * 0.1
    nose = np.array([[0.0, 0.0, 0.13]])
    flip = np.array([-1.0, 1.0, 1.0])
    template = np.concatenate([half, half * flip, nose])
    count = len(half)
    mirror = np.r_[count : 2 * count, 0:count, 2 * count]
    faces = rng.integers(0, NUM_VERTICES, (NUM_FACES, 3))
    regressor = np.zeros((5, NUM_VERTICES))
    regressor[:, 0] = 1
    weights = np.zeros((NUM_VERTICES, 5))
    weights[:, 1] = 1
    everything = np.arange(NUM_VERTICES, dtype=np.int32)
    basis = np.zeros((NUM_VERTICES, 3, 400), np.float32)
    basis[:, :, 0] = template * 0.05
    return HeadModel(
        v_template=template.astype(np.float32),
        faces=faces.astype(np.int32),
        shapedirs=basis,
        posedirs=np.zeros((NUM_VERTICES, 3, 36), np.float32),
        J_regressor=regressor.astype(np.float32),
        weights=weights.astype(np.float32),
        landmark_faces=np.zeros(68, np.int32),
        landmark_barycentric=np.full((68, 3), 1 / 3, np.float32),
        mirror_vertices=mirror.astype(np.int32),
        mirror_shape=np.ones(300, np.float32),
        mirror_expression=np.ones(100, np.float32),
        regions={"all": everything, "head": everything[::4]},
        source="a ball",
    )


def frontal_flame(x: float, y: float, scale: float) -> np.ndarray:
    """Parameters of a frontal head."""
    flame = np.zeros(413, np.float32)
    flame[[403, 407]] = (1, -1)
    flame[409:413] = (x, y, 0, scale)
    return flame


def make_world(root: Path) -> Workspace:
    """Pictures of one or two discs on noise, with truth, pseudo-labels and verdicts."""
    ws = Workspace(root=root, seed=5, num_shards=1, shard_size=len(SPLITS), threads=1)
    head_model = ball_model()
    head_model.save(ws.stage_dir("head_model") / "head_model.npz")
    geometry = HeadGeometry(head_model)
    rng = np.random.default_rng(1)
    truth, heads, verdicts = [], [], []
    with shard_writer(ws.stage_dir("images") / "shard-00000.tar") as writer:
        for index, split in enumerate(SPLITS):
            sample_id = f"s{index}"
            image = rng.integers(0, 120, (SIZE, SIZE, 3), dtype=np.uint8)
            for head_id in range(1 + index % 2):
                x, y, scale = 25 + 44 * head_id, rng.uniform(35, 60), rng.uniform(150, 220)
                flame = frontal_flame(x, y, scale)
                points = geometry.vertices_px(flame[None])[0]
                low, high = points.min(axis=0), points.max(axis=0)
                cv2.circle(image, (int(x), int(y)), int(0.1 * scale), (230, 180, 150), -1)
                row = {
                    "sample_id": sample_id,
                    "head_id": head_id,
                    "split": split,
                    "bbox_xywh": np.r_[low, high - low].astype(np.float32),
                    "flame": flame,
                    "head_model": head_model.sha256,
                }
                truth.append(
                    {
                        **row,
                        "person_id": head_id,
                        "visible": 1.0,
                        "inside": 1.0,
                        "skin_tone": 3,
                        "hair_style": "short",
                        "glasses": "none",
                        "hat": "none",
                    }
                )
                heads.append(
                    {
                        **row,
                        "score": 0.9,
                        "flame_status": "ok",
                        "teacher": "t",
                        "threshold": 0.5,
                        "source": "pseudo",
                        "shard": "shard-00000",
                    }
                )
            verdicts.append(
                {
                    "sample_id": sample_id,
                    "split": split,
                    "shard": "shard-00000",
                    "keep": True,
                    "reason": "keep",
                    "detail": "",
                    "num_heads": 1 + index % 2,
                    "num_heads_flipped": 1 + index % 2,
                    "num_heads_halves": -1,
                    "num_faces_missed": -1,
                    "stability": 1.0,
                }
            )
            data = encode_jpeg(image)
            writer.add(sample_id, {"jpg": data[:-50] if sample_id == "s3" else data})
    write_table(ws.table_path("truth", "shard-00000"), pd.DataFrame(truth), TRUTH)
    dataset = ws.stage_dir("filtered_dataset")
    write_table(dataset / "heads.parquet", pd.DataFrame(heads), DATASET_HEADS)
    write_table(dataset / "verdicts.parquet", pd.DataFrame(verdicts), VERDICTS)
    return ws
