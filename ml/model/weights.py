"""Published weights for our detector: whole models, and initialisation by matching entries."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from ml.model.building import ModelSize, build_detector, model_config
from ml.model.checkpoint_file import StateDict, UnusableCheckpoint, read_checkpoint_tensors
from ml.model.config import ModelConfig
from ml.model.detector import HeadDetectorNetwork
from ml.model.fusing import fuse

_NOT_WEIGHTS = re.compile(
    r"(^|\.)(anchor_points|stride_tensor|proj_conv|id_tensor)$|^post_process\."
)
"""Constants that published files carry along."""

_DEAD = re.compile(r"(^|\.)rbr_reparam\.(weight|bias)$")
"""Placeholders of a fusion that did not happen: in every unfused file, used by nothing."""

_FLAME_BRANCH = re.compile(r"^heads\.head\d+\.flame_")
"""Entries that only a head detector has, which distinguish it from YOLO-NAS on COCO."""

_SIZE_MARKS: dict[tuple[int, ...], ModelSize] = {
    (96, 64, 1, 1): "S",
    (96, 256, 1, 1): "M",
    (96, 384, 1, 1): "L",
}
"""Shape of the first stage's last convolution, by which the published sizes differ."""


@dataclass(frozen=True)
class WeightReport:
    """Report on the entries of a loaded state dict.

    Attributes:
        loaded: names taken over.
        missing: names of the model that are missing from the file.
        unexpected: names in the file that are not in the model.
        mismatched: names in both, of different shape.
    """

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[str, ...]

    def __str__(self) -> str:
        """Return counts, and the first names of each kind that did not fit."""
        parts = [f"{len(self.loaded)} loaded"]
        for kind in ("missing", "unexpected", "mismatched"):
            names = getattr(self, kind)
            shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
            parts.append(f"{len(names)} {kind}" + (f" ({shown})" if names else ""))
        return "; ".join(parts)


def import_published(path: Path, config: ModelConfig | None = None) -> HeadDetectorNetwork:
    """Build the detector of a published checkpoint.

    The published consumers read jaw and rotation from other channels than the branches were named
    after. The weights stay where they are, since jaw and half of the rotation share convolutions;
    the model is configured to put its outputs in the right order (`HeadConfig.swapped_branches`).

    Args:
        path: a super-gradients checkpoint, a bare state dict or the official TorchScript file;
            fused models are understood if partially fused.
        config: the model's sizes; found out from the weights if left out.

    Returns:
        The detector in evaluation mode, partially fused where the file is.

    Raises:
        FileNotFoundError: there is no such file.
        UnusableCheckpoint: the file cannot be read or does not hold this model; says what differs.
    """
    state = {
        name: tensor
        for name, tensor in read_checkpoint_tensors(path).items()
        if not _NOT_WEIGHTS.search(name)
    }
    config = config or model_config(_size_of(state, path))
    head = config.head.model_copy(update={"swapped_branches": True})
    model = build_detector(config.model_copy(update={"head": head})).eval()
    if any("branch_3x3" in name for name in state):
        state = {name: tensor for name, tensor in state.items() if not _DEAD.search(name)}
    elif any(_DEAD.search(name) for name in state):
        model = fuse(model, "partial")
    report = load_fitting(model, state)
    if report.missing or report.unexpected or report.mismatched:
        raise UnusableCheckpoint(f"{path}: is not a {config.name} head detector: {report}")
    return model


def is_head_detector(path: Path) -> bool:
    """Return whether a weight file holds a head detector, not a detector of another task.

    Args:
        path: a super-gradients checkpoint, a bare state dict or a TorchScript file.

    Returns:
        True where it has FLAME branches. Such weights mean something only together with the order
        of their outputs: they go through :func:`import_published`, never :func:`initialise_from`.

    Raises:
        FileNotFoundError: there is no such file.
        UnusableCheckpoint: the file cannot be read.
    """
    return any(_FLAME_BRANCH.search(name) for name in read_checkpoint_tensors(path))


def initialise_from(model: nn.Module, path: Path) -> WeightReport:
    """Start a model from a checkpoint of another task, for example YOLO-NAS on COCO.

    Args:
        model: the model, unfused; changed in place.
        path: the file.

    Returns:
        Loaded entries (same name and shape) and the others.

    Raises:
        FileNotFoundError: there is no such file.
        UnusableCheckpoint: the file cannot be read, nothing in it fits, or it is a head detector.
    """
    state = read_checkpoint_tensors(path)
    if any(_FLAME_BRANCH.search(name) for name in state):
        raise UnusableCheckpoint(
            f"{path}: is a head detector, whose jaw and rotation would come from the wrong "
            "branches; expected weights of another task, such as YOLO-NAS on COCO; read it with "
            "import_published"
        )
    state = {
        name: tensor
        for name, tensor in state.items()
        if not (_NOT_WEIGHTS.search(name) or _DEAD.search(name))
    }
    report = load_fitting(model, state)
    if not report.loaded:
        raise UnusableCheckpoint(f"{path}: nothing in it fits the model: {report}")
    return report


def load_fitting(model: nn.Module, state: StateDict) -> WeightReport:
    """Copy the entries that agree in name and shape.

    Args:
        model: changed in place.
        state: names and tensors.

    Returns:
        Copied entries and the others.
    """
    own = model.state_dict()
    both = [name for name in own if name in state]
    loaded = [name for name in both if own[name].shape == state[name].shape]
    with torch.no_grad():
        for name in loaded:
            own[name].copy_(state[name])
    return WeightReport(
        loaded=tuple(loaded),
        missing=tuple(name for name in own if name not in state),
        unexpected=tuple(name for name in state if name not in own),
        mismatched=tuple(name for name in both if own[name].shape != state[name].shape),
    )


def _size_of(state: StateDict, path: Path) -> ModelSize:
    mark = state.get("backbone.stage1.blocks.conv3.conv.weight")
    shape = None if mark is None else tuple(mark.shape)
    if shape not in _SIZE_MARKS:
        raise UnusableCheckpoint(
            f"{path}: expected a published detector of size S, M or L, got stage 1 of shape {shape}"
        )
    return _SIZE_MARKS[shape]
