"""Predictors of 2D landmarks on head crops: ONNX models of 68 or MediaPipe's points, DAD's own.

The 68 are in iBUG's order; the others are MediaPipe's, of which FLAME's embedding names 105.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ml.annotation.dad_3dnet import DadRegressor
from ml.annotation.regressor import TakesCrops, check_crops
from ml.box_detection.face_models import open_session
from ml.flame.head_model import HeadModel
from ml.flame.landmark_files import LandmarkEmbedding, Points
from ml.records.config import NonNegative, StageConfig
from ml.records.models import ModelFile

_COUNTS: Final = (68, 105, 468, 478)
_INSIGHTFACE_3D: Final = (1103, 68)
"""insightface's 1k3d68.onnx answers 1,103 points in 3D, of which the last are the 68."""


class LandmarkError(ValueError):
    """A file is not a usable landmark model; the message gives the difference."""


class LandmarkPredictor(TakesCrops, Protocol):
    """Finds the landmarks of the head in a crop; may cut its crops itself, see `CutsCrops`."""

    num_points: int
    """Number of its landmarks: 68, 105, 468 or 478."""

    def find(self, crops: Tensor) -> Tensor:
        """Find the landmarks in each crop.

        Args:
            crops: (N, 3, crop_size, crop_size) uint8 RGB.

        Returns:
            (N, num_points, 2) float32 crop px, x right, y down; NaN where one is not known.
        """
        ...


class LandmarkModelConfig(StageConfig):
    """Kind of a landmark model, with its input and the meaning of its output.

    The defaults are those of insightface's `1k3d68.onnx` (pack buffalo_l).
    """

    kind: Literal["onnx", "dad"] = "onnx"
    """`onnx`: a landmark model on crops of heads; `dad`: the landmarks that DAD-3DNet's file
    predicts in addition to its parameters."""
    box_margin: NonNegative = 0.0
    """onnx: fraction of the head box that its crops add on each side. insightface's models expect
    1.5 times the *face* box, which is about the head box."""
    pixel_range: Literal["0..255", "0..1", "-1..1"] = "0..255"
    """onnx: range of input pixel values."""
    coordinate_range: Literal["pixels", "0..1", "-1..1"] = "-1..1"
    """onnx: predicted coordinates: pixels of the input, or relative to its width and height."""
    embedding: ModelFile | None = None
    """`mediapipe_landmark_embedding.npz`: positions of MediaPipe's points on FLAME. Required for
    105, 468 and 478 points; those of the 68 are part of the head model."""


class OnnxLandmarks:
    """A landmark model that onnxruntime runs."""

    name = "onnx_landmarks"

    def __init__(
        self, file: Path, config: LandmarkModelConfig, batch_size: int = 32, device: str = "cpu"
    ) -> None:
        """Load the file, and check its output for a grey crop.

        Args:
            file: the ONNX file.
            config: its input and the meaning of its output.
            batch_size: crops in one pass, where the file allows several.
            device: where to compute.

        Raises:
            FileNotFoundError: there is no such file.
            FaceModelError: onnxruntime is not installed or not built for the device, or cannot read
                the file.
            LandmarkError: it takes no square images, or answers no landmarks.
        """
        if not file.is_file():
            raise FileNotFoundError(f"landmark model: no file {file}")
        with file.open("rb") as stream:
            self.sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        self._file, self._config = file, config
        self._session = open_session(file, device)
        first = self._session.get_inputs()[0]
        self._input = first.name
        self.crop_size, self._channels_last = _input_layout(file, first.shape)
        # A file with a fixed batch of one, as most are published, runs crop by crop.
        self._batch_size = first.shape[0] if isinstance(first.shape[0], int) else batch_size
        self.box_margin = config.box_margin
        grey = torch.full((self._batch_size, 3, self.crop_size, self.crop_size), 127).byte()
        self.num_points = self._run(grey).shape[1]

    def find(self, crops: Tensor) -> Tensor:
        """Find the landmarks in each crop.

        Args:
            crops: (N, 3, crop_size, crop_size) uint8 RGB.

        Returns:
            (N, num_points, 2) float32 crop px.

        Raises:
            ValueError: the crops have another shape or dtype.
            LandmarkError: the file answers something else than landmarks.
        """
        check_crops(crops, self.crop_size)
        if not len(crops):
            return torch.zeros(0, self.num_points, 2)
        size = self._batch_size
        # The last pass is filled up, so that every pass is the same computation.
        filled = torch.cat([crops, crops[-1:].expand(-len(crops) % size, -1, -1, -1)])
        return torch.cat([self._run(part) for part in filled.split(size)])[: len(crops)]

    def _run(self, crops: Tensor) -> Tensor:
        """Return landmarks of exactly one pass, (batch, P, 2) crop px."""
        pixels = crops.float()
        if self._config.pixel_range != "0..255":
            pixels = pixels / 255
        if self._config.pixel_range == "-1..1":
            pixels = 2 * pixels - 1
        fed = pixels.permute(0, 2, 3, 1) if self._channels_last else pixels
        outputs = self._session.run(None, {self._input: np.ascontiguousarray(fed.numpy())})
        places = torch.from_numpy(self._landmarks(outputs, len(crops)))
        if self._config.coordinate_range == "pixels":
            return places
        unit = places if self._config.coordinate_range == "0..1" else (places + 1) / 2
        return unit * self.crop_size

    def _landmarks(self, outputs: Sequence[Any], batch: int) -> NDArray[np.float32]:
        """Return the landmark output, (batch, P, 2), in the model's own unit."""
        arrays = [np.asarray(output, np.float32) for output in outputs]
        for array in arrays:
            count, rest = divmod(array.size, batch)
            if rest:
                continue
            if count == 3 * _INSIGHTFACE_3D[0]:
                return array.reshape(batch, -1, 3)[:, -_INSIGHTFACE_3D[1] :, :2].copy()
            for points in _COUNTS:
                if count in (2 * points, 3 * points):
                    return array.reshape(batch, points, -1)[:, :, :2].copy()
        raise LandmarkError(
            f"{self._file}: expected 68, 105, 468 or 478 landmarks in 2D or 3D, got outputs of "
            f"shapes {[array.shape for array in arrays]} for {batch} crops"
        )


class DadLandmarks:
    """The 68 landmarks that DAD-3DNet predicts in addition to its parameters."""

    name = "dad_landmarks"
    num_points = 68

    def __init__(self, network: DadRegressor) -> None:
        """Take over the loaded file.

        Args:
            network: it cuts the crops, too.
        """
        self._network = network
        self.sha256 = network.sha256
        self.crop_size, self.box_margin = network.crop_size, network.box_margin

    def cut(
        self, image_rgb: NDArray[np.uint8], boxes_xyxy: NDArray[np.float32]
    ) -> tuple[NDArray[np.uint8], NDArray[np.floating]]:
        """Cut crops as `DadRegressor.cut` does.

        Args:
            image_rgb: (H, W, 3) uint8.
            boxes_xyxy: (N, 4) head boxes, image px.

        Returns:
            (N, 256, 256, 3) uint8 RGB, and (N, 3) left, top and side of each crop in image px.
        """
        return self._network.cut(image_rgb, boxes_xyxy)

    def find(self, crops: Tensor) -> Tensor:
        """Find the landmarks in each crop.

        Args:
            crops: (N, 3, 256, 256) uint8 RGB.

        Returns:
            (N, 68, 2) float32 crop px.

        Raises:
            DadError: the file answers no landmarks.
        """
        return self._network.landmarks(crops)


def load_landmarks(
    file: Path, config: LandmarkModelConfig, batch_size: int = 32, device: str = "cpu"
) -> LandmarkPredictor:
    """Load a landmark model.

    Args:
        file: the ONNX or TorchScript file.
        config: its kind.
        batch_size: crops in one pass.
        device: where it computes.

    Returns:
        The predictor.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is of another kind; the message says what it answers instead.
    """
    if config.kind == "dad":
        return DadLandmarks(DadRegressor.load(file, batch_size, device))
    return OnnxLandmarks(file, config, batch_size, device)


def points_on_head(
    head_model: HeadModel, num_points: int, embedding: LandmarkEmbedding | None
) -> tuple[Points, NDArray[np.int64]]:
    """Say where a predictor's landmarks lie on the head.

    Args:
        head_model: has the 68.
        num_points: number of the predictor's landmarks.
        embedding: has MediaPipe's 105, if there is one.

    Returns:
        Points on the surface, and which of the predictor's landmarks they are.

    Raises:
        LandmarkError: no embedding maps the landmarks to the head.
    """
    if num_points == 68:
        places = (head_model.landmark_faces, head_model.landmark_barycentric)
        return places, np.arange(68)
    found = embedding.mediapipe if embedding is not None else None
    if embedding is None or found is None:
        has = embedding.describe() if embedding is not None else "none is named"
        raise LandmarkError(
            f"landmark model: where its {num_points} points lie on the head must be said by "
            f"annotations.regressor.landmarks.embedding, mediapipe_landmark_embedding.npz; {has}"
        )
    if num_points == len(found[0]):
        return found, np.arange(num_points)
    numbers = embedding.mediapipe_numbers
    if numbers is None or numbers.max() >= num_points:
        raise LandmarkError(
            f"landmark model: the embedding does not say which of the {num_points} points its "
            f"{len(found[0])} are; bring mediapipe_landmark_embedding.npz with landmark_indices"
        )
    return found, numbers


def _input_layout(file: Path, shape: Sequence[Any]) -> tuple[int, bool]:
    """Return the side of the square images that a model takes, and whether channels come last."""
    if len(shape) == 4:
        for channel, height, width in ((1, 2, 3), (3, 1, 2)):
            side = shape[height]
            if shape[channel] == 3 and isinstance(side, int) and side == shape[width]:
                return side, channel == 3
    raise LandmarkError(
        f"{file}: expected an input of (N, 3, S, S) or (N, S, S, 3) with a fixed side S, got "
        f"{list(shape)}"
    )
