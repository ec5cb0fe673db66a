"""Ground truth, reproducibility and the caption's words in rendered images."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.transform import Rotation

from ml.captions.scene import BEARDS, GLASSES, HAIR_STYLES, HATS, LIGHTS, PLACES, TOPS
from ml.flame.geometry import HeadGeometry
from ml.generation.config import RendererConfig
from ml.generation.renderer import people, renderer
from ml.generation.renderer.bodies import ClothedBody, body_meshes
from ml.generation.renderer.renderer import render_pncc, render_sample
from ml.imaging.rasterizer import rasterize

CONFIG = RendererConfig(prop_probability=0.0)
FRONTAL = np.diag([1.0, -1.0, -1.0])


def _rng(seed: int = 3) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("yaw", [0.0, 60.0, -100.0, 170.0])
def test_flame_parameters_project_onto_the_pixels_of_the_head(
    yaw, head_model, make_person, make_pose, make_scene, make_look
):
    turn = FRONTAL @ Rotation.from_euler("yxz", [yaw, 15.0, -10.0], degrees=True).as_matrix()
    pose = make_pose(make_person(rotation=turn))
    # One sample a pixel: both renderings look through the same pixel centres.
    config = CONFIG.model_copy(update={"supersampling": 1})
    sample = render_sample(pose, make_scene(make_look()), head_model, config, _rng())
    (head,) = sample.heads
    geometry = HeadGeometry(head_model, "head_with_ears")
    points = geometry.vertices_xyz_px(head.flame[None])[0]
    expected = rasterize(points, geometry.faces, 96, 96)[0] >= 0
    seen = sample.head_ids == 0
    assert seen.sum() > 300
    # The neck and a collar may hide the lower edge; nothing else may differ.
    assert (seen & ~expected).sum() <= 0.01 * seen.sum()
    assert (expected & ~seen).sum() <= 0.10 * expected.sum()
    upper = np.arange(96)[:, None] < points[:, 1].mean()
    assert (expected & ~seen & upper).sum() == 0
    left, top, width, height = head.bbox_xywh
    inside = points[(points[:, 0] > 0) & (points[:, 0] < 96)]
    assert np.allclose([left, left + width], [inside[:, 0].min(), inside[:, 0].max()], atol=1.0)
    assert top == pytest.approx(inside[:, 1].min(), abs=1.0)
    assert top + height <= inside[:, 1].max() + 1.0


def test_box_is_the_smallest_rectangle_of_visible_head_pixels(
    head_model, make_person, make_pose, make_scene, make_look
):
    config = CONFIG.model_copy(update={"supersampling": 1})
    look = make_look(hair_style="short")
    sample = render_sample(make_pose(make_person()), make_scene(look), head_model, config, _rng())
    rows, columns = np.nonzero(sample.head_ids == 0)
    expected = (columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1)
    assert np.array_equal(sample.heads[0].bbox_xywh, np.array(expected, np.float32))


def test_legs_below_the_border_are_left_out_and_nothing_seen_changes(
    head_model, make_person, make_pose, make_scene, make_look, monkeypatch
):
    pose, scene = make_pose(make_person()), make_scene(make_look())
    numbers: list[int] = []

    def counted(*args: Any) -> ClothedBody:
        clothed = body_meshes(*args)
        numbers.append(sum(len(mesh.faces) for mesh in clothed.pieces))
        return clothed

    def with_legs(*args: Any) -> ClothedBody:
        return counted(*args[:5])

    monkeypatch.setattr(people, "body_meshes", counted)
    left_out = render_sample(pose, scene, head_model, CONFIG, _rng())
    monkeypatch.setattr(people, "body_meshes", with_legs)
    whole = render_sample(pose, scene, head_model, CONFIG, _rng())
    assert numbers[0] < 0.9 * numbers[1]
    assert np.array_equal(left_out.head_ids, whole.head_ids)
    # The shadow map is finer without them; edges of shadows may move by a pixel.
    difference = np.abs(left_out.image_rgb.astype(int) - whole.image_rgb)
    assert (difference > 25).mean() < 0.01


def test_raised_legs_are_drawn(head_model, make_person, make_pose, make_scene, make_look):
    person = make_person(y=60.0, scale=60.0)
    joints = np.array(person.joints_m)
    joints[13:17] = [(0.3, 0.2, -0.3), (-0.3, 0.2, -0.3), (0.3, 0.6, -0.3), (-0.3, 0.6, -0.3)]
    scene = make_scene(make_look(bottom_colour="red"))
    sitting = replace(person, joints_m=joints)
    shown = [
        render_sample(make_pose(who), scene, head_model, CONFIG, _rng()).image_rgb.astype(int)
        for who in (person, sitting)
    ]
    red = [int((image[..., 0] > image[..., 1:].max(axis=-1) + 40).sum()) for image in shown]
    assert red[1] > red[0] + 100


def test_same_seed_same_bytes_and_other_seed_other_image(
    head_model, make_person, make_pose, make_scene, make_look
):
    pose, scene = (
        make_pose(make_person()),
        make_scene(make_look(hair_style="curly"), place="a park"),
    )
    first, again, other = (
        render_sample(pose, scene, head_model, RendererConfig(), _rng(s)) for s in (5, 5, 6)
    )
    assert np.array_equal(first.image_rgb, again.image_rgb)
    assert np.array_equal(first.heads[0].flame, again.heads[0].flame)
    assert not np.array_equal(first.image_rgb, other.image_rgb)


def test_every_person_of_the_pose_has_one_head(
    head_model, make_person, make_pose, make_scene, make_look
):
    people = [make_person(x=x, y=30.0, scale=70.0, depth=i) for i, x in enumerate((20, 48, 76))]
    scene = make_scene(*(make_look(skin_tone=t) for t in (1, 5, 10)))
    sample = render_sample(make_pose(*people), scene, head_model, CONFIG, _rng())
    assert [head.person_id for head in sample.heads] == [0, 1, 2]
    assert [head.skin_tone for head in sample.heads] == [1, 5, 10]
    assert all(head.visible > 0.8 and head.inside == 1.0 for head in sample.heads)


def test_somebody_in_front_lowers_visibility_and_takes_the_pixels(
    head_model, make_person, make_pose, make_scene, make_look
):
    behind = make_person(x=48.0, y=44.0, depth=1)
    looks = (make_look(), make_look())
    alone = render_sample(
        make_pose(make_person(x=200.0), behind), make_scene(*looks), head_model, CONFIG, _rng()
    )
    hidden = render_sample(
        make_pose(make_person(x=37.0), behind), make_scene(*looks), head_model, CONFIG, _rng()
    )
    (free,) = alone.heads
    covered = hidden.heads[1]
    assert free.person_id == covered.person_id == 1
    assert covered.visible < free.visible - 0.2
    assert covered.bbox_xywh[2] < free.bbox_xywh[2]


def test_a_head_across_the_border_is_cut_and_says_so(
    head_model, make_person, make_pose, make_scene, make_look
):
    pose = make_pose(make_person(x=0.0))
    (head,) = render_sample(pose, make_scene(make_look()), head_model, CONFIG, _rng()).heads
    assert 0.4 < head.inside < 0.6
    assert head.visible > 0.8
    assert head.bbox_xywh[0] == 0.0


def test_a_head_outside_the_image_is_no_truth(
    head_model, make_person, make_pose, make_scene, make_look
):
    pose = make_pose(make_person(x=-200.0))
    sample = render_sample(pose, make_scene(make_look()), head_model, CONFIG, _rng())
    assert sample.heads == []
    assert len(sample.flames) == 1


def test_skin_tones_are_ordered_from_light_to_dark(
    head_model, make_person, make_pose, make_scene, make_look
):
    lumas = []
    for tone in (1, 4, 7, 10):
        scene = make_scene(make_look(skin_tone=tone))
        sample = render_sample(make_pose(make_person()), scene, head_model, CONFIG, _rng())
        lumas.append(sample.image_rgb[sample.head_ids == 0].mean())
    assert lumas == sorted(lumas, reverse=True)
    assert lumas[0] > 2 * lumas[-1]


def test_every_word_of_the_vocabularies_can_be_drawn(
    head_model, make_person, make_pose, make_scene, make_look
):
    pose = make_pose(make_person(x=24.0, y=20.0, scale=80.0), side=48)
    length = max(map(len, (PLACES, LIGHTS, TOPS, HAIR_STYLES, HATS, GLASSES, BEARDS)))
    for i in range(length):
        look = make_look(
            top=TOPS[i % len(TOPS)],
            hair_style=HAIR_STYLES[i % len(HAIR_STYLES)],
            hat=HATS[i % len(HATS)],
            glasses=GLASSES[i % len(GLASSES)],
            beard=BEARDS[i % len(BEARDS)],
            subject=("man", "woman", "girl", "boy", "person")[i % 5],
            bottom=("jeans", "trousers", "shorts", "skirt")[i % 4],
            top_pattern=("plain", "striped", "checked", "dotted", "printed")[i % 5],
        )
        place, light = PLACES[i % len(PLACES)], LIGHTS[i % len(LIGHTS)]
        scene = make_scene(look, place=place, light=light)
        image = render_sample(pose, scene, head_model, RendererConfig(), _rng(i)).image_rgb
        assert image.shape == (48, 48, 3)
        assert image.dtype == np.uint8
        assert image.std() > 3.0, (place, light)


def test_night_is_darker_than_day(head_model, make_person, make_pose, make_scene, make_look):
    day, night = (
        render_sample(
            make_pose(make_person()),
            make_scene(make_look(), place="a park", light=light),
            head_model,
            CONFIG,
            _rng(),
        ).image_rgb.mean()
        for light in ("bright daylight", "night light")
    )
    assert night < 0.6 * day


def test_pncc_follows_the_depth_order(head_model, make_person, make_pose, make_scene, make_look):
    pose = make_pose(make_person(x=40.0), make_person(x=56.0, depth=1))
    scene = make_scene(make_look(), make_look())
    sample = render_sample(pose, scene, head_model, CONFIG, _rng())
    near_first = render_pncc(sample, pose, head_model)
    people = (replace(pose.people[0], depth=1), replace(pose.people[1], depth=0))
    far_first = render_pncc(sample, replace(pose, people=people), head_model)
    assert near_first.any()
    assert not np.array_equal(near_first, far_first)


def test_errors_name_pose_person_and_remedy(
    head_model, make_person, make_pose, make_scene, make_look
):
    pose = make_pose(make_person())
    with pytest.raises(
        ValueError, match="pose-test: the scene describes 2 persons, the pose has 1"
    ):
        render_sample(pose, make_scene(make_look(), make_look()), head_model, CONFIG, _rng())
    flat = make_pose(replace(make_person(), joints_m=None))
    with pytest.raises(ValueError, match="person 0 has no third dimension"):
        render_sample(flat, make_scene(make_look()), head_model, CONFIG, _rng())
    broken = make_pose(replace(make_person(), scale_px_per_m=float("nan")))
    with pytest.raises(ValueError, match="not finite or not positive"):
        render_sample(broken, make_scene(make_look()), head_model, CONFIG, _rng())
    with pytest.raises(ValueError, match=r"scene place: expected one of .* got 'the moon'"):
        render_sample(pose, make_scene(make_look(), place="the moon"), head_model, CONFIG, _rng())
    with pytest.raises(ValueError, match="skin tone: expected 1 to 10"):
        render_sample(pose, make_scene(make_look(skin_tone=11)), head_model, CONFIG, _rng())


def test_lighting_cloth_once_a_pixel_hardly_changes_the_image(
    head_model, make_person, make_pose, make_scene, make_look, monkeypatch
):
    """Skin, hair and truth are untouched; cloth keeps its colour, and its folds but for a trace."""
    pose, dressed = make_pose(make_person()), make_scene(make_look(hair_style="short"))
    quick = render_sample(pose, dressed, head_model, CONFIG, _rng())
    lit_once = renderer.shade

    def light_every_sample(*scene_and_step):
        *scene, step = scene_and_step
        assert step == CONFIG.supersampling
        return lit_once(*scene)

    monkeypatch.setattr(renderer, "shade", light_every_sample)
    full = render_sample(pose, dressed, head_model, CONFIG, _rng())
    difference = quick.image_rgb.astype(np.float64) - full.image_rgb
    changed = np.abs(difference).max(axis=2) > 0
    assert 0.05 < changed.mean() < 0.8
    assert np.abs(difference).mean() < 1.0
    assert np.abs(difference[changed].mean()) < 0.5
    assert np.abs(difference).max() < 80
    assert np.array_equal(quick.head_ids, full.head_ids)
    # Seen by itself, a face holds no cloth; the lens spreads a little of it over its rim.
    face = ndimage.binary_erosion(full.head_ids == 0, iterations=3)
    assert face.sum() > 100
    assert np.abs(difference[face]).max() <= 2
