"""Doubles of the expensive stages, with real tables and tiny images, for rehearsals of size.

Poses, captions, images and annotations are drawn at random in the shapes of the paper: 413 numbers
a head, 1.3 heads an image. Images show a white square for each head, which a trivial detector finds
again, so that the real rules judge, and the rest of the chain is the project's own.
"""

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, wraps
from pathlib import Path
from typing import Any

import cv2
import dagster as dg
import numpy as np
import pandas as pd

from assets.checks.annotations import ANNOTATION_STATISTICS, ANNOTATIONS
from assets.checks.captions import CAPTION_RULES
from assets.checks.captions import CAPTIONS as CAPTION_SUITE
from assets.checks.images import IMAGE_RULES
from assets.checks.images import IMAGES as IMAGE_SUITE
from assets.checks.poses import POSE_RULES
from assets.checks.poses import POSES as POSE_SUITE
from assets.stage_asset import StageEvents, StageRunner, stage_asset
from dagster_project.pipeline import Pipeline
from dagster_project.stage import Stage, Step
from ml.captions.scene import NO_SCENE
from ml.filtering.judge import NOT_TESTED, Judge, Judgement
from ml.filtering.rules import first_finding
from ml.imaging.io import encode_jpeg
from ml.records.config import StageConfig
from ml.records.exclusions import Exclusions
from ml.records.ids import sample_rng, sample_seed
from ml.records.report import StageReport
from ml.records.shards import shard_writer
from ml.records.tables import (
    ANNOTATED_IMAGES,
    CAPTIONS,
    HEADS,
    IMAGES,
    POSES,
    TRUTH,
    empty_table,
    read_table,
    write_table,
)
from ml.records.workspace import Workspace
from ml.stages import filtered_dataset as real
from ml.stages import head_model

SIDE = 64
#: Heads of images in turn: 13 in ten images, as in the paper (2.2 M heads in 1.7 M images).
NUM_HEADS = (1, 1, 1, 2, 1, 2, 1, 1, 2, 1)
#: Splits in turn.
SPLITS = (*("train",) * 18, "val", "test")
WORK_LOG = "work.log"
KEEP_ALL = "keep-all"
"""File in the project whose presence leaves out the judgement of images."""
_PATHS = {"generator": "double", "width": SIDE, "height": SIDE}


class DoubleConfig(StageConfig):
    """A double has nothing to configure."""


@contextmanager
def timed(root: Path, what: str) -> Iterator[None]:
    """Note beside the data how long something took, and how much of a processor, both in s."""
    started, cpu = time.monotonic(), time.process_time()
    yield
    with (root / WORK_LOG).open("a") as log:
        seconds, of_cpu = time.monotonic() - started, time.process_time() - cpu
        log.write(f"{what} {seconds:.6f} {of_cpu:.6f}\n")


def logged(make: Callable[..., StageReport]) -> Callable[..., StageReport]:
    """Note how long a shard took."""

    @wraps(make)
    def run(ws: Workspace, config: Any, shard: str) -> StageReport:
        with timed(ws.root, make.__name__):
            return make(ws, config, shard)

    return run


def heads_of(ws: Workspace, shard: str) -> tuple[list[str], list[str], list[int], list[int]]:
    """Return ids and splits of a shard's images and, per head, its image's number and its own."""
    number, changed = shard.rsplit("-", 1)[-1], ws.root / "changed"
    numbers = range(ws.shard_size)
    ids = [f"{number}-{index:05d}" for index in numbers]
    splits = [SPLITS[index % len(SPLITS)] for index in numbers]
    counts = [NUM_HEADS[index % len(NUM_HEADS)] for index in numbers]
    # The last image of a changed shard shows one person more; a lost one would be a failed check.
    counts[-1] += changed.exists() and changed.read_text() == shard
    images = [index for index, count in enumerate(counts) for _ in range(count)]
    return ids, splits, images, [head for count in counts for head in range(count)]


@logged
def make_poses(ws: Workspace, config: DoubleConfig, shard: str) -> StageReport:
    """Make random skeletons."""
    ids, splits, images, heads = heads_of(ws, shard)
    rng = sample_rng(ws.seed, "poses", shard)
    points = rng.uniform(0, SIDE, (len(heads), 17, 3)).astype(np.float32)
    points[:, :, 2] = 0.9
    counts = np.bincount(images)
    rows = pd.DataFrame(
        {
            "pose_id": [f"pose-{ids[i]}" for i in images],
            "person_id": heads,
            "split": [splits[i] for i in images],
            "width": SIDE,
            "height": SIDE,
            "num_people": counts[images],
            "layout": "group",
            "depth": heads,
            "keypoints": list(points.reshape(len(heads), -1)),
            **dict.fromkeys(("joints_m", "head_rotation", "shift_px", "head_centre_m")),
            "scale_px_per_m": np.nan,
        }
    )
    write_table(ws.table_path("poses", shard), rows, POSES)
    Exclusions("poses").write(ws, shard)
    return StageReport(len(ids), len(ids))


@logged
def make_captions(ws: Workspace, config: DoubleConfig, shard: str) -> StageReport:
    """A sentence for each pose."""
    poses = read_table(ws.table_path("poses", shard), POSES).drop_duplicates("pose_id")
    ids = ["image-" + pose.removeprefix("pose-") for pose in poses["pose_id"]]
    rows = poses[["pose_id", "split", "num_people"]].assign(
        sample_id=ids,
        caption=[f"people in {name}" for name in ids],
        prompt=[f"a picture of people in {name}, tall grass" for name in ids],
        negative_prompt="",
        choices="{}",
        scene=NO_SCENE,
        captioner="double",
        seed=[sample_seed(ws.seed, "images", name) for name in ids],
    )
    write_table(ws.table_path("captions", shard), rows, CAPTIONS)
    Exclusions("captions").write(ws, shard)
    return StageReport(len(rows), len(rows))


@cache
def square_boxes(count: int) -> np.ndarray:
    """(count, 4) int, xyxy px: where an image shows its heads."""
    return np.array([(8 + 24 * k, 20, 22 + 24 * k, 34) for k in range(count)])


def draw(count: int, number: int) -> np.ndarray:
    """Draw white squares on grey, with a pattern of the image's own in a corner."""
    image = np.full((SIDE, SIDE, 3), 90, np.uint8)
    for x0, y0, x1, y1 in square_boxes(count):
        image[y0:y1, x0:x1] = 255
    bits = np.unpackbits(np.array([number], ">u4").view(np.uint8)).reshape(4, 8)
    image[48:64] = 60 + 60 * np.kron(bits, np.ones((4, 8), np.uint8))[:, :, None]
    return image


@logged
def make_images(ws: Workspace, config: DoubleConfig, shard: str) -> StageReport:
    """Make tiny images, all different."""
    captions = read_table(ws.table_path("captions", shard), CAPTIONS)
    first = int(shard.rsplit("-", 1)[-1]) * ws.shard_size
    spans, found = [], []
    with shard_writer(ws.stage_dir("images") / f"{shard}.tar") as writer:
        for index, (name, count) in enumerate(
            zip(captions["sample_id"], captions["num_people"], strict=True)
        ):
            image = draw(int(count), first + index)
            data = encode_jpeg(image)
            spans.append(writer.add(name, {"jpg": data})["jpg"])
            luma = float(image.mean(axis=(0, 1)) @ (0.299, 0.587, 0.114))
            found.append((hashlib.sha256(data).hexdigest(), luma))
    rows = captions[["sample_id", "pose_id", "split", "num_people", "seed"]].assign(
        shard=shard,
        offset=[span.offset for span in spans],
        size=[span.size for span in spans],
        sha256=[digest for digest, _ in found],
        mean_luma=[luma for _, luma in found],
        **_PATHS,
    )
    write_table(ws.table_path("images", shard), rows, IMAGES)
    write_table(ws.table_path("truth", shard), empty_table(TRUTH), TRUTH)
    Exclusions("images").write(ws, shard)
    return StageReport(len(rows), len(rows))


@logged
def make_annotations(ws: Workspace, config: DoubleConfig, shard: str) -> StageReport:
    """Label the squares with boxes and 413 random numbers a head."""
    images = read_table(ws.table_path("images", shard), IMAGES)
    of_head = np.repeat(np.arange(len(images)), images["num_people"])
    heads = np.concatenate([np.arange(n) for n in images["num_people"]])
    rng = sample_rng(ws.seed, "annotations", shard)
    flame = rng.normal(0, 0.5, (len(heads), 413)).astype(np.float32)
    angle = rng.uniform(-1, 1, len(heads)).astype(np.float32)
    flame[:, 403:409] = 0
    flame[:, 403], flame[:, 405], flame[:, 407] = np.cos(angle), -np.sin(angle), -1
    flame[:, 409:411] = 20 + 24 * heads[:, None]
    flame[:, 412] = 80
    boxes = np.concatenate([square_boxes(n) for n in images["num_people"]]).astype(np.float32)
    boxes[:, 2:] -= boxes[:, :2]
    rows = images[["sample_id", "split"]].iloc[of_head].reset_index(drop=True)
    rows = rows.assign(
        head_id=heads,
        bbox_xywh=list(boxes),
        score=0.9,
        flame=list(flame),
        flame_status="ok",
        head_model="0" * 64,
        teacher=f"squares:{Squares.sha256}",
        threshold=np.float32(0.5),
        source="pseudo",
    )
    write_table(ws.table_path("annotations", shard), rows, HEADS)
    seen = images[["sample_id", "split"]].assign(num_heads=images["num_people"])
    write_table(ws.table_path("annotations", f"{shard}.images"), seen, ANNOTATED_IMAGES)
    Exclusions("annotations").write(ws, shard)
    return StageReport(len(images), len(images))


class Squares:
    """Detector of white squares."""

    name = "squares"
    sha256 = "5" * 64

    def detect(self, images: list[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return boxes xyxy px and scores of each image; every sixteenth image loses its first."""
        return [self._find(image) for image in images]

    @staticmethod
    def _find(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        white = (image > 200).all(axis=2).astype(np.uint8)
        _, _, stats, _ = cv2.connectedComponentsWithStats(white)
        boxes = [(x, y, x + w, y + h) for x, y, w, h, area in stats[1:] if area > 12]
        if image[48:64, -8:].mean() > 115:  # the last bits of its number are set
            boxes = boxes[1:]
        found = np.array(sorted(boxes), np.float32).reshape(-1, 4)
        return found, np.full(len(found), 0.9, np.float32)


class KeepsAll(Judge):
    """Keeps every image without looking at it, where the judgement's time is not asked for."""

    def judge(
        self,
        sample_ids: Sequence[str],
        images: Sequence[np.ndarray],
        known_boxes: Sequence[np.ndarray] | None = None,
    ) -> list[Judgement]:
        """Return the annotated heads as found in both views."""
        assert known_boxes is not None
        nowhere = np.zeros((0, 4), np.float32)
        return [
            Judgement(
                sample_id,
                first_finding([], len(boxes)),
                boxes,
                boxes,
                nowhere,
                None,
                None,
                len(boxes),
                NOT_TESTED,
            )
            for sample_id, boxes in zip(sample_ids, known_boxes, strict=True)
        ]


@logged
def judge_shard(ws: Workspace, config: real.FilteredDatasetConfig, shard: str) -> StageReport:
    """Judge by the real rules, on the trivial detector's boxes."""
    kind = KeepsAll if (ws.root / KEEP_ALL).exists() else Judge
    judge = kind(Squares(), None, config.detections, config.rules)
    return real.judge_images(ws, config, shard, judge)


def reduce(ws: Workspace, config: real.FilteredDatasetConfig) -> StageReport:
    """Run the real reduction, timed."""
    with timed(ws.root, "filtered_dataset"):
        return real.run(ws, config)


def make_head_model(ws: Workspace, config: head_model.HeadModelConfig) -> StageReport:
    """Make the real head model, timed."""
    with timed(ws.root, "head_model"):
        return head_model.run(ws, config)


def _asset(suites: tuple[Any, ...]) -> Callable[..., dg.AssetsDefinition]:
    return stage_asset(group="scale", kinds={"python"}, owner="data", suites=suites)


@_asset((POSE_SUITE, POSE_RULES))
def poses(context: dg.AssetExecutionContext, stages: StageRunner) -> StageEvents:
    """Skeletons."""
    yield from stages.make(context)


@_asset((CAPTION_SUITE, CAPTION_RULES))
def captions(context: dg.AssetExecutionContext, stages: StageRunner) -> StageEvents:
    """Captions."""
    yield from stages.make(context)


@_asset((IMAGE_SUITE, IMAGE_RULES))
def images(context: dg.AssetExecutionContext, stages: StageRunner) -> StageEvents:
    """Images."""
    yield from stages.make(context)


@_asset((ANNOTATIONS, ANNOTATION_STATISTICS))
def annotations(context: dg.AssetExecutionContext, stages: StageRunner) -> StageEvents:
    """Labels."""
    yield from stages.make(context)


HERE = "tests.scale_stages"


def _double(name: str) -> Stage:
    return Stage(name, f"{HERE}:DoubleConfig", f"{HERE}:make_{name}", HERE, sharded=True)


STAGES = {
    "head_model": Stage(
        "head_model",
        "ml.stages.head_model:HeadModelConfig",
        f"{HERE}:make_head_model",
        "assets.head_model",
    ),
    **{name: _double(name) for name in ("poses", "captions", "images", "annotations")},
    "filtered_dataset": Stage(
        "filtered_dataset",
        "ml.stages.filtered_dataset:FilteredDatasetConfig",
        f"{HERE}:reduce",
        "assets.filtered_dataset",
        step=Step("judged", f"{HERE}:judge_shard", ("images", "annotations")),
    ),
}


def scale_pipeline(root: Path) -> Pipeline:
    """Return the pipeline of a rehearsal's project."""
    program = ("-m", "tests.scale_rehearsal", "cli")
    return Pipeline(root, STAGES, f"{HERE}:STAGES", program=program)
