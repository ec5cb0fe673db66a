"""Face detectors from ONNX files: YuNet through OpenCV, SCRFD and RetinaFace through onnxruntime.

All three also place five landmarks (eyes, nose, mouth corners), which face recognition needs.
"""

from __future__ import annotations

import hashlib
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from ml.box_detection.base import Boxes, Image, Scores
from ml.imaging.boxes import clip_boxes, nms
from ml.records.models import choose_device

logger = logging.getLogger(__name__)

FaceModelName = Literal["yunet", "scrfd", "retinaface"]
NUM_LANDMARKS = 5
_STRIDES = (8, 16, 32)
_RETINAFACE_SIZES = {8: (16, 32), 16: (64, 128), 32: (256, 512)}
_RETINAFACE_VARIANCES = (0.1, 0.2)
_RETINAFACE_MEAN_BGR = (104.0, 117.0, 123.0)
_SCRFD_ANCHORS = 2

Array = NDArray[np.floating[Any]]


class FaceModelError(ValueError):
    """An ONNX file is not the stated face detector; the message gives the difference."""


@dataclass(frozen=True)
class FaceModelSettings:
    """Common base of the three detectors.

    Attributes:
        threshold: lowest score of a face.
        nms_iou: of two faces that overlap more, the weaker goes.
        input_size: longest side that an image is fed at, px.
        batch_size: images in one pass of onnxruntime, where the file allows several.
        device: where onnxruntime computes; OpenCV uses the CPU.
    """

    threshold: float = 0.5
    nms_iou: float = 0.4
    input_size: int = 640
    batch_size: int = 16
    device: str = "cpu"


@dataclass(frozen=True)
class Faces:
    """Faces of one image, in its pixels, best first.

    Attributes:
        boxes_xyxy: (N, 4) float32.
        scores: (N,) float32.
        landmarks: (N, 5, 2) float32: the two eyes (the image's left one first), nose tip, mouth
            corners.
    """

    boxes_xyxy: Boxes
    scores: Scores
    landmarks: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.scores)


class LandmarkedFaceDetector(Protocol):
    """A face detector that also places landmarks."""

    name: str
    """Name and hash, recorded with the verdicts."""

    def find(self, images: Sequence[Image]) -> list[Faces]:
        """Find faces with landmarks.

        Args:
            images: (H, W, 3) uint8 RGB each.
        """
        ...

    def detect_faces(self, images: Sequence[Image]) -> list[Boxes]:
        """Find faces.

        Args:
            images: (H, W, 3) uint8 RGB each.
        """
        ...


def load_face_model(
    name: FaceModelName, file: Path, settings: FaceModelSettings | None = None
) -> LandmarkedFaceDetector:
    """Load a face detector.

    Args:
        name: which kind the file is of.
        file: the ONNX file.
        settings: thresholds and size.

    Returns:
        The detector.

    Raises:
        FaceModelError: the file is missing or of another kind.
    """
    if not file.is_file():
        raise FaceModelError(f"face check '{name}': no file {file}")
    kinds: dict[str, Callable[[Path, FaceModelSettings], LandmarkedFaceDetector]] = {
        "yunet": YuNetFaces,
        "scrfd": ScrfdFaces,
        "retinaface": RetinaFaces,
    }
    return kinds[name](file, settings or FaceModelSettings())


class _FaceModel(ABC):
    """What the three share: sizes, and faces selected alike."""

    kind = ""

    def __init__(self, file: Path, settings: FaceModelSettings) -> None:
        self._settings = settings
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        self.name = f"{self.kind}:{digest}"

    @abstractmethod
    def find(self, images: Sequence[Image]) -> list[Faces]:
        """Find faces with landmarks.

        Args:
            images: (H, W, 3) uint8 RGB each.

        Returns:
            The faces of each image.
        """

    def detect_faces(self, images: Sequence[Image]) -> list[Boxes]:
        """Find faces.

        Args:
            images: (H, W, 3) uint8 RGB each.

        Returns:
            (N, 4) boxes xyxy in each image's px.
        """
        return [faces.boxes_xyxy for faces in self.find(images)]

    def _selected(self, boxes: Array, scores: Array, landmarks: Array, image: Image) -> Faces:
        strong = np.flatnonzero(scores >= self._settings.threshold)
        boxes, scores, landmarks = boxes[strong], scores[strong], landmarks[strong]
        height, width = image.shape[:2]
        boxes = np.asarray(clip_boxes(boxes.astype(np.float32), width, height))
        seen = (boxes[:, 2:] - boxes[:, :2]).min(axis=1, initial=np.inf) >= 1
        boxes, scores, landmarks = boxes[seen], scores[seen], landmarks[seen]
        order = nms(boxes, scores.astype(np.float32), self._settings.nms_iou)
        return Faces(
            boxes[order], scores[order].astype(np.float32), landmarks[order].astype(np.float32)
        )

    def _zoom(self, image: Image) -> float:
        """Return network px per image px."""
        return self._settings.input_size / max(image.shape[:2])

    def _resized(self, image: Image) -> Image:
        """Return the image at the size it is fed at."""
        zoom = self._zoom(image)
        height, width = (max(1, round(side * zoom)) for side in image.shape[:2])
        how = cv2.INTER_AREA if zoom < 1 else cv2.INTER_LINEAR
        return np.asarray(cv2.resize(image, (width, height), interpolation=how), np.uint8)


class YuNetFaces(_FaceModel):
    """YuNet through `cv2.FaceDetectorYN`; MIT, so open profiles may use it."""

    kind = "yunet"

    def __init__(self, file: Path, settings: FaceModelSettings) -> None:
        """Load the file.

        Args:
            file: `face_detection_yunet_2023mar.onnx` or later.
            settings: thresholds and size.

        Raises:
            FaceModelError: OpenCV cannot read it.
        """
        super().__init__(file, settings)
        try:
            # All candidates are requested; thresholds are ours, as for the others.
            self._network = cv2.FaceDetectorYN.create(str(file), "", (64, 64), 0.01, 1.0, 5000)
        except cv2.error as error:
            raise FaceModelError(f"yunet: OpenCV cannot read {file}: {error.err}") from error

    def find(self, images: Sequence[Image]) -> list[Faces]:
        """Find faces with landmarks, image by image: `FaceDetectorYN` takes no batch.

        Args:
            images: (H, W, 3) uint8 RGB each.

        Returns:
            The faces of each image.
        """
        return [self._find_one(image) for image in images]

    def _find_one(self, image: Image) -> Faces:
        fed, zoom = self._resized(image), self._zoom(image)
        self._network.setInputSize((fed.shape[1], fed.shape[0]))
        try:
            _, rows = self._network.detect(cv2.cvtColor(fed, cv2.COLOR_RGB2BGR))
        except cv2.error as error:
            raise FaceModelError(f"yunet: the file is no YuNet: {error.err}") from error
        found = np.zeros((0, 15), np.float32) if rows is None else np.asarray(rows, np.float32)
        boxes = found[:, :4] / zoom
        boxes[:, 2:] += boxes[:, :2]
        landmarks = (found[:, 4:14] / zoom).reshape(-1, NUM_LANDMARKS, 2)
        return self._selected(boxes, found[:, 14], landmarks, image)


class OnnxImages:
    """An ONNX file whose only input is images, run in batches where it allows that."""

    def __init__(self, file: Path, batch_size: int, device: str, output_rank: int) -> None:
        """Load the file.

        Args:
            file: the ONNX file.
            batch_size: images in one pass; with a fixed batch axis, as most published files have
                it, every image has its own.
            device: where to compute.
            output_rank: dimensions of the outputs when the first one counts images. SCRFD as
                published has one less: it joins the rows of all images.

        Raises:
            FaceModelError: onnxruntime is not installed, does not know the device, or cannot read
                the file.
        """
        self._file, self._session = file, open_session(file, device)
        first = self._session.get_inputs()[0]
        self._input = first.name
        has_free_axis = bool(first.shape) and not isinstance(first.shape[0], int)
        apart = all(len(o.shape) == output_rank for o in self._session.get_outputs())
        self._batch_size = batch_size if has_free_axis and apart else 1

    def run(self, images: Iterable[Array]) -> Iterator[list[Array]]:
        """Yield the outputs for each image, as a pass with this image alone gives them.

        Args:
            images: (3, H, W) each, of one size.

        Raises:
            FaceModelError: the file answers for another number of images than it was given.
        """
        left = iter(images)
        while batch := list(islice(left, self._batch_size)):
            feeds = {self._input: np.stack(batch).astype(np.float32, copy=False)}
            outputs = [np.asarray(o, np.float32) for o in self._session.run(None, feeds)]
            if len(batch) == 1:
                yield outputs
                continue
            if any(o.shape[:1] != (len(batch),) for o in outputs):
                raise FaceModelError(
                    f"{self._file}: expected outputs for {len(batch)} images, got shapes "
                    f"{[o.shape for o in outputs]}; set batch_size to 1 for this file"
                )
            yield from ([o[i : i + 1] for o in outputs] for i in range(len(batch)))


class _OnnxFaces(_FaceModel):
    """A model that onnxruntime runs."""

    fewest_outputs: int

    def __init__(self, file: Path, settings: FaceModelSettings) -> None:
        super().__init__(file, settings)
        self._model = OnnxImages(file, settings.batch_size, settings.device, output_rank=3)

    def find(self, images: Sequence[Image]) -> list[Faces]:
        """Find faces with landmarks.

        Args:
            images: (H, W, 3) uint8 RGB each.

        Returns:
            The faces of each image.
        """
        fed = (self._normalised(self._square(self._resized(image))) for image in images)
        return [
            self._faces(self._checked(outputs), image)
            for image, outputs in zip(images, self._model.run(fed), strict=True)
        ]

    @abstractmethod
    def _normalised(self, square: Image) -> Array:
        """Return (3, S, S) float32, the network's input."""

    @abstractmethod
    def _faces(self, outputs: list[Array], image: Image) -> Faces:
        """Return the faces of one image from outputs without a batch dimension."""

    def _checked(self, outputs: list[Array]) -> list[Array]:
        """Return outputs without their batch dimension."""
        if len(outputs) < self.fewest_outputs:
            raise FaceModelError(
                f"{self.kind}: expected at least {self.fewest_outputs} outputs, got {len(outputs)} "
                f"of shapes {[o.shape for o in outputs]}"
            )
        return [o[0] if o.ndim == 3 else o for o in outputs]

    @property
    def _size(self) -> int:
        """Side of the network's input, px."""
        return -(-self._settings.input_size // 32) * 32

    def _square(self, fed: Image) -> Image:
        """Return the image in the upper left corner of the square that fixed-size files ask for."""
        size = self._size
        square = np.zeros((size, size, 3), np.uint8)
        square[: fed.shape[0], : fed.shape[1]] = fed
        return square


class ScrfdFaces(_OnnxFaces):
    """SCRFD, the detector of insightface's packs (the paper's code).

    Nine outputs: scores, distances to the four sides and landmarks in strides, for strides 8, 16
    and 32, two anchors per cell. Six without landmarks are accepted for the face rule.
    """

    kind = "scrfd"
    fewest_outputs = 2 * len(_STRIDES)

    def _normalised(self, square: Image) -> Array:
        return (square.astype(np.float32).transpose(2, 0, 1) - 127.5) / 128

    def _faces(self, outputs: list[Array], image: Image) -> Faces:
        zoom = self._zoom(image)
        with_landmarks = len(outputs) >= 3 * len(_STRIDES)
        parts = []
        for level, stride in enumerate(_STRIDES):
            side = self._size // stride
            y, x = np.mgrid[:side, :side].astype(np.float32) * stride
            corners = np.stack([x, y], axis=-1).reshape(-1, 2).repeat(_SCRFD_ANCHORS, axis=0)
            scores, sides = outputs[level], outputs[level + 3]
            points = (
                outputs[level + 6]
                if with_landmarks
                else np.zeros((len(scores), 2 * NUM_LANDMARKS), np.float32)
            )
            shapes = [a.shape for a in (scores, sides, points)]
            count = len(corners)
            if shapes != [(count, 1), (count, 4), (count, 2 * NUM_LANDMARKS)]:
                raise FaceModelError(
                    f"scrfd: stride {stride} has outputs of shapes {shapes}, expected {count} rows "
                    "of 1, 4 and 10"
                )
            low, high = corners - sides[:, :2] * stride, corners + sides[:, 2:] * stride
            places = corners[:, None] + points.reshape(count, NUM_LANDMARKS, 2) * stride
            parts.append((np.concatenate([low, high], axis=1), scores[:, 0], places))
        boxes, scores, landmarks = (np.concatenate(p) for p in zip(*parts, strict=True))
        return self._selected(boxes / zoom, scores, landmarks / zoom, image)


class RetinaFaces(_OnnxFaces):
    """RetinaFace as the widely used PyTorch version exports it: boxes, two class scores, landmarks.

    Two prior boxes per cell at strides 8, 16 and 32, variances 0.1 and 0.2, BGR less its mean.
    """

    kind = "retinaface"
    fewest_outputs = 3

    def _normalised(self, square: Image) -> Array:
        bgr = square[:, :, ::-1].astype(np.float32) - np.array(_RETINAFACE_MEAN_BGR, np.float32)
        return bgr.transpose(2, 0, 1)

    def _faces(self, outputs: list[Array], image: Image) -> Faces:
        zoom, size = self._zoom(image), self._size
        priors = retinaface_priors(size)
        by_width = {o.shape[-1]: o for o in outputs}
        shapes = [o.shape for o in outputs]
        if {4, 2, 10} - set(by_width) or any(len(o) != len(priors) for o in by_width.values()):
            raise FaceModelError(
                f"retinaface: outputs have shapes {shapes}, expected {len(priors)} rows of 4, 2 "
                "and 10 each"
            )
        centre, side = priors[:, :2], priors[:, 2:]
        first, second = _RETINAFACE_VARIANCES
        middle = centre + by_width[4][:, :2] * first * side
        half = side * np.exp(np.minimum(by_width[4][:, 2:] * second, 20)) / 2
        places = (
            centre[:, None] + by_width[10].reshape(-1, NUM_LANDMARKS, 2) * first * side[:, None]
        )
        boxes = np.concatenate([middle - half, middle + half], axis=1)
        return self._selected(boxes * size / zoom, by_width[2][:, 1], places * size / zoom, image)


def retinaface_priors(size: int) -> Array:
    """Return prior boxes of a square input.

    Args:
        size: side of the input, px.

    Returns:
        (P, 4) float32 centre and size as fractions of the side.
    """
    parts = []
    for stride, sizes in _RETINAFACE_SIZES.items():
        cells = -(-size // stride)
        y, x = (np.mgrid[:cells, :cells].astype(np.float32) + 0.5) * stride / size
        sides = np.array(sizes, np.float32) / size
        grid = np.stack([x, y], axis=-1).reshape(-1, 1, 2).repeat(len(sizes), axis=1)
        both = np.broadcast_to(sides[None, :, None], (*grid.shape[:2], 2))
        parts.append(np.concatenate([grid, both], axis=2).reshape(-1, 4))
    return np.concatenate(parts).astype(np.float32)


def open_session(file: Path, device: str) -> Any:
    """Return an onnxruntime session, on one thread where it computes on the CPU.

    Args:
        file: the ONNX file.
        device: `cpu`, `cuda` or `cuda:N`; `auto` takes the GPU when there is one and onnxruntime
            was built for it.

    Returns:
        The session.

    Raises:
        FaceModelError: onnxruntime is not installed or not built for the device, or cannot read the
            file.
        ValueError: there is no such device here.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise FaceModelError(
            "face models need onnxruntime; install the extra `faces`: pip install -e '.[faces]'"
        ) from error
    options = onnxruntime.SessionOptions()
    # Parallelism is across shards, and sums must not depend on the number of cores.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    providers = _providers(file, device, onnxruntime.get_available_providers())
    broken = onnxruntime.capi.onnxruntime_pybind11_state
    try:
        return onnxruntime.InferenceSession(str(file), options, providers=providers)
    except (broken.Fail, broken.InvalidProtobuf, broken.InvalidGraph, broken.NoSuchFile) as error:
        raise FaceModelError(f"{file}: onnxruntime cannot read it: {error}") from error


def _providers(file: Path, device: str, available: Sequence[str]) -> list[Any]:
    """Return what a session on the device is opened with, best first."""
    cpu, cuda = "CPUExecutionProvider", "CUDAExecutionProvider"
    chosen = choose_device(device)
    if chosen.type != "cuda":
        return [cpu]
    if cuda in available:
        return [(cuda, {"device_id": chosen.index or 0}), cpu]
    problem = f"{file}: this build of onnxruntime has no {cuda}"
    if device != "auto":
        raise FaceModelError(f"{problem}; install onnxruntime-gpu, or use device auto or cpu")
    logger.warning("%s; it computes on the CPU", problem)
    return [cpu]
