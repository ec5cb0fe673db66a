"""Two trainings side by side: the parameters that differ, and the metrics of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_BOUNDS = ("_low", "_high")


@dataclass(frozen=True)
class Comparison:
    """Differences between two runs.

    Attributes:
        names: names of the runs.
        params: parameter -> both values; None where a run has none.
        metrics: metric -> both values as text, with the interval where one was logged.
    """

    names: tuple[str, str]
    params: Mapping[str, tuple[str | None, str | None]]
    metrics: Mapping[str, tuple[str, str]]

    def as_json(self) -> dict[str, object]:
        """Return the same as plain dictionaries and lists."""
        return {
            "runs": list(self.names),
            "params": {name: list(pair) for name, pair in self.params.items()},
            "metrics": {name: list(pair) for name, pair in self.metrics.items()},
        }

    def lines(self) -> list[str]:
        """Return two tables for a terminal."""
        params = [("", *self.names)] + [
            (name, *("-" if value is None else value for value in pair))
            for name, pair in self.params.items()
        ]
        metrics = [("", *self.names)] + [(name, *pair) for name, pair in self.metrics.items()]
        return [
            "parameters that differ" if self.params else "no parameter differs",
            *(_aligned(params) if self.params else []),
            "",
            "metrics" if self.metrics else "neither run has metrics",
            *(_aligned(metrics) if self.metrics else []),
        ]


def compare_runs(store: Path, first: str, second: str) -> Comparison:
    """Compare two runs of a store.

    Args:
        store: the folder of MLflow's database, unless MLFLOW_TRACKING_URI names a server.
        first: a run's id, the beginning of one, or its name; of several the newest.
        second: likewise.

    Raises:
        FileNotFoundError: there is no store.
        TrackingUnavailable: the server does not answer.
        ValueError: no run is called so, or both are the same.
    """
    from ml.training.tracking import DATABASE, found_store

    address = found_store(store)
    if address is None:
        raise FileNotFoundError(
            f"compare: {store / DATABASE}: no trainings yet; `make demo` makes some"
        )
    from mlflow import MlflowClient

    client = MlflowClient(address)
    runs = _all_runs(client)
    left, right = _find(runs, first), _find(runs, second)
    if left.info.run_id == right.info.run_id:
        raise ValueError(f"compare: {first} and {second} are the same run, {left.info.run_id}")
    return compare(left, right)


def compare(left: Run, right: Run) -> Comparison:
    """Compare two runs.

    Args:
        left: a run.
        right: another.
    """
    params = {
        name: pair
        for name in dict.fromkeys([*left.data.params, *right.data.params])
        if (pair := (left.data.params.get(name), right.data.params.get(name)))[0] != pair[1]
    }
    known = sorted({*left.data.metrics, *right.data.metrics})
    metrics = {
        name: (_value(left.data.metrics, name), _value(right.data.metrics, name))
        for name in known
        if not (name.endswith(_BOUNDS) and name.rpartition("_")[0] in known)
    }
    names = tuple(f"{run.info.run_name} ({run.info.run_id[:8]})" for run in (left, right))
    return Comparison((names[0], names[1]), dict(sorted(params.items())), metrics)


def _value(metrics: Mapping[str, float], name: str) -> str:
    if name not in metrics:
        return "-"
    low, high = (metrics.get(f"{name}{bound}") for bound in _BOUNDS)
    interval = "" if low is None or high is None else f" [{low:.4g}, {high:.4g}]"
    return f"{metrics[name]:.4g}{interval}"


def _all_runs(client: MlflowClient) -> list[Run]:
    """Return every run of the store, the newest first."""
    experiments = [one.experiment_id for one in client.search_experiments()]
    runs: list[Run] = []
    token: str | None = None
    while True:
        page = client.search_runs(
            experiments, order_by=["attributes.start_time DESC"], page_token=token
        )
        runs += page
        token = page.token
        if not token:
            return runs


def _find(runs: Sequence[Run], name: str) -> Run:
    for run in runs:
        if name and (run.info.run_id.startswith(name) or run.info.run_name == name):
            return run
    known = "; ".join(f"{run.info.run_id[:8]} {run.info.run_name}" for run in runs[:8])
    raise ValueError(f"compare: no run {name!r}; the newest are {known or 'none'}")


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
