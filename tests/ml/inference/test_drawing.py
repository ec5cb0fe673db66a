import numpy as np
import pytest

from ml.inference.drawing import draw_heads
from ml.inference.heads import HeadShapes
from ml.records.heads import Heads
from tests.ml.inference.conftest import heads_of, posed

IMAGE = np.full((200, 200, 3), 60, np.uint8)


@pytest.fixture
def heads() -> Heads:
    return heads_of(posed((0, 0, 0), (100, 100)))


def changed(drawn: np.ndarray) -> np.ndarray:
    return (drawn != IMAGE).any(axis=2)


def test_only_edges_that_face_the_camera_are_drawn(heads: Heads, shapes: HeadShapes) -> None:
    front = changed(draw_heads(IMAGE, heads, shapes.drawn, ("wireframe",)))
    assert front.sum() > 2000
    mesh = changed(draw_heads(IMAGE, heads, shapes.drawn, ("mesh",)))
    outside = front & ~mesh
    assert outside.sum() < 0.1 * front.sum()  # edges lie on the mesh


def test_lines_and_dots_lie_on_their_points(heads: Heads, shapes: HeadShapes) -> None:
    points = shapes.drawn.landmarks_px(heads.flame)[0]
    drawn = changed(draw_heads(IMAGE, heads, shapes.drawn, ("landmarks",)))
    rows, columns = np.nonzero(drawn)
    away = np.hypot(columns[:, None] + 0.5 - points[:, 0], rows[:, None] + 0.5 - points[:, 1])
    assert away.min(axis=1).max() < 4
    assert away.min(axis=0).max() < 1.5


def test_heads_without_parameters_get_a_box(shapes: HeadShapes, heads: Heads) -> None:
    bare = Heads(heads.boxes_xyxy, heads.scores, np.full((1, 413), np.nan))
    styles = ("mesh", "wireframe", "landmarks", "points", "pose")
    assert not changed(draw_heads(IMAGE, bare, shapes.drawn, styles)).any()
    assert changed(draw_heads(IMAGE, bare, shapes.drawn, ("box",))).any()


def test_what_cannot_be_drawn_is_named(heads: Heads, shapes: HeadShapes) -> None:
    with pytest.raises(ValueError, match=r"styles \['hat'\] are unknown"):
        draw_heads(IMAGE, heads, shapes.drawn, ("hat",))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="need a head model's geometry"):
        draw_heads(IMAGE, heads, None, ("mesh",))
