"""Dense ground truth: each map agrees with the mesh, and with the others."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from ml.captions.scene import Scene
from ml.flame.layer import FlameLayer
from ml.flame.params import SCALE
from ml.generation.config import ImagesConfig, RendererConfig
from ml.generation.renderer.dense import CLASSES, MAPS, dense_truth, depth_map
from ml.generation.renderer.renderer import DEPTH_GAP_M, render_sample
from ml.generation.renderer.visibility import visible
from tests.fixtures import scenes

CONFIG = RendererConfig(prop_probability=0.0)
FRONTAL = np.diag([1.0, -1.0, -1.0])
BACKGROUND, FACE, EARS, EYES, HEADWEAR = (
    CLASSES.index(name)
    for name in ("background", "face_and_scalp", "ears", "eyes", "headwear_and_glasses")
)


@pytest.fixture(scope="module")
def rendered(head_model):
    """Two bald people, the second farther away and partly behind the first."""
    look, person, pose = (
        getattr(scenes, name).__wrapped__() for name in ("make_look", "make_person", "make_pose")
    )
    turn = FRONTAL @ Rotation.from_euler("yxz", [35.0, 10.0, -8.0], degrees=True).as_matrix()
    people = pose(
        person(x=110.0, y=90.0, scale=420.0, rotation=turn, depth=0),
        person(x=66.0, y=70.0, scale=300.0, depth=1),
        side=192,
    )
    scene = Scene("a studio", "overcast light", (look(), look(skin_tone=8)))
    sample = render_sample(people, scene, head_model, CONFIG, np.random.default_rng(5))
    return people, sample, dense_truth(sample, people, head_model)


@pytest.fixture(scope="module")
def layer(head_model):
    return FlameLayer(head_model)


def _vertices(layer, sample):
    with torch.inference_mode():
        return layer.vertices_in_image(torch.from_numpy(sample.flames)).numpy()


def test_pose_and_scale_of_a_head_project_its_mesh_as_its_parameters_do(rendered, layer):
    pose, sample, dense = rendered
    expected = _vertices(layer, sample)
    with torch.inference_mode():
        metres = layer.vertices(torch.from_numpy(sample.flames)).numpy()
    for index, head in enumerate(dense.heads):
        at = metres[index] @ np.array(head["rotation"]).T + head["translation_m"]
        centre = np.array([pose.width, pose.height]) / 2
        assert np.allclose(
            head["scale_px_per_m"] * at[:, :2] + centre, expected[index, :, :2], atol=1e-2
        )
        z = head["translation_m"][2]
        assert head["focal_px"] / z == pytest.approx(sample.flames[index, SCALE][0], rel=1e-6)


def test_depth_of_a_head_is_the_depth_of_its_mesh(rendered, layer):
    _, sample, dense = rendered
    with torch.inference_mode():
        metres = layer.vertices(torch.from_numpy(sample.flames)).numpy()
    for index, head in enumerate(dense.heads):
        z = (metres[index] @ np.array(head["rotation"]).T)[:, 2] + head["translation_m"][2]
        pixel = np.floor(_vertices(layer, sample)[index, :, :2]).astype(int)
        seen = np.flatnonzero(dense.vertex_visible[index])
        # On a silhouette the pixel's centre may miss the head.
        seen = seen[dense.maps["instances"][pixel[seen, 1], pixel[seen, 0]] == index]
        assert len(seen) > 500
        at = dense.maps["depth"].astype(float)[pixel[seen, 1], pixel[seen, 0]]
        # A vertex lies up to half a pixel from the centre that was sampled.
        assert np.median(np.abs(at - z[seen])) < 0.003
        assert np.quantile(np.abs(at - z[seen]), 0.95) < 0.012


def test_normals_are_the_gradients_of_the_depth(rendered):
    pose, sample, dense = rendered
    own = (dense.maps["instances"] == 0) & (dense.maps["segmentation"] == FACE)
    mesh = sample.geometry.mesh.scaled(0.5)
    depth = depth_map(mesh, visible(mesh, 192, 192), sample.geometry, pose)
    with np.errstate(invalid="ignore"):
        dy, dx = np.gradient(depth * 420.0)
        normal = np.stack([dx, dy, -np.ones_like(dx)], axis=2)
        normal /= np.linalg.norm(normal, axis=2, keepdims=True)
    interior = own & np.isfinite(normal).all(axis=2)
    cosine = (normal * dense.maps["normals"].astype(float)).sum(axis=2)[interior]
    assert interior.sum() > 2000
    assert np.degrees(np.arccos(np.clip(np.median(cosine), -1, 1))) < 6.0
    assert np.quantile(cosine, 0.1) > np.cos(np.radians(30.0))


def test_all_maps_agree_on_where_people_are(rendered):
    _, _, dense = rendered
    people = dense.maps["instances"] >= 0
    assert 0.2 < people.mean() < 0.9
    assert np.array_equal(people, np.isfinite(dense.maps["depth"]))
    assert np.array_equal(people, dense.maps["segmentation"] != BACKGROUND)
    length = np.linalg.norm(dense.maps["normals"].astype(float), axis=2)
    assert np.allclose(length[people], 1.0, atol=2e-3)
    assert not length[~people].any()
    assert (dense.maps["normals"][..., 2][people] <= 0).all()
    surface = np.isin(dense.maps["segmentation"], [FACE, EARS, EYES])
    assert np.isfinite(dense.maps["uv"][surface]).all()
    assert np.isnan(dense.maps["uv"][~people]).all()


def test_ids_match_the_boxes_of_the_heads(rendered):
    _, sample, dense = rendered
    for head in sample.heads:
        own = dense.maps["instances"] == head.person_id
        parts = np.isin(dense.maps["segmentation"], [FACE, EARS, EYES, HEADWEAR])
        rows, columns = np.nonzero(own & parts)
        left, top, width, height = head.bbox_xywh
        found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert np.allclose(found, [left, top, left + width, top + height], atol=1.0)


def test_the_nearer_person_hides_the_farther_one(rendered, layer, head_model):
    pose, sample, dense = rendered
    depth, person = dense.maps["depth"].astype(float), dense.maps["instances"]
    assert np.median(depth[person == 1]) - np.median(depth[person == 0]) == pytest.approx(
        DEPTH_GAP_M, abs=0.2
    )
    # The neck follows the trunk, so only the head itself is where the parameters put it.
    head = head_model.regions["head_with_ears"]
    pixel = np.floor(_vertices(layer, sample)[1, head, :2]).astype(int)
    assert ((pixel >= 0) & (pixel < pose.width)).all()
    owner = person[pixel[:, 1], pixel[:, 0]]
    assert (owner == 0).sum() > 20
    assert not dense.vertex_visible[1][head][owner == 0].any()


def test_uv_runs_around_the_head_and_down_it(rendered, layer, head_model):
    _, sample, dense = rendered
    template = layer.vertices(torch.zeros(1, 413))[0].numpy()
    seen = np.flatnonzero(dense.vertex_visible[0])
    pixel = np.floor(_vertices(layer, sample)[0, seen, :2]).astype(int)
    uv = dense.maps["uv"].astype(float)[pixel[:, 1], pixel[:, 0]]
    points = template[seen]
    u = 0.5 + np.arctan2(points[:, 0], points[:, 2]) / (2 * np.pi)
    high, low = template[:, 1].max(), template[:, 1].min()
    v = (high - points[:, 1]) / (high - low)
    face = ~np.isin(seen, head_model.regions["eyeballs"])
    assert np.nanmedian(np.abs(uv[face, 0] - u[face])) < 0.01
    assert np.nanmedian(np.abs(uv[face, 1] - v[face])) < 0.01


def test_landmarks_and_gaze_follow_the_turn_of_the_head(
    head_model, make_person, make_pose, make_scene, make_look
):
    def dense(yaw):
        turn = FRONTAL @ Rotation.from_euler("y", yaw, degrees=True).as_matrix()
        pose = make_pose(make_person(rotation=turn))
        scene = make_scene(make_look())
        sample = render_sample(pose, scene, head_model, CONFIG, np.random.default_rng(3))
        return dense_truth(sample, pose, head_model, ()).heads[0]

    front, side, back = dense(0.0), dense(70.0), dense(180.0)
    eyes = slice(36, 48)
    # hidden are the jaw's outline, at the border, and the inner lips of a closed mouth
    assert sum(front["landmarks_visible"][17:60]) > 40
    assert sum(side["landmarks_visible"]) < sum(front["landmarks_visible"])
    assert not any(back["landmarks_visible"][eyes])
    assert front["gaze"][2] < -0.8 < 0.8 < back["gaze"][2]
    turn = Rotation.from_euler("y", 70.0, degrees=True).as_matrix()
    local = FRONTAL.T @ np.array(front["gaze"])
    assert np.allclose(FRONTAL @ turn @ local, side["gaze"], atol=1e-6)


def test_landmarks_are_hidden_by_others_and_end_at_the_border(
    head_model, make_person, make_pose, make_scene, make_look
):
    # The first covers half of the second, and half of the third is outside.
    pose = make_pose(
        make_person(x=60.0, y=60.0, scale=300.0, depth=0),
        make_person(x=85.0, y=60.0, scale=300.0, depth=1),
        make_person(x=192.0, y=60.0, scale=300.0, depth=2),
        side=192,
    )
    scene = make_scene(make_look(), make_look(), make_look())
    sample = render_sample(pose, scene, head_model, CONFIG, np.random.default_rng(3))
    first, second, third = dense_truth(sample, pose, head_model, ()).heads
    assert sum(first["landmarks_visible"]) > 55
    hidden = ~np.array(second["landmarks_visible"])
    x = np.array(second["landmarks_px"])[:, 0]
    assert hidden[x < 76.0].all()
    assert hidden[x > 88.0].mean() < 0.2
    outside = np.array(third["landmarks_px"])[:, 0] >= 192.0
    visible = np.array(third["landmarks_visible"])
    assert 20 < outside.sum() < 60
    assert not visible[outside].any()
    assert visible[~outside].mean() > 0.7


def test_members_repeat_and_hold_only_what_was_asked_for(rendered, head_model):
    pose, sample, dense = rendered
    again = dense_truth(sample, pose, head_model)
    assert dense.members() == again.members()
    with np.load(
        io.BytesIO(dense_truth(sample, pose, head_model, ["uv"]).members()["dense.npz"])
    ) as read:
        assert set(read.files) == {"uv", "vertex_visible"}
    with pytest.raises(ValueError, match=r"expected maps of depth.*got flow"):
        dense_truth(sample, pose, head_model, ["flow"])


def test_only_the_renderer_has_dense_ground_truth():
    assert ImagesConfig(dense=MAPS).dense == MAPS
    with pytest.raises(ValueError, match="only the renderer knows depth"):
        ImagesConfig.model_validate(
            {
                "backend": "sdxl-t2i",
                "dense": ["depth"],
                "diffusion": {
                    name: {"path": name, "asset": "sdxl"} for name in ("base", "conditioner")
                },
            }
        )
