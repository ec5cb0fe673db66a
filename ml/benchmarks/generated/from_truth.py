"""The benchmarks' layouts written from renders whose heads are exactly known.

Sets that ask for one head an image take images with one head; those of boxes take all in which
every head is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from ml.benchmarks.conventions import euler_from_rotations
from ml.benchmarks.face_boxes import face_boxes, visible_faces
from ml.benchmarks.generated.boxes import (
    FddbImage,
    WiderImage,
    ellipse_of_box,
    write_fddb,
    write_wider,
)
from ml.benchmarks.generated.meshes import DadItem, weak_perspective, write_dad
from ml.benchmarks.generated.poses import (
    AFLW_PX,
    BIWI_HEIGHT,
    BIWI_WIDTH,
    AflwHead,
    BiwiFrame,
    biwi_centre_mm,
    write_aflw2000,
    write_biwi,
)
from ml.benchmarks.generated.scans import Scan, ScanImage, write_feng, write_now
from ml.benchmarks.metrics_dad import SEVEN
from ml.benchmarks.predictors import neutral_face
from ml.evaluation.protocol import EvaluationSample
from ml.flame.geometry import HeadGeometry, region_faces
from ml.flame.head_model import HeadModel
from ml.flame.layer import FlameLayer
from ml.flame.params import SCALE, SHIFT_XY
from ml.flame.projection import transform_flame
from ml.flame.rotation import FRONTAL
from ml.imaging.letterbox import PADDING_VALUE
from ml.records.heads import Heads

SET_NAMES = ("aflw2000", "biwi", "dad", "fddb", "wider", "feng", "now")
_EASY_PX, _MEDIUM_PX = 50, 30
"""Least height of a face, px, that WIDER's easy and medium ask for here."""
_FIRST_FRAME, _FRAME_STEP = 3, 2
"""Number of a sequence's first frame, and the distance to the next: the set has such gaps."""
_NOW_CHALLENGES = ("multiview_neutral", "multiview_expressions", "selfie")


@dataclass(frozen=True)
class GeneratedSets:
    """Folders of the sets, and the heads in their images.

    Attributes:
        folders: set -> folder; sets without a suitable image are left out.
        heads: set -> image id -> its true heads, px of the set's image.
    """

    folders: Mapping[str, Path]
    heads: Mapping[str, Mapping[str, Heads]]


@dataclass(frozen=True)
class _Placed:
    """A render on the canvas of a set."""

    image_rgb: np.ndarray
    heads: Heads


def write_generated_sets(
    root: Path,
    samples: Iterable[EvaluationSample],
    head_model: HeadModel,
    num_images: int,
    num_scans: int | None = None,
) -> GeneratedSets:
    """Write every set.

    Args:
        root: receives a folder per set.
        samples: renders with ground truth; the first fitting ones are taken, no more are read.
        head_model: of their parameters.
        num_images: images of a set at most.
        num_scans: the same for the sets of scans; `num_images` by default.

    Returns:
        The sets.
    """
    single, clear = _choose(samples, num_images)
    num_scans = num_images if num_scans is None else num_scans
    writer = _Writer(head_model)
    folders, heads = {}, {}
    for name in SET_NAMES:
        chosen = clear if name in ("fddb", "wider") else single
        chosen = chosen[:num_scans] if name in ("feng", "now") else chosen
        if chosen:
            folders[name] = root / name
            heads[name] = getattr(writer, name)(folders[name], chosen)
    return GeneratedSets(folders, heads)


def _choose(
    samples: Iterable[EvaluationSample], count: int
) -> tuple[list[EvaluationSample], list[EvaluationSample]]:
    """Return the first images with one head, and the first with any, all of which are asked for."""
    single: list[EvaluationSample] = []
    clear: list[EvaluationSample] = []
    for sample in samples:
        if len(single) >= count and len(clear) >= count:
            break
        if not len(sample.heads) or sample.ignore.any():
            continue
        if len(clear) < count:
            clear.append(sample)
        if len(sample.heads) == 1 and len(single) < count:
            single.append(sample)
    return single, clear


class _Writer:
    """Writes the sets one by one; each method returns image id -> heads."""

    def __init__(self, head_model: HeadModel) -> None:
        self._head_model = head_model
        self._face = HeadGeometry(head_model, "face")
        self._whole = HeadGeometry(head_model, "all")
        self._layer = FlameLayer(head_model, vertices="all")

    def aflw2000(self, root: Path, samples: Sequence[EvaluationSample]) -> dict[str, Heads]:
        found: dict[str, Heads] = {}

        def heads() -> Iterator[AflwHead]:
            for number, sample in enumerate(samples, 1):
                placed = _place(sample, AFLW_PX, AFLW_PX)
                name = f"image{2 * number:05d}"
                found[name] = placed.heads
                euler = euler_from_rotations(HeadGeometry.rotations(placed.heads.flame))[0]
                yield AflwHead(name, placed.image_rgb, euler, self._landmarks(placed.heads))

        write_aflw2000(root, heads())
        return found

    def biwi(self, root: Path, samples: Sequence[EvaluationSample]) -> dict[str, Heads]:
        found: dict[str, Heads] = {}

        def frames() -> Iterator[BiwiFrame]:
            for index, sample in enumerate(samples):
                placed = _place(sample, BIWI_WIDTH, BIWI_HEIGHT)
                sequence = ("01", "24")[index % 2]
                number = _FIRST_FRAME + _FRAME_STEP * (index // 2)
                found[f"{sequence}/frame_{number:05d}"] = placed.heads
                rotation = HeadGeometry.rotations(placed.heads.flame)[0]
                centre = biwi_centre_mm(self._boxes(placed.heads)[0].reshape(2, 2).mean(axis=0))
                yield BiwiFrame(sequence, number, placed.image_rgb, rotation, centre)

        write_biwi(root, frames())
        return found

    def dad(self, root: Path, samples: Sequence[EvaluationSample]) -> dict[str, Heads]:
        def items() -> Iterator[DadItem]:
            for sample in samples:
                flame = torch.as_tensor(sample.heads.flame[:1])
                with torch.inference_mode():
                    vertices = self._layer.vertices(flame)[0].double().numpy()
                view = np.eye(4)
                view[:3, :3] = FRONTAL @ HeadGeometry.rotations(sample.heads.flame)[0]
                shift, scale = (sample.heads.flame[0, part] for part in (SHIFT_XY, SCALE))
                projection = weak_perspective(float(scale[0]), shift, sample.image_rgb.shape[0])
                yield DadItem(
                    sample.sample_id,
                    sample.image_rgb,
                    vertices,
                    view,
                    projection,
                    {"quality": "hq", "pose": "front", "occlusions": False},
                )

        write_dad(root, items())
        return {sample.sample_id: sample.heads for sample in samples}

    def fddb(self, root: Path, samples: Sequence[EvaluationSample]) -> dict[str, Heads]:
        found: dict[str, Heads] = {}

        def images() -> Iterator[FddbImage]:
            for number, sample in enumerate(samples, 1):
                name = f"2002/08/11/big/img_{number}"
                found[name] = sample.heads
                ellipses = [ellipse_of_box(box) for box in self._seen_faces(sample.heads)]
                yield FddbImage(name, 1 + number % 10, ellipses, sample.image_rgb)

        write_fddb(root, images())
        return found

    def wider(self, root: Path, samples: Sequence[EvaluationSample]) -> dict[str, Heads]:
        found: dict[str, Heads] = {}

        def images() -> Iterator[WiderImage]:
            for number, sample in enumerate(samples, 1):
                event = ("0--Parade", "2--Demonstration")[number % 2]
                name = f"{event.replace('--', '_')}_{number}"
                found[f"{event}/{name}"] = sample.heads
                yield _wider_image(event, name, sample, self._seen_faces(sample.heads))

        write_wider(root, sorted(images(), key=lambda image: (image.event, image.name)))
        return found

    def feng(self, root: Path, samples: Sequence[EvaluationSample]) -> dict[str, Heads]:
        found: dict[str, Heads] = {}
        scans: dict[str, Scan] = {}
        images = []
        for number, sample in enumerate(samples, 1):
            subject, quality = f"{'FM'[number % 2]}{1000 + number}", ("HQ", "LQ")[number % 2]
            images.append(self._scan_image(f"{quality}/{subject}_01.jpg", sample))
            scans[subject] = self._scan(sample.heads)
            found[f"{quality}/{subject}_01"] = sample.heads
        write_feng(root, images, scans)
        return found

    def now(self, root: Path, samples: Sequence[EvaluationSample]) -> dict[str, Heads]:
        found: dict[str, Heads] = {}
        scans: dict[str, Scan] = {}
        images = []
        for number, sample in enumerate(samples, 1):
            subject = f"FaMoS_{number}_TA"
            name = f"{subject}/{_NOW_CHALLENGES[number % 3]}/IMG_{number}.jpg"
            images.append(self._scan_image(name, sample))
            scans[subject] = self._scan(sample.heads)
            found[name] = sample.heads
        write_now(root, images, scans)
        return found

    def _scan_image(self, name: str, sample: EvaluationSample) -> ScanImage:
        return ScanImage(name, sample.image_rgb, self._boxes(sample.heads)[0])

    def _scan(self, heads: Heads) -> Scan:
        """Return the face of a head at rest, as its scan."""
        vertices, landmarks = neutral_face(self._layer, heads.flame[0])
        index = self._face.vertex_indices
        faces = region_faces(self._head_model, "face").astype(np.int64)
        return Scan(vertices[index], faces, landmarks[list(SEVEN)])

    def _landmarks(self, heads: Heads) -> np.ndarray:
        """Return (68, 3) px of the first head."""
        points = np.zeros((68, 3))
        points[:, :2] = self._whole.landmarks_px(heads.flame[:1])[0]
        return points

    def _boxes(self, heads: Heads) -> np.ndarray:
        """Return (N, 4) px around the faces."""
        every = np.arange(len(self._face.vertex_indices))
        return face_boxes(self._face.vertices_px(heads.flame), every)

    def _seen_faces(self, heads: Heads) -> np.ndarray:
        """Return (N, 4) px around the faces of the heads that show one."""
        return self._boxes(heads)[visible_faces(HeadGeometry.rotations(heads.flame))]


def _wider_image(event: str, name: str, sample: EvaluationSample, faces: np.ndarray) -> WiderImage:
    """Return whole pixels, and which faces the three difficulties ask for by their height."""
    corners = faces.round().astype(int)
    rows = [
        (left, top, right - left, bottom - top, 0) for left, top, right, bottom in corners.tolist()
    ]
    limits = {"easy": _EASY_PX, "medium": _MEDIUM_PX, "hard": 0}
    kept = {
        difficulty: [number for number, row in enumerate(rows, 1) if row[3] >= least]
        for difficulty, least in limits.items()
    }
    return WiderImage(event, name, rows or [(0, 0, 0, 0, 0)], kept, sample.image_rgb)


def _place(sample: EvaluationSample, width: int, height: int) -> _Placed:
    """Fit a render into a canvas, as large as it goes, and its heads with it."""
    rows, columns = sample.image_rgb.shape[:2]
    factor = min(width / columns, height / rows)
    size = max(round(columns * factor), 1), max(round(rows * factor), 1)
    left, top = (width - size[0]) // 2, (height - size[1]) // 2
    canvas = np.full((height, width, 3), PADDING_VALUE, np.uint8)
    resized = cv2.resize(sample.image_rgb, size, interpolation=cv2.INTER_LINEAR)
    canvas[top : top + size[1], left : left + size[0]] = resized
    shift = torch.tensor([left, top], dtype=torch.float32)
    flame = transform_flame(torch.as_tensor(sample.heads.flame), factor, shift).numpy()
    boxes = factor * sample.heads.boxes_xyxy + np.tile([left, top], 2)
    return _Placed(canvas, Heads(boxes, sample.heads.scores, flame))
