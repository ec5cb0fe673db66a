"""`vggheads generate`: a folder of rendered images, resumed, grown, and never mixed up."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from dagster_project import generating
from dagster_project.cli import main
from dagster_project.pipeline import Pipeline
from ml.captions.config import CaptionsConfig
from ml.evaluation.metrics import turn_deg
from ml.generation.config import ImagesConfig
from ml.generation.renderer.dense import MAPS
from ml.poses.config import PosesConfig
from ml.poses.sampler import sample_pose
from ml.records.atomic import temporary_path
from ml.records.config import parse_yaml, read_config
from ml.records.heads import Heads
from ml.records.shards import ShardReader
from ml.records.tables import TRUTH, read_table
from ml.stages.benchmark import BenchmarkConfig
from ml.stages.head_model import HeadModelConfig
from tests.fixtures.profiles import effective

ROOT = Path(__file__).parents[2]
STAGES = {
    "head_model": HeadModelConfig,
    "benchmark": BenchmarkConfig,
    "poses": PosesConfig,
    "captions": CaptionsConfig,
    "images": ImagesConfig,
}
RUN = "run: {profile: test, seed: 3, num_shards: 1, shard_size: 1, workers: 1, threads: 1}\n"
VALUES = """
head_model: {}
poses: {}
captions: {name_probability: 1.0}
images: {max_drop_rate: 1.0}
benchmark: {resamples: 5}
"""


@pytest.fixture
def pipeline(tmp_path, monkeypatch, open_head):
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "params.yaml").write_text(RUN + VALUES)
    monkeypatch.setattr(generating, "SHARD_SIZE", 2)
    # The head model takes longer than the images.
    monkeypatch.setattr(
        generating.head_model,
        "run",
        lambda ws, config: open_head.save(ws.stage_dir("head_model") / "head_model.npz"),
    )
    stages = {
        name: SimpleNamespace(name=name, config_class=lambda c=config: c)
        for name, config in STAGES.items()
    }
    return Pipeline(tmp_path / "project", stages)


def generate(pipeline, out, images, *more):
    return main(
        ["generate", "--images", str(images), "--size", "64", "--output", str(out), *more], pipeline
    )


def digests(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("shard-*")
        if "generated" not in path.parts
    }


def test_a_run_that_is_stopped_and_continued_makes_the_same_bytes(
    pipeline, tmp_path, monkeypatch, capsys
):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert generate(pipeline, whole, 3, "--depth") == 0
    assert "3 images in" in capsys.readouterr().out
    render = generating.images.run_shard

    def break_down(ws, config, shard):
        if shard == "shard-00001":
            raise KeyboardInterrupt
        return render(ws, config, shard)

    with monkeypatch.context() as broken:
        broken.setattr(generating.images, "run_shard", break_down)
        assert generate(pipeline, stopped, 3, "--depth") == 130
    assert "run the command again to resume" in capsys.readouterr().err
    assert sorted(p.name for p in (stopped / "data" / "images").glob("*.tar")) == [
        "shard-00000.tar"
    ]
    capsys.readouterr()
    assert generate(pipeline, stopped, 3, "--depth") == 0
    assert "1 of them made now" in capsys.readouterr().out
    assert digests(stopped) == digests(whole)


def test_a_run_that_is_stopped_at_its_first_step_is_continued(
    pipeline, tmp_path, monkeypatch, open_head
):
    out = tmp_path / "made"

    def break_down(ws, config):
        open_head.save(ws.stage_dir("head_model") / "head_model.npz")
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(generating.head_model, "run", break_down)
        assert generate(pipeline, out, 1) == 130
    monkeypatch.setattr(
        generating.head_model,
        "run",
        lambda ws, config: [
            open_head.save(ws.stage_dir("head_model") / name)
            for name in ("head_model.npz", "shard-image.npz")
        ],
    )
    assert generate(pipeline, out, 1) == 0
    # killed while the first file of all was written
    other = tmp_path / "other"
    other.mkdir()
    (other / ".tmp-generated.json").write_text("{")
    assert generate(pipeline, other, 1) == 0
    assert digests(out) == digests(other)
    assert not list(other.glob(".tmp-*"))


def test_what_a_lost_worker_left_is_removed(pipeline, tmp_path, monkeypatch):
    out, make = tmp_path / "made", generating.make_shards

    def losing(*arguments):
        yield from make(*arguments)
        temporary_path(out / "data" / "generated" / "shard-00000.tar").write_bytes(b"half")

    monkeypatch.setattr(generating, "make_shards", losing)
    assert generate(pipeline, out, 1) == 0
    assert not list(out.rglob(".tmp-*"))


def test_members_are_those_that_were_asked_for_and_no_name_is_planted(pipeline, tmp_path):
    out = tmp_path / "made"
    assert generate(pipeline, out, 2, "--uv", "--instances", "--seed", "9") == 0
    # The command line repeats the names, since it imports nothing.
    every = tmp_path / "every"
    assert generate(pipeline, every, 1, *(f"--{name}" for name in MAPS)) == 0
    assert json.loads((every / "generated.json").read_text())["images"]["dense"] == list(MAPS)
    with ShardReader(out / "data" / "images" / "shard-00000.tar") as reader:
        assert len(reader.keys()) == 2
        heads = reader.read_json(reader.keys()[0])
        assert heads["width"] == 64
        described = json.loads(reader.read(reader.keys()[0], "heads.json"))
        assert len(described["heads"]) >= 1
        assert reader.read(reader.keys()[0], "dense.npz")[:2] == b"PK"
    assert len(read_table(out / "data" / "truth" / "shard-00000.parquet", TRUTH)) >= 1
    assert "uv, instances" in (out / "README.md").read_text()
    assert json.loads((out / "generated.json").read_text())["seed"] == 9


def test_a_folder_grows_and_is_never_mixed(pipeline, tmp_path, capsys):
    out = tmp_path / "made"
    assert generate(pipeline, out, 2) == 0
    before = digests(out)
    assert generate(pipeline, out, 3) == 0
    after = digests(out)
    assert before.items() <= after.items()
    assert len(after) > len(before)
    capsys.readouterr()
    assert generate(pipeline, out, 3, "--depth") == 2
    assert "other values of images.dense; name another folder" in capsys.readouterr().err
    assert generate(pipeline, out, 3, "--seed", "4") == 2
    assert "other values of seed" in capsys.readouterr().err
    assert digests(out) == after
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    assert generate(pipeline, tmp_path / "mine", 1) == 2
    assert "not made by `vggheads generate`" in capsys.readouterr().err


def test_a_world_is_laid_over_the_profile(pipeline, tmp_path, capsys):
    world = tmp_path / "world.yaml"
    world.write_text("poses: {any_yaw_fraction: 0.5}\nimages: {renderer: {supersampling: 1}}\n")
    out = tmp_path / "made"
    assert generate(pipeline, out, 1, "--world", str(world)) == 0
    made = json.loads((out / "generated.json").read_text())
    assert made["poses"]["any_yaw_fraction"] == 0.5
    assert made["images"]["renderer"]["supersampling"] == 1
    assert made["images"]["max_drop_rate"] == 1.0
    for text, message in (
        ("labels: {}", "expected sections captions, images, poses, got labels"),
        ("poses: {any_yaw: 1}", "any_yaw"),
        ("poses: [", "world.yaml"),
        ("- 1", "expected sections, got list"),
    ):
        world.write_text(text)
        assert generate(pipeline, tmp_path / "other", 1, "--world", str(world)) == 2
        error = capsys.readouterr().err
        assert message in error
        assert "Traceback" not in error


def test_a_detector_is_measured_on_all_images_of_a_folder(
    pipeline, tmp_path, monkeypatch, capsys, open_head
):
    out, model = tmp_path / "made", tmp_path / "model"
    assert main(["evaluate", str(out), "--model", str(model)], pipeline) == 2
    assert "made: no such file or folder" in capsys.readouterr().err
    out.mkdir()
    model.mkdir()
    assert main(["evaluate", str(out), "--model", str(model)], pipeline) == 2
    assert "no generated.json" in capsys.readouterr().err
    assert generate(pipeline, out, 3) == 0
    assert main(["evaluate", str(out), "--model", str(model)], pipeline) == 2
    error = capsys.readouterr().err
    assert str(model) in error
    assert "Traceback" not in error
    trained_with = {"head_model_sha256": "0000"}
    monkeypatch.setattr(
        generating, "load_detector", lambda path: SimpleNamespace(description=trained_with)
    )
    assert main(["evaluate", str(out), "--model", str(model)], pipeline) == 2
    assert "their coefficients cannot be compared" in capsys.readouterr().err
    trained_with["head_model_sha256"] = open_head.sha256

    class SeesNothing:
        def predict(self, images, *more):
            return [Heads.empty() for _ in images]

    asked = []
    monkeypatch.setattr(
        generating.benchmark, "_load", lambda folder: asked.append(folder) or SeesNothing()
    )
    pages = ["evaluate", str(out), "--model", str(model), "--name", "blind"]
    assert main(pages, pipeline) == 0
    assert "3 images; report:" in capsys.readouterr().out
    assert asked == [model]
    metrics = json.loads((out / "data" / "blind" / "metrics.json").read_text())
    truth = [len(read_table(path, TRUTH)) for path in (out / "data" / "truth").glob("*.parquet")]
    assert metrics["model.recall"] == 0.0
    assert 0 < metrics["model.num_heads"] <= sum(truth)
    assert "vggheads evaluate" in (out / "data" / "blind" / "report.md").read_text()


def world_of(name):
    if name == "demo":
        return effective("demo")
    values = parse_yaml((ROOT / "conf" / "worlds" / f"{name}.yaml").read_text())
    assert {"poses", "captions", "images"} == set(values)
    return values


@pytest.mark.parametrize("name", ["demo", "any_view"])
def test_a_committed_world_shows_people_from_every_side(name):
    values = world_of(name)
    read_config(CaptionsConfig, "captions", values["captions"])
    read_config(ImagesConfig, "images", values["images"])
    config = read_config(PosesConfig, "poses", values["poses"])
    people, turned = [], []
    for index in range(400):
        pose = sample_pose(f"pose-00000-{index:05d}", 11, config)
        people.append(len(pose.people))
        rotations = np.stack([np.asarray(person.head_rotation) for person in pose.people])
        turned += list(turn_deg(rotations))
    assert 2.0 <= np.mean(people) <= 2.4
    assert np.mean(np.array(turned) > 60.0) >= 0.23
    assert np.mean(np.array(turned) > 90.0) >= 0.08
    layouts = {name: v for name, v in config if name.startswith("fraction_")}
    assert layouts["fraction_group"] + layouts["fraction_scattered"] >= 0.3 * sum(layouts.values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--images", "0"], "--images: expected at least 1, got 0"),
        (["--images", "1", "--size", "wide"], "expected S or WIDTHxHEIGHT in pixels, got 'wide'"),
        (["--images", "1", "--size", "640x500"], "height"),
        (["--images", "1", "--size", "4096"], "width"),
    ],
)
def test_what_cannot_be_made_is_said_before_anything_is_written(
    pipeline, tmp_path, capsys, arguments, message
):
    out = tmp_path / "made"
    assert main(["generate", "--output", str(out), *arguments], pipeline) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not out.exists()
