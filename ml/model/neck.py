"""The path-aggregation neck: encoder maps c2..c5 to p3, p4, p5 at strides 8, 16 and 32."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ml.model.backbone import FeatureMaps
from ml.model.blocks import ConvBNAct, CSPLayer, Norm
from ml.model.config import BlockKind, NeckConfig, NeckStageConfig


class UpStage(nn.Module):
    """Upsample x, join skip1 of that size and skip2 of twice that size."""

    def __init__(
        self,
        in_channels: tuple[int, int, int],
        config: NeckStageConfig,
        kind: BlockKind,
        norm: Norm,
    ) -> None:
        """Build the stage.

        Args:
            in_channels: channels of x, skip1, skip2.
            config: its sizes.
            kind: 3x3 block of the bottlenecks.
            norm: batch normalisation.
        """
        super().__init__()
        x, skip1, skip2 = in_channels
        out = config.channels
        self.reduce_skip1 = ConvBNAct(skip1, out, 1, norm)
        self.reduce_skip2 = ConvBNAct(skip2, out, 1, norm)
        self.downsample = ConvBNAct(out, out, 3, norm, stride=2)
        self.conv = ConvBNAct(x, out, 1, norm)
        self.upsample = nn.ConvTranspose2d(out, out, kernel_size=2, stride=2)
        self.reduce_after_concat = ConvBNAct(3 * out, out, 1, norm)
        self.blocks = CSPLayer(out, out, config.blocks, config.hidden, kind, norm)

    def forward(self, x: Tensor, skip1: Tensor, skip2: Tensor) -> tuple[Tensor, Tensor]:
        """Return x with its channels reduced, and the stage's output."""
        reduced = self.conv(x)
        maps = [
            self.upsample(reduced),
            self.reduce_skip1(skip1),
            self.downsample(self.reduce_skip2(skip2)),
        ]
        return reduced, self.blocks(self.reduce_after_concat(torch.cat(maps, dim=1)))


class DownStage(nn.Module):
    """Downsample x, join it with the map of the way up at that size."""

    def __init__(self, x: int, skip: int, config: NeckStageConfig, norm: Norm) -> None:
        """Build the stage for given channels of x and skip."""
        super().__init__()
        half = config.channels // 2
        self.conv = ConvBNAct(x, half, 3, norm, stride=2)
        self.blocks = CSPLayer(
            half + skip, config.channels, config.blocks, config.hidden, "conv", norm
        )

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Return (B, C, H, W) and (B, C', H/2, W/2) -> (B, C'', H/2, W/2)."""
        return self.blocks(torch.cat([self.conv(x), skip], dim=1))


class PANNeckWithC2(nn.Module):
    """Two stages up (the second also sees c2), two stages down.

    Source: super-gradients' published state dicts.
    """

    def __init__(
        self, in_channels: tuple[int, int, int, int], config: NeckConfig, norm: Norm
    ) -> None:
        """Build the neck.

        Args:
            in_channels: channels of c2, c3, c4, c5.
            config: the four stages.
            norm: batch normalisation.
        """
        super().__init__()
        c2, c3, c4, c5 = in_channels
        up1, up2 = config.up1, config.up2
        self.out_channels = (up2.channels, config.down1.channels, config.down2.channels)
        self.neck1 = UpStage((c5, c4, c3), up1, "qarepvgg", norm)
        self.neck2 = UpStage((up1.channels, c3, c2), up2, "qarepvgg", norm)
        self.neck3 = DownStage(up2.channels, up2.channels, config.down1, norm)
        self.neck4 = DownStage(config.down1.channels, up1.channels, config.down2, norm)

    def forward(self, maps: FeatureMaps) -> tuple[Tensor, Tensor, Tensor]:
        """Map c2, c3, c4, c5 to p3, p4, p5."""
        c2, c3, c4, c5 = maps
        inner5, x = self.neck1(c5, c4, c3)
        inner4, p3 = self.neck2(x, c3, c2)
        p4 = self.neck3(p3, inner4)
        return p3, p4, self.neck4(p4, inner5)
