"""Configuration of the evaluation: public sets, models, predictions and score files."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from ml.records.config import Count, Index, StageConfig

PublicSetName = Literal[
    "aflw2000", "biwi", "dad", "dad-test", "fddb", "wider", "feng", "now", "now-test", "coco"
]
Origin = Literal["ours", "outside"]


class OutsidePredictions(StageConfig):
    """Predictions of another method on a set."""

    path: Path
    """The file or folder; see docs/benchmarks for the format."""
    content: str = ""
    """Its sha256; a run without it reports the hash to state."""
    dataset: str = ""
    """What the method was trained on, for the tables' column of that name."""


class PublicSet(StageConfig):
    """A public set on this machine."""

    data: Path
    """The set's folder, as its publisher lays it out."""
    content: str = ""
    """sha256 of names and bytes below the folder; a run without it reports the hash to state.
    Results are computed again only when it changes."""
    protocols: tuple[str, ...] = ()
    """Evaluation protocols; empty: all protocols of the set."""
    outside: dict[str, OutsidePredictions] = Field(default_factory=dict)
    """Method -> its predictions."""


class EvaluatedModel(StageConfig):
    """A model to evaluate in addition to the pipeline's own."""

    path: Path
    """A folder of ours, an export, an official .trcd, .onnx or .pth."""
    content: str = ""
    """Its sha256; a run without it reports the hash to state."""
    head_model: Path | None = None
    """Head model of its parameters; none: found next to the model."""
    dataset: str = ""
    """What it was trained on."""


class ScoreFiles(StageConfig):
    """Scores computed outside the pipeline.

    By `vggheads benchmark --out`, `vggheads score`, `vggheads generation-quality` (table 6) or
    `vggheads study architectures` (table 8).
    """

    path: Path
    """A score file, or a folder with `.json` score files."""
    content: str = ""
    """Its sha256; a run without it reports the hash to state."""
    origin: Origin = "ours"
    """Name of the model that was scored."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Column of text in a table -> text, such as Dataset or Condition."""


class BenchmarkScoresConfig(StageConfig):
    """Section `benchmark_scores` of params.yaml. What is not configured is not evaluated."""

    sets: dict[PublicSetName, PublicSet] = Field(default_factory=dict)
    """Public sets; each is switched off until its folder is named here."""
    models: dict[str, EvaluatedModel] = Field(default_factory=dict)
    """Name -> model, in addition to those that the pipeline trains."""
    score_files: dict[str, ScoreFiles] = Field(default_factory=dict)
    """Name in the tables -> scores computed outside the pipeline."""
    generated_images: Index = 6
    """Images of each set that is generated from held-out renders, 0 for none."""
    generated_scans: Index = 2
    """The same of the sets of scans, whose protocols take seconds per image."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    resamples: Count = 200
    """Number of bootstrap resamples over the images."""
