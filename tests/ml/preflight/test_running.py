"""A preflight lists every problem of a profile at once, each with where the right thing is."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from dagster_project.profiles import read_profile
from dagster_project.stages import STAGES
from ml.imaging.io import encode_png
from ml.preflight import needs, running
from ml.preflight.needs import Forward, Need, Part, fits, model_need
from ml.preflight.parts import parts_of
from ml.preflight.report import Problem, Report, Tried
from ml.preflight.running import run_preflight
from ml.records.config import overlay, read_config
from ml.records.models import ModelError, ModelFile
from ml.records.workspace import Workspace
from tests.fixtures.release import release_files, two_archives
from tests.tiny_models.dad import build_dad
from tests.tiny_models.faces import build_scrfd

PROJECT = Path(__file__).parents[3]
RANDOM = {"asset": "random-weights"}


def configs(changes, profile="research_tiny"):
    """Stage -> configuration of a profile with changes."""
    values = overlay(dict(read_profile(PROJECT, profile).values), changes)
    return {
        name: read_config(stage.config_class(), name, values.get(name) or {})
        for name, stage in STAGES.items()
        if name not in ("trained_model", "trained_model_exact")
    }


def ref(path, **values):
    return {"path": str(path), **RANDOM, **values}


@pytest.fixture
def ws(tmp_path):
    return Workspace(tmp_path, seed=1, num_shards=2, shard_size=4)


@pytest.fixture
def whole(tiny_models, tmp_path):
    """Changes of research_tiny after which nothing lacks; models by tiny ones elsewhere."""
    folder = tmp_path / "sources"
    folder.mkdir()
    for number in range(8):
        image = np.random.default_rng(number).integers(0, 255, (160, 128, 3), np.uint8)
        (folder / f"{number}.png").write_bytes(encode_png(image))
    (tmp_path / "labels.json").write_text("{}")
    scrfd = ref(build_scrfd(tmp_path / "scrfd_10g_bnkps.onnx"))
    path = tiny_models.path
    nothing = dict.fromkeys(("flame_file", "landmark_file", "masks_file", "source_asset"))
    return {
        "head_model": {"source": "open", "index_files": (), **nothing},
        "poses": {
            "source": "folder",
            "images": {
                "path": "sources",
                "estimator": {
                    "person_detector": ref(path("person-detector")),
                    "pose_model": ref(path("vitpose")),
                },
                "describer": {"model": ref(path("blip-vqa"))},
            },
        },
        "captions": {"gliner": {"model": ref(path("gliner")), "encoder": ref(path("deberta-v3"))}},
        "images": {
            "diffusion": {
                "base": ref(path("sdxl")),
                "conditioner": ref(path("t2i-adapter")),
            }
        },
        "labels": {"file": "labels.json"},
        "head_detector": {"pretrained": {"model": ref(path("person-detector"))}},
        "annotations": {"regressor": {"model": ref(build_dad(tmp_path / "dad_3dheads.trcd"))}},
        "filtered_dataset": {
            "face_check": {"model": scrfd},
            "safety": {
                "clip": {"model": ref(path("safety-checker"))},
                "classifier": {"model": ref(path("vit-classifier"))},
            },
            "identity": {"index": ""},
        },
    }


def plant(changes, place, value):
    """Put a value at a dotted place of the changes."""
    *parents, last = place.split(".")
    for key in parents:
        changes = changes.setdefault(key, {})
    changes[last] = value


def test_a_whole_profile_has_no_problem_and_every_model_computes(ws, whole):
    report = run_preflight(ws, configs(whole))
    assert [str(problem) for problem in report.problems] == []
    assert [tried.place for tried in report.tried] == [
        "poses.images.estimator",
        "poses.images.describer",
        "captions.gliner",
        "images.diffusion",
        "head_detector.pretrained",
        "annotations.regressor",
        "filtered_dataset.face_check",
        "filtered_dataset.safety.clip",
        "filtered_dataset.safety.classifier",
    ]
    assert all(tried.seconds > 0 for tried in report.tried)
    assert report.measured()["images"]["bytes_per_image"] > 1000
    assert report.disk.needed_bytes == 8 * report.disk.bytes_per_image


def test_nine_planted_problems_are_nine_lines(ws, whole, tiny_models, tmp_path):
    (tmp_path / "none").mkdir()
    (tmp_path / "garbage.trcd").write_bytes(b"PK not TorchScript")
    images = "poses.images"
    plant(whole, f"{images}.path", "none")
    plant(
        whole,
        f"{images}.estimator.pose_model",
        {"path": str(tiny_models.path("vitpose")), "asset": "vitpose", "sha256": "0" * 64},
    )
    plant(whole, f"{images}.describer.model", {"path": "models/blip", "asset": "blip-vqa"})
    plant(whole, "captions.gliner.encoder", None)
    plant(whole, "images.diffusion.base", ref(tiny_models.path("sdxl"), variant="bf16"))
    plant(whole, "labels.file", "labels/heads.json")
    plant(whole, "head_detector.pretrained.model", ref(tiny_models.path("vit-classifier")))
    plant(whole, "annotations.regressor.model", {"path": "garbage.trcd", "asset": "dad-3dnet"})
    plant(whole, "filtered_dataset.face_check.model",
          {"path": "scrfd_10g_bnkps.onnx", "asset": "nobody-s-net"})  # fmt: skip
    report = run_preflight(ws, configs(whole))
    lines = [str(problem) for problem in report.problems]
    expected = [
        ("poses: poses.images.path", "the folder has 0", ""),
        ("poses: poses.images.estimator.pose_model", "has sha256", "usyd-community/vitpose"),
        ("poses: poses.images.describer.model", "nothing at", "Salesforce/blip-vqa-base"),
        ("captions: captions.gliner", "no tokenizer", ""),
        ("images: images.diffusion", "no weights of variant 'bf16'", ""),
        ("labels: labels.file", "no file", "vggheads label-export"),
        ("head_detector: head_detector.pretrained", "holds a 'vit'", ""),
        ("annotations: annotations.regressor", "not a TorchScript file", "132.7 MB"),
        ("filtered_dataset: filtered_dataset.face_check.model", "'nobody-s-net' is unknown", ""),
    ]
    assert len(lines) == 9, "\n".join(lines)
    for line, (start, problem, get) in zip(lines, expected, strict=True):
        assert line.startswith(f"{start}: "), line
        assert problem in line, line
        assert get in line, line
        assert "\n" not in line


def test_a_disk_with_too_little_room_is_a_problem_of_its_own(ws, tiny_models, monkeypatch):
    asked = {"images": configs({"images": {"diffusion": {
        "base": ref(tiny_models.path("sdxl")), "conditioner": ref(tiny_models.path("t2i-adapter")),
    }}})["images"]}  # fmt: skip
    needed = run_preflight(ws, asked).disk.needed_bytes
    for free, lines in ((needed, 0), (needed - 1, 1)):
        room = SimpleNamespace(free=free)
        monkeypatch.setattr("ml.preflight.running.shutil.disk_usage", lambda _, room=room: room)
        report = run_preflight(ws, asked)
        assert len(report.problems) == lines
    assert "8 images need about" in str(report.problems[0])
    assert "make fewer shards, or make room" in str(report.problems[0])


def test_flame_s_files_are_each_named_with_their_page(ws):
    made = configs({}, "research")
    report = run_preflight(ws, {"head_model": made["head_model"]})
    assert [problem.place for problem in report.problems] == [
        "head_model.flame_file",
        "head_model.landmark_file",
        "head_model.masks_file",
        "head_model.index_files[0]",
        "head_model.index_files[1]",
        "head_model.index_files[2]",
    ]
    assert "generic_model.pkl (53.0 MB) from https://flame.is" in str(report.problems[0])


def test_a_release_s_folders_and_tars_are_each_looked_into(ws, tmp_path):
    stage = "released_dataset"

    def given(profile, **changes):
        section = read_profile(PROJECT, profile).values[stage]
        return {stage: read_config(STAGES[stage].config_class(), stage, {**section, **changes})}

    two_archives(release_files(tmp_path / "drawn"), tmp_path / "mirror")
    (tmp_path / "other.tar").write_bytes(b"no tar" * 200)
    (tmp_path / "empty").mkdir()
    sources = ["mirror", "other.tar", "sources/VGGHeads", "empty"]
    report = run_preflight(ws, given("official", sources=sources))
    lines = [str(problem) for problem in report.problems]
    expected = ["other.tar: not a readable tar", "sources/VGGHeads: no such folder or tar",
                "empty: no folder split_00000 in it"]  # fmt: skip
    assert len(lines) == 3, lines
    for number, (line, problem) in enumerate(zip(lines, expected, strict=True), start=1):
        assert line.startswith(f"{stage}: {stage}.sources[{number}]: "), line
        assert problem in line, line
        assert "VGGHeads.tar (187 GB)" in line, line
    (found,) = report.found
    assert found["first file"].startswith("VGGHeads/large/split_00000/images/")
    (problem,) = run_preflight(ws, given("finetune")).problems
    assert "vggheads fine-tune" in problem.get
    assert parts_of(ws, given("official", enabled=False)) == []


@pytest.mark.parametrize("asset", [None, "my-heads"])
def test_what_has_no_licence_in_the_register_is_a_problem(ws, whole, asset):
    with pytest.raises(ModelError, match=r"head_model\.source_asset is .*nothing says under which"):
        needs.stated(asset, "head_model.source_asset")
    assert needs.stated("celeba", "x")["licence"].startswith("non-commercial")
    plant(whole, "poses.images.asset", asset or "")
    problems = run_preflight(ws, {"poses": configs(whole)["poses"]}).problems
    assert [problem.place for problem in problems] == ["poses.images.path"]
    assert "poses.images.asset is" in problems[0].problem


def test_a_profile_that_makes_everything_needs_the_open_head_s_data_only(ws):
    (part,) = parts_of(ws, configs({}, "demo"))
    assert [need.place for need in part.needs] == ["head_model.source"]


def look_at(ws, monkeypatch, part):
    monkeypatch.setattr(running, "parts_of", lambda ws, configs: [part])
    return run_preflight(ws, {})


def test_a_device_that_is_not_here_is_one_problem(ws, monkeypatch):
    monkeypatch.setattr(needs.torch.cuda, "is_available", lambda: False)
    part = Part("images", "images.diffusion", [Need("p", dict)], lambda: Forward(1.0), "cuda")
    (problem,) = look_at(ws, monkeypatch, part).problems
    assert problem.place == "images.diffusion.device"
    assert "torch sees no GPU here" in problem.problem


def test_face_models_are_tried_on_the_device_of_their_stage(ws):
    asked = configs({"filtered_dataset": {"device": "cuda"}})
    parts = {part.place: part.device for part in parts_of(ws, asked)}
    assert parts["filtered_dataset.face_check"] == parts["filtered_dataset.identity"] == "cuda"
    assert parts["filtered_dataset.safety.clip"] == "cpu"


def test_too_little_memory_in_the_forward_is_a_problem_of_its_part(ws, monkeypatch):
    def forward():
        raise RuntimeError("CUDA out of memory.\nTried to allocate 20 GiB")

    (problem,) = look_at(ws, monkeypatch, Part("images", "images.diffusion", (), forward)).problems
    assert str(problem) == (
        "images: images.diffusion: CUDA out of memory. Tried to allocate 20 GiB"
    )


def test_weights_larger_than_the_memory_are_refused_unread(ws, tmp_path, monkeypatch):
    (tmp_path / "net.onnx").write_bytes(b"12345678901")
    model = ModelFile(path="net.onnx", asset="yunet").resolve(tmp_path)
    fits(model, "cpu")
    monkeypatch.setattr(needs, "memory_bytes", lambda device: 10)
    with pytest.raises(ModelError, match=r"its weights are 0\.0 GB, cpu has 0\.0 GB"):
        fits(model, "cpu")
    (need,) = model_need("x", model.ref, tmp_path)
    with pytest.raises(ModelError):
        need.check()


def test_a_disk_that_is_too_small_for_the_plan_is_a_problem(ws, monkeypatch):
    part = Part("images", "images.diffusion", (), lambda: Forward(0.5, 10**15))
    (problem,) = look_at(ws, monkeypatch, part).problems
    assert problem.place == "run.num_shards"
    assert "8 images need about 8,000,000.0 GB" in problem.problem.replace("8000000", "8,000,000")


def test_forwards_of_a_stage_add_up_for_the_plan():
    report = Report(
        problems=[Problem("a", "a.b", "gone", "get it")],
        tried=[Tried("poses", "p", 0.5, "cuda"), Tried("poses", "d", 0.25, "cuda"),
               Tried("images", "i", 2.0, "cuda", 300)],
    )  # fmt: skip
    assert report.measured() == {
        "poses": {"seconds_per_image": 0.75, "device": "cuda", "batch": 1},
        "images": {
            "seconds_per_image": 2.0, "device": "cuda", "batch": 1, "bytes_per_image": 300
        },
    }  # fmt: skip
    assert report.as_dict()["problems"] == [
        {"stage": "a", "place": "a.b", "problem": "gone", "get": "get it"}
    ]
