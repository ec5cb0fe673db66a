"""The identity threshold: chosen on known distributions, refused where nothing can be known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ml.filtering.calibration import (
    Calibration,
    CalibrationError,
    Similarities,
    calibrate,
    measure,
    plot,
    read_identities,
)
from ml.imaging.io import decode_image


def people(num: int, images: int, noise: float, seed: int = 0, length: int = 64):
    """Faces around a direction for each person."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(num, 1, length))
    faces = centres + noise * rng.normal(size=(num, images, length))
    faces = faces.reshape(-1, length)
    faces /= np.linalg.norm(faces, axis=1, keepdims=True)
    return faces.astype(np.float32), np.repeat(np.arange(num), images)


def test_best_matches_by_hand() -> None:
    faces = np.array([[1, 0], [0.6, 0.8], [0, 1]], np.float32)
    found = measure(faces, np.array([0, 0, 1]))
    # The third is alone: it has no other image of its own.
    np.testing.assert_allclose(np.sort(found.own), [0.6, 0.6], atol=1e-6)
    np.testing.assert_allclose(np.sort(found.strangers), [0.0, 0.8, 0.8], atol=1e-6)
    assert found.num_identities == 2


def test_the_asked_false_match_rate_is_met_and_not_undercut() -> None:
    faces, numbers = people(200, 3, 0.5)
    found = measure(faces, numbers)
    for target in (0.01, 0.05, 0.2):
        calibration = calibrate(found, target)
        assert target - 1 / len(faces) <= calibration.false_match_rate <= target
        assert calibration.true_match_rate > 0.9
        assert calibration.num_own == calibration.num_strangers == 600
    # A stricter target is a higher threshold.
    assert calibrate(found, 0.01).threshold > calibrate(found, 0.2).threshold
    # New persons, drawn alike, are taken for one of the index as often as was measured.
    strangers, _ = people(400, 1, 0.5, seed=1)
    calibration = calibrate(found, 0.05)
    rate = ((strangers @ faces.T).max(axis=1) >= calibration.threshold).mean()
    assert 0.02 < rate < 0.1


def test_a_target_between_two_numbers_of_faces_is_not_exceeded() -> None:
    strangers = np.linspace(0.1, 0.9, 150, dtype=np.float32)
    calibration = calibrate(Similarities(np.zeros(0, np.float32), strangers, 150), 0.03)
    assert calibration.false_match_rate == pytest.approx(4 / 150)


def test_ties_with_the_first_that_may_not_match_do_not_match() -> None:
    strangers = np.array([0.9] + [0.5] * 299, np.float32)
    calibration = calibrate(Similarities(np.zeros(0, np.float32), strangers, 300), 0.01)
    assert calibration.threshold > 0.5
    assert calibration.false_match_rate == pytest.approx(1 / 300)
    assert math.isnan(calibration.true_match_rate)
    assert "no person has two images" in calibration.describe()
    assert Calibration.from_json(calibration.to_json()).threshold == calibration.threshold


def test_queries_are_a_sample_that_depends_on_nothing_else() -> None:
    faces, numbers = people(100, 2, 0.5)
    first, second = (measure(faces, numbers, queries=50) for _ in range(2))
    assert len(first.strangers) == 50
    np.testing.assert_array_equal(first.strangers, second.strangers)


def test_too_few_faces_tell_nothing() -> None:
    faces, numbers = people(20, 2, 0.5)
    with pytest.raises(CalibrationError, match=r"40 faces .* it takes 300, or a target of 0.075"):
        calibrate(measure(faces, numbers), 0.01)
    assert calibrate(measure(faces, numbers), 0.075).false_match_rate <= 0.075
    with pytest.raises(CalibrationError, match=r"of 1 person"):
        measure(faces, np.zeros(40, np.int64))


def test_celebas_list_of_identities(tmp_path) -> None:
    path = tmp_path / "identity_CelebA.txt"
    path.write_text("000001.jpg 2880\n000002.jpg 2937\n\n")
    assert read_identities(path) == {"000001.jpg": "2880", "000002.jpg": "2937"}
    # A name with a blank would be read as another person.
    for line in ("000002.jpg", "000002.jpg 29 37"):
        path.write_text(f"000001.jpg 2880\n{line}\n")
        with pytest.raises(CalibrationError, match=r"CelebA.txt:2: expected an image's name"):
            read_identities(path)


@pytest.mark.parametrize("text", ["[]", "{}", "3", '{"threshold": "a"}'])
def test_what_is_no_calibration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"calibration|number"):
        Calibration.from_json(text)


def test_the_histograms_are_drawn(tmp_path) -> None:
    faces, numbers = people(100, 3, 0.5)
    found = measure(faces, numbers)
    for own in (found.own, found.own[:0]):
        part = Similarities(own, found.strangers, 100)
        plot(part, calibrate(part, 0.05), tmp_path / "c.png")
        image = decode_image(tmp_path / "c.png")
        assert image.shape[1] == 700
        assert (image != 255).any()
