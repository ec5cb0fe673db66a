"""The gallery of a set from what a detector found: outcomes first, then the images shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ml.benchmarks.gallery import (
    Outcome,
    box_outcome,
    draw_truth,
    pose_outcomes,
    scan_outcomes,
    sections_of,
    shrink,
    write_gallery,
)
from ml.benchmarks.metrics_pose import PosePairs
from ml.benchmarks.predictors import DAD_SCORE, POSE_RETRY_SCORE, Convert
from ml.benchmarks.samples import BenchmarkSample, FaceBoxes, HeadMesh, HeadPose
from ml.benchmarks.scorers import CHOICES
from ml.benchmarks.sets import BenchmarkSet, Situation
from ml.flame.geometry import HeadGeometry
from ml.flame.head_model import HeadModel
from ml.imaging.io import UnreadableImage, to_rgb
from ml.inference.drawing import draw_heads
from ml.records.exclusions import Exclusions
from ml.records.heads import OPERATING_SCORE, Heads

STAGE = "gallery"
HeadsOf = Callable[[BenchmarkSample[Any]], Heads]


def write_set_gallery(
    folder: Path,
    benchmark: BenchmarkSet,
    situation: Situation,
    heads: HeadsOf,
    convert: Convert,
    head_model: HeadModel | None,
    title: str,
    medians_mm: Mapping[str, float] | None = None,
    notes: Sequence[str] = (),
) -> Path:
    """Write the page of a set.

    Args:
        folder: receives `gallery.html` and its images.
        benchmark: the set.
        situation: its folder.
        heads: sample to the heads in its image; called twice, so it should cache.
        convert: sample and heads to predictions, for poses those of our own protocol.
        head_model: draws meshes; boxes are drawn without.
        title: of the page.
        medians_mm: image -> median distance of its scan; only sets of scans have it.
        notes: remarks for the reader.

    Returns:
        The page.
    """

    def samples() -> Iterator[tuple[BenchmarkSample[Any], Heads]]:
        for sample in benchmark.read(situation.root, Exclusions(STAGE)):
            try:
                yield sample, heads(sample)
            except UnreadableImage:
                # has its row among the exclusions of the run already
                continue

    if benchmark.kind == "boxes":
        outcomes = [_of_boxes(sample, found, convert) for sample, found in samples()]
    elif benchmark.kind == "scan":
        outcomes = scan_outcomes(medians_mm or {})
    else:
        outcomes = _of_rotations(benchmark, samples(), convert)
    shown = {one.sample_id for section in sections_of(outcomes) for one in section.outcomes}
    geometry = None if head_model is None else HeadGeometry(head_model)
    drawn = {
        sample.sample_id: shrink(_draw(sample, _shown(sample, found, benchmark.kind), geometry))
        for sample, found in samples()
        if sample.sample_id in shown
    }
    return write_gallery(folder, title, outcomes, lambda sample_id: drawn[sample_id], notes)


def _of_boxes(sample: BenchmarkSample[FaceBoxes], found: Heads, convert: Convert) -> Outcome:
    prediction = convert(sample, found)
    return box_outcome(sample.sample_id, prediction.boxes, prediction.confidences, sample.truth)


def _of_rotations(
    benchmark: BenchmarkSet,
    samples: Iterator[tuple[BenchmarkSample[Any], Heads]],
    convert: Convert,
) -> list[Outcome]:
    ids, true, predicted, sizes, occluded = [], [], [], [], []
    for sample, found in samples:
        if sample.truth is None:
            continue
        rotation = _rotation(benchmark, sample, convert(sample, found))
        ids.append(sample.sample_id)
        true.append(sample.truth.rotation)
        predicted.append(np.full((3, 3), np.nan) if rotation is None else rotation)
        boxes = _true_boxes(sample.truth)
        sides = boxes[:, 2:] - boxes[:, :2]
        sizes.append(float(np.sqrt(sides[0].clip(0).prod())) if len(boxes) else np.nan)
        occluded.append(_occluded(sample.truth))
    if not ids:
        return []
    pairs = PosePairs(np.arange(len(ids)), np.stack(true), np.stack(predicted))
    return pose_outcomes(ids, pairs, np.array(sizes), np.array(occluded))


def _rotation(
    benchmark: BenchmarkSet, sample: BenchmarkSample[Any], prediction: Any
) -> np.ndarray | None:
    """Return the predicted rotation of the annotated head, None if it was missed."""
    if prediction is None or benchmark.kind == "mesh":
        return None if prediction is None else prediction.rotation
    if not len(prediction):
        return None
    index = CHOICES[benchmark.name, "ours"](sample.truth, prediction)
    return None if index is None else prediction.rotations[index]


def _occluded(truth: HeadPose | HeadMesh) -> bool:
    """Return DAD-3DHeads' attributes of the head; the other sets have none."""
    value = truth.attributes.get("occlusions") if isinstance(truth, HeadMesh) else None
    return value is True or str(value).lower() in ("true", "yes", "1")


def _true_boxes(truth: Any) -> np.ndarray:
    """Return (N, 4) px boxes of the ground truth, or of its landmarks; empty if it has neither."""
    if isinstance(truth, FaceBoxes):
        return truth.boxes_xyxy
    if getattr(truth, "box_xyxy", None) is not None:
        return truth.box_xyxy[None]
    points = getattr(truth, "landmarks_px", None)
    if points is None:
        return np.zeros((0, 4))
    return np.concatenate([points[:, :2].min(axis=0), points[:, :2].max(axis=0)])[None]


def _shown(sample: BenchmarkSample[Any], found: Heads, kind: str) -> Heads:
    """Return the detected heads, and the weak ones that may be the measured head.

    Protocols of one head an image accept scores below the operating score. Such a head is drawn if
    it lies at the ground truth, or if there is no other.
    """
    detected = found.scores >= OPERATING_SCORE
    if kind == "boxes" or sample.truth is None:
        return found[detected]
    weak = found.scores >= (DAD_SCORE if kind == "mesh" else POSE_RETRY_SCORE)
    if not detected.any():
        return found[weak]
    centres = (found.boxes_xyxy[:, None, :2] + found.boxes_xyxy[:, None, 2:]) / 2  # (N, 1, 2)
    true = _true_boxes(sample.truth)[None]  # (1, T, 4)
    inside = ((centres >= true[..., :2]) & (centres <= true[..., 2:])).all(axis=2).any(axis=1)
    return found[detected | (weak & inside)]


def _draw(sample: BenchmarkSample[Any], heads: Heads, geometry: HeadGeometry | None) -> np.ndarray:
    image = draw_heads(
        to_rgb(sample.load_image()), heads, geometry, ("mesh", "box") if geometry else ("box",)
    )
    return image if sample.truth is None else draw_truth(image, _true_boxes(sample.truth))
