"""Faces as vectors: aligned by their landmarks, embedded by SFace or an ArcFace-like network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from ml.box_detection.base import Image
from ml.box_detection.face_models import (
    FaceModelError,
    Faces,
    LandmarkedFaceDetector,
    OnnxImages,
)
from ml.records.models import Model

ALIGNED_SIZE: Final = 112
# Where the two eyes, the nose tip and the mouth's corners of an aligned face lie, px of 112.
_TEMPLATE: Final = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655],
     [70.7299, 92.2041]]
)  # fmt: skip


class FaceEmbedder(Protocol):
    """Embeds an aligned face as a vector whose direction identifies the person."""

    name: str
    """Name and hash; an index belongs to it."""

    def embed(self, aligned: Sequence[Image]) -> NDArray[np.float32]:
        """Embed faces.

        Args:
            aligned: (112, 112, 3) uint8 RGB each.

        Returns:
            (N, D) float32 of length 1.
        """
        ...


class SFaceEmbedder:
    """SFace through `cv2.FaceRecognizerSF`; Apache-2.0, so open profiles may use it."""

    def __init__(self, model: Model) -> None:
        """Load the file.

        Args:
            model: `face_recognition_sface_2021dec.onnx` or later.

        Raises:
            FaceModelError: OpenCV cannot read it.
        """
        try:
            self._network = cv2.FaceRecognizerSF.create(model.location, "")
        except cv2.error as error:
            raise FaceModelError(f"sface: OpenCV cannot read it: {error.err}") from error
        self.name = f"{model.name}:{model.version}"

    def embed(self, aligned: Sequence[Image]) -> NDArray[np.float32]:
        """Embed faces, one after the other: `FaceRecognizerSF` takes no batch.

        Args:
            aligned: (112, 112, 3) uint8 RGB each.

        Returns:
            (N, D) float32 of length 1.
        """
        rows = [
            np.asarray(
                self._network.feature(cv2.cvtColor(face, cv2.COLOR_RGB2BGR)), np.float32
            ).reshape(-1)
            for face in aligned
        ]
        return _unit(rows)


class OnnxEmbedder:
    """An ArcFace-like network through onnxruntime: RGB, (x - 127.5) / 127.5."""

    def __init__(self, model: Model, batch_size: int = 16, device: str = "cpu") -> None:
        """Load the file.

        Args:
            model: the ONNX file.
            batch_size: faces in one pass, where the file allows several.
            device: where to compute.

        Raises:
            FaceModelError: onnxruntime does not know the device or cannot read the file.
        """
        self._model = OnnxImages(Path(model.location), batch_size, device, output_rank=2)
        self.name = f"{model.name}:{model.version}"

    def embed(self, aligned: Sequence[Image]) -> NDArray[np.float32]:
        """Embed faces.

        Args:
            aligned: (112, 112, 3) uint8 RGB each.

        Returns:
            (N, D) float32 of length 1.
        """
        fed = ((face.astype(np.float32).transpose(2, 0, 1) - 127.5) / 127.5 for face in aligned)
        return _unit([outputs[0].reshape(-1) for outputs in self._model.run(fed)])


@dataclass(frozen=True)
class FaceReader:
    """Finds, aligns and embeds the faces of images.

    Attributes:
        detector: finds faces and landmarks.
        embedder: makes vectors of aligned faces.
        min_face_px: smaller faces are left out.
    """

    detector: LandmarkedFaceDetector
    embedder: FaceEmbedder
    min_face_px: float = 20.0

    def read(self, image: Image) -> NDArray[np.float32]:
        """Return embeddings of an image's faces.

        Args:
            image: (H, W, 3) uint8 RGB.

        Returns:
            (N, D) float32 of length 1, best face first; (0, 0) without faces.
        """
        return self.read_all([image])[0]

    def read_all(self, images: Sequence[Image]) -> list[NDArray[np.float32]]:
        """Return embeddings of the faces of many images, in batches where the models allow it.

        Args:
            images: (H, W, 3) uint8 RGB each.

        Returns:
            For each (N, D) float32 of length 1, best face first; (0, D) or (0, 0) without faces.
        """
        aligned, ends = [], [0]
        for image, faces in zip(images, self.detector.find(images), strict=True):
            sides = (faces.boxes_xyxy[:, 2:] - faces.boxes_xyxy[:, :2]).min(axis=1, initial=np.inf)
            large = np.flatnonzero(sides >= self.min_face_px)
            aligned += [align_face(image, faces, int(i)) for i in large]
            ends.append(len(aligned))
        vectors = self.embedder.embed(aligned)
        return [vectors[start:end] for start, end in pairwise(ends)]


def align_face(image: Image, faces: Faces, number: int) -> Image:
    """Turn, scale and cut a face so that its landmarks lie where networks expect them.

    Args:
        image: (H, W, 3) uint8 RGB.
        faces: its faces.
        number: which one.

    Returns:
        (112, 112, 3) uint8 RGB.
    """
    matrix = similarity_transform(faces.landmarks[number].astype(np.float64), _TEMPLATE)
    aligned = cv2.warpAffine(image, matrix, (ALIGNED_SIZE, ALIGNED_SIZE), flags=cv2.INTER_LINEAR)
    return np.asarray(aligned, np.uint8)


def similarity_transform(
    source: NDArray[np.floating], target: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Return the rotation, scale and shift that brings points nearest to others (least squares).

    Args:
        source: (N, 2).
        target: (N, 2).

    Returns:
        (2, 3), so that target is about matrix @ [x, y, 1].

    Raises:
        FaceModelError: the source points lie on one spot.
    """
    middle, aim = source.mean(axis=0), target.mean(axis=0)
    points, goals = source - middle, target - aim
    spread = float((points**2).sum())
    if spread < 1e-9:
        raise FaceModelError("face alignment: the landmarks lie on one spot")
    # With z = x + iy a similarity is one complex factor.
    along = float((points * goals).sum()) / spread
    across = float((points[:, 0] * goals[:, 1] - points[:, 1] * goals[:, 0]).sum()) / spread
    turn = np.array([[along, -across], [across, along]])
    return np.concatenate([turn, (aim - turn @ middle)[:, None]], axis=1)


def _unit(rows: Sequence[NDArray[np.floating]]) -> NDArray[np.float32]:
    if not rows:
        return np.zeros((0, 0), np.float32)
    vectors = np.stack(rows).astype(np.float32)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
