"""Run a model on a benchmark: read images one by one, predict, score, write predictions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ml.benchmarks.dad_3dheads import write_dad_submission
from ml.benchmarks.fddb import write_fddb_text
from ml.benchmarks.meshes import write_mesh_prediction
from ml.benchmarks.predictors import (
    Convert,
    DetectorHeads,
    dad_of,
    faces_of,
    head_boxes,
    poses_of,
    scan_of,
)
from ml.benchmarks.samples import BenchmarkSample
from ml.benchmarks.scorers import CROPPED, FddbScorer
from ml.benchmarks.scores import RESAMPLES
from ml.benchmarks.scoring import STAGE, BenchmarkResult, score, score_with
from ml.benchmarks.sets import BenchmarkSet, Situation, benchmark_set
from ml.benchmarks.showing import write_set_gallery
from ml.benchmarks.wider import write_wider_text
from ml.flame.head_model import HeadModel
from ml.imaging.io import UnreadableImage
from ml.records.atomic import write_json, write_text
from ml.records.exclusions import Exclusions
from ml.records.heads import Heads

BOX_KINDS = ("head", "face_half_pi", "face_pi")
_FACE_SETS = ("fddb", "wider")
_PREDICTION_SUFFIXES = (".jsonl", ".json", ".csv", ".txt")


def is_predictions(model: Path) -> bool:
    """Return whether a path holds predictions and not a model: by ending, or a folder of texts."""
    model = Path(model)
    if model.is_dir():
        return not (model / "config.json").is_file()
    return model.suffix in _PREDICTION_SUFFIXES


def benchmark(
    name: str,
    data: Path,
    model: Path,
    protocol: str | None = None,
    out: Path | None = None,
    head_model: Path | None = None,
    boxes: str | None = None,
    device: str = "auto",
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> BenchmarkResult:
    """Score a model on a set under one protocol; see :func:`benchmark_protocols`.

    Args:
        name: the benchmark's name.
        data: the set's folder, with its images.
        model: a folder of ours, an export, an official .trcd, .onnx or .pth file, or predictions.
        protocol: evaluation protocol; the set's first by default.
        out: receives scores, exclusions, what was found and the set's gallery.
        head_model: the head model of the parameters; found next to the model by default.
        boxes: which box of a head is scored: `head`, or its face by one of the two readings of
            the paper's yaw rule; faces for FDDB and WIDER FACE by default, else heads.
        device: auto, cpu, cuda or cuda:N.
        seed: run seed of the bootstrap.
        resamples: number of bootstrap resamples over the images.

    Returns:
        The result.

    Raises:
        ValueError: no such set, protocol or kind of boxes, or the model cannot be used.
        FileNotFoundError: a file of the set or the head model is missing.
    """
    protocols = (protocol or benchmark_set(name).protocols[0],)
    (result,) = benchmark_protocols(
        name, data, model, protocols, out, head_model, boxes, device, seed, resamples
    )
    return result


def benchmark_protocols(
    name: str,
    data: Path,
    model: Path,
    protocols: Sequence[str],
    out: Path | None = None,
    head_model: Path | None = None,
    boxes: str | None = None,
    device: str = "auto",
    seed: int = 0,
    resamples: int = RESAMPLES,
    note: str = "",
) -> list[BenchmarkResult]:
    """Score a model on a set under several protocols; images are predicted once.

    Args:
        name: the benchmark's name.
        data: the set's folder, with its images.
        model: a folder of ours, an export, an official .trcd, .onnx or .pth file, or predictions.
        protocols: evaluation protocols, at least one.
        out: receives `scores.json` of the first protocol and `scores-<protocol>.json` of the
            others, `exclusions.csv`, what was found, the set's official form of predictions, and
            `gallery/gallery.html`, a page of the best, worst and failed; what is found there from
            an earlier run of the same model is not predicted again.
        head_model: the head model of the parameters; found next to the model by default.
        boxes: see :func:`benchmark`.
        device: auto, cpu, cuda or cuda:N.
        seed: run seed of the bootstrap.
        resamples: number of bootstrap resamples over the images.
        note: remarks for the reader of the gallery.

    Returns:
        A result per protocol, in their order.

    Raises:
        ValueError: no such set, protocol or kind of boxes, or the model cannot be used.
        FileNotFoundError: a file of the set or the head model is missing.
    """
    benchmark = benchmark_set(name)
    if is_predictions(model):
        results = [score(name, data, model, p, head_model, seed, resamples) for p in protocols]
        return _written(results, out)
    heads = DetectorHeads(model, head_model, out, device)
    try:
        converts = {p: converter(benchmark, p, heads.head_model, boxes) for p in protocols}
        situation = Situation(Path(data), head_model, heads.head_model)
        results = [
            score_with(
                benchmark,
                situation,
                _predictor(heads.in_crop if protocol == CROPPED else heads, convert),
                heads.name,
                protocol,
                exclusions=Exclusions(STAGE),
                seed=seed,
                resamples=resamples,
            )
            for protocol, convert in converts.items()
        ]
        if out is not None:
            _write_form(benchmark, situation, heads, converts[protocols[0]], Path(out))
            own = converter(benchmark, "ours", heads.head_model, boxes)
            write_set_gallery(
                Path(out) / "gallery",
                benchmark,
                situation,
                heads,
                own,
                heads.head_model,
                f"{benchmark.title}: {heads.name}",
                getattr(results[0].scorer, "medians_mm", None),
                [note] if note else [],
            )
    finally:
        heads.close()
    return _written(results, out)


def _predictor(
    heads: Callable[[BenchmarkSample[Any]], Heads], convert: Convert
) -> Callable[[BenchmarkSample[Any]], Any]:
    return lambda sample: convert(sample, heads(sample))


def converter(
    benchmark: BenchmarkSet, protocol: str, head_model: HeadModel | None, boxes: str | None = None
) -> Convert:
    """Return the conversion of a detector's heads to the predictions that a protocol scores.

    Args:
        benchmark: the set.
        protocol: its protocol.
        head_model: the head model of the parameters, if there is one.
        boxes: one of `BOX_KINDS`, see :func:`benchmark`.

    Returns:
        Sample and heads to predictions.

    Raises:
        ValueError: no such kind of boxes, or a head model is needed and there is none.
    """
    kind = boxes or ("face_half_pi" if benchmark.name in _FACE_SETS else "head")
    if kind not in BOX_KINDS:
        raise ValueError(f"boxes: expected one of {', '.join(BOX_KINDS)}, got {kind!r}")
    if benchmark.kind == "boxes" and kind == "head":
        return head_boxes()
    if head_model is None:
        raise ValueError(
            f"{benchmark.name}: the detector has no head model next to it, from which faces, "
            "landmarks and meshes follow; name its head_model.npz with --head-model"
            + ("" if benchmark.kind != "boxes" else ", or score head boxes with --boxes head")
        )
    if benchmark.kind == "boxes":
        return faces_of(head_model, kind.removeprefix("face_"))
    if benchmark.kind == "pose":
        return poses_of(head_model, protocol)
    return scan_of(head_model) if benchmark.kind == "scan" else dad_of(head_model)


def _write_form(
    benchmark: BenchmarkSet,
    situation: Situation,
    heads: DetectorHeads,
    convert: Convert,
    out: Path,
) -> None:
    """Write cached predictions in the set's official format."""

    def everything() -> Iterator[tuple[str, Any]]:
        sample: BenchmarkSample[Any]
        for sample in benchmark.read(situation.root, Exclusions(STAGE)):
            try:
                prediction = convert(sample, heads(sample))
            except UnreadableImage:
                # already an exclusion
                continue
            if prediction is not None:
                yield sample.sample_id, prediction

    if benchmark.name == "fddb":
        write_fddb_text(out / "detections.txt", everything())
    elif benchmark.name == "wider":
        for image, prediction in everything():
            write_wider_text(out / "detections", image, prediction)
    elif benchmark.kind == "scan":
        for image, prediction in everything():
            write_mesh_prediction(out / "meshes", image, prediction)
    elif benchmark.kind == "mesh":
        write_dad_submission(out / "submission.json", everything())


def _written(results: list[BenchmarkResult], out: Path | None) -> list[BenchmarkResult]:
    if out is None:
        return results
    out = Path(out)
    for number, result in enumerate(results):
        name = f"scores-{result.scores.protocol}.json" if number else "scores.json"
        write_json(out / name, result.as_json())
        if isinstance(result.scorer, FddbScorer) and result.scorer.curves is not None:
            for kind, file in (("discrete", "DiscROC.txt"), ("continuous", "ContROC.txt")):
                write_text(out / file, "\n".join(result.scorer.curves.lines(kind)) + "\n")
    frame = results[0].exclusions.to_frame()
    write_text(out / "exclusions.csv", frame.to_csv(index=False))
    return results
