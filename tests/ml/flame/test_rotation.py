import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from ml.flame.rotation import (
    euler_deg_from_matrix,
    geodesic_distance,
    matrix_from_6d,
    matrix_from_euler_deg,
    nearest_rotation,
    rodrigues,
    rodrigues_gradient,
    sixd_from_matrix,
    skew,
    wrap_deg,
)

FRONTAL = torch.diag(torch.tensor([1.0, -1.0, -1.0]))


def random_matrices(count: int, dtype=torch.float64) -> torch.Tensor:
    return torch.as_tensor(Rotation.random(count, random_state=0).as_matrix(), dtype=dtype)


def test_identity_from_unit_columns():
    six = torch.tensor([1.0, 0, 0, 0, 1, 0])
    assert torch.equal(matrix_from_6d(six), torch.eye(3))


def test_columns_are_orthonormalised_by_hand():
    # a1 along x, a2 in the x-y plane: y must come out as y, z as z
    six = torch.tensor([2.0, 0, 0, 5, 3, 0])
    torch.testing.assert_close(matrix_from_6d(six), torch.eye(3))


def test_any_6d_gives_a_rotation():
    r = matrix_from_6d(torch.randn(200, 6, dtype=torch.float64))
    eye = torch.eye(3, dtype=torch.float64).expand(200, 3, 3)
    torch.testing.assert_close(r.transpose(1, 2) @ r, eye)
    torch.testing.assert_close(torch.linalg.det(r), torch.ones(200, dtype=torch.float64))


def test_6d_round_trip_batched_and_looped():
    r = random_matrices(20)
    back = matrix_from_6d(sixd_from_matrix(r))
    torch.testing.assert_close(back, r)
    for one, whole in zip(r, back, strict=True):
        torch.testing.assert_close(matrix_from_6d(sixd_from_matrix(one)), whole)


def test_gradients_of_all_conversions():
    six = torch.randn(3, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(matrix_from_6d, six)
    angles = torch.tensor([[20.0, -35.0, 50.0]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda a: euler_deg_from_matrix(matrix_from_euler_deg(a)), angles, eps=1e-4, atol=1e-4
    )
    fixed = random_matrices(3)
    assert torch.autograd.gradcheck(lambda v: geodesic_distance(matrix_from_6d(v), fixed), six)


def some_vectors(dtype) -> torch.Tensor:
    """Axis times angle: of all sizes, none, and turns by nearly and more than half a circle."""
    axes = torch.randn(60, 3, dtype=torch.float64)
    axes /= axes.norm(dim=1, keepdim=True)
    sizes = torch.cat([torch.logspace(-30, 0.3, 57), torch.tensor([0.0, np.pi - 1e-4, 4.0])])
    return (axes * sizes[:, None]).to(dtype)


def test_rodrigues_agrees_with_scipy():
    vectors = some_vectors(torch.float64)
    expected = Rotation.from_rotvec(vectors.numpy()).as_matrix()
    turn, _ = rodrigues(vectors)
    np.testing.assert_allclose((turn + torch.eye(3)).numpy(), expected, atol=1e-14)
    # less identity, small turns keep all their digits
    vector = torch.tensor([1e-12, 0.0, 0.0])
    assert rodrigues(vector)[0][2, 1].item() == pytest.approx(1e-12, rel=1e-6)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 3e-6)])
def test_gradient_of_rodrigues_is_that_of_the_matrix_exponential(dtype, tolerance):
    vectors = some_vectors(dtype)
    grad = torch.randn(len(vectors), 3, 3, dtype=dtype)
    mine = rodrigues_gradient(grad, *rodrigues(vectors))
    exact = vectors.double().requires_grad_()
    torch.linalg.matrix_exp(skew(exact)).backward(grad.double())
    torch.testing.assert_close(mine.double(), exact.grad, atol=tolerance, rtol=tolerance)


def test_euler_of_the_frontal_head_is_zero():
    torch.testing.assert_close(euler_deg_from_matrix(FRONTAL), torch.zeros(3))


def test_euler_signs():
    """Nose down: pitch < 0; nose to the right: yaw < 0; turned anticlockwise: roll < 0."""
    nose = torch.tensor([0.0, 0.0, 1.0])
    down = matrix_from_euler_deg(torch.tensor([-30.0, 0.0, 0.0])) @ nose
    assert down[1] > 0.4
    assert abs(down[0]) < 1e-6
    right = matrix_from_euler_deg(torch.tensor([0.0, -30.0, 0.0])) @ nose
    assert right[0] > 0.4
    assert abs(right[1]) < 1e-6
    # anticlockwise on the screen: the crown moves to the left
    crown = matrix_from_euler_deg(torch.tensor([0.0, 0.0, -30.0])) @ torch.tensor([0.0, 1.0, 0.0])
    assert crown[0] < -0.4
    assert crown[1] < 0


def test_euler_agrees_with_the_protocol_of_scipy():
    r = random_matrices(100)
    e = Rotation.from_matrix(r.transpose(1, 2).numpy()).as_euler("xyz", degrees=True)
    e[:, 0] -= 180.0
    expected = (e + 180.0) % 360.0 - 180.0
    np.testing.assert_allclose(euler_deg_from_matrix(r).numpy(), expected, atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(st.tuples(st.floats(-179, 179), st.floats(-89, 89), st.floats(-179, 179)))
def test_euler_round_trip(angles):
    euler = torch.tensor(angles, dtype=torch.float64)
    back = euler_deg_from_matrix(matrix_from_euler_deg(euler))
    torch.testing.assert_close(
        wrap_deg(back - euler), torch.zeros(3, dtype=torch.float64), atol=1e-6, rtol=0
    )


@pytest.mark.parametrize("yaw", [90.0, -90.0])
def test_gimbal_lock_keeps_the_rotation(yaw):
    r = matrix_from_euler_deg(torch.tensor([25.0, yaw, 40.0], dtype=torch.float64))
    # Zeros, not the 1e-17 that the cosine of 90 degrees leaves, with which the usual formula holds.
    r[r.abs() < 1e-12] = 0.0
    back = euler_deg_from_matrix(r)
    assert back[2] == 0
    torch.testing.assert_close(matrix_from_euler_deg(back), r, atol=1e-7, rtol=0)


@pytest.mark.parametrize(
    "angle", [0.0, 1e-6, 1e-4, 0.3, 1.5, 3.0, np.pi - 1e-4, np.pi - 1e-6, np.pi]
)
def test_geodesic_distance_is_exact_at_both_ends_in_float32(angle):
    axis = torch.tensor([0.48, -0.6, 0.64])
    r = torch.eye(3) + rodrigues(axis * angle)[0]
    assert geodesic_distance(r, torch.eye(3)).item() == pytest.approx(angle, abs=2e-6)


def test_geodesic_distance_properties_and_gradient_at_zero():
    a, b = random_matrices(30), random_matrices(60)[30:]
    torch.testing.assert_close(geodesic_distance(a, b), geodesic_distance(b, a))
    expected = (Rotation.from_matrix(a.numpy()).inv() * Rotation.from_matrix(b.numpy())).magnitude()
    np.testing.assert_allclose(geodesic_distance(a, b).numpy(), expected, atol=1e-9)
    six = torch.tensor([1.0, 0, 0, 0, 1, 0], requires_grad=True)
    (grad,) = torch.autograd.grad(geodesic_distance(matrix_from_6d(six), torch.eye(3)), six)
    assert torch.isfinite(grad).all()


def test_half_precision_is_computed_in_float32():
    r = torch.eye(3) + rodrigues(torch.tensor([0.01, 0.0, 0.0]))[0]
    distance = geodesic_distance(r.half(), torch.eye(3).half())
    assert distance.dtype == torch.float32
    assert distance.item() == pytest.approx(0.01, abs=1e-3)


@pytest.mark.parametrize(
    ("function", "shape", "text"),
    [
        (matrix_from_6d, (4, 5), "rotation_6d: trailing dimensions must be 6, got shape (4, 5)"),
        (sixd_from_matrix, (3, 2), "matrix: trailing dimensions must be 3 x 3, got shape (3, 2)"),
        (rodrigues, (4,), "axis_angle: trailing dimensions must be 3, got shape (4,)"),
        (euler_deg_from_matrix, (3,), "matrix: trailing dimensions must be 3 x 3, got shape (3,)"),
        (
            matrix_from_euler_deg,
            (2, 4),
            "euler_deg: trailing dimensions must be 3, got shape (2, 4)",
        ),
    ],
)
def test_shapes_are_refused_by_name(function, shape, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        function(torch.zeros(shape))


def test_nearest_rotation_of_rotations_and_of_sums():
    r = random_matrices(20)
    torch.testing.assert_close(nearest_rotation(3.0 * r), r)
    # Halfway between two turns about one axis lies the mean angle.
    first, second = (
        torch.as_tensor(Rotation.from_euler("y", a, degrees=True).as_matrix()) for a in (10, 50)
    )
    middle = torch.as_tensor(Rotation.from_euler("y", 30, degrees=True).as_matrix())
    torch.testing.assert_close(nearest_rotation(first + second), middle)
    # A reflection is no rotation: the nearest one still has determinant 1.
    flipped = nearest_rotation(torch.diag(torch.tensor([1.0, 0.9, -0.5], dtype=torch.float64)))
    torch.testing.assert_close(flipped, torch.eye(3, dtype=torch.float64))
