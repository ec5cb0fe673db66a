"""Record what super-gradients' own modules compute, for tests that run without it.

    python tests/ml/model/golden/make_super_gradients.py [S] [M] [L]

Run it in an environment of its own with super-gradients 3.7.1 (docs/differences.md says how to
make one); it imports nothing of this project but `seeded.py`. Backbone and neck are
super-gradients' YOLO-NAS; the heads with FLAME branches are written here a second time, plainly,
on its QARepVGG and ConvBNReLU blocks, as the published state dicts describe them.

Writes beside itself, for each of S, M and L: the running statistics of all batch normalisations
(taken from data, rounded to float16, so that the network is not blind), outputs at sampled anchors
with the mean of every output over all anchors, digests of the state dicts' names and shapes; and
the names and shapes of the heads of YOLO-NAS S on COCO.
"""

from __future__ import annotations

import copy
import json
import math
import sys
from pathlib import Path

import numpy as np
import torch
from seeded import (
    NUM_IMAGES,
    SIZES,
    is_statistic,
    layout_digest,
    seeded_anchors,
    seeded_images,
    seeded_weights,
)
from super_gradients.modules import ConvBNReLU, QARepVGGBlock
from super_gradients.training import models
from torch import Tensor, nn

BRANCHES = {  # blocks of a branch; inner and outer channels of shape and expression; of the others
    "S": (2, (128, 64), (64, 32), 16),
    "M": (2, (128, 64), (64, 32), 16),
    "L": (3, (256, 128), (128, 64), 32),
}
WIDTHS = {  # box and FLAME stems at strides 8, 16, 32, before the multiplier; the multiplier
    "S": ((128, 256, 512), (128, 512, 512), 0.75),
    "M": ((256, 256, 256), (256, 256, 256), 0.75),
    "L": ((128, 256, 512), (256, 256, 256), 1.0),
}
STRIDES = (8, 16, 32)


def rounded_width(channels: int, multiplier: float) -> int:
    """Channels times multiplier, up to the next multiple of eight."""
    return math.ceil(int(channels * multiplier) / 8) * 8


def convolution(in_channels: int, out_channels: int, kernel: int) -> nn.Module:
    """Convolution, normalisation, ReLU."""
    return ConvBNReLU(
        in_channels, out_channels, kernel_size=kernel, stride=1, padding=kernel // 2, bias=False
    )


class OracleHead(nn.Module):
    """One scale: scores, box distributions and activated FLAME values."""

    def __init__(self, in_channels: int, size: str, scale: int) -> None:
        super().__init__()
        box, flame = (rounded_width(w[scale], WIDTHS[size][2]) for w in WIDTHS[size][:2])
        blocks, shape, expression, small = BRANCHES[size]
        self.pose_stem = convolution(in_channels, flame, 1)
        self.bbox_stem = convolution(in_channels, box, 1)
        self.cls_convs = nn.Sequential(convolution(box, box, 3))
        self.reg_convs = nn.Sequential(convolution(box, box, 3))
        self.cls_pred = nn.Conv2d(box, 1, 1)
        self.reg_pred = nn.Conv2d(box, 68, 1)
        outputs = {
            "shape": shape,
            "expression": expression,
            "rotation": (small, 6),
            "jaw": (small, 3),
            "scale": (small, 1),
            "translation": (small, 3),
        }
        for name, (inner, out) in outputs.items():
            layers: list[nn.Module] = [
                QARepVGGBlock(
                    flame if index == 0 else inner,
                    inner,
                    use_residual_connection=False,
                    use_alpha=True,
                )
                for index in range(blocks)
            ]
            setattr(self, f"flame_{name}_pred", nn.Sequential(*layers, nn.Conv2d(inner, out, 1)))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        pose, box = self.pose_stem(x), self.bbox_stem(x)
        shape = 3 * torch.tanh(self.flame_shape_pred(pose))
        expression = 3 * torch.tanh(self.flame_expression_pred(pose))
        values = [
            shape,
            shape.new_zeros(len(x), 300 - shape.shape[1], *shape.shape[2:]),
            expression,
            shape.new_zeros(len(x), 100 - expression.shape[1], *shape.shape[2:]),
            self.flame_rotation_pred(pose),
            self.flame_jaw_pred(pose),
            self.flame_translation_pred(pose),
            torch.exp(self.flame_scale_pred(pose)) / 0.05,
        ]
        scores = self.cls_pred(self.cls_convs(box))
        return scores, self.reg_pred(self.reg_convs(box)), torch.cat(values, dim=1)


class OracleHeads(nn.Module):
    """The three scales with the published decoding."""

    def __init__(self, in_channels: list[int], size: str) -> None:
        super().__init__()
        for scale, channels in enumerate(in_channels):
            self.add_module(f"head{scale + 1}", OracleHead(channels, size, scale))

    def forward(self, maps: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        decoded = [
            decoded_scale(*getattr(self, f"head{scale + 1}")(x), STRIDES[scale])
            for scale, x in enumerate(maps)
        ]
        boxes, scores, flame = (torch.cat(parts, dim=1) for parts in zip(*decoded, strict=True))
        return boxes, scores, flame


def decoded_scale(
    scores: Tensor, sides: Tensor, flame: Tensor, stride: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes (B, A, 4) px, scores (B, A), parameters (B, A, 413) px of one scale."""
    batch, _, height, width = sides.shape
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    centres = torch.stack([x.flatten(), y.flatten()], dim=-1).to(sides)
    fractions = sides.view(batch, 4, 17, height * width).softmax(dim=2)
    bins = torch.arange(17).to(sides)
    distances = (fractions * bins[None, None, :, None]).sum(dim=2).transpose(1, 2)
    boxes = torch.cat([centres - distances[..., :2], centres + distances[..., 2:]], dim=-1)
    flame = flame.flatten(2).transpose(1, 2).clone()
    # The published code reads these nine as jaw (3), rotation (6) and writes rotation, jaw.
    flame[..., 400:409] = torch.cat([flame[..., 403:409], flame[..., 400:403]], dim=-1)
    flame[..., 409:411] += centres * stride
    flame[..., 412] *= stride
    return boxes * stride, scores.flatten(1).sigmoid(), flame


def oracle(size: str) -> nn.Module:
    """The published detector: super-gradients' YOLO-NAS with the heads of above."""
    model = models.get(f"yolo_nas_{size.lower()}", num_classes=80)
    model.heads = OracleHeads(list(model.neck.out_channels), size)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-6
        elif isinstance(module, nn.ReLU):
            module.inplace = True
    return model


def shapes_of(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a state dict."""
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


@torch.no_grad()
def calibrate(model: nn.Module) -> dict[str, np.ndarray]:
    """Set the running statistics to those of a batch; returns them as float16."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    model.train()(seeded_images(256, 6).to(next(model.parameters())))
    model.eval()
    rounded = {}
    for name, tensor in model.state_dict().items():
        if is_statistic(name):
            values = tensor.clamp(min=2e-3) if name.endswith("var") else tensor
            rounded[name] = values.numpy().astype(np.float16)
            tensor.copy_(torch.from_numpy(rounded[name]))
    return rounded


@torch.no_grad()
def outputs_at(model: nn.Module, side_px: int) -> dict[str, np.ndarray]:
    """Sampled anchors, and means over all anchors, for the images of a side."""
    images = seeded_images(side_px, NUM_IMAGES[side_px]).to(next(model.parameters()))
    boxes, scores, flame = model(images)
    everything = torch.cat([boxes, scores[..., None], flame], dim=-1)
    chosen = everything[:, seeded_anchors(side_px)]
    used = everything.abs().amax(dim=(0, 1)) > 0
    arrays = {
        "anchors": chosen[..., used],
        "means": everything.mean(dim=1)[..., used],
        "deviations": everything.std(dim=1).amax(dim=0)[used],
    }
    return {
        f"{side_px}.columns": used.nonzero()[:, 0].numpy().astype(np.int16),
        **{f"{side_px}.{name}": array.numpy().astype(np.float32) for name, array in arrays.items()},
    }


def fused(model: nn.Module) -> nn.Module:
    """A copy with partially fused blocks."""
    model = copy.deepcopy(model)
    for module in list(model.modules()):
        if isinstance(module, QARepVGGBlock):
            module.fuse_block_residual_branches()
    return model


def record(size: str, folder: Path) -> None:
    """Write one size's file."""
    model = oracle(size)
    shapes = shapes_of(model)
    model.load_state_dict(seeded_weights(shapes), strict=False)
    model.double()
    statistics = calibrate(model)
    # In float64, so that what is recorded has no rounding of its own.
    results = {k: v for side_px in NUM_IMAGES for k, v in outputs_at(model, side_px).items()}
    joined = fused(model).float()
    for side_px in NUM_IMAGES:
        again = outputs_at(joined, side_px)
        for name in ("anchors", "means"):
            wanted, found = results[f"{side_px}.{name}"], again[f"{side_px}.{name}"]
            error = np.abs(found - wanted) / (np.abs(wanted) + results[f"{side_px}.deviations"])
            print(
                f"{size} {side_px} px {name}: its own fused float32 form differs by "
                f"{error.max():.1e} relative"
            )
    digests = {
        "layout": layout_digest(shapes),
        "layout_fused": layout_digest(shapes_of(joined)),
    }
    names = sorted(statistics)
    np.savez_compressed(
        folder / f"super_gradients_{size.lower()}.npz",
        statistics=np.concatenate([statistics[name] for name in names]),
        digests=np.array(json.dumps(digests)),
        **results,
    )


def main() -> None:
    """Record all sizes and the names of COCO's heads."""
    folder = Path(__file__).parent
    torch.set_num_threads(1)
    for size in sys.argv[1:] or SIZES:
        record(size, folder)
    coco = shapes_of(models.get("yolo_nas_s", num_classes=80))
    heads = {name: shape for name, shape in coco.items() if name.startswith("heads.")}
    (folder / "yolo_nas_coco_heads.json").write_text(json.dumps(heads, indent=0) + "\n")


if __name__ == "__main__":
    main()
