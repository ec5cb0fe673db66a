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
    """File or folder of predictions; docs/benchmarks describes the formats."""
    content: str = ""
    """sha256 of the predictions; if empty, the run prints it."""
    dataset: str = ""
    """Training data of the method, for the column of that name in the tables."""


class PublicSet(StageConfig):
    """A public set on this machine."""

    data: Path
    """Folder of the set, in the layout of its publisher."""
    content: str = ""
    """sha256 of names and bytes below the folder; if empty, the run prints it. Results are
    recomputed only when it changes."""
    protocols: tuple[str, ...] = ()
    """Evaluation protocols; default: all protocols of the set."""
    outside: dict[str, OutsidePredictions] = Field(default_factory=dict)
    """Method -> its predictions."""


class EvaluatedModel(StageConfig):
    """A model to evaluate in addition to the pipeline's own."""

    path: Path
    """A folder of ours, an export, an official .trcd, .onnx or .pth."""
    content: str = ""
    """sha256 of the model; if empty, the run prints it."""
    head_model: Path | None = None
    """Head model of its parameters; default: the one next to the model."""
    dataset: str = ""
    """Training data of the model."""


class ScoreFiles(StageConfig):
    """Scores computed outside the pipeline.

    By `vggheads benchmark --output`, `vggheads score`, `vggheads generation-quality` (table 6) or
    `vggheads study architectures` (table 8).
    """

    path: Path
    """A score file, or a folder with `.json` score files."""
    content: str = ""
    """sha256 of the scores; if empty, the run prints it."""
    origin: Origin = "ours"
    """Whether the scored model is ours (`ours`) or another method's (`outside`)."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Text column of a table, such as Dataset or Condition -> its text."""


class BenchmarkScoresConfig(StageConfig):
    """Section `benchmark_scores` of params.yaml. What is not configured is not evaluated."""

    sets: dict[PublicSetName, PublicSet] = Field(default_factory=dict)
    """Public sets; a set is evaluated only if its folder is stated here."""
    models: dict[str, EvaluatedModel] = Field(default_factory=dict)
    """Name -> model to evaluate in addition to those trained by the pipeline."""
    score_files: dict[str, ScoreFiles] = Field(default_factory=dict)
    """Name in the tables -> external scores."""
    generated_images: Index = 6
    """Images in each set generated from held-out renders; 0: no generated sets."""
    generated_scans: Index = 2
    """The same for scan sets, whose protocols take seconds per image."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    resamples: Count = 200
    """Number of bootstrap resamples over the images."""
