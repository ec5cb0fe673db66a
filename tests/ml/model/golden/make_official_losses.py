"""Record the published training losses, for tests that run without super-gradients.

    python tests/ml/model/golden/make_official_losses.py

Run it where super-gradients 3.7.1 and smplx are installed; it imports nothing of this project but
`seeded.py`. Classification, box, DFL, the OKS-like reprojection and the assignment are those of
super-gradients' own YoloNASPoseLoss, with the head's vertices as its keypoints; the meshes are
smplx's; the vertices and rotation terms are written out here as the published training has them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from seeded import LOSS_MAPS, LOSS_VERTICES, seeded_head, seeded_loss_case
from smplx.lbs import lbs
from super_gradients.training.losses.yolo_nas_pose_loss import YoloNASPoseLoss
from torch import Tensor

NUM_SHAPE, NUM_EXPRESSION = 64, 32
WEIGHTS = {  # classification, box, DFL, vertices, rotation, reprojection
    "official": (1.0, 2.0, 0.01, 50.0, 1.0, 5.0),
    "paper": (0.5, 2.5, 0.5, 50.0, 1.0, 1.0),
}


def meshes(shape: Tensor, expression: Tensor, jaw: Tensor) -> Tensor:
    """(P, V, 3) metres at rest but for the jaw, origin in the skull."""
    head = {name: torch.from_numpy(array).double() for name, array in seeded_head().items()}
    betas = torch.zeros(len(jaw), 400, dtype=torch.float64)
    betas[:, : shape.shape[1]] = shape
    betas[:, 300 : 300 + expression.shape[1]] = expression
    rest = jaw.new_zeros(len(jaw), 6)
    vertices, _ = lbs(
        betas,
        torch.cat([rest, jaw, rest], dim=1),
        head["v_template"][None],
        head["shapedirs"],
        head["posedirs"].reshape(-1, 36).T,
        head["J_regressor"],
        torch.tensor([-1, 0, 1, 1, 1]),
        head["weights"],
    )
    return (vertices + vertices.new_tensor([0, 0, 0.05]))[:, LOSS_VERTICES]


def rotations(six: Tensor) -> Tensor:
    """(P, 3, 3) whose first two columns are six orthonormalised."""
    first = torch.nn.functional.normalize(six[:, :3], dim=1)
    third = torch.nn.functional.normalize(torch.linalg.cross(first, six[:, 3:]), dim=1)
    return torch.stack([first, torch.linalg.cross(third, first), third], dim=2)


def in_unit_cube(vertices: Tensor) -> Tensor:
    """Meshes between -1 and 1."""
    vertices = vertices - vertices.min(dim=1, keepdim=True).values
    vertices = vertices - vertices.max(dim=1, keepdim=True).values / 2
    return vertices / vertices.flatten(1).max(dim=1).values[:, None, None]


def anchors() -> tuple[Tensor, Tensor]:
    """Centres, px, and strides."""
    centres, strides = [], []
    for (height, width), stride in zip(LOSS_MAPS, (8, 16, 32), strict=True):
        for y in range(height):
            for x in range(width):
                centres.append([(x + 0.5) * stride, (y + 0.5) * stride])
                strides.append([float(stride)])
    return torch.tensor(centres, dtype=torch.float64), torch.tensor(strides, dtype=torch.float64)


def main() -> None:
    """Compute both forms and their gradients, and write them."""
    torch.set_default_dtype(torch.float64)
    case = seeded_loss_case(NUM_SHAPE, NUM_EXPRESSION)
    case = {name: t.double() if t.is_floating_point() else t for name, t in case.items()}
    leaves = [case[name].requires_grad_() for name in ("score_logits", "box_logits", "flame")]
    logits, sides, raw = leaves
    centres, strides = anchors()
    num_images, num_anchors = logits.shape

    shape, expression, jaw, six, shift, zoom = raw.split(
        [NUM_SHAPE, NUM_EXPRESSION, 3, 6, 3, 1], dim=-1
    )
    rows = num_images * num_anchors
    vertices = meshes(
        3 * torch.tanh(shape).reshape(rows, -1),
        3 * torch.tanh(expression).reshape(rows, -1),
        jaw.reshape(rows, 3),
    )
    turned = torch.einsum("pij,pvj->pvi", rotations(six.reshape(rows, 6)), vertices)
    scale = (torch.exp(zoom) / 0.05 * strides).reshape(rows, 1, 1)
    points = scale * turned[..., :2] + (shift[..., :2] + centres).reshape(rows, 1, 2)

    truth = case["true_flame"]
    true_vertices = meshes(truth[:, :300], truth[:, 300:400], truth[:, 400:403])
    true_rotation = rotations(truth[:, 403:409])
    true_points = torch.einsum("pij,pvj->pvi", true_rotation, true_vertices)
    true_points = truth[:, 412, None, None] * true_points[..., :2] + truth[:, None, 409:411]

    num_points = true_points.shape[1]
    loss = YoloNASPoseLoss(
        oks_sigmas=[0.025] * num_points,
        iou_loss_weight=1.0,
        dfl_loss_weight=1.0,
        pose_cls_loss_weight=0.0,
    )
    index = case["image_index"].double()[:, None]
    visible = torch.ones(len(truth), num_points, 1, dtype=torch.float64)
    joints = torch.cat([true_points, visible], dim=-1)
    labels = (
        torch.cat([index, case["boxes"]], dim=1),
        torch.cat([index[:, None].expand(-1, num_points, 1), joints], dim=-1),
        torch.cat([index, torch.zeros_like(index)], dim=1),
    )
    found = {}
    assign = loss.assigner.forward

    def remember(**arguments: Tensor) -> object:
        found["result"] = assign(**arguments)
        return found["result"]

    def run() -> list[Tensor]:
        """Each of super-gradients' terms on its own, with its graph."""
        terms = []
        for kept in ("classification", "iou", "dfl", "pose_reg"):
            for name in ("classification", "iou", "dfl", "pose_reg"):
                setattr(loss, f"{name}_loss_weight", float(name == kept))
            predictions = (
                logits[..., None],
                sides.flatten(2),
                points.reshape(num_images, num_anchors, num_points, 2),
                torch.zeros(num_images, num_anchors, num_points, dtype=torch.float64),
                None,
                centres,
                [64, 16, 4],
                strides,
            )
            terms.append(loss((None, predictions), labels)[0])
        return terms

    loss.assigner.forward = remember
    classification, box, dfl, oks = run()
    result = found["result"]
    positive = (result.assigned_labels == 0).flatten()
    # Rows of the labels: an anchor's label is the one that has its box.
    owner = torch.cdist(result.assigned_bboxes.reshape(-1, 4), case["boxes"]).argmin(dim=1)
    owner = owner[positive]
    difference = in_unit_cube(vertices[positive]) - in_unit_cube(true_vertices)[owner]
    mine, theirs = rotations(six.reshape(rows, 6))[positive], true_rotation[owner]
    cosine = ((mine * theirs).sum(dim=(1, 2)) - 1) / 2
    rotation = torch.acos(cosine.clamp(-1 + 1e-7, 1 - 1e-7)).mean()
    size = case["boxes"][owner, 2:] - case["boxes"][owner, :2]
    l1 = (points[positive] - true_points[owner]).abs().mean(dim=(1, 2)) / size.prod(dim=1).sqrt()
    smooth = torch.nn.functional.smooth_l1_loss(
        difference, torch.zeros_like(difference), reduction="mean"
    )
    forms = {
        "official": (classification, box, dfl, smooth, rotation, oks),
        "paper": (classification, box, dfl, difference.square().mean(), rotation, l1.mean()),
    }
    recorded = {
        "target": np.full(rows, -1),
        "score": result.assigned_scores.flatten().detach().numpy(),
    }
    recorded["target"][positive.numpy()] = owner.numpy()
    for form, terms in forms.items():
        total = sum(w * t for w, t in zip(WEIGHTS[form], terms, strict=True))
        gradients = torch.autograd.grad(total, leaves, retain_graph=True)
        recorded[f"{form}.terms"] = np.array([t.item() for t in (*terms, total)])
        recorded[f"{form}.score_gradient"] = gradients[0].numpy()
        recorded[f"{form}.box_gradient"] = gradients[1].square().sum(dim=(2, 3)).sqrt().numpy()
        recorded[f"{form}.flame_gradient"] = (gradients[2] * case["probe"]).sum(dim=2).numpy()
        print(form, recorded[f"{form}.terms"])
    path = Path(__file__).parent / "official_losses.npz"
    np.savez_compressed(
        path,
        **{
            name: array.astype(np.int16 if array.dtype.kind == "i" else np.float32)
            for name, array in recorded.items()
        },
    )
    print(f"{int(positive.sum())} positives; {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
