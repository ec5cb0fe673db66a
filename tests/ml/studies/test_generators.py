"""Generators on the same prompts and poses: images, scores, table, MLflow, and no second making."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from ml.benchmarks.generation_quality import Measuring
from ml.studies import generators
from ml.studies.generators import Generator, Reference, compare_generators
from ml.training.tracking import mlflow_run, sqlite_uri
from tests.ml.benchmarks.test_generation_quality import TinyNetwork, images, write_folder
from tests.ml.stages.conftest import head_model
from tests.ml.stages.test_images import workspace

__all__ = ["head_model", "workspace"]
GENERATORS = (
    Generator("Renderer, small heads", {"renderer": {"heads": {"shape_std": 0.1}}}, "pose"),
    Generator("Renderer", {}, "none"),
)


@pytest.fixture
def compared(workspace, tmp_path):
    opened = []

    def open_run(title, tags):
        opened.append(title)
        return mlflow_run(tmp_path / "mlruns", "vggheads", title, tags)

    reference = Reference(write_folder(tmp_path / "real", images(6)), 4)

    def compare(given=GENERATORS):
        measuring = Measuring(TinyNetwork(), sizes=(4, 16), side=8)
        return compare_generators(
            workspace, {"images": {"max_drop_rate": 1.0}}, given, reference, measuring, open_run
        )

    return compare, opened, tmp_path


def test_generators_are_compared_on_the_same_prompts(compared, monkeypatch):
    compare, opened, root = compared
    folder = compare()
    assert opened == ["generators: Renderer, small heads", "generators: Renderer"]
    with (folder / "set_generation.csv").open() as file:
        rows = {row["Metric"]: row for row in csv.DictReader(file)}
    names = [f"ours {one.name}" for one in GENERATORS]
    assert all(float(rows["fid_4"][name]) > 0 for name in names)
    assert rows["fid_4"][names[0]] != rows["fid_4"][names[1]]
    counts = {float(rows["num_reference_images"][name]) for name in names}
    assert counts == {4.0}, "the reference's limit holds"

    from mlflow import MlflowClient

    client = MlflowClient(sqlite_uri(root / "mlruns" / "mlflow.db"))
    runs = client.search_runs([one.experiment_id for one in client.search_experiments()])
    assert {run.data.params["condition"] for run in runs} == {"pose", "none"}
    for run in runs:
        title = run.data.tags["variant"]
        told = run.data.metrics["generation/fid_4"]
        assert told == pytest.approx(float(rows["fid_4"][f"ours {title}"]), rel=1e-6)

    def refuse(*given):
        raise AssertionError("a finished shard is made again")

    monkeypatch.setattr(generators.images, "run_shard", refuse)
    before = (folder / "set_generation.csv").read_bytes()
    assert compare() == folder
    assert (folder / "set_generation.csv").read_bytes() == before
    assert np.isfinite(float(rows["kid"][names[0]]))
