"""Heads followed through a film: numbers, one shape, smooth poses."""

import sys

import numpy as np
import pytest

from ml.flame.params import SCALE, SHAPE, TRANSLATION
from ml.inference.results import PredictionResult
from ml.inference.tracks import HeadTracks
from ml.records.heads import Heads

RATE = 25.0
IMAGE = np.zeros((200, 400, 3), np.uint8)
IDENTITY = (1, 0, 0, 0, 1, 0)


def frame(number, people, noise=0.0, rng=None):
    """People at (x, shape coefficient), 40 px wide, moving 2 px a frame."""
    boxes, flame = [], np.zeros((len(people), 413), np.float32)
    for row, (x, shape) in enumerate(people):
        left = x + 2 * number
        boxes.append([left, 50, left + 40, 90])
        flame[row, SHAPE] = shape + (rng.normal(0, noise, 300) if rng else 0)
        flame[row, 403:409] = IDENTITY
        flame[row, TRANSLATION] = (left + 20 + (rng.normal(0, noise) if rng else 0), 70, 0)
        flame[row, SCALE] = 300
    heads = Heads(np.array(boxes).reshape(-1, 4), np.full(len(people), 0.9), flame)
    return PredictionResult(IMAGE, heads, None, f"film#{number}", number / RATE)


def test_numbers_stay_with_people_whatever_their_order():
    people = [(20, 0.5), (200, -0.5)]
    frames = [frame(n, people if n % 2 else people[::-1]) for n in range(8)]
    followed = list(HeadTracks().follow(frames))
    assert followed[0].tracks.tolist() == [-1, -1], "nobody is known in the first frame"
    for number, result in enumerate(followed[1:], start=1):
        by_place = dict(zip(result.heads.boxes_xyxy[:, 0] < 120, result.tracks, strict=True))
        first = dict(zip(followed[1].heads.boxes_xyxy[:, 0] < 120, followed[1].tracks, strict=True))
        assert by_place == first, number
    assert len(set(followed[-1].tracks)) == 2
    assert followed[-1].to_json()["heads"][0]["track"] == followed[-1].tracks[0]


def test_somebody_hidden_for_a_moment_is_the_same_afterwards():
    frames = [frame(n, [] if 5 <= n < 10 else [(20, 0.5)]) for n in range(14)]
    followed = list(HeadTracks().follow(frames))
    assert [len(result) for result in followed[5:10]] == [0] * 5
    assert followed[12].tracks.tolist() == followed[4].tracks.tolist()


def test_somebody_who_comes_later_is_another():
    frames = [frame(n, [(20, 0.5)] if n < 6 else [(20, 0.5), (250, 0.1)]) for n in range(10)]
    last = list(HeadTracks().follow(frames))[-1]
    assert len(set(last.tracks)) == 2


def test_one_shape_a_person_and_less_trembling():
    rng = np.random.default_rng(0)
    frames = [frame(n, [(20, 1.0), (220, -1.0)], 0.5, rng) for n in range(40)]
    followed = list(HeadTracks(smoothing_s=0.2).follow(frames))
    last = followed[-1].heads.flame
    raw = frames[-1].heads.flame
    for row, true in enumerate((1.0, -1.0)):
        assert np.abs(last[row, SHAPE] - true).mean() < 0.2 * np.abs(raw[row, SHAPE] - true).mean()
    steps = [
        np.std(np.diff([r.heads.flame[0, TRANSLATION.start] for r in results]))
        for results in (followed, frames)
    ]
    assert steps[0] < 0.4 * steps[1]


def test_who_goes_by_is_not_left_behind():
    frames = [frame(n, [(20, 0.5)]) for n in range(30)]
    last = list(HeadTracks(smoothing_s=0.5).follow(frames))[-1]
    x = TRANSLATION.start
    assert last.heads.flame[0, x] == pytest.approx(frames[-1].heads.flame[0, x], abs=0.01)


def test_without_smoothing_poses_stay_as_they_are():
    frames = [frame(n, [(20, 0.5)]) for n in range(3)]
    followed = list(HeadTracks(smoothing_s=0).follow(frames))
    for result, given in zip(followed, frames, strict=True):
        np.testing.assert_allclose(result.heads.flame, given.heads.flame, atol=1e-6)


def test_a_head_without_parameters_is_numbered_and_left_alone():
    result = frame(0, [(20, 0.5)])
    result.heads.raw.flame[:] = np.nan
    (followed,) = HeadTracks().follow([result])
    assert len(followed.tracks) == 1
    assert np.isnan(followed.heads.flame).all()


def test_without_the_package_it_is_said_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "trackers", None)
    with pytest.raises(ValueError, match=r"pip install --no-deps trackers"):
        HeadTracks()


def test_a_negative_time_is_refused():
    with pytest.raises(ValueError, match=r"smoothing_s: expected at least 0, got -1"):
        HeadTracks(smoothing_s=-1)
