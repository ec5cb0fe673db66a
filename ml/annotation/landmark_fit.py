"""The head model fitted to 2D landmarks of a head: many heads at once, robust, with the priors.

Each head's negative log posterior is minimised: landmark errors follow
Student's t distribution, so that a misplaced landmark pulls little; coefficients and jaw are
Gaussian. The camera is the weak perspective of the whole library.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from ml.flame.head_model import HeadModel
from ml.flame.landmark_files import Points
from ml.flame.layer import FlameLayer
from ml.flame.params import NUM_EXPRESSION, NUM_PARAMETERS, NUM_SHAPE, FlameParameters, join
from ml.flame.projection import project_xy
from ml.flame.rotation import matrix_from_6d, nearest_rotation, sixd_from_matrix
from ml.records.config import Count, Positive, StageConfig

_FEWEST = 8
"""Minimum number of landmarks from which pose and some of the shape can be estimated."""
_SMALLEST_SPREAD_PX = 1.0
# Adam's steps, in the unit of each parameter: standard deviations, rad, metres, logarithm.
_STEPS = {"shape": 0.2, "expression": 0.2, "jaw": 0.04, "rotation": 0.04, "shift": 4e-3,
          "log_scale": 0.04}  # fmt: skip
# A gradient of a tenth per standard deviation is none: without it Adam makes the rounding of a
# vanished gradient as large as any other step. The short memory converges in half the steps.
_EPSILON, _BETAS = 0.1, (0.9, 0.95)


class LandmarkFitConfig(StageConfig):
    """Settings of the fit of the head model to landmarks."""

    num_shape: int = Field(default=100, ge=1, le=NUM_SHAPE)
    """Leading shape coefficients that are fitted; the others are zero."""
    num_expression: int = Field(default=50, ge=1, le=NUM_EXPRESSION)
    """Leading expression coefficients that are fitted; the others are zero."""
    noise_mm: Positive = 2.0
    """Standard deviation of the error of a good landmark, in millimetres on the head; smaller
    values give landmarks more weight relative to the priors."""
    freedom: Positive = 3.0
    """Degrees of freedom of Student's t distribution; smaller values reduce the influence of
    misplaced landmarks, large values approach least squares."""
    jaw_std_rad: tuple[Positive, Positive, Positive] = (0.2, 0.03, 0.03)
    """Standard deviations of the jaw rotation: opening, turning, tilting."""
    iterations: Count = 150
    """Steps of Adam."""
    heads_per_batch: Count = 256
    """Heads fitted together; limits memory."""
    max_error_std: Positive = 4.0
    """A head gets no parameters if half of its landmarks are farther from the fit than this
    multiple of `noise_mm`."""


class SurfacePoints(nn.Module):
    """Points on a head model's surface as a function of coefficients and jaw, in float64.

    Sums then differ with the batch in digits that float32 does not have.
    """

    corners: Tensor
    weights: Tensor

    def __init__(self, head_model: HeadModel, points: Points) -> None:
        """Fold the vertices around the points.

        Args:
            head_model: the head model.
            points: (P,) triangles and (P, 3) barycentric weights.
        """
        super().__init__()
        used, corner = np.unique(head_model.faces[points[0]], return_inverse=True)
        self._layer = FlameLayer(head_model, vertices=used).double()
        self.register_buffer("corners", torch.as_tensor(corner.reshape(-1, 3)), persistent=False)
        weights = torch.as_tensor(points[1], dtype=torch.float64)
        self.register_buffer("weights", weights[:, :, None], persistent=False)

    def __len__(self) -> int:
        return len(self.corners)

    def forward(self, shape: Tensor, expression: Tensor, jaw: Tensor) -> Tensor:
        """Place the points.

        Args:
            shape: (B, <= 300) leading coefficients.
            expression: (B, <= 100) leading coefficients.
            jaw: (B, 3) axis-angle, rad.

        Returns:
            (B, P, 3) float64 FLAME frame, metres, z + 0.05.
        """
        vertices = self._layer(shape, expression, jaw)
        # (B, P, 3 corners, 3) -> (B, P, 3)
        points: Tensor = (vertices[:, self.corners] * self.weights).sum(2)
        return points


@dataclass(frozen=True)
class Fit:
    """Fitted heads.

    Attributes:
        flame: (N, 413) float32 parameters, frame of the landmarks, px; NaN where a problem is.
        error_mm: (N,) float32 median distance of the landmarks from the fit, on the head.
        problems: N texts, empty where the fit is good.
    """

    flame: NDArray[np.float32]
    error_mm: NDArray[np.float32]
    problems: list[str]


def fit_landmarks(landmarks_px: Tensor, surface: SurfacePoints, config: LandmarkFitConfig) -> Fit:
    """Fit the head model to the landmarks of heads.

    Every head is fitted for itself: neither its neighbours in the batch nor their number count.

    Args:
        landmarks_px: (N, P, 2) px, any frame with x right and y down; NaN where one is unknown.
        surface: the same P points on the head model; says on which device to compute.
        config: priors, noise and steps.

    Returns:
        The heads, in the frame of the landmarks.

    Raises:
        ValueError: there are other points than those of the surface.
    """
    if landmarks_px.ndim != 3 or tuple(landmarks_px.shape[1:]) != (len(surface), 2):
        raise ValueError(
            f"landmarks_px: expected (N, {len(surface)}, 2), got {tuple(landmarks_px.shape)}"
        )
    flame = torch.full((len(landmarks_px), NUM_PARAMETERS), torch.nan)
    error_mm = torch.full((len(landmarks_px),), torch.nan)
    problems = [_unfit(points) for points in landmarks_px]
    usable = torch.tensor(
        [i for i, problem in enumerate(problems) if not problem], dtype=torch.long
    )
    for part in usable.split(config.heads_per_batch):
        points = landmarks_px[part].to(surface.weights.device, torch.float64)
        fitted, errors = _fit_batch(points, surface, config)
        flame[part], error_mm[part] = fitted.float().cpu(), errors.float().cpu()
    limit = config.max_error_std * config.noise_mm
    for index in usable.tolist():
        if not error_mm[index] <= limit:  # also where it is NaN
            flame[index] = torch.nan
            problems[index] = (
                f"half of its landmarks lie {float(error_mm[index]):.1f} mm or more from the "
                f"fitted head, expected at most {limit:g}"
            )
    return Fit(flame.numpy(), error_mm.numpy(), problems)


def _unfit(points: Tensor) -> str:
    """Say why nothing can be fitted to a head's landmarks; empty if it can."""
    known = points[torch.isfinite(points).all(dim=1)]
    if len(known) < _FEWEST:
        return f"{len(known)} of its {len(points)} landmarks are known, expected at least {_FEWEST}"
    spread = float(known.double().std(dim=0).norm())
    if spread < _SMALLEST_SPREAD_PX:
        return f"its landmarks lie on one spot: they spread over {spread:.2f} px"
    return ""


def _fit_batch(
    points: Tensor, surface: SurfacePoints, config: LandmarkFitConfig
) -> tuple[Tensor, Tensor]:
    """Return parameters (B, 413) and median errors (B,) mm of heads with usable landmarks."""
    known = torch.isfinite(points).all(dim=2)
    points = torch.where(known[..., None], points, 0.0)
    start = _Start.of_mean_head(points, known, surface)
    # From here on in metres on the head, so that noise and steps mean the same for every size.
    target = (points - start.centre[:, None]) / start.scale[:, None]  # (B, P, 2)
    free = _free_parameters(start, config)
    optimiser = torch.optim.Adam(
        [{"params": [tensor], "lr": _STEPS[name]} for name, tensor in free.items()],
        betas=_BETAS,
        eps=_EPSILON,
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, config.iterations)
    with torch.enable_grad():
        for _ in range(config.iterations):
            optimiser.zero_grad()
            # Adam's steps are elementwise: summing the loss over heads does not couple them.
            _penalty(_distance(free, target, surface), known, free, config).sum().backward()
            optimiser.step()
            schedule.step()
    found = {name: tensor.detach() for name, tensor in free.items()}
    distance = _distance(found, target, surface).square().sum(-1).sqrt()  # (B, P) metres
    median = distance.masked_fill(~known, torch.nan).nanmedian(dim=1).values
    scale = start.scale * found["log_scale"].exp()  # (B, 1) px per metre
    shift = start.centre + start.scale * found["shift"]  # (B, 2) px
    flame: Tensor = join(
        FlameParameters(
            shape=found["shape"],
            expression=found["expression"],
            jaw=found["jaw"],
            rotation=sixd_from_matrix(matrix_from_6d(found["rotation"])),
            translation=torch.cat([shift, torch.zeros_like(shift[:, :1])], dim=1),
            scale=scale,
        )
    )
    # Over the fitted scale: from metres of the start's scale to millimetres on the head.
    return flame, 1000.0 * median / found["log_scale"].exp()[:, 0]


@dataclass(frozen=True)
class _Start:
    """Pose of the mean head with the smallest distance to the landmarks.

    Attributes:
        rotation: (B, 6).
        centre: (B, 2) translation, px.
        scale: (B, 1) px per metre.
    """

    rotation: Tensor
    centre: Tensor
    scale: Tensor

    @classmethod
    def of_mean_head(cls, points: Tensor, known: Tensor, surface: SurfacePoints) -> _Start:
        """Solve for the affine camera, and take the nearest weak perspective one."""
        zero = points.new_zeros(1, 1)
        mean = surface(zero, zero, points.new_zeros(1, 3))  # (1, P, 3)
        # (B, P, 4) homogeneous
        design = torch.cat([mean, torch.ones_like(mean[..., :1])], dim=2).expand(len(points), -1, 4)
        seen = known[..., None].to(points)
        solved = torch.linalg.lstsq(design * seen, points * seen).solution  # (B, 4, 2)
        camera, centre = solved[:, :3].transpose(1, 2), solved[:, 3]  # (B, 2, 3), (B, 2)
        # Weak perspective has two equal singular values, the scale; noise makes them differ.
        scale = torch.linalg.svdvals(camera).mean(dim=1, keepdim=True)
        # (B, 3, 3), the third row is free
        rows = torch.cat([camera, torch.zeros_like(camera[:, :1])], dim=1)
        rotation = sixd_from_matrix(nearest_rotation(rows))
        # LAPACK's last digits differ from call to call with where the arrays lie in memory; from
        # rounded values on every step is the same, and where the steps begin matters little.
        return cls(rotation.round(decimals=3), centre.round(decimals=2), scale.round(decimals=2))


def _free_parameters(start: _Start, config: LandmarkFitConfig) -> dict[str, Tensor]:
    """Return the fitted variables at their initial values: the mean head in its pose."""
    zeros = start.scale.new_zeros
    count = len(start.scale)
    first = {
        "shape": zeros(count, config.num_shape),
        "expression": zeros(count, config.num_expression),
        "jaw": zeros(count, 3),
        "rotation": start.rotation.clone(),
        "shift": zeros(count, 2),
        "log_scale": zeros(count, 1),
    }
    return {name: tensor.requires_grad_() for name, tensor in first.items()}


def _distance(free: dict[str, Tensor], target: Tensor, surface: SurfacePoints) -> Tensor:
    """Return (B, P, 2) from landmarks to fitted points, in metres of the mean head's scale."""
    points = surface(free["shape"], free["expression"], free["jaw"])
    shift = torch.cat([free["shift"], torch.zeros_like(free["log_scale"])], dim=1)
    rotation = matrix_from_6d(free["rotation"])
    return project_xy(points, rotation, shift, free["log_scale"].exp()) - target


def _penalty(
    distance: Tensor, known: Tensor, free: dict[str, Tensor], config: LandmarkFitConfig
) -> Tensor:
    """Return the (B,) negative logarithm of the posterior, but for a constant."""
    # (B, P), in squares of the noise
    squared = distance.square().sum(dim=2) / (config.noise_mm / 1000.0) ** 2
    nu = config.freedom
    # Student's t in two dimensions: a landmark far off, hidden or on the wrong edge, pulls with a
    # bounded force.
    misfit = (nu + 2.0) / 2.0 * torch.log1p(squared / nu)
    jaw = free["jaw"] / free["jaw"].new_tensor(config.jaw_std_rad)
    gauss = [free["shape"], free["expression"], jaw]  # coefficients have unit variance in FLAME
    prior = torch.stack([part.square().sum(dim=1) for part in gauss]).sum(dim=0) / 2.0
    return (misfit * known).sum(dim=1) + prior
