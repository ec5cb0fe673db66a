"""GLiNER as name detector, on a tiny model that was taught four sentences."""

from __future__ import annotations

import pytest

from ml.captions.config import GlinerConfig
from ml.captions.gliner_names import LABELS, GlinerNameDetector
from ml.records.models import ModelError
from tests.tiny_models.language import SENTENCES


@pytest.fixture(scope="module")
def detector(tiny_models, tmp_path_factory):
    model = {"path": str(tiny_models.path("gliner")), "asset": "random-weights"}
    return GlinerNameDetector(GlinerConfig(model=model), tmp_path_factory.mktemp("root"))


@pytest.mark.parametrize(("text", "names"), SENTENCES)
def test_names_are_found_where_they_stand(detector, text, names):
    found = {text[span.start : span.end]: span.label for span in detector.find(text)}
    assert found == names
    assert all(span.rule == "gliner" for span in detector.find(text))


def test_the_configured_threshold_decides(detector, monkeypatch):
    asked = []

    def predict(text, labels, threshold):
        asked.append((labels, threshold))
        return [
            {"start": 9, "end": 12, "label": "last name"},
            {"start": 0, "end": 4, "label": "first name"},
        ]

    monkeypatch.setattr(detector._model, "predict_entities", predict)
    monkeypatch.setattr(detector, "_threshold", 0.7)
    assert [span.start for span in detector.find("anna and bob")] == [0, 9]
    assert asked == [(["first name", "last name"], 0.7)]


def test_the_labels_are_the_paper_s():
    assert list(LABELS) == ["first name", "last name"]


def test_the_model_must_be_named_and_be_one(tiny_models, tmp_path):
    with pytest.raises(ModelError, match=r"captions\.gliner\.model: gliner needs a model"):
        GlinerNameDetector(GlinerConfig(), tmp_path)
    other = {"path": str(tiny_models.path("vitpose")), "asset": "random-weights"}
    with pytest.raises(ModelError, match="vitpose cannot be loaded as GLiNER"):
        GlinerNameDetector(GlinerConfig(model=other), tmp_path)
