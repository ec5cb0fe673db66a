"""The network: encoder, neck, heads. Decoding, losses and fusion are in neighbouring modules."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ml.model.config import ModelConfig
from ml.model.flame_branches import STRIDES, DetectionHeads
from ml.model.outputs import Anchors, RawOutputs, TrainingOutputs


class HeadDetectorNetwork(nn.Module):
    """The single-shot detector of heads with FLAME parameters.

    Source: paper 4.2 and appendix B.
    """

    def __init__(
        self, config: ModelConfig, backbone: nn.Module, neck: nn.Module, heads: DetectionHeads
    ) -> None:
        """Join the parts; `ml.model.building.build_detector` makes them.

        Args:
            config: sizes of the parts.
            backbone: the encoder, images -> c2, c3, c4, c5.
            neck: c2, c3, c4, c5 -> p3, p4, p5.
            heads: p3, p4, p5 -> scores, boxes, raw FLAME values.
        """
        super().__init__()
        self.config = config
        self.backbone = backbone
        self.neck = neck
        self.heads = heads

    def forward(self, images: Tensor) -> RawOutputs:
        """Predict for a batch; decode the result with `ml.model.decode`.

        Args:
            images: (B, 3, H, W) RGB, uint8, or floating point in [0, 1]; H and W multiples of 32.

        Returns:
            The raw predictions of all anchors.

        Raises:
            ValueError: the images have another shape.
        """
        maps, anchors = self._maps(images)
        scores, sides, flame = self.heads(maps)
        return RawOutputs(scores, sides, flame, anchors, self.config.head)

    def training_outputs(self, images: Tensor) -> TrainingOutputs:
        """Predict for a batch what a training's loss reads.

        Args:
            images: as for `forward`.

        Returns:
            The raw predictions.

        Raises:
            ValueError: the images have another shape.
        """
        outputs: RawOutputs = self(images)
        return outputs

    def _maps(self, images: Tensor) -> tuple[tuple[Tensor, Tensor, Tensor], Anchors]:
        if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] % 32 or images.shape[3] % 32:
            raise ValueError(
                "images: expected (B, 3, H, W) with H and W multiples of 32, got "
                f"{tuple(images.shape)}; letterbox them first"
            )
        if images.dtype == torch.uint8:
            images = images.to(self.heads.head1.cls_pred.weight.dtype) / 255
        height, width = images.shape[2:]
        sizes = [(height // s, width // s) for s in STRIDES]
        return self.neck(self.backbone(images)), Anchors.of_maps(sizes, STRIDES, images.device)
