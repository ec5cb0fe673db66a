"""Stage `released_dataset`: the published release as a dataset that training and benchmark read.

Its folders replace those of the stages that generate a dataset; `released_view` says where.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Final

import pandas as pd
from pydantic import model_validator

from ml.dataset.card import CardMetadata, write_card
from ml.dataset.statistics import StatisticsCounter, plot_statistics, write_statistics
from ml.flame.geometry import HeadGeometry
from ml.flame.head_model import HeadModel
from ml.imaging.boxes import xywh_to_xyxy
from ml.imaging.grids import contact_sheet
from ml.imaging.io import decode_image, encode_jpeg
from ml.inference.drawing import draw_heads
from ml.records import reasons
from ml.records.atomic import remove, write_bytes, write_json, write_text
from ml.records.config import Count, Fraction, Index, StageConfig
from ml.records.exclusions import Exclusions
from ml.records.heads import Heads
from ml.records.progress import progress
from ml.records.report import StageReport
from ml.records.shards import ShardReader
from ml.records.tables import (
    CAPTIONS,
    HEADS,
    IMAGES,
    TRUTH,
    empty_table,
    read_stage,
    stack,
    write_table,
)
from ml.records.workspace import Workspace
from ml.release.archives import SPLIT_NAME, Release
from ml.release.manifest import what_lacks
from ml.release.official_import import import_release, read_verdicts
from ml.release.official_reader import SplitRule

STAGE: Final = "released_dataset"
LACKS_NAME: Final = "lacks.csv"
_FOLDERS: Final = {
    "images": f"{STAGE}/images",
    "annotations": f"{STAGE}/annotations",
    "truth": f"{STAGE}/truth",
    "filtered_dataset": STAGE,
}


class ReleasedDatasetConfig(StageConfig):
    """Location of a copy of the official release, and the use of its parts."""

    enabled: bool = False
    """Whether to import the release; otherwise the stage only records that it is disabled."""
    sources: tuple[str, ...] = ("sources/VGGHeads",)
    """Unpacked releases, tars, and folders of tars, relative to the project; several if a mirror
    has split the release. Tars are read in place; compressed ones are decompressed first."""
    source_asset: str | None = None
    """Name of the release in the asset register, vggheads-release, which determines the permitted
    uses of models trained on it."""
    val_splits: tuple[Index, ...] = (0,)
    """Numbers of the validation splits. The official training validates on the first two."""
    test_splits: tuple[Index, ...] = (1,)
    """Numbers of the splits for the benchmark."""
    val_fraction: Fraction = 0.05
    """Fraction used for validation of those manually labelled images that no list assigns, and of
    the other splits if the validation splits are missing; assigned by id."""
    test_fraction: Fraction = 0.05
    """Like `val_fraction`, for the benchmark."""
    any_head_model: bool = False
    """Accept a head model other than FLAME, in which the release's parameters describe different
    faces."""
    check_sums: bool = True
    """Verify all files listed in an MD5SUMS next to the sources."""
    max_drop_rate: Fraction = 0.1
    """Maximum unusable fraction, excluding images removed by the release's own lists; above it, the
    stage fails."""
    preview_images: Count = 24
    """Images in the preview."""

    @property
    def switched_off(self) -> bool:
        """Whether nothing is imported."""
        return not self.enabled

    @model_validator(mode="after")
    def _asset_named(self) -> ReleasedDatasetConfig:
        if self.enabled and not self.source_asset:
            raise ValueError(
                "enabled needs source_asset: vggheads-release, or the name in the asset register "
                "of what was exported in its layout"
            )
        if self.enabled and not self.sources:
            raise ValueError("enabled needs sources: folders or tars of the release")
        if set(self.val_splits) & set(self.test_splits):
            raise ValueError("val_splits and test_splits must have no split in common")
        return self


def released_view(ws: Workspace) -> Workspace:
    """Return the workspace in which the imported release takes the place of a generated dataset.

    Args:
        ws: the project's workspace.
    """
    shards = list(ws.stage_dir(_FOLDERS["images"]).glob("shard-*.parquet"))
    return replace(ws, num_shards=len(shards), folders=_FOLDERS)


def run(ws: Workspace, config: ReleasedDatasetConfig) -> StageReport:
    """Import the release, and report missing parts of the copy.

    Parts that a killed run finished are not read again.

    Args:
        ws: the workspace; the head model must exist.
        config: where the release is.

    Returns:
        Counts of images, missing parts, statistics, a preview.

    Raises:
        NotARelease: there is no release in the sources, or no usable image in it.
        TooManyExcluded: more than `config.max_drop_rate` allows.
        ValueError: the head model is not the one that the parameters belong to.
    """
    out = ws.stage_dir(STAGE)
    if config.switched_off:
        return _switched_off(ws)
    head_model = HeadModel.load(ws.stage_dir("head_model") / "head_model.npz")
    _check_head_model(head_model, config)
    sources = [ws.root / source for source in config.sources]
    work = ws.work_dir(STAGE)
    exclusions = Exclusions(STAGE)
    release = Release(sources, work, exclusions)
    lacks = what_lacks(release, sources, config.check_sums)
    write_text(out / LACKS_NAME, lacks.to_csv(index=False, lineterminator="\n"))
    view = replace(ws, folders=_FOLDERS)
    rule, notes = _split_rule(release, config)
    found = import_release(release, view, work, rule, head_model.sha256, exclusions)
    num_out = found.counts.total()
    # Images that the release's own lists remove, about a fifth, do not count as lost.
    lost = Exclusions(STAGE)
    lost.extend(r for r in exclusions.rows() if r["reason"] != reasons.EXCLUSION_LIST)
    lost.check_drop_rate(
        num_out + lost.num_samples,
        config.max_drop_rate,
        "images",
        advice=f"{out / LACKS_NAME} lists the missing parts",
    )
    view = released_view(ws)
    for shard in view.shards:
        write_table(view.table_path("truth", shard), empty_table(TRUTH), TRUTH)
    exclusions.write(ws, "all")
    statistics, overview = _describe(view, config, exclusions)
    metrics = {f"num_{split}": found.counts[split] for split in ("train", "val", "test")}
    write_json(
        out / "metrics.json",
        {
            "num_images": num_out,
            **metrics,
            "num_excluded": len(exclusions),
            "num_lacks": len(lacks),
        },
    )
    preview = _preview(view, config, head_model)
    remove(work)
    return StageReport(
        num_in=found.num_in,
        num_out=num_out,
        num_excluded=len(exclusions),
        metadata={
            **metrics,
            "lacks": "; ".join(lacks["where"] + ": " + lacks["detail"]) or "nothing",
            "splits": "; ".join(notes) or "as configured",
            "excluded": ", ".join(f"{r} {n}" for r, n in found.excluded.most_common()) or "none",
        },
        tables={
            "lacks": lacks,
            "parts": pd.DataFrame(found.shards.items(), columns=["shard", "part"]),
            "statistics": statistics,
        },
        images={"preview": preview, "statistics": overview},
    )


def _switched_off(ws: Workspace) -> StageReport:
    """Leave empty metrics and a note: DVC expects the folder."""
    folder = ws.stage_dir(STAGE)
    shutil.rmtree(folder, ignore_errors=True)
    write_json(folder / "metrics.json", {})
    Exclusions(STAGE).write(ws, "all")
    note = f"no; set {STAGE}.enabled in params.yaml to true, or take the profile official"
    return StageReport(num_in=0, num_out=0, num_excluded=0, metadata={"imported": note})


def _check_head_model(head_model: HeadModel, config: ReleasedDatasetConfig) -> None:
    if not config.any_head_model and not head_model.source.startswith("FLAME"):
        raise ValueError(
            f"{STAGE}: the release's parameters are coefficients of FLAME 2020, and the head model "
            f"is '{head_model.source}', in which they mean other faces; set head_model.source to "
            f"flame, or {STAGE}.any_head_model to true"
        )


def _split_rule(release: Release, config: ReleasedDatasetConfig) -> tuple[SplitRule, list[str]]:
    """Return the use of each image, and the decisions that differ from the configuration."""
    there = {int(match[1]) for part in release.parts if (match := SPLIT_NAME.fullmatch(part))}
    has_test = any(part.startswith("test/") for part in release.parts)
    notes, fractions = [], {}
    for name, numbers, fraction in (
        ("val", config.val_splits, config.val_fraction),
        ("test", config.test_splits, config.test_fraction),
    ):
        if not there & set(numbers) and not (name == "test" and has_test):
            fractions[name] = fraction
            wanted = ", ".join(f"split_{number:05d}" for number in numbers) or "no split"
            notes.append(f"{name} is {fraction:g} of the images by their ids, for {wanted} is here")
    by_id = {"val": config.val_fraction, "test": config.test_fraction}
    rule = SplitRule(config.val_splits, config.test_splits, by_id, tuple(fractions))
    return rule, notes


def _describe(
    view: Workspace, config: ReleasedDatasetConfig, exclusions: Exclusions
) -> tuple[pd.DataFrame, Path]:
    """Write statistics, plots and card; a shard is in memory at a time."""
    out = view.stage_dir("filtered_dataset")
    counter, sizes = StatisticsCounter(), set[str]()
    for shard in progress(view.shards, "statistics"):
        images = read_stage(view, "images", IMAGES, [shard])
        counter.add(
            images,
            read_stage(view, "annotations", HEADS, [shard]),
            read_verdicts(view, shard),
            empty_table(CAPTIONS),
        )
        sizes.update(images["width"].astype(str) + "x" + images["height"].astype(str))
    statistics = counter.table(exclusions.to_frame())
    write_statistics(statistics, out)
    plots = plot_statistics(statistics, out / "plots")
    about = CardMetadata(
        name="VGGHeads, official release",
        profile="official",
        run_seed=view.seed,
        image_size=", ".join(sorted(sizes)[:3]),
        parents=(str(config.source_asset),),
        rendered=False,
    )
    write_card(out / "CARD.md", statistics, plots, about)
    return statistics, plots["overview"]


def _preview(view: Workspace, config: ReleasedDatasetConfig, head_model: HeadModel) -> Path:
    """Return images with their boxes and meshes: whether parameters fit is seen at a glance."""
    shard, geometry = view.shards[0], HeadGeometry(head_model)
    images = read_stage(view, "images", IMAGES, [shard]).head(config.preview_images)
    heads = read_stage(view, "annotations", HEADS, [shard])
    heads = heads[heads["flame_status"] == "ok"]
    cells = []
    with ShardReader(view.stage_dir("images") / f"{shard}.tar") as reader:
        for sample_id in images["sample_id"]:
            image = decode_image(reader.read(sample_id))
            rows = heads[heads["sample_id"] == sample_id]
            if len(rows):
                boxes = xywh_to_xyxy(stack(rows["bbox_xywh"]))
                found = Heads(boxes, rows["score"].to_numpy(), stack(rows["flame"]))
                image = draw_heads(image, found, geometry, ("mesh", "box"))
            cells.append(image)
    path = view.stage_dir("filtered_dataset") / "previews" / "boxes.jpg"
    write_bytes(path, encode_jpeg(contact_sheet(cells, 6, 220)))
    return path
