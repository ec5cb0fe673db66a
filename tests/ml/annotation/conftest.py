import numpy as np
import pytest

from ml.flame.head_model import HeadModel


@pytest.fixture(scope="session")
def head_model() -> HeadModel:
    """A ball with FLAME's counts; left and right are each other's mirror image."""
    rng = np.random.default_rng(0)
    points = rng.normal(size=(5023, 3))
    points = 0.1 * points / np.linalg.norm(points, axis=1, keepdims=True)
    half = 2511
    points[half : 2 * half] = points[:half] * [-1, 1, 1]
    points[-1, 0] = 0
    mirror = np.concatenate([np.arange(half, 2 * half), np.arange(half), [5022]])
    shapedirs = np.zeros((5023, 3, 400), np.float32)
    shapedirs[:, 0, 0] = 0.1 * points[:, 0]
    shapedirs[:, 1, 1] = 0.1 * points[:, 1]
    weights = np.zeros((5023, 5), np.float32)
    weights[:, 0] = 1
    return HeadModel(
        v_template=points.astype(np.float32),
        faces=rng.integers(0, 5023, (9976, 3), dtype=np.int32),
        shapedirs=shapedirs,
        posedirs=np.zeros((5023, 3, 36), np.float32),
        J_regressor=np.full((5, 5023), 1 / 5023, np.float32),
        weights=weights,
        landmark_faces=np.arange(68, dtype=np.int32),
        landmark_barycentric=np.full((68, 3), 1 / 3, np.float32),
        mirror_vertices=mirror.astype(np.int32),
        mirror_shape=np.ones(300, np.float32),
        mirror_expression=np.ones(100, np.float32),
        regions={
            "all": np.arange(5023, dtype=np.int32),
            "head": np.arange(0, 5023, 2, dtype=np.int32),
        },
    )
