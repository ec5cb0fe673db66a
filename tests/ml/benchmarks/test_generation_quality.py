import io
import json
import tarfile

import numpy as np
import pytest
import torch

from ml.benchmarks.feature_statistics import Moments, frechet_distance
from ml.benchmarks.generation_quality import (
    Measuring,
    compare_sets,
    encoded_images,
    generation_scores,
    image_statistics,
)
from ml.imaging.io import encode_png
from ml.records.exclusions import Exclusions


class TinyNetwork:
    """The interface of the Inception network, on 8 px, with random weights."""

    feature_sizes = (4, 16)

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.weights = {n: torch.randn(192, n, generator=generator) for n in (4, 16, 5)}
        self.calls = []

    def __call__(self, images):
        self.calls.append(len(images))
        flat = images.reshape(len(images), -1) / 14
        return {n: flat @ self.weights[n] for n in (4, 16)}, flat @ self.weights[5]


def images(count, seed=0, low=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(low, 256, (rng.integers(5, 20), 9, 3), np.uint8) for _ in range(count)]


def write_folder(folder, images):
    for i, image in enumerate(images):
        path = folder / f"{i % 3}" / f"{i:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_png(image))
    return folder


def write_tar(path, images):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for i, image in enumerate(images):
            for ending, data in (("png", encode_png(image)), ("json", b"{}")):
                info = tarfile.TarInfo(f"image-{i:05d}.{ending}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return path


def measuring(**options):
    return Measuring(TinyNetwork(), sizes=(4, 16), side=8, batch_size=6, **options)


def test_a_set_against_itself_and_against_another(tmp_path):
    same = write_folder(tmp_path / "a", images(40))
    other = write_folder(tmp_path / "b", images(40, seed=1, low=120))
    scores = compare_sets([("same", same), ("other", other)], same, measuring())
    assert scores["same"].metrics["fid_16"] == pytest.approx(0, abs=1e-9)
    assert scores["other"].metrics["fid_16"] > 1
    assert scores["other"].metrics["fid_4"] > 0.1
    assert scores["other"].metrics["kid"] > scores["same"].metrics["kid"]
    assert scores["other"].metrics["inception_score"] >= 1
    assert scores["same"].counts == {
        "num_images": 40,
        "num_reference_images": 40,
        "num_excluded": 0,
    }


def test_statistics_are_those_of_all_features_at_once(tmp_path):
    folder = write_folder(tmp_path / "a", images(20))
    how = measuring()
    streamed = image_statistics(folder, how)
    assert how.network.calls == [6, 6, 6, 2]
    from ml.benchmarks.inception import prepare
    from ml.imaging.io import decode_image

    stack = torch.stack([prepare(decode_image(p), 8) for p in sorted(folder.rglob("*.png"))])
    features = how.network(stack)[0][16].numpy().astype(float)
    np.testing.assert_allclose(streamed.moments[16].mean, features.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(
        streamed.moments[16].covariance, np.cov(features.T), rtol=1e-4, atol=1e-8
    )
    assert frechet_distance(streamed.moments[16], streamed.moments[16]) < 1e-9
    assert isinstance(streamed.moments[4], Moments)


def test_folder_tar_and_folder_of_tars_hold_the_same(tmp_path):
    drawn = images(12)
    folder = write_folder(tmp_path / "f", drawn)
    tar = write_tar(tmp_path / "one.tar", drawn)
    write_tar(tmp_path / "shards" / "shard-00000.tar", drawn[:5])
    write_tar(tmp_path / "shards" / "shard-00001.tar", drawn[5:])
    means = [
        image_statistics(source, measuring()).moments[16].mean
        for source in (folder, tar, tmp_path / "shards")
    ]
    np.testing.assert_allclose(means[1], means[0], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(means[2], means[0], rtol=1e-5, atol=1e-7)
    names = [name for name, _ in encoded_images(tmp_path / "shards", Exclusions("x"))]
    assert names[0] == "shard-00000.tar/image-00000.png"
    assert len(names) == 12


def test_the_first_images_of_the_reference(tmp_path):
    folder = write_folder(tmp_path / "a", images(12))
    statistics = image_statistics(folder, measuring(), limit=7)
    assert statistics.num_images == 7
    assert statistics.moments[4].count == 7
    scores = compare_sets([("a", folder)], folder, measuring(), reference_limit=7)["a"]
    assert scores.counts["num_reference_images"] == 7
    assert scores.counts["num_images"] == 12


def test_same_seed_same_numbers(tmp_path):
    folder = write_folder(tmp_path / "a", images(30))
    other = write_folder(tmp_path / "b", images(30, seed=2))
    runs = [compare_sets([("b", other)], folder, measuring(seed=s))["b"] for s in (1, 1, 2)]
    assert runs[0] == runs[1]
    assert runs[0].metrics["inception_score"] != runs[2].metrics["inception_score"]
    assert runs[0].metrics["fid_16"] == runs[2].metrics["fid_16"]


def test_unreadable_images_are_left_out_and_counted(tmp_path):
    folder = write_folder(tmp_path / "a", images(8))
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n")
    how = measuring()
    statistics = image_statistics(folder, how)
    assert (statistics.num_images, statistics.num_excluded) == (8, 1)
    assert how.exclusions.to_frame().iloc[0]["sample_id"] == "broken.png"
    scores = generation_scores(statistics, statistics)
    assert scores.counts["num_excluded"] == 2
    tar = write_tar(tmp_path / "b.tar", images(8))
    tar.write_bytes(tar.read_bytes()[:-9000])
    how = measuring()
    cut = image_statistics(tar, how)
    assert 0 < cut.num_images < 8
    assert how.exclusions.to_frame()["reason"].tolist() == ["damaged_tar"]


def test_what_cannot_be_measured_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        image_statistics(tmp_path / "absent", measuring())
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no images in this folder"):
        image_statistics(tmp_path / "empty", measuring())
    folder = write_folder(tmp_path / "both", images(2))
    write_tar(folder / "x.tar", images(2))
    with pytest.raises(ValueError, match="holds images and tars"):
        image_statistics(folder, measuring())
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_bytes(b"no")
    with pytest.raises(ValueError, match=r"none of its images can be read \(1 excluded\)"):
        image_statistics(tmp_path / "bad", measuring())
    with pytest.raises(ValueError, match=r"must be of \(4, 16\), got \(64,\)"):
        Measuring(TinyNetwork(), sizes=(64,))


def test_few_images_and_the_papers_form_are_noted(tmp_path):
    statistics = image_statistics(write_folder(tmp_path / "a", images(8)), measuring())
    notes = generation_scores(statistics, statistics).notes
    assert len(notes) == 1
    assert notes[0].startswith("fid_16 of 8 images")


def test_the_command_writes_what_it_prints(tmp_path, monkeypatch, capsys):
    from dagster_project.cli import main
    from ml.benchmarks import inception

    class Placed(TinyNetwork):
        feature_sizes = (64, 2048)

        def to(self, device):
            return self

        def __call__(self, batch):
            batch = batch[:, :, ::40, ::40]
            features, scores = super().__call__(batch)
            return {64: features[4].repeat(1, 16), 2048: features[16].repeat(1, 128)}, scores

    monkeypatch.setattr(inception, "load_inception", lambda path: Placed())
    folder = write_folder(tmp_path / "a", images(4))
    other = write_folder(tmp_path / "b", images(3, seed=1))
    out, weights = tmp_path / "scores.json", tmp_path / "x.pth"
    weights.touch()
    arguments = ["generation-quality", f"ours={other}", str(folder), "--reference", str(folder)]
    arguments += ["--inception", str(weights), "--device", "cpu"]
    arguments += ["--output", str(out), "--sizes", "64"]
    assert main(arguments) == 0
    values = json.loads(out.read_text())
    assert set(values) == {"ours", "a"}
    assert values["a"]["fid_64"] == pytest.approx(0, abs=1e-6)
    assert values["ours"]["num_images"] == 3
    printed = capsys.readouterr().out
    assert "fid_64" in printed
    assert "note: fid_64 is the paper's form" in printed
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == values
