"""Fusion of re-parametrised blocks for inference: same outputs, fewer operations."""

from __future__ import annotations

import copy
from typing import Literal, TypeVar

import torch
from torch import nn

from ml.model.blocks import ConvBNAct, QARepVGGBlock, fold_norm_into

FusionLevel = Literal["partial", "full"]
M = TypeVar("M", bound=nn.Module)


def fuse(model: M, level: FusionLevel = "full") -> M:
    """Return a copy of a model with its blocks fused, in evaluation mode.

    Args:
        model: a detector or any part of one; it is not changed.
        level: "partial" fuses the branches of every QARepVGG block and keeps the normalisation
            that follows (the form whose parameters the paper's table 8 counts); "full" folds every
            batch normalisation into the convolution before it.

    Returns:
        The fused copy. Its state dict has the published names of fused models when partial.

    Source: Chu et al., QARepVGG (2022).
    """
    fused = copy.deepcopy(model).eval()
    for module in list(fused.modules()):
        if isinstance(module, QARepVGGBlock):
            module.fuse_branches()
            if level == "full":
                module.fuse_post_norm()
        elif isinstance(module, ConvBNAct) and level == "full":
            fold_norm_into(module)
    return fused


def count_parameters(model: nn.Module) -> int:
    """Return the number of parameters of a model."""
    return sum(p.numel() for p in model.parameters())


def count_conv_macs(model: nn.Module, image_size: int) -> int:
    """Return multiply-accumulates of a model's convolutions for one square image.

    Args:
        model: a model of images, best on the meta device, where counting costs nothing.
        image_size: side of the image, pixels.

    Returns:
        Multiply-accumulates; normalisation, activation, pooling and sums are not counted.
    """
    total = 0

    def count(module: nn.Module, _inputs: object, output: torch.Tensor) -> None:
        nonlocal total
        assert isinstance(module, nn.Conv2d | nn.ConvTranspose2d)
        if isinstance(module, nn.ConvTranspose2d):
            # Kernel 2, stride 2: each output pixel is touched by one tap.
            taps = module.in_channels
        else:
            taps = module.weight[0].numel()
        total += output.numel() * taps

    kinds = (nn.Conv2d, nn.ConvTranspose2d)
    hooks = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, kinds)]
    try:
        device = next(model.parameters()).device
        with torch.no_grad():
            model(torch.zeros(1, 3, image_size, image_size, device=device))
    finally:
        for hook in hooks:
            hook.remove()
    return total
