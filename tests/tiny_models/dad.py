"""A stand-in for DAD-3DNet's TorchScript file that follows its image."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn


class _CoarseRegressor(nn.Module):
    """413 numbers from an 8 x 8 view of the crop, a frontal head of the crop's size on average."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(8)
        self.linear = nn.Linear(3 * 64, 413)
        nn.init.normal_(self.linear.weight, std=0.005)
        usual = torch.zeros(413)
        # Columns of diag(1, -1, -1); z means nothing; the scale S stands for (S + 1).
        usual[403], usual[407], usual[412] = 1.0, -1.0, 3.0
        self.linear.bias.data = usual

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        params = self.linear(self.pool(x).flatten(1))
        return {"OUTPUT_3DMM_PARAMS": params, "OUTPUT_2D_LANDMARKS": params[:, :136]}


def build_dad(path: Path) -> Path:
    """Trace the stand-in.

    Args:
        path: the file to write.
    """
    torch.manual_seed(12)
    path.parent.mkdir(parents=True, exist_ok=True)
    traced = torch.jit.trace(_CoarseRegressor().eval(), torch.rand(2, 3, 256, 256), strict=False)
    traced.save(str(path))
    return path
