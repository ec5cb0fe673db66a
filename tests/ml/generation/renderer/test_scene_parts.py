"""Places, lights, materials, camera and the prepared head."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy.spatial import cKDTree

from ml.captions.scene import LIGHTS, PLACES
from ml.generation.renderer.backgrounds import paint_background
from ml.generation.renderer.camera import Camera, develop
from ml.generation.renderer.head_assets import (
    SKULL_CENTRE,
    grid_directions,
    hairline,
    prepare_head,
    sample_radius,
    skull_radius,
)
from ml.generation.renderer.lighting import ambient_occlusion, make_rig
from ml.generation.renderer.materials import MaterialTable, skin_albedo, srgb
from ml.generation.renderer.noise import fractal_image
from ml.generation.renderer.people import head_kit


@pytest.mark.parametrize("place", PLACES)
def test_every_place_is_painted_alike_from_the_same_seed(place):
    light = LIGHTS[PLACES.index(place) % len(LIGHTS)]
    first, again = (
        paint_background(place, light, 40, 56, 18.0, np.random.default_rng(2)) for _ in range(2)
    )
    assert first.shape == (40, 56, 3)
    assert first.dtype == np.float32
    assert np.array_equal(first, again)
    assert first.min() >= 0.0
    assert first.max() <= 1.0
    assert first.std() > 0.005


def test_unknown_words_are_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="scene light: expected one of"):
        paint_background("a park", "moonshine", 8, 8, 4.0, rng)
    with pytest.raises(ValueError, match="scene light: expected one of"):
        make_rig("moonshine", rng)


def test_backlight_comes_from_behind_and_daylight_from_the_front():
    for seed in range(10):
        behind = make_rig("backlight", np.random.default_rng(seed)).key
        front = make_rig("bright daylight", np.random.default_rng(seed)).key
        assert behind[2] > 0 > front[2]
        assert front[1] < 0


def test_monk_tones_get_darker_and_stay_warm():
    luma = [float(skin_albedo(tone).mean()) for tone in range(1, 11)]
    assert all(a > b for a, b in pairwise(luma[3:]))
    assert min(luma[:4]) > luma[4]
    assert all(skin_albedo(tone)[0] > skin_albedo(tone)[2] for tone in range(1, 11))


def test_srgb_is_the_standard_curve():
    assert srgb([255, 0, 188]) == pytest.approx([1.0, 0.0, 0.5029], abs=1e-3)


def test_material_rows_keep_their_numbers():
    table = MaterialTable()
    assert table.array().shape == (0, 24)
    row = table.add(2, (0.1, 0.2, 0.3), pattern="checked", scale=0.07)
    table.set(row, 13, 0.5)
    assert table.array()[0, [0, 1, 3, 7, 8, 13]] == pytest.approx([2, 0.1, 0.3, 2, 0.07, 0.5])


def test_occlusion_darkens_beside_a_step_only():
    depth = np.full((40, 40), 100.0, np.float32)
    depth[:, :20] = 90.0
    open_sky = ambient_occlusion(depth, 6.0)
    assert open_sky[20, 21] < 0.9
    assert open_sky[20, 36] == 1.0
    assert open_sky[20, 5] == 1.0


def test_a_neutral_camera_only_encodes():
    camera = Camera(1.0, np.ones(3), 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, False)
    linear = np.full((4, 4, 3), 0.5**2.2, np.float32)
    assert np.abs(develop(linear, camera, np.random.default_rng(0)).astype(int) - 128).max() <= 1


def test_noise_is_smooth_and_repeats():
    image = fractal_image(64, 64, 16.0, 3, 5.0)
    assert np.array_equal(image, fractal_image(64, 64, 16.0, 3, 5.0))
    assert np.abs(np.diff(image, axis=0)).max() < 0.3
    assert 0.3 < image.mean() < 0.7


def test_skull_grid_follows_the_surface(head_model):
    kit = head_kit(head_model)
    directions = grid_directions()
    upper = directions[:, 1] > 0.3
    points = SKULL_CENTRE + directions * sample_radius(kit.rest_radius, directions)[:, None]
    skin = kit.assets.template
    nearest, _ = cKDTree(skin).query(points[upper])
    assert nearest.max() < 0.02
    larger = skull_radius(kit.assets, SKULL_CENTRE + (skin - SKULL_CENTRE) * 1.1)
    assert np.allclose(larger, 1.1 * kit.rest_radius, rtol=1e-4)


def test_hairline_leaves_the_face_bare():
    inside = hairline(
        np.array([[0.0, 0.125, 0.03], [0.0, 0.0, -0.1], [0.0, 0.05, 0.1], [0.03, 0, 0.1]])
    )
    assert (inside > 0).tolist() == [True, True, False, False]


def test_a_head_model_without_attributes_is_painted_from_its_landmarks(head_model):
    kit = head_kit(head_model)
    with_names = kit.assets.paint
    landmarks = np.stack(
        [
            (kit.assets.template[head_model.faces[face]] * weight[:, None]).sum(axis=0)
            for face, weight in zip(
                head_model.landmark_faces, head_model.landmark_barycentric, strict=True
            )
        ]
    )
    paint = prepare_head(kit.assets.template, head_model.faces, head_model.regions, landmarks).paint
    lips = head_model.attributes["lips"] > 0.5
    assert paint[lips, 1].mean() > 0.4
    assert paint[~lips, 1].mean() < 0.08
    assert np.array_equal(paint[:, 0], with_names[:, 0])
    with pytest.raises(ValueError, match=r"needs regions \['ears'\]"):
        regions = {k: v for k, v in head_model.regions.items() if k != "ears"}
        prepare_head(kit.assets.template, head_model.faces, regions, landmarks)
