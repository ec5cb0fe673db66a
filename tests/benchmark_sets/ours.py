"""Renders in our own tables, and a COCO file of another project."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

from ml.imaging.io import encode_jpeg
from ml.records.shards import shard_writer
from ml.records.tables import IMAGES, TRUTH, write_table
from ml.records.workspace import Workspace

# image -> (split, boxes x y w h, visible)
RENDERS = {
    "r0": ("test", [(10, 10, 30, 40, 1.0), (60, 20, 30, 40, 0.1)]),
    "r1": ("train", [(5, 5, 20, 20, 1.0)]),
    "r2": ("test", []),
}


def write_renders(root: Path, renders=RENDERS) -> Path:
    ws = Workspace(root, seed=0, num_shards=1, shard_size=3)
    (root / "data" / "images").mkdir(parents=True)
    images, truth = [], []
    with shard_writer(root / "data" / "images" / "shard-00000.tar") as writer:
        for number, (name, (split, boxes)) in enumerate(renders.items()):
            data = encode_jpeg(np.full((100, 120, 3), 40 * number, np.uint8))
            span = writer.add(name, {"jpg": data})["jpg"]
            images.append(
                {
                    "sample_id": name, "pose_id": name, "split": split, "shard": "shard-00000",
                    "width": 120, "height": 100, "offset": span.offset, "size": span.size,
                    "sha256": "", "seed": 0, "generator": "test", "num_people": len(boxes),
                    "mean_luma": 0.0,
                }
            )  # fmt: skip
            truth += [
                {
                    "sample_id": name, "head_id": i, "person_id": i, "split": split,
                    "bbox_xywh": [x, y, w, h], "visible": visible, "inside": 1.0,
                    "flame": _upright(x + w / 2, y + h / 2), "skin_tone": 1, "hair_style": "",
                    "glasses": "", "hat": "", "head_model": "",
                }
                for i, (x, y, w, h, visible) in enumerate(boxes)
            ]  # fmt: skip
    write_table(ws.table_path("images", "shard-00000"), pd.DataFrame(images), IMAGES)
    write_table(ws.table_path("truth", "shard-00000"), pd.DataFrame(truth), TRUTH)
    return root


def _upright(x: float, y: float) -> np.ndarray:
    flame = np.zeros(413, np.float32)
    flame[403], flame[407] = 1.0, -1.0
    flame[409:413] = (x, y, 0.0, 150.0)
    return flame


def write_coco_file(root: Path) -> Path:
    """Boxes that leave the image, a crowd, a box without area, and an image without any."""
    root.mkdir(parents=True, exist_ok=True)
    boxes = [(7, [-5, -5, 30, 30], 0), (7, [50, 40, 20, 20], 1), (9, [3, 3, 0, 9], 0)]
    content = {
        "images": [{"id": i, "file_name": f"sub/{i}.jpg"} for i in (7, 9)],
        "categories": [{"id": 4, "name": "face"}],
        "annotations": [
            {"id": n, "image_id": i, "category_id": 4, "bbox": b, "iscrowd": c}
            for n, (i, b, c) in enumerate(boxes)
        ],
    }
    (root / "annotations.json").write_text(json.dumps(content))
    return root
