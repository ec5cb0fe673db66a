"""Our detectors, exports and the official files as predictors of every benchmark.

The network's raw heads, 413 parameters each, are stored in `heads.jsonl`, one line per image:
boxes, landmarks and meshes are derived from them, and an interrupted run resumes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from ml.benchmarks.face_boxes import face_boxes, visible_faces
from ml.benchmarks.metrics_dad import SEVEN, DadPrediction
from ml.benchmarks.metrics_scan import MeshPrediction
from ml.benchmarks.predictions import HeadPredictions
from ml.benchmarks.samples import BenchmarkSample, HeadPose
from ml.benchmarks.scorers import CROPPED, crop_of
from ml.flame.geometry import HeadGeometry
from ml.flame.head_model import HeadModel
from ml.flame.layer import FlameLayer
from ml.flame.params import EXPRESSION, JAW
from ml.flame.projection import transform_flame
from ml.imaging.boxes import box_iou
from ml.imaging.io import to_rgb
from ml.inference.detector import HeadDetector
from ml.records.heads import Heads

FORMAT = "vggheads-heads/1"
LEAST_SCORE = 0.01
"""Lowest confidence that is stored; each protocol applies its own threshold to these heads."""
MAX_HEADS = 1000
IOU_THRESHOLD = 0.5
POSE_SCORE, POSE_RETRY_SCORE, DAD_SCORE = 0.5, 0.1, 0.2


class DetectorHeads:
    """Heads of images by a detector, cached in a file."""

    def __init__(
        self, model: Path, head_model: Path | None, store: Path | None, device: str = "auto"
    ) -> None:
        """Load the detector.

        Args:
            model: a folder of ours, an export, or an official .trcd, .onnx or .pth file.
            head_model: the head model of its parameters; found next to the model by default.
            store: folder of the cache, from which a second run resumes; None for
                none.
            device: auto, cpu, cuda or cuda:N.

        Raises:
            UnusableModel: the model or head model cannot be used.
        """
        model = Path(model)
        self._detector = HeadDetector(
            model,
            head_model=head_model,
            device=device,
            runtime="onnxruntime" if model.suffix == ".onnx" else "torch",
            score_threshold=LEAST_SCORE,
            iou_threshold=IOU_THRESHOLD,
            max_heads=MAX_HEADS,
            batch_size=1,
        )
        self.head_model: HeadModel | None = self._detector.head_model
        self.name = model.name
        self._store = None if store is None else HeadStore(store / "heads.jsonl", digest(model))

    def __call__(self, sample: BenchmarkSample[Any]) -> Heads:
        """Return the heads of an image, by falling score.

        Args:
            sample: the image.

        Returns:
            Its heads, image px.

        Raises:
            UnreadableImage: the image cannot be read.
        """
        if self._store is not None and sample.sample_id in self._store:
            return self._store[sample.sample_id]
        heads = next(iter(self._detector.stream(to_rgb(sample.load_image())))).heads.raw
        if self._store is not None:
            self._store.add(sample.sample_id, heads)
        return heads

    def in_crop(self, sample: BenchmarkSample[HeadPose]) -> Heads:
        """Return heads in the crop that methods of one head are shown, in px of the whole image.

        Args:
            sample: the image; what the crop reaches beyond it is black, as Hopenet's reader has it.

        Raises:
            UnreadableImage: the image cannot be read.
            BrokenAnnotation: the set defines no crop of it.
        """
        left, top, right, bottom = (int(side) for side in crop_of(sample))

        def cut() -> np.ndarray:
            from PIL import Image

            image = Image.fromarray(to_rgb(sample.load_image()))
            return np.asarray(image.crop((left, top, right, bottom)))

        cropped = BenchmarkSample(f"{sample.sample_id}#{CROPPED}", cut, sample.truth)
        heads = self(cropped)
        corner = torch.tensor([left, top], dtype=torch.float32)
        flame = transform_flame(torch.as_tensor(heads.flame), 1.0, corner).numpy()
        boxes = heads.boxes_xyxy + np.array([left, top, left, top], np.float32)
        return Heads(boxes, heads.scores, flame)

    def close(self) -> None:
        """Close the file."""
        if self._store is not None:
            self._store.close()


class HeadStore:
    """Heads of images in a file of lines, written as they are found."""

    def __init__(self, path: Path, model: str) -> None:
        """Open the file; lines of another model and an incomplete last line are dropped.

        Args:
            path: the .jsonl file.
            model: identity of the detector.
        """
        header = json.dumps({"format": FORMAT, "model": model}, sort_keys=True) + "\n"
        self._path, self._places = path, dict[str, int]()
        path.parent.mkdir(parents=True, exist_ok=True)
        end = self._read(header.encode()) if path.exists() else 0
        self._file: IO[bytes] = path.open("r+b" if end else "w+b")
        self._file.truncate(end)
        self._file.seek(end)
        if not end:
            self._file.write(header.encode())

    def _read(self, header: bytes) -> int:
        """Note where each whole line begins; the end of the last, 0 if the file is another's."""
        with self._path.open("rb") as file:
            if file.readline() != header:
                return 0
            end = file.tell()
            while (line := file.readline()).endswith(b"\n"):
                self._places[json.loads(line)["image"]] = end
                end = file.tell()
            return end

    def __contains__(self, image: str) -> bool:
        return image in self._places

    def __getitem__(self, image: str) -> Heads:
        self._file.flush()
        with self._path.open("rb") as file:
            file.seek(self._places[image])
            entry = json.loads(file.readline())
        count = len(entry["scores"])
        return Heads(
            np.reshape(entry["boxes_xyxy"], (count, 4)),
            np.reshape(entry["scores"], (count,)),
            np.reshape(entry["flame"], (count, -1)) if count else Heads.empty().flame,
        )

    def add(self, image: str, heads: Heads) -> None:
        """Store an image's heads."""
        # float32 as the shortest decimals that round-trip
        entry = {
            "image": image,
            "boxes_xyxy": [[float(str(v)) for v in row] for row in heads.boxes_xyxy],
            "scores": [float(str(v)) for v in heads.scores],
            "flame": [[float(str(v)) for v in row] for row in heads.flame],
        }
        self._places[image] = self._file.tell()
        self._file.write(json.dumps(entry, allow_nan=False).encode() + b"\n")

    def close(self) -> None:
        """Flush buffered lines."""
        self._file.close()


def digest(model: Path) -> str:
    """Return the identity of a model: a hash of its file, or of its folder's files."""
    model = Path(model)
    paths = sorted(p for p in model.iterdir() if p.is_file()) if model.is_dir() else [model]
    whole = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            whole.update(f"{path.name}:{hashlib.file_digest(file, 'sha256').hexdigest()};".encode())
    return whole.hexdigest()


# ------------------------------------------------------------------ heads -> predictions
Convert = Callable[[BenchmarkSample[Any], Heads], Any]


def head_boxes() -> Convert:
    """Return the detector's own head boxes."""
    return lambda sample, heads: HeadPredictions(heads.scores, heads.boxes_xyxy)


def faces_of(head_model: HeadModel, rule: str | None) -> Convert:
    """Return face boxes of heads, with which the paper scores a head detector on faces.

    Args:
        head_model: whose region `face` bounds the boxes.
        rule: a key of `face_boxes.YAW_RULES`; None keeps every head.
    """
    geometry = HeadGeometry(head_model, "face")
    every = np.arange(len(geometry.vertex_indices))

    def convert(sample: BenchmarkSample[Any], heads: Heads) -> HeadPredictions:
        if not len(heads):
            return HeadPredictions()
        rotations = geometry.rotations(heads.flame)
        kept = np.ones(len(heads), bool) if rule is None else visible_faces(rotations, rule)
        boxes = face_boxes(geometry.vertices_px(heads.flame), every)
        return HeadPredictions(heads.scores[kept], boxes[kept])

    return convert


def poses_of(head_model: HeadModel, protocol: str) -> Convert:
    """Return the rotation, landmarks and face box of the heads that a pose protocol scores.

    Args:
        head_model: the head model.
        protocol: the official script of `vggheads` takes heads from a score of 0.5, from 0.1 if
            there is none; the others all heads from 0.1.
    """
    geometry = HeadGeometry(head_model, "face")
    every = np.arange(len(geometry.vertex_indices))

    def convert(sample: BenchmarkSample[Any], heads: Heads) -> HeadPredictions:
        strict = protocol == "vggheads" and bool((heads.scores >= POSE_SCORE).any())
        chosen = heads[heads.scores >= (POSE_SCORE if strict else POSE_RETRY_SCORE)]
        if not len(chosen):
            return HeadPredictions()
        return HeadPredictions(
            chosen.scores,
            face_boxes(geometry.vertices_px(chosen.flame), every),
            rotations=geometry.rotations(chosen.flame),
            landmarks_px=geometry.landmarks_px(chosen.flame),
        )

    return convert


def scan_of(head_model: HeadModel) -> Convert:
    """Return the face of the head that a scan belongs to: at rest, neutral, in millimetres.

    Scans of both sets are of neutral faces, so expression and jaw are left out.

    Args:
        head_model: the head model.
    """
    geometry = HeadGeometry(head_model, "face")
    every = np.arange(len(geometry.vertex_indices))
    layer = FlameLayer(head_model, vertices="all")

    def convert(sample: BenchmarkSample[Any], heads: Heads) -> MeshPrediction | None:
        chosen = heads[heads.scores >= POSE_RETRY_SCORE]
        if not len(chosen):
            return None
        best, box = 0, None if sample.truth is None else sample.truth.box_xyxy
        if box is not None:
            boxes = face_boxes(geometry.vertices_px(chosen.flame), every)
            best = int(box_iou(boxes, box[None])[:, 0].argmax())
        vertices, landmarks = neutral_face(layer, chosen.flame[best])
        faces = head_model.faces.astype(np.int64)
        return MeshPrediction(vertices, faces, landmarks[list(SEVEN)])

    return convert


def neutral_face(layer: FlameLayer, flame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a head's mesh and landmarks at rest, without expression and with the mouth shut.

    Args:
        layer: of all vertices.
        flame: (413,) parameters.

    Returns:
        (V, 3) and (68, 3) float64 mm, in the head's own frame.
    """
    neutral = torch.as_tensor(np.asarray(flame, np.float32)[None]).clone()
    neutral[:, EXPRESSION], neutral[:, JAW] = 0.0, 0.0
    with torch.inference_mode():
        found = layer.vertices(neutral)[0], layer.landmarks(neutral)[0]
    vertices, landmarks = (1000.0 * points.double().numpy() for points in found)
    return vertices, landmarks


def dad_of(head_model: HeadModel) -> Convert:
    """Return the one head that overlaps the true box most, as DAD-3DHeads' submission holds it.

    Args:
        head_model: FLAME, for comparable numbers.
    """
    head = HeadGeometry(head_model, "head")
    whole = HeadGeometry(head_model, "all")
    corners = head_model.faces[head_model.landmark_faces]
    weights = head_model.landmark_barycentric

    def convert(sample: BenchmarkSample[Any], heads: Heads) -> DadPrediction | None:
        chosen = heads[heads.scores >= DAD_SCORE]
        if not len(chosen):
            return None
        best = 0
        if sample.truth is not None:
            index = np.arange(len(head.vertex_indices))
            boxes = face_boxes(head.vertices_px(chosen.flame), index)
            best = int(box_iou(boxes, sample.truth.box_xyxy[None])[:, 0].argmax())
        flame = chosen.flame[[best]]
        vertices = whole.vertices_xyz_px(flame)[0]
        landmarks = (vertices[corners] * weights[:, :, None]).sum(axis=1)
        return DadPrediction(
            landmarks_px=landmarks[:, :2],
            vertices=vertices,
            seven=landmarks[list(SEVEN)],
            rotation=whole.rotations(flame)[0],
        )

    return convert
