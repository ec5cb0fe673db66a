"""Sheets of images of a head model: which heads are on them, in which order, with which labels."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from ml.flame import views


class Recorder:
    """Stands for `HeadPainter`: an image is what was asked for."""

    def __init__(self, head_model):
        self.head_model = head_model

    def draw(self, shape=None, expression=None, jaw=(0.0, 0.0, 0.0), euler_deg=(0, 0, 0), zoom=1.0):
        return shape, expression, jaw, euler_deg, zoom


@pytest.fixture(autouse=True)
def _drawings_are_recorded(monkeypatch):
    monkeypatch.setattr(views, "HeadPainter", Recorder)
    monkeypatch.setattr(
        views, "contact_sheet", lambda images, columns, cell_px, labels=None: (images, labels)
    )


NAMED = SimpleNamespace(
    shape_names=("wide", "a name that is too long for a cell"), expression_names=("smile",)
)


def one(length, index, value):
    """Coefficients of which one is not 0."""
    return [value if i == index else 0.0 for i in range(length)]


def test_components_are_drawn_one_by_one_with_both_signs():
    images, labels = views.component_steps(NAMED, "shape", count=3, size=2.0)
    drawn = [(0, -2.0), (1, -2.0), (2, -2.0), (0, 2.0), (1, 2.0), (2, 2.0)]
    for (shape, expression, jaw, euler_deg, zoom), (index, size) in zip(images, drawn, strict=True):
        assert shape.tolist() == one(300, index, size)
        assert expression is None
        assert (jaw, euler_deg, zoom) == ((0.0, 0.0, 0.0), (0.0, 25.0, 0.0), 1.0)
    # 22 characters fit under an image; a component without a name has that of its kind.
    assert labels == [
        "0 -2 wide", "1 -2 a name that is to", "2 -2 shape",
        "0 +2 wide", "1 +2 a name that is to", "2 +2 shape",
    ]  # fmt: skip


def test_expressions_are_drawn_closer():
    images, labels = views.component_steps(NAMED, "expression", count=2, size=3.0)
    assert [shape for shape, *_ in images] == [None] * 4
    assert [expression.tolist() for _, expression, *_ in images] == [
        one(100, index, size) for size in (-3.0, 3.0) for index in (0, 1)
    ]
    assert [zoom for *_, zoom in images] == [1.45] * 4
    assert labels == ["0 -3 smile", "1 -3 expression", "0 +3 smile", "1 +3 expression"]


def test_components_end_with_the_opening_jaw():
    images, labels = views.components(NAMED, count=2, size=3.0)
    assert [e.tolist() for _, e, *_ in images[:2]] == [one(100, 0, 3.0), one(100, 1, 3.0)]
    assert [image[2:] for image in images] == [
        *[((0.0, 0.0, 0.0), (0.0, 15.0, 0.0), 1.45)] * 2,
        *[((angle, 0.0, 0.0), (0.0, 30.0, 0.0), 1.45) for angle in (0.0, 0.12, 0.24, 0.36)],
    ]
    assert labels == [
        "smile", "expression 1", "jaw 0.00 rad", "jaw 0.12 rad", "jaw 0.24 rad", "jaw 0.36 rad",
    ]  # fmt: skip


def test_a_turntable_shows_the_template_from_eight_sides():
    images, labels = views.turntable(NAMED)
    turns = [0, 35, 65, 90, 135, 180, -90, -35]
    assert [(s, e, euler_deg[1]) for s, e, _, euler_deg, _ in images] == [
        (None, None, -turn) for turn in turns
    ]
    assert labels == [f"yaw {turn}" for turn in turns]


def test_random_heads_are_drawn_from_the_seed():
    images, labels = views.random_shapes(NAMED, seed=3, count=4)
    assert labels == [f"shape {i}" for i in range(4) for _ in range(2)]
    assert [image[3][1] for image in images] == [0, 40, 0, -70, 0, 90, 0, 40]
    shapes = np.array([image[0] for image in images])
    np.testing.assert_array_equal(shapes[0::2], shapes[1::2])
    # 4 x 300 draws of N(0, 1): five standard errors.
    assert abs(shapes[::2].mean()) < 5 / 160**0.5
    assert abs(shapes[::2].std() - 1) < 5 / 2400**0.5
    assert len({shape.tobytes() for shape in shapes}) == 4
    again, _ = views.random_shapes(NAMED, seed=3, count=1)
    np.testing.assert_array_equal(again[0][0], shapes[0])
    other, _ = views.random_shapes(NAMED, seed=4, count=1)
    assert (other[0][0] != shapes[0]).any()


def test_random_expressions_turn_within_limits():
    images, labels = views.random_expressions(NAMED, seed=0, count=60)
    assert labels is None
    jaws = np.array([image[2] for image in images])
    assert (jaws[:, 1:] == 0).all()
    # |N(0, 0.12)| has the mean 0.12 * sqrt(2 / pi) = 0.0957 and the deviation 0.0723.
    assert (jaws[:, 0] >= 0).all()
    assert abs(jaws[:, 0].mean() - 0.0957) < 5 * 0.0723 / 60**0.5
    limits = np.array([15, 45, 10])
    largest = np.abs([image[3] for image in images]).max(axis=0)
    assert (largest <= limits).all()
    assert (largest > 0.9 * limits).all()
    assert {image[4] for image in images} == {1.3}
