"""Stage `annotations`: detect the heads of every image and regress their FLAME parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ml.annotation.backends import RegressorConfig, load_flame_regressor
from ml.annotation.drawing import draw_pseudo_labels
from ml.annotation.estimates import cut_crops, estimate_heads
from ml.annotation.regressor import FlameRegressor
from ml.box_detection import load_box_detector
from ml.box_detection.base import HeadBoxDetector, select_detections
from ml.flame.geometry import HeadGeometry
from ml.flame.head_model import HeadModel
from ml.imaging.boxes import xyxy_to_xywh
from ml.imaging.grids import contact_sheet
from ml.imaging.io import encode_jpeg
from ml.imaging.reading import read_image
from ml.records import reasons
from ml.records.atomic import write_bytes
from ml.records.config import Count, Fraction, NonNegative, StageConfig
from ml.records.determinism import one_thread
from ml.records.exclusions import Exclusions
from ml.records.models import hash_stage
from ml.records.progress import progress
from ml.records.report import StageReport
from ml.records.shards import ShardReader
from ml.records.tables import (
    ANNOTATED_IMAGES,
    HEADS,
    IMAGES,
    empty_table,
    read_table,
    write_table,
)
from ml.records.workspace import Workspace

STAGE = "annotations"
_MODELS_OF = ("head_model", "head_detector", "flame_regressor")


class AnnotationsConfig(StageConfig):
    """How heads are found and labelled."""

    regressor: RegressorConfig = RegressorConfig()
    """The FLAME regressor."""
    device: str = "cpu"
    """Device of detector and regressor; `auto` selects the GPU if there is one."""

    threshold: Fraction = 0.5
    """Minimum score of a detected head."""
    nms_iou: Fraction = 0.5
    """IoU above which the weaker of two boxes is suppressed (published: 0.5)."""
    max_heads: Count = 100
    """Maximum number of heads in an image; the highest scores are used."""
    min_side_px: NonNegative = 3.0
    """Heads whose longer box side is below this get no FLAME parameters and the status `small`. The
    published annotator has no such limit, although no regressor recognises a face of 3 px."""
    images_per_batch: Count = 50
    """Images decoded and processed together; limits memory, has no effect on results."""
    preview_images: Count = 12
    """Images in the preview of a shard."""
    max_drop_rate: Fraction = 0.2
    """Maximum excluded fraction of a shard's images; above it, the stage fails."""


@dataclass(frozen=True)
class Annotator:
    """The models that label heads.

    Attributes:
        detector: finds the heads.
        regressor: gives their FLAME parameters.
        head_model: head model of the parameters.
    """

    detector: HeadBoxDetector
    regressor: FlameRegressor
    head_model: HeadModel

    @property
    def teacher(self) -> str:
        """Names and hashes of the models, as the heads table records them."""
        models = (self.detector, self.regressor)
        return " + ".join(f"{model.name}:{model.sha256}" for model in models)


@dataclass
class ImageHeads:
    """The heads of one image while they are being labelled.

    Attributes:
        sample_id: the image.
        split: its split.
        boxes_xyxy: (N, 4) image frame, px, inside the image.
        scores: (N,).
        status: N words, see the heads table.
        flame: N times (413,) image frame, or None.
    """

    sample_id: str
    split: str
    boxes_xyxy: NDArray[np.float32]
    scores: NDArray[np.float32]
    status: list[str] = field(default_factory=list)
    flame: list[NDArray[np.float32] | None] = field(default_factory=list)


def load_annotator(ws: Workspace, config: AnnotationsConfig) -> Annotator:
    """Load the models that earlier stages made and those the user brings, once per process.

    Args:
        ws: the workspace.
        config: which regressor, and where to compute.

    Returns:
        The annotator.

    Raises:
        FileNotFoundError: one of the stages has not run.
        ModelError: the regressor's file is missing or has another hash than stated.
    """
    return _annotator(ws, config, tuple(hash_stage(ws.stage_dir(stage)) for stage in _MODELS_OF))


@lru_cache(maxsize=1)
def _annotator(ws: Workspace, config: AnnotationsConfig, sha256: tuple[str, ...]) -> Annotator:
    """Load the models; a worker labels many shards. The hashes are part of the cache's key only."""
    head_model = HeadModel.load(ws.stage_dir("head_model") / "head_model.npz")
    return Annotator(
        detector=load_box_detector(ws.stage_dir("head_detector"), config.device),
        regressor=load_flame_regressor(ws, config.regressor, head_model, config.device),
        head_model=head_model,
    )


def run_shard(ws: Workspace, config: AnnotationsConfig, shard: str) -> StageReport:
    """Label the heads of one shard.

    Args:
        ws: the workspace.
        config: how heads are found and labelled.
        shard: name of the image shard.

    Returns:
        Counts of images; the metadata counts heads by status.

    Raises:
        FileNotFoundError: the shard or a model is missing.
        TooManyExcluded: more than `config.max_drop_rate` allows.
    """
    return annotate_shard(ws, config, shard, load_annotator(ws, config))


def annotate_shard(
    ws: Workspace, config: AnnotationsConfig, shard: str, annotator: Annotator
) -> StageReport:
    """Label the heads of one shard with given models; see `run_shard`.

    Every image of the images table is either labelled, possibly with no head, or excluded. A head
    whose parameters are not finite, or could not be found, keeps its row without them, and gets an
    exclusion row as well: dropping it would make it background for later stages.

    Args:
        ws: the workspace.
        config: how heads are found and labelled.
        shard: name of the image shard.
        annotator: the models.

    Returns:
        Counts of images; the metadata counts heads by status.

    Raises:
        FileNotFoundError: the shard is missing.
        TooManyExcluded: more than `config.max_drop_rate` allows.
    """
    images = read_table(ws.table_path("images", shard), IMAGES)
    exclusions = Exclusions(STAGE)
    found: list[ImageHeads] = []
    previews: list[NDArray[np.uint8]] = []
    geometry = HeadGeometry(annotator.head_model)
    with one_thread(), ShardReader(ws.stage_dir("images") / f"{shard}.tar") as reader:
        starts = range(0, len(images), config.images_per_batch)
        for start in progress(starts, f"{STAGE} {shard}"):
            rows = images.iloc[start : start + config.images_per_batch]
            batch = _read_images(reader, rows, exclusions)
            labelled = _annotate_batch(batch, config, annotator, exclusions)
            found += labelled
            previews += _draw_previews(
                batch, labelled, geometry, config.preview_images - len(previews)
            )
    exclusions.check_drop_rate(len(images), config.max_drop_rate, "images", shard)
    table = heads_table(found, config, annotator)
    write_table(ws.table_path(STAGE, shard), table, HEADS)
    # Images without a head have no row among the heads: this table records all annotated images.
    seen = _images_table(found)
    write_table(ws.table_path(STAGE, f"{shard}.images"), seen, ANNOTATED_IMAGES)
    exclusions.write(ws, shard)
    sheet = ws.stage_dir(STAGE) / "images" / f"{shard}.jpg"
    write_bytes(sheet, encode_jpeg(contact_sheet(previews, columns=4, cell_px=256)))
    return StageReport(
        num_in=len(images),
        num_out=len(found),
        num_excluded=exclusions.num_samples,
        metadata=_metadata(table, len(found), annotator),
        images={shard: sheet},
    )


def _images_table(found: list[ImageHeads]) -> pd.DataFrame:
    """Return one row per image that was looked at, with the number of its heads."""
    rows = [
        {"sample_id": heads.sample_id, "split": heads.split, "num_heads": len(heads.scores)}
        for heads in found
    ]
    return pd.DataFrame(rows) if rows else empty_table(ANNOTATED_IMAGES)


def _read_images(
    reader: ShardReader, rows: pd.DataFrame, exclusions: Exclusions
) -> dict[str, tuple[str, NDArray[np.uint8]]]:
    """Decode images: sample id -> split and RGB image; what cannot be read is excluded."""
    batch = {}
    for sample_id, split in zip(rows["sample_id"], rows["split"], strict=True):
        image = read_image(reader, sample_id, exclusions)
        if image is not None:
            batch[sample_id] = (split, image)
    return batch


def _annotate_batch(
    batch: dict[str, tuple[str, NDArray[np.uint8]]],
    config: AnnotationsConfig,
    annotator: Annotator,
    exclusions: Exclusions,
) -> list[ImageHeads]:
    detections = annotator.detector.detect([image for _, image in batch.values()])
    found = []
    for (sample_id, (split, image)), (boxes, scores) in zip(batch.items(), detections, strict=True):
        if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
            exclusions.add(
                sample_id, reasons.NON_FINITE, f"{annotator.detector.name}: box or score is NaN"
            )
            continue
        selected = select_detections(
            boxes,
            scores,
            image.shape[:2],
            threshold=config.threshold,
            nms_iou=config.nms_iou,
            max_heads=config.max_heads,
        )
        found.append(ImageHeads(sample_id, split, *selected))
    regress_heads(found, batch, config, annotator, exclusions)
    return found


def regress_heads(
    found: list[ImageHeads],
    batch: Mapping[str, tuple[str, NDArray[np.uint8]]],
    config: AnnotationsConfig,
    annotator: Annotator,
    exclusions: Exclusions,
) -> None:
    """Fill in status and parameters; the crops of all images go through the network together.

    Args:
        found: heads whose boxes are known.
        batch: image -> split and pixels.
        config: which heads are too small.
        annotator: the models; its detector is not used.
        exclusions: receives heads whose parameters are not finite or could not be found.
    """
    regressor = annotator.regressor
    large = [_longer_sides(heads.boxes_xyxy) >= config.min_side_px for heads in found]
    if not found:
        return
    cuts = [
        cut_crops(regressor, batch[heads.sample_id][1], heads.boxes_xyxy[mask])
        for heads, mask in zip(found, large, strict=True)
    ]
    crops, frames = (np.concatenate(parts) for parts in zip(*cuts, strict=True))
    answers = estimate_heads(regressor, crops, frames)
    estimates = zip(answers.flame, answers.reasons, answers.details, strict=True)
    for heads, mask in zip(found, large, strict=True):
        for head_id, is_large in enumerate(mask):
            parameters, status = None, "small"
            if is_large:
                parameters, reason, detail = next(estimates)
                status = reason or "ok"
                if reason:
                    box = np.round(heads.boxes_xyxy[head_id], 1).tolist()
                    where = f"{heads.sample_id}#{head_id}"
                    exclusions.add(where, reason, f"{detail}; head at {box} px")
                    parameters = None
            heads.flame.append(parameters)
            heads.status.append(status)


def _longer_sides(boxes_xyxy: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray((boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).max(axis=1, initial=0))


def _draw_previews(
    batch: dict[str, tuple[str, NDArray[np.uint8]]],
    found: list[ImageHeads],
    geometry: HeadGeometry,
    num_wanted: int,
) -> list[NDArray[np.uint8]]:
    return [
        draw_pseudo_labels(batch[heads.sample_id][1], heads.boxes_xyxy, heads.flame, geometry)
        for heads in found[: max(0, num_wanted)]
    ]


def heads_table(
    found: list[ImageHeads], config: AnnotationsConfig, annotator: Annotator
) -> pd.DataFrame:
    """Return the table of labelled heads, one row per head.

    Args:
        found: heads with status and parameters.
        config: the detector's threshold.
        annotator: the models.
    """
    rows = [
        {
            "sample_id": heads.sample_id,
            "head_id": head_id,
            "split": heads.split,
            "bbox_xywh": xyxy_to_xywh(box),
            "score": score,
            "flame": heads.flame[head_id],
            "flame_status": heads.status[head_id],
        }
        for heads in found
        for head_id, (box, score) in enumerate(zip(heads.boxes_xyxy, heads.scores, strict=True))
    ]
    if not rows:
        return empty_table(HEADS)
    return pd.DataFrame(rows).assign(
        head_model=annotator.head_model.sha256,
        teacher=annotator.teacher,
        threshold=np.float32(config.threshold),
        source="pseudo",
    )


def _metadata(
    table: pd.DataFrame, num_images: int, annotator: Annotator
) -> dict[str, int | float | str | bool]:
    counts = table["flame_status"].value_counts()
    return {
        "num_heads": len(table),
        "num_heads_with_flame": int(counts.get("ok", 0)),
        "num_heads_small": int(counts.get("small", 0)),
        "num_heads_non_finite": int(counts.get(reasons.NON_FINITE, 0)),
        "num_heads_bad_fit": int(counts.get(reasons.BAD_FIT, 0)),
        "heads_per_image": round(len(table) / max(1, num_images), 3),
        "teacher": annotator.teacher,
    }
