"""The CLIP safety checker and the image classifier, loaded as the real ones are."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

from ml.filtering.safety import ClipSafetyChecker, SafetyConfig, UnsafeClassifier
from ml.records.models import ModelRef

# Contrasts survive a tiny network; brightness alone is normalised away.
IMAGES = [
    np.random.default_rng(seed).integers(0, 256, (48, 64, 3)).astype(np.uint8) for seed in (1, 2)
]
IMAGES[1][:, :32] = (220, 40, 40)


def reference(folder, asset="clip-safety-checker"):
    return ModelRef(path=folder.name, asset=asset).resolve(folder.parent)


@pytest.fixture(scope="module")
def planted(tiny_models, tmp_path_factory):
    """A checker whose first concept is the second image."""
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker

    blank = tiny_models.path("safety-checker")
    folder = tmp_path_factory.mktemp("planted") / "checker"
    shutil.copytree(blank, folder)
    model = StableDiffusionSafetyChecker.from_pretrained(folder)
    model.concept_embeds.data[0] = embedding(model, folder, IMAGES[1])
    model.concept_embeds_weights.data[0] = 0.9995
    model.save_pretrained(folder)
    return folder


def embedding(model, folder, image):
    from transformers import AutoImageProcessor

    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    pixels = processor(images=[image], return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        return model.visual_projection(model.vision_model(pixels)[1])[0]


def test_other_images_have_other_similarities(planted):
    checker = ClipSafetyChecker(reference(planted), SafetyConfig())
    first, second = checker.similarities(IMAGES)
    assert np.abs(first - second).max() > 1e-3
    assert checker.similarities([]).shape == (0, len(first))


def test_a_planted_concept_is_seen_in_its_image_alone(planted):
    checker = ClipSafetyChecker(reference(planted), SafetyConfig(batch_size=1))
    safe, unsafe = checker.screen(IMAGES)
    assert safe is None
    assert unsafe.reason == "unsafe_concept"
    assert "concept 0 is 0.0005 over its threshold" in unsafe.detail
    assert checker.name.startswith("clip-safety-checker:")


def test_it_says_what_the_librarys_own_call_says(planted):
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import AutoImageProcessor

    model = StableDiffusionSafetyChecker.from_pretrained(planted)
    processor = AutoImageProcessor.from_pretrained(planted, backend="pil")
    pixels = processor(images=IMAGES, return_tensors="pt")["pixel_values"]
    _, expected = model(clip_input=pixels, images=np.stack(IMAGES).astype(np.float32))
    got = ClipSafetyChecker(reference(planted), SafetyConfig()).screen(IMAGES)
    assert [finding is not None for finding in got] == [bool(value) for value in expected]


def test_the_margin_moves_the_border(planted):
    strict = SafetyConfig(clip={"margin": 0.5})
    mild = SafetyConfig(clip={"margin": -0.01})
    checker = ClipSafetyChecker(reference(planted), strict)
    over = ClipSafetyChecker(reference(planted), SafetyConfig()).similarities(IMAGES)
    np.testing.assert_allclose(checker.similarities(IMAGES), over + 0.5, atol=1e-5)
    assert ClipSafetyChecker(reference(planted), mild).screen(IMAGES) == [None, None]


def test_special_care_makes_every_concept_count_a_hundredth_sooner(planted, tmp_path):
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker

    model = StableDiffusionSafetyChecker.from_pretrained(planted)
    special = embedding(model, planted, IMAGES[1])
    before = ClipSafetyChecker(reference(planted), SafetyConfig()).similarities(IMAGES)
    folder = tmp_path / "checker"
    shutil.copytree(planted, folder)
    model.special_care_embeds.data[0] = special
    model.special_care_embeds_weights.data[:] = 2.0
    model.special_care_embeds_weights.data[0] = 0.9999
    model.save_pretrained(folder)
    after = ClipSafetyChecker(reference(folder), SafetyConfig()).similarities(IMAGES)
    np.testing.assert_allclose(after[1] - before[1], 0.01, atol=1e-5)
    np.testing.assert_allclose(after[0], before[0], atol=1e-5)


@pytest.mark.parametrize(
    ("labels", "safe"),
    [
        (("normal", "nsfw"), (True, False)),
        (("drawings", "hentai", "neutral", "porn", "sexy"), (True, False, True, False, False)),
    ],
)
def test_the_labels_of_public_classifiers_are_safe_by_default_or_not(
    tiny_models, tmp_path, labels, safe
):
    from transformers import ViTConfig, ViTForImageClassification

    folder = tmp_path / "vit"
    shutil.copytree(tiny_models.path("vit-classifier"), folder)
    config = ViTConfig.from_pretrained(folder)
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: index for index, label in enumerate(labels)}
    network = ViTForImageClassification(config)
    for index, kept in enumerate(safe):
        with torch.no_grad():
            network.classifier.weight.zero_()
            network.classifier.bias.copy_(20.0 * torch.eye(len(labels))[index])
        network.save_pretrained(folder)
        (finding,) = build(folder).screen(IMAGES[:1])
        assert (finding is None) == kept, labels[index]


@pytest.fixture(scope="module")
def classifier(tiny_models):
    return tiny_models.path("vit-classifier")


def build(folder, **options):
    config = SafetyConfig(classifier=options, batch_size=1)
    return UnsafeClassifier(reference(folder, "nsfw-image-detection"), config)


def test_the_classifier_sees_its_images(classifier):
    first, second = build(classifier).probabilities(IMAGES)
    assert np.abs(first - second).max() > 0.02
    np.testing.assert_allclose([first.sum(), second.sum()], 1, atol=1e-5)


def test_likeliest_label_or_threshold(classifier):
    probabilities = build(classifier).probabilities(IMAGES)
    unsafe = probabilities[:, 1]
    likeliest = [p > 0.5 for p in unsafe]
    assert [f is not None for f in build(classifier).screen(IMAGES)] == likeliest
    between = float(unsafe.mean())
    findings = build(classifier, threshold=between).screen(IMAGES)
    assert [f is not None for f in findings] == [p >= between for p in unsafe]
    assert sum(f is not None for f in findings) == 1
    (found,) = [f for f in findings if f is not None]
    assert found.reason == "unsafe_class"
    assert f"unsafe together {unsafe.max():.3f}" in found.detail
    # The other way round, the other image is unsafe.
    other = build(classifier, safe_labels=("NSFW",), threshold=1 - between).screen(IMAGES)
    assert [f is None for f in other] == [f is not None for f in findings]


def test_labels_must_be_some_safe_some_not(classifier):
    with pytest.raises(ValueError, match="all unsafe or all safe"):
        build(classifier, safe_labels=("fine",))
