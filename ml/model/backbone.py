"""Encoders: images to feature maps at strides 4, 8, 16 and 32."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from ml.model.blocks import SPP, CSPLayer, Norm, QARepVGGBlock, build_block
from ml.model.config import BackboneConfig, BlockKind, TrunkStageConfig

FeatureMaps = tuple[Tensor, Tensor, Tensor, Tensor]


@runtime_checkable
class Encoder(Protocol):
    """Interface of an encoder to the neck; any `nn.Module` with these two members fits.

    Attributes:
        channels: channels of c2, c3, c4, c5.
    """

    channels: tuple[int, int, int, int]

    def __call__(self, images: Tensor) -> FeatureMaps:
        """Return (B, 3, H, W) float in [0, 1] -> c2, c3, c4, c5 at strides 4, 8, 16, 32."""
        ...


class _Stem(nn.Module):
    """The first block, called `stem.conv` in published state dicts."""

    def __init__(self, channels: int, norm: Norm) -> None:
        super().__init__()
        self.conv = QARepVGGBlock(3, channels, norm, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class TrunkStage(nn.Module):
    """A stride-2 block, then a CSP layer."""

    def __init__(
        self, in_channels: int, config: TrunkStageConfig, kind: BlockKind, norm: Norm
    ) -> None:
        """Build the stage.

        Args:
            in_channels: channels in.
            config: its sizes.
            kind: 3x3 block of the downsampling and the bottlenecks.
            norm: batch normalisation.
        """
        super().__init__()
        self.downsample = build_block(kind, in_channels, config.channels, norm, stride=2)
        self.blocks = CSPLayer(
            config.channels,
            config.channels,
            config.blocks,
            config.hidden,
            kind,
            norm,
            config.concat_intermediates,
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, H, W) -> (B, C', H/2, W/2)."""
        return self.blocks(self.downsample(x))


class YoloNASBackbone(nn.Module):
    """The YOLO-NAS encoder.

    Source: paper 4.2; super-gradients' published state dicts.
    """

    def __init__(self, config: BackboneConfig, norm: Norm) -> None:
        """Build the encoder of a configuration."""
        super().__init__()
        stages = config.stages
        self.channels = (
            stages[0].channels,
            stages[1].channels,
            stages[2].channels,
            stages[3].channels,
        )
        self.stem = _Stem(config.stem_channels, norm)
        self.stage1 = TrunkStage(config.stem_channels, stages[0], "qarepvgg", norm)
        self.stage2 = TrunkStage(self.channels[0], stages[1], "qarepvgg", norm)
        self.stage3 = TrunkStage(self.channels[1], stages[2], "qarepvgg", norm)
        self.stage4 = TrunkStage(self.channels[2], stages[3], "qarepvgg", norm)
        self.context_module = SPP(self.channels[3], norm)

    def forward(self, images: Tensor) -> FeatureMaps:
        """Return (B, 3, H, W) float in [0, 1], H and W multiples of 32 -> c2, c3, c4, c5."""
        c2 = self.stage1(self.stem(images))
        c3 = self.stage2(c2)
        c4 = self.stage3(c3)
        return c2, c3, c4, self.context_module(self.stage4(c4))
