"""DAD-3DNet, the paper's teacher, from the TorchScript file that its authors publish.

Source: the predictor of DAD-3DHeads: RGB crop of the extended box, longest side to 256 px, padded
with black around its middle, ImageNet normalisation; 413 parameters per crop.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ml.annotation.regressor import check_crops
from ml.flame.frames import BOX_MARGIN, DAD_CROP_SIZE, dad_crop_to_image
from ml.flame.params import NUM_PARAMETERS, ROTATION
from ml.flame.rotation import matrix_from_6d, sixd_from_matrix
from ml.imaging.boxes import expand_boxes
from ml.records.models import choose_device

OUTPUT_KEY = "OUTPUT_3DMM_PARAMS"
"""Where the network's answer holds the parameters."""
LANDMARKS_KEY = "OUTPUT_2D_LANDMARKS"
"""Where it holds the 68 landmarks, as fractions of the crop's side."""
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class DadError(ValueError):
    """A TorchScript file is not DAD-3DNet; the message describes its outputs."""


class DadRegressor:
    """DAD-3DNet in the shape of `FlameRegressor`, cutting its crops itself.

    Its crop frame is the padded 256 px square that the network sees.
    """

    name = "dad-3dnet"
    crop_size = DAD_CROP_SIZE
    box_margin = BOX_MARGIN

    def __init__(
        self,
        network: torch.jit.ScriptModule,
        sha256: str,
        batch_size: int = 32,
        device: str = "cpu",
    ) -> None:
        """Take over the network.

        Args:
            network: the loaded file.
            sha256: hash of the file.
            batch_size: crops in one pass. Fixed, so that a crop's result depends on nothing else.
            device: torch device.
        """
        self.sha256 = sha256
        self._network = network.eval()
        self._batch_size = batch_size
        self._device = device
        self._mean = torch.tensor(_MEAN, device=device).view(1, 3, 1, 1)
        self._std = torch.tensor(_STD, device=device).view(1, 3, 1, 1)

    @classmethod
    def load(cls, path: Path, batch_size: int = 32, device: str = "cpu") -> DadRegressor:
        """Load the TorchScript file.

        Args:
            path: `dad_3dheads.trcd`.
            batch_size: crops in one pass.
            device: torch device; `auto` takes the GPU when there is one.

        Returns:
            The regressor.

        Raises:
            FileNotFoundError: there is no such file.
            DadError: it is no TorchScript file.
        """
        if not path.is_file():
            raise FileNotFoundError(
                f"{path}: DAD-3DNet's TorchScript file is not there; its authors publish it, under "
                "a non-commercial licence"
            )
        device = str(choose_device(device))
        try:
            network = torch.jit.load(str(path), map_location=device)
        except RuntimeError as error:
            raise DadError(f"{path}: not a TorchScript file: {error}") from error
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return cls(network, digest, batch_size, device)

    def cut(
        self, image_rgb: NDArray[np.uint8], boxes_xyxy: NDArray[np.float32]
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Return crops of the extended boxes as the network was trained on them.

        The official annotator shifts crops that would leave the image; here they stay centred and
        pixels outside it are black.

        Args:
            image_rgb: (H, W, 3) uint8.
            boxes_xyxy: (N, 4) head boxes, image px.

        Returns:
            (N, 256, 256, 3) uint8 RGB, and (N, 3) left, top and side of each padded square in
            image px.
        """
        whole = np.trunc(expand_boxes(np.asarray(boxes_xyxy, np.float32), self.box_margin))
        crops = np.zeros((len(whole), DAD_CROP_SIZE, DAD_CROP_SIZE, 3), np.uint8)
        frames = np.zeros((len(whole), 3), np.float32)
        for crop, frame, box in zip(crops, frames, whole.astype(int), strict=True):
            patch = _patch(image_rgb, box)
            height, width = patch.shape[:2]
            zoom = DAD_CROP_SIZE / max(height, width)
            new_height, new_width = max(1, round(height * zoom)), max(1, round(width * zoom))
            top, left = (DAD_CROP_SIZE - new_height) // 2, (DAD_CROP_SIZE - new_width) // 2
            crop[top : top + new_height, left : left + new_width] = cv2.resize(
                patch, (new_width, new_height), interpolation=cv2.INTER_LINEAR
            )
            frame[:] = box[0] - left / zoom, box[1] - top / zoom, max(height, width)
        return crops, frames

    @torch.inference_mode()
    def predict(self, crops: Tensor) -> Tensor:
        """Estimate the head in each crop.

        Args:
            crops: (N, 3, 256, 256) uint8 RGB, from `cut`.

        Returns:
            (N, 413) float32 FLAME parameters, crop frame, px, with orthonormal rotations.

        Raises:
            ValueError: the crops have another shape or dtype.
            DadError: the network's answer is not DAD-3DNet's.
        """
        check_crops(crops, DAD_CROP_SIZE)
        if not len(crops):
            return torch.zeros(0, NUM_PARAMETERS)
        raw = torch.cat([self._run(part) for part in crops.split(self._batch_size)])
        # The network's own frame is its 256 px square, in which its origin is the corner.
        corner = np.zeros((len(raw), 4), np.float32)
        flame = torch.from_numpy(dad_crop_to_image(raw.numpy(), corner))
        flame[:, ROTATION] = sixd_from_matrix(matrix_from_6d(flame[:, ROTATION]))
        return flame

    @torch.inference_mode()
    def landmarks(self, crops: Tensor) -> Tensor:
        """Find the 68 landmarks that the network predicts in addition to its parameters.

        Args:
            crops: (N, 3, 256, 256) uint8 RGB, from `cut`.

        Returns:
            (N, 68, 2) float32 crop px, x right, y down, iBUG order.

        Raises:
            ValueError: the crops have another shape or dtype.
            DadError: the network's answer has no landmarks.
        """
        check_crops(crops, DAD_CROP_SIZE)
        found = [torch.zeros(0, 68, 2)]
        for part in crops.split(self._batch_size):
            answer = self._answer(part)
            points = answer.get(LANDMARKS_KEY) if isinstance(answer, Mapping) else None
            if not isinstance(points, Tensor) or points.numel() != len(part) * 136:
                shape = tuple(points.shape) if isinstance(points, Tensor) else points
                raise DadError(
                    f"dad-3dnet: expected {LANDMARKS_KEY} of ({len(part)}, 68, 2), got {shape}; "
                    "a file traced for single crops needs annotations.regressor.batch_size 1"
                )
            found.append(points.float().cpu().reshape(-1, 68, 2) * DAD_CROP_SIZE)
        return torch.cat(found).clone()

    def _answer(self, crops: Tensor) -> Any:
        pixels = (crops.to(self._device, torch.float32) / 255 - self._mean) / self._std
        return self._network(pixels)

    def _run(self, crops: Tensor) -> Tensor:
        params = _parameters(self._answer(crops))
        if params.shape != (len(crops), NUM_PARAMETERS):
            raise DadError(
                f"dad-3dnet: expected ({len(crops)}, {NUM_PARAMETERS}) parameters for {len(crops)} "
                f"crops, got {tuple(params.shape)}; a file traced for single crops needs "
                "annotations.regressor.batch_size 1"
            )
        return params.float().cpu()


def _parameters(answer: Any) -> Tensor:
    """Return the parameters in the network's answer."""
    if not isinstance(answer, Mapping):
        raise DadError(f"dad-3dnet: expected a dict with {OUTPUT_KEY}, got {type(answer).__name__}")
    if OUTPUT_KEY in answer:
        found: Tensor = answer[OUTPUT_KEY]
        return found
    # Other traces of the same network spell the key otherwise; the length is unmistakable.
    fitting = [
        value
        for value in answer.values()
        if isinstance(value, Tensor) and value.shape[-1:] == (NUM_PARAMETERS,)
    ]
    if len(fitting) != 1:
        raise DadError(f"dad-3dnet: no {OUTPUT_KEY} in its answer, got {sorted(answer)}")
    return fitting[0]


def _patch(image_rgb: NDArray[np.uint8], box: NDArray[np.int_]) -> NDArray[np.uint8]:
    """Return the part of an image, black where it reaches outside; at least one pixel."""
    height, width = image_rgb.shape[:2]
    left, top = int(box[0]), int(box[1])
    right, bottom = max(int(box[2]), left + 1), max(int(box[3]), top + 1)
    patch = np.zeros((bottom - top, right - left, 3), np.uint8)
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(right, width), min(bottom, height)
    if x1 > x0 and y1 > y0:
        patch[y0 - top : y1 - top, x0 - left : x1 - left] = image_rgb[y0:y1, x0:x1]
    return patch
