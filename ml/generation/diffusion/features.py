"""Cache of a T2I-Adapter's features for the images that share a pose.

They do not depend on the step or the prompt, so several images of one pose need them once. Each
condition is computed alone: its features do not depend on the batch.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

_KEPT = 16
"""Cached conditions; about 30 MB each for SDXL at 1024 px in half precision."""


class FeatureCache:
    """Wrapper of an adapter's forward function that caches its last results."""

    def __init__(self, forward: Any, kept: int = _KEPT) -> None:
        """Keep the function.

        Args:
            forward: the adapter's own.
            kept: number of conditions to cache.
        """
        self._forward = forward
        self._kept = kept
        self._features: OrderedDict[str, list[Tensor]] = OrderedDict()
        self.computed = 0

    def __call__(self, x: Tensor) -> list[Tensor]:
        """Return features of a batch of conditions.

        Args:
            x: (B, 3, H, W) conditions in [0, 1].

        Returns:
            One (B, C, h, w) tensor per level.
        """
        levels = zip(*(self._of_one(condition[None]) for condition in x), strict=True)
        return [torch.cat(level) for level in levels]

    def _of_one(self, condition: Tensor) -> list[Tensor]:
        data = condition.detach().to("cpu", torch.float32).contiguous().numpy()
        key = hashlib.sha256(f"{data.shape}".encode() + data.tobytes()).hexdigest()
        if key not in self._features:
            self.computed += 1
            self._features[key] = list(self._forward(condition))
            if len(self._features) > self._kept:
                self._features.popitem(last=False)
        self._features.move_to_end(key)
        return self._features[key]


def cache_features(adapter: nn.Module) -> FeatureCache:
    """Make an adapter cache its features.

    Args:
        adapter: a T2I-Adapter; its forward function is replaced.

    Returns:
        The cache.
    """
    cache = FeatureCache(adapter.forward)
    # nn.Module looks up its forward function on the instance.
    object.__setattr__(adapter, "forward", cache)
    return cache
