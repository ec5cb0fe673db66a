"""Images for labelling tools with boxes drawn in: a first round, then those of worst agreement.

One folder serves Label Studio (`label_studio.json`), CVAT (`cvat/`, COCO) and the eye
(`index.html`); `ml.labels.tool_import` reads what comes back.
"""

from __future__ import annotations

import html
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ml.imaging.reading import read_image
from ml.labels.coco import HEAD_CATEGORY_NAME, CocoBox, CocoDataset, CocoImage, write_coco
from ml.labels.first_round import PreBoxes, choose_first
from ml.labels.tool_import import LABEL_SPLITS
from ml.records.atomic import write_bytes, write_json, write_text
from ml.records.exclusions import Exclusions
from ml.records.ids import sample_seed
from ml.records.progress import progress
from ml.records.report import StageReport
from ml.records.shards import ShardReader
from ml.records.tables import HEADS, IMAGES, VERDICTS, read_stage, read_table
from ml.records.workspace import Workspace

STUDIO_FILE: Final = "label_studio.json"
STUDIO_CONFIG: Final = "label_studio.xml"
CVAT_FILE: Final = "cvat/annotations/instances_default.json"
GALLERY_FILE: Final = "index.html"
_STUDIO_XML: Final = f"""<View>
  <Image name="image" value="$image"/>
  <RectangleLabels name="label" toName="image">
    <Label value="{HEAD_CATEGORY_NAME}"/>
  </RectangleLabels>
</View>
"""
_STYLE: Final = (
    "body{font:15px system-ui;margin:24px;background:#fafafa;color:#222}"
    "main{display:grid;grid-template-columns:repeat(auto-fill,minmax(300px,1fr));gap:18px}"
    "figure{margin:0;background:#fff;padding:10px;border:1px solid #ddd;border-radius:6px}"
    "svg{width:100%;height:auto;display:block}rect{fill:none;stroke:#e4572e}"
    "figcaption{margin-top:6px;font-size:13px}"
)


def agreement_order(verdicts: pd.DataFrame) -> pd.DataFrame:
    """Return judged images, those first on which the detector agrees least with itself.

    Agreement is the mean best IoU of the heads with those of the mirrored image (an image without
    heads has none to compare, and comes after those that disagree), less one for every head by
    which the counts differ.

    Args:
        verdicts: columns of `VERDICTS`.

    Returns:
        The rows in that order, with a column `agreement`.
    """
    differing = (verdicts["num_heads"] - verdicts["num_heads_flipped"]).abs()
    agreement = verdicts["stability"].astype(float).fillna(0.5) - differing
    ranked = verdicts.assign(agreement=agreement)
    return ranked.sort_values(["agreement", "sample_id"], kind="stable").reset_index(drop=True)


def choose(
    ws: Workspace, verdicts: pd.DataFrame, count: int, fraction_worst: float
) -> pd.DataFrame:
    """Return images to label: partly those of worst agreement, the rest drawn by chance.

    Worst cases alone would bias a detector towards hard images.

    Args:
        ws: the workspace, for its seed.
        verdicts: columns of `VERDICTS`.
        count: how many.
        fraction_worst: which part of them is of worst agreement.

    Returns:
        Rows of `agreement_order`, worst first, of the splits that may be labelled.
    """
    ranked = agreement_order(verdicts[verdicts["split"].isin(LABEL_SPLITS)])
    worst = ranked.head(round(count * fraction_worst))
    others = ranked.iloc[len(worst) :]
    order = sorted(
        range(len(others)),
        key=lambda row: sample_seed(ws.seed, "labelling", others["sample_id"].iloc[row]),
    )
    drawn = others.iloc[order[: count - len(worst)]]
    return agreement_order(pd.concat([worst, drawn], ignore_index=True))


def export_for_labelling(
    ws: Workspace, target: Path, count: int = 200, fraction_worst: float = 0.5
) -> StageReport:
    """Write images with the detector's boxes, pre-annotations for both tools, and the gallery.

    Args:
        ws: the workspace; reads `images`, `annotations`, `filtered_dataset`.
        target: folder to make; what is in it is replaced.
        count: how many images.
        fraction_worst: which part of them is of worst agreement.

    Returns:
        Counts of images.

    Raises:
        FileNotFoundError: a stage has not run.
        ValueError: the count or the fraction makes no sense, or nothing can be labelled.
    """
    _check_request(count, fraction_worst, "a fraction")
    verdicts = read_table(ws.stage_dir("filtered_dataset") / "verdicts.parquet", VERDICTS)
    chosen = choose(ws, verdicts, count, fraction_worst)
    images = read_stage(ws, "images", IMAGES).set_index("sample_id")
    sizes = images.loc[chosen["sample_id"], ["width", "height"]].reset_index(drop=True)
    heads = read_stage(ws, "annotations", HEADS)
    boxes = {str(key): rows for key, rows in heads.groupby("sample_id", sort=False)}
    chosen = pd.concat([chosen, sizes], axis=1)
    return _export(
        ws, target, chosen, lambda row, image: _boxes(boxes, row), "worst agreement first"
    )


def export_first_round(
    ws: Workspace, target: Path, pre_boxes: PreBoxes, count: int, val_fraction: float
) -> StageReport:
    """Write images that nothing has judged yet, spread over numbers of people and sizes.

    Args:
        ws: the workspace; reads `images`, and `poses` where they give the boxes.
        target: folder to make; what is in it is replaced.
        pre_boxes: where the boxes to be corrected come from.
        count: how many images.
        val_fraction: fraction of them from the val split.

    Returns:
        Counts of images.

    Raises:
        FileNotFoundError: a stage has not run.
        ValueError: the count or the fraction makes no sense, or nothing can be labelled.
    """
    _check_request(count, val_fraction, "a fraction of val")
    images = read_stage(ws, "images", IMAGES)
    chosen = choose_first(ws, images, count, val_fraction, pre_boxes.by_pose)

    def boxes(row: dict[Any, Any], image_rgb: NDArray[np.uint8]) -> dict[str, Any]:
        found = pre_boxes.of(str(row["pose_id"]), image_rgb)
        return {"boxes": found, "scores": [1.0] * len(found), "teacher": pre_boxes.source}

    return _export(ws, target, chosen, boxes, f"first round, boxes from {pre_boxes.source}")


def _check_request(count: int, fraction: float, name: str) -> None:
    if count < 1 or not 0 <= fraction <= 1:
        raise ValueError(
            f"labelling: expected a count of at least 1 and {name} from 0 to 1, got {count} and "
            f"{fraction}"
        )


def _export(
    ws: Workspace,
    target: Path,
    chosen: pd.DataFrame,
    boxes: Callable[[dict[Any, Any], NDArray[np.uint8]], dict[str, Any]],
    order: str,
) -> StageReport:
    """Write chosen images with their boxes, for both tools and for the eye."""
    exclusions = Exclusions("labelling")
    if target.exists():
        shutil.rmtree(target)
    found = _write_images(ws, target, chosen, boxes, exclusions)
    if not found:
        raise ValueError(f"labelling: none of {len(chosen)} chosen images can be read")
    rows = [
        {**row, **found[row["sample_id"]]}
        for row in chosen.to_dict("records")
        if row["sample_id"] in found
    ]
    write_json(target / STUDIO_FILE, [_studio_task(n + 1, row) for n, row in enumerate(rows)])
    write_text(target / STUDIO_CONFIG, _STUDIO_XML)
    write_coco(target / CVAT_FILE, _coco(rows))
    write_text(target / GALLERY_FILE, gallery(rows, order))
    return StageReport(
        num_in=len(chosen),
        num_out=len(rows),
        num_excluded=len(exclusions),
        metadata={"num_boxes": sum(len(row["boxes"]) for row in rows), "folder": str(target)},
        tables={"exclusions": exclusions.to_frame()},
    )


def gallery(rows: Sequence[dict[str, Any]], order: str = "worst agreement first") -> str:
    """Return a page of images with their boxes, in the order given; it needs nothing but a browser.

    Args:
        rows: sample_id, width, height, boxes (xywh px), reason, detail; agreement where a
            detector has judged the image.
        order: what the title says about the order.

    Returns:
        HTML whose images are in `images/` next to it.
    """
    figures = []
    for row in rows:
        lines = max(1.0, row["width"] / 250)
        drawn = "".join(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}" '
            f'stroke-width="{lines:.1f}"/>'
            for x, y, w, h in row["boxes"]
        )
        name, place = html.escape(str(row["sample_id"])), quote(str(row["sample_id"]))
        text = html.escape(f"{row['reason']}: {row['detail']}")
        agreement = f" agreement {row['agreement']:.2f}" if "agreement" in row else ""
        figures.append(
            f'<figure><svg viewBox="0 0 {row["width"]} {row["height"]}">'
            f'<image href="images/{place}.jpg" width="{row["width"]}" height="{row["height"]}"/>'
            f"{drawn}</svg><figcaption><b>{name}</b>{agreement}<br>{text}"
            "</figcaption></figure>"
        )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Images to review</title>'
        f"<style>{_STYLE}</style><h1>{len(rows)} images to review, {html.escape(order)}</h1>"
        f"<main>{''.join(figures)}</main></html>\n"
    )


def _write_images(
    ws: Workspace,
    target: Path,
    chosen: pd.DataFrame,
    boxes: Callable[[dict[Any, Any], NDArray[np.uint8]], dict[str, Any]],
    exclusions: Exclusions,
) -> dict[str, dict[str, Any]]:
    """Copy the images that can be read; returns the boxes of each, with scores and teacher."""
    kept = {}
    for shard, rows in chosen.groupby("shard", sort=True):
        with ShardReader(ws.stage_dir("images") / f"{shard}.tar") as reader:
            for row in progress(rows.to_dict("records"), f"labelling {shard}"):
                sample_id = row["sample_id"]
                image = read_image(reader, sample_id, exclusions)
                if image is not None:
                    data = reader.read(sample_id)
                    write_bytes(target / "images" / f"{sample_id}.jpg", data)
                    kept[sample_id] = boxes(row, image)
    return kept


def _boxes(heads: dict[str, pd.DataFrame], row: dict[Any, Any]) -> dict[str, Any]:
    """Return a sample's detected boxes, cut at the image's borders."""
    rows = heads.get(row["sample_id"])
    if rows is None:
        return {"boxes": [], "scores": [], "teacher": ""}
    boxes = [[float(v) for v in np.asarray(box)] for box in rows["bbox_xywh"]]
    scores = [float(v) for v in rows["score"]]
    return {"boxes": boxes, "scores": scores, "teacher": str(rows["teacher"].iloc[0])}


def _studio_task(number: int, row: dict[str, Any]) -> dict[str, Any]:
    """Return a task of Label Studio; its regions are in percents of the image."""
    width, height = float(row["width"]), float(row["height"])
    regions = [
        {
            "id": f"{row['sample_id']}-{head}",
            "type": "rectanglelabels",
            "from_name": "label",
            "to_name": "image",
            "original_width": int(width),
            "original_height": int(height),
            "image_rotation": 0,
            "score": score,
            "value": {
                "x": 100 * x / width,
                "y": 100 * y / height,
                "width": 100 * w / width,
                "height": 100 * h / height,
                "rotation": 0,
                "rectanglelabels": [HEAD_CATEGORY_NAME],
            },
        }
        for head, ((x, y, w, h), score) in enumerate(zip(row["boxes"], row["scores"], strict=True))
    ]
    name = row["sample_id"]
    return {
        "id": number,
        "data": {
            "image": f"/data/local-files/?d=images/{name}.jpg",
            "sample_id": name,
            "split": row["split"],
        },
        "predictions": [{"model_version": row["teacher"][:100], "result": regions}],
    }


def _coco(rows: Sequence[dict[str, Any]]) -> CocoDataset:
    images: list[CocoImage] = []
    boxes: list[CocoBox] = []
    for number, row in enumerate(rows, start=1):
        name, width, height = str(row["sample_id"]), int(row["width"]), int(row["height"])
        images.append(CocoImage(number, f"{name}.jpg", width, height, str(row["shard"]), name))
        for x, y, w, h in row["boxes"]:
            left, top = max(x, 0.0), max(y, 0.0)
            right, bottom = min(x + w, width), min(y + h, height)
            if right > left and bottom > top:
                box = (left, top, right - left, bottom - top)
                boxes.append(CocoBox(len(boxes) + 1, number, box))
    return CocoDataset(tuple(images), tuple(boxes), "heads to review")
