"""Costs of the published sizes and the project's detector on this machine (paper, table 8)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from pydantic import Field

from ml.benchmarks.architectures import (
    PRECISIONS,
    PUBLISHED_SIZES,
    RUNTIMES,
    Architecture,
    Precision,
    RuntimeName,
    cost_scores,
    of_file,
    of_size,
    speeds,
)
from ml.benchmarks.tables import ModelResults, write_tables
from ml.inference.loading import CONFIG_NAME
from ml.model.building import ModelSize
from ml.records.atomic import write_json
from ml.records.config import Count, StageConfig
from ml.records.models import choose_device
from ml.records.progress import progress
from ml.records.workspace import Workspace
from ml.training.tracking import Tracker

STUDY = "architectures"
OWN_MODELS = ("trained_model", "trained_model_exact")
OpenRun = Callable[[str, Mapping[str, str]], AbstractContextManager[Tracker]]


class ArchitecturesConfig(StageConfig):
    """Detectors and duration of the timing; conf/studies/architectures.yaml is an example."""

    sizes: tuple[ModelSize, ...] = PUBLISHED_SIZES
    """Networks to time, with random weights."""
    models: dict[str, Path] = Field(default_factory=dict)
    """Name -> detector to time in addition to those trained by the project."""
    runtimes: tuple[RuntimeName, ...] = RUNTIMES
    """Inference runtimes."""
    precisions: tuple[Precision, ...] = PRECISIONS
    """Number formats of the network; exports use fp32."""
    batches: tuple[Count, ...] = (1, 64)
    """Batch sizes."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    threads: Count | None = None
    """Threads of torch; default: those of the project."""
    seconds: float = Field(default=5.0, ge=0, le=3600)
    """Time per combination; at least five calls are made."""


def measure_architectures(ws: Workspace, config: ArchitecturesConfig, open_run: OpenRun) -> Path:
    """Count and time every detector.

    Args:
        ws: the workspace; the project's own detectors are measured if there are any.
        config: detectors to time.
        open_run: opens an MLflow run for a detector.

    Returns:
        The folder with the tables and a score file a detector.

    Raises:
        UnusableModel: a detector cannot be read.
    """
    folder, device = ws.stage_dir("studies") / STUDY, str(choose_device(config.device))
    own = {n: ws.stage_dir(n) for n in OWN_MODELS if (ws.stage_dir(n) / CONFIG_NAME).is_file()}
    makers: list[Callable[[], Architecture]] = [
        *(lambda size=size: of_size(size) for size in config.sizes),
        *(
            lambda name=name, path=path: of_file(name, path)
            for name, path in {**own, **config.models}.items()
        ),
    ]
    before = torch.get_num_threads()
    torch.set_num_threads(config.threads or ws.threads)
    results = []
    try:
        for make in makers:
            model = make()
            tags = {"study": STUDY, "variant": model.name}
            with open_run(f"{STUDY}: {model.name}", tags) as tracker:
                scores = cost_scores(model, _timed(model, config, device), [f"device {device}"])
                numbers = {k: v for k, v in scores.items() if isinstance(v, int | float)}
                tracker.log_metrics({f"cost/{name}": float(v) for name, v in numbers.items()})
            write_json(folder / f"{model.name}.json", scores)
            results.append(ModelResults(model.name, "ours", [scores], {}))
    finally:
        torch.set_num_threads(before)
    write_tables(folder, results, {"device": device, "command": f"vggheads study {STUDY}"})
    return folder


def _timed(
    model: Architecture, config: ArchitecturesConfig, device: str
) -> dict[tuple[str, str, int], float | None]:
    combinations = speeds(
        model, config.runtimes, config.precisions, config.batches, device, config.seconds
    )
    count = len(config.runtimes) * len(config.precisions) * len(config.batches)
    return {
        (runtime, precision, batch): value
        for runtime, precision, batch, value in progress(combinations, model.name, total=count)
    }
