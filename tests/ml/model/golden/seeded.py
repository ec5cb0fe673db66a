"""Weights and images that are the same everywhere: for a recorded output and who checks it.

Imports numpy and torch alone, so that it also runs where super-gradients is installed.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor

SIZES = ("S", "M", "L")
NUM_IMAGES = {256: 2, 640: 1}
"""Images of a side, px, whose outputs are recorded."""
NUM_ANCHORS = 24
"""Anchors of each image whose outputs are recorded one by one."""


def is_statistic(name: str) -> bool:
    """Whether an entry is a running statistic; these are recorded, they come from data."""
    return name.endswith((".running_mean", ".running_var"))


def seeded_weights(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Every entry but the running statistics, from its name and shape alone."""
    return {name: _seeded(name, shape) for name, shape in shapes.items() if not is_statistic(name)}


def _seeded(name: str, shape: tuple[int, ...]) -> Tensor:
    if name.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    uniform = np.random.Generator(np.random.PCG64(seed)).random(shape, np.float32) * 2 - 1
    if len(shape) == 4:
        # Keeps the variance; predictions get a smaller one, so that none is saturated.
        fan_in = shape[0] if ".upsample." in name else math.prod(shape[1:])
        prediction = name.split(".")[-2].isdigit() or name.split(".")[-2].endswith("_pred")
        high = math.sqrt((0.5 if prediction else 6) / fan_in)
        low = -high
    elif name.endswith(("bn.weight", "alpha")):
        low, high = 0.7, 1.3
    elif name.endswith("bn.bias"):
        # Mostly above zero: a network of many rectifiers that cut half of everything amplifies
        # rounding a thousandfold.
        low, high = 1.0, 2.0
    else:
        low, high = -0.3, 0.3
    values = (low + high) / 2 + uniform * (high - low) / 2
    return torch.from_numpy(values.astype(np.float32))


def seeded_images(side_px: int, count: int) -> Tensor:
    """(count, 3, side, side) float32 in [0, 1]: patches of 16 px with some grain."""
    rng = np.random.Generator(np.random.PCG64(side_px))
    patches = rng.random((count, 3, side_px // 16, side_px // 16), np.float32)
    grain = rng.random((count, 3, side_px, side_px), np.float32)
    images = np.kron(patches, np.ones((1, 1, 16, 16), np.float32))
    return torch.from_numpy((0.8 * images + 0.2 * grain).astype(np.float32))


def seeded_anchors(side_px: int) -> Tensor:
    """(NUM_ANCHORS,) int64 anchors, the same number of each scale."""
    rng = np.random.Generator(np.random.PCG64(side_px + 1))
    counts = [(side_px // stride) ** 2 for stride in (8, 16, 32)]
    starts = np.cumsum([0, *counts])
    third = NUM_ANCHORS // 3
    chosen = [
        start + rng.permutation(count)[:third] for start, count in zip(starts, counts, strict=False)
    ]
    return torch.from_numpy(np.concatenate(chosen).astype(np.int64))


def layout_digest(shapes: Mapping[str, Iterable[int]]) -> str:
    """Digest of a state dict's names and shapes."""
    lines = sorted(f"{name}\t{tuple(shape)}" for name, shape in shapes.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def seeded_head() -> dict[str, np.ndarray]:
    """Arrays of a head model: a bumpy ball with FLAME's counts whose lower half follows the jaw."""
    rng = np.random.Generator(np.random.PCG64(5))
    points = rng.random((5023, 3)) - 0.5
    points = 0.1 * points / np.linalg.norm(points, axis=1, keepdims=True)
    weights = np.zeros((5023, 5))
    weights[:, 2] = np.clip(-10 * points[:, 1], 0, 1)
    weights[:, 1] = 1 - weights[:, 2]
    shapedirs = np.zeros((5023, 3, 400), np.float32)
    for leading in (slice(0, 80), slice(300, 340)):
        part = shapedirs[:, :, leading]
        part[:] = 0.006 * (rng.random(part.shape, np.float32) - 0.5)
    regressor = rng.random((5, 5023))
    return {
        "v_template": points.astype(np.float32),
        "shapedirs": shapedirs,
        "posedirs": (0.004 * (rng.random((5023, 3, 36)) - 0.5)).astype(np.float32),
        "J_regressor": (regressor / regressor.sum(axis=1, keepdims=True)).astype(np.float32),
        "weights": weights.astype(np.float32),
    }


LOSS_MAPS = ((8, 8), (4, 4), (2, 2))
LOSS_VERTICES = slice(0, 5023, 2)
"""The vertices that the recorded losses compare."""


def seeded_loss_case(num_shape: int, num_expression: int) -> dict[str, Tensor]:
    """Raw outputs for three images of 64 px and labels of five heads in two of them.

    Two of the heads overlap; one image has none. Raw FLAME values are in our order: shape,
    expression, jaw, rotation, translation, scale; labels hold all 413.
    """
    rng = np.random.Generator(np.random.PCG64(6))
    anchors = sum(height * width for height, width in LOSS_MAPS)

    def uniform(*shape: int) -> np.ndarray:
        return 2 * rng.random(shape) - 1

    low = np.array([[4, 6], [10, 12], [38, 30], [2, 2], [30, 8]]) + 2 * uniform(5, 2)
    size = np.array([[20, 26], [22, 20], [14, 18], [40, 44], [24, 30]]) + 2 * uniform(5, 2)
    boxes = np.concatenate([low, low + size], axis=1)
    flame = np.zeros((5, 413))
    flame[:, :400] = uniform(5, 400)
    flame[:, 400:403] = 0.2 * uniform(5, 3)
    flame[:, 403:409] = [1, 0, 0, 0, -1, 0] + 0.5 * uniform(5, 6)
    flame[:, 409:411] = low + size / 2 + uniform(5, 2)
    flame[:, 412] = 5 * size.max(axis=1)
    # Predictions are somewhat like the nearest head: far off, some terms are all but constant.
    grids = [np.mgrid[:height, :width].reshape(2, -1)[::-1].T + 0.5 for height, width in LOSS_MAPS]
    strides = np.concatenate([np.full(len(g), s) for g, s in zip(grids, (8, 16, 32), strict=True)])[
        :, None
    ]
    centres = np.concatenate(grids) * strides
    distances = np.linalg.norm(centres[:, None] - (low + size / 2), axis=2)
    near = np.stack(
        [distances[:, :3].argmin(1), distances.argmin(1), 3 + distances[:, 3:].argmin(1)]
    )
    sides = np.concatenate([centres - low[near], (low + size)[near] - centres], axis=2) / strides
    raw = 0.5 * uniform(3, anchors, num_shape + num_expression + 13)
    raw[..., -13:-4] = flame[near, 400:409] + 0.15 * uniform(3, anchors, 9)
    raw[..., -4:-2] = flame[near, 409:411] - centres + uniform(3, anchors, 2)
    raw[..., -1:] = np.log(flame[near, 412:] * 0.05 / strides) + 0.1 * uniform(3, anchors, 1)
    arrays = {
        "score_logits": uniform(3, anchors) - 1,
        "box_logits": uniform(3, anchors, 4, 17) - 0.3 * (np.arange(17) - sides[..., None]) ** 2,
        "flame": raw,
        "boxes": boxes,
        "true_flame": flame,
        "probe": uniform(3, anchors, num_shape + num_expression + 13),
    }
    tensors = {name: torch.from_numpy(array.astype(np.float32)) for name, array in arrays.items()}
    return tensors | {"image_index": torch.tensor([0, 0, 0, 2, 2])}
