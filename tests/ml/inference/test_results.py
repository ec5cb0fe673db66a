"""Results: every product, changing nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import trimesh
from pycocotools.coco import COCO

from ml.flame.head_model import HeadModel
from ml.inference.heads import DetectedHeads, HeadShapes
from ml.inference.options import DRAW_METHODS
from ml.inference.results import PredictionResult, coco_of
from ml.records.heads import Heads
from tests.ml.inference.conftest import heads_of, noise_image, posed

LEFT, RIGHT = posed((5, 20, -10), (110, 110)), posed((-10, 75, 25), (290, 120), 700)


@pytest.fixture
def result(shapes: HeadShapes) -> PredictionResult:
    image = np.full((220, 400, 3), 60, np.uint8)
    return PredictionResult(image, heads_of(LEFT, RIGHT), shapes, "folder/two.jpg")


def test_the_container(result: PredictionResult, open_head: HeadModel) -> None:
    heads = result.heads
    assert len(result) == len(heads) == len(list(heads)) == 2
    assert heads.vertices_px.shape == (2, 5023, 3)
    assert heads.landmarks_px.shape == (2, 68, 2)
    np.testing.assert_allclose(heads.euler_deg, [[5, 20, -10], [-10, 75, 25]], atol=1e-3)
    first, last = heads[0], heads[-1]
    assert first.score == pytest.approx(0.9)
    np.testing.assert_array_equal(last.vertices_px, heads.vertices_px[1])
    np.testing.assert_array_equal(last.skull_centre_px, [290, 120])
    assert last.parameters.scale[0] == 700
    assert np.abs(first.rotation @ first.rotation.T - np.eye(3)).max() < 1e-6
    assert last.landmarks_px.shape == (68, 2)
    assert last.euler_deg[1] == pytest.approx(75, abs=1e-3)
    with pytest.raises(IndexError, match="head 2: there are 2 heads"):
        heads[2]
    assert "two.jpg', 400x220, 2 heads: [0.90, 0.50]" in repr(result)
    # FLAME's origin, about which heads turn, is where the projection puts (0, 0, 0).
    nose = open_head.v_template[:, 2].argmax()
    assert heads.vertices_px[1, nose, 0] < 290 - 40  # yaw 75: the nose is far to one side


def test_boxes_are_cut_at_the_border_and_heads_outside_dropped(shapes: HeadShapes) -> None:
    boxes = [[-20, -10, 50, 60], [380, 200, 450, 300], [410, 10, 450, 60], [-9, -9, 0, 0]]
    heads = Heads(boxes, np.ones(4), np.stack([LEFT] * 4))
    result = PredictionResult(np.zeros((220, 400, 3), np.uint8), heads, shapes)
    np.testing.assert_array_equal(result.heads.boxes_xyxy, [[0, 0, 50, 60], [380, 200, 400, 220]])


def test_without_a_head_model_there_are_boxes(result: PredictionResult) -> None:
    bare = PredictionResult(result.image_rgb, result.heads.raw, None)
    assert (bare.draw("bbox") == result.draw("bbox")).all()
    assert set(bare.to_json()["heads"][0]) == {"box_xyxy", "score", "pose_deg", "flame"}
    for ask in (bare.draw, bare.pncc, bare.aligned_heads, bare.part_boxes, bare.scene_glb):
        with pytest.raises(ValueError, match=r"need the head model.*pass head_model="):
            ask()


@pytest.mark.parametrize("method", DRAW_METHODS)
def test_drawings_are_on_the_heads_and_change_nothing(
    result: PredictionResult, method: str
) -> None:
    before = result.image_rgb.copy(), result.heads.raw.flame.copy()
    drawn = result.draw(method)
    assert (result.image_rgb == before[0]).all()
    assert (result.heads.raw.flame == before[1]).all()
    changed = (drawn != result.image_rgb).any(axis=2)
    rows, columns = np.nonzero(changed)
    reach = 110 if method == "pose" else 95
    near = np.minimum(np.hypot(columns - 110, rows - 110), np.hypot(columns - 290, rows - 120))
    assert changed.sum() > 100
    assert near.max() < reach
    assert changed[:, :200].any()
    assert changed[:, 200:].any()


def test_an_unknown_drawing_is_refused(result: PredictionResult) -> None:
    with pytest.raises(ValueError, match=r"method must be one of full, bbox, .*, got 'magic'"):
        result.draw("magic")  # type: ignore[arg-type]


def test_points_of_the_face_are_visible_where_the_face_is(result: PredictionResult) -> None:
    face = result.part_boxes()["face"][0]
    rows, columns = np.nonzero((result.draw("points") != result.image_rgb).any(axis=2))
    mine = columns < 200
    assert columns[mine].min() == pytest.approx(face[0], abs=2)
    assert columns[mine].max() == pytest.approx(face[2], abs=2)
    assert rows[mine].max() == pytest.approx(face[3], abs=2)


def test_pncc_changes_nothing_and_has_depth_between_heads(shapes: HeadShapes) -> None:
    image = np.zeros((240, 240, 3), np.uint8)
    near, far = posed((0, 0, 0), (120, 120), 700), posed((0, 0, 0), (135, 120), 500)
    results = [
        PredictionResult(image, heads_of(*pair), shapes) for pair in ((near, far), (far, near))
    ]
    vertices = results[0].heads.vertices_px.copy()
    maps = [result.pncc() for result in results]
    assert (maps[0] == maps[1]).all()  # the order in the list does not matter
    assert (results[0].pncc() == maps[0]).all()
    assert (results[0].heads.vertices_px == vertices).all()
    alone = PredictionResult(image, heads_of(near), shapes).pncc()
    covered = alone.any(axis=2)
    assert covered.sum() > 5000
    assert (maps[0][covered] == alone[covered]).all()
    assert (maps[0].any(axis=2) & ~covered).any()  # the farther one shows beside it


def test_no_heads(shapes: HeadShapes) -> None:
    result = PredictionResult(noise_image(0), Heads.empty(), shapes)
    assert len(result) == 0
    assert (result.draw() == result.image_rgb).all()
    assert not result.pncc().any()
    assert result.aligned_heads() == []
    assert result.to_json()["heads"] == []
    assert result.to_coco()["annotations"] == []


def test_aligned_heads_are_upright_at_any_yaw(shapes: HeadShapes) -> None:
    poses = [(0, yaw, 0) for yaw in (0, 50, 70, 90, 150)]
    image = np.full((240, 240, 3), 60, np.uint8)
    for pose in poses:
        result = PredictionResult(image, heads_of(posed(pose, (120, 120))), shapes)
        (head,) = result.aligned_heads(64)
        assert head.image_rgb.shape == (64, 64, 3)
        points = result.heads.vertices_px[0, :, :2] @ head.matrix[:, :2].T + head.matrix[:, 2]
        inside = points[shapes.head_model.region("head")]
        assert inside.min() > 0
        assert inside.max() < 64
        crown, chin = inside[:, 1].min(), inside[:, 1].max()
        assert chin - crown == pytest.approx(64 / 1.2, abs=1)


@pytest.mark.parametrize("form", ["obj", "glb"])
@pytest.mark.parametrize("unit", ["m", "px"])
def test_meshes_stand_upright(
    result: PredictionResult, tmp_path: Path, open_head: HeadModel, form: str, unit: str
) -> None:
    before = result.heads.vertices_px.copy()
    paths = result.save_meshes(tmp_path / "new" / "meshes", form, unit)  # type: ignore[arg-type]
    assert [path.name for path in paths] == [f"head_0.{form}", f"head_1.{form}"]
    assert (result.heads.vertices_px == before).all()
    mesh = trimesh.load(paths[0], force="mesh", process=False)
    assert (np.asarray(mesh.faces) == open_head.faces).all()
    points = np.asarray(mesh.vertices)
    template = open_head.v_template
    crown, nose = template[:, 1].argmax(), template[:, 2].argmax()
    chin = result.heads.shapes.head_model.region("head")[
        template[result.heads.shapes.head_model.region("head"), 1].argmin()
    ]
    assert points[crown, 1] > points[nose, 1] > points[chin, 1]  # y up
    assert points[nose, 2] > points[crown, 2]  # the nose towards the viewer
    size = np.ptp(points, axis=0).max()
    if unit == "m":
        assert 0.2 < size < 0.45
        assert np.linalg.norm(points.mean(axis=0)) < 0.1
    else:
        expected = before[0] * [1, -1, -1] + [0, 220, 0]
        np.testing.assert_allclose(points, expected, atol=2e-3)
    # outside is outside: normals point away from the middle
    assert mesh.volume > 0


def test_mesh_words_are_checked(result: PredictionResult, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="mesh format: expected one of obj, glb, got 'fbx'"):
        result.save_meshes(tmp_path, "fbx")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="mesh unit: expected one of m, px, got 'cm'"):
        result.save_meshes(tmp_path, "obj", "cm")  # type: ignore[arg-type]


def test_the_scene_holds_all_heads_in_place(result: PredictionResult) -> None:
    scene = trimesh.load(trimesh.util.wrap_as_stream(result.scene_glb()), file_type="glb")
    assert sorted(scene.geometry) == ["head_0", "head_1"]
    left, right = (scene.geometry[f"head_{i}"].vertices.mean(axis=0) for i in range(2))
    assert left[0] < 0 < right[0]
    assert np.abs(np.asarray(scene.bounds)[:, :2]).max() < 0.5


def test_part_boxes_lie_where_the_parts_are(result: PredictionResult) -> None:
    parts = result.part_boxes()
    assert {"face", "left_ear", "right_ear", "neck"} <= set(parts)
    face, left, right = parts["face"][0], parts["left_ear"][0], parts["right_ear"][0]
    assert parts["face"].shape == (2, 4)
    assert face[0] < 110 < face[2]
    assert right[2] < left[2]  # the head's own left is at the image's right
    with pytest.raises(KeyError, match="no region 'beard'"):
        result.heads.part_boxes("beard")


def test_json_says_everything_and_reads_back(result: PredictionResult) -> None:
    found = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert found["image"] == {"name": "folder/two.jpg", "width": 400, "height": 220}
    head = found["heads"][1]
    flame = head["flame"]
    joined = np.concatenate([np.array(flame[name], np.float32) for name in flame])
    np.testing.assert_array_equal(joined, result.heads.flame[1])
    assert list(head["pose_deg"]) == ["pitch", "yaw", "roll"]
    assert head["pose_deg"]["yaw"] == pytest.approx(75, abs=1e-3)
    assert len(head["landmarks_px"]) == 68
    assert len(head["parts"]["face"]) == 4


def test_coco_is_read_by_the_reference_tool(result: PredictionResult, tmp_path: Path) -> None:
    other = PredictionResult(result.image_rgb, result.heads.raw, None, "folder/other.jpg")
    path = tmp_path / "coco.json"
    path.write_text(json.dumps(coco_of([result, other])))
    coco = COCO(str(path))
    assert [image["file_name"] for image in coco.loadImgs([1, 2])] == [
        "folder/two.jpg",
        "folder/other.jpg",
    ]
    annotations = coco.loadAnns(coco.getAnnIds(imgIds=[1]))
    assert annotations[0]["bbox"] == [60, 60, 100, 100]
    assert annotations[0]["score"] == 0.9


def test_vertices_are_computed_once(shapes: HeadShapes) -> None:
    heads = DetectedHeads(heads_of(LEFT), shapes)
    assert heads.vertices_px is heads.vertices_px


def test_a_scene_without_heads_is_refused_by_name(shapes) -> None:
    result = PredictionResult(noise_image(0), Heads.empty(), shapes, "empty.jpg")
    with pytest.raises(ValueError, match=r"empty\.jpg has no heads"):
        result.scene_glb()
