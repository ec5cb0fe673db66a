"""Stage `benchmark_scores`: the paper's tables 2 to 12 from all evaluated models (paper 5)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from ml.benchmarks import architectures
from ml.benchmarks.config import BenchmarkScoresConfig
from ml.benchmarks.gathering import (
    Gathered,
    Model,
    configured_models,
    gather_costs,
    gather_files,
    gather_generated,
    gather_public,
)
from ml.benchmarks.generated.from_truth import GeneratedSets, write_generated_sets
from ml.benchmarks.model_runs import log_scores, metric_names
from ml.benchmarks.tables import HEADLINES, ModelResults, write_tables
from ml.evaluation.samples import has_truth, read_samples
from ml.flame.head_model import HeadModel
from ml.inference.loading import CONFIG_NAME
from ml.records.atomic import temporary_folder, write_json
from ml.records.determinism import prepare_torch
from ml.records.exclusions import Exclusions
from ml.records.report import StageReport
from ml.records.workspace import Workspace
from ml.stages.benchmark import HEADLINE_METRICS, PROTOCOL, PROTOCOL_OF_LABELS
from ml.training_data.labels import LabelLimits

STAGE = "benchmark_scores"
MODELS = {"trained_model": "pseudo_labels", "trained_model_exact": "exact_labels"}
"""Training stage -> name of its model in the stage `benchmark`."""
BENCHMARK, FLIPPED = "benchmark", "_flip"


def run(ws: Workspace, config: BenchmarkScoresConfig) -> StageReport:
    """Run the configured evaluations, collect all scores, write the tables, log to MLflow.

    Args:
        ws: the workspace; the benchmark, its models, images, truth and head model must exist.
        config: sets, models, predictions and score files.

    Returns:
        Counts of scored images, and a headline a set.

    Raises:
        OtherContent: a set, model or file has another hash than the configuration states.
        ValueError: predictions or scores that cannot be used.
    """
    prepare_torch(ws, STAGE)
    folder, exclusions = ws.stage_dir(STAGE), Exclusions(STAGE)
    gathered = Gathered(folder, exclusions)
    own = _own_models(ws)
    for result in own_scores(ws, own):
        gathered.add(result)
    models = [*own, *configured_models(config)]
    gather_public(gathered, config, models, ws.seed)
    with temporary_folder(ws.work_dir(STAGE)) as place:
        unread = Exclusions(STAGE)
        sets = _generate(ws, config, place, unread)
        exclusions.extend(unread.rows())
        gather_generated(gathered, sets, own[:1], config, ws.seed)
    gather_costs(gathered, own)
    gather_files(gathered, config)
    write_json(folder / "scores.json", _everything(gathered))
    write_json(folder / "metrics.json", _headlines(gathered))
    pages = {"Own benchmark": f"../{BENCHMARK}/report.html", **gathered.pages}
    write_tables(folder, gathered.results, _provenance(ws), pages)
    exclusions.write(ws, STAGE)
    runs = {model.name: _log(ws, gathered, model) for model in own}
    return StageReport(
        num_in=gathered.num_given + len(unread),
        num_out=gathered.num_images,
        num_excluded=len(exclusions),
        metadata={
            "tables": str((folder / "tables.html").relative_to(ws.root)),
            "public sets": ", ".join(config.sets) or "none is configured",
            "scores in MLflow": ", ".join(name for name, run in runs.items() if run)
            or "none: no run of the tracking store made these models",
        },
        tables={"headlines": headline_table(gathered.results)},
    )


def _own_models(ws: Workspace) -> list[Model]:
    """Return the models that the pipeline has trained."""
    head_model = ws.stage_dir("head_model") / "head_model.npz"
    return [
        Model(stage, ws.stage_dir(stage), head_model, {"Dataset": f"this run, {title}"})
        for stage, title in (
            ("trained_model", "pseudo-labels"),
            ("trained_model_exact", "exact labels"),
        )
        if (ws.stage_dir(stage) / CONFIG_NAME).is_file()
    ]


def own_scores(ws: Workspace, own: list[Model]) -> list[ModelResults]:
    """Return the stage `benchmark`'s metrics of models as score files, plain and with flip.

    Args:
        ws: the workspace; the benchmark must exist.
        own: models under the names of the stages that train them.
    """
    metrics = json.loads((ws.stage_dir(BENCHMARK) / "metrics.json").read_text(encoding="utf-8"))
    exact = bool(metrics["has_ground_truth"])
    results = []
    for model in own:
        for suffix in ("", FLIPPED):
            prefix = f"{MODELS[model.name]}{suffix}."
            values = {k.removeprefix(prefix): v for k, v in metrics.items() if k.startswith(prefix)}
            if not values:
                continue
            scores: dict[str, Any] = {
                **values,
                "num_images": metrics["num_images"],
                "set": BENCHMARK,
                "protocol": PROTOCOL if exact else PROTOCOL_OF_LABELS,
                "model": f"{model.name}{suffix}",
                "notes": [],
            }
            labels = {name: text + suffix.replace("_", ", ") for name, text in model.labels.items()}
            results.append(ModelResults(f"{model.name}{suffix}", "ours", [scores], labels))
    return results


def _generate(
    ws: Workspace, config: BenchmarkScoresConfig, place: Path, exclusions: Exclusions
) -> GeneratedSets:
    if not config.generated_images or not has_truth(ws):
        return GeneratedSets({}, {})
    samples = read_samples(ws, "test", LabelLimits(), exclusions)
    head_model = HeadModel.load(ws.stage_dir("head_model") / "head_model.npz")
    return write_generated_sets(
        place, samples, head_model, config.generated_images, config.generated_scans
    )


def _everything(gathered: Gathered) -> list[dict[str, Any]]:
    return [
        {"origin": result.origin, "labels": dict(result.labels), **one, "model": result.model}
        for result in gathered.results
        for one in result.scores
    ]


def _headlines(gathered: Gathered) -> dict[str, float | None]:
    """Return DVC's metrics: one number per set, protocol and model."""
    return {
        f"{one['set']}.{one['protocol'].partition('/')[0]}.{result.model}.{name}": one[name]
        for result in gathered.results
        for one in result.scores
        for name in HEADLINES.get(str(one["protocol"]), ())
        if name in one
    }


def headline_table(results: list[ModelResults]) -> pd.DataFrame:
    """Return one row per set, protocol and model, with its first headline.

    Args:
        results: of any models.
    """
    rows = [
        {
            "set": one["set"],
            "protocol": one["protocol"],
            "model": result.model,
            "images": one.get("num_images"),
            "metric": name,
            "value": one[name],
        }
        for result in results
        for one in result.scores
        for name in HEADLINES.get(str(one["protocol"]), ())[:1]
        if name in one
    ]
    columns = ["set", "protocol", "model", "images", "metric", "value"]
    return pd.DataFrame(rows, columns=columns)


def _log(ws: Workspace, gathered: Gathered, model: Model) -> str | None:
    """Return all scores of a model into the run that made it."""
    found: dict[str, float] = {}
    for result in gathered.results:
        if result.origin != "ours" or result.model.removesuffix(FLIPPED) != model.name:
            continue
        for one in result.scores:
            flipped = result.model.endswith(FLIPPED)
            found |= metric_names(one, _prefix(one, flipped))
            if one["set"] == BENCHMARK and not flipped:
                # MLflow sorts its charts by name: these are the first.
                found |= metric_names(
                    {n: one[n] for n in HEADLINE_METRICS if n in one}, "benchmark"
                )
    return log_scores(ws.root / "mlruns", model.path, found)


def _prefix(scores: Mapping[str, Any], flipped: bool) -> str:
    """Return `test` for the own held-out images, `cost` for speed and size, else set.protocol."""
    if scores["set"] == BENCHMARK:
        return f"test{FLIPPED if flipped else ''}"
    if scores["set"] == architectures.BENCHMARK:
        return architectures.PROTOCOL
    return f"{scores['set']}.{scores['protocol']}"


def _provenance(ws: Workspace) -> dict[str, str]:
    import torch

    return {
        "seed": str(ws.seed),
        "torch": torch.__version__,
        "threads": str(ws.threads),
        "command": f"vggheads materialize {STAGE}",
    }
