"""The nano detector, which trains its FLAME branches only where a head is learned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ml.model.config import HeadConfig
from ml.model.detector import HeadDetectorNetwork
from ml.model.nano.heads import NanoHeads
from ml.model.outputs import Anchors


@dataclass(frozen=True)
class SparseOutputs:
    """Predictions of a batch whose FLAME values are computed at requested anchors only.

    Attributes:
        score_logits: (B, A).
        box_logits: (B, A, 4, reg_max + 1), distances left, top, right, bottom.
        flame_at: (N,) images and (N,) anchors -> (N, K) raw values as in `RawOutputs.flame`.
        anchors: the anchors.
        config: how to decode.
    """

    score_logits: Tensor
    box_logits: Tensor
    flame_at: Callable[[Tensor, Tensor], Tensor]
    anchors: Anchors
    config: HeadConfig


class NanoNetwork(HeadDetectorNetwork):
    """The published network's encoder, neck and heads in our own small forms."""

    heads: NanoHeads

    def training_outputs(self, images: Tensor) -> SparseOutputs:
        """Predict scores and boxes of all anchors, and FLAME values at requested anchors.

        A training step asks for those of the anchors that learn a head, one in fifty or fewer.

        Args:
            images: as for `forward`.

        Returns:
            The raw predictions.

        Raises:
            ValueError: the images have another shape.
        """
        maps, anchors = self._maps(images)
        scores, sides = self.heads.boxes(maps)
        device = images.device.type
        enabled, dtype = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)

        def flame_at(image: Tensor, anchor: Tensor) -> Tensor:
            # A loss asks in full precision; the branches continue in the network's.
            with torch.autocast(device, dtype=dtype, enabled=enabled):
                return self.heads.flame_at(maps, image, anchor)

        return SparseOutputs(scores, sides, flame_at, anchors, self.config.head)
