"""Stage `images`: the images of one shard, their table, and the truth in a table of its own.

A generator without ground truth leaves the truth table empty.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pandas as pd

from ml.captions.scene import NO_SCENE, Scene
from ml.flame.head_model import HeadModel
from ml.generation.backends import GENERATORS
from ml.generation.config import ImagesConfig
from ml.generation.generator import (
    GeneratedSample,
    GenerationRequest,
    ImageGenerator,
    NotGenerated,
)
from ml.imaging.grids import contact_sheet
from ml.imaging.io import encode_jpeg
from ml.poses.skeleton import PoseSample
from ml.records import reasons
from ml.records.atomic import write_bytes
from ml.records.exclusions import Exclusions
from ml.records.ids import sample_rng, sample_seed
from ml.records.progress import progress
from ml.records.report import Scalar, StageReport
from ml.records.shards import ShardWriter, shard_writer
from ml.records.tables import CAPTIONS, IMAGES, POSES, TRUTH, empty_table, read_table, write_table
from ml.records.workspace import Workspace

STAGE: Final = "images"
TRUTH_STAGE: Final = "truth"
"""Folder of the ground truth, which only labels, the regressor's crops and evaluation may read."""
_CONDITION_PREVIEWS: Final = 8


@dataclass
class _Work:
    """Results of one shard so far."""

    exclusions: Exclusions
    images: list[dict[str, object]] = field(default_factory=list)
    truths: list[dict[str, object]] = field(default_factory=list)
    previews: list[np.ndarray] = field(default_factory=list)
    conditions: list[np.ndarray] = field(default_factory=list)
    num_prompts_cut: int = 0


def run_shard(ws: Workspace, config: ImagesConfig, shard: str) -> StageReport:
    """Make the images of one shard.

    Reads `data/poses`, `data/captions` and `data/head_model`; writes `data/images/<shard>.tar`,
    its IMAGES table, exclusions and preview, and `data/truth/<shard>.parquet`.

    Args:
        ws: the workspace.
        config: the stage's configuration.
        shard: name of the shard.

    Returns:
        Counts, metadata of the heads, a table of heads by Monk tone, the contact sheets.

    Raises:
        FileNotFoundError: poses, captions or the head model have not been made.
        TooManyExcluded: more than `config.max_drop_rate` allows.
    """
    poses = read_table(ws.table_path("poses", shard), POSES)
    captions = read_table(ws.table_path("captions", shard), CAPTIONS)
    head_model = HeadModel.load(ws.stage_dir("head_model") / "head_model.npz")
    generator = GENERATORS[config.backend](head_model, config, ws.root)
    work = _Work(Exclusions(STAGE))
    requests = make_requests(ws, poses, captions, work.exclusions)
    batches = generator.batches(requests)
    with shard_writer(ws.stage_dir(STAGE) / f"{shard}.tar") as writer:
        for batch in progress(batches, f"{STAGE} {shard}"):
            made = generator.generate(batch)
            for request, sample in zip(batch, made, strict=True):
                if isinstance(sample, NotGenerated):
                    work.exclusions.add(request.sample_id, sample.reason, sample.detail)
                    continue
                quality = draw_quality(request, config)
                _keep(work, writer, shard, request, sample, quality, generator, head_model)
                work.num_prompts_cut += bool(sample.notes.get("prompt_is_cut"))
                if len(work.previews) < config.preview_images:
                    work.previews.append(sample.image_rgb)
                if len(work.conditions) < _CONDITION_PREVIEWS:
                    work.conditions += [sample.image_rgb, sample.draw_condition()]
    work.exclusions.check_drop_rate(len(captions), config.max_drop_rate, "samples", shard)
    return _finish(ws, shard, work, len(captions))


def make_requests(
    ws: Workspace, poses: pd.DataFrame, captions: pd.DataFrame, exclusions: Exclusions
) -> list[GenerationRequest]:
    """Return requests from the captions; those with a broken pose or scene are excluded.

    Args:
        ws: the workspace, for its seed.
        poses: POSES of a shard.
        captions: CAPTIONS of the shard.
        exclusions: receives what cannot be drawn.

    Returns:
        One request a caption, in order.
    """
    rows_of_pose = {str(key): rows for key, rows in poses.groupby("pose_id", sort=False)}
    requests = []
    for caption in captions.to_dict("records"):
        sample_id = str(caption["sample_id"])
        try:
            pose = _pose(rows_of_pose, str(caption["pose_id"]))
            scene = _scene(str(caption["scene"]))
        except ValueError as error:
            exclusions.add(sample_id, reasons.NOT_DRAWN, str(error))
            continue
        requests.append(
            GenerationRequest(
                sample_id=sample_id,
                pose=pose,
                scene=scene,
                prompt=str(caption["prompt"]),
                negative_prompt=str(caption["negative_prompt"]),
                seed=sample_seed(ws.seed, STAGE, sample_id),
                rng=sample_rng(ws.seed, STAGE, sample_id),
            )
        )
    return requests


def draw_quality(request: GenerationRequest, config: ImagesConfig) -> int:
    """Draw the JPEG quality of an image that has just been generated."""
    return int(request.rng.integers(config.jpeg_quality_min, config.jpeg_quality_max + 1))


def _scene(text: str) -> Scene | None:
    return None if text == NO_SCENE else Scene.from_json(text)


def _pose(rows_of_pose: dict[str, pd.DataFrame], pose_id: str) -> PoseSample:
    if pose_id not in rows_of_pose:
        raise ValueError(
            f"pose {pose_id} of the caption is not in the shard's poses; remake captions"
        )
    return PoseSample.from_frame(rows_of_pose[pose_id])


def _keep(
    work: _Work,
    writer: ShardWriter,
    shard: str,
    request: GenerationRequest,
    sample: GeneratedSample,
    quality: int,
    generator: ImageGenerator,
    head_model: HeadModel,
) -> None:
    sample_id, pose = request.sample_id, request.pose
    encoded = encode_jpeg(sample.image_rgb, quality)
    record: dict[str, Any] = {
        "sample_id": sample_id,
        "pose_id": pose.pose_id,
        "split": pose.split,
        "prompt": request.prompt,
        "seed": request.seed,
        "generator": generator.name,
        "jpeg_quality": quality,
        "width": pose.width,
        "height": pose.height,
    }
    if settings := generator.settings():
        record |= {
            "negative_prompt": request.negative_prompt,
            "settings": {**settings, **sample.notes},
        }
    members = {"jpg": encoded, "json": record, **sample.members}
    span = writer.add(sample_id, members)["jpg"]
    work.images.append(
        {
            "sample_id": sample_id,
            "pose_id": pose.pose_id,
            "split": pose.split,
            "shard": shard,
            "width": pose.width,
            "height": pose.height,
            "offset": span.offset,
            "size": span.size,
            "sha256": hashlib.sha256(encoded).hexdigest(),
            "seed": request.seed,
            "generator": generator.name,
            "num_people": len(pose.people),
            "mean_luma": float(sample.image_rgb.mean(axis=(0, 1)) @ (0.299, 0.587, 0.114)),
        }
    )
    for head_id, head in enumerate(sample.heads):
        work.truths.append(
            {
                "sample_id": sample_id,
                "head_id": head_id,
                "person_id": head.person_id,
                "split": pose.split,
                "bbox_xywh": head.bbox_xywh,
                "visible": head.visible,
                "inside": head.inside,
                "flame": head.flame,
                "skin_tone": head.skin_tone,
                "hair_style": head.hair_style,
                "glasses": head.glasses,
                "hat": head.hat,
                "head_model": head_model.sha256,
            }
        )


def _finish(ws: Workspace, shard: str, work: _Work, num_in: int) -> StageReport:
    images = pd.DataFrame(work.images) if work.images else empty_table(IMAGES)
    truth = pd.DataFrame(work.truths) if work.truths else empty_table(TRUTH)
    write_table(ws.table_path(STAGE, shard), images, IMAGES)
    write_table(ws.table_path(TRUTH_STAGE, shard), truth, TRUTH)
    work.exclusions.write(ws, shard)
    folder = ws.stage_dir(STAGE) / "images"
    sheets = {"images": folder / f"{shard}.jpg", "pncc": folder / f"{shard}-pncc.jpg"}
    write_bytes(sheets["images"], encode_jpeg(contact_sheet(work.previews, 8, 192), 88))
    write_bytes(sheets["pncc"], encode_jpeg(contact_sheet(work.conditions, 8, 192), 88))
    return StageReport(
        num_in=num_in,
        num_out=len(images),
        num_excluded=len(work.exclusions),
        metadata=_metadata(images, truth) | _prompt_metadata(work),
        tables={"heads_by_skin_tone": _tone_table(truth)},
        images=sheets,
    )


def _metadata(images: pd.DataFrame, truth: pd.DataFrame) -> dict[str, Scalar]:
    if not len(truth):
        return {"num_heads": 0}
    sides = np.array([max(box[2], box[3]) for box in truth["bbox_xywh"]])
    return {
        "num_heads": len(truth),
        "heads_per_image": round(len(truth) / len(images), 3),
        "median_head_px": round(float(np.median(sides)), 1),
        "fraction_partly_hidden": round(float((truth["visible"] < 0.8).mean()), 3),
        "fraction_cut_by_frame": round(float((truth["inside"] < 0.98).mean()), 3),
        "mean_luma": round(float(images["mean_luma"].mean()), 1),
        "megabytes": round(float(images["size"].sum()) / 1e6, 2),
    }


def _prompt_metadata(work: _Work) -> dict[str, Scalar]:
    """Return the number of truncated prompts; empty if there are none."""
    return {"prompts_cut": work.num_prompts_cut} if work.num_prompts_cut else {}


def _tone_table(truth: pd.DataFrame) -> pd.DataFrame:
    counts = truth["skin_tone"].value_counts().reindex(range(1, 11), fill_value=0)
    return pd.DataFrame({"monk_tone": counts.index, "heads": counts.to_numpy()})
