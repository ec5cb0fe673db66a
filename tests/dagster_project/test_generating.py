"""`vggheads generate`: a folder of rendered images, resumed, grown, and never mixed up."""

from __future__ import annotations

import hashlib
import json
from types import SimpleNamespace

import pytest

from dagster_project import generating
from dagster_project.cli import main
from dagster_project.pipeline import Pipeline
from ml.captions.config import CaptionsConfig
from ml.generation.config import ImagesConfig
from ml.poses.config import PosesConfig
from ml.records.shards import ShardReader
from ml.records.tables import TRUTH, read_table
from ml.stages.head_model import HeadModelConfig

STAGES = {
    "head_model": HeadModelConfig,
    "poses": PosesConfig,
    "captions": CaptionsConfig,
    "images": ImagesConfig,
}
RUN = "run: {profile: test, seed: 3, num_shards: 1, shard_size: 1, workers: 1, threads: 1}\n"
VALUES = (
    "head_model: {}\nposes: {}\ncaptions: {name_probability: 1.0}\nimages: {max_drop_rate: 1.0}\n"
)


@pytest.fixture
def pipeline(tmp_path, monkeypatch, procedural_head):
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "params.yaml").write_text(RUN + VALUES)
    monkeypatch.setattr(generating, "SHARD_SIZE", 2)
    # The head model takes longer than the images.
    monkeypatch.setattr(
        generating.head_model,
        "run",
        lambda ws, config: procedural_head.save(ws.stage_dir("head_model") / "head_model.npz"),
    )
    stages = {
        name: SimpleNamespace(name=name, config_class=lambda c=config: c)
        for name, config in STAGES.items()
    }
    return Pipeline(tmp_path / "project", stages)


def generate(pipeline, out, images, *more):
    return main(
        ["generate", "--images", str(images), "--size", "64", "--out", str(out), *more], pipeline
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
    assert "run again to go on" in capsys.readouterr().err
    assert sorted(p.name for p in (stopped / "data" / "images").glob("*.tar")) == [
        "shard-00000.tar"
    ]
    capsys.readouterr()
    assert generate(pipeline, stopped, 3, "--depth") == 0
    assert "1 of them made now" in capsys.readouterr().out
    assert digests(stopped) == digests(whole)


def test_members_are_those_that_were_asked_for_and_no_name_is_planted(pipeline, tmp_path):
    out = tmp_path / "made"
    assert generate(pipeline, out, 2, "--uv", "--instances", "--seed", "9") == 0
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
    assert main(["generate", "--out", str(out), *arguments], pipeline) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not out.exists()
