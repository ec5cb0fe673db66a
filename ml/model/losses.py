"""The training loss: classes, boxes, vertices, rotations, reprojection."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, distributed, nn
from torch.nn import functional

from ml.flame.head_model import HeadModel
from ml.flame.layer import FlameLayer
from ml.flame.params import NUM_EXPRESSION, NUM_SHAPE, FlameParameters, split
from ml.flame.projection import project_xy
from ml.flame.rotation import geodesic_distance, matrix_from_6d
from ml.imaging.boxes import box_ciou_pairs
from ml.model.assigner import AssignerConfig, Assignment, assign
from ml.model.decode import decode_all_boxes, decode_boxes, decode_flame
from ml.model.outputs import TrainingOutputs
from ml.model.targets import HeadTargets
from ml.records.config import StageConfig

LossForm = Literal["paper", "official"]


class LossConfig(StageConfig):
    """Forms and weights of the loss terms; a weight of 0 switches a term off (paper table 7).

    The defaults are those of the published configuration.
    """

    classification_weight: float = Field(default=1.0, ge=0, le=1e6)
    """Weight of the classification loss."""
    box_weight: float = Field(default=2.0, ge=0, le=1e6)
    """Weight of 1 - CIoU."""
    dfl_weight: float = Field(default=0.01, ge=0, le=1e6)
    """Weight of the distribution focal loss."""
    vertices_weight: float = Field(default=50.0, ge=0, le=1e6)
    """Weight of the 3D vertices loss."""
    rotation_weight: float = Field(default=1.0, ge=0, le=1e6)
    """Weight of the geodesic rotation loss, per radian."""
    reprojection_weight: float = Field(default=5.0, ge=0, le=1e6)
    """Weight of the reprojection loss."""
    prior_weight: float = Field(default=0.0, ge=0, le=1e6)
    """Weight of the mean squared shape and expression coefficients; ours, not published. Where
    heads are too small to show their shape, the other terms hardly bind the coefficients, and
    shapes become worse than the mean head."""
    classification: Literal["quality_focal", "varifocal"] = "quality_focal"
    """quality_focal: |p - q|^2 BCE. varifocal: q BCE on heads, 0.75 p^2 BCE on background."""
    vertices: Literal["l2", "smooth_l1"] = "smooth_l1"
    """Distance between normalised vertices, averaged over coordinates."""
    reprojection: Literal["l1", "oks"] = "oks"
    """l1: mean |dx| and |dy| over sqrt(box area). oks: 1 - exp(-d^2 / (0.005 * 0.53 box area)),
    whose gradient vanishes for predictions far from their target."""
    weigh_by_score: bool = False
    """Weight the three FLAME terms of an anchor by its target score instead of equally."""
    max_positives: int = Field(default=65_536, ge=1, le=10**9)
    """Maximum number of anchors per batch that are passed through the head model, and through FLAME
    branches that are trained sparsely. The published training uses all; the default only limits
    memory."""
    num_vertices: int | None = Field(default=None, ge=4, le=10**9)
    """Number of compared vertices, distributed evenly over the head region; default: all."""
    assigner: AssignerConfig = AssignerConfig()
    """Assignment of anchors to heads."""


def loss_config(form: LossForm) -> LossConfig:
    """Return a named form of the loss.

    The paper gives its reprojection no normaliser (here: the box size), calls no loss DFL and
    weighs classification by 0.5; the published training uses an OKS-like reprojection, SmoothL1
    vertices and other weights.

    Args:
        form: paper (section 4.1, appendix B) or official (the published configuration).

    Returns:
        The configuration.

    Raises:
        ValueError: no such form.

    Source: paper 4.1 and appendix B; the published training parameters.
    """
    if form == "official":
        return LossConfig()
    if form == "paper":
        return LossConfig(
            classification_weight=0.5,
            box_weight=2.5,
            dfl_weight=0.5,
            reprojection_weight=1.0,
            vertices="l2",
            reprojection="l1",
        )
    raise ValueError(f"loss form: expected paper or official, got {form!r}")


class HeadLoss(nn.Module):
    """The loss of a batch, all in float32.

    The FLAME targets are computed here, for the whole batch on the model's device and for the
    compared vertices only; the published code computes them head by head in the data loader.

    Source: paper 4.1.
    """

    def __init__(self, config: LossConfig, head_model: HeadModel) -> None:
        """Prepare the head model's layer for the compared vertices.

        Args:
            config: forms and weights.
            head_model: the head model that the labels' parameters belong to.
        """
        super().__init__()
        self.config = config
        region = torch.as_tensor(head_model.region("head"))
        self.layer = FlameLayer(head_model, vertices=spread(region, config.num_vertices).numpy())
        prior = ("prior",) if config.prior_weight else ()
        self._flame_names: tuple[str, ...] = ("vertices", "rotation", "reprojection", *prior)

    def forward(self, outputs: TrainingOutputs, targets: HeadTargets) -> dict[str, Tensor]:
        """Return the loss and its terms.

        Args:
            outputs: what the network returned for the batch.
            targets: the batch's labels, network pixels, on the same device.

        Returns:
            Scalars: `loss`, the weighted sum to minimise; the unweighted terms `classification`,
            `box`, `dfl`, `vertices`, `rotation` (radians), `reprojection`, and `prior` if it has a
            weight; and `positives`, the number of anchors that learn a head. Without a positive the
            terms are 0, on the graph.
        """
        with torch.autocast(outputs.score_logits.device.type, enabled=False):
            return self._terms(outputs, targets)

    def _terms(self, outputs: TrainingOutputs, targets: HeadTargets) -> dict[str, Tensor]:
        config = self.config
        logits = outputs.score_logits.float()  # (B, A)
        with torch.no_grad():
            scores, boxes = logits.sigmoid(), decode_all_boxes(outputs)  # (B, A), (B, A, 4)
            # Which anchors learn depends on what they predict now; no gradient flows through it.
            found = assign(scores, boxes, outputs.anchors, targets, config.assigner)
        # Normalised by the sum of the scores to learn, not by the number of positives (TOOD): an
        # image of many poorly matched heads does not dilute the others' loss.
        total_score = self._mean_over_processes(found.score.sum(), least=1.0)
        terms = {"classification": classification_loss(logits, found, config) / total_score}
        image, anchor = (found.target >= 0).nonzero(as_tuple=True)  # (P,) positives
        rows, weight = found.target[image, anchor], found.score[image, anchor]
        matched = targets.boxes_xyxy[rows]  # (P, 4)
        sides = outputs.box_logits[image, anchor].float()  # (P, 4, bins)
        centres, strides = outputs.anchors.centres_px[anchor], outputs.anchors.strides[anchor]
        ciou = box_ciou_pairs(decode_boxes(sides, centres, strides), matched)  # (P,)
        terms["box"] = ((1 - ciou) * weight).sum() / total_score
        dfl = distribution_focal_loss(sides, centres, strides, matched)
        terms["dfl"] = (dfl * weight).sum() / total_score
        terms |= self._flame_terms(outputs, targets, found)
        total = sum(
            (getattr(config, f"{name}_weight") * term for name, term in terms.items()),
            start=torch.zeros((), device=logits.device),
        )
        positives = torch.tensor(float(len(rows)), device=logits.device)
        return {"loss": total, **terms, "positives": positives}

    def _flame_terms(
        self, outputs: TrainingOutputs, targets: HeadTargets, found: Assignment
    ) -> dict[str, Tensor]:
        """Return the FLAME terms, over anchors of heads with parameters."""
        config = self.config
        learns = found.target >= 0  # (B, A)
        # Heads without parameters teach score and box alone.
        learns &= targets.flame_valid[found.target.clamp(min=0)] if len(targets) else learns
        learning = spread(learns.nonzero(), config.max_positives)
        image, anchor = learning.unbind(dim=1)  # (P,) each
        raw = outputs.flame_at(image, anchor)  # (P, K)
        weight = found.score[image, anchor] if config.weigh_by_score else torch.ones_like(anchor)
        # Before the early return: every process takes part in the reduction, also one without a
        # head.
        weight = weight / self._mean_over_processes(weight.sum(), least=1e-9)
        if len(image) == 0:
            # A zero on the graph: processes that train together all need a gradient.
            nothing = raw.float().sum() * 0.0
            return dict.fromkeys(self._flame_names, nothing)
        rows = found.target[image, anchor]
        predicted = decode_flame(
            raw,
            outputs.anchors.centres_px[anchor],
            outputs.anchors.strides[anchor],
            outputs.config,
        )
        # A head is the target of up to top_k anchors; its mesh is made once.
        heads, head_of = rows.unique(return_inverse=True)  # (H,) rows, (P,) place in `heads`
        with torch.no_grad():
            truth = split(targets.flame[heads])
            true_vertices = self.layer(truth.shape, truth.expression, truth.jaw)  # (H, V, 3)
            true_rotation = matrix_from_6d(truth.rotation)
            true_px = project_xy(true_vertices, true_rotation, truth.translation, truth.scale)
            true_px, true_unit = (  # (P, V, 2), (P, V, 3)
                # the layer's memory layout is kept
                mesh.transpose(1, 2)[head_of].transpose(1, 2)
                for mesh in (true_px, unit_cube(true_vertices))
            )
        vertices = self.layer(predicted.shape, predicted.expression, predicted.jaw)  # (P, V, 3)
        rotation = matrix_from_6d(predicted.rotation)  # (P, 3, 3)
        points = project_xy(vertices, rotation, predicted.translation, predicted.scale)  # (P, V, 2)
        boxes = targets.boxes_xyxy[rows]
        per_anchor = {
            # Vertices see shape, expression and jaw without the pose, rotation sees the pose alone,
            # and the reprojection ties both to scale and translation (paper 4.1).
            "vertices": vertices_loss(unit_cube(vertices), true_unit, config.vertices),
            "rotation": geodesic_distance(rotation, true_rotation[head_of]),
            "reprojection": reprojection_loss(points, true_px, boxes, config.reprojection),
            "prior": coefficient_prior(predicted),
        }
        return {name: (per_anchor[name] * weight).sum() for name in self._flame_names}

    def _mean_over_processes(self, value: Tensor, least: float) -> Tensor:
        """Return a normaliser of a training with several processes.

        Every one of them must call this.

        The processes' gradients are averaged, so each divides by the mean of what they count, not
        by its own: the heads of a nearly empty batch do not weigh more than others.
        """
        processes = 1
        if self.training and distributed.is_available() and distributed.is_initialized():
            processes = distributed.get_world_size()
            value = value.detach().float().clone()
            distributed.all_reduce(value)
        return value.clamp(min=least) / processes


def classification_loss(logits: Tensor, found: Assignment, config: LossConfig) -> Tensor:
    """Return the focal loss towards soft scores, summed over the anchors that are not ignored.

    Args:
        logits: (B, A) score logits.
        found: the assignment.
        config: which form.

    Returns:
        Scalar, not normalised.

    Source: Li et al., Generalized Focal Loss (2020); Zhang et al., VarifocalNet (2021).
    """
    score = logits.sigmoid()
    cross_entropy = functional.binary_cross_entropy_with_logits(
        logits, found.score, reduction="none"
    )
    if config.classification == "quality_focal":
        # GFL, beta = 2: an anchor that already predicts its soft target has no weight.
        weight = (score - found.score).square()
    else:
        # VFL, alpha = 0.75, gamma = 2: heads by their target score, background down-weighted by
        # p^2.
        weight = torch.where(found.target >= 0, found.score, 0.75 * score.detach().square())
    return (weight * cross_entropy * ~found.ignored).sum()


def distribution_focal_loss(
    box_logits: Tensor, centres_px: Tensor, strides: Tensor, boxes_xyxy: Tensor
) -> Tensor:
    """Return the cross entropy of the side distances with the two bins around the true ones.

    Args:
        box_logits: (P, 4, bins).
        centres_px: (P, 2) anchor centres.
        strides: (P,) anchor strides, pixels.
        boxes_xyxy: (P, 4) true boxes, network pixels.

    Returns:
        (P,) mean over the four sides.

    Source: Li et al., Generalized Focal Loss (2020).
    """
    last = box_logits.shape[-1] - 1
    # (P, 4) px
    distances = torch.cat([centres_px - boxes_xyxy[:, :2], boxes_xyxy[:, 2:] - centres_px], dim=1)
    distances = (distances / strides[:, None]).clamp(0, last - 0.01)  # in strides
    # A distance of 2.3 strides is 0.7 of bin 2 and 0.3 of bin 3; the last bin keeps a right one.
    left = distances.floor()
    fraction_right = distances - left
    log_probability = box_logits.log_softmax(dim=-1)  # (P, 4, bins)
    index = left.long()[..., None]  # (P, 4, 1)
    at_left = log_probability.gather(-1, index)[..., 0]
    at_right = log_probability.gather(-1, index + 1)[..., 0]
    return -(at_left * (1 - fraction_right) + at_right * fraction_right).mean(dim=-1)


def unit_cube(vertices: Tensor) -> Tensor:
    """Centre meshes on their bounding boxes and scale the longest side to [-1, 1].

    Args:
        vertices: (P, V, 3).

    Returns:
        (P, V, 3) without unit.

    Source: paper 4.1.
    """
    # min and max, not amin and amax: the gradient of one vertex, not of all that may be equal
    low, high = vertices.min(dim=1, keepdim=True).values, vertices.max(dim=1, keepdim=True).values
    # (P, 1, 1), the longest side becomes 2
    factor = 2.0 / (high - low).amax(dim=2, keepdim=True).clamp(min=1e-6)
    return (vertices - (low + high) / 2) * factor


def vertices_loss(first: Tensor, second: Tensor, form: Literal["l2", "smooth_l1"]) -> Tensor:
    """Return the distance of normalised meshes.

    Args:
        first: (P, V, 3) in the unit cube.
        second: (P, V, 3) in the unit cube.
        form: see `LossConfig.vertices`.

    Returns:
        (P,) mean over vertices and axes.
    """
    difference = first - second
    if form == "l2":
        return difference.square().mean(dim=(1, 2))
    elementwise = functional.smooth_l1_loss(first, second, reduction="none")
    return elementwise.mean(dim=(1, 2))


def coefficient_prior(predicted: FlameParameters) -> Tensor:
    """Return (P,) mean squares of the 400 shape and expression coefficients; 0 if not predicted."""
    coefficients = torch.cat([predicted.shape, predicted.expression], dim=-1)
    return coefficients.square().sum(dim=-1) / (NUM_SHAPE + NUM_EXPRESSION)


OKS_SIGMA = 0.025
OKS_AREA_FRACTION = 0.53


def reprojection_loss(
    points: Tensor, true_points: Tensor, boxes_xyxy: Tensor, form: Literal["l1", "oks"]
) -> Tensor:
    """Return the distance of projected vertices, relative to the head's box.

    Args:
        points: (P, V, 2) network pixels.
        true_points: (P, V, 2) network pixels.
        boxes_xyxy: (P, 4) true boxes, network pixels.
        form: see `LossConfig.reprojection`.

    Returns:
        (P,) mean over vertices.

    Source: paper 4.1 (l1); the published training code (oks).
    """
    size = (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).clamp(min=1.0)
    area = size[:, 0] * size[:, 1]
    if form == "l1":
        return (points - true_points).abs().mean(dim=(1, 2)) / area.sqrt()
    # A keypoint similarity as COCO's, with the head region for the object's area.
    squared = (points - true_points).square().sum(dim=-1)  # (P, V) px^2
    # COCO's exponent d^2 / (2 k^2 area) with k = 2 sigma: 0.005 * 0.53 area as its denominator.
    spread_px2 = (2 * OKS_SIGMA) ** 2 * (OKS_AREA_FRACTION * area + 1e-9) * 2
    return (1 - torch.exp(-squared / spread_px2[:, None])).mean(dim=1)


def spread(items: Tensor, count: int | None) -> Tensor:
    """Return at most `count` items, evenly spread over their order; the same ones every time.

    Args:
        items: (N,) anything.
        count: how many to take; all of them if none.

    Returns:
        (min(N, count),) items.
    """
    if count is None or len(items) <= count:
        return items
    return items[(torch.arange(count, device=items.device) * len(items)) // count]
