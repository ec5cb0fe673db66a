"""The head model fitted to a model's landmarks, as teacher of the stage `annotations`.

The stage runs through Dagster with a file in the layout of insightface's `1k3d68.onnx`; a second
run and `dvc status` then find nothing to do, until the fit is asked for otherwise.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import yaml

from dagster_project import cli, preflight
from dagster_project.pipeline import Pipeline
from dagster_project.stages import ROOT
from dagster_project.stages import STAGES as ALL
from ml.flame.geometry import HeadGeometry
from ml.flame.head_model import HeadModel
from ml.records.config import parse_yaml
from ml.records.tables import HEADS, TRUTH, read_table, stack
from tests.fixtures.tiny_world import make_world, turned_flame
from tests.tiny_models.landmarks import build_1k3d68

STAGES = {"annotations": ALL["annotations"]}
"""The one stage of the test's project; what it reads of others is there."""


class TruthDetector:
    """Finds the boxes of the images that `make_world` has drawn, in their order, a little off."""

    name, sha256 = "truth", "d" * 64

    def __init__(self, boxes: list[np.ndarray]) -> None:
        self._boxes = list(boxes)

    def detect(self, images):
        found, self._boxes = self._boxes[: len(images)], self._boxes[len(images) :]
        return [(boxes + 0.25, np.full(len(boxes), 0.9, np.float32)) for boxes in found]


def landmark_file(path: Path, head_model: HeadModel) -> None:
    """A model that sees a frontal mean head as large as the crop; brighter ones to the right."""
    geometry = HeadGeometry(head_model)
    flame = turned_flame(0, 0, 1, 0)[None]
    vertices, points = geometry.vertices_px(flame)[0], geometry.landmarks_px(flame)[0]
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    build_1k3d68(path, (points - (low + high) / 2) / ((high - low).max() / 2), gain=0.2)


@pytest.fixture
def project(tmp_path: Path, ball_head: HeadModel, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    """A project of one stage, with drawn images and a landmark model in the published layout."""
    root = tmp_path / "project"
    ws = make_world(root, ("train",) * 3)
    ball_head.save(ws.stage_dir("head_model") / "head_model.npz")
    for name in ("head_detector", "flame_regressor"):
        ws.stage_dir(name).mkdir()
        (ws.stage_dir(name) / "given.txt").write_text(name)
    declared = parse_yaml((ROOT / "dvc.yaml").read_text())
    stages = {name: declared["stages"][name] for name in STAGES}
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}, sort_keys=False))
    for name in ("ml", "conf"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("*.pyc"))
    write_params(root, noise_mm=2.0)
    (root / ".gitignore").write_text("/data/\n/.dagster/\n/mlruns/\n/reports/\n")
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    from dvc.repo import Repo

    Repo.init(str(root)).close()
    (root / "models").mkdir()
    landmark_file(root / "models" / "1k3d68.onnx", ball_head)
    truth = read_table(ws.table_path("truth", "shard-00000"), TRUTH)
    boxes = []
    for _, heads in truth.groupby("sample_id", sort=False):
        xywh = stack(heads["bbox_xywh"])
        boxes.append(np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1))
    monkeypatch.setattr("ml.stages.annotations.load_box_detector", lambda *a: TruthDetector(boxes))
    # A process of its own would look for this checkout's command line in the folder of the test.
    monkeypatch.setattr(
        preflight, "_in_own_process", lambda project, names: preflight.look(project, names).problems
    )
    monkeypatch.chdir(root)
    return Pipeline(root, STAGES, "tests.dagster_project.test_landmark_teacher:STAGES")


def write_params(root: Path, noise_mm: float) -> None:
    model = {"path": "models/1k3d68.onnx", "asset": "landmarks-insightface"}
    fit = {"iterations": 20, "num_shape": 2, "num_expression": 1, "noise_mm": noise_mm}
    values = {
        "run": {
            **{"profile": "research_tiny", "seed": 1, "num_shards": 1, "shard_size": 3},
            **{"workers": 0, "threads": 1},
        },
        "annotations": {"regressor": {"backend": "landmarks", "model": model, "fit": fit}},
    }
    (root / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))


def dvc_status(root: Path) -> dict:
    from dvc.repo import Repo

    with Repo(str(root)) as repo:
        return repo.status()


@pytest.mark.rehearsal
def test_the_stage_runs_with_it_and_is_then_up_to_date(
    project: Pipeline, capsys: pytest.CaptureFixture[str], ball_head: HeadModel
) -> None:
    assert cli.main(["materialize", "annotations", "--upstream"], project) == 0
    path = project.workspace().table_path("annotations", "shard-00000")
    heads = read_table(path, HEADS)
    assert heads["flame_status"].tolist() == ["ok"] * 4
    assert heads["teacher"].str.contains("landmark_fit(onnx_landmarks):", regex=False).all()
    vertices = HeadGeometry(ball_head).vertices_px(stack(heads["flame"]))
    low, high = vertices.min(axis=1), vertices.max(axis=1)
    xywh = stack(heads["bbox_xywh"])
    # As large as the model says that they are, and to the right of the box, since they are bright.
    np.testing.assert_allclose((high - low).max(axis=1), xywh[:, 2:].max(axis=1), rtol=0.05)
    right = ((low + high) / 2 - xywh[:, :2] - xywh[:, 2:] / 2) / xywh[:, 2:]
    assert (right[:, 0] > 0.02).all()
    assert (abs(right[:, 1]) < 0.01).all()

    assert project.stale() == []
    assert dvc_status(project.root) == {}
    capsys.readouterr()
    assert cli.main(["materialize", "annotations", "--upstream"], project) == 0
    assert "nothing to do" in capsys.readouterr().out

    write_params(project.root, noise_mm=1.0)
    changed = Pipeline(project.root, STAGES)
    assert changed.stale() == ["annotations"]
    assert list(dvc_status(project.root)) == ["annotations"]


def test_a_file_of_another_kind_is_refused_before_anything_runs(
    project: Pipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    build_1k3d68(project.root / "models" / "1k3d68.onnx", np.zeros((68, 2)), side="side")
    assert cli.main(["materialize", "annotations", "--upstream"], project) == 1
    said = capsys.readouterr()
    assert "annotations.regressor" in said.out + said.err
    assert "with a fixed side S" in said.out + said.err
    assert not project.workspace().table_path("annotations", "shard-00000").exists()
