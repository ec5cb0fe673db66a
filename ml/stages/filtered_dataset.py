"""Stage `filtered_dataset`: filter the annotated images and write the remaining ones as a dataset.

    images, annotations -> judge_shard -> judged/<shard> -> reduce_judged -> dataset, statistics

Judging needs one shard and runs in any process; the rest is a reduction over the judgements.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import pandas as pd
from pydantic import Field

from ml.box_detection import load_box_detector
from ml.box_detection.base import Boxes, HeadBoxDetector, Image
from ml.box_detection.faces import FaceCheckConfig, build_face_detector
from ml.dataset.card import CardMetadata, write_card
from ml.dataset.splits import SPLITS, SplitLedger, check_no_leak, samples_of, split_counts
from ml.dataset.statistics import StatisticsCounter, plot_statistics, write_statistics
from ml.filtering.contact_sheets import judged_image, write_images
from ml.filtering.identity import IdentityConfig
from ml.filtering.judge import DetectionLimits, Judge, Judgement, RulesConfig
from ml.filtering.judged import JudgedBy, is_judged, read_judged, write_judged
from ml.filtering.metrics import VerdictTally, drop_table, run_metrics
from ml.filtering.rules import KEEP, RULES
from ml.filtering.safety import SafetyConfig
from ml.filtering.screens import NONE_NEEDED, SCREEN_REASONS, build_screens
from ml.imaging.io import decode_image
from ml.imaging.reading import read_image
from ml.records.atomic import write_json
from ml.records.config import StageConfig
from ml.records.determinism import one_thread
from ml.records.exclusions import Exclusions, check_drop_rate, read_exclusions
from ml.records.models import ModelRef, hash_stage
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
    read_table,
    table_writer,
)
from ml.records.workspace import Workspace

logger = logging.getLogger(__name__)

STAGE = "filtered_dataset"
JUDGED_STEP: Final = "judged"
"""Subfolder of the stage's folder with the judgements of each shard."""
GROUP_ROWS: Final = 16384
"""Rows of a row group of the dataset's tables; one of heads takes about 60 MB in memory."""
_STAGES_BEFORE = ("poses", "captions", "images", "annotations")


class DatasetMetadata(StageConfig):
    """Origin of the dataset, for its card."""

    name: str = "VGGHeads"
    """Name of the dataset."""
    profile: str = "own"
    """Profile of the run."""
    parents: tuple[str, ...] = (
        "procedural-head",
        "renderer",
        "sampled-poses",
        "scene-grammar",
        "rt-detr-from-scratch",
        "crop-regressor",
    )
    """Parents of the data, by name in the asset register."""
    rendered: bool = True
    """Whether the images are rendered, not made by a diffusion model."""


class FilteredDatasetConfig(StageConfig):
    """Rules, thresholds and previews."""

    detections: DetectionLimits = DetectionLimits()
    """Which detections count as heads; the annotation stage's values, for its boxes are judged."""
    rules: RulesConfig = RulesConfig()
    """Application of the rules."""
    face_check: FaceCheckConfig = FaceCheckConfig()
    """Rule 3's face detector."""
    safety: SafetyConfig = SafetyConfig()
    """Which images are unsafe; looked at before the rules."""
    identity: IdentityConfig = IdentityConfig()
    """Known faces that must not appear; checked before the rules."""
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
    """Judge the remaining shards, and reduce all judgements to the dataset.

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
        ModelError: a configured model is missing or has another hash than stated.
    """
    if all(is_judged(judged_folder(ws, shard)) for shard in ws.shards):
        return reduce_judged(ws, config)
    return filter_dataset(ws, config, load_judge(ws, config))


def filter_dataset(ws: Workspace, config: FilteredDatasetConfig, judge: Judge) -> StageReport:
    """Judge the remaining shards with given detectors, and make the dataset; see `run`.

    Args:
        ws: the workspace.
        config: rules and thresholds.
        judge: detectors and settings.
    """
    missing = [shard for shard in ws.shards if not is_judged(judged_folder(ws, shard))]
    for shard in progress(missing, STAGE):
        judge_images(ws, config, shard, judge)
    return reduce_judged(ws, config)


def load_judge(ws: Workspace, config: FilteredDatasetConfig) -> Judge:
    """Load the detectors and screens of the configuration, once per process.

    Args:
        ws: the workspace; the stage `head_detector` must have run.
        config: rules and thresholds.

    Raises:
        FileNotFoundError: there is no detector.
        ModelError: a configured model is missing or has another hash than stated.
    """
    return _judge(ws, config, hash_stage(ws.stage_dir("head_detector")))


@lru_cache(maxsize=1)
def _judge(ws: Workspace, config: FilteredDatasetConfig, detector_sha256: str) -> Judge:
    """Load the models; a worker judges many shards. The hash is part of the cache's key only."""
    return Judge(
        load_box_detector(ws.stage_dir("head_detector"), config.device),
        build_face_detector(config.face_check, ws.root),
        config.detections,
        config.rules,
        build_screens(config.safety, config.identity, ws.root),
    )


def judged_folder(ws: Workspace, shard: str) -> Path:
    """Return the path, without suffix, of a shard's judgements in the stage's folder."""
    return ws.stage_dir(STAGE) / JUDGED_STEP / shard


def judge_shard(ws: Workspace, config: FilteredDatasetConfig, shard: str) -> StageReport:
    """Judge the annotated images of one shard; needs nothing of the others.

    Args:
        ws: the workspace; reads the shard of `images` and `annotations`, and `head_detector`.
        config: rules and thresholds.
        shard: name of the image shard.

    Returns:
        Counts of images: out are those that were judged, whatever the verdict.

    Raises:
        FileNotFoundError: a stage before this one has not run.
        ModelError: a configured model is missing or has another hash than stated.
    """
    return judge_images(ws, config, shard, load_judge(ws, config))


def judge_images(
    ws: Workspace, config: FilteredDatasetConfig, shard: str, judge: Judge
) -> StageReport:
    """Judge one shard with given detectors; see `judge_shard`."""
    images = read_table(ws.table_path("images", shard), IMAGES)
    excluded = read_table(ws.table_path("annotations", f"{shard}.exclusions"), EXCLUSIONS)
    images = images[~images["sample_id"].isin(excluded["sample_id"])]
    heads = read_table(ws.table_path("annotations", shard), HEADS)
    reusable = can_reuse(heads, judge.detector, judge.limits, judge.rules)
    known = _known_boxes(heads, images) if reusable else None
    damaged = Exclusions(STAGE)
    judgements: list[Judgement] = []
    with one_thread():
        for sample_ids, decoded in _batches(ws, shard, images, config.images_per_batch, damaged):
            boxes = None if known is None else [known[sample_id] for sample_id in sample_ids]
            judgements += judge.judge(sample_ids, decoded, boxes)
    by = JudgedBy.of(judge, 2 if reusable else 3)
    folder = judged_folder(ws, shard)
    write_judged(folder, images, judgements, damaged, by, config.preview_images)
    return StageReport(len(images), len(judgements), len(damaged))


def reduce_judged(ws: Workspace, config: FilteredDatasetConfig) -> StageReport:
    """Make the dataset from the judgements; one shard is in memory at a time.

    Args:
        ws: the workspace; every shard must be judged.
        config: rules and thresholds.

    Returns:
        As `run`.

    Raises:
        FileNotFoundError: a stage before this one has not run, or a shard is not judged.
        LeakError: images of one pose are in two splits.
        TooManyExcluded: more than `config.max_drop_rate` allows.
    """
    dataset = _Dataset(ws, config)
    out = ws.stage_dir(STAGE)
    with (
        table_writer(out / "verdicts.parquet", VERDICTS, GROUP_ROWS) as verdicts,
        table_writer(out / "heads.parquet", DATASET_HEADS, GROUP_ROWS) as heads,
        table_writer(out / "all.exclusions.parquet", EXCLUSIONS, GROUP_ROWS) as exclusions,
    ):
        for shard in ws.shards:
            exclusions.append(dataset.add_damaged(shard))
        for shard in progress(ws.shards, f"{STAGE}: verdicts"):
            part = dataset.add(shard)
            verdicts.append(part.verdicts)
            heads.append(part.heads)
            exclusions.append(part.removed)
        # Checked before the results of an earlier run are replaced.
        dataset.check()
    return dataset.describe()


class _Part(NamedTuple):
    """One shard's rows of the dataset's three tables."""

    verdicts: pd.DataFrame
    heads: pd.DataFrame
    removed: pd.DataFrame


class _Dataset:
    """Counts and statistics of the whole dataset, accumulated shard by shard."""

    def __init__(self, ws: Workspace, config: FilteredDatasetConfig) -> None:
        self._ws, self._config = ws, config
        self._tally = VerdictTally()
        self._statistics = StatisticsCounter()
        self._splits = SplitLedger()
        self._num_in = self._num_heads = self._passes = 0
        self._dropped: Counter[str] = Counter()
        self._exclusions: list[pd.DataFrame] = []
        self._first = ""
        self._split_counts: Counter[str] = Counter()
        self._sizes: set[str] = set()
        self._sheets: dict[str, list[tuple[str, Judgement]]] = {r: [] for r in (KEEP, *RULES)}
        self._by: JudgedBy | None = None

    def add_damaged(self, shard: str) -> pd.DataFrame:
        """Count the images of a shard that could not be read; return their exclusions."""
        damaged = read_judged(judged_folder(self._ws, shard)).damaged
        self._exclude(damaged)
        self._num_in += len(damaged)
        return damaged

    def add(self, shard: str) -> _Part:
        """Count a shard; return its rows of the dataset's tables."""
        ws = self._ws
        judged = read_judged(judged_folder(ws, shard))
        images = read_table(ws.table_path("images", shard), IMAGES)
        heads = read_table(ws.table_path("annotations", shard), HEADS)
        captions = read_table(ws.table_path("captions", shard), CAPTIONS)
        verdicts = judged.verdicts
        self._statistics.add(images, heads, verdicts, captions)
        self._tally.add(verdicts)
        self._num_in += len(verdicts)
        kept = images[images["sample_id"].isin(verdicts.loc[verdicts["keep"], "sample_id"])]
        self._splits.add(kept)
        self._split_counts.update(split_counts(kept))
        self._sizes.update(images["width"].astype(str) + "x" + images["height"].astype(str))
        removed = verdicts.loc[~verdicts["keep"], ["sample_id", "reason", "detail"]]
        removed = removed.assign(stage=STAGE)
        self._exclude(removed)
        kept_heads = heads[heads["sample_id"].isin(kept["sample_id"])].assign(shard=shard)
        self._num_heads += len(kept_heads)
        self._by = self._by or judged.by
        self._passes = max(self._passes, judged.by.detector_passes)
        for judgement in judged.shown.values():
            sheet = self._sheets.get(judgement.finding.reason)
            if sheet is not None and len(sheet) < self._config.preview_images:
                sheet.append((shard, judgement))
        return _Part(verdicts, kept_heads, removed)

    def check(self) -> None:
        """Check the drop rate and that splits do not leak.

        Raises:
            LeakError: images of one pose are in two splits.
            TooManyExcluded: more than `max_drop_rate` allows.
        """
        check_drop_rate(
            STAGE,
            self._dropped,
            self._num_in,
            f"{STAGE}.max_drop_rate",
            self._config.max_drop_rate,
            "images",
            first=self._first,
            needs_one=True,
            advice="look at the box detector's ap50 and at detections.threshold",
        )
        leaking = self._splits.leaking()
        if len(leaking):
            check_no_leak(pd.concat([self._leaking(shard, leaking) for shard in self._ws.shards]))

    def describe(self) -> StageReport:
        """Write statistics, plots, card and sheets."""
        ws, config = self._ws, self._config
        exclusions = pd.concat(
            [read_exclusions(ws, list(_STAGES_BEFORE)), *self._exclusions], ignore_index=True
        )
        statistics = self._statistics.table(exclusions)
        plots = _describe(ws, config, statistics, sorted(self._sizes))
        causes = (*(SCREEN_REASONS if _screens(config) else ()), *RULES)
        metrics = run_metrics(self._tally, self._num_heads, self._num_in, causes)
        write_json(ws.stage_dir(STAGE) / "metrics.json", metrics)
        assert self._by is not None  # there is at least one shard
        return StageReport(
            num_in=self._num_in,
            num_out=self._tally.num_kept,
            num_excluded=self._dropped.total(),
            metadata={
                **metrics,
                **{f"images_{name}": self._split_counts[name] for name in SPLITS},
                "rule_4": config.rules.cut,
                "face_check": self._by.face_check,
                "image_safety": self._by.image_safety,
                "detector_passes_per_image": self._passes,
            },
            tables={"drops_by_rule": drop_table(self._tally, causes), "statistics": statistics},
            images={**_write_images(ws, self._sheets), "statistics": plots["overview"]},
        )

    def _exclude(self, rows: pd.DataFrame) -> None:
        self._dropped.update(rows["reason"].tolist())
        self._exclusions.append(rows[["sample_id", "stage", "reason"]])
        if not self._first and len(rows):
            self._first = f"{rows['sample_id'].iloc[0]}: {rows['detail'].iloc[0]}"

    def _leaking(self, shard: str, poses: np.ndarray) -> pd.DataFrame:
        """Return the kept images of some poses."""
        verdicts = read_judged(judged_folder(self._ws, shard)).verdicts
        images = samples_of(read_table(self._ws.table_path("images", shard), IMAGES), poses)
        return images[images["sample_id"].isin(verdicts.loc[verdicts["keep"], "sample_id"])]


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
        detections are needed.
    """
    if rules.confirm_threshold < limits.threshold:
        return False
    same_detector = heads["teacher"].str.contains(detector.sha256, regex=False).all()
    same_threshold = (heads["threshold"] == np.float32(limits.threshold)).all()
    if not (detector.sha256 and same_detector and same_threshold):
        logger.info(
            "%s: annotations were made with another detector or threshold than %s at %g; every "
            "image is detected once more",
            STAGE,
            detector.name,
            limits.threshold,
        )
        return False
    return True


def _known_boxes(heads: pd.DataFrame, images: pd.DataFrame) -> dict[str, Boxes]:
    """Return annotated boxes xyxy by image, best first; images without heads have none."""
    known = {sample_id: np.zeros((0, 4), np.float32) for sample_id in images["sample_id"]}
    mine = heads[heads["sample_id"].isin(images["sample_id"])]
    for sample_id, group in mine.groupby("sample_id", sort=False):
        boxes = np.stack(list(group["bbox_xywh"]))
        known[str(sample_id)] = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    return known


def _batches(
    ws: Workspace,
    shard: str,
    images: pd.DataFrame,
    batch_size: int,
    damaged: Exclusions,
) -> Iterator[tuple[list[str], list[Image]]]:
    """Yield decoded images of a shard; unreadable ones become exclusions."""
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


def _screens(config: FilteredDatasetConfig) -> list[ModelRef]:
    """Return the models of the configured screens."""
    models: list[ModelRef | None] = [config.safety.clip.model, config.safety.classifier.model]
    if config.identity.index:
        models.append(config.identity.embedder_model)
    return [model for model in models if model]


def _describe(
    ws: Workspace, config: FilteredDatasetConfig, statistics: pd.DataFrame, sizes: Sequence[str]
) -> dict[str, Path]:
    """Write statistics, plots and card; return the plots."""
    out = ws.stage_dir(STAGE)
    write_statistics(statistics, out)
    plots = plot_statistics(statistics, out / "plots")
    metadata = CardMetadata(
        name=config.metadata.name,
        profile=config.metadata.profile,
        run_seed=ws.seed,
        image_size=", ".join(sizes[:3]),
        parents=config.metadata.parents,
        settings={
            "detector threshold": config.detections.threshold,
            "confirming threshold": config.rules.confirm_threshold,
            "rule 4": config.rules.cut,
            "face check": config.face_check.backend,
            "image safety": ", ".join(model.asset for model in _screens(config)) or NONE_NEEDED,
        },
        rendered=config.metadata.rendered,
        label_quality=_label_quality(ws),
    )
    write_card(out / "CARD.md", statistics, plots, metadata)
    return plots


def _label_quality(ws: Workspace) -> dict[str, float]:
    """Return the metrics of `annotation_quality`; empty without ground truth."""
    path = ws.stage_dir("annotation_quality") / "metrics.json"
    if not path.exists():
        return {}
    metrics = json.loads(path.read_text())
    names = ("recall", "precision", "nme_bbox", "rotation_deg", "small_fraction")
    return {name: round(metrics[name], 3) for name in names if metrics.get(name) is not None}


def _write_images(
    ws: Workspace, found: Mapping[str, Sequence[tuple[str, Judgement]]]
) -> dict[str, Path]:
    """Write a sheet of kept images, and one of removed images for each reason."""
    sheets = {reason: [j.sample_id for _, j in shown] for reason, shown in found.items() if shown}
    by_shard: dict[str, list[Judgement]] = {}
    for shard, judgement in (item for shown in found.values() for item in shown):
        by_shard.setdefault(shard, []).append(judgement)
    drawn: dict[str, Image] = {}
    for shard, judgements in by_shard.items():
        with ShardReader(ws.stage_dir("images") / f"{shard}.tar") as reader:
            for judgement in judgements:
                image = decode_image(reader.read(judgement.sample_id, "jpg"))
                drawn[judgement.sample_id] = judged_image(image, judgement)
    shown = {j.sample_id: j for judgements in by_shard.values() for j in judgements}
    return write_images(ws.stage_dir(STAGE) / "images", sheets, drawn, shown)
