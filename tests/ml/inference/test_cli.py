"""The commands, from arguments to files; unusable input is refused and no code executed."""

from __future__ import annotations

import argparse
import json
import os
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import trimesh

import ml.flame.open_head as open_head_module
from ml.flame.head_model import HeadModel
from ml.imaging.io import decode_image, encode_png
from ml.inference import cli
from ml.inference.detector import HeadDetector
from ml.inference.loading import load_detector, read_detector, save_detector
from ml.inference.runtimes import UnusableModel
from ml.inference.videos import read_frames
from ml.model.detector import HeadDetectorNetwork
from ml.model.postprocess import PostprocessConfig, suppression_inputs
from tests.ml.inference.conftest import SIZE, noise_image


def run(*words: object) -> int:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(required=True)

    def add(name: str, function: cli.Run, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text)
        sub.set_defaults(run=function)
        return sub

    cli.add_commands(add)
    options = parser.parse_args([str(word) for word in words])
    return int(options.run(options))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    for index, name in enumerate(("one.png", "one.webp", "deep/two.png")):
        image = noise_image(index, 80, 120)
        data = encode_png(image)
        if name.endswith("webp"):
            data = cv2.imencode(".webp", image)[1].tobytes()
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture
def checkpoint(project: Path) -> Path:
    return project / "trained_model"


def test_predict_writes_drawings_meshes_and_json(
    images: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = ["--checkpoint", checkpoint, "--output", out, "--device", "cpu"]
    asked = ["--draw", "--meshes", "--pncc", "--crops", 40]
    assert run("predict", images, *asked, *arguments) == 0
    folders = [out / name for name in ("one", "one-2", "deep/two")]
    for folder in folders:
        heads = json.loads((folder / "heads.json").read_text())["heads"]
        assert len(heads) > 0
        assert decode_image(folder / "drawing.jpg").shape == (80, 120, 3)
        assert decode_image(folder / "pncc.png").shape == (80, 120, 3)
        for index in range(len(heads)):
            assert decode_image(folder / f"head_{index}.jpg").shape == (40, 40, 3)
            for form in ("obj", "glb"):
                mesh = trimesh.load(folder / f"head_{index}.{form}", force="mesh", process=False)
                assert mesh.vertices.shape == (5023, 3)
    coco = json.loads((out / "coco.json").read_text())
    assert len(coco["images"]) == 3
    assert f"{len(coco['annotations'])} heads in 3 images" in capsys.readouterr().out
    assert not (out / "excluded.csv").exists()


def test_predict_writes_numbers_alone_unless_asked(
    images: Path, checkpoint: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert run("predict", images / "one.png", "--checkpoint", checkpoint, "--output", out) == 0
    assert [path.name for path in (out / "one").iterdir()] == ["heads.json"]
    assert json.loads((out / "one" / "heads.json").read_text())["heads"]
    assert (out / "coco.json").is_file()


def test_predict_goes_on_after_a_broken_image_and_says_so(
    images: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (images / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    out = tmp_path / "out"
    sources = [images / "broken.jpg", images / "one.png"]
    arguments = ["--checkpoint", checkpoint, "--output", out, "--draw", "bbox"]
    assert run("predict", *sources, *arguments) == 1
    said = capsys.readouterr().out
    assert f"in 1 image, 1 not readable (see {out / 'excluded.csv'})" in said
    assert "JPEG is truncated" in (out / "excluded.csv").read_text()
    assert sorted(p.name for p in (out / "one").iterdir()) == ["drawing.jpg", "heads.json"]


def test_predict_writes_a_video(checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 5, (96, 64))
    for seed in range(3):
        writer.write(noise_image(seed, 64, 96))
    writer.release()
    out = tmp_path / "out"
    arguments = ["--checkpoint", checkpoint, "--output", out, "--draw", "bbox"]
    assert run("predict", path, *arguments) == 0
    lines = (out / "clip" / "heads.jsonl").read_text().splitlines()
    assert [json.loads(line)["image"]["name"] for line in lines] == [
        f"{path}#{n:05d}" for n in range(3)
    ]
    assert [json.loads(line)["image"]["time_s"] for line in lines] == [0.0, 0.2, 0.4]
    drawn = list(read_frames(out / "clip" / "drawing.mp4", pytest.fail))
    assert [frame.time_s for frame in drawn] == pytest.approx([0.0, 0.2, 0.4], abs=1e-3)
    assert sorted(p.name for p in (out / "clip").iterdir()) == ["drawing.mp4", "heads.jsonl"]


def test_a_second_run_replaces_the_first_and_touches_nothing_else(
    images: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = images / "predictions"
    arguments = ["--checkpoint", checkpoint, "--output", out, "--meshes", "obj", "--crops", 40]
    (images / "broken.jpg").write_bytes(b"\xff\xd8")
    assert run("predict", images, *arguments, "--score", 0.25) == 1
    first = {p for p in out.rglob("head_*") if p.is_file()}
    (out / "one" / "mine.txt").write_text("kept")
    (out / "own").mkdir()
    (out / "own" / "heads.json").write_text("{}")
    (images / "broken.jpg").unlink()
    (images / "one.webp").unlink()
    assert run("predict", images, *arguments, "--score", 0.95) == 0
    # Its own drawings were not read, and nothing of the first run stands beside the second's.
    assert "in 2 images" in capsys.readouterr().out.splitlines()[-1]
    assert {p for p in out.rglob("head_*") if p.is_file()} < first
    assert not (out / "one-2").exists()
    assert not (out / "excluded.csv").exists()
    assert (out / "one" / "mine.txt").read_text() == "kept"
    assert (out / "own" / "heads.json").exists()


def test_a_video_that_breaks_off_is_an_exclusion_and_the_rest_goes_on(
    images: Path, checkpoint: Path, tmp_path: Path
) -> None:
    clip = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter.fourcc(*"MJPG"), 5, (96, 64))
    for seed in range(6):
        writer.write(noise_image(seed, 64, 96))
    writer.release()
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    (tmp_path / "no.mp4").write_bytes(b"no video")
    out = tmp_path / "out"
    arguments = ["--checkpoint", checkpoint, "--output", out, "--draw", "bbox"]
    assert run("predict", tmp_path / "no.mp4", clip, images / "one.png", *arguments) == 1
    excluded = (out / "excluded.csv").read_text()
    assert "no.mp4" in excluded
    assert "clip.avi#damage-0,predict,damaged_video" in excluded
    assert len((out / "clip" / "heads.jsonl").read_text().splitlines()) in (2, 3)
    assert (out / "one" / "drawing.jpg").exists()


def test_what_is_no_source_or_no_folder_is_told_at_once(
    images: Path, checkpoint: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("x")
    os.mkfifo(tmp_path / "pipe.jpg")
    for source, options, message in (
        ("-", (), "the standard input is not read"),
        ("ftp://example.org/a.jpg", (), "s3://, https:// and http:// are read; download it first"),
        ("s3:///a.jpg", (), "expected s3://NAME"),
        (images, ("--output", tmp_path / "file"), "is a file; name a folder"),
        (images, ("--output", images), "is in the output folder"),
        (images / "one.png", ("--output", tmp_path), "is in the output folder"),
    ):
        with pytest.raises(ValueError, match=message):
            run("predict", source, "--checkpoint", checkpoint, *options)
    out = tmp_path / "out"
    assert run("predict", tmp_path / "pipe.jpg", "--checkpoint", checkpoint, "--output", out) == 1
    assert "named pipe" in (out / "excluded.csv").read_text()


def test_names_with_colons_and_percent_signs(checkpoint: Path, tmp_path: Path) -> None:
    for name in ("a:b.png", "100%03d.png", "c: d#?.png"):
        (tmp_path / name).write_bytes(encode_png(noise_image(1, 64, 64)))
    out = tmp_path / "out:1"
    assert run("predict", *sorted(tmp_path.glob("*.png")), "--checkpoint", checkpoint, "--output",
               out, "--draw", "bbox") == 0  # fmt: skip
    assert sorted(p.name for p in out.iterdir() if p.is_dir()) == ["100%03d", "a:b", "c: d#?"]


def test_predict_names_a_missing_source(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no such file or folder: .*nowhere"):
        run("predict", tmp_path / "nowhere", "--checkpoint", checkpoint)


@pytest.mark.parametrize("name", ["model.onnx", "model.trcd", "folder"])
def test_exports_give_the_same_heads(checkpoint: Path, tmp_path: Path, project: Path, name: str):
    output = tmp_path / name
    assert run("export", output, "--checkpoint", checkpoint) == 0
    runtime = "onnxruntime" if name.endswith("onnx") else "torch"
    model = project / "head_model" / "head_model.npz"
    found = HeadDetector(output, model, device="cpu", runtime=runtime)
    original = HeadDetector(checkpoint, device="cpu")
    assert found.description["training"]["epochs"] == 3
    assert found.postprocessing == original.postprocessing
    for seed in (1, 2):
        wanted, result = original(noise_image(seed)), found(noise_image(seed))
        assert len(result) == len(wanted) > 0
        np.testing.assert_allclose(result.heads.scores, wanted.heads.scores, atol=1e-4)
        np.testing.assert_allclose(result.heads.flame, wanted.heads.flame, rtol=2e-3, atol=2e-2)
    if name == "folder":
        assert sum(p.stat().st_size for p in output.iterdir()) < sum(
            p.stat().st_size for p in checkpoint.iterdir()
        )


def test_an_exported_graph_has_the_same_default_threshold(
    network: HeadDetectorNetwork, tmp_path: Path
) -> None:
    """A model for benchmarks stores 0.05; its graph alone shows what `predict` shows."""
    import onnxruntime

    low = PostprocessConfig(score_threshold=0.05, iou_threshold=1.0, max_heads=500)
    save_detector(tmp_path / "model", network, SIZE, low, None, {})
    path = tmp_path / "model.onnx"
    assert run("export", path, "--checkpoint", tmp_path / "model") == 0
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options)
    images = noise_image(5)[None].transpose(0, 3, 1, 2)
    scores = session.run(["scores"], {"images": images})[0]
    everything = session.run(["scores"], {"images": images, **suppression_inputs(low)})[0]
    between = (everything >= 0.05) & (everything < 0.3)
    assert 0 < between.sum() < len(everything)
    assert scores.min() >= 0.3
    assert len(scores) == len(everything) - between.sum()
    # What the model stores is kept, for average precision.
    loaded = load_detector(path, runtime="onnxruntime")
    assert loaded.postprocessing == low
    assert len(loaded.predict([noise_image(5)])[0]) == len(everything)


def test_export_does_not_overwrite_its_source(checkpoint: Path) -> None:
    with pytest.raises(ValueError, match="is the checkpoint itself"):
        run("export", checkpoint, "--checkpoint", checkpoint)


def test_weights_are_imported_once_and_then_load(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("export", tmp_path / "model.trcd", "--checkpoint", checkpoint)
    assert run("import-weights", tmp_path / "model.trcd", tmp_path / "imported") == 0
    assert "detector of size nano" in capsys.readouterr().out
    first, second = (read_detector(tmp_path / name) for name in ("model.trcd", "imported"))
    assert first.description == second.description
    state, other = first.network.state_dict(), second.network.state_dict()
    assert all(torch.equal(state[name], other[name]) for name in state)


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return (open, (str(self.target), "w"))


@pytest.mark.parametrize("name", ["evil.pth", "evil.trcd", "evil.pt"])
@pytest.mark.parametrize("inside_zip", [True, False])
def test_a_malicious_checkpoint_is_refused_everywhere(
    tmp_path: Path, name: str, inside_zip: bool
) -> None:
    target, path = tmp_path / "executed", tmp_path / name
    (tmp_path / "photo.jpg").touch()
    if inside_zip:
        torch.save({"net": {"w": torch.zeros(3)}, "more": Bomb(target)}, path)
    else:
        path.write_bytes(pickle.dumps(Bomb(target)))
    for command in (
        ("import-weights", path, tmp_path / "out"),
        ("export", tmp_path / "out.onnx", "--checkpoint", path),
        ("predict", tmp_path, "--checkpoint", path),
    ):
        with pytest.raises(UnusableModel, match=name):
            run(*command)
    assert not target.exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_bytes(b""), "expected a zip archive"),
        (lambda path: path.write_bytes(b"PK\x03\x04" + bytes(500)), "expected a zip archive"),
        (lambda path: torch.save({"net": {"w": torch.zeros(3)}}, path), "size S, M or L, got"),
    ],
)
def test_unusable_checkpoints_are_named(tmp_path: Path, make, message: str) -> None:
    path = tmp_path / "weights.pth"
    make(path)
    with pytest.raises(UnusableModel, match=message):
        run("import-weights", path, tmp_path / "out")


def test_weights_without_their_folder_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"anything")
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(UnusableModel, match=r"expected the folder with config.json and model"):
        run("predict", tmp_path, "--checkpoint", path)


def test_unusable_onnx_files_are_named(checkpoint: Path, tmp_path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper

    path = tmp_path / "model.onnx"
    (tmp_path / "photo.jpg").touch()
    arguments = ("--checkpoint", path, "--runtime", "onnxruntime")
    with pytest.raises(UnusableModel, match=r"model.onnx: no such file"):
        run("predict", tmp_path, *arguments)
    run("export", path, "--checkpoint", checkpoint)
    whole = path.read_bytes()
    with pytest.raises(ValueError, match="an ONNX file needs runtime 'onnxruntime'"):
        run("predict", tmp_path, "--checkpoint", path)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UnusableModel, match=r"model.onnx: damaged, or no ONNX model"):
        run("predict", tmp_path, *arguments)
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    other = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [value], [other])
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    with pytest.raises(UnusableModel, match=r"expected the outputs boxes, scores, .* got y"):
        run("predict", tmp_path, *arguments)


@pytest.fixture(scope="module")
def flame_files(open_head: HeadModel, tmp_path_factory) -> tuple[Path, Path]:
    from ml.flame.flame_file import write_flame_pickle

    folder = tmp_path_factory.mktemp("flame")
    write_flame_pickle(open_head, folder / "generic_model.pkl")
    np.savez(
        folder / "landmarks.npz",
        lmk_face_idx=open_head.landmark_faces,
        lmk_b_coords=open_head.landmark_barycentric,
    )
    return folder / "generic_model.pkl", folder / "landmarks.npz"


def test_flame_files_become_a_head_model(flame_files, tmp_path: Path, open_head) -> None:
    model, landmarks = flame_files
    output = tmp_path / "head_model.npz"
    assert run("import-flame", model, "--landmarks", landmarks, "--output", output) == 0
    found = HeadModel.load(output)
    np.testing.assert_allclose(found.v_template, open_head.v_template)
    assert (found.landmark_faces == open_head.landmark_faces).all()


def test_the_open_head_model_is_exported(
    open_head: HeadModel, tmp_path: Path, monkeypatch, capsys
) -> None:
    seeds: list[int] = []

    def build(seed: int) -> HeadModel:
        seeds.append(seed)
        return open_head

    monkeypatch.setattr(open_head_module, "build_open_head", build)
    assert run("export-head-model", tmp_path / "out", "--seed", 3) == 0
    assert seeds == [3]
    assert HeadModel.load(tmp_path / "out" / "head_model.npz").sha256 == open_head.sha256
    assert "CC0 1.0" in (tmp_path / "out" / "LICENCE.md").read_text()
    assert str(tmp_path / "out" / "generic_model.pkl") in capsys.readouterr().out
    assert not list((tmp_path / "out").glob("*.jpg"))


def test_a_malicious_or_damaged_flame_file_is_refused(flame_files, tmp_path: Path) -> None:
    model, landmarks = flame_files
    target, evil = tmp_path / "executed", tmp_path / "evil.pkl"
    output = tmp_path / "head_model.npz"
    cases = [
        (pickle.dumps({"v_template": Bomb(target)}), "evil.pkl"),
        (model.read_bytes()[:100_000], "evil.pkl"),
        (pickle.dumps({"v_template": np.zeros((10, 3))}), "evil.pkl"),
        (b"", "evil.pkl"),
    ]
    for content, message in cases:
        evil.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            run("import-flame", evil, "--landmarks", landmarks, "--output", output)
    with pytest.raises(FileNotFoundError, match=r"none\.pkl"):
        run("import-flame", tmp_path / "none.pkl", "--landmarks", landmarks, "--output", output)
    assert not target.exists()
    assert not output.exists()
