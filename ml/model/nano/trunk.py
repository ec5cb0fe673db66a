"""Encoder and neck of the nano detector: plain convolutions, next to nothing at stride 4."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ml.model.backbone import FeatureMaps, TrunkStage
from ml.model.blocks import SPP, ConvBNAct, CSPLayer, Norm
from ml.model.config import NeckStageConfig
from ml.model.nano.config import NanoBackboneConfig, NanoNeckConfig
from ml.model.neck import DownStage, UpStage


class _Stem(nn.Module):
    """One convolution to stride 4, called `stem.conv` as in the published networks."""

    def __init__(self, channels: int, norm: Norm) -> None:
        super().__init__()
        # Kernel 6, padding 1: neighbouring windows overlap by two pixels and stay centred.
        self.conv = ConvBNAct(3, channels, 6, norm, stride=4, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class NanoBackbone(nn.Module):
    """Images to feature maps; c2 is the stem's output. Names are those of `YoloNASBackbone`."""

    def __init__(self, config: NanoBackboneConfig, norm: Norm) -> None:
        """Build the encoder of a configuration."""
        super().__init__()
        c2, c3, c4, c5 = config.stages
        self.channels = (c2.channels, c3.channels, c4.channels, c5.channels)
        self.stem = _Stem(config.stem_channels, norm)
        self.stage2 = TrunkStage(c2.channels, c3, "conv", norm)
        self.stage3 = TrunkStage(c3.channels, c4, "conv", norm)
        self.stage4 = TrunkStage(c4.channels, c5, "conv", norm)
        self.context_module = SPP(c5.channels, norm)

    def forward(self, images: Tensor) -> FeatureMaps:
        """Return (B, 3, H, W) float in [0, 1], H and W multiples of 32 -> c2, c3, c4, c5."""
        c2 = self.stem(images)
        c3 = self.stage2(c2)
        c4 = self.stage3(c3)
        return c2, c3, c4, self.context_module(self.stage4(c4))


class _UpStageOfOneSkip(nn.Module):
    """`UpStage` without its second skip: upsample x, join skip of that size."""

    def __init__(self, x: int, skip: int, config: NeckStageConfig, norm: Norm) -> None:
        super().__init__()
        out = config.channels
        self.reduce_skip1 = ConvBNAct(skip, out, 1, norm)
        self.conv = ConvBNAct(x, out, 1, norm)
        self.upsample = nn.ConvTranspose2d(out, out, kernel_size=2, stride=2)
        self.reduce_after_concat = ConvBNAct(2 * out, out, 1, norm)
        self.blocks = CSPLayer(out, out, config.blocks, config.hidden, "conv", norm)

    def forward(self, x: Tensor, skip: Tensor) -> tuple[Tensor, Tensor]:
        """Return x with its channels reduced, and the stage's output."""
        reduced = self.conv(x)
        maps = [self.upsample(reduced), self.reduce_skip1(skip)]
        return reduced, self.blocks(self.reduce_after_concat(torch.cat(maps, dim=1)))


class NanoNeck(nn.Module):
    """Two stages up, two stages down; c2 is not read. Names are those of `PANNeckWithC2`."""

    def __init__(
        self, in_channels: tuple[int, int, int, int], config: NanoNeckConfig, norm: Norm
    ) -> None:
        """Build the neck.

        Args:
            in_channels: channels of c2, c3, c4, c5.
            config: the four stages.
            norm: batch normalisation.
        """
        super().__init__()
        _, c3, c4, c5 = in_channels
        up1, up2 = config.up1, config.up2
        self.out_channels = (up2.channels, config.down1.channels, config.down2.channels)
        self.neck1 = UpStage((c5, c4, c3), up1, "conv", norm)
        self.neck2 = _UpStageOfOneSkip(up1.channels, c3, up2, norm)
        self.neck3 = DownStage(up2.channels, up2.channels, config.down1, norm)
        self.neck4 = DownStage(config.down1.channels, up1.channels, config.down2, norm)

    def forward(self, maps: FeatureMaps) -> tuple[Tensor, Tensor, Tensor]:
        """Map c2, c3, c4, c5 to p3, p4, p5."""
        _, c3, c4, c5 = maps
        inner5, x = self.neck1(c5, c4, c3)
        inner4, p3 = self.neck2(x, c3)
        p4 = self.neck3(p3, inner4)
        return p3, p4, self.neck4(p4, inner5)
