"""Stage `crops`: single rendered heads with exact parameters, the regressor's training data."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ml.flame.head_model import HeadModel
from ml.generation.config import CropsConfig
from ml.generation.renderer.single_head import SingleHead, render_single_head
from ml.imaging.boxes import xyxy_to_xywh
from ml.imaging.grids import contact_sheet
from ml.imaging.io import encode_jpeg
from ml.records import reasons
from ml.records.atomic import write_bytes
from ml.records.exclusions import Exclusions
from ml.records.ids import sample_rng, sample_seed, shard_name, stable_fraction
from ml.records.progress import progress
from ml.records.report import StageReport
from ml.records.shards import shard_writer
from ml.records.tables import CROPS, empty_table, write_table
from ml.records.workspace import Workspace

STAGE = "crops"
SHARD_PREFIX = "crops"


def crop_shards(config: CropsConfig) -> list[str]:
    """Return names of the crop shards.

    Args:
        config: number of crops, and of crops in a shard.

    Returns:
        `crops-00000` and so on.
    """
    num_shards = -(-config.num_crops // config.crops_per_shard)
    return [shard_name(index, SHARD_PREFIX) for index in range(num_shards)]


def run_shard(ws: Workspace, config: CropsConfig, shard: str) -> StageReport:
    """Render the heads of one crop shard.

    Args:
        ws: the workspace.
        config: number and size of the heads.
        shard: a name of `crop_shards(config)`.

    Returns:
        Counts of heads, and a preview.

    Raises:
        ValueError: there is no such shard.
        FileNotFoundError: the head model has not been made.
        TooManyExcluded: more than `config.max_drop_rate` allows.
    """
    ids = crop_ids(config, shard)
    head_model = HeadModel.load(ws.stage_dir("head_model") / "head_model.npz")
    exclusions = Exclusions(STAGE)
    rows: list[dict[str, object]] = []
    previews: list[NDArray[np.uint8]] = []
    with shard_writer(ws.stage_dir(STAGE) / f"{shard}.tar") as writer:
        for crop_id in progress(ids, f"{STAGE} {shard}"):
            head = _render(ws, config, crop_id, head_model, exclusions)
            if head is None:
                continue
            row = _row(ws, config, shard, crop_id, head)
            image = encode_jpeg(head.image_rgb, config.jpeg_quality)
            writer.add(crop_id, {"jpg": image, "json": {"seed": row["seed"]}})
            rows.append(row)
            if len(previews) < config.preview_crops:
                previews.append(head.image_rgb)
    exclusions.check_drop_rate(len(ids), config.max_drop_rate, "heads", shard)
    table = pd.DataFrame(rows) if rows else empty_table(CROPS)
    write_table(ws.table_path(STAGE, shard), table, CROPS)
    exclusions.write(ws, shard)
    image_path = ws.stage_dir(STAGE) / "images" / f"{shard}.jpg"
    write_bytes(image_path, encode_jpeg(contact_sheet(previews, columns=6, cell_px=128)))
    return StageReport(
        num_in=len(ids),
        num_out=len(table),
        num_excluded=len(exclusions),
        metadata={
            "num_val": int((table["split"] == "val").sum()),
            "mean_visible": round(float(table["visible"].mean()), 3) if len(table) else 0.0,
        },
        images={shard: image_path},
    )


def _render(
    ws: Workspace,
    config: CropsConfig,
    crop_id: str,
    head_model: HeadModel,
    exclusions: Exclusions,
) -> SingleHead | None:
    """Draw a crop's image; None when it is excluded."""
    rng = sample_rng(ws.seed, STAGE, crop_id)
    try:
        head = render_single_head(head_model, config.renderer, rng, config.image_px)
    except ValueError as error:
        exclusions.add(crop_id, reasons.NOT_DRAWN, str(error))
        return None
    if head.visible < config.min_visible:
        detail = f"visible fraction {head.visible:.3f}, expected at least {config.min_visible}"
        exclusions.add(crop_id, reasons.HIDDEN, detail)
        return None
    return head


def crop_ids(config: CropsConfig, shard: str) -> list[str]:
    """Return ids of a shard's heads, in order.

    Args:
        config: number of crops, and of crops in a shard.
        shard: a name of `crop_shards(config)`.

    Raises:
        ValueError: there is no such shard.
    """
    shards = crop_shards(config)
    if shard not in shards:
        raise ValueError(f"{STAGE}: unknown shard {shard!r}, expected one of {shards}")
    first = shards.index(shard) * config.crops_per_shard
    last = min(first + config.crops_per_shard, config.num_crops)
    return [f"crop-{index:06d}" for index in range(first, last)]


def _row(
    ws: Workspace, config: CropsConfig, shard: str, crop_id: str, head: SingleHead
) -> dict[str, object]:
    box = head.box_xyxy
    return {
        "crop_id": crop_id,
        "split": "val" if stable_fraction(crop_id) < config.val_fraction else "train",
        "shard": shard,
        "width": config.image_px,
        "height": config.image_px,
        "bbox_xywh": xyxy_to_xywh(box),
        "flame": head.flame,
        "visible": head.visible,
        "seed": sample_seed(ws.seed, STAGE, crop_id),
    }
