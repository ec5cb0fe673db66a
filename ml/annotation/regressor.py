"""Regressors of FLAME parameters from a crop of one head: the protocol, and our own small network.

DAD-3DNet has this place in the paper. The network here is trained from scratch on rendered crops.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from ml.flame.frames import BOX_MARGIN
from ml.flame.params import NUM_PARAMETERS, ROTATION, FlameParameters, join
from ml.flame.projection import MirrorMaps, mean_flame, mirror_flame
from ml.flame.rotation import FRONTAL_6D, matrix_from_6d, sixd_from_matrix
from ml.model.blocks import ConvBNAct, Norm
from ml.model.building import ModelSize, build_encoder, model_config
from ml.records.atomic import write_bytes, write_json
from ml.records.config import Count, NonNegative, StageConfig, read_config

_COEFFICIENT_LIMIT = 3.0
_JAW_UNIT_RAD = 0.3
_COARSEST_STRIDE = 32
# A head is about 0.23 m high and fills 1 / (1 + 2 margins) of its crop.
_HEAD_HEIGHT_M = 0.23

WEIGHTS_NAME = "regressor.safetensors"
CONFIG_NAME = "config.json"


class TakesCrops(Protocol):
    """A model that looks at crops of heads."""

    name: str
    """Entry in the heads table's column `teacher`, or a part of it."""
    sha256: str
    """Hash of the weights."""
    crop_size: int
    """Side of the crops it takes, px."""
    box_margin: float
    """Fraction of the head box that its crops add on each side."""


class FlameRegressor(TakesCrops, Protocol):
    """Interface of a FLAME regressor for the annotation stage."""

    def predict(self, crops: Tensor) -> Tensor:
        """Estimate the head in the middle of each crop.

        Args:
            crops: (N, 3, crop_size, crop_size) uint8 RGB.

        Returns:
            (N, 413) float32 FLAME parameters, crop frame, px.
        """
        ...


class RegressorArchitecture(StageConfig):
    """Size of the network, and the crops it takes."""

    crop_size: Count = 256
    """Side of a crop, px; a multiple of the coarsest stride. DAD-3DNet uses 256."""
    box_margin: NonNegative = BOX_MARGIN
    """Fraction of the box that a crop adds on each side (paper: 0.25)."""
    encoder: ModelSize = "nano"
    """Detector size whose encoder the regressor uses; the detector can be initialised from it."""
    num_squeezed: Count = 48
    """Channels of each flattened feature map."""
    num_features: Count = 256
    """Width of the fully connected layer before the outputs."""
    num_shape: Count = 64
    """Leading shape coefficients that are regressed; the others are zero."""
    num_expression: Count = 32
    """Leading expression coefficients that are regressed; the others are zero."""


class CropRegressor(nn.Module):
    """A detector's encoder, from a crop to the 413 FLAME parameters of the head in it.

    The maps at strides 16 and 32 are flattened, not averaged, so that position survives to the
    outputs, which start at a frontal mean head in the middle of the crop.

    Args:
        architecture: sizes.

    Raises:
        ValueError: the crop's size is not a multiple of the stride.
    """

    def __init__(self, architecture: RegressorArchitecture) -> None:
        super().__init__()
        size = architecture.crop_size
        if size % _COARSEST_STRIDE or size <= 0:
            raise ValueError(
                f"crop_size: expected a positive multiple of {_COARSEST_STRIDE} px, got {size}"
            )
        self.architecture = architecture
        self.initial_scale = size / ((1 + 2 * architecture.box_margin) * _HEAD_HEIGHT_M)
        encoder = model_config(architecture.encoder)
        norm = Norm(encoder.bn_eps, encoder.bn_momentum)
        self.backbone = build_encoder(encoder)
        squeezed = architecture.num_squeezed
        num_channels: Sequence[int] = self.backbone.channels  # type: ignore[assignment]
        self.squeeze = nn.ModuleList(
            ConvBNAct(channels, squeezed, 1, norm) for channels in num_channels[2:]
        )
        num_cells = (size // 16) ** 2 + (size // 32) ** 2
        self.neck = nn.Sequential(
            nn.Linear(squeezed * num_cells, architecture.num_features), nn.ReLU(inplace=True)
        )
        self.splits = (architecture.num_shape, architecture.num_expression, 3, 6, 2, 1)
        self.output = nn.Linear(architecture.num_features, sum(self.splits))
        self._start_frontal()

    def _start_frontal(self) -> None:
        nn.init.normal_(self.output.weight, std=0.01)
        nn.init.zeros_(self.output.bias)
        first = sum(self.splits[:3])
        with torch.no_grad():
            self.output.bias[first : first + 6] = torch.tensor(FRONTAL_6D)

    def forward(self, crops: Tensor) -> Tensor:
        """Regress the heads in the middle of crops.

        Args:
            crops: (N, 3, S, S) float RGB in [0, 1].

        Returns:
            (N, 413) float32 FLAME parameters, crop frame, px.
        """
        maps = self.backbone(crops)[2:]
        flat = [squeeze(x).flatten(1) for squeeze, x in zip(self.squeeze, maps, strict=True)]
        raw = self.output(self.neck(torch.cat(flat, dim=1))).float()
        shape, expression, jaw, rotation, shift, log_scale = raw.split(self.splits, dim=1)
        num_heads, size = len(raw), self.architecture.crop_size
        position = size / 2 + size / 4 * shift
        flame: Tensor = join(
            FlameParameters(
                shape=_COEFFICIENT_LIMIT * shape.tanh(),
                expression=_COEFFICIENT_LIMIT * expression.tanh(),
                jaw=_JAW_UNIT_RAD * jaw,
                rotation=rotation,
                translation=torch.cat([position, position.new_zeros(num_heads, 1)], dim=1),
                scale=self.initial_scale * log_scale.exp(),
            )
        )
        return flame


class TrainedRegressor:
    """A trained `CropRegressor` in the shape of `FlameRegressor`.

    Args:
        network: the network; it is put into evaluation mode.
        sha256: hash of its weights file.
        batch_size: crops in one pass. Fixed, so that a crop's result depends on nothing else.
    """

    name = "crop_regressor"

    def __init__(self, network: CropRegressor, sha256: str, batch_size: int = 64) -> None:
        self.network = network.eval()
        self.sha256 = sha256
        self.batch_size = batch_size
        self.crop_size = network.architecture.crop_size
        self.box_margin = network.architecture.box_margin

    @torch.inference_mode()
    def predict(self, crops: Tensor) -> Tensor:
        """Estimate the head in the middle of each crop.

        Args:
            crops: (N, 3, crop_size, crop_size) uint8 RGB.

        Returns:
            (N, 413) float32 FLAME parameters, crop frame, px.

        Raises:
            ValueError: the crops have another shape or dtype.
        """
        check_crops(crops, self.crop_size)
        if not len(crops):
            return torch.zeros(0, NUM_PARAMETERS)
        parts = [self.network(to_network_input(part)) for part in crops.split(self.batch_size)]
        flame = torch.cat(parts)
        # Labels carry orthonormal columns; the network's are so only after Gram-Schmidt.
        flame[:, ROTATION] = sixd_from_matrix(matrix_from_6d(flame[:, ROTATION]))
        return flame


def check_crops(crops: Tensor, crop_size: int) -> None:
    """Check the crops that a model is given.

    Args:
        crops: to check.
        crop_size: side that the model takes, px.

    Raises:
        ValueError: they are not (N, 3, crop_size, crop_size) uint8.
    """
    if crops.shape[1:] != (3, crop_size, crop_size) or crops.dtype != torch.uint8:
        raise ValueError(
            f"crops: expected uint8 (N, 3, {crop_size}, {crop_size}), got {crops.dtype} "
            f"{tuple(crops.shape)}; cut them with cut_crops or the model's own cut"
        )


class MirroredRegressor:
    """A regressor that averages its estimates for every crop and its mirror image.

    Random errors of the two passes partly cancel: the rotation error of a short training falls by a
    fifth. The rotations' mean is the nearest rotation to their sum.

    Args:
        regressor: the regressor, which runs twice.
        maps: the head model, with its mirror maps.
    """

    def __init__(self, regressor: FlameRegressor, maps: MirrorMaps) -> None:
        self._regressor = regressor
        self._maps = maps
        self.name = regressor.name
        self.sha256 = regressor.sha256
        self.crop_size = regressor.crop_size
        self.box_margin = regressor.box_margin

    def predict(self, crops: Tensor) -> Tensor:
        """Estimate the head in the middle of each crop.

        Args:
            crops: (N, 3, crop_size, crop_size) uint8 RGB.

        Returns:
            (N, 413) float32 FLAME parameters, crop frame, px.
        """
        seen = self._regressor.predict(crops)
        seen_mirrored = self._regressor.predict(crops.flip(-1))
        mirrored = mirror_flame(seen_mirrored, float(self.crop_size), self._maps)
        return mean_flame(seen, mirrored)


def to_network_input(crops: Tensor) -> Tensor:
    """Convert bytes to the network's range and memory layout.

    Args:
        crops: (N, 3, S, S) uint8 RGB.

    Returns:
        (N, 3, S, S) float32 in [0, 1], channels last in memory.
    """
    return crops.to(torch.float32, memory_format=torch.channels_last).div_(255)


def save_regressor(network: CropRegressor, model_dir: Path) -> str:
    """Write `regressor.safetensors` and `config.json`.

    Args:
        network: the trained network.
        model_dir: the folder to write to.

    Returns:
        The SHA-256 of the weights file.
    """
    state = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    weights = save(state)
    write_bytes(model_dir / WEIGHTS_NAME, weights)
    write_json(model_dir / CONFIG_NAME, network.architecture.model_dump(mode="json"))
    return hashlib.sha256(weights).hexdigest()


def load_regressor(model_dir: Path) -> TrainedRegressor:
    """Read the files of `save_regressor`.

    Args:
        model_dir: the folder with the two files.

    Returns:
        The regressor, ready to predict.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: the configuration has unknown keys.
        RuntimeError: the weights do not fit the configuration.
    """
    for name in (WEIGHTS_NAME, CONFIG_NAME):
        if not (model_dir / name).is_file():
            raise FileNotFoundError(
                f"{model_dir / name}: the FLAME regressor is missing; run the stage flame_regressor"
            )
    values = json.loads((model_dir / CONFIG_NAME).read_text())
    network = CropRegressor(read_config(RegressorArchitecture, CONFIG_NAME, values))
    network.load_state_dict(load_file(model_dir / WEIGHTS_NAME))
    sha256 = hashlib.sha256((model_dir / WEIGHTS_NAME).read_bytes()).hexdigest()
    return TrainedRegressor(network, sha256)
