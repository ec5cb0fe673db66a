import numpy as np
import pytest
import torch

from ml.imaging.boxes import box_iou
from ml.model.assigner import AssignerConfig, assign
from ml.model.outputs import Anchors
from ml.model.targets import HeadTargets

ANCHORS = Anchors.of_maps([(8, 8), (4, 4), (2, 2)], (8, 16, 32), torch.device("cpu"))
NUM_ANCHORS = 84


def targets_of(images: list[list[list[float]]], ignore: list[list[bool]] | None = None):
    parts = []
    for i, boxes in enumerate(images):
        count = len(boxes)
        flags = torch.tensor(ignore[i], dtype=torch.bool) if ignore else None
        parts.append(
            HeadTargets.of_image(
                torch.tensor(boxes).reshape(count, 4), torch.zeros(count, 413), ignore=flags
            )
        )
    return HeadTargets.collate(parts)


def naive_assign(scores, boxes, targets: HeadTargets, config: AssignerConfig):
    """Image by image, head by head, anchor by anchor."""
    num_images = len(scores)
    target = np.full((num_images, NUM_ANCHORS), -1)
    soft = np.zeros((num_images, NUM_ANCHORS))
    ignored = np.zeros((num_images, NUM_ANCHORS), dtype=bool)
    centres = ANCHORS.centres_px.numpy()
    for b in range(num_images):
        rows = [r for r in range(len(targets)) if targets.image_index[r] == b]
        claims: dict[int, list[tuple[float, int]]] = {}
        alignment, overlap = {}, {}
        for r in rows:
            x0, y0, x1, y1 = targets.boxes_xyxy[r].tolist()
            inside = [a for a, (x, y) in enumerate(centres) if x0 < x < x1 and y0 < y < y1]
            if targets.ignore[r]:
                ignored[b, inside] = True
                continue
            for a in inside:
                iou = box_iou(targets.boxes_xyxy[r][None], boxes[b, a][None]).item()
                overlap[r, a] = iou
                alignment[r, a] = scores[b, a].item() ** config.score_power * iou**config.iou_power
            best = sorted(inside, key=lambda a: -alignment[r, a])[: config.top_k]
            for a in best:
                claims.setdefault(a, []).append((overlap[r, a], r))
        for a, candidates in claims.items():
            target[b, a] = max(candidates)[1]
        for r in rows:
            own = [a for a in range(NUM_ANCHORS) if target[b, a] == r]
            if own:
                most = max(alignment[r, a] for a in own)
                best_iou = max(overlap[r, a] for a in own)
                for a in own:
                    soft[b, a] = alignment[r, a] / most * best_iou
    return target, soft, ignored & (target < 0)


def random_predictions(num_images: int, rng: np.random.Generator):
    scores = torch.from_numpy(rng.uniform(0.05, 0.95, (num_images, NUM_ANCHORS))).float()
    reach = torch.from_numpy(rng.uniform(4, 24, (num_images, NUM_ANCHORS, 4))).float()
    centres = ANCHORS.centres_px
    boxes = torch.cat([centres - reach[..., :2], centres + reach[..., 2:]], dim=-1)
    return scores, boxes


@pytest.mark.parametrize("seed", range(6))
def test_equals_the_naive_one(seed):
    rng = np.random.default_rng(seed)
    images, ignore = [], []
    for count in (3, 0, 6, 1):
        low = rng.uniform(0, 40, (count, 2))
        images.append(np.concatenate([low, low + rng.uniform(3, 30, (count, 2))], axis=1).tolist())
        ignore.append((rng.uniform(size=count) < 0.3).tolist())
    targets = targets_of(images, ignore)
    scores, boxes = random_predictions(4, rng)
    config = AssignerConfig(top_k=int(rng.integers(1, 14)))
    found = assign(scores, boxes, ANCHORS, targets, config)
    target, soft, ignored = naive_assign(scores, boxes, targets, config)
    np.testing.assert_array_equal(found.target, target)
    np.testing.assert_allclose(found.score, soft, rtol=1e-4, atol=1e-7)
    np.testing.assert_array_equal(found.ignored, ignored)


def test_the_order_of_heads_in_the_batch_does_not_matter():
    rng = np.random.default_rng(9)
    scores, boxes = random_predictions(2, rng)
    targets = targets_of([[[0.0, 0, 30, 30], [20.0, 20, 60, 60]], [[5.0, 5, 40, 50]]])
    order = torch.tensor([2, 0, 1])
    shuffled = HeadTargets(
        *(
            getattr(targets, name)[order]
            for name in ("boxes_xyxy", "flame", "flame_valid", "ignore", "image_index")
        )
    )
    first = assign(scores, boxes, ANCHORS, targets, AssignerConfig())
    second = assign(scores, boxes, ANCHORS, shuffled, AssignerConfig())
    torch.testing.assert_close(first.score, second.score)
    mapped = torch.where(second.target >= 0, order[second.target.clamp(min=0)], -1)
    torch.testing.assert_close(first.target, mapped)


def test_perfect_prediction_learns_score_one():
    scores, boxes = random_predictions(1, np.random.default_rng(0))
    truth = [8.0, 8.0, 24.0, 24.0]
    boxes[0, 9] = torch.tensor(truth)  # centre (12, 12)
    found = assign(scores, boxes, ANCHORS, targets_of([[truth]]), AssignerConfig())
    assert found.target[0, 9] == 0
    assert found.score[0, 9].item() == pytest.approx(1.0, abs=1e-5)


def test_no_heads_at_all():
    scores, boxes = random_predictions(2, np.random.default_rng(0))
    found = assign(scores, boxes, ANCHORS, HeadTargets.empty(), AssignerConfig())
    assert (found.target == -1).all()
    assert found.score.sum() == 0
    assert not found.ignored.any()


def test_only_ignored_heads():
    scores, boxes = random_predictions(1, np.random.default_rng(0))
    targets = targets_of([[[0.0, 0, 16, 16]]], [[True]])
    found = assign(scores, boxes, ANCHORS, targets, AssignerConfig())
    assert (found.target == -1).all()
    assert found.ignored.sum() == 4 + 1  # stride 8: 2 x 2 centres; stride 16: one


def test_heads_of_images_that_are_not_there():
    scores, boxes = random_predictions(1, np.random.default_rng(0))
    targets = targets_of([[], [[0.0, 0, 16, 16]]])
    with pytest.raises(ValueError, match="expected values below 1, the number of images, got 1"):
        assign(scores, boxes, ANCHORS, targets, AssignerConfig())
