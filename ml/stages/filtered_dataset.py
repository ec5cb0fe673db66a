"""Stage `filtered_dataset`: judge every annotated image, and write what stays as a dataset."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from pydantic import Field

from ml.box_detection import load_box_detector
from ml.box_detection.base import Boxes, HeadBoxDetector, Image
from ml.box_detection.faces import FaceCheckConfig, build_face_detector
from ml.dataset.card import CardMetadata, write_card
from ml.dataset.splits import check_no_leak, split_counts
from ml.dataset.statistics import compute_statistics, plot_statistics, write_statistics
from ml.filtering.contact_sheets import judged_image, write_images
from ml.filtering.identity import IdentityConfig
from ml.filtering.judge import DetectionLimits, Judge, Judgement, RulesConfig
from ml.filtering.metrics import drop_table, figures
from ml.filtering.rules import KEEP, RULES
from ml.filtering.safety import SafetyConfig
from ml.filtering.screens import NONE_NEEDED, SCREEN_REASONS, build_screens
from ml.imaging.io import decode_image
from ml.imaging.reading import read_image
from ml.records.atomic import write_json
from ml.records.config import StageConfig
from ml.records.determinism import prepare_torch
from ml.records.exclusions import Exclusions, read_exclusions
from ml.records.progress import progress
from ml.records.report import StageReport
from ml.records.shards import ShardReader
from ml.records.tables import (
    CAPTIONS,
    DATASET_HEADS,
    EXCLUSIONS,
    HEADS,
    IMAGES,
    VERDICTS,
    empty_table,
    read_stage,
    read_table,
    write_table,
)
from ml.records.workspace import Workspace

_LOGGER = logging.getLogger(__name__)

STAGE = "filtered_dataset"
_STAGES_BEFORE = ("poses", "captions", "images", "annotations")


class DatasetMetadata(StageConfig):
    """What the dataset card says about the dataset's origin."""

    name: str = "VGGHeads"
    """Name of the dataset."""
    profile: str = "own"
    """Profile it was made with."""
    parents: tuple[str, ...] = (
        "procedural-head",
        "renderer",
        "sampled-poses",
        "scene-grammar",
        "rt-detr-from-scratch",
        "crop-regressor",
    )
    """Everything the data descends from, by name in the asset register."""
    rendered: bool = True
    """Whether the images are rendered, not made by a diffusion model."""


class FilteredDatasetConfig(StageConfig):
    """Rules, thresholds, and what is shown."""

    detections: DetectionLimits = DetectionLimits()
    """Which detections count as heads; the annotation stage's values, for its boxes are judged."""
    rules: RulesConfig = RulesConfig()
    """How the rules are applied."""
    face_check: FaceCheckConfig = FaceCheckConfig()
    """Rule 3's face detector."""
    safety: SafetyConfig = SafetyConfig()
    """Which images are unsafe; looked at before the rules."""
    identity: IdentityConfig = IdentityConfig()
    """Whose faces must not appear; looked for before the rules."""
    device: str = "cpu"
    """Where the box detector computes; `auto` takes the GPU when there is one."""
    images_per_batch: int = Field(default=50, ge=1, le=10**9)
    """Images decoded and judged together; bounds the memory."""
    preview_images: int = Field(default=24, ge=1, le=10**9)
    """Images on each image."""
    max_drop_rate: float = Field(default=0.6, ge=0, le=1)
    """The stage fails when a larger fraction of the images is removed."""
    metadata: DatasetMetadata = DatasetMetadata()
    """For the dataset card."""


def run(ws: Workspace, config: FilteredDatasetConfig) -> StageReport:
    """Judge all annotated images; finished shards are kept when the stage is killed.

    Args:
        ws: the workspace; reads `images`, `captions`, `annotations`, `head_detector`, writes
            `data/filtered_dataset`.
        config: rules and thresholds.

    Returns:
        Counts of images, drop rates by rule, statistics, and images of kept and removed images.

    Raises:
        FileNotFoundError: a stage before this one has not run.
        LeakError: images of one pose are in two splits.
        TooManyExcluded: more than `config.max_drop_rate` allows.
        ModelError: a configured model is missing or not the one meant.
    """
    prepare_torch(ws, STAGE)
    judge = Judge(
        load_box_detector(ws.stage_dir("head_detector"), config.device),
        build_face_detector(config.face_check, ws.root),
        config.detections,
        config.rules,
        build_screens(config.safety, config.identity, ws.root),
    )
    return filter_dataset(ws, config, judge)


def filter_dataset(ws: Workspace, config: FilteredDatasetConfig, judge: Judge) -> StageReport:
    """Judge all annotated images with given detectors; see `run`.

    Args:
        ws: the workspace.
        config: rules and thresholds.
        judge: detectors and settings.

    Returns:
        As `run`.

    Raises:
        FileNotFoundError: a stage before this one has not run.
        LeakError: images of one pose are in two splits.
        TooManyExcluded: more than `config.max_drop_rate` allows.
    """
    prepare_torch(ws, STAGE)
    torch.set_num_threads(ws.threads)
    images = read_stage(ws, "images", IMAGES)
    heads = read_stage(ws, "annotations", HEADS)
    reusable = can_reuse(heads, judge.detector, judge.limits, judge.rules)
    judgements: dict[str, Judgement] = {}
    exclusions = Exclusions(STAGE)
    annotated = [_annotated(ws, shard, images[images["shard"] == shard]) for shard in ws.shards]
    num_in = sum(len(rows) for rows in annotated)

    def judge_shard(shard: str, rows: pd.DataFrame) -> tuple[list[Judgement], list[dict[str, str]]]:
        return _judge_shard(ws, config, judge, shard, rows, _known_boxes(heads, rows, reusable))

    # Whole shards side by side use two cores better than two threads in one network do.
    side_by_side = max(ws.workers, 1) if config.device == "cpu" else 1
    with ThreadPoolExecutor(side_by_side, "judge", torch.set_num_threads, (ws.threads,)) as pool:
        judged = pool.map(judge_shard, ws.shards, annotated)
        for of_shard, damaged in progress(judged, STAGE, total=len(annotated)):
            judgements.update({judgement.sample_id: judgement for judgement in of_shard})
            exclusions.extend(damaged)
    verdicts = _verdicts(images, judgements)
    removed = verdicts.loc[~verdicts["keep"], ["sample_id", "reason", "detail"]]
    for sample_id, reason, detail in removed.to_numpy().tolist():
        exclusions.add(sample_id, reason, detail)
    causes = (*(SCREEN_REASONS if judge.screens else ()), *RULES)
    exclusions.check_drop_rate(
        num_in,
        config.max_drop_rate,
        "images",
        needs_one=True,
        advice="look at the box detector's ap50 and at detections.threshold",
    )
    kept_images = images[images["sample_id"].isin(verdicts.loc[verdicts["keep"], "sample_id"])]
    check_no_leak(kept_images)
    kept_heads = heads.merge(kept_images[["sample_id", "shard"]], on="sample_id", validate="m:1")
    out = ws.stage_dir(STAGE)
    write_table(out / "verdicts.parquet", verdicts, VERDICTS)
    write_table(out / "heads.parquet", kept_heads, DATASET_HEADS)
    exclusions.write(ws, "all")
    statistics, plots = _describe(ws, config, images, heads, verdicts, exclusions)
    metrics = figures(verdicts, kept_heads, num_in, causes)
    write_json(out / "metrics.json", metrics)
    sheets = _write_images(ws, config, verdicts, judgements)
    report = StageReport(
        num_in=num_in,
        num_out=len(kept_images),
        num_excluded=len(exclusions),
        metadata={
            **metrics,
            **{f"images_{name}": count for name, count in split_counts(kept_images).items()},
            "rule_4": config.rules.cut,
            "face_check": judge.face_detector.name if judge.face_detector else "none",
            "image_safety": _screen_names(judge),
            "detector_passes_per_image": 2 if reusable else 3,
        },
        tables={"drops_by_rule": drop_table(verdicts, causes), "statistics": statistics},
        images={**sheets, "statistics": plots["overview"]},
    )
    _remove_work(ws)
    return report


def can_reuse(
    heads: pd.DataFrame,
    detector: HeadBoxDetector,
    limits: DetectionLimits,
    rules: RulesConfig,
) -> bool:
    """Return whether the annotations hold all that the rules need of the first detector pass.

    Args:
        heads: the annotations.
        detector: the detector in use.
        limits: which detections count.
        rules: a confirming threshold below the threshold needs detections that are not annotated.

    Returns:
        True when every head comes from the same weights at the same threshold, and no weaker
        detections are asked for.
    """
    if rules.confirm_threshold < limits.threshold:
        return False
    same_detector = heads["teacher"].str.contains(detector.sha256, regex=False).all()
    same_threshold = (heads["threshold"] == np.float32(limits.threshold)).all()
    if not (detector.sha256 and same_detector and same_threshold):
        _LOGGER.info(
            "%s: annotations were made with another detector or threshold than %s at %g; every "
            "image is detected once more",
            STAGE,
            detector.name,
            limits.threshold,
        )
        return False
    return True


def _annotated(ws: Workspace, shard: str, images: pd.DataFrame) -> pd.DataFrame:
    """Return images of a shard that the annotation stage did not exclude."""
    excluded = read_table(ws.table_path("annotations", f"{shard}.exclusions"), EXCLUSIONS)
    return images[~images["sample_id"].isin(excluded["sample_id"])]


def _known_boxes(
    heads: pd.DataFrame, images: pd.DataFrame, reusable: bool
) -> dict[str, Boxes] | None:
    """Return annotated boxes xyxy by image, best first; images without heads have none."""
    if not reusable:
        return None
    known = {sample_id: np.zeros((0, 4), np.float32) for sample_id in images["sample_id"]}
    mine = heads[heads["sample_id"].isin(images["sample_id"])]
    for sample_id, group in mine.groupby("sample_id", sort=False):
        boxes = np.stack(list(group["bbox_xywh"]))
        known[str(sample_id)] = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    return known


def _judge_shard(
    ws: Workspace,
    config: FilteredDatasetConfig,
    judge: Judge,
    shard: str,
    images: pd.DataFrame,
    known: Mapping[str, Boxes] | None,
) -> tuple[list[Judgement], list[dict[str, str]]]:
    """Return judgements of one shard, from the work folder when they were made before a kill."""
    path = ws.work_dir(STAGE) / f"{shard}.json"
    if path.is_file():
        stored = json.loads(path.read_text(encoding="utf-8"))
        judgements = [Judgement.from_json(values) for values in stored["judgements"]]
        return judgements, stored["damaged"]
    damaged = Exclusions(STAGE)
    judgements = []
    for sample_ids, decoded in _batches(ws, shard, images, config.images_per_batch, damaged):
        boxes = None if known is None else [known[sample_id] for sample_id in sample_ids]
        judgements += judge.judge(sample_ids, decoded, boxes)
    write_json(
        path,
        {
            "damaged": damaged.rows(),
            "judgements": [judgement.to_json() for judgement in judgements],
        },
        indent=None,
    )
    return judgements, damaged.rows()


def _batches(
    ws: Workspace,
    shard: str,
    images: pd.DataFrame,
    batch_size: int,
    damaged: Exclusions,
) -> Iterator[tuple[list[str], list[Image]]]:
    """Yield decoded images of a shard; what cannot be read is noted."""
    with ShardReader(ws.stage_dir("images") / f"{shard}.tar") as reader:
        for start in range(0, len(images), batch_size):
            sample_ids, decoded = [], []
            for sample_id in images["sample_id"].iloc[start : start + batch_size]:
                pixels = read_image(reader, sample_id, damaged)
                if pixels is not None:
                    decoded.append(pixels)
                    sample_ids.append(str(sample_id))
            if sample_ids:
                yield sample_ids, decoded


def _verdicts(images: pd.DataFrame, judgements: Mapping[str, Judgement]) -> pd.DataFrame:
    """Return the verdicts table, in the order of the images."""
    rows = [
        {
            "sample_id": sample_id,
            "split": split,
            "shard": shard,
            "keep": judgement.keep,
            "reason": judgement.finding.reason,
            "detail": judgement.finding.detail,
            "num_heads": len(judgement.boxes),
            "num_heads_flipped": judgement.num_heads_flipped,
            "num_heads_halves": judgement.num_heads_halves,
            "num_faces_missed": judgement.num_faces_missed,
            "stability": judgement.stability,
        }
        for sample_id, split, shard in images[["sample_id", "split", "shard"]].to_numpy().tolist()
        if (judgement := judgements.get(sample_id)) is not None
    ]
    if not rows:
        return empty_table(VERDICTS)
    return pd.DataFrame(rows).astype({"stability": "float64"})


def _screen_names(judge: Judge) -> str:
    return ", ".join(screen.name for screen in judge.screens) or NONE_NEEDED


def _describe(
    ws: Workspace,
    config: FilteredDatasetConfig,
    images: pd.DataFrame,
    heads: pd.DataFrame,
    verdicts: pd.DataFrame,
    exclusions: Exclusions,
) -> tuple[pd.DataFrame, dict[str, Path]]:
    """Return statistics, plots and card."""
    out = ws.stage_dir(STAGE)
    earlier = read_exclusions(ws, list(_STAGES_BEFORE))
    statistics = compute_statistics(
        images,
        heads,
        verdicts,
        pd.concat([earlier, exclusions.to_frame()], ignore_index=True),
        read_stage(ws, "captions", CAPTIONS),
    )
    write_statistics(statistics, out)
    plots = plot_statistics(statistics, out / "plots")
    sizes = images["width"].astype(str) + "x" + images["height"].astype(str)
    metadata = CardMetadata(
        name=config.metadata.name,
        profile=config.metadata.profile,
        run_seed=ws.seed,
        image_size=", ".join(sorted(sizes.unique())[:3]),
        parents=config.metadata.parents,
        settings={
            "detector threshold": config.detections.threshold,
            "confirming threshold": config.rules.confirm_threshold,
            "rule 4": config.rules.cut,
            "face check": config.face_check.backend,
            "image safety": _safety_text(config),
        },
        rendered=config.metadata.rendered,
        label_quality=_label_quality(ws),
    )
    write_card(out / "CARD.md", statistics, plots, metadata)
    return statistics, plots


def _safety_text(config: FilteredDatasetConfig) -> str:
    """Return the screens by their models' names in the asset register."""
    models = [config.safety.clip.model, config.safety.classifier.model]
    if config.identity.index:
        models.append(config.identity.embedder_model)
    return ", ".join(model.asset for model in models if model) or NONE_NEEDED


def _label_quality(ws: Workspace) -> dict[str, float]:
    """Return what `annotation_quality` measured; empty where there is no truth to compare with."""
    path = ws.stage_dir("annotation_quality") / "metrics.json"
    if not path.exists():
        return {}
    metrics = json.loads(path.read_text())
    names = ("recall", "precision", "nme_bbox", "rotation_deg", "small_fraction")
    return {name: round(metrics[name], 3) for name in names if metrics.get(name) is not None}


def _write_images(
    ws: Workspace,
    config: FilteredDatasetConfig,
    verdicts: pd.DataFrame,
    judgements: Mapping[str, Judgement],
) -> dict[str, Path]:
    """Return a sheet of kept images, and one of removed images for each reason."""
    sheets: dict[str, Sequence[str]] = {}
    for reason in (KEEP, *RULES):
        rows = verdicts[verdicts["reason"] == reason].head(config.preview_images)
        if len(rows):
            sheets[reason] = list(rows["sample_id"])
    shard_of = dict(zip(verdicts["sample_id"], verdicts["shard"], strict=True))
    wanted = {sample_id for ids in sheets.values() for sample_id in ids}
    drawn: dict[str, Image] = {}
    for shard in sorted({shard_of[sample_id] for sample_id in wanted}):
        with ShardReader(ws.stage_dir("images") / f"{shard}.tar") as reader:
            for sample_id in sorted(wanted):
                if shard_of[sample_id] == shard:
                    image = decode_image(reader.read(sample_id, "jpg"))
                    drawn[sample_id] = judged_image(image, judgements[sample_id])
    return write_images(ws.stage_dir(STAGE) / "images", sheets, drawn, judgements)


def _remove_work(ws: Workspace) -> None:
    """Remove the unfinished work, once everything is written."""
    folder = ws.work_dir(STAGE)
    for path in folder.glob("*.json"):
        path.unlink()
    folder.rmdir()
