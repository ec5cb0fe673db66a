"""ViTPose and its person detector on tiny random models."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ml.poses.config import EstimatorConfig
from ml.poses.vitpose import VitPoseEstimator
from ml.records.models import ModelError
from tests.ml.poses.source_files import image


def coloured(seed, height=96, width=128):
    return image(seed, height, width)


@pytest.fixture
def make_config(tiny_models):
    def make(**changes):
        models = {
            name: {"path": str(tiny_models.path(folder)), "asset": "random-weights"}
            for name, folder in (("person_detector", "person-detector"), ("pose_model", "vitpose"))
        }
        return EstimatorConfig(**{**models, "threshold": 0.3} | changes)

    return make


def test_people_follow_the_image(make_config, tmp_path):
    estimator = VitPoseEstimator(make_config(), tmp_path)
    first, second = estimator.estimate([coloured(1), coloured(2, 128, 96)])
    assert len(first.scores)
    assert len(second.scores)
    assert (np.diff(first.scores) <= 0).all()
    size = min(len(first.scores), len(second.scores))
    moved = np.abs(first.keypoints[:size, :, :2] - second.keypoints[:size, :, :2])
    assert moved.max() > 5
    assert np.ptp(first.keypoints[0, :, 0]) > 2
    assert np.isfinite(first.keypoints).all()


def test_an_image_s_people_do_not_depend_on_its_batch(make_config, tmp_path):
    estimator = VitPoseEstimator(make_config(), tmp_path)
    (alone,) = estimator.estimate([coloured(1)])
    together, _ = estimator.estimate([coloured(1), coloured(2)])
    np.testing.assert_allclose(alone.keypoints, together.keypoints, atol=0.05)


def test_keypoints_lie_in_the_boxes_of_their_person_in_image_px(make_config, tmp_path, monkeypatch):
    """The detector's corners become the position and size that ViTPose asks for."""
    estimator = VitPoseEstimator(make_config(), tmp_path)
    box = np.array([[64.0, 16.0, 96.0, 80.0]], np.float32)
    monkeypatch.setattr(estimator, "_boxes", lambda images: [(box, np.ones(1, np.float32))])
    (people,) = estimator.estimate([coloured(3)])
    x, y = people.keypoints[0, :, 0], people.keypoints[0, :, 1]
    # ViTPose looks at a box of its own shape, a quarter larger than the person's.
    assert (x > 80 - 36).all()
    assert (x < 80 + 36).all()
    assert (y > 48 - 46).all()
    assert (y < 48 + 46).all()


def test_nobody_is_found_where_no_score_is_high_enough(make_config, tmp_path):
    estimator = VitPoseEstimator(make_config(threshold=0.999), tmp_path)
    (people,) = estimator.estimate([coloured(1)])
    assert people.keypoints.shape == (0, 17, 3)


def test_other_labels_than_persons_are_ignored(make_config, tmp_path):
    estimator = VitPoseEstimator(make_config(), tmp_path)
    estimator._person = 1
    with torch.no_grad():
        for head in estimator._detector.model.decoder.class_embed:
            head.bias.copy_(torch.tensor([4.0, -9.0]))
            head.weight.zero_()
    assert not len(estimator.estimate([coloured(1)])[0].scores)


def test_the_version_names_both_models(make_config, tmp_path):
    version = VitPoseEstimator(make_config(), tmp_path).version
    first, second = version.split("+")
    assert first.startswith("random-weights@")
    assert first != second


def test_models_that_do_not_fit_are_refused(make_config, tiny_models, tmp_path):
    with pytest.raises(ModelError, match=r"estimator\.pose_model: vitpose needs a model"):
        VitPoseEstimator(make_config(pose_model=None), tmp_path)
    other = {"path": str(tiny_models.path("vit-classifier")), "asset": "random-weights"}
    with pytest.raises(ModelError, match="cannot be loaded as AutoModelForObjectDetection"):
        VitPoseEstimator(make_config(person_detector=other), tmp_path)
