"""The network: encoder, neck, heads. Decoding, losses and fusion are beside it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ml.model.backbone import Encoder, YoloNASBackbone
from ml.model.blocks import Norm
from ml.model.config import ModelConfig
from ml.model.flame_branches import STRIDES, DetectionHeads
from ml.model.neck import PANNeckWithC2
from ml.model.outputs import Anchors, RawOutputs, SparseOutputs


class HeadDetectorNetwork(nn.Module):
    """The single-shot detector of heads with FLAME parameters.

    Source: paper 4.2 and appendix B.
    """

    def __init__(self, config: ModelConfig, encoder: nn.Module | None = None) -> None:
        """Build the network.

        Args:
            config: its sizes.
            encoder: takes the place of the configured one (see `Encoder`).

        Raises:
            ValueError: the encoder does not tell its channels.
        """
        super().__init__()
        self.config = config
        norm = Norm(config.bn_eps, config.bn_momentum)
        self.backbone = _configured_encoder(config, norm) if encoder is None else encoder
        if not isinstance(self.backbone, Encoder):
            raise ValueError(
                f"encoder {type(encoder).__name__}: expected an attribute `channels` with the "
                "channels of c2, c3, c4, c5, found none; wrap it to follow ml.model.Encoder"
            )
        self.neck = PANNeckWithC2(self.backbone.channels, config.neck, norm)
        self.heads = DetectionHeads(self.neck.out_channels, config.head, norm)

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

    def forward_sparse(self, images: Tensor) -> SparseOutputs:
        """Predict scores and boxes of all anchors, and FLAME values where they are asked for.

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
            # A loss asks in full precision; the branches go on in the network's.
            with torch.autocast(device, dtype=dtype, enabled=enabled):
                return self.heads.flame_at(maps, image, anchor)

        return SparseOutputs(scores, sides, flame_at, anchors, self.config.head)

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


def _configured_encoder(config: ModelConfig, norm: Norm) -> nn.Module:
    if config.encoder is None:
        return YoloNASBackbone(config.backbone, norm)
    from ml.model.encoders import TransformersEncoder

    return TransformersEncoder(config.encoder)


def build_detector(config: ModelConfig, encoder: nn.Module | None = None) -> HeadDetectorNetwork:
    """Build a detector with freshly initialised weights.

    On CPU and recent GPUs `.to(memory_format=torch.channels_last)` makes it faster.

    Args:
        config: its sizes, for example `model_config("nano")`.
        encoder: another encoder in place of the configured one (see `Encoder`).

    Returns:
        The network, in training mode.
    """
    return HeadDetectorNetwork(config, encoder)
