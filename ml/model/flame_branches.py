"""The prediction heads: class, box distribution and six FLAME branches at each scale."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from ml.flame.rotation import FRONTAL_6D
from ml.model.blocks import Norm, SeqConvBNAct, build_block
from ml.model.cells import Cells, cell_windows, values_at
from ml.model.config import HeadConfig

STRIDES = (8, 16, 32)

PRIOR_SCORE = 0.01
"""Score of every anchor before training, so that the background does not swamp the first steps."""


class ScaleHead(nn.Module):
    """The head of one scale; its attribute names are those of the published state dicts."""

    FLAME_PARTS = (
        "pose_stem",
        "flame_shape_pred",
        "flame_expression_pred",
        "flame_jaw_pred",
        "flame_rotation_pred",
        "flame_translation_pred",
        "flame_scale_pred",
    )
    """Modules that predict FLAME values; the others predict scores and boxes."""

    def __init__(self, in_channels: int, scale_index: int, config: HeadConfig, norm: Norm) -> None:
        """Build the head.

        Args:
            in_channels: channels of the neck's map.
            scale_index: 0, 1, 2 for strides 8, 16, 32.
            config: all heads' configuration.
            norm: batch normalisation.
        """
        super().__init__()
        box, flame = config.box_channels[scale_index], config.flame_channels[scale_index]
        self.swapped = config.swapped_branches
        self.pose_stem = SeqConvBNAct(in_channels, flame, config.flame_stem_kernel, norm)
        self.bbox_stem = SeqConvBNAct(in_channels, box, 1, norm)
        self.cls_convs = nn.Sequential(SeqConvBNAct(box, box, 3, norm))
        self.reg_convs = nn.Sequential(SeqConvBNAct(box, box, 3, norm))
        self.cls_pred = nn.Conv2d(box, 1, 1)
        self.reg_pred = nn.Conv2d(box, 4 * (config.reg_max + 1), 1)
        pose = config.pose_inter
        self.flame_shape_pred = _branch(flame, config.shape.inter, config.shape.out, config, norm)
        self.flame_expression_pred = _branch(
            flame, config.expression.inter, config.expression.out, config, norm
        )
        self.flame_rotation_pred = _branch(flame, pose, 6, config, norm)
        self.flame_jaw_pred = _branch(flame, pose, 3, config, norm)
        self.flame_scale_pred = _branch(flame, pose, 1, config, norm)
        self.flame_translation_pred = _branch(flame, pose, 3, config, norm)
        self._initialise(config)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One map's predictions.

        Args:
            x: (B, C, H, W).

        Returns:
            (B, H*W) score logits, (B, H*W, 4 bins) box logits, (B, H*W, K) raw FLAME values.
        """
        score, sides = self.boxes(x)
        return score, sides, _rows(self._flame(self.pose_stem(x)))

    def boxes(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """One map's scores and boxes alone.

        Args:
            x: (B, C, H, W).

        Returns:
            (B, H*W) score logits, (B, H*W, 4 bins) box logits.
        """
        box = self.bbox_stem(x)
        score = self.cls_pred(self.cls_convs(box))
        return score.flatten(1), _rows(self.reg_pred(self.reg_convs(box)))

    def flame_at(self, x: Tensor, cells: Cells) -> Tensor:
        """Raw FLAME values of some cells, for pointwise branches.

        In training the batch normalisations see these cells and no background. A single cell has
        no statistics of its own; it gets the running ones.

        Args:
            x: (B, C, H, W).
            cells: N cells of that map.

        Returns:
            (N, K) raw FLAME values.
        """
        stem = self.pose_stem.seq
        windows, _ = cell_windows(x, cells, int(stem.conv.kernel_size[0]) // 2)
        parts = [module for name, module in self.named_children() if name in self.FLAME_PARTS]
        alone = self.training and len(cells.image) < 2
        for part in parts if alone else ():
            part.eval()
        rows = functional.linear(windows.flatten(1), stem.conv.weight.flatten(1), stem.conv.bias)
        # The cells become the pixels of one image, as convolutions of many tiny ones are slow.
        pose = rows.T[None, :, :, None] if len(rows) else rows[:, :, None, None]
        maps = self._flame(stem.act(stem.bn(pose)))
        values = maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])
        for part in parts if alone else ():
            part.train()
        return values

    def _flame(self, pose: Tensor) -> Tensor:
        """The six branches on the stem's output, (B, C, H, W) -> (B, K, H, W)."""
        rotation, jaw = self.flame_rotation_pred(pose), self.flame_jaw_pred(pose)
        if self.swapped:
            jaw, rotation = rotation[:, 3:], torch.cat([jaw, rotation[:, :3]], dim=1)
        flame = [
            self.flame_shape_pred(pose),
            self.flame_expression_pred(pose),
            jaw,
            rotation,
            self.flame_translation_pred(pose),
            self.flame_scale_pred(pose),
        ]
        return torch.cat(flame, dim=1)

    @torch.no_grad()
    def _initialise(self, config: HeadConfig) -> None:
        assert self.cls_pred.bias is not None
        self.cls_pred.bias.fill_(-math.log((1 - PRIOR_SCORE) / PRIOR_SCORE))
        if config.frontal_start:
            last = self.flame_rotation_pred[-1]
            assert isinstance(last, nn.Conv2d)
            assert last.bias is not None
            last.bias.copy_(torch.tensor(FRONTAL_6D))


def _branch(
    in_channels: int, inter: int, out: int, config: HeadConfig, norm: Norm
) -> nn.Sequential:
    blocks = [
        build_block(
            config.branch_block, in_channels if i == 0 else inter, inter, norm, learned_alpha=True
        )
        for i in range(config.branch_blocks)
    ]
    return nn.Sequential(*blocks, nn.Conv2d(inter, out, 1))


def _share_convolutions(source: ScaleHead, target: ScaleHead) -> None:
    """Replace the convolutions of a head's FLAME branches by another head's."""
    for name, branch in source.named_children():
        if not name.startswith("flame_"):
            continue
        own = getattr(target, name)
        assert isinstance(branch, nn.Sequential)
        assert isinstance(own, nn.Sequential)
        own[-1] = branch[-1]
        for index in range(len(own) - 1):
            own[index].conv = branch[index].conv


def _rows(maps: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H*W, C)."""
    return maps.flatten(2).transpose(1, 2)


class DetectionHeads(nn.Module):
    """The heads of the three scales.

    Source: paper 4.2 and appendix B; the published state dicts where they differ.
    """

    def __init__(self, in_channels: tuple[int, int, int], config: HeadConfig, norm: Norm) -> None:
        """Build the heads for maps of so many channels."""
        super().__init__()
        self.config = config
        self.head1 = ScaleHead(in_channels[0], 0, config, norm)
        self.head2 = ScaleHead(in_channels[1], 1, config, norm)
        self.head3 = ScaleHead(in_channels[2], 2, config, norm)
        if config.share_branches:
            for head in (self.head2, self.head3):
                _share_convolutions(self.head1, head)

    def forward(self, maps: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Predictions of all anchors.

        Args:
            maps: p3, p4, p5.

        Returns:
            (B, A) score logits, (B, A, 4, reg_max + 1) box logits, (B, A, K) raw FLAME values.
        """
        results = [head(x) for head, x in zip(self.scales, maps, strict=True)]
        flame = torch.cat([r[2] for r in results], dim=1)
        return *self._joined([r[:2] for r in results]), flame

    @property
    def scales(self) -> tuple[ScaleHead, ScaleHead, ScaleHead]:
        """The heads at strides 8, 16, 32."""
        return self.head1, self.head2, self.head3

    def boxes(self, maps: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Scores and boxes of all anchors, without FLAME values.

        Args:
            maps: p3, p4, p5.

        Returns:
            (B, A) score logits, (B, A, 4, reg_max + 1) box logits.
        """
        return self._joined([head.boxes(x) for head, x in zip(self.scales, maps, strict=True)])

    def flame_at(
        self, maps: tuple[Tensor, Tensor, Tensor], image_index: Tensor, anchor_index: Tensor
    ) -> Tensor:
        """Raw FLAME values of some anchors, see `ScaleHead.flame_at`.

        Args:
            maps: p3, p4, p5.
            image_index: (N,) int64 image of each anchor.
            anchor_index: (N,) int64 anchors, numbered over all scales.

        Returns:
            (N, K) raw FLAME values.
        """
        branches = [head.flame_at for head in self.scales]
        return values_at(maps, image_index, anchor_index, branches)

    def _joined(self, results: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        scores = torch.cat([score for score, _ in results], dim=1)
        sides = torch.cat([side for _, side in results], dim=1)
        return scores, sides.unflatten(-1, (4, self.config.reg_max + 1))
