"""The FLAME regressors to choose from, and the crops each of them takes."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from ml.annotation.dad_3dnet import DadRegressor
from ml.annotation.regressor import FlameRegressor, MirroredRegressor, load_regressor
from ml.flame.frames import extract_crops, square_frames
from ml.flame.head_model import HeadModel
from ml.records.config import StageConfig
from ml.records.models import ModelFile, require
from ml.records.workspace import Workspace


class RegressorConfig(StageConfig):
    """Which network gives the FLAME parameters."""

    backend: Literal["own", "dad"] = "own"
    """`own`: the crop regressor of the stage flame_regressor; `dad`: DAD-3DNet, as in the paper."""
    model: ModelFile | None = None
    """DAD-3DNet's TorchScript file."""
    batch_size: int = Field(default=32, ge=1, le=10**9)
    """Crops in one pass of DAD-3DNet."""

    @model_validator(mode="after")
    def _file_named(self) -> RegressorConfig:
        if self.backend == "dad" and self.model is None:
            raise ValueError("backend dad needs model, {path, sha256, asset}")
        return self


@runtime_checkable
class CutsCrops(Protocol):
    """A regressor whose crops are not plain squares around the extended box."""

    def cut(
        self, image_rgb: NDArray[np.uint8], boxes_xyxy: NDArray[np.float32]
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Cut crops.

        Args:
            image_rgb: (H, W, 3) uint8.
            boxes_xyxy: (N, 4) head boxes, image px.

        Returns:
            (N, S, S, 3) uint8 RGB, and (N, 3) left, top and side of each crop in image px.
        """
        ...


def load_flame_regressor(
    ws: Workspace, config: RegressorConfig, head_model: HeadModel, device: str = "cpu"
) -> FlameRegressor:
    """Load the configured regressor; our own looks at each crop and at its mirror image.

    Args:
        ws: the workspace; our own regressor is read from `data/flame_regressor`.
        config: which one.
        head_model: says what a mirrored head's parameters are.
        device: where DAD-3DNet computes.

    Returns:
        The regressor.

    Raises:
        FileNotFoundError: our own has not been trained.
        ModelError: the user's file is missing or not the one meant.
        DadError: the file is not DAD-3DNet.
    """
    if config.backend == "dad":
        return load_dad(ws.root, config, device)
    return MirroredRegressor(load_regressor(ws.stage_dir("flame_regressor")), head_model)


def load_dad(root: Path, config: RegressorConfig, device: str = "cpu") -> DadRegressor:
    """Load DAD-3DNet.

    Args:
        root: the project folder, to which the file's path is relative.
        config: which file.
        device: where it computes.

    Returns:
        The regressor.

    Raises:
        ModelError: the user's file is not named, missing or not the one meant.
        DadError: the file is not DAD-3DNet.
    """
    model = require(config.model, "annotations.regressor.model", "dad", root)
    return DadRegressor.load(Path(model.location), config.batch_size, device)


def cut_crops(
    regressor: FlameRegressor, image_rgb: NDArray[np.uint8], boxes_xyxy: NDArray[np.float32]
) -> tuple[NDArray[np.uint8], NDArray[np.floating]]:
    """Return crops of an image's heads as a regressor takes them.

    Args:
        regressor: says which crops it takes, or cuts them itself.
        image_rgb: (H, W, 3) uint8.
        boxes_xyxy: (N, 4) head boxes, image px.

    Returns:
        (N, S, S, 3) uint8 RGB, and (N, 3) left, top and side of each crop in image px.
    """
    if isinstance(regressor, CutsCrops):
        return regressor.cut(image_rgb, boxes_xyxy)
    frames = square_frames(boxes_xyxy, regressor.box_margin)
    return extract_crops(image_rgb, frames, regressor.crop_size), frames
