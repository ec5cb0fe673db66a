"""The detector trained several times: ablation (table 7), datasets (2), fine-tuning (5), seeds.

Each variant is a small project of links: the inputs of the stage `trained_model`, and those of
`benchmark`, so that both stages run unchanged. Finished variants are not repeated.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from ml.benchmarks.config import BenchmarkScoresConfig
from ml.benchmarks.gathering import Gathered, Model, gather_public
from ml.benchmarks.model_runs import metric_names
from ml.benchmarks.tables import ModelResults, write_tables
from ml.records.atomic import write_json
from ml.records.config import overlay, read_config
from ml.records.exclusions import Exclusions
from ml.records.models import hash_model
from ml.records.workspace import Workspace
from ml.stages import benchmark, trained_model
from ml.stages.benchmark_scores import own_scores
from ml.studies.links import link, slug
from ml.training.tracking import Tracker

DATASET_STAGES = ("images", "truth", "filtered_dataset")
SHARED_STAGES = ("head_model", "flame_regressor")
MEASURED_STAGES = ("images", "truth", "filtered_dataset", "annotation_quality", "head_model")
_FINISHED = "finished.json"
OpenRun = Callable[[str, Mapping[str, str]], AbstractContextManager[Tracker]]
"""Opens the MLflow run of a variant: its name and tags."""


@dataclass(frozen=True)
class Variant:
    """One training of a study.

    Attributes:
        name: in the table.
        changes: over the section `trained_model`.
        dataset: folder that holds the dataset's stages; None for the project's own.
        labels: column of text in the table -> text.
        seed: of the training; None for the project's.
        trained: folder of a finished training that is measured in place of one of its own.
    """

    name: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    dataset: Path | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    seed: int | None = None
    trained: Path | None = None

    @property
    def slug(self) -> str:
        """Name of its folder."""
        return slug(self.name)


ABLATION = (
    Variant("all losses"),
    Variant("without rotation loss", {"loss": {"rotation_weight": 0.0}}),
    Variant("without 3D vertex loss", {"loss": {"vertices_weight": 0.0}}),
    Variant("reprojection loss alone", {"loss": {"rotation_weight": 0.0, "vertices_weight": 0.0}}),
)
"""Table 7; the third removes both, as a published configuration does that the table leaves out."""


def dataset_variants(wider: Path) -> tuple[Variant, ...]:
    """Return the rows of table 2: the same training on two datasets.

    Args:
        wider: folder of WIDER FACE with pseudo-labels, see `ml.studies.wider_dataset`.
    """
    return (
        Variant("on WIDER", dataset=wider, labels={"Dataset": "WIDER"}),
        Variant("on this dataset", labels={"Dataset": "this run"}),
    )


def finetuning_variants(wider: Path, trained: Path) -> tuple[Variant, ...]:
    """Return the last row of table 5: the trained detector continued on WIDER FACE.

    Args:
        wider: folder of WIDER FACE with pseudo-labels.
        trained: the detector to start from.
    """
    changes = {"initial_weights": str(Path(trained).resolve()), "initial_encoder": None}
    labels = {"Dataset": "this run + WIDER"}
    return (Variant("continued on WIDER", changes, wider, labels),)


def run_variants(
    study: str,
    ws: Workspace,
    values: Mapping[str, Mapping[str, Any]],
    variants: Sequence[Variant],
    open_run: OpenRun,
) -> Path:
    """Train and evaluate all variants, and write the paper's tables with them.

    Args:
        study: its name: of the folder and of the MLflow runs.
        ws: the workspace; the dataset, head model, regressor and label quality must exist.
        values: effective values, section -> key -> value.
        variants: variants to train.
        open_run: opens an MLflow run for a variant.

    Returns:
        The folder with the tables.

    Raises:
        FileNotFoundError: an input is missing.
        ValueError: values that do not fit.
    """
    folder = ws.stage_dir("studies") / study
    scores = read_config(BenchmarkScoresConfig, "benchmark_scores", values["benchmark_scores"])
    gathered = Gathered(folder, Exclusions("studies"))
    for variant in variants:
        seed = ws.seed if variant.seed is None else variant.seed
        place = replace(ws, root=folder / variant.slug, seed=seed)
        changed = overlay(values["trained_model"], {**variant.changes, "registered_name": ""})
        config = read_config(trained_model.TrainedModelConfig, "trained_model", changed)
        link_stages(place, ws, variant.dataset)
        identity = _identity(place, variant, config, values)
        found = _finished(place, identity)
        if found is None:
            tags = {"study": study, "variant": variant.name, "dvc.stage": trained_model.STAGE}
            with open_run(f"{study}: {variant.name}", tags) as tracker:
                tracker.log_params(_parameters(config, seed))
                if variant.trained is None:
                    trained_model.run(place, config, tracker)
                else:
                    link(place.stage_dir("trained_model"), variant.trained)
                found = _evaluate(place, ws, variant, values, scores, gathered)
                tracker.log_metrics(_named(found))
            write_json(place.root / _FINISHED, {"identity": identity, "scores": found})
        gathered.add(ModelResults(variant.name, "ours", found, variant.labels))
    provenance = {"study": study, "seed": str(ws.seed), "command": f"vggheads study {study}"}
    write_tables(folder, gathered.results, provenance, gathered.pages)
    return folder


def link_stages(place: Workspace, ws: Workspace, dataset: Path | None) -> None:
    """Make the links of a variant's project.

    Args:
        place: the variant's workspace.
        ws: the project's.
        dataset: folder that holds the stages of the dataset; None for the project's own.

    Raises:
        FileNotFoundError: a stage has no results.
    """
    source = ws.root / "data" if dataset is None else Path(dataset)
    for name in DATASET_STAGES:
        link(place.stage_dir(name), source / name)
    for name in SHARED_STAGES:
        # a training that starts from random weights needs no regressor
        if name == "head_model" or ws.stage_dir(name).exists():
            link(place.stage_dir(name), ws.stage_dir(name))


def _evaluate(
    place: Workspace,
    ws: Workspace,
    variant: Variant,
    values: Mapping[str, Mapping[str, Any]],
    scores: BenchmarkScoresConfig,
    gathered: Gathered,
) -> list[dict[str, Any]]:
    """Return the own benchmark and the configured public sets, as score files."""
    measured = replace(ws, root=place.root / "evaluation")
    for name in MEASURED_STAGES:
        link(measured.stage_dir(name), ws.stage_dir(name))
    link(measured.stage_dir("trained_model"), place.stage_dir("trained_model"))
    config = read_config(benchmark.BenchmarkConfig, "benchmark", values["benchmark"])
    benchmark.run(measured, config)
    head_model = ws.stage_dir("head_model") / "head_model.npz"
    model = Model("trained_model", place.stage_dir("trained_model"), head_model, variant.labels)
    found = own_scores(measured, [model])[0].scores
    public = Gathered(place.root / "scores", gathered.exclusions)
    gather_public(public, scores, [model], ws.seed)
    own = [one for result in public.results if result.origin == "ours" for one in result.scores]
    return [{**one, "model": variant.name} for one in (*found, *own)]


def _named(scores: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return scores under the names that those of the pipeline's own models have in MLflow."""
    named: dict[str, float] = {}
    for one in scores:
        own = one["set"] == "benchmark"
        named |= metric_names(one, "test" if own else f"{one['set']}.{one['protocol']}")
        if own:
            first = {name: one[name] for name in benchmark.HEADLINE_METRICS if name in one}
            named |= metric_names(first, "benchmark")
    return named


def _parameters(config: trained_model.TrainedModelConfig, seed: int) -> dict[str, Any]:
    """Return a training's values under the names that those of the pipeline have in MLflow."""
    values = {"run": {"seed": seed}, trained_model.STAGE: config.model_dump(mode="json")}
    (row,) = pd.json_normalize(values).to_dict(orient="records")
    return {str(name): value for name, value in row.items()}


def _identity(place: Workspace, variant: Variant, config: Any, values: Mapping[str, Any]) -> str:
    """Return all inputs of a variant's results except the code."""
    parts = [
        config.model_dump_json(),
        json.dumps([values["benchmark"], values["benchmark_scores"]], sort_keys=True, default=str),
        hash_model(place.stage_dir("filtered_dataset")),
        hash_model(place.stage_dir("head_model")),
        str(place.seed),
        *([] if variant.trained is None else [hash_model(variant.trained)]),
    ]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _finished(place: Workspace, identity: str) -> list[dict[str, Any]] | None:
    path = place.root / _FINISHED
    if not path.is_file():
        return None
    content = json.loads(path.read_text(encoding="utf-8"))
    return list(content["scores"]) if content["identity"] == identity else None
