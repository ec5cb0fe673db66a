"""WIDER FACE as a dataset of ours: true face boxes, pseudo-labelled (paper, tables 2 and 5).

The regressor looks at true face boxes whose sides are moved outwards by a quarter, as the
published fine-tuning does, so no detector is needed. Images and labels are those of the published
training and validation parts; the tables are those of the stage `filtered_dataset`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ml.annotation.backends import load_flame_regressor
from ml.benchmarks.samples import BenchmarkSample, FaceBoxes
from ml.benchmarks.wider import image_path, read_wider
from ml.flame.head_model import HeadModel
from ml.imaging.boxes import clip_boxes, expand_boxes
from ml.imaging.io import UnreadableImage
from ml.records import reasons
from ml.records.atomic import write_text
from ml.records.exclusions import Exclusions
from ml.records.progress import progress
from ml.records.report import StageReport
from ml.records.shards import shard_writer
from ml.records.tables import (
    DATASET_HEADS,
    IMAGES,
    TRUTH,
    VERDICTS,
    empty_table,
    write_table,
)
from ml.records.workspace import Workspace
from ml.stages.annotations import (
    AnnotationsConfig,
    Annotator,
    ImageHeads,
    heads_table,
    regress_heads,
)

STAGE = "wider_dataset"
EXTENSION = 0.25
PARTS = ("train", "val")
GENERATOR = "WIDER FACE"
_LICENCE_CARD = """---
license: other
---
# WIDER FACE with pseudo-labels

For research only: CC BY-NC-ND 4.0 photographs, labels of a regressor. Not to be passed on.
"""


@dataclass
class _Rows:
    """Rows of the three tables, gathered image by image; pixels are not kept."""

    images: list[dict[str, Any]] = field(default_factory=list)
    verdicts: list[dict[str, Any]] = field(default_factory=list)
    heads: list[pd.DataFrame] = field(default_factory=list)
    used: list[str] = field(default_factory=list)


class NoDetector:
    """Placeholder detector where boxes are known: calling it is an error."""

    name, sha256 = "true_face_boxes", ""

    def detect(self, images_rgb: list[np.ndarray]) -> list[Any]:
        """Raise: boxes are known here.

        Raises:
            RuntimeError: always: the boxes are the published ones.
        """
        raise RuntimeError("boxes of WIDER FACE are the published ones; nothing is detected")


def make_wider_dataset(
    ws: Workspace, wider: Path, out: Path, config: AnnotationsConfig, parts: tuple[str, ...] = PARTS
) -> StageReport:
    """Label WIDER FACE and write it as the stages of a dataset.

    Args:
        ws: the workspace; head model and regressor must exist.
        wider: the folder of WIDER FACE, with images and the text or MAT ground truth.
        out: receives the folders `images`, `truth` (without rows) and `filtered_dataset`.
        config: the regressor, and from which size heads are labelled.
        parts: published parts, which become splits of the same names.

    Returns:
        Counts of images; images that cannot be read and broken rows are excluded.

    Raises:
        MissingBenchmarkFile: there is no ground truth.
        ValueError: no image can be used.
    """
    head_model = HeadModel.load(ws.stage_dir("head_model") / "head_model.npz")
    regressor = load_flame_regressor(ws, config.regressor, head_model, config.device)
    annotator = Annotator(NoDetector(), regressor, head_model)  # type: ignore[arg-type]
    exclusions, unread, rows = Exclusions(STAGE), Exclusions(STAGE), _Rows()
    read: list[str] = []
    for number, part in enumerate(parts):
        shard = f"shard-{number:05d}"
        first = len(rows.images)
        with shard_writer(out / "images" / f"{shard}.tar") as writer:
            for sample in progress(read_wider(wider, unread, part), f"labelling {part}"):
                read.append(sample.sample_id)
                _add(sample, part, shard, wider, writer, annotator, config, exclusions, rows)
        images = pd.DataFrame(rows.images[first:]) if rows.images[first:] else empty_table(IMAGES)
        write_table(out / "images" / f"{shard}.parquet", images, IMAGES)
        write_table(out / "truth" / f"{shard}.parquet", empty_table(TRUTH), TRUTH)
    exclusions.extend(unread.rows())
    counts = exclusions.account([*read, *(row["sample_id"] for row in unread.rows())], rows.used)
    if not rows.images:
        raise ValueError(f"{wider}: no image of WIDER FACE could be used")
    dataset = out / "filtered_dataset"
    heads = [table for table in rows.heads if len(table)]
    table = pd.concat(heads, ignore_index=True) if heads else empty_table(DATASET_HEADS)
    write_table(dataset / "heads.parquet", table, DATASET_HEADS)
    write_table(dataset / "verdicts.parquet", pd.DataFrame(rows.verdicts), VERDICTS)
    write_text(dataset / "CARD.md", _LICENCE_CARD)
    write_text(dataset / "exclusions.csv", exclusions.to_frame().to_csv(index=False))
    return StageReport(
        *counts,
        metadata={"num_heads": len(table), "box extension": EXTENSION},
    )


def _add(
    sample: BenchmarkSample[FaceBoxes],
    part: str,
    shard: str,
    wider: Path,
    writer: Any,
    annotator: Annotator,
    config: AnnotationsConfig,
    exclusions: Exclusions,
    rows: _Rows,
) -> None:
    name = sample_name(sample.sample_id)
    try:
        image = sample.load_image()
    except UnreadableImage as error:
        exclusions.add(sample.sample_id, reasons.DAMAGED_IMAGE, str(error))
        return
    height, width = image.shape[:2]
    heads = ImageHeads(name, part, *face_crops(sample.truth, width, height))
    regress_heads([heads], {name: (part, image)}, config, annotator, exclusions)
    rows.used.append(sample.sample_id)
    rows.heads.append(heads_table([heads], config, annotator).assign(shard=shard))
    data = image_path(wider, sample.sample_id, part).read_bytes()
    span = writer.add(name, {"jpg": data})["jpg"]
    count = len(heads.scores)
    common = {"sample_id": name, "split": part, "shard": shard}
    rows.images.append(
        {
            **common,
            "pose_id": name,
            "width": width,
            "height": height,
            "offset": span.offset,
            "size": span.size,
            "sha256": hashlib.sha256(data).hexdigest(),
            "seed": 0,
            "generator": GENERATOR,
            "num_people": count,
            "mean_luma": float(image.mean()),
        }
    )
    rows.verdicts.append(
        {
            **common,
            "keep": True,
            "reason": "keep",
            "detail": "published ground truth",
            "num_heads": count,
            "num_heads_flipped": count,
            "num_heads_halves": -1,
            "num_faces_missed": -1,
            "stability": None,
        }
    )


def face_crops(truth: FaceBoxes, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the boxes that are labelled: true faces with every side moved outwards by a quarter.

    Args:
        truth: the faces of an image; ignored rows (degenerate ones) are left out.
        width: of the image, px.
        height: of the image, px.

    Returns:
        (N, 4) float32 px within the image, and (N,) scores of 1.
    """
    boxes = truth.boxes_xyxy[~truth.ignored]
    wide = clip_boxes(expand_boxes(boxes, EXTENSION), width, height)
    return np.asarray(wide, np.float32), np.ones(len(boxes), np.float32)


def sample_name(image: str) -> str:
    """Return an image's id as a member of a tar: without folders.

    Args:
        image: such as `0--Parade/0_Parade_marchingband_1_465`.
    """
    return image.replace("/", "__")
