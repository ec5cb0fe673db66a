"""GLiNER as name detector, on a tiny model trained on four sentences."""

from __future__ import annotations

import pytest

from ml.captions.config import GlinerConfig
from ml.captions.gliner_names import LABELS, GlinerNameDetector
from ml.records.models import ModelError, hash_model
from tests.tiny_models.language import ENCODER, SENTENCES


@pytest.fixture(scope="module")
def detector(tiny_models, tmp_path_factory):
    config = GlinerConfig(model=_ref(tiny_models, "gliner"), encoder=_ref(tiny_models, ENCODER))
    return GlinerNameDetector(config, tmp_path_factory.mktemp("root"))


def _ref(tiny_models, name):
    return {"path": str(tiny_models.path(name)), "asset": "random-weights"}


@pytest.mark.parametrize(("text", "names"), SENTENCES)
def test_names_are_found_where_they_stand(detector, text, names):
    found = {text[span.start : span.end]: span.label for span in detector.find(text)}
    assert found == names
    assert all(span.rule == "gliner" for span in detector.find(text))


def test_the_configured_threshold_and_batch_size_are_used(detector, monkeypatch):
    asked = []

    def predict(texts, labels, threshold, batch_size):
        asked.append((texts, labels, threshold, batch_size))
        found = [
            {"start": 9, "end": 12, "label": "last name"},
            {"start": 0, "end": 4, "label": "first name"},
        ]
        return [found if text else [] for text in texts]

    monkeypatch.setattr(detector._model, "inference", predict)
    monkeypatch.setattr(detector, "_threshold", 0.7)
    assert [span.start for span in detector.find("anna and bob")] == [0, 9]
    labels = ["first name", "last name"]
    assert asked == [(["anna and bob"], labels, 0.7, 1)]
    asked.clear()
    monkeypatch.setattr(detector, "_batch_size", 2)
    texts = ["anna and bob", "", "anna and tom"]
    assert [len(spans) for spans in detector.find_all(texts)] == [2, 0, 2]
    assert asked == [(texts[:2], labels, 0.7, 2), (texts[2:], labels, 0.7, 1)]


@pytest.mark.parametrize("batch_size", [1, 2, 3, 16])
def test_names_do_not_depend_on_the_other_captions_of_a_batch(detector, monkeypatch, batch_size):
    texts = [text for text, _ in SENTENCES]
    texts += ["", "anna", " ".join(7 * ["a man in the park near anna smith"])]
    alone = [detector.find(text) for text in texts]
    assert sum(map(bool, alone)) >= 3
    monkeypatch.setattr(detector, "_batch_size", batch_size)
    assert detector.find_all(texts) == alone
    assert detector.find_all(texts[::-1]) == alone[::-1]


def test_the_labels_are_the_paper_s():
    assert list(LABELS) == ["first name", "last name"]


def test_the_model_must_be_named_and_be_one(tiny_models, tmp_path):
    with pytest.raises(ModelError, match=r"captions\.gliner\.model: gliner needs a model"):
        GlinerNameDetector(GlinerConfig(), tmp_path)
    with pytest.raises(ModelError, match=r"vitpose cannot be loaded as GLiNER: it has no gliner_"):
        GlinerNameDetector(GlinerConfig(model=_ref(tiny_models, "vitpose")), tmp_path)


def test_the_encoder_that_the_published_folder_lacks_is_asked_for_by_name(tiny_models, tmp_path):
    with pytest.raises(
        ModelError,
        match=r"captions\.gliner\.encoder: .* no tokenizer .*'microsoft/deberta-v3-large'",
    ):
        GlinerNameDetector(GlinerConfig(model=_ref(tiny_models, "gliner")), tmp_path)


def test_both_models_are_pinned_and_recorded(tiny_models, detector, tmp_path):
    hashes = [hash_model(tiny_models.path(name))[:12] for name in ("gliner", ENCODER)]
    expected = " on ".join(f"random-weights@{value}" for value in hashes)
    assert detector.version == expected
    other = _ref(tiny_models, ENCODER) | {"sha256": "0" * 64}
    with pytest.raises(ModelError, match=rf"{ENCODER} has sha256 {hashes[1]}"):
        GlinerNameDetector(GlinerConfig(model=_ref(tiny_models, "gliner"), encoder=other), tmp_path)
