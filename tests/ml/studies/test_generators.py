"""Generators on the same prompts and poses: images, scores, table, MLflow, and no second making."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest

from ml.benchmarks.generation_quality import Measuring
from ml.studies import generators
from ml.studies.generators import Generator, Reference, compare_generators
from ml.studies.running import read_generators
from ml.training.tracking import mlflow_run, sqlite_uri
from tests.ml.benchmarks.test_generation_quality import TinyNetwork, images, write_folder
from tests.ml.stages.conftest import head_model
from tests.ml.stages.test_images import workspace
from tests.tiny_models.diffusion import (
    build_controlnet,
    build_sd15,
    build_sd15_controlnet,
    build_sdxl,
    build_t2i_adapter,
)

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
    changed = Generator(GENERATORS[0].name, {"renderer": {"heads": {"shape_std": 0.2}}}, "pose")
    with pytest.raises(AssertionError, match="is made again"):
        compare([changed])


@pytest.fixture(scope="module")
def diffusion(tmp_path_factory):
    """The three generators of the paper's table 6, tiny."""
    root = tmp_path_factory.mktemp("models")
    made = {
        "sd-1.5": build_sd15(root / "sd15"),
        "realvisxl-v4": build_sdxl(root / "sdxl"),
        "controlnet-openpose-sd15": build_sd15_controlnet(root / "sd15-controlnet"),
        "controlnet-openpose-sdxl": build_controlnet(root / "controlnet"),
        "t2i-adapter-openpose-sdxl": build_t2i_adapter(root / "t2i"),
    }
    path = Path(__file__).parents[3] / "conf" / "studies" / "generators.yaml"
    generators_of_paper = []
    for one in read_generators(path):
        content = one.changes["diffusion"]
        refs = {
            part: {"path": str(made[content[part]["asset"]]), "asset": content[part]["asset"]}
            for part in ("base", "conditioner")
        }
        tiny = {**refs, "steps": 2, "batch_size": 1, "device": "cpu"}
        changes = {"backend": one.changes["backend"], "diffusion": tiny}
        generators_of_paper.append(Generator(one.name, changes, one.condition))
    return generators_of_paper


def test_the_three_generators_of_the_paper_and_a_kill_among_their_images(
    compared, diffusion, monkeypatch, tmp_path
):
    """The job's own file of generators; killed at an image, it ends as an unbroken one."""
    from ml.generation.diffusion.generator import DiffusionGenerator

    compare, opened, _ = compared
    made, generate = [], DiffusionGenerator.generate

    def killed(self, batch):
        if len(made) == 4 and not stopped:
            stopped.append(True)
            raise KeyboardInterrupt
        made.extend(request.sample_id for request in batch)
        return generate(self, batch)

    stopped = []
    monkeypatch.setattr(DiffusionGenerator, "generate", killed)
    with pytest.raises(KeyboardInterrupt):
        compare(diffusion)
    assert len(made) == 4
    folder = compare(diffusion)
    # the first generator's shard was finished, that of the second is made again
    assert len(opened) == 5
    assert len(made) == 4 + 6
    shards = {path.parents[2].name: path.read_bytes() for path in folder.rglob("images/*.tar")}
    assert len(set(shards.values())) == 3
    with (folder / "table_06.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["Origin"] == "ours"]
    assert [row["Model"] for row in rows] == [one.name for one in diffusion]
    assert [row["Condition"] for row in rows] == ["ControlNet", "ControlNet", "T2I-Adapter"]
    before = (folder / "set_generation.csv").read_bytes()
    shutil.rmtree(folder)
    again = compare(diffusion)
    assert (again / "set_generation.csv").read_bytes() == before
    assert shards == {p.parents[2].name: p.read_bytes() for p in again.rglob("images/*.tar")}
