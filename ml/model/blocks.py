"""Convolution blocks of YOLO-NAS. Attribute names are those of the published state dicts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ml.model.config import BlockKind


@dataclass(frozen=True)
class Norm:
    """How every batch normalisation of a model is built.

    Attributes:
        eps: epsilon.
        momentum: momentum.
    """

    eps: float
    momentum: float

    def build(self, channels: int) -> nn.BatchNorm2d:
        """Return a batch normalisation of this number of channels."""
        return nn.BatchNorm2d(channels, eps=self.eps, momentum=self.momentum)


class ConvBNAct(nn.Module):
    """Convolution without bias, batch normalisation, ReLU."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        norm: Norm,
        stride: int = 1,
        padding: int | None = None,
        act: bool = True,
    ) -> None:
        """Build the block.

        Args:
            in_channels: channels in.
            out_channels: channels out.
            kernel: side of the kernel.
            norm: batch normalisation.
            stride: stride.
            padding: padding, kernel // 2 if left out.
            act: end with ReLU.
        """
        super().__init__()
        padding = kernel // 2 if padding is None else padding
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding, bias=False)
        self.bn: nn.Module = norm.build(out_channels)
        self.act = nn.ReLU(inplace=True) if act else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, H, W) -> (B, C', H', W')."""
        return self.act(self.bn(self.conv(x)))


class SeqConvBNAct(nn.Module):
    """`ConvBNAct` under the name `seq`, as the published heads have it."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, norm: Norm) -> None:
        """Build the block; arguments as in `ConvBNAct`."""
        super().__init__()
        self.seq = ConvBNAct(in_channels, out_channels, kernel, norm)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, H, W) -> (B, C', H, W)."""
        return self.seq(x)


class PointConv(nn.Conv2d):
    """A strided 1x1 convolution computed as slicing and an unstrided one, with the same result.

    On CPUs torch 2.13 writes beyond its memory in the weights' gradient of a strided 1x1
    convolution with two to seven channels in channels_last, as the stem has it: the process dies
    sooner or later, or computes with overwritten memory.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        """Draw the weights.

        Args:
            in_channels: channels in.
            out_channels: channels out.
            stride: stride.
        """
        super().__init__(in_channels, out_channels, 1, stride)

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', ceil(H / stride), ceil(W / stride))."""
        rows, columns = self.stride
        return functional.conv2d(input[..., ::rows, ::columns], self.weight, self.bias)


class QARepVGGBlock(nn.Module):
    """relu(post_bn(bn(conv3x3 x) + alpha conv1x1 x + x)): three branches that fuse into one.

    `fuse_branches` turns the branches into the single convolution `rbr_reparam` and keeps
    `post_bn`; `fuse_post_norm` folds that one too. The published modules carry an unused
    `rbr_reparam` while they train; here it exists only after the fusion.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        norm: Norm,
        stride: int = 1,
        residual: bool = False,
        learned_alpha: bool = False,
    ) -> None:
        """Build the unfused block.

        Args:
            in_channels: channels in.
            out_channels: channels out.
            norm: batch normalisation.
            stride: stride.
            residual: add the input itself; needs equal channels and stride 1.
            learned_alpha: weigh the 1x1 branch by a learned scalar.

        Raises:
            ValueError: a residual is requested where shapes differ.
        """
        super().__init__()
        if residual and (in_channels != out_channels or stride != 1):
            raise ValueError(
                "QARepVGGBlock: a residual needs equal channels and stride 1, got "
                f"{in_channels} -> {out_channels} channels, stride {stride}"
            )
        self.residual = residual
        self.branch_3x3 = nn.Sequential()
        self.branch_3x3.add_module(
            "conv", nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        )
        self.branch_3x3.add_module("bn", norm.build(out_channels))
        self.branch_1x1 = PointConv(in_channels, out_channels, stride)
        # As published: the scalars start near 1, and not all alike.
        self.alpha = nn.Parameter(1.0 + 0.01 * torch.randn(1)) if learned_alpha else None
        self.post_bn: nn.Module = norm.build(out_channels)
        self.rbr_reparam: nn.Conv2d | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, H, W) -> (B, C', H', W')."""
        return functional.relu(self.post_bn(self._branches(x)), inplace=True)

    def _branches(self, x: Tensor) -> Tensor:
        if self.rbr_reparam is not None:
            return self.rbr_reparam(x)
        one = self.branch_1x1(x)  # (B, C', H', W')
        total = self.branch_3x3(x) + (one if self.alpha is None else self.alpha * one)
        return total + x if self.residual else total

    @torch.no_grad()
    def fuse_branches(self) -> None:
        """Replace the three branches by `rbr_reparam`; `post_bn` stays. Twice is once."""
        if self.rbr_reparam is not None:
            return
        conv, norm = self.branch_3x3.conv, self.branch_3x3.bn
        assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)  # noqa: PT018
        kernel, bias = folded_norm(conv.weight, None, norm)  # (O, I, 3, 3), (O,)
        alpha = 1.0 if self.alpha is None else self.alpha
        # All three branches are linear: the 1x1 kernel is the centre of a 3x3, the identity a 1
        # there.
        kernel = kernel + alpha * functional.pad(self.branch_1x1.weight, (1, 1, 1, 1))
        assert self.branch_1x1.bias is not None
        bias = bias + alpha * self.branch_1x1.bias
        if self.residual:
            diagonal = torch.arange(len(kernel), device=kernel.device)
            kernel[diagonal, diagonal, 1, 1] += 1.0
        self.rbr_reparam = _conv_of(conv, kernel, bias)
        self.alpha = None
        del self.branch_3x3, self.branch_1x1

    @torch.no_grad()
    def fuse_post_norm(self) -> None:
        """Fold `post_bn` into `rbr_reparam` as well, after fusing the branches. Twice is once."""
        self.fuse_branches()
        if isinstance(self.post_bn, nn.BatchNorm2d) and self.rbr_reparam is not None:
            kernel, bias = folded_norm(self.rbr_reparam.weight, self.rbr_reparam.bias, self.post_bn)
            self.rbr_reparam = _conv_of(self.rbr_reparam, kernel, bias)
            self.post_bn = nn.Identity()


def folded_norm(kernel: Tensor, bias: Tensor | None, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Return a convolution's weights with the batch normalisation that follows it folded in.

    Args:
        kernel: (O, I, k, k) weights.
        bias: (O,) or None.
        norm: batch normalisation over O channels, its statistics as at inference.

    Returns:
        (O, I, k, k) kernel and (O,) bias.

    Raises:
        ValueError: the normalisation keeps no running statistics.
    """
    if norm.running_mean is None or norm.running_var is None:
        raise ValueError("folded_norm: the batch normalisation keeps no running statistics")
    gain = norm.weight / torch.sqrt(norm.running_var + norm.eps)  # (O,)
    shift = -norm.running_mean if bias is None else bias - norm.running_mean  # (O,)
    return kernel * gain[:, None, None, None], norm.bias + shift * gain


@torch.no_grad()
def fold_norm_into(block: ConvBNAct) -> None:
    """Fold a block's batch normalisation into its convolution, in place. Twice is once.

    Args:
        block: a block in evaluation mode.
    """
    if isinstance(block.bn, nn.BatchNorm2d):
        kernel, bias = folded_norm(block.conv.weight, block.conv.bias, block.bn)
        block.conv = _conv_of(block.conv, kernel, bias)
        block.bn = nn.Identity()


def _conv_of(like: nn.Conv2d, kernel: Tensor, bias: Tensor) -> nn.Conv2d:
    """Return a convolution of the same geometry with given weights."""
    conv = nn.Conv2d(
        like.in_channels,
        like.out_channels,
        like.kernel_size,  # type: ignore[arg-type]
        like.stride,  # type: ignore[arg-type]
        like.padding,  # type: ignore[arg-type]
        device=kernel.device,
        dtype=kernel.dtype,
    )
    conv.weight = nn.Parameter(kernel.clone())
    conv.bias = nn.Parameter(bias.clone())
    return conv


def build_block(
    kind: BlockKind,
    in_channels: int,
    out_channels: int,
    norm: Norm,
    stride: int = 1,
    residual: bool = False,
    learned_alpha: bool = False,
) -> nn.Module:
    """Build a 3x3 block by name; `residual` and `learned_alpha` concern QARepVGG only.

    Args:
        kind: qarepvgg or conv.
        in_channels: channels in.
        out_channels: channels out.
        norm: batch normalisation.
        stride: stride.
        residual: add the input itself.
        learned_alpha: weigh the 1x1 branch by a learned scalar.

    Returns:
        The block.
    """
    if kind == "conv":
        return ConvBNAct(in_channels, out_channels, 3, norm, stride)
    return QARepVGGBlock(in_channels, out_channels, norm, stride, residual, learned_alpha)


class Bottleneck(nn.Module):
    """alpha x + cv2(cv1(x)) with a learned scalar alpha and no activation after the sum."""

    def __init__(self, channels: int, kind: BlockKind, norm: Norm) -> None:
        """Build two blocks of a kind; arguments as in `build_block`."""
        super().__init__()
        self.cv1 = build_block(kind, channels, channels, norm, residual=True)
        self.cv2 = build_block(kind, channels, channels, norm, residual=True)
        self.alpha = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, H, W) -> (B, C, H, W)."""
        return self.alpha * x + self.cv2(self.cv1(x))


class CSPLayer(nn.Module):
    """Cross-stage partial layer: bottlenecks on one half, the other half passes by."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        blocks: int,
        hidden: int,
        kind: BlockKind,
        norm: Norm,
        concat_intermediates: bool = False,
    ) -> None:
        """Build the layer.

        Args:
            in_channels: channels in.
            out_channels: channels out.
            blocks: bottlenecks.
            hidden: channels of either half.
            kind: 3x3 block of the bottlenecks.
            norm: batch normalisation.
            concat_intermediates: concatenate the bottlenecks' input and the output of each of
                them, not only the output of the last.
        """
        super().__init__()
        self.concat_intermediates = concat_intermediates
        self.conv1 = ConvBNAct(in_channels, hidden, 1, norm)
        self.conv2 = ConvBNAct(in_channels, hidden, 1, norm)
        parts = 2 + blocks if concat_intermediates else 2
        self.conv3 = ConvBNAct(parts * hidden, out_channels, 1, norm)
        self.bottlenecks = nn.ModuleList(Bottleneck(hidden, kind, norm) for _ in range(blocks))

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, H, W) -> (B, C', H, W)."""
        parts = [self.conv1(x)]  # (B, hidden, H, W)
        for bottleneck in self.bottlenecks:
            parts.append(bottleneck(parts[-1]))
        kept = parts if self.concat_intermediates else parts[-1:]
        return self.conv3(torch.cat([*kept, self.conv2(x)], dim=1))


class SPP(nn.Module):
    """Spatial pyramid pooling: max-pools of 5, 9 and 13 pixels concatenated with the map itself."""

    def __init__(self, channels: int, norm: Norm) -> None:
        """Build the layer for this number of channels in and out."""
        super().__init__()
        hidden = channels // 2
        self.cv1 = ConvBNAct(channels, hidden, 1, norm)
        self.cv2 = ConvBNAct(4 * hidden, channels, 1, norm)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, H, W) -> (B, C, H, W)."""
        x = self.cv1(x)
        # Two pools of 5 reach 9 pixels and three reach 13, at a third of the comparisons.
        five = functional.max_pool2d(x, 5, 1, 2)
        nine = functional.max_pool2d(five, 5, 1, 2)
        thirteen = functional.max_pool2d(nine, 5, 1, 2)
        return self.cv2(torch.cat([x, five, nine, thirteen], dim=1))
