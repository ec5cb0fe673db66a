"""The prediction heads: class, box distribution and six FLAME branches at each scale."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ml.model.blocks import Norm, QARepVGGBlock, SeqConvBNAct
from ml.model.config import HeadConfig

STRIDES = (8, 16, 32)

PRIOR_SCORE = 0.01
"""Score of every anchor before training, so that the background does not swamp the first steps."""


class ScaleHead(nn.Module):
    """The head of one scale; its attribute names are those of the published state dicts."""

    BRANCHES = ("rotation", "jaw", "shape", "expression", "translation", "scale")
    """The six branches `flame_<name>_pred`, in the order in which they run."""

    def __init__(self, in_channels: int, scale_index: int, config: HeadConfig, norm: Norm) -> None:
        """Build the head.

        Args:
            in_channels: channels of the neck's map.
            scale_index: 0, 1, 2 for strides 8, 16, 32.
            config: all heads' configuration.
            norm: batch normalisation.
        """
        super().__init__()
        self.branch_blocks = config.branch_blocks
        box, flame = config.box_channels[scale_index], config.flame_channels[scale_index]
        # For published weights whose code reads the rotation branch's first three values as the
        # jaw.
        self.swapped = config.swapped_branches
        self.pose_stem = self._pose_stem(in_channels, flame, norm)
        self.bbox_stem = SeqConvBNAct(in_channels, box, 1, norm)
        self.cls_convs = nn.Sequential(SeqConvBNAct(box, box, 3, norm))
        self.reg_convs = nn.Sequential(SeqConvBNAct(box, box, 3, norm))
        self.cls_pred = nn.Conv2d(box, 1, 1)  # one class: head
        self.reg_pred = nn.Conv2d(box, 4 * (config.reg_max + 1), 1)
        pose, shape, expression = config.pose_inter, config.shape, config.expression
        self.flame_shape_pred = self._branch(flame, shape.inter, shape.out, norm)
        self.flame_expression_pred = self._branch(flame, expression.inter, expression.out, norm)
        self.flame_rotation_pred = self._branch(flame, pose, 6, norm)
        self.flame_jaw_pred = self._branch(flame, pose, 3, norm)
        self.flame_scale_pred = self._branch(flame, pose, 1, norm)
        self.flame_translation_pred = self._branch(flame, pose, 3, norm)
        self._initialise()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return one map's predictions.

        Args:
            x: (B, C, H, W).

        Returns:
            (B, H*W) score logits, (B, H*W, 4 bins) box logits, (B, H*W, K) raw FLAME values.
        """
        score, sides = self.boxes(x)
        return score, sides, _rows(self.flame(self.pose_stem(x)))

    def boxes(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return one map's scores and boxes alone.

        Args:
            x: (B, C, H, W).

        Returns:
            (B, H*W) score logits, (B, H*W, 4 bins) box logits.
        """
        box = self.bbox_stem(x)
        score = self.cls_pred(self.cls_convs(box))
        return score.flatten(1), _rows(self.reg_pred(self.reg_convs(box)))

    def flame(self, pose: Tensor) -> Tensor:
        """Run the six branches on the stem's output.

        Args:
            pose: (B, C, H, W).

        Returns:
            (B, K, H, W) raw FLAME values.
        """
        return self.assemble(
            {name: getattr(self, f"flame_{name}_pred")(pose) for name in self.BRANCHES}
        )

    def assemble(self, parts: Mapping[str, Tensor]) -> Tensor:
        """Put the outputs of the branches in the order of `RawOutputs.flame`.

        Args:
            parts: each branch's output, (N, channels, ...).

        Returns:
            (N, K, ...) raw FLAME values.
        """
        rotation, jaw = parts["rotation"], parts["jaw"]
        if self.swapped:
            jaw, rotation = rotation[:, 3:], torch.cat([jaw, rotation[:, :3]], dim=1)
        ordered = [
            parts["shape"],
            parts["expression"],
            jaw,
            rotation,
            parts["translation"],
            parts["scale"],
        ]
        return torch.cat(ordered, dim=1)

    def _pose_stem(self, in_channels: int, out_channels: int, norm: Norm) -> SeqConvBNAct:
        """Build the convolution that feeds the FLAME branches."""
        return SeqConvBNAct(in_channels, out_channels, 1, norm)

    def _branch(self, in_channels: int, inter: int, out: int, norm: Norm) -> nn.Sequential:
        """Build one FLAME branch: 3x3 blocks, then a 1x1 prediction."""
        blocks = [
            QARepVGGBlock(in_channels if i == 0 else inter, inter, norm, learned_alpha=True)
            for i in range(self.branch_blocks)
        ]
        return nn.Sequential(*blocks, nn.Conv2d(inter, out, 1))

    @torch.no_grad()
    def _initialise(self) -> None:
        assert self.cls_pred.bias is not None
        # sigmoid(bias) = PRIOR_SCORE
        self.cls_pred.bias.fill_(-math.log((1 - PRIOR_SCORE) / PRIOR_SCORE))


def _rows(maps: Tensor) -> Tensor:
    """Return (B, C, H, W) -> (B, H*W, C)."""
    return maps.flatten(2).transpose(1, 2)


class DetectionHeads(nn.Module):
    """The heads of the three scales.

    Source: paper 4.2 and appendix B; the published state dicts where they differ.
    """

    def __init__(self, in_channels: tuple[int, int, int], config: HeadConfig, norm: Norm) -> None:
        """Build the heads for maps of this number of channels."""
        super().__init__()
        self.config = config
        self.head1, self.head2, self.head3 = (
            self._scale_head(channels, index, norm) for index, channels in enumerate(in_channels)
        )

    def _scale_head(self, in_channels: int, scale_index: int, norm: Norm) -> ScaleHead:
        """Build the head of one scale."""
        return ScaleHead(in_channels, scale_index, self.config, norm)

    def forward(self, maps: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Return predictions of all anchors.

        Args:
            maps: p3, p4, p5.

        Returns:
            (B, A) score logits, (B, A, 4, reg_max + 1) box logits, (B, A, K) raw FLAME values.
        """
        results = [head(x) for head, x in zip(self.scales, maps, strict=True)]
        flame = torch.cat([r[2] for r in results], dim=1)  # anchors of strides 8, 16, 32 in turn
        return *self._joined([r[:2] for r in results]), flame

    @property
    def scales(self) -> tuple[ScaleHead, ScaleHead, ScaleHead]:
        """The heads at strides 8, 16, 32."""
        return self.head1, self.head2, self.head3

    def boxes(self, maps: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Return scores and boxes of all anchors, without FLAME values.

        Args:
            maps: p3, p4, p5.

        Returns:
            (B, A) score logits, (B, A, 4, reg_max + 1) box logits.
        """
        return self._joined([head.boxes(x) for head, x in zip(self.scales, maps, strict=True)])

    def _joined(self, results: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        scores = torch.cat([score for score, _ in results], dim=1)
        sides = torch.cat([side for _, side in results], dim=1)
        return scores, sides.unflatten(-1, (4, self.config.reg_max + 1))  # (B, A, 4, bins)
