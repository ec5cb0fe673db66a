"""Crops of heads for a regressor, and its estimates in the image frame, with reasons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ml.annotation.regressor import FlameRegressor, TakesCrops
from ml.flame.frames import crop_to_image, extract_crops, square_frames
from ml.flame.params import SCALE
from ml.records import reasons


@runtime_checkable
class CutsCrops(Protocol):
    """A model whose crops are not plain squares around the extended box."""

    def cut(
        self, image_rgb: NDArray[np.uint8], boxes_xyxy: NDArray[np.float32]
    ) -> tuple[NDArray[np.uint8], NDArray[np.floating]]:
        """Cut crops.

        Args:
            image_rgb: (H, W, 3) uint8.
            boxes_xyxy: (N, 4) head boxes, image px.

        Returns:
            (N, S, S, 3) uint8 RGB, and (N, 3) left, top and side of each crop in image px.
        """
        ...


@runtime_checkable
class ReportsFailures(Protocol):
    """A regressor that gives a reason when it has no parameters for a head."""

    def predict_with_reasons(self, crops: Tensor) -> tuple[Tensor, list[str]]:
        """Estimate the head in the middle of each crop.

        Args:
            crops: (N, 3, crop_size, crop_size) uint8 RGB.

        Returns:
            (N, 413) parameters, crop frame, px; NaN where there are none. N texts that say why
            there are none, empty where there are.
        """
        ...


@dataclass(frozen=True)
class Estimates:
    """Estimates of a regressor.

    Attributes:
        flame: (N, 413) float32 image frame; of no use where there is a reason.
        reasons: N names of `ml.records.reasons`, empty where the parameters can be used.
        details: N texts, likewise.
    """

    flame: NDArray[np.float32]
    reasons: list[str]
    details: list[str]


def cut_crops(
    model: TakesCrops, image_rgb: NDArray[np.uint8], boxes_xyxy: NDArray[np.float32]
) -> tuple[NDArray[np.uint8], NDArray[np.floating]]:
    """Cut crops of an image's heads as a model takes them.

    Args:
        model: defines the crops that it takes, or cuts them itself.
        image_rgb: (H, W, 3) uint8.
        boxes_xyxy: (N, 4) head boxes, image px.

    Returns:
        (N, S, S, 3) uint8 RGB, and (N, 3) left, top and side of each crop in image px.
    """
    if isinstance(model, CutsCrops):
        return model.cut(image_rgb, boxes_xyxy)
    frames = square_frames(boxes_xyxy, model.box_margin)
    return extract_crops(image_rgb, frames, model.crop_size), frames


def estimate_heads(
    regressor: FlameRegressor, crops: NDArray[np.uint8], frames: NDArray[np.floating]
) -> Estimates:
    """Ask a regressor for the head in each crop.

    Args:
        regressor: the regressor that the crops were cut for.
        crops: (N, S, S, 3) uint8 RGB.
        frames: (N, 3) left, top and side of each crop in image px.

    Returns:
        The heads in the image frame; what is not finite, has no positive scale or was not found
        has a reason.
    """
    pixels = torch.from_numpy(crops).permute(0, 3, 1, 2)
    if isinstance(regressor, ReportsFailures):
        predicted, details = regressor.predict_with_reasons(pixels)
    else:
        predicted, details = regressor.predict(pixels), [""] * len(crops)
    flame = crop_to_image(predicted.numpy(), frames, regressor.crop_size)
    why = [reasons.BAD_FIT if detail else "" for detail in details]
    for number, parameters in enumerate(flame):
        if not details[number] and (wrong := _describe_invalid(parameters)):
            why[number], details[number] = reasons.NON_FINITE, wrong
    return Estimates(flame, why, [f"{regressor.name}: {d}" if d else "" for d in details])


def _describe_invalid(flame: NDArray[np.floating]) -> str:
    """Name the first wrong number of parameters (413,); empty if all can be used."""
    wrong = np.flatnonzero(~np.isfinite(flame))
    if len(wrong):
        return f"flame[{wrong[0]}] is {flame[wrong[0]]}, expected a finite number"
    if not (flame[SCALE] > 0).all():
        return f"flame[{SCALE.start}] (scale) is {flame[SCALE.start]}, expected > 0"
    return ""
