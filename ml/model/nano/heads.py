"""Heads of the nano detector: FLAME branches that can run at chosen anchors alone."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from ml.flame.rotation import FRONTAL_6D
from ml.model.blocks import ConvBNAct, Norm, SeqConvBNAct
from ml.model.cells import Cells, cell_windows, values_at
from ml.model.flame_branches import STRIDES, DetectionHeads, ScaleHead
from ml.model.nano.config import NanoHeadConfig

_STEM_KERNEL = 5


class NanoScaleHead(ScaleHead):
    """The head of one scale: one 5x5 convolution, then pointwise FLAME branches."""

    FLAME_PARTS = ("pose_stem", *(f"flame_{name}_pred" for name in ScaleHead.BRANCHES))
    """Modules that predict FLAME values; the others predict scores and boxes."""

    def __init__(
        self, in_channels: int, scale_index: int, config: NanoHeadConfig, norm: Norm
    ) -> None:
        """Build the head; arguments as in `ScaleHead`."""
        super().__init__(in_channels, scale_index, config, norm)
        self.stride = STRIDES[scale_index]

    def flame_at(self, x: Tensor, cells: Cells) -> Tensor:
        """Compute the raw FLAME values of some cells.

        In training the batch normalisations see these cells and no background. A single cell has
        no statistics of its own; it gets the running ones.

        Args:
            x: (B, C, H, W).
            cells: N cells of that map.

        Returns:
            (N, K) raw FLAME values.
        """
        stem = self.pose_stem.seq
        windows, _ = cell_windows(x, cells, _STEM_KERNEL // 2)  # (N, C, 5, 5)
        parts = [module for name, module in self.named_children() if name in self.FLAME_PARTS]
        alone = self.training and len(cells.image) < 2
        for part in parts if alone else ():
            part.eval()
        rows = functional.linear(windows.flatten(1), stem.conv.weight.flatten(1), stem.conv.bias)
        # The cells become the pixels of one image, as convolutions of many tiny ones are slow:
        # (N, C') -> (1, C', N, 1). No cell at all is (0, C', 1, 1).
        pose = rows.T[None, :, :, None] if len(rows) else rows[:, :, None, None]
        maps = self.flame(stem.act(stem.bn(pose)))
        values = maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])  # (N, K)
        for part in parts if alone else ():
            part.train()
        return values

    def assemble(self, parts: Mapping[str, Tensor]) -> Tensor:
        """Put the outputs of the branches in order, the offset in pixels as everywhere else.

        Args:
            parts: each branch's output, (N, channels, ...), the offset in strides.

        Returns:
            (N, K, ...) raw FLAME values.
        """
        # A stride is a power of two, so nothing is rounded, whatever the precision.
        return super().assemble({**parts, "translation": parts["translation"] * self.stride})

    def _pose_stem(self, in_channels: int, out_channels: int, norm: Norm) -> SeqConvBNAct:
        return SeqConvBNAct(in_channels, out_channels, _STEM_KERNEL, norm)

    def _branch(self, in_channels: int, inter: int, out: int, norm: Norm) -> nn.Sequential:
        blocks = [
            ConvBNAct(in_channels if i == 0 else inter, inter, 1, norm)
            for i in range(self.branch_blocks)
        ]
        return nn.Sequential(*blocks, nn.Conv2d(inter, out, 1))

    @torch.no_grad()
    def _initialise(self) -> None:
        super()._initialise()
        last = self.flame_rotation_pred[-1]
        assert isinstance(last, nn.Conv2d)
        assert last.bias is not None
        # At zero weights every head faces the camera, not at random.
        last.bias.copy_(torch.tensor(FRONTAL_6D))


class NanoHeads(DetectionHeads):
    """The heads of the three scales, whose FLAME branches share their convolutions."""

    config: NanoHeadConfig

    def __init__(
        self, in_channels: tuple[int, int, int], config: NanoHeadConfig, norm: Norm
    ) -> None:
        """Build the heads for maps of this number of channels."""
        super().__init__(in_channels, config, norm)
        for head in (self.head2, self.head3):
            _share_convolutions(self.head1, head)

    def flame_at(
        self, maps: tuple[Tensor, Tensor, Tensor], image_index: Tensor, anchor_index: Tensor
    ) -> Tensor:
        """Compute the raw FLAME values of some anchors, see `NanoScaleHead.flame_at`.

        Args:
            maps: p3, p4, p5.
            image_index: (N,) int64 image of each anchor.
            anchor_index: (N,) int64 anchors, numbered over all scales.

        Returns:
            (N, K) raw FLAME values.
        """
        branches = [head.flame_at for head in self.scales if isinstance(head, NanoScaleHead)]
        return values_at(maps, image_index, anchor_index, branches)

    def _scale_head(self, in_channels: int, scale_index: int, norm: Norm) -> ScaleHead:
        return NanoScaleHead(in_channels, scale_index, self.config, norm)


def _share_convolutions(source: ScaleHead, target: ScaleHead) -> None:
    """Replace the convolutions of a head's FLAME branches by another head's."""
    for name in ScaleHead.BRANCHES:
        branch, own = (getattr(head, f"flame_{name}_pred") for head in (source, target))
        assert isinstance(branch, nn.Sequential)
        assert isinstance(own, nn.Sequential)
        # The convolutions are shared, each scale keeps its own batch normalisation: statistics
        # differ between scales.
        own[-1] = branch[-1]
        for index in range(len(own) - 1):
            own[index].conv = branch[index].conv
