"""The FLAME regressors to choose from."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from ml.annotation.dad_3dnet import DadRegressor
from ml.annotation.landmark_fit import LandmarkFitConfig
from ml.annotation.landmark_regressor import LandmarkRegressor
from ml.annotation.landmarks import LandmarkModelConfig, LandmarkPredictor, load_landmarks
from ml.annotation.regressor import FlameRegressor, MirroredRegressor, load_regressor
from ml.flame.head_model import HeadModel
from ml.flame.landmark_files import LandmarkEmbedding, read_embedding
from ml.records.config import StageConfig
from ml.records.models import ModelFile, choose_device, require
from ml.records.workspace import Workspace


class RegressorConfig(StageConfig):
    """Choice of the FLAME regressor."""

    backend: Literal["own", "dad", "landmarks"] = "own"
    """`own`: the crop regressor of the stage flame_regressor; `dad`: DAD-3DNet, as in the paper;
    `landmarks`: a fit of the head model to detected 2D landmarks."""
    model: ModelFile | None = None
    """dad: DAD-3DNet's TorchScript file; landmarks: the landmark model."""
    batch_size: int = Field(default=32, ge=1, le=10**9)
    """dad, landmarks: crops in one forward pass."""
    landmarks: LandmarkModelConfig = LandmarkModelConfig()
    """landmarks: type of the landmark model, and positions of its points on the head."""
    fit: LandmarkFitConfig = LandmarkFitConfig()
    """landmarks: settings of the fit of the head model."""

    @model_validator(mode="after")
    def _file_named(self) -> RegressorConfig:
        if self.backend != "own" and self.model is None:
            raise ValueError(f"backend {self.backend} needs model, {{path, sha256, asset}}")
        return self


def load_flame_regressor(
    ws: Workspace, config: RegressorConfig, head_model: HeadModel, device: str = "cpu"
) -> FlameRegressor:
    """Load the configured regressor; our own looks at each crop and at its mirror image.

    Args:
        ws: the workspace; our own regressor is read from `data/flame_regressor`.
        config: which one.
        head_model: head model, with its mirror maps.
        device: where DAD-3DNet or the fit computes.

    Returns:
        The regressor.

    Raises:
        FileNotFoundError: our own has not been trained.
        ModelError: the user's file is missing or has another hash than stated.
        ValueError: the file is of another kind; the message says what it answers instead.
    """
    if config.backend == "dad":
        return load_dad(ws.root, config, device)
    if config.backend == "landmarks":
        predictor = load_predictor(ws.root, config, device)
        embedding = load_embedding(ws.root, config.landmarks)
        return LandmarkRegressor(
            predictor, head_model, config.fit, embedding, str(choose_device(device))
        )
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
        ModelError: the user's file is not named, missing, or has another hash than stated.
        DadError: the file is not DAD-3DNet.
    """
    model = require(config.model, "annotations.regressor.model", "dad", root)
    return DadRegressor.load(Path(model.location), config.batch_size, device)


def load_predictor(root: Path, config: RegressorConfig, device: str = "cpu") -> LandmarkPredictor:
    """Load the landmark model.

    Args:
        root: the project folder, to which the file's path is relative.
        config: which file, and its kind.
        device: where it computes.

    Returns:
        The predictor.

    Raises:
        ModelError: the user's file is not named, missing, or has another hash than stated.
        ValueError: the file is of another kind; the message says what it answers instead.
    """
    model = require(config.model, "annotations.regressor.model", "landmarks", root)
    return load_landmarks(Path(model.location), config.landmarks, config.batch_size, device)


def load_embedding(root: Path, config: LandmarkModelConfig) -> LandmarkEmbedding | None:
    """Read where MediaPipe's points lie on the head.

    Args:
        root: the project folder, to which the file's path is relative.
        config: which file, if any.

    Returns:
        The embedding, or None where none is named.

    Raises:
        ModelError: the file is missing or has another hash than stated.
        FlameFileError: it holds no landmarks.
    """
    if config.embedding is None:
        return None
    return read_embedding([Path(config.embedding.resolve(root).location)])
