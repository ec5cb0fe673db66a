"""Training of the crop regressor: losses, Lightning module, metrics on held-out crops."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ml.annotation.crop_data import CropBatch
from ml.annotation.regressor import CropRegressor, to_network_input
from ml.flame.geometry import HeadGeometry
from ml.flame.head_model import HeadModel
from ml.flame.layer import FlameLayer
from ml.flame.params import ROTATION, split
from ml.flame.projection import project_xy
from ml.flame.rotation import FRONTAL_6D, geodesic_distance, matrix_from_6d
from ml.model.losses import coefficient_prior, spread, unit_cube, vertices_loss
from ml.records.config import Count, NonNegative, StageConfig
from ml.training.base import TrainingModule
from ml.training.optim import OptimConfig


class CropLossConfig(StageConfig):
    """Weights of the loss terms (paper 4.1), and the vertices they look at."""

    reprojection: NonNegative = 25.0
    """Weight of the mean |dx| and |dy| of projected vertices, divided by the box size."""
    rotation: NonNegative = 3.0
    """Weight of the geodesic rotation angle in radians."""
    vertices: NonNegative = 50.0
    """Weight of the squared distance of unrotated vertices, with heads normalised to the unit
    cube."""
    prior: NonNegative = 1e-3
    """Weight of the mean squared shape and expression coefficients, see `LossConfig`."""
    num_vertices: Count = 400
    """Number of compared vertices, distributed evenly over the head region."""


class CropLoss(nn.Module):
    """The loss of a batch of crops, in float32."""

    def __init__(self, config: CropLossConfig, head_model: HeadModel) -> None:
        """Prepare the head model's layer for the compared vertices.

        Args:
            config: weights.
            head_model: the head model that the parameters belong to.
        """
        super().__init__()
        self.config = config
        region = torch.as_tensor(head_model.region("head"))
        self.layer = FlameLayer(head_model, vertices=spread(region, config.num_vertices).numpy())

    def forward(self, predicted: Tensor, target: Tensor, box_size: Tensor) -> dict[str, Tensor]:
        """Compare heads.

        Args:
            predicted: (B, 413) crop frame, px.
            target: (B, 413) crop frame, px.
            box_size: (B,) square root of the box's area, crop px.

        Returns:
            Scalars: `loss`, the weighted sum to minimise, and the unweighted terms.
        """
        with torch.autocast(predicted.device.type, enabled=False):
            return self._terms(predicted.float(), target, box_size)

    def _terms(self, predicted: Tensor, target: Tensor, box_size: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            true_unit, true_rotation, true_px = self._mesh(target)
        unit, rotation, points_px = self._mesh(predicted)
        error_px = (points_px - true_px).abs().mean(dim=(1, 2))
        terms = {
            "reprojection": (error_px / box_size).mean(),
            "rotation": geodesic_distance(rotation, true_rotation).mean(),
            "vertices": vertices_loss(unit, true_unit, "l2").mean(),
            "prior": coefficient_prior(split(predicted)).mean(),
        }
        loss = sum(
            (getattr(self.config, name) * term for name, term in terms.items()),
            start=predicted.new_zeros(()),
        )
        return {"loss": loss, **terms}

    def _mesh(self, flame: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return vertices in the unit cube, rotation matrices, projected vertices (B, V, 2) px."""
        parts = split(flame)
        vertices_m = self.layer(parts.shape, parts.expression, parts.jaw)
        rotation = matrix_from_6d(parts.rotation)
        points = project_xy(vertices_m, rotation, parts.translation, parts.scale)
        return unit_cube(vertices_m), rotation, points


class RegressorTraining(TrainingModule):
    """Lightning module of the crop regressor."""

    def __init__(
        self,
        network: CropRegressor,
        head_model: HeadModel,
        loss: CropLossConfig,
        optim: OptimConfig,
    ) -> None:
        """Put network and loss together.

        Args:
            network: the network to train.
            head_model: the head model that the labels' parameters belong to.
            loss: weights of the loss terms.
            optim: optimiser and schedule.
        """
        super().__init__(optim)
        self.network = network
        self.criterion = CropLoss(loss, head_model)

    def losses(self, batch: CropBatch) -> Mapping[str, Tensor]:
        """Return the loss terms of a training batch.

        Args:
            batch: augmented crops.

        Returns:
            Scalars by name; `loss` is the one to minimise.
        """
        predicted = self.network(to_network_input(batch.crops))
        terms: Mapping[str, Tensor] = self.criterion(predicted, batch.flame, batch.box_size)
        return terms

    def validation_step(self, batch: CropBatch, batch_idx: int) -> None:
        """Log the loss terms of held-out crops, the rotation in degrees.

        Args:
            batch: crops as the annotation stage cuts them.
            batch_idx: unused.
        """
        terms = dict(self.losses(batch))
        values: dict[str, Any] = {f"val/{name}": value for name, value in terms.items()}
        values["val/rotation_deg"] = torch.rad2deg(terms["rotation"])
        self.log_dict(values, on_epoch=True, batch_size=len(batch.sample_ids))


@dataclass(frozen=True)
class CropErrors:
    """Errors of single crops.

    Attributes:
        rotation_deg: (N,) geodesic error.
        frontal_deg: (N,) geodesic error of answering "frontal" always.
        nme_bbox: (N,) mean distance of the head region's projected vertices, over the square root
            of the box's area.
    """

    rotation_deg: NDArray[np.float32]
    frontal_deg: NDArray[np.float32]
    nme_bbox: NDArray[np.float32]


def crop_errors(
    predicted: NDArray[np.float32],
    target: NDArray[np.float32],
    box_size: NDArray[np.float32],
    geometry: HeadGeometry,
) -> CropErrors:
    """Measure predictions.

    Args:
        predicted: (N, 413) crop frame, px.
        target: (N, 413) crop frame, px.
        box_size: (N,) square root of the box's area, crop px.
        geometry: the head region's vertices.

    Returns:
        The errors, crop by crop.
    """
    true_rotation = matrix_from_6d(torch.from_numpy(target[:, ROTATION]))
    rotation = matrix_from_6d(torch.from_numpy(predicted[:, ROTATION]))
    frontal = matrix_from_6d(torch.tensor(FRONTAL_6D)).expand_as(true_rotation)
    distance = geometry.vertices_px(predicted) - geometry.vertices_px(target)
    return CropErrors(
        rotation_deg=torch.rad2deg(geodesic_distance(rotation, true_rotation)).numpy(),
        frontal_deg=torch.rad2deg(geodesic_distance(frontal, true_rotation)).numpy(),
        nme_bbox=np.linalg.norm(distance, axis=2).mean(axis=1) / box_size,
    )
