"""The body's mesh, rig and shapes, from MakeHuman's data."""

from __future__ import annotations

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from ml.flame.open_head.body import (
    BONES,
    NUM_VERTICES,
    POINTS,
    TRUNK,
    build_bodies,
    shape_weights,
)

FLIP = np.array([-1.0, 1.0, 1.0], np.float32)


@pytest.fixture(scope="module")
def bodies():
    return build_bodies()


@pytest.mark.parametrize("level", range(len(NUM_VERTICES)))
def test_left_and_right_are_mirror_images(bodies, level):
    body = bodies[level]
    assert np.array_equal(body.mirror[body.mirror], np.arange(len(body.mirror)))
    for shapes in (body.shapes, body.smooth):
        assert np.abs(shapes[:, body.mirror] * FLIP - shapes).max() < 2e-4
    swap = [BONES.index(bone if bone in TRUNK else _other(bone)) for bone in BONES]
    assert np.allclose(body.weights[body.mirror][:, swap], body.weights, atol=1e-6)
    faces = {tuple(sorted(face)) for face in body.faces.tolist()}
    assert {tuple(sorted(face)) for face in body.mirror[body.faces].tolist()} == faces


def _other(bone: str) -> str:
    side, _, plain = bone.partition("_")
    return f"{'right' if side == 'left' else 'left'}_{plain}"


@pytest.mark.parametrize("level", range(len(NUM_VERTICES)))
def test_weights_sum_to_one_and_every_bone_moves_something(bodies, level):
    weights = bodies[level].weights
    assert weights.min() >= 0.0
    assert np.allclose(weights.sum(axis=1), 1.0, atol=1e-6)
    assert (weights.max(axis=0) > 0.3).all()


@pytest.mark.parametrize("level", range(len(NUM_VERTICES)))
def test_the_surface_is_closed_but_for_the_neck(bodies, level):
    body = bodies[level]
    assert len(body.mirror) <= NUM_VERTICES[level]
    edges = np.concatenate([body.faces[:, [0, 1]], body.faces[:, [1, 2]], body.faces[:, [2, 0]]])
    codes, back = edges @ [len(body.mirror), 1], edges[:, ::-1] @ [len(body.mirror), 1]
    assert len(np.unique(codes)) == len(codes)
    border = edges[~np.isin(codes, back)]
    assert np.array_equal(np.sort(border[:, 0]), np.sort(body.loop))
    ring = {frozenset(pair) for pair in zip(body.loop, np.roll(body.loop, -1), strict=True)}
    assert {frozenset(pair) for pair in border.tolist()} == ring


def test_the_neck_ends_where_the_head_model_begins(bodies, open_head):
    """The border is the head model's own rim, and nothing of the body is above it."""
    faces = open_head.faces
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    back = edges[:, ::-1] @ [5023, 1]
    rim = np.unique(edges[~np.isin(edges @ [5023, 1], back)])
    mean = np.tensordot(shape_weights(0.5, 1.0, 0.0, 0.0), bodies[0].shapes, axes=1)
    loop = mean[bodies[0].loop]
    own = open_head.v_template[rim]
    assert np.allclose(np.ptp(loop, axis=0), np.ptp(own, axis=0), atol=0.012)
    # Only the shoulders' slopes are higher than the throat; none is higher than the nape.
    assert mean[:, 1].max() < loop[:, 1].max() + 1e-6


def test_shapes_are_people(bodies):
    body = bodies[0]
    at = {name: k for k, name in enumerate(POINTS)}

    def size(**who):
        mixture = shape_weights(
            **{"feminine": 0.5, "age": 1.0, "weight": 0.0, "muscle": 0.0, **who}
        )
        points = np.tensordot(mixture, body.points, axes=1)
        shape = np.tensordot(mixture, body.shapes, axes=1)
        belly = shape[(np.abs(shape[:, 1] - 0.2) < 0.05) & (np.abs(shape[:, 0]) < 0.25)]
        return {
            "leg": np.linalg.norm(points[at["left_hip"]] - points[at["left_ankle"]]),
            "shoulders": 2 * points[at["left_shoulder"], 0],
            "girth": np.ptp(belly[:, 0]) * np.ptp(belly[:, 2]),
        }

    assert size(feminine=0.0)["shoulders"] > 1.1 * size(feminine=1.0)["shoulders"]
    assert 0.6 < size(age=0.0)["leg"] / size()["leg"] < 0.9
    assert size(weight=1.0)["girth"] > 1.05 * size()["girth"] > 1.05 * size(weight=-1.0)["girth"]
    assert 0.7 < size()["leg"] < 0.95


def test_mixtures_sum_to_one():
    for who in ((0.3, 0.2, -0.5, 0.2), (1.0, 1.0, 1.0, 0.0)):
        mixture = shape_weights(*who)
        assert mixture.sum() == pytest.approx(1.0)
        assert mixture.min() >= 0.0


def test_bytes_are_the_same_twice(bodies):
    with threadpool_limits(limits=2, user_api="blas"):
        again = build_bodies.__wrapped__()
    for one, other in zip(bodies, again, strict=True):
        for name, value in vars(one).items():
            assert value.tobytes() == getattr(other, name).tobytes(), name
