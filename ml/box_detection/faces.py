"""Face detectors for the consistency check between faces and heads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import cv2
import numpy as np
from pydantic import Field, model_validator

from ml.box_detection.base import Boxes, Image
from ml.records.config import Count, Index, Positive, StageConfig
from ml.records.models import ModelFile

HAAR_CASCADE = "haarcascade_frontalface_alt2.xml"
"""Of the cascades that OpenCV 4 ships, the one with the fewest false alarms on frontal faces."""


@runtime_checkable
class FaceBoxDetector(Protocol):
    """Finds faces in images."""

    name: str
    """Short name, recorded with the verdicts."""

    def detect_faces(self, images: Sequence[Image]) -> list[Boxes]:
        """Find faces.

        Args:
            images: (H, W, 3) uint8 RGB each.

        Returns:
            (N, 4) boxes xyxy in each image's px.
        """
        ...


class FaceCheckConfig(StageConfig):
    """Which face detector looks for faces that no head covers."""

    backend: Literal["none", "haar", "yunet", "scrfd", "retinaface"] = "none"
    """`none`: rule 3 is skipped, which is recorded; `haar`: OpenCV's frontal face cascade; `yunet`
    (OpenCV), `scrfd` (paper's code) and `retinaface` (paper's text) load `model`."""
    model: ModelFile | None = None
    """ONNX file of yunet, scrfd or retinaface."""
    threshold: float = Field(default=0.5, gt=0, lt=1)
    """ONNX models: minimum score of a face."""
    nms_iou: float = Field(default=0.4, gt=0, le=1)
    """ONNX models: IoU above which the weaker of two faces is suppressed."""
    input_size: int = Field(default=640, ge=64, le=10**9)
    """ONNX models: longer side of the input image, px."""
    batch_size: Count = 16
    """scrfd and retinaface: images in one forward pass, if the file's batch axis is not fixed."""
    scale_factor: Positive = 1.1
    """Haar: factor between successive detection scales, > 1."""
    min_neighbours: Index = 6
    """Haar: overlapping detections required for a face; higher values give fewer false
    positives."""
    min_side_px: Count = 24
    """Haar: smallest detectable face, image px."""

    @model_validator(mode="after")
    def _file_named(self) -> FaceCheckConfig:
        if self.backend not in ("none", "haar") and self.model is None:
            raise ValueError(f"backend {self.backend} needs model, {{path, sha256, asset}}")
        return self


class HaarFaceDetector:
    """OpenCV's Viola-Jones cascade: no weights to download, frontal faces only."""

    name = "opencv-haar-frontalface-alt2"

    def __init__(self, config: FaceCheckConfig) -> None:
        """Load the cascade that ships with OpenCV.

        Args:
            config: strictness.

        Raises:
            RuntimeError: this OpenCV has no cascades (they are gone from version 5).
        """
        folder = getattr(getattr(cv2, "data", None), "haarcascades", "")
        path = Path(folder) / HAAR_CASCADE
        if not hasattr(cv2, "CascadeClassifier") or not path.is_file():
            raise RuntimeError(
                f"face check 'haar': OpenCV {cv2.__version__} brings no {HAAR_CASCADE}; install "
                "opencv-python-headless below 5, or set face_check.backend to none"
            )
        self._cascade = cv2.CascadeClassifier(str(path))
        self._config = config

    def detect_faces(self, images: Sequence[Image]) -> list[Boxes]:
        """Find frontal faces.

        Args:
            images: (H, W, 3) uint8 RGB each.

        Returns:
            (N, 4) boxes xyxy in each image's px, left to right.
        """
        return [self._detect_one(image) for image in images]

    def _detect_one(self, image: Image) -> Boxes:
        found = self._cascade.detectMultiScale(
            cv2.cvtColor(image, cv2.COLOR_RGB2GRAY),
            scaleFactor=self._config.scale_factor,
            minNeighbors=self._config.min_neighbours,
            minSize=(self._config.min_side_px, self._config.min_side_px),
        )
        boxes = np.array(found, np.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        # The order of OpenCV's threads must not show.
        return boxes[np.lexsort(boxes.T[::-1])]


def build_face_detector(
    config: FaceCheckConfig, root: Path | None = None, device: str = "cpu"
) -> FaceBoxDetector | None:
    """Return the configured face detector.

    Args:
        config: which one.
        root: the project folder, to which the model's path is relative; the current folder if left
            out.
        device: where onnxruntime computes.

    Returns:
        The detector, or None when the check is switched off.

    Raises:
        ModelError: the model's file is missing or has another hash than stated.
        FaceModelError: the file is no such model.
    """
    if config.backend == "haar":
        return HaarFaceDetector(config)
    if config.backend == "none" or config.model is None:
        return None
    from ml.box_detection.face_models import FaceModelSettings, load_face_model

    file = Path(config.model.resolve(root or Path()).location)
    settings = FaceModelSettings(
        config.threshold, config.nms_iou, config.input_size, config.batch_size, device
    )
    return load_face_model(config.backend, file, settings)
