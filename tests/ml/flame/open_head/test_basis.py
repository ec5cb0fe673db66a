import numpy as np
import pytest

from ml.flame.open_head.basis import principal_components

MIRROR = np.array([1, 0, 2])
FLIP = np.array([-1.0, 1.0, 1.0])


def controls():
    """Return: both sides outwards; the left one upwards alone."""
    out = np.zeros((2, 3, 3))
    out[0, 0, 0], out[0, 1, 0] = 1.0, -1.0
    out[1, 0, 1] = 2.0
    return out


def test_one_sided_control_becomes_a_symmetric_and_an_antisymmetric_component():
    basis = principal_components(
        controls(), np.diag([9.0, 1.0]), ("outwards", "left up"), MIRROR, 3
    )
    assert basis.names == ("outwards", "left up", "left up")
    assert basis.signs[0] == 1.0
    assert sorted(basis.signs[1:]) == [-1.0, 1.0]
    flat = basis.directions.reshape(9, 3)
    np.testing.assert_allclose(flat.T @ flat, np.diag([18.0, 2.0, 2.0]), atol=1e-9)
    mirrored = basis.directions[MIRROR] * FLIP[:, None]
    np.testing.assert_allclose(mirrored, basis.directions * basis.signs, atol=1e-12)


def test_correlated_controls_share_a_component():
    both = np.array([[1.0, 1.0], [1.0, 1.0]])
    basis = principal_components(controls(), both, ("a", "b"), MIRROR, 2)
    symmetric = basis.directions[:, :, list(basis.signs).index(1.0)]
    np.testing.assert_allclose(symmetric[0], [1.0, 1.0, 0.0], atol=1e-9)
    np.testing.assert_allclose(symmetric[1], [-1.0, 1.0, 0.0], atol=1e-9)


def test_too_few_controls_are_an_error():
    with pytest.raises(ValueError, match="3 components, expected 4"):
        principal_components(controls(), np.eye(2), ("a", "b"), MIRROR, 4)
