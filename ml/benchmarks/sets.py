"""Every benchmark by name: its protocols, its reader, its predictions and its scorer."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml.benchmarks import (
    aflw2000,
    biwi,
    coco,
    dad_3dheads,
    fddb,
    feng,
    now,
    renders,
    wider,
)
from ml.benchmarks.files import MissingBenchmarkFile, image_size
from ml.benchmarks.meshes import MeshFolder
from ml.benchmarks.metrics_dad import DadTopology
from ml.benchmarks.metrics_pose import POSE_PROTOCOLS
from ml.benchmarks.predictions import HeadPredictions, PredictionFile, read_angle_table
from ml.benchmarks.samples import BenchmarkSample, FaceBoxes, FaceScan, HeadPose
from ml.benchmarks.scorers import (
    CROPPED,
    MANY_DETECTIONS,
    BoxScorer,
    DadScorer,
    FddbScorer,
    PoseScorer,
    ScanScorer,
    Scorer,
    SubmissionScorer,
    WiderScorer,
)
from ml.records import reasons
from ml.records.exclusions import Exclusions

if TYPE_CHECKING:
    from ml.flame.head_model import HeadModel

Counts = Mapping[str, int | str]


@dataclass(frozen=True)
class Situation:
    """Inputs of a scorer in addition to images and predictions.

    Attributes:
        root: the set's folder.
        head_model_path: the head model whose vertices and landmarks the predictions have.
        loaded: the same, if it is in memory already.
    """

    root: Path
    head_model_path: Path | None = None
    loaded: HeadModel | None = None

    @cached_property
    def head_model(self) -> HeadModel:
        """The head model.

        Raises:
            FileNotFoundError: there is none.
        """
        from ml.flame.head_model import HeadModel

        if self.loaded is not None:
            return self.loaded
        path = self.head_model_path
        if path is None or not path.is_file():
            raise FileNotFoundError(
                f"head model: no file {path}; DAD-3DHeads' landmarks and regions are those of "
                "FLAME: name its head_model.npz with --head-model (vggheads import-flame makes one)"
            )
        return HeadModel.load(path)


@dataclass(frozen=True)
class BenchmarkSet:
    """A benchmark.

    Attributes:
        name: on the command line.
        title: name in the paper.
        kind: kind of ground truth: boxes, pose, mesh or scan.
        protocols: evaluation protocols, the usual one first.
        read: folder and exclusions to samples.
        count: a sample's contribution to the set's counts: numbers are summed, distinct texts
            are counted.
        open_predictions: a file or folder to image id -> predictions.
        scorer: protocol and situation to a scorer.
        excluded_counts: reason of an exclusion -> the count that it increments.
    """

    name: str
    title: str
    kind: str
    protocols: tuple[str, ...]
    read: Callable[[Path, Exclusions], Iterator[BenchmarkSample[Any]]]
    count: Callable[[BenchmarkSample[Any]], Counts]
    open_predictions: Callable[[Path], Mapping[str, Any]]
    scorer: Callable[[str, Situation], Scorer]
    excluded_counts: Mapping[str, str] = field(default_factory=dict)


def _jsonl_or(
    other: Callable[[Path], Mapping[str, HeadPredictions]],
) -> Callable[[Path], Mapping[str, HeadPredictions]]:
    """Return predictions in our own format by the file's ending, else in the set's."""
    return lambda path: PredictionFile(path) if path.suffix == ".jsonl" else other(path)


def _count_fddb(sample: BenchmarkSample[FaceBoxes]) -> Counts:
    folds = sample.truth.attributes["fold"]
    fold = int(folds[0]) if len(folds) else 0
    return {
        "num_images": 1,
        "num_faces": len(sample.truth),
        f"num_images_fold_{fold:02d}": 1,
        "num_folds": str(fold),
    }


def _count_wider(sample: BenchmarkSample[FaceBoxes]) -> Counts:
    truth = sample.truth
    degenerate = int(truth.attributes["degenerate"].sum())
    faceless = len(truth) == 1 and not truth.boxes_xyxy.any()
    counts: dict[str, int | str] = {
        "num_events": sample.sample_id.split("/")[0],
        "num_images": 1,
        "num_rows": len(truth),
        "num_images_without_face": int(faceless),
        "num_degenerate": 0 if faceless else degenerate,
        "num_invalid": int((truth.attributes["invalid"] > 0).sum()),
    }
    for name, kept in truth.kept.items():
        counts[f"num_faces_{name}"] = int(kept.sum())
        counts[f"num_images_without_{name}"] = int(not kept.any())
    return counts


def _count_boxes(sample: BenchmarkSample[FaceBoxes]) -> Counts:
    return {"num_images": 1, "num_boxes": len(sample.truth)}


def _count_feng(sample: BenchmarkSample[FaceScan]) -> Counts:
    group = sample.truth.group.lower()
    return {"num_images": 1, f"num_images_{group}": 1, "num_subjects": sample.truth.subject}


def _count_now(sample: BenchmarkSample[FaceScan]) -> Counts:
    return {"num_images": 1, "num_subjects": sample.truth.subject}


def _count_pose(sample: BenchmarkSample[HeadPose]) -> Counts:
    counts: dict[str, int | str] = {"num_images": 1, "num_annotations": 1}
    return counts | ({"num_sequences": sample.truth.group} if sample.truth.group else {})


def _fddb_scorer(protocol: str, situation: Situation) -> Scorer:
    if protocol == "coco":
        return BoxScorer()

    def size(image: str) -> tuple[int, int] | None:
        try:
            return image_size(fddb.image_path(situation.root, image))
        except MissingBenchmarkFile:
            return None

    return FddbScorer(size)


def _wider_scorer(protocol: str, situation: Situation) -> Scorer:
    # COCO's limit of 100 would cut WIDER's crowds, of up to 709 faces
    return BoxScorer(MANY_DETECTIONS) if protocol == "coco" else WiderScorer()


SETS: Mapping[str, BenchmarkSet] = {
    one.name: one
    for one in (
        BenchmarkSet(
            aflw2000.NAME,
            "AFLW2000-3D",
            "pose",
            ("ours", *(p for p in POSE_PROTOCOLS if p != "ours"), "68"),
            aflw2000.read_aflw2000,
            _count_pose,
            _jsonl_or(read_angle_table),
            lambda protocol, situation: PoseScorer(aflw2000.NAME, protocol),
            {reasons.ANGLE_OVER_99: "num_excluded_angles"},
        ),
        BenchmarkSet(
            biwi.NAME,
            "BIWI",
            "pose",
            ("ours", *(p for p in POSE_PROTOCOLS if p not in ("ours", CROPPED))),
            biwi.read_biwi,
            _count_pose,
            _jsonl_or(read_angle_table),
            lambda protocol, situation: PoseScorer(biwi.NAME, protocol),
        ),
        BenchmarkSet(
            dad_3dheads.NAME,
            "DAD-3DHeads val",
            "mesh",
            ("dad-3dheads",),
            dad_3dheads.read_dad,
            lambda sample: {"num_images": 1},
            dad_3dheads.DadSubmission,
            lambda protocol, situation: DadScorer(DadTopology.of(situation.head_model)),
        ),
        BenchmarkSet(
            fddb.NAME,
            "FDDB",
            "boxes",
            ("fddb", "coco"),
            fddb.read_fddb,
            _count_fddb,
            _jsonl_or(fddb.read_fddb_predictions),
            _fddb_scorer,
        ),
        BenchmarkSet(
            wider.NAME,
            "WIDER FACE val",
            "boxes",
            ("wider-python", "coco"),
            wider.read_wider,
            _count_wider,
            _jsonl_or(wider.WiderPredictions),
            _wider_scorer,
        ),
        BenchmarkSet(
            dad_3dheads.TEST_NAME,
            "DAD-3DHeads test",
            "mesh",
            ("submission",),
            functools.partial(dad_3dheads.read_dad, subset="test"),
            lambda sample: {"num_images": 1},
            dad_3dheads.DadSubmission,
            lambda protocol, situation: SubmissionScorer(),
        ),
        BenchmarkSet(
            feng.NAME,
            "Feng et al.",
            "scan",
            ("feng",),
            feng.read_feng,
            _count_feng,
            MeshFolder,
            lambda protocol, situation: ScanScorer(protocol),
        ),
        BenchmarkSet(
            now.NAME,
            "NoW val",
            "scan",
            ("now", "now_robust", "now_metrical"),
            now.read_now,
            _count_now,
            MeshFolder,
            lambda protocol, situation: ScanScorer(protocol),
        ),
        BenchmarkSet(
            now.TEST_NAME,
            "NoW test",
            "scan",
            ("submission",),
            functools.partial(now.read_now, subset="test"),
            lambda sample: {"num_images": 1},
            MeshFolder,
            lambda protocol, situation: SubmissionScorer(),
        ),
        BenchmarkSet(
            coco.NAME,
            "COCO file",
            "boxes",
            ("coco",),
            coco.read_coco_boxes,
            _count_boxes,
            PredictionFile,
            lambda protocol, situation: BoxScorer(),
        ),
        BenchmarkSet(
            renders.NAME,
            "our held-out renders",
            "boxes",
            ("coco",),
            renders.read_renders,
            _count_boxes,
            PredictionFile,
            lambda protocol, situation: BoxScorer(),
        ),
    )
}


def benchmark_set(name: str) -> BenchmarkSet:
    """Return a benchmark by name.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in SETS:
        raise ValueError(f"benchmark: expected one of {', '.join(SETS)}, got {name!r}")
    return SETS[name]
