"""Run the configured evaluations and gather all scores for the tables.

The results of a set are stored under its name and the first digits of its content hash. Predictions
are kept there as well and reused.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ml.benchmarks.architectures import PUBLISHED_SIZES, cost_scores, of_file, of_size
from ml.benchmarks.config import BenchmarkScoresConfig, PublicSet
from ml.benchmarks.content import check_content
from ml.benchmarks.generated.from_truth import GeneratedSets
from ml.benchmarks.running import benchmark_protocols
from ml.benchmarks.scoring import BenchmarkResult, score
from ml.benchmarks.sets import benchmark_set
from ml.benchmarks.tables import ModelResults, read_scores
from ml.records.atomic import remove
from ml.records.exclusions import Exclusions

PUBLIC, GENERATED = "public", "generated"
GENERATED_PREFIX = "generated-"
GENERATED_NOTE = (
    "a set generated from this project's own held-out renders in the published layout: it shows "
    "that everything runs, and says nothing of the public set"
)


@dataclass(frozen=True)
class Model:
    """A model to evaluate.

    Attributes:
        name: in the tables.
        path: its folder or file.
        head_model: of its parameters; None to look next to it.
        labels: column of text -> text.
    """

    name: str
    path: Path
    head_model: Path | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Gathered:
    """Everything that was evaluated.

    Attributes:
        root: the stage's folder.
        results: of each model, in order.
        exclusions: receives what the sets leave out.
        pages: title -> gallery, paths relative to `root`.
        num_given: images that were read, scored or not.
        num_images: images that were scored.
    """

    root: Path
    exclusions: Exclusions
    results: list[ModelResults] = field(default_factory=list)
    pages: dict[str, str] = field(default_factory=dict)
    num_given: int = 0
    num_images: int = 0

    def add(self, result: ModelResults) -> None:
        """Add scores; those of a known model are appended to its others."""
        for number, known in enumerate(self.results):
            if (known.origin, known.model) == (result.origin, result.model):
                scores = [*known.scores, *result.scores]
                labels = {**known.labels, **result.labels}
                self.results[number] = ModelResults(known.model, known.origin, scores, labels)
                return
        self.results.append(result)

    def count(self, results: list[BenchmarkResult]) -> None:
        """Count images and exclusions of a set, once for all protocols."""
        first = results[0]
        self.num_given += first.num_given
        self.num_images += first.num_scored
        for row in first.exclusions.rows():
            self.exclusions.add(
                f"{first.benchmark}/{row['sample_id']}", row["reason"], row["detail"]
            )


def run_models(
    gathered: Gathered,
    name: str,
    data: Path,
    folder: Path,
    protocols: tuple[str, ...],
    models: list[Model],
    config: BenchmarkScoresConfig,
    seed: int,
    note: str = "",
) -> Iterator[tuple[Model, list[dict[str, Any]], list[BenchmarkResult]]]:
    """Run models on a set.

    Args:
        gathered: counts the images.
        name: the benchmark's name.
        data: its folder.
        folder: receives a folder per model.
        protocols: evaluation protocols.
        models: models to run.
        config: device and bootstrap.
        seed: of the bootstrap.
        note: remarks for the reader of the gallery.

    Yields:
        A model, its score files and its results.
    """
    for model in models:
        results = benchmark_protocols(
            name,
            data,
            model.path,
            protocols,
            folder / model.name,
            model.head_model,
            device=config.device,
            seed=seed,
            resamples=config.resamples,
            note=note,
        )
        gathered.count(results)
        yield model, [{**one.as_json(), "model": model.name} for one in results], results


def gather_public(
    gathered: Gathered, config: BenchmarkScoresConfig, models: list[Model], seed: int
) -> None:
    """Evaluate the configured public sets; results of others are removed.

    Args:
        gathered: receives the scores.
        config: the sets.
        models: models to run, in addition to the predictions that a set's configuration names.
        seed: of the bootstrap.

    Raises:
        OtherContent: a set or file is not what its configuration says.
        ValueError: an unknown protocol, or predictions that cannot be used.
        FileNotFoundError: a file of a set is missing.
    """
    kept = set()
    for name, one in config.sets.items():
        content = check_content(f"benchmark_scores.sets.{name}", one.data, one.content)
        folder = gathered.root / PUBLIC / f"{name}-{content[:12]}"
        kept.add(folder.name)
        _gather_set(gathered, name, one, folder, config, models, seed)
    _remove_others(gathered.root / PUBLIC, kept)


def _gather_set(
    gathered: Gathered,
    name: str,
    one: PublicSet,
    folder: Path,
    config: BenchmarkScoresConfig,
    models: list[Model],
    seed: int,
) -> None:
    protocols = one.protocols or benchmark_set(name).protocols
    title = benchmark_set(name).title
    for model, scores, _ in run_models(
        gathered, name, one.data, folder, protocols, models, config, seed
    ):
        gathered.add(ModelResults(model.name, "ours", scores, model.labels))
        _add_page(gathered, folder / model.name, f"{title}: {model.name}")
    for method, outside in one.outside.items():
        key = f"benchmark_scores.sets.{name}.outside.{method}"
        check_content(key, outside.path, outside.content)
        scores = []
        for protocol in protocols:
            result = score(
                name,
                one.data,
                outside.path,
                protocol,
                models[0].head_model if models else None,
                seed,
                config.resamples,
            )
            scores.append({**result.as_json(), "model": method})
        gathered.add(ModelResults(method, "outside", scores, _dataset(outside.dataset)))


def gather_generated(
    gathered: Gathered,
    sets: GeneratedSets,
    models: list[Model],
    config: BenchmarkScoresConfig,
    seed: int,
) -> None:
    """Evaluate generated sets; under names of their own, so that no table of the paper has them.

    Args:
        gathered: receives the scores.
        sets: where they are.
        models: models to run.
        config: device and bootstrap.
        seed: of the bootstrap.
    """
    for name, data in sets.folders.items():
        folder = gathered.root / GENERATED / name
        # earlier predictions may belong to other images: ids are plain numbers here
        remove(folder)
        protocols = benchmark_set(name).protocols
        for model, scores, _ in run_models(
            gathered, name, data, folder, protocols, models, config, seed, GENERATED_NOTE
        ):
            # small on purpose: differences to the published counts mean nothing
            marked = [
                {
                    **one,
                    "set": GENERATED_PREFIX + name,
                    "notes": [GENERATED_NOTE, *one["notes"]],
                    "count_differences": [],
                }
                for one in scores
            ]
            gathered.add(ModelResults(model.name, "ours", marked, model.labels))
            title = f"{benchmark_set(name).title}, generated: {model.name}"
            _add_page(gathered, folder / model.name, title)
    _remove_others(gathered.root / GENERATED, set(sets.folders))


def gather_costs(gathered: Gathered, models: Sequence[Model]) -> None:
    """Count parameters and multiply-accumulates: of the published sizes and of models.

    Speeds depend on the machine; the study `architectures` measures them.

    Args:
        gathered: receives the scores.
        models: detectors of ours.
    """
    counted = [
        *(of_size(size, timed=False) for size in PUBLISHED_SIZES),
        *(of_file(one.name, one.path, timed=False) for one in models),
    ]
    labels = {one.name: one.labels for one in models}
    for one in counted:
        scores = [cost_scores(one, {})]
        gathered.add(ModelResults(one.name, "ours", scores, labels.get(one.name, {})))


def gather_files(gathered: Gathered, config: BenchmarkScoresConfig) -> None:
    """Add score files computed outside the pipeline.

    Args:
        gathered: receives the scores.
        config: names the files.

    Raises:
        OtherContent: a file is not what its configuration says.
        ValueError: a file holds no scores.
    """
    for name, one in config.score_files.items():
        check_content(f"benchmark_scores.score_files.{name}", one.path, one.content)
        paths = sorted(one.path.rglob("*.json")) if one.path.is_dir() else [one.path]
        scores = [read_scores(path) for path in paths]
        gathered.add(ModelResults(name, one.origin, scores, one.labels))


def configured_models(config: BenchmarkScoresConfig) -> list[Model]:
    """Return the further models.

    Args:
        config: names them.

    Raises:
        OtherContent: a model is not what its configuration says.
    """
    models = []
    for name, one in config.models.items():
        check_content(f"benchmark_scores.models.{name}", one.path, one.content)
        models.append(Model(name, one.path, one.head_model, _dataset(one.dataset)))
    return models


def _dataset(text: str) -> dict[str, str]:
    return {"Dataset": text} if text else {}


def _add_page(gathered: Gathered, folder: Path, title: str) -> None:
    page = folder / "gallery" / "gallery.html"
    if page.is_file():
        gathered.pages[title] = page.relative_to(gathered.root).as_posix()


def _remove_others(folder: Path, kept: set[str]) -> None:
    for path in sorted(folder.glob("*")):
        if path.name not in kept:
            shutil.rmtree(path)
