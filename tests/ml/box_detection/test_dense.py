"""Dense supervision: targets by hand, a gradient that helps, nothing on empty images."""

from __future__ import annotations

import pytest
import torch

from ml.box_detection.dense import DenseSupervision, _box_loss, box_targets
from ml.model.assigner import Assignment


def labels(*boxes):
    return {"boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)}


def maps(seed=0, size=64):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, 8, size // s, size // s, generator=generator) for s in (8, 16, 32)]


def test_targets_by_hand():
    targets = box_targets([labels(), labels((0.5, 0.5, 0.25, 0.5), (0.25, 0.25, 0.5, 0.5))], 64)
    assert targets.boxes_xyxy.tolist() == [[24, 16, 40, 48], [0, 0, 32, 32]]
    assert targets.image_index.tolist() == [1, 1]
    assert not targets.flame_valid.any()
    assert not targets.ignore.any()


def test_the_box_loss_by_hand():
    """Boxes of 4 and 6 px^2 that share 1 in a hull of 12: GIoU is 1/9 - 3/12; half a score."""
    targets = box_targets([labels((2.5 / 64, 2 / 64, 3 / 64, 2 / 64))], 64)  # (1, 1, 4, 3)
    found = Assignment(
        torch.tensor([[-1, 0]]), torch.tensor([[0.0, 0.5]]), torch.zeros(1, 2, dtype=torch.bool)
    )
    boxes = torch.tensor([[[9.0, 9.0, 10.0, 10.0], [0.0, 0.0, 2.0, 2.0]]])
    assert _box_loss(boxes, targets, found).item() == pytest.approx(0.5 * (1 - (1 / 9 - 3 / 12)))


def test_following_its_gradient_lowers_it():
    torch.manual_seed(0)
    branch = DenseSupervision(8, 64)
    taught = [labels((0.5, 0.5, 0.3, 0.4)), labels((0.3, 0.6, 0.5, 0.5), (0.8, 0.2, 0.2, 0.2))]
    features = [m.requires_grad_() for m in maps()]
    optimizer = torch.optim.Adam([*branch.parameters(), *features], lr=0.05)
    values = []
    for _ in range(60):
        loss = branch(features, taught)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    assert values[-1] < 0.5 * values[0]
    # Gradients reach every map: heads of any size are targets somewhere, the rest is background.
    assert all(m.grad is not None and m.grad.any() for m in features)


@pytest.mark.parametrize("count", [1, 2])
def test_without_heads_it_teaches_background(count):
    branch = DenseSupervision(8, 64)
    features = [m[:count].clone().requires_grad_() for m in maps()]
    loss = branch(features, [labels()] * count)
    loss.backward()
    assert torch.isfinite(loss)
    assert loss > 0
    assert features[0].grad.any()


def test_the_order_of_images_does_not_matter():
    branch = DenseSupervision(8, 64)
    taught = [labels((0.5, 0.5, 0.3, 0.4)), labels()]
    forwards = branch(maps(), taught)
    backwards = branch([m.flip(0) for m in maps()], taught[::-1])
    torch.testing.assert_close(forwards, backwards)
