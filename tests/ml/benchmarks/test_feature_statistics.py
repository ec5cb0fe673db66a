import numpy as np
import pytest
import torch
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.inception import InceptionScore as TorchInceptionScore
from torchmetrics.image.kid import KernelInceptionDistance

from ml.benchmarks import feature_statistics
from ml.benchmarks.feature_statistics import (
    InceptionScore,
    Moments,
    Reservoir,
    frechet_distance,
    kernel_distance,
)


class Same(torch.nn.Module):
    """Features that are the image itself, so that torchmetrics can be asked."""

    num_features = 12

    def forward(self, x):
        return x.reshape(len(x), -1)[:, : self.num_features].double() / 64


def moments_of(vectors, batch=7):
    moments = Moments(vectors.shape[1])
    for start in range(0, len(vectors), batch):
        moments.add(vectors[start : start + batch])
    return moments


def gaussian(mean, covariance, count=4):
    """Moments that are exactly a Gaussian's."""
    moments = Moments(len(mean), count)
    moments.mean, moments.scatter = np.array(mean, float), np.array(covariance) * (count - 1.0)
    return moments


def test_moments_do_not_depend_on_the_batches():
    rng = np.random.default_rng(0)
    # a mean that swallows the variance in a plain sum of squares
    vectors = 1e7 + rng.normal(size=(101, 5)) @ rng.normal(size=(5, 5))
    for batch in (1, 7, 101):
        moments = moments_of(vectors, batch)
        np.testing.assert_allclose(moments.mean, vectors.mean(axis=0), rtol=1e-14)
        np.testing.assert_allclose(moments.covariance, np.cov(vectors.T), rtol=1e-6)
    moments.add(np.zeros((0, 5)))
    assert moments.count == 101


def test_distance_of_gaussians_in_closed_form():
    one = gaussian([0, 0], np.diag([1.0, 4.0]))
    other = gaussian([3, 4], np.diag([9.0, 4.0]))
    # |m|^2 + sum of (s - t)^2 when the axes agree
    assert frechet_distance(one, other) == pytest.approx(25 + (1 - 3) ** 2)
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-12)
    assert frechet_distance(other, one) == pytest.approx(29)
    # a turn leaves the distance as it is
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    turned = [gaussian(turn @ g.mean, turn @ g.covariance @ turn.T) for g in (one, other)]
    assert frechet_distance(*turned) == pytest.approx(29)


def test_distance_with_fewer_images_than_features():
    rng = np.random.default_rng(1)
    few = rng.normal(size=(5, 40))
    assert frechet_distance(moments_of(few), moments_of(few)) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(moments_of(few), moments_of(few + 2)) == pytest.approx(160)
    assert np.isnan(frechet_distance(moments_of(few[:1]), moments_of(few)))


def test_equals_torchmetrics():
    rng = np.random.default_rng(2)
    real = rng.integers(0, 200, (60, 3, 2, 2)).astype(np.uint8)
    fake = rng.integers(30, 256, (50, 3, 2, 2)).astype(np.uint8)
    metric = FrechetInceptionDistance(Same(), input_img_size=(3, 2, 2))
    metric.set_dtype(torch.float64)
    metric.update(torch.as_tensor(real), real=True)
    metric.update(torch.as_tensor(fake), real=False)
    features = [x.reshape(len(x), -1).astype(float) / 64 for x in (real, fake)]
    ours = frechet_distance(*(moments_of(f) for f in features))
    assert ours == pytest.approx(float(metric.compute()), rel=1e-6)


def test_kid_equals_torchmetrics_on_whole_sets():
    rng = np.random.default_rng(3)
    real = rng.integers(0, 200, (40, 3, 2, 2)).astype(np.uint8)
    fake = rng.integers(30, 256, (40, 3, 2, 2)).astype(np.uint8)
    metric = KernelInceptionDistance(Same(), subsets=2, subset_size=40)
    metric.update(torch.as_tensor(real), real=True)
    metric.update(torch.as_tensor(fake), real=False)
    features = [x.reshape(len(x), -1).astype(float) / 64 for x in (real, fake)]
    value, deviation = kernel_distance(*features, rng)
    assert value == pytest.approx(float(metric.compute()[0]), rel=1e-4)
    assert deviation == pytest.approx(0, abs=1e-6 * value)


def test_kid_is_unbiased_and_seeded(monkeypatch):
    assert feature_statistics.KID_SUBSETS == 100
    monkeypatch.setattr(feature_statistics, "KID_SUBSETS", 10)
    rng = np.random.default_rng(4)
    sets = [rng.normal(size=(1100, 8)) for _ in range(2)]
    first = kernel_distance(*sets, np.random.default_rng(0))
    assert first == kernel_distance(*sets, np.random.default_rng(0))
    assert abs(first[0]) < 4 * first[1]
    assert kernel_distance(sets[0], sets[1] + 1, rng)[0] > 1
    assert np.isnan(kernel_distance(sets[0][:1], sets[1], rng)).all()


def test_the_reservoir_is_an_even_sample():
    kept = np.zeros(60)
    for seed in range(400):
        pool = Reservoir(np.random.default_rng(seed), capacity=10)
        for start in range(0, 60, 7):
            pool.add(np.arange(start, min(start + 7, 60))[:, None])
        values = pool.vectors()[:, 0].astype(int)
        assert len(set(values)) == len(values) == 10
        kept[values] += 1
    # each of 60 is kept with chance 1/6: 67 times, give or take 7.5
    assert abs(kept - 400 / 6).max() < 5 * 7.5
    assert Reservoir(np.random.default_rng(0)).vectors().shape == (0, 0)


def test_inception_score_by_hand():
    # every image is sure of another class: the mean is even, so the score is the number of classes
    sure = 1000.0 * np.eye(4)
    score = InceptionScore(np.random.default_rng(0), splits=1)
    score.add(sure)
    assert score.result()[0] == pytest.approx(4)
    alike = InceptionScore(np.random.default_rng(0), splits=2)
    alike.add(np.ones((6, 4)))
    assert alike.result() == pytest.approx((1, 0))
    assert np.isnan(InceptionScore(np.random.default_rng(0)).result()).all()


def test_inception_score_equals_torchmetrics():
    scores = np.random.default_rng(5).normal(0, 2, (200, 12))
    metric = TorchInceptionScore(Same(), splits=1)
    metric.update(torch.as_tensor(64 * scores.reshape(200, 3, 2, 2)))
    ours = InceptionScore(np.random.default_rng(0), splits=1)
    ours.add(scores[:90])
    ours.add(scores[90:])
    assert ours.result()[0] == pytest.approx(float(metric.compute()[0]), rel=1e-6)


def test_splits_are_of_equal_size():
    score = InceptionScore(np.random.default_rng(0))
    score.add(np.random.default_rng(1).normal(size=(47, 3)))
    assert sorted(score._counts.tolist()) == [4, 4, 4, 5, 5, 5, 5, 5, 5, 5]
    assert score.result()[1] > 0
