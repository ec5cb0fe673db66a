import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from benchmarks import twins
from ml.benchmarks.alignment import fit_similarity
from ml.benchmarks.metrics_dad import (
    INNER_EYE_DISTANCE,
    METRICS,
    SEVEN,
    DadPrediction,
    DadTopology,
    DadTruth,
    chamfer,
    dad_errors,
    nme_box,
    nme_published,
    score_dad,
    z_order_coded,
    z_order_stated,
)

FLIP = np.diag([1.0, -1.0, -1.0])


@pytest.fixture(scope="module")
def topology(open_head):
    return DadTopology.of(open_head)


@pytest.fixture(scope="module")
def truth(open_head, topology):
    turn = Rotation.from_euler("xyz", [10, 25, -5], degrees=True).as_matrix()
    world = open_head.v_template.astype(np.float64) @ turn.T
    pixels = 500 * topology.landmarks(world * [1, -1, -1])[:, :2] + [200, 150]
    return DadTruth(world, pixels, FLIP @ turn, np.array([150.0, 100.0, 250.0, 200.0]))


def perfect(truth, topology):
    vertices = 3.0 * truth.vertices_world @ FLIP + [7, 8, 9]
    return DadPrediction(
        truth.landmarks_px, vertices, topology.landmarks(vertices)[list(SEVEN)], truth.rotation
    )


def cloud(count=60, seed=0):
    return np.random.default_rng(seed).normal(size=(count, 3))


def test_a_perfect_prediction(truth, topology):
    errors = dad_errors(truth, perfect(truth, topology), topology)
    assert errors["nme_68_box"] == errors["nme_68_published"] == 0
    assert errors["z5"] == errors["z5_published"] == 1
    assert errors["chamfer"] == pytest.approx(0, abs=1e-8)
    assert errors["chamfer_published"] == pytest.approx(0, abs=1e-8)
    assert errors["rotation_frobenius"] == pytest.approx(0, abs=1e-12)
    assert errors["rotation_deg"] == pytest.approx(0, abs=1e-6)


def test_errors_of_known_size(truth, topology):
    good = perfect(truth, topology)
    turn = Rotation.from_euler("y", 30, degrees=True).as_matrix()
    moved = DadPrediction(good.landmarks_px + np.array([3, 4]), None, None, truth.rotation @ turn)
    errors = dad_errors(truth, moved, topology)
    assert errors["nme_68_box"] == pytest.approx(5)  # 5 px of 100
    assert errors["nme_68_published"] == pytest.approx(100 * 5 / np.sqrt(250 * 200))
    assert errors["rotation_deg"] == pytest.approx(30)
    assert errors["rotation_frobenius"] == pytest.approx(2 * np.sqrt(2) * np.sin(np.radians(15)))
    assert np.isnan(
        [errors[k] for k in ("z5", "z5_published", "chamfer", "chamfer_published")]
    ).all()


def test_the_published_normaliser_depends_on_where_the_head_is():
    true, box = np.zeros((68, 2)), np.array([0.0, 0.0, 100.0, 100.0])
    moved = true + np.array([3, 4])
    assert nme_box(moved, true, box) == nme_published(moved, true, box) == pytest.approx(5)
    right = box + np.array([300, 0, 300, 0])
    assert nme_box(moved, true, right) == pytest.approx(5)
    assert nme_published(moved, true, right) == pytest.approx(2.5)


def test_depth_order_by_hand():
    # five others are all the others: each of the 30 ordered pairs is compared
    true = np.array([[0.0, 0, z] for z in range(6)])
    predicted = true.copy()
    predicted[[0, 1], 2] = [1, 0]
    assert z_order_stated(true, true) == 1
    assert z_order_stated(predicted, true) == pytest.approx(28 / 30)
    assert z_order_stated(-true, true) == 0


@pytest.mark.parametrize("seed", range(4))
def test_depth_order_equals_the_loops(seed):
    true = cloud(seed=seed)
    predicted = true + cloud(seed=seed + 50)
    assert z_order_stated(predicted, true) == pytest.approx(twins.z_order_stated(predicted, true))
    assert z_order_coded(predicted, true) == pytest.approx(twins.z_order_coded(predicted, true))


def test_as_coded_flatters(truth, topology):
    """The published form compares far vertices, whose order 2 mm of noise hardly changes."""
    away = truth.vertices_world[topology.z5_index] * [1, 1, -1]
    noisy = away + 0.002 * cloud(len(away))
    assert z_order_stated(noisy, away) < 0.8
    assert z_order_coded(noisy, away) > 0.95


def test_chamfer_equals_the_loops(truth, topology):
    good = perfect(truth, topology)
    vertices = good.vertices + 0.02 * cloud(len(good.vertices))
    few = DadTopology(
        topology.z5_index,
        topology.face_index[::40],
        topology.landmark_corners,
        topology.landmark_weights,
    )
    seven = topology.landmarks(vertices)[list(SEVEN)]
    true_seven = topology.landmarks(truth.vertices_world)[list(SEVEN)]
    scale = INNER_EYE_DISTANCE / np.linalg.norm(true_seven[1] - true_seven[2])
    moved = fit_similarity(seven, scale * true_seven)(vertices)
    expected = twins.mean_squared_to_nearest(scale * truth.vertices_world[few.face_index], moved)
    assert chamfer(vertices, seven, truth.vertices_world, few, False) == pytest.approx(expected)
    assert expected > 0


def test_a_hollow_face_has_no_error_where_the_similarity_may_mirror(truth, topology):
    good = perfect(truth, topology)
    hollow = good.vertices * [1, 1, -1]
    prediction = DadPrediction(vertices=hollow, seven=topology.landmarks(hollow)[list(SEVEN)])
    errors = dad_errors(truth, prediction, topology)
    assert errors["chamfer_published"] == pytest.approx(0, abs=1e-8)
    assert errors["chamfer"] > 1
    assert errors["z5"] == pytest.approx(0, abs=0.01)


def test_another_mesh_has_no_depth_order_but_a_distance(truth, topology):
    good = perfect(truth, topology)
    errors = dad_errors(
        truth, DadPrediction(vertices=good.vertices[1:], seven=good.seven), topology
    )
    assert np.isnan(errors["z5"])
    assert np.isnan(errors["z5_published"])
    assert np.isfinite(errors["chamfer"])


def test_missed_heads_are_counted_and_fail(truth, topology):
    good = perfect(truth, topology)
    bad = DadPrediction(good.landmarks_px + 20, rotation=good.rotation)
    rows = [dad_errors(truth, p, topology) for p in (good, good, bad, None)]
    assert np.isnan([rows[3][name] for name in METRICS]).all()
    scores = score_dad(rows, [True, True, True, False], resamples=50)
    assert scores.counts == {"num_images": 4, "num_heads": 4, "num_found": 3, "num_missed": 1}
    assert scores.metrics["nme_68_box"] == pytest.approx(20 * np.sqrt(2) / 3)
    assert scores.metrics["failure_rate_68"] == 0.5
    assert scores.metrics["z5"] == 1
    low, high = scores.intervals["nme_68_box"]
    assert low < scores.metrics["nme_68_box"] < high


def test_a_model_without_landmarks_has_no_failure_rate(truth, topology):
    rows = [dad_errors(truth, DadPrediction(rotation=truth.rotation), topology)]
    assert np.isnan(score_dad(rows, [True], resamples=2).metrics["failure_rate_68"])
    rows = [dad_errors(truth, None, topology)]
    assert score_dad(rows, [False], resamples=2).metrics["failure_rate_68"] == 1


def test_a_prediction_of_another_shape_is_refused(truth, topology):
    with pytest.raises(ValueError, match=r"seven: expected 7 x 3 finite numbers, got \(5, 3\)"):
        dad_errors(truth, DadPrediction(seven=np.zeros((5, 3))), topology)
    with pytest.raises(ValueError, match=r"vertices: expected M x 3 finite numbers"):
        dad_errors(truth, DadPrediction(vertices=np.full((9, 3), np.nan)), topology)
