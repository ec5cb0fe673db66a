"""Diffusion generators on tiny random models: they listen to every input, and repeat themselves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from ml.generation.config import DIFFUSION_BACKENDS, ImagesConfig
from ml.generation.diffusion.backends import BACKENDS
from ml.generation.diffusion.generator import DiffusionGenerator
from ml.generation.diffusion.pipelines import load_pipeline
from ml.generation.generator import GenerationRequest, NotGenerated
from ml.poses.skeleton import PoseSample
from ml.records.ids import sample_rng
from ml.records.models import ModelError, hash_model

MODELS = {
    "sdxl-t2i": ("sdxl", "t2i-adapter"),
    "sdxl-controlnet": ("sdxl", "sdxl-controlnet"),
    "sd15-controlnet": ("sd15", "sd15-controlnet"),
    "sdxl-pncc": ("sdxl", "sdxl-controlnet"),
}
NEGATIVE = "low quality, nsfw, nudity, violence"


@pytest.fixture
def make_config(tiny_models):
    def make(backend="sdxl-t2i", **changes):
        base, conditioner = (str(tiny_models.path(name)) for name in MODELS[backend])
        options = {
            "base": {"path": base, "asset": "random-weights"},
            "conditioner": {"path": conditioner, "asset": "random-weights"},
            "steps": 3,
            "condition_scale": 1.0,
            "batch_size": 2,
        }
        return ImagesConfig(backend=backend, diffusion=options | changes)

    return make


@pytest.fixture
def make_generator(make_config, head_model, tmp_path):
    def make(backend="sdxl-t2i", **changes):
        return DiffusionGenerator(head_model, make_config(backend, **changes), tmp_path)

    return make


@pytest.fixture
def make_request(make_person):
    def make(sample_id="image-0", prompt="a man in a park", seed=7, x=32.0, size=(64, 64)):
        person = make_person(x=x, y=24.0, scale=110.0)
        keypoints = np.ones((17, 3), np.float32)
        keypoints[:, :2] = person.joints_m[:, :2] * 20 + (x, 14)
        pose = PoseSample("pose-0", *size, "train", (replace(person, keypoints=keypoints),))
        rng = sample_rng(seed, "images", sample_id)
        return GenerationRequest(sample_id, pose, None, prompt, NEGATIVE, seed, rng)

    return make


def images(generator, *requests):
    made = generator.generate(requests)
    assert all(not isinstance(sample, NotGenerated) for sample in made), made
    return [sample.image_rgb.astype(int) for sample in made]


def test_every_backend_of_the_configuration_is_described():
    assert set(BACKENDS) == set(DIFFUSION_BACKENDS) == set(MODELS)


@pytest.mark.parametrize("backend", MODELS)
def test_an_image_follows_seed_prompt_negative_prompt_and_pose(
    backend, make_generator, make_request
):
    generator = make_generator(backend)
    first = make_request()
    (base,) = images(generator, first)
    assert base.shape == (64, 64, 3)
    assert base.std() > 5
    others = {
        "seed": make_request(seed=8),
        "prompt": make_request(prompt="two people on a beach at night, waving"),
        "negative prompt": replace(make_request(), negative_prompt="blue sky"),
        "pose": make_request(x=48.0),
    }
    for what, request in others.items():
        (other,) = images(generator, request)
        assert np.abs(other - base).max() >= 3, f"{backend} ignores the {what}"
    (again,) = images(generator, make_request())
    np.testing.assert_array_equal(again, base)


@pytest.mark.parametrize("backend", ["sdxl-t2i", "sd15-controlnet"])
def test_another_batch_size_changes_an_image_by_one_grey_level_at_most(
    backend, make_generator, make_request
):
    generator = make_generator(backend)
    batch = [make_request(f"image-{i}", seed=i, x=20.0 + 10 * i) for i in range(3)]
    together = images(generator, *batch)
    assert np.abs(together[0] - together[1]).max() > 20
    again = images(generator, *[replace(r) for r in batch])
    np.testing.assert_array_equal(together, again)
    for request, image in zip(batch, together, strict=True):
        (alone,) = images(generator, request)
        assert np.abs(alone - image).max() <= 1


def test_a_prompt_that_is_cut_says_so(make_generator, make_request, caplog):
    generator = make_generator()
    short, long = generator.generate(
        [make_request("image-0"), make_request("image-1", prompt="a man in a park, " * 30)]
    )
    assert not short.notes["prompt_is_cut"]
    assert long.notes["prompt_is_cut"]
    assert 2 < short.notes["prompt_tokens"] <= 77 < long.notes["prompt_tokens"]
    (message,) = [record.getMessage() for record in caplog.records if "cut" in record.getMessage()]
    assert message.startswith("image-1: prompt of ")


def test_batches_hold_one_size_and_keep_the_order(make_generator, make_request):
    sizes = [(64, 64), (64, 80), (64, 64), (64, 64), (64, 80)]
    requests = [make_request(f"image-{i}", size=size) for i, size in enumerate(sizes)]
    batches = make_generator().batches(requests)
    ids = [[request.sample_id for request in batch] for batch in batches]
    assert ids == [["image-0", "image-2"], ["image-3"], ["image-1", "image-4"]]


def test_sizes_that_are_no_square_are_drawn(make_generator, make_request):
    (image,) = images(make_generator(), make_request(size=(96, 64)))
    assert image.shape == (64, 96, 3)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((72, 64), "sdxl-t2i draws multiples of 16 px, got 72 x 64; set the size in the poses"),
        ((64, 160), r"expected at most 128 px \(images.diffusion.max_side\), got 64 x 160"),
    ],
)
def test_a_size_that_cannot_be_drawn_is_a_failure_of_that_sample_alone(
    size, message, make_generator, make_request
):
    generator = make_generator(max_side=128)
    bad, good = make_request("image-1", size=size), make_request()
    failure, sample = generator.generate([bad, good])
    assert failure.reason == "unsupported_size"
    assert np.array_equal(sample.image_rgb, images(generator, make_request())[0])
    with pytest.raises(AssertionError, match=message):
        images(generator, bad)


def test_an_image_that_is_not_finite_is_a_failure(make_generator, make_request, monkeypatch):
    generator = make_generator()
    broken = torch.full((1, 3, 64, 64), torch.nan)
    monkeypatch.setattr(generator, "_sample", lambda jobs: broken)
    (failure,) = generator.generate([make_request()])
    assert failure.reason == "non_finite"
    assert "try images.diffusion.dtype bfloat16" in failure.detail


def test_the_safety_weight_moves_the_negative_prompt(make_generator, make_request):
    plain, weighted = make_generator(), make_generator(safety_weight=2.0)
    (first,), (second,) = (images(g, make_request()) for g in (plain, weighted))
    assert np.abs(first - second).max() >= 2
    without = replace(make_request(), negative_prompt="low quality")
    (zero,) = images(make_generator(safety_weight=0.0), make_request())
    np.testing.assert_array_equal(zero, images(plain, without)[0])


def test_features_of_a_pose_are_computed_once(make_generator, make_request):
    load_pipeline.cache_clear()
    generator = make_generator()
    cache = generator._loaded.pipe.adapter.forward
    images(generator, make_request("image-0"), make_request("image-1", prompt="a woman"))
    images(generator, make_request("image-2"))
    assert cache.computed == 1
    images(generator, make_request("image-3", x=50.0))
    assert cache.computed == 2


def test_settings_name_models_by_their_bytes(make_generator, tiny_models):
    settings = make_generator().settings()
    assert settings["scheduler"] == "DPMSolverMultistepScheduler"
    assert settings["algorithm"] == "sde-dpmsolver++"
    assert settings["karras_sigmas"] is True
    assert settings["steps"] == 3
    versions = [model["version"] for model in settings["models"]]
    assert versions == [hash_model(tiny_models.path(name)) for name in MODELS["sdxl-t2i"]]


def test_defaults_are_those_of_the_paper():
    config = ImagesConfig().diffusion
    assert (config.steps, config.guidance, config.condition_scale) == (40, 7.0, 0.7)
    assert (config.algorithm, config.karras_sigmas) == ("sde-dpmsolver++", True)


def test_memory_options_change_no_image_visibly(make_generator, make_request):
    (plain,) = images(make_generator(), make_request())
    frugal = make_generator(attention="sliced", vae_slicing=True, offload=True)
    (same,) = images(frugal, make_request())
    assert np.abs(plain - same).max() <= 1
    (half,) = images(make_generator(dtype="bfloat16"), make_request())
    assert np.abs(plain - half).max() > 0
    assert np.abs(plain - half).mean() < 8


def test_other_bytes_or_no_models_are_refused(make_generator, make_config, tiny_models):
    base = {"path": str(tiny_models.path("sdxl")), "asset": "random-weights", "sha256": "0" * 64}
    with pytest.raises(ModelError, match="expected 0000"):
        make_generator(base=base)
    wrong = {"path": str(tiny_models.path("vitpose")), "asset": "random-weights"}
    with pytest.raises(ModelError, match="vitpose cannot be loaded as StableDiffusionXLAdapter"):
        make_generator(base=wrong)
    with pytest.raises(ValidationError, match="backend sdxl-t2i needs"):
        ImagesConfig(backend="sdxl-t2i")
    with pytest.raises(ValidationError, match="safety_concepts names nothing"):
        make_config(safety_concepts=" ", safety_weight=2.0)


def test_a_pose_from_a_photograph_has_no_pncc_map(make_generator, make_request):
    request = make_request()
    flat = replace(request.pose.people[0], joints_m=None)
    pose = replace(request.pose, people=(flat,))
    (failure,) = make_generator("sdxl-pncc").generate([replace(request, pose=pose)])
    assert failure.reason == "not_drawn"
    assert "person 0 has no third dimension" in failure.detail


def test_openpose_drawings_have_the_channel_order_of_their_adapter(make_generator, make_request):
    def drawing(backend):
        (sample,) = make_generator(backend).generate([make_request()])
        return sample.draw_condition()

    reversed_, plain = drawing("sdxl-t2i"), drawing("sdxl-controlnet")
    assert not np.array_equal(reversed_, plain)
    np.testing.assert_array_equal(reversed_[..., ::-1], plain)
