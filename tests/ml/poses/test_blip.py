"""BLIP on tiny random models: answers follow image and question, and repeat."""

from __future__ import annotations

import numpy as np
import pytest

from ml.poses.backends import DESCRIBERS
from ml.poses.blip import BlipCaptioner, BlipVqa
from ml.poses.describers import DescriberConfig, Question, compose, subject_of
from ml.records.models import ModelError

IMAGES = [
    np.full((40, 60, 3), (200, 30, 20), np.uint8),
    np.random.default_rng(0).integers(0, 256, (64, 48, 3), dtype=np.uint8),
    np.full((48, 48, 3), (0, 0, 90), np.uint8),
    np.kron(np.eye(8, dtype=np.uint8)[..., None], np.full((8, 8, 3), 255, np.uint8)),
]


@pytest.fixture
def make_config(tiny_models):
    def make(backend, **changes):
        folder = {"blip-vqa": "blip-vqa", "blip": "blip-captioner"}[backend]
        model = {"path": str(tiny_models.path(folder)), "asset": "random-weights"}
        return DescriberConfig(backend=backend, model=model, max_new_tokens=8, **changes)

    return make


@pytest.mark.parametrize("backend", ["blip-vqa", "blip"])
def test_descriptions_follow_the_image_and_repeat(backend, make_config, tmp_path):
    describer = DESCRIBERS[backend](make_config(backend), tmp_path)
    texts = describer.describe(IMAGES, [1] * len(IMAGES))
    assert len(set(texts)) >= 3, texts
    assert describer.describe(IMAGES, [1] * len(IMAGES)) == texts
    assert describer.describe(IMAGES[1:2], [1]) == texts[1:2]
    assert not any("[" in text for text in texts), "special tokens are left in"
    assert describer.version.startswith("random-weights@")


def test_the_question_matters(make_config, tmp_path):
    describer = BlipVqa(make_config("blip-vqa"), tmp_path)
    questions = ["where is this ?", "what are the people wearing ?", "is it dark ?", "who is it ?"]
    assert len({answer for (answer,) in describer._answers(IMAGES[1:2], questions)}) >= 2


def test_answers_are_the_model_s_own_though_it_encodes_the_images_once(
    make_config, tmp_path, monkeypatch
):
    describer = BlipVqa(make_config("blip-vqa"), tmp_path)
    questions = [question.ask for question in describer._config.questions]
    expected = [
        describer._generate(
            describer._model,
            **describer._process(images=IMAGES, text=[question] * len(IMAGES)),
        )
        for question in questions
    ]
    seen, look = [], describer._model.vision_model.forward

    def count(pixel_values, **options):
        seen.append(len(pixel_values))
        return look(pixel_values, **options)

    monkeypatch.setattr(describer._model.vision_model, "forward", count)
    assert describer._answers(IMAGES, questions) == expected
    assert seen == [len(IMAGES)]
    alone = [describer._answers([image], questions) for image in IMAGES]
    assert [[one[index][0] for one in alone] for index in range(len(questions))] == expected


def test_every_question_of_the_configuration_has_its_part(make_config, tmp_path):
    questions = (
        Question(ask="what is it?", phrase="first {answer}"),
        Question(ask="where is it?", phrase="second {answer}"),
    )
    describer = BlipVqa(make_config("blip-vqa", questions=questions, useless_answers=()), tmp_path)
    (text,) = describer.describe(IMAGES[1:2], [3])
    assert text.startswith("three people, first ")
    assert ", second " in text


def test_a_caption_without_words_is_replaced_by_the_subject(make_config, tmp_path, monkeypatch):
    describer = BlipCaptioner(make_config("blip"), tmp_path)
    monkeypatch.setattr(describer, "_generate", lambda *_, **__: ["", "a dog in a park"])
    assert describer.describe(IMAGES[:2], [2, 1]) == ["two people", "a dog in a park"]


def test_answers_are_cleaned_and_those_that_say_nothing_left_out():
    config = DescriberConfig()
    answers = ["Walking.", "no", "  the   beach ", "Bright"]
    assert compose(2, answers, config) == "two people, walking, place: the beach, bright light"
    with pytest.raises(ValueError, match="expected 4 answers, got 1"):
        compose(2, ["walking"], config)


@pytest.mark.parametrize(
    ("count", "text"),
    [(1, "a person"), (2, "two people"), (8, "eight people"), (12, "a group of 12 people")],
)
def test_subjects_are_counted(count, text):
    assert subject_of(count) == text


def test_default_questions_ask_nobody_s_identity():
    asked = " ".join(question.ask for question in DescriberConfig().questions)
    for word in ("who", "name", "race", "age", "gender", "man", "woman", "old"):
        assert word not in asked.split()


def test_a_describer_without_its_model_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"describer\.model: blip-vqa needs a model"):
        BlipVqa(DescriberConfig(), tmp_path)


def test_a_question_must_use_its_answer():
    with pytest.raises(ValueError, match="phrase"):
        Question(ask="where?", phrase="somewhere")
