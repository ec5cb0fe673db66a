"""The benchmark: trained models and trivial baselines on held-out images.

Predictions are compared with the ground truth where a renderer made the images, else with the
labels of the filtered dataset; metrics, report and model cards state which.
"""

from __future__ import annotations

import json
import platform
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import pandas as pd

from ml.evaluation.baselines import always_frontal, mean_head
from ml.evaluation.charts import draw_charts
from ml.evaluation.groups import TONES, compare_skin_tones, group_table, turned_wrongly
from ml.evaluation.metrics import nullable
from ml.evaluation.photographs import read_photographs
from ml.evaluation.protocol import (
    Evaluation,
    EvaluationSample,
    Predictor,
    evaluate,
    join_evaluations,
)
from ml.evaluation.report import EXACT, PSEUDO, results_frame, write_report
from ml.evaluation.samples import (
    EVALUATED,
    has_truth,
    read_labelled_samples,
    read_samples,
    split_ids,
)
from ml.flame.geometry import HeadGeometry
from ml.flame.head_model import HeadModel
from ml.imaging.grids import contact_sheet
from ml.imaging.io import encode_jpeg
from ml.inference.drawing import Style, draw_heads
from ml.inference.flip import FlipAveraged
from ml.inference.predictor import HeadPredictor
from ml.records.atomic import write_bytes, write_json
from ml.records.config import Count, Fraction, StageConfig
from ml.records.determinism import prepare_torch
from ml.records.exclusions import Exclusions
from ml.records.heads import OPERATING_SCORE
from ml.records.ids import sample_rng
from ml.records.progress import progress
from ml.records.report import StageReport
from ml.records.workspace import Workspace
from ml.training_data.labels import LabelLimits
from ml.training_data.samples import kept_ids

STAGE = "benchmark"
PROTOCOL = "held-out-renders/1"
PROTOCOL_OF_LABELS = "held-out-pseudo-labels/1"
MODELS = {"trained_model": "pseudo-labels", "trained_model_exact": "exact labels"}
OPTIONAL = {"trained_model_exact"}
"""Stages that can be switched off; the table then does without their column."""


class BenchmarkConfig(StageConfig):
    """Section `benchmark` of params.yaml."""

    limits: LabelLimits = EVALUATED
    """Limits below which true heads are ignored."""
    operating_score: Fraction = OPERATING_SCORE
    """Confidence from which a prediction counts outside average precision."""
    batch_size: Count = 16
    """Images predicted at once."""
    resamples: Count = 500
    """Bootstrap draws of the images."""
    num_images: Count = 12
    """Successes and failures to show, each."""
    photographs: bool = True
    """Show the first model's heads in photographs that come with installed libraries."""


def run(
    ws: Workspace,
    config: BenchmarkConfig,
    stage: str = STAGE,
    models: Mapping[str, str] = MODELS,
    splits: Sequence[str] = ("test",),
    command: str = "",
) -> StageReport:
    """Benchmark the models and the baselines on held-out images, and write the report.

    Args:
        ws: the workspace; models, images, truth (without rows where the generator knew none),
            filtered dataset and head model must exist.
        config: limits and sizes.
        stage: the stage whose folder receives the results.
        models: stage that trained a model -> its column's title; the first one's errors are shown
            by groups.
        splits: splits of the held-out images.
        command: the command stated in the report; the stage's by default.

    Returns:
        Counts of test images, the results table, and images of successes and failures.

    Raises:
        ValueError: the test split has no readable image.
    """
    prepare_torch(ws, STAGE)
    out = ws.stage_dir(stage)
    exclusions = Exclusions(stage)
    exact = has_truth(ws)
    read, listed = (read_samples, split_ids) if exact else (read_labelled_samples, kept_ids)
    samples = [s for split in splits for s in read(ws, split, config.limits, exclusions)]
    if not samples:
        raise ValueError(
            f"{stage}: the test split has no readable image ({len(exclusions)} are damaged); raise "
            "poses.test_fraction (or released_dataset.test_fraction), or look at why images were "
            "removed in the filtered dataset"
        )
    given = [name for split in splits for name in listed(ws, split)]
    counts = exclusions.account(given, [sample.sample_id for sample in samples])
    head_model = HeadModel.load(ws.stage_dir("head_model") / "head_model.npz")
    geometry = HeadGeometry(head_model)
    predictors: dict[str, Predictor] = {}
    for trained, title in models.items():
        if trained not in OPTIONAL or _is_trained(ws.stage_dir(trained)):
            detector = _load(ws.stage_dir(trained))
            predictors[title] = detector
            predictors[f"{title} + flip"] = FlipAveraged(detector, head_model)
    evaluations = evaluate_batches(predictors, samples, geometry, config)
    rng_of = partial(sample_rng, ws.seed, STAGE)
    metrics = {title: _metrics(ws, e, config.resamples) for title, e in evaluations.items()}
    first = next(iter(models.values()))
    model = evaluations[first]
    sheets = _images(out, samples, predictors[first], model, geometry, config)
    remarks = {}
    if tones := compare_skin_tones(model, rng_of("tones"), config.resamples):
        remarks[TONES] = tones
    if config.photographs and (sheet := _photographs(out, predictors[first], geometry, config)):
        sheets[_PHOTOGRAPHS] = sheet
        remarks[_PHOTOGRAPHS] = _ABOUT_PHOTOGRAPHS
    shown = {title: evaluations[title] for title in predictors}
    groups = group_table(
        model, rng_of("groups"), config.resamples, {t: evaluations[t] for t in _BASELINES}
    )
    wrong = turned_wrongly(model, [sample.sample_id for sample in samples])
    if len(wrong):
        groups[_TURNED_WRONGLY] = wrong
    reports = write_report(
        out,
        metrics,
        groups,
        _label_quality(ws) if exact else {},
        sheets,
        {
            "protocol": PROTOCOL if exact else PROTOCOL_OF_LABELS,
            "ground_truth": EXACT if exact else PSEUDO,
            "num_images": len(samples),
            "num_heads": int(model.num_true.sum()),
            "num_ignored": model.num_ignored,
        },
        _provenance(ws, command or f"vggheads materialize {stage}"),
        draw_charts(shown, samples, config.operating_score, rng_of("charts"), config.resamples),
        remarks,
    )
    flat = {f"{_key(t)}.{name}": v for t, row in metrics.items() for name, v in row.items()}
    known = {"has_ground_truth": float(exact), "num_images": float(len(samples))}
    write_json(out / "metrics.json", nullable(known | flat))
    write_json(out / HEADLINE_NAME, nullable(_headline(metrics, models.values())))
    exclusions.write(ws, stage)
    table = results_frame(metrics)
    return StageReport(
        *counts,
        metadata={
            "report": str(reports["html"].relative_to(ws.root)),
            "ground truth": EXACT if exact else PSEUDO,
            **{
                f"{_key(t)}/{n}": round(metrics[t][n], 4) for t in metrics for n in HEADLINE_METRICS
            },
        },
        tables={"results": table.reset_index(names="metric")},
        images=sheets,
    )


_SHOWN: tuple[Style, ...] = ("contour", "box", "pose")
"""Outlines: a shaded mesh would hide the faces of which one wants to see whether they fit."""
_BASELINES = ("mean head", "always frontal")
_TURNED_WRONGLY = "Heads whose rotation is wrong by more than 90 degrees, worst first"
_PHOTOGRAPHS = "Qualitative examples: real photographs"
_ABOUT_PHOTOGRAPHS = (
    "Photographs that come with scikit-image and matplotlib, with the heads detected by "
    "the first model. They were not selected for this model and have no ground truth: they are "
    "qualitative examples, not a measurement. A model trained on renders alone may detect nothing, "
    "or false heads."
)
HEADLINE_METRICS = ("ap50", "rotation_deg", "nme_bbox")
HEADLINE_NAME = "headline.json"
"""The few numbers of `dvc metrics`; all of them, with intervals, are in metrics.json."""


def _headline(
    metrics: Mapping[str, Mapping[str, float]], trained: Iterable[str]
) -> dict[str, float]:
    """Return the first metrics of the trained models, without their variants and the baselines."""
    return {
        f"{_key(title)}.{name}": metrics[title][name]
        for title in trained
        if title in metrics
        for name in HEADLINE_METRICS
    }


def evaluate_batches(
    predictors: Mapping[str, Predictor],
    samples: Sequence[EvaluationSample],
    geometry: HeadGeometry,
    config: BenchmarkConfig,
) -> dict[str, Evaluation]:
    """Evaluate all predictors, and the baselines with the boxes of the first.

    Images and predictions are in memory for one batch.

    Args:
        predictors: title -> detector.
        samples: images with their true heads, at least one.
        geometry: the head model.
        config: sizes and operating score.

    Returns:
        Title -> matched benchmark, the baselines last.
    """
    parts: dict[str, list[Evaluation]] = defaultdict(list)
    for start in progress(range(0, len(samples), config.batch_size), "predicting"):
        batch = samples[start : start + config.batch_size]
        images = [sample.image_rgb for sample in batch]
        predictions = {title: one.predict(images) for title, one in predictors.items()}
        first = next(iter(predictions.values()))
        predictions["mean head"] = [mean_head(heads) for heads in first]
        predictions["always frontal"] = [always_frontal(heads, geometry) for heads in first]
        for title, heads in predictions.items():
            parts[title].append(evaluate(heads, batch, geometry, config.operating_score))
    return {title: join_evaluations(of_title) for title, of_title in parts.items()}


def _is_trained(folder: Path) -> bool:
    from ml.inference.loading import CONFIG_NAME

    return (folder / CONFIG_NAME).exists()


def _load(folder: Path) -> HeadPredictor:
    from ml.inference.loading import load_detector

    return load_detector(folder)


def _metrics(ws: Workspace, evaluation: Evaluation, resamples: int) -> dict[str, float]:
    metrics = evaluation.metrics()
    intervals = evaluation.intervals(sample_rng(ws.seed, STAGE, "bootstrap"), resamples)
    for name in (
        "ap50", "recall", "precision", "nme_bbox", "nme_aligned", "rotation_deg", "failure_rate",
    ):  # fmt: skip
        metrics[f"{name}_low"], metrics[f"{name}_high"] = intervals[name]
    return metrics


def _images(
    out: Path,
    samples: Sequence[EvaluationSample],
    detector: Predictor,
    evaluation: Evaluation,
    geometry: HeadGeometry,
    config: BenchmarkConfig,
) -> dict[str, Path]:
    by_image = evaluation.pairs.groupby("image")["nme_bbox"].max()
    good = [int(i) for i in by_image.sort_values().index if evaluation.flawless[int(i)]]
    # The best of images with several heads first: one big frontal head proves little.
    good.sort(key=lambda i: -min(int(evaluation.num_true[i]), 3))
    worst = pd.Series(evaluation.num_missed * 100.0)
    worst = worst.add(by_image, fill_value=0.0).sort_values(ascending=False)
    chosen = {
        "Successes": good[: config.num_images],
        "Failures: missed heads and largest errors": list(worst.index[: config.num_images]),
    }
    sheets = {}
    for title, images in chosen.items():
        if not images:
            continue
        cells = []
        for i in images:
            image = samples[i].image_rgb
            (heads,) = detector.predict([image])
            shown = heads[heads.scores >= config.operating_score]
            cells.append(draw_heads(image, shown, geometry, _SHOWN))
        path = out / "images" / f"{title.split(':')[0].lower()}.jpg"
        write_bytes(path, encode_jpeg(contact_sheet(cells, 4, 256)))
        sheets[title] = path
    return sheets


def _photographs(
    out: Path, detector: Predictor, geometry: HeadGeometry, config: BenchmarkConfig
) -> Path | None:
    """Make a sheet of real photographs with the heads found in them; None where there are none."""
    photographs = read_photographs()
    if not photographs:
        return None
    cells, labels = [], []
    for title, heads in zip(photographs, detector.predict(list(photographs.values())), strict=True):
        shown = heads[heads.scores >= config.operating_score]
        cells.append(draw_heads(photographs[title], shown, geometry, _SHOWN))
        labels.append(f"{title}: {len(shown)} {'head' if len(shown) == 1 else 'heads'}")
    path = out / "images" / "photographs.jpg"
    write_bytes(path, encode_jpeg(contact_sheet(cells, 3, 340, labels)))
    return path


def _label_quality(ws: Workspace) -> Mapping[str, str]:
    path = ws.stage_dir("annotation_quality") / "metrics.json"
    if not path.is_file():
        return {}
    metrics = json.loads(path.read_text())
    texts = {
        "recall": ("recall", "{:.3f}", 1),
        "precision": ("precision", "{:.3f}", 1),
        "NME, % of head box": ("nme_bbox", "{:.1f}", 1),
        "rotation error, mean, degrees": ("rotation_deg", "{:.1f}", 1),
        "heads too small for parameters": ("small_fraction", "{:.1f} %", 100),
    }
    return {
        title: "not measured" if metrics.get(name) is None else text.format(times * metrics[name])
        for title, (name, text, times) in texts.items()
    }


def _provenance(ws: Workspace, command: str) -> dict[str, str]:
    import torch

    return {
        "seed": str(ws.seed),
        "torch": torch.__version__,
        "threads": str(ws.threads),
        "platform": f"{platform.machine()}, {platform.system()}",
        "command": command,
    }


def _key(title: str) -> str:
    return re.sub(r"\W+", "_", title)
