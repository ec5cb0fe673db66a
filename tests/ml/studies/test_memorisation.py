"""Memorisation: names of files, calibration, re-identification, and the whole study, tiny."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch

from ml.imaging.io import encode_jpeg
from ml.records.exclusions import Exclusions
from ml.records.models import ModelRef, require
from ml.studies.diffusion_tuning import TuningOptions, load_text_to_image, tune
from ml.studies.memorisation import (
    MemorisationOptions,
    PhotographedFaces,
    calibrate,
    rate_interval,
    read_faces,
    reidentify,
    run_memorisation,
)
from ml.studies.rafd import read_photographs
from ml.training.tracking import mlflow_run
from tests.tiny_models.diffusion import build_sd15

COLOURS = {"01": (220, 40, 40), "02": (40, 220, 40), "61": (40, 40, 220)}


class ColourReader:
    """Takes an image's mean colour for its face; dark images show none."""

    def read(self, image):
        mean = image.reshape(-1, 3).mean(axis=0).astype(np.float32)
        if mean.max() < 20:
            return np.zeros((0, 0), np.float32)
        return (mean / np.linalg.norm(mean))[None]


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    names = [("090", "neutral", "frontal"), ("045", "happy", "left"), ("180", "sad", "right")]
    for identity, colour in COLOURS.items():
        for camera, emotion, gaze in names:
            image = np.clip(np.array(colour) + rng.normal(0, 4, (40, 32, 3)), 0, 255)
            name = f"Rafd{camera}_{identity}_Caucasian_female_{emotion}_{gaze}.jpg"
            (tmp_path / name).write_bytes(encode_jpeg(image.astype(np.uint8)))
    (tmp_path / "holiday.jpg").write_bytes(b"")
    return tmp_path


def test_names_of_files_say_who_is_seen(folder):
    exclusions = Exclusions("test")
    found = read_photographs(folder, exclusions)
    assert [(one.identity, one.camera) for one in found] == [
        (identity, camera) for identity in COLOURS for camera in (45, 90)
    ]
    assert (found[0].emotion, found[0].gaze) == ("happy", "left")
    assert exclusions.rows()[0]["reason"] == "bad_name"
    with pytest.raises(FileNotFoundError, match="no photographs Rafd"):
        read_photographs(folder / "no", Exclusions("test"))


def faces_at(degrees, identities):
    angles = np.radians(np.array(degrees, float))
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    paths = tuple(f"p{i}" for i in range(len(degrees)))
    return PhotographedFaces(vectors, np.array(identities), paths, paths)


def test_the_threshold_lies_just_above_the_pair_that_must_not_match():
    # pairs of two people: 60, 70, 80 (a with b: 0-70, 0-80, 10-70, 10-80)
    faces = faces_at([0, 10, 70, 80], ["a", "a", "b", "b"])
    strict = calibrate(faces, 0.0)
    assert strict.threshold == pytest.approx(np.cos(np.radians(60)), abs=1e-6)
    assert strict.threshold > np.cos(np.radians(60)) - 1e-9
    assert (strict.false_match_rate, strict.true_match_rate) == (0.0, 1.0)
    assert (strict.num_same, strict.num_different) == (2, 4)
    # one of four may match: the next pair, of 70 degrees, may not
    loose = calibrate(faces, 0.25)
    assert loose.false_match_rate == 0.25
    assert loose.threshold == pytest.approx(np.cos(np.radians(70)), abs=1e-6)
    with pytest.raises(ValueError, match="two people"):
        calibrate(faces_at([0, 10], ["a", "a"]), 0.1)


def test_generated_faces_find_their_nearest_photograph():
    faces = faces_at([0, 10, 70], ["a", "a", "b"])
    near, far = faces_at([12, 35], ["?", "?"]).embeddings
    none = np.zeros((0, 0), np.float32)
    found = reidentify([near[None], none, far[None]], faces, float(np.cos(np.radians(5))))
    assert list(found["face"]) == [True, False, True]
    assert list(found["matched"]) == [True, False, False]
    assert list(found["nearest"]) == [1, -1, 1]
    assert found.loc[0, "similarity"] == pytest.approx(np.cos(np.radians(2)))
    assert found.loc[0, "second"] == pytest.approx(np.cos(np.radians(58)))
    assert found.loc[0, "identity"] == "a"


def test_intervals_of_rates():
    low, high = rate_interval(0, 100)
    assert (low, high) == (pytest.approx(0.0, abs=1e-9), pytest.approx(0.03699, abs=1e-4))
    assert rate_interval(50, 100) == (
        pytest.approx(0.4038, abs=1e-3),
        pytest.approx(0.5962, abs=1e-3),
    )
    assert np.isnan(rate_interval(0, 0)).all()


def describe(images):
    return ["a person in front of a wall"] * len(images)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = build_sd15(tmp_path_factory.mktemp("sd15"))
    ref = ModelRef(path=str(folder), asset="sd-1.5")
    return require(ref, "base", "memorisation", folder)


OPTIONS = TuningOptions("lora", steps=2, batch_size=1, learning_rate=1e-2, rank=2, size=64)


def parameters(pipe):
    state = pipe.unet.state_dict()
    return {name.replace(".base_layer", ""): value.clone() for name, value in state.items()}


@pytest.mark.parametrize("mode", ["lora", "full"])
def test_tuning_changes_what_it_should_and_resumes_exactly(folder, base, tmp_path, mode):
    from dataclasses import replace

    photographs = [one.path for one in read_photographs(folder, Exclusions("test"))]
    texts = describe(photographs)
    options = replace(OPTIONS, mode=mode, save_every=1)
    whole = load_text_to_image(base, "cpu")
    before = parameters(whole)
    losses = tune(whole, photographs, texts, options, tmp_path / "whole.pt")
    after = parameters(whole)
    assert len(losses) == 2
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert bool(changed) is (mode == "full"), "adapters leave the network's own weights alone"
    assert any("lora" in name for name in after) is (mode == "lora")

    halves = load_text_to_image(base, "cpu")
    tune(halves, photographs, texts, replace(options, steps=1), tmp_path / "half.pt")
    again = load_text_to_image(base, "cpu")
    assert tune(again, photographs, texts, options, tmp_path / "half.pt") == losses
    resumed = parameters(again)
    assert all(torch.equal(after[name], resumed[name]) for name in after)


def test_the_whole_study_tells_many_people_from_one(folder, base, tmp_path):
    from dataclasses import replace

    out, opened = tmp_path / "study", []

    def open_run(title, tags):
        opened.append(tags["variant"])
        return mlflow_run(tmp_path / "mlruns", "vggheads", title, tags)

    options = MemorisationOptions(
        replace(OPTIONS, steps=1), images=2, sampling_steps=1, false_match_rate=0.0
    )
    given = (out, read_photographs(folder, Exclusions("t")), base, ColourReader(), describe)
    rates = run_memorisation(*given, options, open_run, Exclusions("test"))
    assert opened == ["many-lora", "many-full", "one-lora", "one-full"]
    assert list(rates["num_people"]) == [3, 3, 1, 1]
    assert list(rates["num_photographs"]) == [6, 6, 2, 2]
    assert (rates["num_images"] == 2).all()
    assert len(list((out / "many-lora" / "images").glob("*.png"))) == 2
    matches = pd.read_csv(out / "one-full" / "matches.csv")
    assert set(matches["identity"].dropna()) <= {1}
    assert "| many | lora | 3 | 6 | 2 |" in (out / "report.md").read_text()
    assert json.loads((out / "one-lora" / "finished.json").read_text())["losses"]
    again = run_memorisation(*given, options, open_run, Exclusions("test"))
    assert not list(out.rglob("*.pt"))
    pd.testing.assert_frame_equal(again, rates)


def test_a_kill_while_images_are_generated_loses_none_of_them(folder, base, tmp_path, monkeypatch):
    """Killed at the second image: the first stays, the rest is what an unbroken run makes."""
    from contextlib import nullcontext
    from dataclasses import replace
    from unittest.mock import MagicMock

    from ml.studies import memorisation

    options = MemorisationOptions(
        replace(OPTIONS, steps=1), images=3, sampling_steps=1, false_match_rate=0.0
    )
    photographs = read_photographs(folder, Exclusions("t"))
    monkeypatch.setattr(memorisation, "MODES", ("lora",))

    def study(out, chosen=options):
        run_memorisation(
            out,
            photographs,
            base,
            ColourReader(),
            describe,
            chosen,
            lambda title, tags: nullcontext(MagicMock()),
            Exclusions("test"),
        )
        return {
            path.relative_to(out).as_posix(): path.read_bytes()
            for path in sorted(out.rglob("*"))
            if path.suffix in (".png", ".csv", ".jpg")
        }

    whole = study(tmp_path / "whole")
    made, stopped, generate = [], [], memorisation.generate

    def killed(pipe, prompts, names, *rest):
        for number, image in enumerate(generate(pipe, prompts, names, *rest)):
            if number == 1 and not stopped:
                stopped.append(True)
                raise KeyboardInterrupt
            made.append(names[number])
            yield image

    monkeypatch.setattr(memorisation, "generate", killed)
    with pytest.raises(KeyboardInterrupt):
        study(tmp_path / "cut")
    assert made == ["image-00000"]
    assert len(list((tmp_path / "cut").rglob("image-*.png"))) == 1
    assert study(tmp_path / "cut") == whole
    assert made == [*(f"image-{n:05d}" for n in (0, 1, 2)), *(f"image-{n:05d}" for n in range(3))]
    # another configuration takes none of these images for its own
    made.clear()
    study(tmp_path / "cut", replace(options, sampling_steps=2))
    assert len(made) == 6


def test_photographs_without_a_face_are_excluded(folder):
    name = "Rafd090_07_Caucasian_male_angry_frontal.jpg"
    (folder / name).write_bytes(encode_jpeg(np.zeros((30, 30, 3), np.uint8)))
    exclusions = Exclusions("test")
    photographs = read_photographs(folder, exclusions)
    faces = read_faces(photographs, ColourReader(), describe, exclusions, 4)
    assert len(faces.paths) == len(faces.prompts) == len(photographs) - 1
    assert [row["reason"] for row in exclusions.rows()] == ["bad_name", "no_face"]
    only = [one for one in photographs if one.identity == "01"]
    with pytest.raises(ValueError, match="faces of 1 people"):
        read_faces(only, ColourReader(), describe, exclusions)
