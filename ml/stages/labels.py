"""Stage `labels`: a sample of images with head boxes, as an annotator would hand them back.

In the demo the renderer's ground truth replaces the annotator.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from ml.imaging.boxes import xywh_to_xyxy
from ml.imaging.drawing import IGNORED_RGB, TRUTH_RGB, draw_boxes
from ml.imaging.grids import contact_sheet
from ml.imaging.io import decode_image, encode_jpeg
from ml.imaging.reading import read_image
from ml.labels.coco import CocoBox, CocoDataset, CocoImage, write_coco
from ml.labels.tool_import import LABEL_SPLITS, import_labels
from ml.records import reasons
from ml.records.atomic import write_bytes
from ml.records.config import StageConfig
from ml.records.exclusions import Exclusions
from ml.records.ids import sample_seed
from ml.records.progress import progress
from ml.records.report import StageReport
from ml.records.shards import ShardReader
from ml.records.tables import IMAGES, TRUTH, read_stage
from ml.records.workspace import Workspace

STAGE: Final = "labels"
_PREVIEW_CELL_PX: Final = 224


class LabelsConfig(StageConfig):
    """Which images are labelled, and which heads an annotator would box."""

    source: Literal["truth", "file"] = "truth"
    """`truth`: the renderer's ground truth replaces the annotator; `file`: the output of a
    labelling tool, COCO or Label Studio's JSON."""
    file: str = ""
    """With source `file`: the JSON, relative to the project folder."""
    file_sha256: str = Field("", pattern="^([0-9a-f]{64})?$")
    """With source `file`: its hash, so that changes are detected; `vggheads label-import` states
    it. Empty accepts any file."""
    num_train: int = Field(400, ge=1, le=10**9)
    """Labelled images of the train split, if it has as many."""
    num_val: int = Field(80, ge=1, le=10**9)
    """Labelled images of the val split, if it has as many."""
    min_visible: float = Field(0.2, ge=0, le=1)
    """Heads with a smaller visible fraction are ignored."""
    min_inside: float = Field(0.35, ge=0, le=1)
    """Heads with a smaller fraction inside the image are ignored."""
    min_height_px: float = Field(10.0, ge=0, le=1e6)
    """Boxes of smaller height are ignored, px."""
    preview_images: int = Field(12, ge=1, le=10**9)
    """Images in the preview."""
    max_drop_rate: float = Field(0.1, ge=0, le=1)
    """Maximum unreadable fraction of the selected images; above it, the stage fails."""

    @model_validator(mode="after")
    def _file_named(self) -> LabelsConfig:
        if self.source == "file" and not self.file:
            raise ValueError("source file needs file, the labelling tool's JSON")
        return self


@dataclass
class _SplitLabels:
    """Labelled images of one split, and the images themselves for the preview."""

    images: list[CocoImage]
    boxes: list[CocoBox]
    images_rgb: list[np.ndarray]


def run(ws: Workspace, config: LabelsConfig) -> StageReport:
    """Return labels a seeded sample of the train and val images.

    Args:
        ws: The workspace; reads `data/images` and `data/truth`.
        config: How many images, and which heads count.

    Returns:
        Counts of images, a table by split, a preview; writes `train.json`, `val.json`.

    Raises:
        ValueError: a split has no image at all, or the file of labels cannot be used.
        TooManyExcluded: more than `config.max_drop_rate` allows.
    """
    images = read_stage(ws, "images", IMAGES)
    if config.source == "file":
        return _run_file(ws, config, images)
    truth = read_stage(ws, "truth", TRUTH)
    heads = {str(key): rows for key, rows in truth.groupby("sample_id", sort=False)}
    exclusions = Exclusions(STAGE)
    parts: dict[str, _SplitLabels] = {}
    drawn: list[str] = []
    for split, wanted in zip(LABEL_SPLITS, (config.num_train, config.num_val), strict=True):
        candidates = draw_order(images[images["split"] == split], ws.seed)
        parts[split] = _label_split(ws, config, candidates, wanted, heads, drawn, exclusions)
        if not parts[split].images:
            raise ValueError(
                f"labels: no readable image of split {split} among {len(candidates)}; make more "
                f"images, or raise poses.{split}_fraction"
            )
    description = "source: renderer's truth"
    return _write(ws, config, images, parts, drawn, exclusions, description)


def _run_file(ws: Workspace, config: LabelsConfig, images: pd.DataFrame) -> StageReport:
    """Return labels from a labelling tool's file."""
    exclusions = Exclusions(STAGE)
    imported = import_labels(ws.root / config.file, images, exclusions)
    if config.file_sha256 and imported.sha256 != config.file_sha256:
        raise ValueError(
            f"labels: {config.file} has sha256 {imported.sha256}, expected {config.file_sha256}; "
            "import it again with `vggheads label-import`, or correct labels.file_sha256"
        )
    parts = {}
    for split in LABEL_SPLITS:
        dataset = imported.datasets[split]
        if not dataset.images:
            raise ValueError(f"labels: {config.file} has no usable image of split {split}")
        images_rgb = []
        for image in dataset.images[: config.preview_images]:
            with ShardReader(ws.stage_dir("images") / f"{image.shard}.tar") as reader:
                images_rgb.append(decode_image(reader.read(image.sample_id)))
        parts[split] = _SplitLabels(list(dataset.images), list(dataset.boxes), images_rgb)
    source = f"source: {Path(config.file).name}"
    return _write(ws, config, images, parts, imported.sample_ids, exclusions, source)


def _write(
    ws: Workspace,
    config: LabelsConfig,
    images: pd.DataFrame,
    parts: dict[str, _SplitLabels],
    given: Sequence[str],
    exclusions: Exclusions,
    source: str,
) -> StageReport:
    """Check the drop rate, write everything, report."""
    used = [image.sample_id for part in parts.values() for image in part.images]
    counts = exclusions.account(given, used)
    exclusions.check_drop_rate(counts[0], config.max_drop_rate, "drawn images")
    for split, part in parts.items():
        description = f"heads, {split} split; {source}"
        dataset = CocoDataset(tuple(part.images), tuple(part.boxes), description)
        write_coco(ws.stage_dir(STAGE) / f"{split}.json", dataset)
    exclusions.write(ws, "all")
    return StageReport(
        *counts,
        metadata={"num_candidates": int(images["split"].isin(LABEL_SPLITS).sum())},
        tables={"by_split": _split_table(parts)},
        images={"boxes": _write_preview(ws, parts["train"])},
    )


def draw_order(images: pd.DataFrame, run_seed: int) -> pd.DataFrame:
    """Return images in the seeded order in which they are drawn for labelling.

    The place of an image depends on its id alone: more shards add images, they do not reshuffle.

    Args:
        images: Rows of `IMAGES`.
        run_seed: The run's seed.

    Returns:
        The same rows, reordered.
    """
    order = sorted(
        range(len(images)),
        key=lambda row: sample_seed(run_seed, STAGE, str(images["sample_id"].iloc[row])),
    )
    return images.iloc[order]


def to_coco_boxes(
    rows: pd.DataFrame, image: CocoImage, first_id: int, config: LabelsConfig
) -> list[CocoBox]:
    """Return boxes of one image's heads.

    Args:
        rows: Rows of `TRUTH` of this image; may be empty.
        image: The image.
        first_id: Id of the first box.
        config: Which heads are ignored.

    Returns:
        Boxes clipped to the image; a head of which nothing is seen has none.
    """
    boxes: list[CocoBox] = []
    for row in rows.sort_values("head_id").to_dict("records"):
        left, top, width, height = (float(value) for value in row["bbox_xywh"])
        right, bottom = min(left + width, image.width), min(top + height, image.height)
        left, top = max(left, 0.0), max(top, 0.0)
        if right - left <= 0 or bottom - top <= 0 or row["visible"] <= 0:
            continue
        ignore = (
            row["visible"] < config.min_visible
            or row["inside"] < config.min_inside
            or bottom - top < config.min_height_px
        )
        box = (left, top, right - left, bottom - top)
        boxes.append(CocoBox(first_id + len(boxes), image.image_id, box, bool(ignore)))
    return boxes


def _label_split(
    ws: Workspace,
    config: LabelsConfig,
    candidates: pd.DataFrame,
    wanted: int,
    heads: dict[str, pd.DataFrame],
    drawn: list[str],
    exclusions: Exclusions,
) -> _SplitLabels:
    """Return labels of the first `wanted` readable candidates; unreadable ones become exclusions.

    Appends the ids of all that were looked at to `drawn`.
    """
    part = _SplitLabels([], [], [])
    no_heads = pd.DataFrame(columns=[column.name for column in TRUTH.columns])
    readers: dict[str, ShardReader] = {}
    try:
        records = candidates.to_dict("records")
        for row in progress(records, "labels"):
            if len(part.images) == wanted:
                break
            sample_id, shard = str(row["sample_id"]), str(row["shard"])
            drawn.append(sample_id)
            if shard not in readers:
                readers[shard] = ShardReader(ws.stage_dir("images") / f"{shard}.tar")
            image_rgb = read_image(readers[shard], sample_id, exclusions)
            if image_rgb is None or not _has_size(image_rgb, row, exclusions):
                continue
            image = CocoImage(
                image_id=len(part.images) + 1,
                file_name=f"{shard}/{sample_id}.jpg",
                width=int(row["width"]),
                height=int(row["height"]),
                shard=shard,
                sample_id=sample_id,
            )
            rows = heads.get(image.sample_id, no_heads)
            part.images.append(image)
            part.boxes += to_coco_boxes(rows, image, len(part.boxes) + 1, config)
            if len(part.images_rgb) < config.preview_images:
                part.images_rgb.append(image_rgb)
    finally:
        for reader in readers.values():
            reader.close()
    return part


def _has_size(image_rgb: np.ndarray, row: dict[Any, Any], exclusions: Exclusions) -> bool:
    """Compare an image's size with its row of the images table; exclude it when they differ."""
    height, width = image_rgb.shape[:2]
    if (height, width) == (row["height"], row["width"]):
        return True
    detail = (
        f"{row['shard']}: image is {width}x{height} px, expected {row['width']}x{row['height']} as "
        "in the images table"
    )
    exclusions.add(str(row["sample_id"]), reasons.OTHER_SIZE, detail)
    return False


def _write_preview(ws: Workspace, part: _SplitLabels) -> Path:
    """Write a contact sheet of labelled images."""
    cells = []
    for image, image_rgb in zip(part.images, part.images_rgb, strict=False):
        boxes = [box for box in part.boxes if box.image_id == image.image_id]
        corners = xywh_to_xyxy(np.array([box.bbox_xywh for box in boxes]).reshape(-1, 4))
        ignored = np.array([box.ignore for box in boxes], bool)
        cell = draw_boxes(image_rgb, corners[ignored], IGNORED_RGB)
        cells.append(draw_boxes(cell, corners[~ignored], TRUTH_RGB))
    path = ws.stage_dir(STAGE) / "images" / "boxes.jpg"
    write_bytes(path, encode_jpeg(contact_sheet(cells, 4, _PREVIEW_CELL_PX)))
    return path


def _split_table(parts: dict[str, _SplitLabels]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "split": split,
                "images": len(part.images),
                "heads": sum(not box.ignore for box in part.boxes),
                "ignored_heads": sum(box.ignore for box in part.boxes),
                "images_without_heads": len(part.images)
                - len({box.image_id for box in part.boxes}),
            }
            for split, part in parts.items()
        ]
    )
