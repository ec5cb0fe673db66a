import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from ml.benchmarks.alignment import Similarity
from ml.benchmarks.metrics_scan import (
    DistanceSummary,
    MeshPrediction,
    crop_scan,
    face_radius,
    refine,
    scan_errors,
    score_scans,
)
from ml.benchmarks.surface import Surface

# A face-like bulge, 160 mm across, on a grid; eyes from right to left, nose, mouth.
SIDE = 41
PLACES = np.array(
    [[-45, 30], [-15, 30], [15, 30], [45, 30], [0, -10], [-25, -40], [25, -40]], float
)


def height(xy):
    x, y = xy[:, 0], xy[:, 1]
    bumps = 25 * np.exp(-(x**2 + (y + 5) ** 2) / 300) + 4 * np.sin(x / 17) * np.cos(y / 13)
    return 60 - (x**2 + y**2) / 200 + bumps


def on_surface(xy):
    return np.column_stack([xy, height(xy)])


def grid_mesh():
    axis = np.linspace(-80, 80, SIDE)
    xy = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    i = np.arange(SIDE * SIDE).reshape(SIDE, SIDE)
    a, b, c, d = (q.ravel() for q in (i[:-1, :-1], i[1:, :-1], i[:-1, 1:], i[1:, 1:]))
    faces = np.concatenate([np.column_stack([a, b, c]), np.column_stack([b, d, c])])
    return on_surface(xy), faces


VERTICES, FACES = grid_mesh()
SEVEN = on_surface(PLACES)


def scan_points(count=1500, seed=0):
    """Points on the mesh's own triangles, all inside the radius."""
    rng = np.random.default_rng(seed)
    chosen = rng.integers(0, len(FACES), count)
    points = (VERTICES[FACES[chosen]] * rng.dirichlet([1, 1, 1], count)[:, :, None]).sum(axis=1)
    return points[crop_scan(points, SEVEN, 1.2)]


def moved(scale=1.0, degrees=(0, 0, 0), shift=(0, 0, 0)):
    turn = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    return Similarity(scale, turn, np.array(shift, float))


def prediction(move, seven_noise=0.0):
    noise = seven_noise * np.random.default_rng(5).normal(size=(7, 3))
    return MeshPrediction(move(VERTICES), FACES, move(SEVEN + noise))


def test_the_ball_by_hand():
    landmarks = np.array(
        [[-50.0, 40, 0], [-10, 40, 0], [10, 40, 0], [50, 40, 0], [0, 0, 0], [-9, -9, 0], [9, -9, 0]]
    )
    centre, radius = face_radius(landmarks, 1.2)
    assert centre.tolist() == [0, 12, 0]
    assert radius == pytest.approx(1.2 * (100 + 40) / 2)
    assert face_radius(landmarks, 1.4)[1] == pytest.approx(98)
    points = np.array([[0.0, 12 + radius, 0], [0, 12, radius + 0.01], [0, 12, 0]])
    assert crop_scan(points, landmarks, 1.2).tolist() == [0, 2]


@pytest.mark.parametrize("protocol", ["feng", "now"])
def test_the_same_surface_elsewhere_has_no_distance(protocol):
    errors = scan_errors(
        scan_points(), SEVEN, prediction(moved(0.01, (20, -40, 70), (1, 2, 3))), protocol
    )
    assert errors.distances_mm.max() < 1e-6
    assert errors.alignment.scale == pytest.approx(100)
    assert not errors.mirrored


def test_distances_are_unsigned_and_from_the_surface_not_its_vertices():
    flat = np.array([[-200.0, -200, 0], [200, -200, 0], [0, 400, 0]])
    seven = np.column_stack([PLACES, np.zeros(7)])
    scan = np.array([[1.0, 2, 3], [10, 5, -4], [0, 0, 0]])
    mesh = MeshPrediction(flat, np.array([[0, 1, 2]]), seven)
    errors = scan_errors(scan, seven, mesh, "feng")
    np.testing.assert_allclose(errors.distances_mm, [3, 4, 0], atol=1e-9)


def test_feng_has_no_refinement_and_now_has():
    clumsy = prediction(moved(), seven_noise=4.0)
    feng = scan_errors(scan_points(), SEVEN, clumsy, "feng")
    now = scan_errors(scan_points(), SEVEN, clumsy, "now")
    assert feng.distances_mm.mean() > 0.5
    assert now.distances_mm.mean() < 0.05
    assert now.alignment.scale == pytest.approx(1, abs=2e-3)


def test_the_metrical_variant_keeps_a_wrong_size():
    large = prediction(moved(1.1))
    free = scan_errors(scan_points(), SEVEN, large, "now")
    metrical = scan_errors(scan_points(), SEVEN, large, "now_metrical")
    assert free.distances_mm.mean() < 0.01
    assert metrical.alignment.scale == 1.0
    assert metrical.distances_mm.mean() > 0.3


def test_refinement_finds_scale_rotation_and_translation():
    surface = Surface(VERTICES, FACES)
    start = moved(1.02, (3, -2, 2), (2, -1, 3))
    found = refine(surface, scan_points(), start)
    assert found.scale == pytest.approx(1, abs=1e-4)
    np.testing.assert_allclose(found(VERTICES), VERTICES, atol=0.05)


def test_the_gradient_is_that_of_the_distances(monkeypatch):
    import scipy.optimize

    from ml.benchmarks import metrics_scan

    captured = {}
    solve = scipy.optimize.least_squares

    def capture(fun, start, jac, **options):
        captured.update(fun=fun, jac=jac)
        return solve(fun, start, jac=jac, **options)

    monkeypatch.setattr(scipy.optimize, "least_squares", capture)
    points = scan_points(300) + np.array([0.5, 0.3, 2.0])
    metrics_scan.refine(Surface(VERTICES, FACES), points, moved(1.01, (1, 2, 3), (0, 0, 0)))
    step = np.array([0.02, -0.01, 0.03, 0.4, -0.2, 0.1, 0.01])
    expected = np.empty((len(points), 7))
    for k in range(7):
        low, high = step.copy(), step.copy()
        low[k], high[k] = low[k] - 1e-6, high[k] + 1e-6
        expected[:, k] = (captured["fun"](high) - captured["fun"](low)) / 2e-6
    found = captured["jac"](step)
    # where the nearest triangle changes within the step, the difference is between two surfaces
    agrees = np.isclose(found, expected, rtol=1e-3, atol=1e-3).all(axis=1)
    assert agrees.mean() > 0.97


def test_a_robust_loss_is_not_drawn_to_outliers():
    points = scan_points()
    hair = np.arange(len(points)) % 8 == 0
    points = points + np.where(hair[:, None], [0, 0, 12.0], 0.0)
    robust = scan_errors(points, SEVEN, prediction(moved()), "now_robust")
    squares = scan_errors(points, SEVEN, prediction(moved()), "now")
    medians = [float(np.median(e.distances_mm)) for e in (robust, squares)]
    assert medians[0] < 0.3 * medians[1]


def test_now_minimises_the_sum_of_squares_as_its_own_code_does():
    """No small step from where it ends makes the squared distances fewer; the robust one's does."""
    points = scan_points()
    points = points + np.where((np.arange(len(points)) % 8 == 0)[:, None], [0, 0, 12.0], 0.0)

    def squares(errors, shift):
        moved_points = points[crop_scan(points, SEVEN, 1.4)] - shift
        surface = Surface(errors.alignment(VERTICES), FACES)
        return float((surface.nearest(moved_points)[0] ** 2).sum())

    steps = [sign * 0.3 * axis for axis in np.eye(3) for sign in (1, -1)]
    for protocol, ends_at_least in (("now", True), ("now_robust", False)):
        errors = scan_errors(points, SEVEN, prediction(moved()), protocol)
        nearby = min(squares(errors, step) for step in steps)
        assert (nearby > squares(errors, np.zeros(3))) is ends_at_least


def test_what_the_public_similarity_would_mirror_is_told():
    hollow = MeshPrediction(VERTICES * [1, 1, -1], FACES, SEVEN * [1, 1, -1])
    errors = scan_errors(scan_points(), SEVEN, hollow, "feng")
    assert errors.mirrored
    assert not errors.alignment.mirrors
    assert errors.distances_mm.mean() > 2


def test_pooled_metrics_by_hand():
    one, two = np.array([1.0, 2.0, 3.0]), np.array([10.0])
    summaries = [DistanceSummary.of(one), DistanceSummary.of(two), None]
    scores = score_scans("feng", summaries, ["HQ", "LQ", "LQ"], num_mirrored=1, resamples=50)
    pooled = np.concatenate([one, two])
    values = scores.metrics
    assert values["scan_mean_mm"] == pytest.approx(pooled.mean())
    assert values["scan_std_mm"] == pytest.approx(pooled.std())
    assert values["scan_rmse_mm"] == pytest.approx(np.sqrt((pooled**2).mean()))
    assert values["scan_mean_mm_hq"] == pytest.approx(2)
    assert values["scan_median_mm_hq"] == pytest.approx(2, abs=0.01)
    assert values["scan_median_mm_lq"] == pytest.approx(10, abs=0.01)
    assert scores.counts["num_missed"] == 1
    assert scores.counts["num_heads_lq"] == 2
    assert scores.counts["num_distances"] == 4
    assert scores.counts["num_mirrored"] == 1
    assert scores.intervals["scan_mean_mm"] == pytest.approx((2, 10))


def test_the_median_of_the_pool_is_exact_to_a_bin():
    rng = np.random.default_rng(0)
    scans = [rng.gamma(2, 0.8, rng.integers(500, 3000)) for _ in range(20)]
    scores = score_scans("now", [DistanceSummary.of(s) for s in scans], [""] * 20, resamples=100)
    pooled = np.concatenate(scans)
    assert scores.metrics["scan_median_mm"] == pytest.approx(np.median(pooled), abs=0.002)
    assert scores.metrics["scan_std_mm"] == pytest.approx(pooled.std())
    low, high = scores.intervals["scan_median_mm"]
    assert low < scores.metrics["scan_median_mm"] < high


def test_nothing_predicted():
    scores = score_scans("now", [None, None], ["", ""], resamples=3)
    assert np.isnan(scores.metrics["scan_median_mm"])
    assert scores.counts["num_missed"] == 2
    far = score_scans("now", [DistanceSummary.of(np.full(3, 80.0))], [""], resamples=3)
    assert far.metrics["scan_median_mm"] == np.inf
    assert far.metrics["scan_mean_mm"] == 80


def test_errors():
    with pytest.raises(ValueError, match=r"none of its 3 vertices is near its landmarks"):
        scan_errors(np.full((3, 3), 1e4), SEVEN, prediction(moved()), "now")
    with pytest.raises(ValueError, match="got 'icp'"):
        scan_errors(VERTICES, SEVEN, prediction(moved()), "icp")
