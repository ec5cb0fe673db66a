"""Inference that computes the FLAME branches at the heads that are kept, and nowhere else.

In L the six branches are more than a quarter of the multiplications, made at all 8,400 anchors, of
which an image keeps ten. Here score and box are computed everywhere, suppression picks the heads,
and each branch runs on the window of its input that the head's anchor sees. The numbers are those
of the whole maps: positions outside a map count as zero in every layer, as padding does.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from ml.flame.frames import network_to_image
from ml.flame.params import join
from ml.imaging.letterbox import Letterbox
from ml.model.blocks import ConvBNAct, QARepVGGBlock
from ml.model.cells import Cells, cell_windows, values_at
from ml.model.decode import decode_boxes, decode_flame
from ml.model.detector import HeadDetectorNetwork
from ml.model.flame_branches import STRIDES, ScaleHead
from ml.model.fusing import fuse
from ml.model.outputs import Anchors
from ml.model.postprocess import PostprocessConfig, candidates, suppress
from ml.records.heads import Heads


class DenseOutputs(NamedTuple):
    """Outputs that are computed at every anchor.

    Attributes:
        score_logits: (B, A).
        box_logits: (B, A, 4, bins).
        pose_maps: (B, C, H, W) of each scale, the input of its FLAME branches.
    """

    score_logits: Tensor
    box_logits: Tensor
    pose_maps: tuple[Tensor, ...]


class KeptHeadsNetwork(nn.Module):
    """A fused detector in two parts: dense outputs, and FLAME values of chosen anchors."""

    def __init__(self, network: HeadDetectorNetwork) -> None:
        """Take a fused copy of a network.

        Args:
            network: the detector, fused or not; it is not changed.
        """
        super().__init__()
        self.network = fuse(network)
        self.config = network.config

    def dense(self, images: Tensor) -> DenseOutputs:
        """Return scores, boxes and the maps that the FLAME branches read.

        Args:
            images: (B, 3, H, W) in [0, 1], H and W multiples of 32.

        Returns:
            The outputs of all anchors.
        """
        maps = self.network.neck(self.network.backbone(images))
        scores, box_logits = self.network.heads.boxes(maps)
        stems = [head.pose_stem for head in self.network.heads.scales]
        return DenseOutputs(
            scores, box_logits, tuple(stem(x) for stem, x in zip(stems, maps, strict=True))
        )

    def flame_at(
        self, pose_maps: Sequence[Tensor], image_index: Tensor, anchor_index: Tensor
    ) -> Tensor:
        """Return raw FLAME values of some anchors, equal to those of the whole network.

        Args:
            pose_maps: as `dense` returns them.
            image_index: (N,) int64 image of each anchor.
            anchor_index: (N,) int64 anchors, numbered over all scales.

        Returns:
            (N, K) in the order of `RawOutputs.flame`.
        """
        branches = [partial(_branches_at, head) for head in self.network.heads.scales]
        return values_at(pose_maps, image_index, anchor_index, branches)

    def anchors(self, height: int, width: int, device: torch.device) -> Anchors:
        """Return anchors of images of a size, px."""
        return Anchors.of_maps([(height // s, width // s) for s in STRIDES], STRIDES, device)

    @torch.no_grad()
    def find(
        self, images: Tensor, letterboxes: Sequence[Letterbox], config: PostprocessConfig
    ) -> list[Heads]:
        """Return heads of a batch, as `postprocess` gives them.

        Args:
            images: (B, 3, H, W) uint8.
            letterboxes: how each of the B images was fitted into the network's input.
            config: thresholds.

        Returns:
            B containers, heads by falling score, image pixels.
        """
        dense = self.dense(images.to(next(self.parameters()).dtype) / 255)
        anchors = self.anchors(images.shape[2], images.shape[3], images.device)
        # Suppression first, on the few boxes that can become heads: (B, K) of A anchors.
        scores, indices = candidates(dense.score_logits, config)
        rows = indices[..., None, None].expand(-1, -1, *dense.box_logits.shape[2:])
        sides = dense.box_logits.gather(1, rows)
        # (B, K, 4)
        boxes = decode_boxes(sides, anchors.centres_px[indices], anchors.strides[indices])
        kept = suppress(boxes, scores, config)
        # From here on the heads of all images are one list, (N,), as every branch runs once.
        image_index = torch.cat([torch.full_like(rows, i) for i, rows in enumerate(kept)])
        chosen = indices[image_index, torch.cat(kept)]
        raw = self.flame_at(dense.pose_maps, image_index, chosen)  # (N, values)
        centres, strides = anchors.centres_px[chosen], anchors.strides[chosen]
        flame = join(decode_flame(raw, centres, strides, self.config.head))
        results = []
        for i, (letterbox, rows) in enumerate(zip(letterboxes, kept, strict=True)):
            own = network_to_image(flame[image_index == i], letterbox)
            results.append(
                Heads(
                    letterbox.boxes_to_image(boxes[i, rows]).cpu().numpy(),
                    scores[i, rows].cpu().numpy(),
                    own.cpu().numpy(),
                )
            )
        return results


def _branches_at(head: ScaleHead, features: Tensor, cells: Cells) -> Tensor:
    """Return a scale's raw FLAME values at some cells, (N, K)."""
    # All branches have the same blocks, so one window, (N, C, S, S), serves the six of them.
    reach = sum(_margin(block) for block in list(head.flame_shape_pred)[:-1])
    windows, inside = cell_windows(features, cells, reach)  # (N, C, S, S), (N, 1, S, S)
    return head.assemble(
        {name: _run(getattr(head, f"flame_{name}_pred"), windows, inside) for name in head.BRANCHES}
    )


def _run(branch: nn.Sequential, windows: Tensor, inside: Tensor) -> Tensor:
    """Return a branch on windows that shrink to one cell, (N, channels)."""
    blocks = list(branch)
    margin = 0
    for block in blocks[:-1]:
        conv = _fused_conv(block)
        # No padding: each 3x3 block takes one cell off every side, down to the anchor's own.
        windows = functional.relu(functional.conv2d(windows, conv.weight, conv.bias))
        margin += _margin(block)
        # The whole map is padded with zeros before every block, so positions outside it must
        # be zero again here; a bias has just made it something else.
        end = inside.shape[-1] - margin
        windows = windows * inside[:, :, margin:end, margin:end]
    return blocks[-1](windows)[:, :, 0, 0]  # 1x1, on (N, C, 1, 1)


def _margin(block: nn.Module) -> int:
    """Return cells that a block sees on each side."""
    return int(_fused_conv(block).kernel_size[0]) // 2


def _fused_conv(block: nn.Module) -> nn.Conv2d:
    """Return the one convolution that a fused block is."""
    conv = block.rbr_reparam if isinstance(block, QARepVGGBlock) else None
    if isinstance(block, ConvBNAct):
        conv = block.conv
    if conv is None or conv.bias is None:
        raise ValueError(f"{type(block).__name__}: expected a fused block of a FLAME branch")
    return conv
