"""The Inception network of FID, KID and inception score, built without torchvision.

It is the TensorFlow model of 2015-12-05 with 1,008 classes, whose average pooling leaves the border
out and whose last block pools by maximum; torchvision's own Inception differs in all three.
"""

from __future__ import annotations

import math
import struct
import zipfile
from pathlib import Path
from typing import Final, Protocol

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from ml.model.checkpoint_file import UNPICKLING_ERRORS, read_checkpoint_tensors
from ml.records.files import check_regular, is_environment
from ml.records.limits import MAX_CHECKPOINT_BYTES, check_limit, short

SIDE: Final = 299
NUM_CLASSES: Final = 1008
FEATURE_SIZES: Final = (64, 192, 768, 2048)
_BN_EPS: Final = 1e-3
_DAMAGE: Final = (
    *UNPICKLING_ERRORS,
    SafetensorError,
    zipfile.BadZipFile,
    struct.error,
    AssertionError,
)
"""ValueError, one of these, is also raised by our readers."""
_SQUARE: Final = {1: (1, 1), 3: (3, 3), 5: (5, 5)}
# Convolutions: name -> (channels in, channels out, kernel, stride, padded).
_Spec = tuple[int, int, tuple[int, int], int, bool]
# A path through a block: names in sequence, a pair of parallel names, or a pooling.
_Path = tuple["str | tuple[str, str]", ...]


class FeatureNetwork(Protocol):
    """Anything that turns images into features and class scores."""

    feature_sizes: tuple[int, ...]

    def __call__(self, images: Tensor) -> tuple[dict[int, Tensor], Tensor]:
        """Return features of images.

        Args:
            images: (B, 3, H, W) float32 RGB, -1 to 1, as :func:`prepare` makes them.

        Returns:
            Feature size -> (B, size) float32; (B, classes) scores of the classes.
        """
        ...


def prepare(image_rgb: np.ndarray, side: int = SIDE) -> Tensor:
    """Resize as TensorFlow 1 did and scale to -1..1.

    Pixel i of the result is at i * old / new of the image, not at (i + 1/2) * old / new - 1/2,
    and nothing is smoothed before. FID depends on it (Parmar et al. 2022), so it is kept.

    Args:
        image_rgb: (H, W, 3) uint8.
        side: of the result, px.

    Returns:
        (3, side, side) float32.
    """
    image = torch.as_tensor(np.ascontiguousarray(image_rgb)).permute(2, 0, 1).to(torch.float32)
    for axis in (1, 2):
        size = image.shape[axis]
        place = torch.arange(side, dtype=torch.float32) * (size / side)
        low = place.floor().long().clamp(max=size - 1)
        part = (place - low).unsqueeze(-1) if axis == 1 else place - low
        first = image.index_select(axis, low)
        second = image.index_select(axis, (low + 1).clamp(max=size - 1))
        image = first + (second - first) * part
    return (image - 128.0) / 128.0


class _Convolution(nn.Module):
    def __init__(self, spec: _Spec) -> None:
        super().__init__()
        inputs, outputs, kernel, stride, padded = spec
        padding = (kernel[0] // 2, kernel[1] // 2) if padded else 0
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=_BN_EPS)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class _Block(nn.Module):
    """Paths whose results are stacked along the channels."""

    def __init__(self, specs: dict[str, _Spec], paths: tuple[_Path, ...]) -> None:
        super().__init__()
        for name, spec in specs.items():
            self.add_module(name, _Convolution(spec))
        self.paths = paths

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self._follow(path, x) for path in self.paths], dim=1)

    def _follow(self, path: _Path, x: Tensor) -> Tensor:
        for step in path:
            if isinstance(step, tuple):
                x = torch.cat([getattr(self, name)(x) for name in step], dim=1)
            elif step == "mean":
                x = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
            elif step == "max":
                x = F.max_pool2d(x, 3, 1, 1)
            elif step == "halve":
                x = F.max_pool2d(x, 3, 2)
            else:
                x = getattr(self, step)(x)
        return x


def _conv(
    inputs: int, outputs: int, kernel: int | tuple[int, int], stride: int = 1, padded: bool = True
) -> _Spec:
    return inputs, outputs, _SQUARE[kernel] if isinstance(kernel, int) else kernel, stride, padded


def _block_a(inputs: int, pooled: int) -> _Block:
    specs = {
        "branch1x1": _conv(inputs, 64, 1),
        "branch5x5_1": _conv(inputs, 48, 1),
        "branch5x5_2": _conv(48, 64, 5),
        "branch3x3dbl_1": _conv(inputs, 64, 1),
        "branch3x3dbl_2": _conv(64, 96, 3),
        "branch3x3dbl_3": _conv(96, 96, 3),
        "branch_pool": _conv(inputs, pooled, 1),
    }
    paths: tuple[_Path, ...] = (
        ("branch1x1",),
        ("branch5x5_1", "branch5x5_2"),
        ("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"),
        ("mean", "branch_pool"),
    )
    return _Block(specs, paths)


def _block_b(inputs: int) -> _Block:
    specs = {
        "branch3x3": _conv(inputs, 384, 3, 2, padded=False),
        "branch3x3dbl_1": _conv(inputs, 64, 1),
        "branch3x3dbl_2": _conv(64, 96, 3),
        "branch3x3dbl_3": _conv(96, 96, 3, 2, padded=False),
    }
    paths: tuple[_Path, ...] = (
        ("branch3x3",),
        ("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"),
        ("halve",),
    )
    return _Block(specs, paths)


def _block_c(width: int) -> _Block:
    inputs, wide, tall = 768, (1, 7), (7, 1)
    specs = {
        "branch1x1": _conv(inputs, 192, 1),
        "branch7x7_1": _conv(inputs, width, 1),
        "branch7x7_2": _conv(width, width, wide),
        "branch7x7_3": _conv(width, 192, tall),
        "branch7x7dbl_1": _conv(inputs, width, 1),
        "branch7x7dbl_2": _conv(width, width, tall),
        "branch7x7dbl_3": _conv(width, width, wide),
        "branch7x7dbl_4": _conv(width, width, tall),
        "branch7x7dbl_5": _conv(width, 192, wide),
        "branch_pool": _conv(inputs, 192, 1),
    }
    paths: tuple[_Path, ...] = (
        ("branch1x1",),
        ("branch7x7_1", "branch7x7_2", "branch7x7_3"),
        tuple(f"branch7x7dbl_{i}" for i in range(1, 6)),
        ("mean", "branch_pool"),
    )
    return _Block(specs, paths)


def _block_d() -> _Block:
    specs = {
        "branch3x3_1": _conv(768, 192, 1),
        "branch3x3_2": _conv(192, 320, 3, 2, padded=False),
        "branch7x7x3_1": _conv(768, 192, 1),
        "branch7x7x3_2": _conv(192, 192, (1, 7)),
        "branch7x7x3_3": _conv(192, 192, (7, 1)),
        "branch7x7x3_4": _conv(192, 192, 3, 2, padded=False),
    }
    paths: tuple[_Path, ...] = (
        ("branch3x3_1", "branch3x3_2"),
        tuple(f"branch7x7x3_{i}" for i in range(1, 5)),
        ("halve",),
    )
    return _Block(specs, paths)


def _block_e(inputs: int, pooling: str) -> _Block:
    wide, tall = (1, 3), (3, 1)
    specs = {
        "branch1x1": _conv(inputs, 320, 1),
        "branch3x3_1": _conv(inputs, 384, 1),
        "branch3x3_2a": _conv(384, 384, wide),
        "branch3x3_2b": _conv(384, 384, tall),
        "branch3x3dbl_1": _conv(inputs, 448, 1),
        "branch3x3dbl_2": _conv(448, 384, 3),
        "branch3x3dbl_3a": _conv(384, 384, wide),
        "branch3x3dbl_3b": _conv(384, 384, tall),
        "branch_pool": _conv(inputs, 192, 1),
    }
    paths: tuple[_Path, ...] = (
        ("branch1x1",),
        ("branch3x3_1", ("branch3x3_2a", "branch3x3_2b")),
        ("branch3x3dbl_1", "branch3x3dbl_2", ("branch3x3dbl_3a", "branch3x3dbl_3b")),
        (pooling, "branch_pool"),
    )
    return _Block(specs, paths)


class Inception(nn.Module):
    """Inception v3 of 2015-12-05, with the module names of the published weights."""

    feature_sizes: tuple[int, ...] = FEATURE_SIZES

    def __init__(self) -> None:
        """Build it with torch's own initialisation."""
        super().__init__()
        self.Conv2d_1a_3x3 = _Convolution(_conv(3, 32, 3, 2, padded=False))
        self.Conv2d_2a_3x3 = _Convolution(_conv(32, 32, 3, padded=False))
        self.Conv2d_2b_3x3 = _Convolution(_conv(32, 64, 3))
        self.Conv2d_3b_1x1 = _Convolution(_conv(64, 80, 1))
        self.Conv2d_4a_3x3 = _Convolution(_conv(80, 192, 3, padded=False))
        self.Mixed_5b = _block_a(192, 32)
        self.Mixed_5c = _block_a(256, 64)
        self.Mixed_5d = _block_a(288, 64)
        self.Mixed_6a = _block_b(288)
        self.Mixed_6b = _block_c(128)
        self.Mixed_6c = _block_c(160)
        self.Mixed_6d = _block_c(160)
        self.Mixed_6e = _block_c(192)
        self.Mixed_7a = _block_d()
        self.Mixed_7b = _block_e(1280, "mean")
        self.Mixed_7c = _block_e(2048, "max")
        self.fc = nn.Linear(2048, NUM_CLASSES)

    def forward(self, images: Tensor) -> tuple[dict[int, Tensor], Tensor]:
        """Return features and class scores, see :class:`FeatureNetwork`.

        The scores leave the bias out, as FID's tools do.
        """
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(images)))
        x = F.max_pool2d(x, 3, 2)
        features = {64: x}
        x = F.max_pool2d(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)), 3, 2)
        features[192] = x
        for block in (self.Mixed_5b, self.Mixed_5c, self.Mixed_5d, self.Mixed_6a):
            x = block(x)
        for block in (self.Mixed_6b, self.Mixed_6c, self.Mixed_6d, self.Mixed_6e):
            x = block(x)
        features[768] = x
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))
        features[2048] = x
        pooled = {size: value.mean(dim=(2, 3)) for size, value in features.items()}
        return pooled, F.linear(pooled[2048], self.fc.weight)


class InceptionFileError(ValueError):
    """A weight file cannot be used; the message says why and which files can."""


def load_inception(path: Path) -> Inception:
    """Read the published weights, without executing anything in the file.

    Accepted is a state dict of the 2015-12-05 network with its 1,008 classes: pytorch-fid's file
    `pt_inception-2015-12-05-6726825d.pth`, torch-fidelity's
    `weights-inception-2015-12-05-6726825d.pth`, or the same tensors as `.safetensors`.

    Args:
        path: the file.

    Returns:
        The network in evaluation mode.

    Raises:
        InceptionFileError: missing, no state dict, or of another network.
        OSError: the machine does not let it be read.
    """
    known = (
        "expected pt_inception-2015-12-05-6726825d.pth (pytorch-fid), "
        "weights-inception-2015-12-05-6726825d.pth (torch-fidelity) or the same as .safetensors"
    )
    if not path.is_file():
        raise InceptionFileError(f"inception: no file {path}; {known}")
    tensors = _read(path, known)
    network = Inception()
    wanted = network.state_dict()
    # Older files have no counts of batches, and the network does not use them.
    needed = {name for name in wanted if not name.endswith("num_batches_tracked")}
    lacking = sorted(needed - tensors.keys())
    if lacking:
        raise InceptionFileError(
            f"{path}: {len(lacking)} of {len(needed)} tensors are missing, the first {lacking[0]}; "
            f"{known}"
        )
    for name in needed:
        if tensors[name].shape != wanted[name].shape:
            reason = (
                "; a network of 1,000 classes is torchvision's own, whose pooling differs"
                if name.startswith("fc.")
                else ""
            )
            raise InceptionFileError(
                f"{path}: {name} must be {tuple(wanted[name].shape)}, "
                f"got {tuple(tensors[name].shape)}{reason}; {known}"
            )
    network.load_state_dict({name: tensors[name] for name in needed}, strict=False)
    return network.eval()


def _read(path: Path, known: str) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    try:
        check_limit(check_regular(path).st_size, MAX_CHECKPOINT_BYTES, "bytes in the file")
        if path.suffix == ".safetensors":
            return load_file(path)
        if zipfile.is_zipfile(path):
            return read_checkpoint_tensors(path)
        # The published files are older than torch's archives: one pickle after another.
        content = torch.load(path, map_location="cpu", weights_only=True)
    except _DAMAGE as error:
        if is_environment(error):
            raise
        first = str(error).strip().partition("\n")[0] or type(error).__name__
        raise InceptionFileError(f"{path}: cannot be read ({short(first)}); {known}") from error
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()):
        raise InceptionFileError(f"{path}: no state dict, got {type(content).__name__}; {known}")
    return content


def num_parameters(network: nn.Module) -> int:
    """Return the number of learnable parameters of a network."""
    return sum(math.prod(p.shape) for p in network.parameters())
