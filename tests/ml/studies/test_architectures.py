"""Table 8 measured: every runtime, precision and batch of a tiny detector, random and stored."""

from __future__ import annotations

import csv
import json

import pytest
import torch

from ml.studies.running import run_study
from ml.training.tracking import sqlite_uri
from tests.ml.inference.conftest import network, project, shapes

__all__ = ["network", "project", "shapes"]
CONFIG = """
sizes: [nano]
batches: [1, 2]
precisions: [fp32, bf16]
seconds: 0
device: cpu
threads: 1
"""


# Two networks in three precisions and two runtimes: measured in CI, not at every change.
measures = pytest.mark.rehearsal


@pytest.fixture(scope="module")
def measured(tmp_path_factory, project):
    from ml.records.workspace import Workspace

    root = tmp_path_factory.mktemp("architectures")
    (root / "data").mkdir()
    (root / "data" / "trained_model").symlink_to(project / "trained_model")
    (root / "config.yaml").write_text(CONFIG)
    before = torch.get_num_threads()
    ws = Workspace(root, seed=0, num_shards=1, shard_size=1)
    folder = run_study("architectures", ws, {}, root / "mlruns", config=root / "config.yaml")
    assert torch.get_num_threads() == before
    return root, folder


@measures
def test_speeds_stand_beside_the_paper_s(measured):
    _, folder = measured
    with (folder / "table_08.csv").open() as file:
        rows = {row["Model"]: row for row in csv.DictReader(file) if row["Origin"] == "ours"}
    assert list(rows) == ["nano", "trained_model"]
    for row in rows.values():
        usual = float(row["Images/s ↑"])
        assert usual == float(row["torch fp32, images/s batch 1 ↑"]) > 0
        assert float(row["torch bf16, images/s batch 1 ↑"]) > 0
        assert float(row["onnxruntime fp32, images/s batch 1 ↑"]) > 0
        # not asked for
        assert row["torch fp16, images/s batch 1 ↑"] == "not measured"
        assert row["torch fp32, images/s batch 64 ↑"] == "not measured"
    scores = json.loads((folder / "nano.json").read_text())
    assert scores["images_per_second_torch_fp32_2"] > 0
    assert scores["images_per_second_onnxruntime_bf16_1"] is None, "the export holds float32"
    assert "1 threads" in scores["notes"][0]


@measures
def test_every_detector_has_a_run(measured):
    from mlflow import MlflowClient

    root, _ = measured
    client = MlflowClient(sqlite_uri(root / "mlruns" / "mlflow.db"))
    runs = client.search_runs([one.experiment_id for one in client.search_experiments()])
    assert {run.data.tags["variant"] for run in runs} == {"nano", "trained_model"}
    assert all(run.data.metrics["cost/num_parameters"] > 0 for run in runs)
    assert all(run.data.metrics["cost/images_per_second_torch_fp32_1"] > 0 for run in runs)


def test_a_wrong_value_is_named(tmp_path):
    (tmp_path / "wrong.yaml").write_text("precisions: [int8]")
    with pytest.raises(ValueError, match=r"architectures\.precisions"):
        run_study("architectures", None, {}, tmp_path, config=tmp_path / "wrong.yaml")
