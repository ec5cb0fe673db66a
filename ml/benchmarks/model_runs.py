"""Benchmark scores in the MLflow run of the model that they belong to.

A training tags its run with the hash of the weights that it wrote; the tag identifies the run.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml.benchmarks.content import content_of
from ml.inference.loading import WEIGHTS_NAME
from ml.training.tracking import WEIGHTS_TAG, found_store


def log_scores(store: Path, model: Path, scores: Mapping[str, float]) -> str | None:
    """Write scores into the run that made a model; existing scores are not changed.

    Args:
        store: folder of MLflow's database, unless MLFLOW_TRACKING_URI names a server.
        model: the model's folder.
        scores: name -> number; those that are not finite are left out.

    Returns:
        The run's id; None when no run in this store made the model.

    Raises:
        TrackingUnavailable: the server does not answer.
    """
    weights = model / WEIGHTS_NAME
    if not weights.is_file() or (address := found_store(store)) is None:
        return None
    from mlflow import MlflowClient
    from mlflow.entities import Metric

    client = MlflowClient(address)
    run = _run_of(client, content_of(weights))
    if run is None:
        return None
    now, known = int(time.time() * 1000), run.data.metrics
    new = [
        Metric(name, float(value), now, 0)
        for name, value in scores.items()
        if math.isfinite(value) and known.get(name) != float(value)
    ]
    # MLflow takes a thousand in one call
    for start in range(0, len(new), 1000):
        client.log_batch(run.info.run_id, metrics=new[start : start + 1000])
    return str(run.info.run_id)


def _run_of(client: Any, weights: str) -> Any | None:
    """Return the newest finished run that wrote these weights."""
    experiments = [one.experiment_id for one in client.search_experiments()]
    runs = client.search_runs(
        experiments,
        f"tags.\"{WEIGHTS_TAG}\" = '{weights}' and attributes.status = 'FINISHED'",
        max_results=1,
        order_by=["attributes.start_time DESC"],
    )
    return runs[0] if runs else None


def metric_names(scores: Mapping[str, Any], prefix: str) -> dict[str, float]:
    """Return the numbers of a score file under names with data set and protocol.

    Args:
        scores: as `BenchmarkResult.as_json` gives them.
        prefix: such as `fddb.coco`; MLflow groups charts by it.
    """
    return {
        f"{prefix}/{name}": float(value)
        for name, value in scores.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
