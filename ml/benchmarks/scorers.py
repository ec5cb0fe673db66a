"""Scorers, one per kind of benchmark: they accumulate images and return scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from ml.benchmarks.biwi import CENTRE_PX, OFFICIAL_CENTRE_PX
from ml.benchmarks.metrics_boxes import BoxCollector, score_boxes
from ml.benchmarks.metrics_dad import DadPrediction, DadTopology, DadTruth, dad_errors, score_dad
from ml.benchmarks.metrics_fddb import (
    RocCurves,
    ellipse_overlaps,
    region_overlaps,
    score_fddb,
    score_steps,
)
from ml.benchmarks.metrics_landmarks import score_landmarks
from ml.benchmarks.metrics_pose import PosePairs, score_poses
from ml.benchmarks.metrics_scan import (
    DistanceSummary,
    MeshPrediction,
    scan_errors,
    score_scans,
)
from ml.benchmarks.metrics_wider import match_image, score_wider
from ml.benchmarks.predictions import NOTHING, HeadPredictions, PredictionError
from ml.benchmarks.samples import (
    BenchmarkSample,
    BrokenAnnotation,
    FaceBoxes,
    FaceScan,
    HeadMesh,
    HeadPose,
)
from ml.benchmarks.scores import RESAMPLES, Scores
from ml.imaging.boxes import box_iou, expand_boxes
from ml.records.limits import MAX_IMAGE_PIXELS

MIN_IOU = 0.1
"""Smallest IoU with the box of the true landmarks at which a head counts as the annotated one."""
MANY_DETECTIONS = 1000
#: The protocol that looks for heads in `HeadPose.crop_xyxy`, not in the whole image.
CROPPED = "hopenet_crop"


class Scorer(Protocol):
    """Scores one benchmark under one protocol."""

    def add(self, sample: BenchmarkSample[Any], prediction: Any | None) -> None:
        """Add an image.

        Args:
            sample: the image and its truth.
            prediction: the predictions; None if there are none.
        """
        ...

    def finish(self, seed: int = 0, resamples: int = RESAMPLES) -> Scores:
        """Return the scores of all images taken.

        Args:
            seed: run seed of the bootstrap.
            resamples: number of bootstrap resamples over the images.
        """
        ...


class FddbScorer:
    """FDDB's discrete and continuous ROC."""

    def __init__(self, image_size: Callable[[str], tuple[int, int] | None]) -> None:
        """Start with no images.

        Args:
            image_size: an image's height and width, None if they are unknown.
        """
        self._size = image_size
        self._steps: list[Any] = []
        self._faces: list[int] = []
        self._unknown = 0
        self.curves: RocCurves | None = None

    def add(self, sample: BenchmarkSample[FaceBoxes], prediction: HeadPredictions | None) -> None:
        """Rasterise and assign."""
        heads, truth = prediction or NOTHING, sample.truth
        ellipses = np.zeros((0, 5)) if truth.ellipses is None else truth.ellipses
        size = self._size(sample.sample_id)
        overlaps = (
            region_overlaps(heads.boxes, ellipses, size)
            if heads.ellipses is None
            else ellipse_overlaps(heads.ellipses, ellipses, size)
        )
        self._unknown += size is None
        self._steps.append(score_steps(heads.confidences, overlaps))
        self._faces.append(len(ellipses))

    def finish(self, seed: int = 0, resamples: int = RESAMPLES) -> Scores:
        """Draw the curves."""
        scores, self.curves = score_fddb(self._steps, self._faces, seed, resamples)
        if not self._unknown:
            return scores
        note = (
            f"the sizes of {self._unknown} images are unknown (no image there): their regions are "
            "not cut at the right and lower border"
        )
        return _with(scores, notes=(note,))


class WiderScorer:
    """WIDER FACE's easy, medium and hard."""

    def __init__(self) -> None:
        """Start with no images."""
        self._matches: list[Any] = []

    def add(self, sample: BenchmarkSample[FaceBoxes], prediction: HeadPredictions | None) -> None:
        """Match."""
        heads, truth = prediction or NOTHING, sample.truth
        if not truth.kept:
            raise PredictionError(
                "wider: easy, medium and hard need wider_face_val.mat and the keep lists "
                "wider_{easy,medium,hard}_val.mat; the text ground truth alone serves --protocol "
                "coco"
            )
        self._matches.append(
            match_image(heads.boxes, heads.confidences, truth.boxes_xyxy, truth.kept)
        )

    def finish(self, seed: int = 0, resamples: int = RESAMPLES) -> Scores:
        """Take the areas."""
        return score_wider(self._matches, seed, resamples)


class BoxScorer:
    """COCO's average precision of boxes."""

    def __init__(self, max_detections: int | None = None) -> None:
        """Start with no images; COCO's limit of detections per image by default."""
        self._boxes = BoxCollector() if max_detections is None else BoxCollector(max_detections)

    def add(self, sample: BenchmarkSample[FaceBoxes], prediction: HeadPredictions | None) -> None:
        """Keep the boxes."""
        self._boxes.add(sample.truth, prediction or NOTHING)

    def finish(self, seed: int = 0, resamples: int = RESAMPLES) -> Scores:
        """Run COCO's tool."""
        return score_boxes(self._boxes, seed, resamples)


# ------------------------------------------------------------------ one head an image
Choice = Callable[[HeadPose, HeadPredictions], int | None]


def _best_overlap(boxes: np.ndarray, true_box: np.ndarray, least: float) -> int | None:
    overlaps = box_iou(boxes, true_box[None])[:, 0]
    best = int(overlaps.argmax())
    return best if overlaps[best] >= least else None


def overlapping(truth: HeadPose, heads: HeadPredictions) -> int | None:
    """Return the head that overlaps the true landmarks' box most, by at least `MIN_IOU`; ours."""
    if truth.box_xyxy is None:
        return nearest_to_head(truth, heads)
    return _best_overlap(heads.boxes, truth.box_xyxy, MIN_IOU)


def overlapping_or_only(truth: HeadPose, heads: HeadPredictions) -> int | None:
    """Return the head that the official script takes: a single head wherever it is."""
    if len(heads) == 1 or truth.box_xyxy is None:
        return 0
    return _best_overlap(heads.boxes, truth.box_xyxy, 0.0)


def overlapping_widened(truth: HeadPose, heads: HeadPredictions) -> int | None:
    """Return the head that overlaps the landmarks' box, 1.1 times as large, most.

    AFLW2000, img2pose.
    """
    if truth.box_xyxy is None:
        return nearest_to_head(truth, heads)
    widened = expand_boxes(truth.box_xyxy[None], 0.05)[0]
    return _best_overlap(heads.boxes, widened, np.finfo(float).tiny)


def nearest_to_head(truth: HeadPose, heads: HeadPredictions) -> int | None:
    """Return the head whose box's middle is nearest to the true head's centre; BIWI, ours."""
    centre = np.zeros(2) if truth.centre_px is None else truth.centre_px
    return int(np.linalg.norm(_middles(heads) - centre, axis=1).argmin())


def nearest_to(point_px: np.ndarray) -> Choice:
    """Return the head whose box's middle is nearest to a fixed point, as BIWI's scripts choose.

    Args:
        point_px: (2,) the point.
    """

    def choose(truth: HeadPose, heads: HeadPredictions) -> int | None:
        return int(np.linalg.norm(_middles(heads) - point_px, axis=1).argmin())

    return choose


def _middles(heads: HeadPredictions) -> np.ndarray:
    boxes = heads.boxes
    return (boxes[:, :2] + boxes[:, 2:]) / 2


CHOICES: Mapping[tuple[str, str], Choice] = {
    ("aflw2000", "ours"): overlapping,
    ("aflw2000", "68"): overlapping,
    ("aflw2000", "vggheads"): overlapping_or_only,
    ("aflw2000", "6drepnet"): overlapping_or_only,
    ("aflw2000", CROPPED): overlapping_or_only,
    ("aflw2000", "img2pose"): overlapping_widened,
    ("biwi", "ours"): nearest_to_head,
    ("biwi", "vggheads"): nearest_to(np.array(OFFICIAL_CENTRE_PX)),
    ("biwi", "6drepnet"): nearest_to(np.array(CENTRE_PX)),
    ("biwi", "img2pose"): nearest_to(np.array(CENTRE_PX)),
}


def crop_of(sample: BenchmarkSample[HeadPose]) -> np.ndarray:
    """Return the crop of an image that a protocol uses, (4,) xyxy px.

    Args:
        sample: the image.

    Raises:
        BrokenAnnotation: the annotation has none, or an impossible one.
    """
    crop = sample.truth.crop_xyxy
    if crop is None:
        raise BrokenAnnotation("pt2d: no point is there from which Hopenet's crop would follow")
    width, height = (int(side) for side in crop[2:] - crop[:2])
    if min(width, height) < 1 or width * height > MAX_IMAGE_PIXELS:
        raise BrokenAnnotation(f"pt2d: Hopenet's crop would have {width} x {height} px")
    return crop


class PoseScorer:
    """Rotation of one head an image, or its 68 landmarks."""

    def __init__(self, benchmark: str, protocol: str) -> None:
        """Start with no images.

        Args:
            benchmark: aflw2000 or biwi.
            protocol: one of the pose protocols, or 68.
        """
        self._protocol = protocol
        self._choose = CHOICES[benchmark, protocol]
        self._true: list[HeadPose] = []
        self._rotations: list[np.ndarray] = []
        self._euler: list[np.ndarray] = []
        self._landmarks: list[np.ndarray] = []

    def add(self, sample: BenchmarkSample[HeadPose], prediction: HeadPredictions | None) -> None:
        """Choose the head.

        Raises:
            BrokenAnnotation: the protocol looks at a crop, and the annotation has none.
        """
        if self._protocol == CROPPED:
            crop_of(sample)
        heads = prediction or NOTHING
        index = self._index(sample, heads) if len(heads) else None
        rotation, euler = np.full((3, 3), np.nan), np.full(3, np.nan)
        landmarks = np.full((68, 2), np.nan)
        if index is not None:
            if heads.rotations is not None and heads.euler_deg is not None:
                rotation, euler = heads.rotations[index], heads.euler_deg[index]
            if heads.landmarks_px is not None:
                landmarks = heads.landmarks_px[index][:, :2]
        self._true.append(sample.truth)
        self._rotations.append(rotation)
        self._euler.append(euler)
        self._landmarks.append(landmarks)

    def _index(self, sample: BenchmarkSample[HeadPose], heads: HeadPredictions) -> int | None:
        located = (heads.boxes_xyxy, heads.landmarks_px, heads.vertices_px)
        if all(field is None for field in located):
            # a method on crops does not locate the head
            if len(heads) == 1:
                return 0
            raise PredictionError(
                f"{sample.sample_id}: {len(heads)} heads without boxes; give boxes_xyxy, so that "
                "the head that is asked for can be chosen"
            )
        return self._choose(sample.truth, heads)

    def finish(self, seed: int = 0, resamples: int = RESAMPLES) -> Scores:
        """Measure the pairs."""
        images = np.arange(len(self._true))
        if not len(images):
            raise PredictionError("no image of the set could be used")
        true_euler = np.stack([np.asarray(truth.euler_deg) for truth in self._true])
        if self._protocol == "68":
            points = [truth.landmarks_px for truth in self._true]
            if any(p is None for p in points):
                raise PredictionError("protocol 68: the set has no landmarks")
            true = np.stack([p[:, :2] for p in points if p is not None])
            predicted = np.stack(self._landmarks)
            return score_landmarks(images, predicted, true, true_euler[:, 1], seed, resamples)
        pairs = PosePairs(
            images,
            np.stack([truth.rotation for truth in self._true]),
            np.stack(self._rotations),
            true_euler,
            np.stack(self._euler),
        )
        return score_poses(pairs, self._protocol, seed, resamples)


class DadScorer:
    """DAD-3DHeads, right and as published."""

    def __init__(self, topology: DadTopology) -> None:
        """Start with no heads; `topology` defines the vertices that the metrics use."""
        self._topology = topology
        self._errors: list[Mapping[str, float]] = []
        self._found: list[bool] = []

    def add(
        self, sample: BenchmarkSample[HeadMesh | None], prediction: DadPrediction | None
    ) -> None:
        """Measure one head."""
        mesh = sample.truth
        if mesh is None:
            raise PredictionError(f"dad: {sample.sample_id} has no annotation")
        truth = DadTruth(
            mesh.vertices_world,
            self._topology.landmarks(mesh.vertices_px),
            mesh.rotation,
            mesh.box_xyxy,
        )
        self._errors.append(dad_errors(truth, prediction, self._topology))
        self._found.append(prediction is not None)

    def finish(self, seed: int = 0, resamples: int = RESAMPLES) -> Scores:
        """Average."""
        return score_dad(self._errors, self._found, seed, resamples)


class ScanScorer:
    """Distances of scans from predicted faces: Feng et al. and NoW."""

    def __init__(self, protocol: str) -> None:
        """Start with no scans; `protocol` is one of `SCAN_PROTOCOLS`."""
        self._protocol = protocol
        self._summaries: list[DistanceSummary | None] = []
        self._groups: list[str] = []
        self._mirrored = 0
        self.medians_mm: dict[str, float] = {}
        """Image -> median distance, NaN where nothing was predicted."""

    def add(
        self, sample: BenchmarkSample[FaceScan | None], prediction: MeshPrediction | None
    ) -> None:
        """Measure one image."""
        scan = sample.truth
        if scan is None:
            raise PredictionError(f"{self._protocol}: {sample.sample_id} has no scan")
        self._groups.append(scan.group)
        if prediction is None:
            self._summaries.append(None)
            self.medians_mm[sample.sample_id] = float("nan")
            return
        try:
            errors = scan_errors(scan.vertices_mm, scan.landmarks_mm, prediction, self._protocol)
        except ValueError as error:
            raise PredictionError(f"{sample.sample_id}: {error}") from error
        self._summaries.append(DistanceSummary.of(errors.distances_mm))
        self.medians_mm[sample.sample_id] = float(np.median(errors.distances_mm))
        self._mirrored += errors.mirrored

    def finish(self, seed: int = 0, resamples: int = RESAMPLES) -> Scores:
        """Pool the distances."""
        return score_scans(
            self._protocol,
            self._summaries,
            self._groups,
            num_mirrored=self._mirrored,
            seed=seed,
            resamples=resamples,
        )


class SubmissionScorer:
    """A set whose ground truth is withheld: only the entries of a submission are counted."""

    def __init__(self) -> None:
        """Start with no images."""
        self._images = self._found = 0

    def add(self, sample: BenchmarkSample[Any], prediction: Any | None) -> None:
        """Count one image."""
        self._images += 1
        self._found += prediction is not None

    def finish(self, seed: int = 0, resamples: int = RESAMPLES) -> Scores:
        """Return the counts."""
        counts = {
            "num_images": self._images,
            "num_found": self._found,
            "num_missed": self._images - self._found,
        }
        return Scores("submission", {}, {}, counts, ("the truth of this set is withheld",))


def _with(scores: Scores, notes: tuple[str, ...]) -> Scores:
    return Scores(
        scores.protocol, scores.metrics, scores.intervals, scores.counts, (*scores.notes, *notes)
    )
