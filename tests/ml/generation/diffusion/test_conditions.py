"""Condition images, and the ground truth of a PNCC map."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from ml.flame.pncc import drawn_faces
from ml.generation.config import HeadVariation
from ml.generation.diffusion.conditions import UNKNOWN, openpose_condition, pncc_condition
from ml.generation.generator import GenerationRequest
from ml.generation.renderer.people import head_kit
from ml.poses.openpose import draw_openpose
from ml.records.ids import sample_rng

VARIATION = HeadVariation()


def request_of(pose, scene=None):
    rng = sample_rng(3, "images", "image-0")
    return GenerationRequest("image-0", pose, scene, "", "", 3, rng)


def test_joints_have_8_px_at_a_shorter_side_of_1024_px(make_pose, make_person):
    person = make_person()
    keypoints = np.zeros((17, 3), np.float32)
    keypoints[5] = (200, 200, 1)
    keypoints[7] = (200, 800, 1)
    keypoints[6] = (400, 200, 1)
    pose = replace(make_pose(replace(person, keypoints=keypoints)), width=1024, height=1280)
    condition = openpose_condition(pose, reverse_channels=False)
    expected = draw_openpose(keypoints[None], 1024, 1280, joint_radius_px=8.0)
    np.testing.assert_array_equal(condition.image_rgb, expected)
    assert condition.heads == ()


def test_a_pncc_head_s_box_encloses_its_pixels_and_its_vertices_say_where(
    make_pose, make_person, head_model
):
    pose = make_pose(make_person(x=48, y=48, scale=200))
    condition = pncc_condition(request_of(pose), head_model, VARIATION)
    (head,) = condition.heads
    y, x = np.nonzero(condition.image_rgb.any(axis=2))
    drawn = [x.min(), y.min(), x.max() + 1 - x.min(), y.max() + 1 - y.min()]
    np.testing.assert_array_equal(head.bbox_xywh, drawn)
    layer = head_kit(head_model).layer
    vertices = layer.vertices_in_image(torch.from_numpy(head.flame[None]))[0].numpy()
    used = vertices[np.unique(drawn_faces(head_model))]
    left, top = used[:, :2].min(axis=0)
    right, bottom = used[:, :2].max(axis=0)
    edges = [left, top, right - left, bottom - top]
    np.testing.assert_allclose(head.bbox_xywh, edges, atol=1.5)
    assert head.visible > 0.95
    assert head.inside == 1.0
    assert (head.hair_style, head.glasses, head.hat) == (UNKNOWN,) * 3


def test_only_nearer_heads_hide_a_head(make_pose, make_person, head_model):
    near, far = make_person(x=40, scale=200), make_person(x=56, scale=200, depth=1)
    first, second = pncc_condition(request_of(make_pose(near, far)), head_model, VARIATION).heads
    assert first.visible > 0.95 > second.visible > 0.1
    swapped = make_pose(replace(near, depth=1), replace(far, depth=0))
    first, second = pncc_condition(request_of(swapped), head_model, VARIATION).heads
    assert second.visible > 0.95 > first.visible


def test_a_head_cut_by_the_border_says_how_much_is_inside(make_pose, make_person, head_model):
    pose = make_pose(make_person(x=0, y=48, scale=200))
    (head,) = pncc_condition(request_of(pose), head_model, VARIATION).heads
    assert 0.3 < head.inside < 0.7
    assert head.visible > 0.9
    assert head.bbox_xywh[0] == 0


def test_a_head_outside_the_image_is_no_truth(make_pose, make_person, head_model):
    pose = make_pose(make_person(x=400, y=48, scale=200))
    assert pncc_condition(request_of(pose), head_model, VARIATION).heads == ()


def test_the_skin_tone_is_the_scene_s(make_pose, make_person, make_scene, make_look, head_model):
    scene = make_scene(make_look(skin_tone=9))
    request = request_of(make_pose(make_person(scale=200)), scene)
    assert pncc_condition(request, head_model, VARIATION).heads[0].skin_tone == 9
