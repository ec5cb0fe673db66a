import math

import numpy as np
import pytest
import torch

from ml.flame.layer import FlameLayer
from ml.flame.params import FlameParameters, join
from ml.imaging.letterbox import Letterbox
from ml.model.assigner import Assignment, assign
from ml.model.building import build_detector
from ml.model.decode import decode
from ml.model.losses import (
    HeadLoss,
    LossConfig,
    classification_loss,
    distribution_focal_loss,
    loss_config,
    reprojection_loss,
    spread,
    unit_cube,
    vertices_loss,
)
from ml.model.nano.network import SparseOutputs
from ml.model.outputs import Anchors, RawOutputs
from ml.model.postprocess import PostprocessConfig, postprocess
from ml.model.targets import HeadTargets

TERMS = ("classification", "box", "dfl", "vertices", "rotation", "reprojection")


def make_outputs(head_config, num_images=2) -> RawOutputs:
    anchors = Anchors.of_maps([(8, 8), (4, 4), (2, 2)], (8, 16, 32), torch.device("cpu"))
    raw = torch.randn(num_images, 84, 61) * 0.3
    raw[..., 51:57] += torch.tensor([1.0, 0, 0, 0, -1, 0])
    return RawOutputs(
        (torch.randn(num_images, 84) - 1).requires_grad_(),
        torch.randn(num_images, 84, 4, 17).requires_grad_(),
        raw.requires_grad_(),
        anchors,
        head_config,
    )


def make_targets(per_image: list[int], seed=0) -> HeadTargets:
    rng = np.random.default_rng(seed)
    parts = []
    for count in per_image:
        low = rng.uniform(0, 30, (count, 2))
        boxes = np.concatenate([low, low + rng.uniform(12, 34, (count, 2))], axis=1)
        flame = np.zeros((count, 413))
        flame[:, :300] = rng.normal(size=(count, 300))
        flame[:, 300:403] = 0.3 * rng.normal(size=(count, 103))
        flame[:, 403:409] = [1, 0, 0, 0, -1, 0] + 0.4 * rng.normal(size=(count, 6))
        flame[:, 409:411] = (boxes[:, :2] + boxes[:, 2:]) / 2
        flame[:, 412] = rng.uniform(80, 160, count)
        parts.append(HeadTargets.of_image(torch.tensor(boxes).float(), torch.tensor(flame).float()))
    return HeadTargets.collate(parts)


def naive_terms(outputs, targets, config, head_model):
    """The six terms anchor by anchor, from the decoded 413 parameters."""
    decoded = decode(outputs)
    found = assign(decoded.scores, decoded.boxes_xyxy, outputs.anchors, targets, config.assigner)
    layer = FlameLayer(head_model, vertices="head")
    terms = dict.fromkeys(TERMS, 0.0)
    total, poses = max(found.score.sum().item(), 1.0), 0
    num_images, num_anchors = found.target.shape
    for b in range(num_images):
        for a in range(num_anchors):
            p, q = decoded.scores[b, a].item(), found.score[b, a].item()
            entropy = -(q * math.log(p) + (1 - q) * math.log(1 - p))
            if not found.ignored[b, a]:
                terms["classification"] += (p - q) ** 2 * entropy / total
            row = int(found.target[b, a])
            if row < 0:
                continue
            truth = targets.boxes_xyxy[row]
            terms["box"] += q / total * naive_ciou_loss(decoded.boxes_xyxy[b, a], truth)
            x, y = outputs.anchors.centres_px[a].tolist()
            stride = outputs.anchors.strides[a].item()
            sides = [x - truth[0], y - truth[1], truth[2] - x, truth[3] - y]
            for side, distance in enumerate(sides):
                at = min(max(float(distance) / stride, 0.0), 15.99)
                left = int(at)
                log_p = outputs.box_logits[b, a, side].log_softmax(0)
                part = -(log_p[left] * (left + 1 - at) + log_p[left + 1] * (at - left))
                terms["dfl"] += q / total * part.item() / 4
            poses += 1
            pair = torch.stack([decoded.flame[b, a], targets.flame[row]])
            mesh = layer.vertices(pair).double()
            mesh = mesh - mesh.amin(dim=1, keepdim=True)
            mesh = mesh - mesh.amax(dim=1, keepdim=True) / 2
            mesh = mesh / mesh.amax(dim=(1, 2), keepdim=True)
            difference = mesh[0] - mesh[1]
            if config.vertices == "l2":
                terms["vertices"] += difference.square().mean().item()
            else:
                terms["vertices"] += (difference.square() / 2).mean().item()  # all below 1
            ours, theirs = (naive_matrix(f[403:409].double()) for f in pair)
            terms["rotation"] += math.acos((torch.trace(ours @ theirs.T).item() - 1) / 2)
            points = layer.vertices_in_image(pair)[..., :2].double()
            width, height = (truth[2:] - truth[:2]).double().tolist()
            if config.reprojection == "l1":
                distance = (points[0] - points[1]).abs().mean().item()
                terms["reprojection"] += distance / math.sqrt(width * height)
            else:
                squared = (points[0] - points[1]).square().sum(-1)
                oks = torch.exp(-squared / (0.005 * 0.53 * width * height))
                terms["reprojection"] += (1 - oks).mean().item()
    for name in ("vertices", "rotation", "reprojection"):
        terms[name] /= max(poses, 1)
    return terms


def naive_ciou_loss(box, truth):
    a, b = box.double().tolist(), truth.double().tolist()
    common = max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    size_a, size_b = (a[2] - a[0], a[3] - a[1]), (b[2] - b[0], b[3] - b[1])
    iou = common / (size_a[0] * size_a[1] + size_b[0] * size_b[1] - common)
    d2 = ((a[0] + a[2] - b[0] - b[2]) / 2) ** 2 + ((a[1] + a[3] - b[1] - b[3]) / 2) ** 2
    c2 = (max(a[2], b[2]) - min(a[0], b[0])) ** 2 + (max(a[3], b[3]) - min(a[1], b[1])) ** 2
    v = 4 / math.pi**2 * (math.atan(size_b[0] / size_b[1]) - math.atan(size_a[0] / size_a[1])) ** 2
    return 1 - iou + d2 / c2 + v * v / ((1 - iou) + v)


def naive_matrix(six):
    first = six[:3] / six[:3].norm()
    third = torch.linalg.cross(first, six[3:])
    third = third / third.norm()
    return torch.stack([first, torch.linalg.cross(third, first), third], dim=1)


@pytest.mark.parametrize("form", ["paper", "official"])
def test_equals_the_naive_terms(form, head_config, head_model):
    config = loss_config(form).model_copy(update={"num_vertices": None})
    outputs, targets = make_outputs(head_config), make_targets([2, 1])
    found = HeadLoss(config, head_model)(outputs, targets)
    expected = naive_terms(outputs, targets, config, head_model)
    for name in TERMS:
        assert found[name].item() == pytest.approx(expected[name], rel=2e-3), name
        assert expected[name] > 1e-6, name
    weights = config.model_dump()
    total = sum(weights[f"{name}_weight"] * found[name].item() for name in TERMS)
    assert found["loss"].item() == pytest.approx(total, rel=1e-5)


def test_the_prior_pulls_the_coefficients_alone_and_is_off_by_default(head_config, head_model):
    outputs, targets = make_outputs(head_config), make_targets([2, 1])
    without = HeadLoss(LossConfig(), head_model)(outputs, targets)
    assert "prior" not in without
    found = HeadLoss(LossConfig(prior_weight=3.0), head_model)(outputs, targets)
    decoded = decode(outputs)
    assigned = assign(
        decoded.scores, decoded.boxes_xyxy, outputs.anchors, targets, LossConfig().assigner
    )
    flame = decoded.flame[assigned.target >= 0].detach()
    expected = float(flame[:, :400].square().mean())
    assert expected > 1e-3
    assert found["prior"].item() == pytest.approx(expected, rel=1e-5)
    assert found["loss"].item() == pytest.approx(without["loss"].item() + 3 * expected, rel=1e-5)
    found["prior"].backward()
    reached = outputs.flame.grad.abs().sum(dim=(0, 1)) > 0
    shape, expression = head_config.shape.out, head_config.expression.out
    assert reached.nonzero().flatten().tolist() == list(range(shape + expression))


def test_published_weights():
    paper, official = loss_config("paper"), loss_config("official")
    assert [getattr(paper, f"{n}_weight") for n in TERMS] == [0.5, 2.5, 0.5, 50, 1, 1]
    assert [getattr(official, f"{n}_weight") for n in TERMS] == [1, 2, 0.01, 50, 1, 5]
    with pytest.raises(ValueError, match="expected paper or official, got 'best'"):
        loss_config("best")  # type: ignore[arg-type]


def test_the_truth_costs_nothing(head_config, head_model):
    """Raw outputs that decode to the labels, but for what is not predicted."""
    targets = make_targets([1])
    targets.flame[:, 32:300] = 0
    targets.flame[:, 316:400] = 0
    targets.flame[:, :400] *= 0.5
    outputs = make_outputs(head_config, 1)
    centres, strides = outputs.anchors.centres_px, outputs.anchors.strides[:, None]
    flame = targets.flame.expand(84, -1)
    raw = [
        torch.atanh(flame[:, :32] / 3),
        torch.atanh(flame[:, 300:316] / 3),
        flame[:, 400:409],
        flame[:, 409:411] - centres,
        flame[:, 411:412],
        torch.log(flame[:, 412:] / 20 / strides),
    ]
    exact = RawOutputs(
        outputs.score_logits,
        outputs.box_logits,
        torch.cat(raw, dim=1)[None],
        outputs.anchors,
        head_config,
    )
    terms = HeadLoss(LossConfig(), head_model)(exact, targets)
    assert terms["positives"] > 0
    for name in ("vertices", "rotation", "reprojection"):
        assert terms[name].item() < 1e-3, name


@pytest.mark.parametrize("per_image", [[], [0, 0], [3, 2]])
def test_gradients_are_finite_and_reach_every_output(per_image, head_config, head_model):
    outputs = make_outputs(head_config)
    targets = make_targets(per_image) if per_image else HeadTargets.empty()
    terms = HeadLoss(LossConfig(), head_model)(outputs, targets)
    terms["loss"].backward()
    for tensor in (outputs.score_logits, outputs.box_logits, outputs.flame):
        assert tensor.grad is not None
        assert torch.isfinite(tensor.grad).all()
    some = bool(sum(per_image))
    assert (terms["positives"] > 0) == some
    assert (outputs.flame.grad.abs().sum() > 0) == some
    assert (outputs.box_logits.grad.abs().sum() > 0) == some
    assert outputs.score_logits.grad.abs().sum() > 0


def test_heads_without_parameters_teach_box_and_class_only(head_config, head_model):
    outputs, targets = make_outputs(head_config), make_targets([2, 1])
    loss = HeadLoss(LossConfig(), head_model)
    full = loss(outputs, targets)
    boxes_only = HeadTargets(
        targets.boxes_xyxy,
        torch.zeros_like(targets.flame),
        torch.zeros_like(targets.flame_valid),
        targets.ignore,
        targets.image_index,
    )
    found = loss(outputs, boxes_only)
    for name in ("classification", "box", "dfl"):
        assert found[name] == full[name]
    for name in ("vertices", "rotation", "reprojection"):
        assert found[name] == 0
    found["loss"].backward()
    assert outputs.flame.grad.abs().sum() == 0


def test_anchors_in_ignored_heads_are_not_background(head_config, head_model):
    outputs, targets = make_outputs(head_config, 1), make_targets([1])
    ignored = HeadTargets(
        targets.boxes_xyxy,
        targets.flame,
        targets.flame_valid,
        torch.ones_like(targets.ignore),
        targets.image_index,
    )
    HeadLoss(LossConfig(), head_model)(outputs, ignored)["loss"].backward()
    low, high = targets.boxes_xyxy[0, :2], targets.boxes_xyxy[0, 2:]
    centres = outputs.anchors.centres_px
    inside = ((centres > low) & (centres < high)).all(dim=1)
    assert inside.any()
    grad = outputs.score_logits.grad[0]
    assert (grad[inside] == 0).all()
    assert (grad[~inside] != 0).all()


def test_a_weight_of_zero_switches_a_term_off(head_config, head_model):
    outputs, targets = make_outputs(head_config), make_targets([2, 1])
    config = LossConfig(rotation_weight=0, reprojection_weight=0, vertices_weight=0)
    HeadLoss(config, head_model)(outputs, targets)["loss"].backward()
    assert outputs.flame.grad.abs().sum() == 0


def test_bounded_number_of_anchors_and_vertices(head_config, head_model):
    outputs, targets = make_outputs(head_config), make_targets([3, 3])
    loss = HeadLoss(LossConfig(max_positives=5, num_vertices=50), head_model)
    assert loss.layer.num_vertices == 50
    loss(outputs, targets)["loss"].backward()
    taught = (outputs.flame.grad.abs().sum(dim=-1) > 0).sum().item()
    assert taught == 5


def test_sparse_outputs_are_requested_for_trained_anchors_only(head_config, head_model):
    dense, targets = make_outputs(head_config), make_targets([3, 3])
    asked = []

    def flame_at(image, anchor):
        asked.append(len(image))
        return dense.flame_at(image, anchor)

    sparse = SparseOutputs(
        dense.score_logits, dense.box_logits, flame_at, dense.anchors, head_config
    )
    loss = HeadLoss(LossConfig(max_positives=5, num_vertices=50), head_model)
    assert torch.equal(loss(sparse, targets)["loss"], loss(dense, targets)["loss"])
    assert asked == [5]


def test_weights_by_score(head_config, head_model):
    """One anchor of score 1 outweighs others of score 0."""
    outputs, targets = make_outputs(head_config, 1), make_targets([1])
    loss = HeadLoss(LossConfig(weigh_by_score=True), head_model)
    score = torch.zeros(1, 84)
    target = torch.full((1, 84), -1)
    target[0, :2] = 0
    score[0, 0] = 1.0
    found = Assignment(target, score, torch.zeros(1, 84, dtype=torch.bool))
    sum(loss._flame_terms(outputs, targets, found).values()).backward()
    grad = outputs.flame.grad[0].abs().sum(dim=1)
    assert grad[0] > 0
    assert grad[1] == 0


def test_varifocal_by_hand():
    logits = torch.tensor([[0.0, 0.0]])
    found = Assignment(
        torch.tensor([[0, -1]]), torch.tensor([[0.5, 0.0]]), torch.zeros(1, 2, dtype=torch.bool)
    )
    config = LossConfig(classification="varifocal")
    expected = 0.5 * math.log(2) + 0.75 * 0.25 * math.log(2)
    assert classification_loss(logits, found, config).item() == pytest.approx(expected)
    focal = classification_loss(logits, found, LossConfig()).item()
    assert focal == pytest.approx(0.25 * math.log(2))


def test_distribution_focal_loss_is_least_at_the_truth():
    centre, stride = torch.tensor([[32.0, 32.0]]), torch.tensor([8.0])
    box = torch.tensor([[12.0, 16.0, 52.0, 48.0]])  # 2.5, 2, 2.5, 2 strides
    logits = torch.full((1, 4, 17), -30.0)
    logits[0, 0::2, 2:4] = 0.0
    logits[0, 1::2, 2] = 0.0
    best = distribution_focal_loss(logits, centre, stride, box).item()
    assert best == pytest.approx(math.log(2) / 2, abs=1e-4)
    far = torch.tensor([[-900.0, -900, 900, 900]])
    assert torch.isfinite(distribution_focal_loss(logits, centre, stride, far)).all()


def test_unit_cube_forgets_size_and_place():
    mesh = torch.rand(2, 30, 3) * torch.tensor([1.0, 3.0, 2.0])
    unit = unit_cube(mesh)
    torch.testing.assert_close(unit.amax(dim=(1, 2)), torch.ones(2))
    torch.testing.assert_close(unit.amin(dim=1), -unit.amax(dim=1))
    torch.testing.assert_close(unit_cube(5 * mesh + 2), unit, atol=1e-5, rtol=1e-5)


def test_vertices_and_reprojection_by_hand():
    zero, two = torch.zeros(1, 4, 3), torch.full((1, 4, 3), 2.0)
    assert vertices_loss(zero, two, "l2").item() == 4
    assert vertices_loss(zero, two, "smooth_l1").item() == 1.5
    points = torch.zeros(1, 4, 2)
    moved = points + torch.tensor([3.0, 1.0])
    box = torch.tensor([[0.0, 0, 10, 40]])
    assert reprojection_loss(points, moved, box, "l1").item() == pytest.approx(2 / 20)
    expected = 1 - math.exp(-10 / (0.005 * 0.53 * 400))
    assert reprojection_loss(points, moved, box, "oks").item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("size", "count", "expected"),
    [
        (5, None, [0, 1, 2, 3, 4]),
        (5, 9, [0, 1, 2, 3, 4]),
        (6, 3, [0, 2, 4]),
        (5, 2, [0, 2]),
        (0, 3, []),
    ],
)
def test_spread(size, count, expected):
    assert spread(torch.arange(size), count).tolist() == expected


DIRECT = LossConfig(
    num_vertices=64, reprojection="l1", reprojection_weight=25.0, rotation_weight=3.0
)
"""A loss with a gradient wherever a prediction lies; the published one has none far off."""


def test_a_few_steps_learn_the_heads(head_model, nano):
    """The whole chain: a tiny training on two images finds their heads with their poses."""
    targets = make_targets([1, 2], seed=4)
    images = torch.full((2, 3, 64, 64), 0.5)
    for box, index in zip(targets.boxes_xyxy.round().int(), targets.image_index, strict=True):
        x0, y0, x1, y1 = box.tolist()
        images[index, :, y0:y1, x0:x1] = torch.rand(3, 1, 1)
    model, loss = build_detector(nano), HeadLoss(DIRECT, head_model)
    optimiser = torch.optim.AdamW(model.parameters(), lr=4e-3)
    history = []
    for _ in range(40):
        terms = loss(model(images), targets)
        optimiser.zero_grad()
        terms["loss"].backward()
        optimiser.step()
        history.append(terms["loss"].item())
    assert history[-1] < 0.35 * history[0]
    found = postprocess(model(images), [Letterbox()] * 2, PostprocessConfig(score_threshold=0.3))
    assert sum(len(heads) for heads in found) >= 2


def test_padding_of_coefficients_matches_the_layer(head_model):
    """Leading coefficients alone and the padded vector make the same head."""
    pose = [torch.randn(2, 3) * 0.1, torch.ones(2, 6), torch.ones(2, 3), torch.ones(2, 1)]
    parts = FlameParameters(torch.randn(2, 32), torch.randn(2, 16), *pose)
    layer = FlameLayer(head_model, vertices="head")
    torch.testing.assert_close(
        layer(parts.shape, parts.expression, parts.jaw), layer.vertices(join(parts))
    )
