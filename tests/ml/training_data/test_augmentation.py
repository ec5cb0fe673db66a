"""Augmentation: parameters, boxes and pixels move together, at every yaw."""

from __future__ import annotations

import colorsys
from collections.abc import Iterator

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from ml.imaging.io import decode_image, encode_jpeg
from ml.imaging.letterbox import PADDING_VALUE
from ml.training_data.augmentation import (
    AugmentConfig,
    change_look,
    head_outlines,
    random_similarity,
)
from ml.training_data.published_augmentation import published_similarity
from ml.training_data.similarity import Similarity

Array = NDArray[np.floating]
HALF = np.random.default_rng(0).normal(0, 0.1, (40, 3))
FLIP = np.diag([-1.0, 1.0, 1.0])
#: A mirror-symmetric cloud; vertex i and i + 40 are a pair.
VERTICES = np.concatenate([HALF, HALF @ FLIP])
SWAP = np.r_[40:80, 0:40]
#: Probabilities of an augmentation that leaves every look as it is.
NOTHING = {"colour": 0.0, "grey": 0.0, "blur": 0.0, "noise": 0.0, "jpeg": 0.0}


def head(yaw_deg: float, pitch_deg: float = 10, roll_deg: float = -7) -> NDArray[np.float32]:
    """One head's 413 parameters, image frame."""
    angles = [yaw_deg, pitch_deg, roll_deg]
    matrix = (
        np.diag([1.0, -1.0, -1.0]) @ Rotation.from_euler("yxz", angles, degrees=True).as_matrix()
    )
    flame = np.zeros(413)
    flame[403:409] = np.concatenate([matrix[:, 0], matrix[:, 1]])
    flame[409:413] = [70.0, 90.0, 0.0, 150.0]
    return flame.astype(np.float32)


def projected(flame: Array) -> NDArray[np.float64]:
    """(N, 413) -> (N, V, 3), by the definition of the official decoder."""
    a, b = flame[:, 403:406].astype(float), flame[:, 406:409].astype(float)
    a /= np.linalg.norm(a, axis=1, keepdims=True)
    c = np.cross(a, b)
    c /= np.linalg.norm(c, axis=1, keepdims=True)
    rotation = np.stack([a, np.cross(c, a), c], axis=-1)
    turned = np.einsum("nij,vj->nvi", rotation, VERTICES)
    return flame[:, None, 412:] * turned + flame[:, None, 409:412]


def mirror(flame: Array) -> Array:
    """The cloud's mirror: R <- D R D, t_x <- -t_x."""
    moved = np.array(flame)
    moved[:, 403:406] *= [1, -1, -1]
    moved[:, 406:409] *= [-1, 1, 1]
    moved[:, 409] *= -1
    return moved


@pytest.mark.parametrize("yaw_deg", range(0, 181, 15))
@pytest.mark.parametrize("flip", [False, True])
def test_projection_of_moved_parameters_is_moved_projection(yaw_deg: float, flip: bool) -> None:
    flame = np.stack([head(yaw_deg), head(-yaw_deg, 35, 50)])
    change = Similarity(1.4, np.deg2rad(37), (12.0, -9.0), 160.0 if flip else None)
    moved = projected(change.flame(flame, mirror))
    expected = change.points(projected(flame)[..., :2])
    if flip:
        moved = moved[:, SWAP]
    assert np.abs(moved[..., :2] - expected).max() < 1e-3


def test_depth_order_survives() -> None:
    flame = head(30)[None]
    change = Similarity(0.5, np.deg2rad(90), (3.0, 4.0))
    before, after = projected(flame)[0, :, 2], projected(change.flame(flame))[0, :, 2]
    assert np.allclose(after, 0.5 * before, atol=1e-4)


def test_wrong_side_would_be_caught() -> None:
    """The official code multiplies from the right: fine for frontal heads, 45 deg off at 60."""
    turn = Rotation.from_euler("z", 45, degrees=True).as_matrix()

    def error(yaw_deg: float) -> float:
        flame = head(yaw_deg, 0, 0)[None]
        columns = flame[0, 403:409].reshape(2, 3)
        matrix = np.column_stack([*columns, np.cross(*columns)])
        right = matrix @ turn.T
        moved = Similarity(1.0, np.deg2rad(45)).flame(flame)[0, 403:409].reshape(2, 3)
        left = np.column_stack([*moved, np.cross(*moved)])
        return float(np.rad2deg(np.arccos(np.clip((np.trace(right @ left.T) - 1) / 2, -1, 1))))

    assert error(0) < 0.1
    assert 40 < error(60) < 50


@given(
    st.floats(0.4, 2.0),
    st.floats(-3.1, 3.1),
    st.floats(-50, 50),
    st.booleans(),
)
@settings(max_examples=30, deadline=None)
def test_points_are_a_similarity(zoom: float, angle: float, shift: float, flip: bool) -> None:
    change = Similarity(zoom, angle, (shift, -shift), 64.0 if flip else None)
    points = np.random.default_rng(1).uniform(0, 64, (10, 2))
    moved = change.points(points).astype(float)
    before = np.linalg.norm(points[:, None] - points[None], axis=2)
    after = np.linalg.norm(moved[:, None] - moved[None], axis=2)
    assert np.allclose(after, zoom * before, atol=1e-3)
    determinant = np.linalg.det(change.matrix()[:, :2])
    assert np.sign(determinant) == (-1 if flip else 1)


def test_then_shifts_what_came_before() -> None:
    similarity = Similarity(1.5, 0.4, (3.0, -7.0), mirror_width=64.0)
    points = np.random.default_rng(0).uniform(0, 64, (5, 2))
    expected = similarity.points(points) + np.float32([10.0, 20.0])
    np.testing.assert_allclose(similarity.then(10.0, 20.0).points(points), expected, atol=1e-4)


def test_double_flip_is_identity() -> None:
    flame = np.stack([head(33), head(140)])
    flip = Similarity(mirror_width=100.0)
    assert np.allclose(flip.flame(flip.flame(flame, mirror), mirror), flame, atol=1e-4)


def test_flip_without_mirror_is_refused() -> None:
    with pytest.raises(ValueError, match="set the flip probability to 0"):
        Similarity(mirror_width=10.0).flame(head(0)[None])


@pytest.mark.parametrize("angle_deg", [0, 90, 30, -120])
@pytest.mark.parametrize("zoom", [0.5, 0.8, 1.0, 1.7])
def test_pixels_move_as_points(angle_deg: float, zoom: float) -> None:
    image = np.full((60, 80, 3), 127, np.uint8)
    cv_box = (slice(20, 28), slice(30, 38))
    image[cv_box] = (255, 0, 0)
    start = np.array([40.0, 30.0])
    turned = Similarity(zoom, np.deg2rad(angle_deg)).points(start)
    change = Similarity(zoom, np.deg2rad(angle_deg), tuple(48 - turned), None)
    warped = change.warp(image, 96).astype(float)
    weight = np.abs(warped - 127).sum(axis=2)
    grid_y, grid_x = np.mgrid[0:96, 0:96] + 0.5
    centre = np.array([(weight * grid_x).sum(), (weight * grid_y).sum()]) / weight.sum()
    assert np.abs(centre - change.points(np.array([34.0, 24.0]))).max() < 0.15


def test_mirrored_pixels() -> None:
    image = np.random.default_rng(0).integers(0, 256, (50, 50, 3), dtype=np.uint8)
    assert np.array_equal(Similarity(mirror_width=50.0).warp(image, 50), image[:, ::-1])


@given(
    st.floats(0.1, 1.6),
    st.floats(-180, 180),
    st.booleans(),
    st.tuples(st.floats(-40, 340), st.floats(-40, 240)),
    st.sampled_from([32, 64, 128]),
)
@settings(max_examples=60, deadline=None)
def test_every_pixel_shows_the_old_place(
    zoom: float, angle_deg: float, mirrors: bool, focus: tuple[float, float], size: int
) -> None:
    # A slow ramp over 300 x 200 px, so that averaging an area gives the value of its centre.
    y, x = np.mgrid[0:200, 0:300] + 0.5
    image = np.stack([x * 0.8, y * 1.2, (x + y) * 0.5], axis=2).round().astype(np.uint8)
    angle, width = np.deg2rad(angle_deg), 300.0 if mirrors else None
    shift = size / 2 - Similarity(zoom, angle, mirror_width=width).points(np.array(focus))
    change = Similarity(zoom, angle, (float(shift[0]), float(shift[1])), width)
    warped = change.warp(image, size).astype(float)
    matrix = change.matrix()
    new = np.stack(np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5), axis=-1)
    old = (new - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T
    edge = np.array([300, 200]) / 2 - np.abs(old - np.array([300, 200]) / 2)
    inside, outside = (edge > 1.5 / zoom + 1).all(axis=-1), (edge < -1.5 / zoom - 1).any(axis=-1)
    ramp = np.stack([old[..., 0] * 0.8, old[..., 1] * 1.2, old.sum(axis=-1) * 0.5], axis=-1)
    assert np.abs(warped - ramp)[inside].max(initial=0) < 2 + 0.6 / zoom
    assert (warped[outside] == PADDING_VALUE).all()


def test_outline_bounds_are_the_box_and_rotation_stays_tight() -> None:
    rng = np.random.default_rng(2)
    circle = rng.uniform(0, 2 * np.pi, 600)
    points = np.stack([50 + 20 * np.cos(circle), 60 + 20 * np.sin(circle)], axis=1)
    box = np.array([[30.0, 40.0, 70.0, 80.0]], np.float32)
    outlines = head_outlines(box, [points.astype(np.float32)])
    assert np.allclose(np.r_[outlines[0].min(0), outlines[0].max(0)], box[0], atol=1e-4)
    turned = Similarity(1.0, np.deg2rad(45)).boxes(box, outlines)[0]
    # The bounds of the turned disc keep its size; those of the turned box would be 1.41 larger.
    assert np.allclose(turned[2:] - turned[:2], 40, atol=0.6)


def test_outline_of_a_truncated_or_unknown_head() -> None:
    box = np.array([[0.0, 40.0, 20.0, 80.0]] * 3, np.float32)
    full = np.stack(np.meshgrid(np.linspace(-20, 20, 30), np.linspace(40, 80, 30)), -1).reshape(
        -1, 2
    )
    far = full + 500
    outlines = head_outlines(box, [full.astype(np.float32), far.astype(np.float32), None])
    for outline in outlines:
        assert np.allclose(np.r_[outline.min(0), outline.max(0)], box[0], atol=1e-4)
    assert np.allclose(outlines[1], outlines[2])
    assert head_outlines(np.zeros((0, 4), np.float32), []).shape == (0, 32, 2)


def test_boxes_without_rotation_are_exact() -> None:
    boxes = np.array([[10.0, 20.0, 30.0, 60.0]], np.float32)
    outlines = head_outlines(boxes, [None])
    moved = Similarity(2.0, 0.0, (5.0, 6.0), 100.0).boxes(boxes, outlines)
    assert np.allclose(moved, [[2 * 70 + 5, 46, 2 * 90 + 5, 126]])


def test_random_similarity_keeps_the_centre_near() -> None:
    config = AugmentConfig(shift=0.1, zoom=(0.5, 2.0), rotate=1.0, rotation_deg=45, flip=0.5)
    mirrored = 0
    for seed in range(50):
        change = random_similarity(60, 80, 64, config, np.random.default_rng(seed))
        centre = change.points(np.array([40.0, 30.0]))
        assert np.abs(centre - 32).max() <= 6.4 + 1e-3
        assert 0.5 * 0.8 <= change.zoom <= 2.0 * 0.8
        mirrored += change.mirror_width is not None
    assert 10 < mirrored < 40


def test_change_look_depends_on_the_seed_alone() -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    config = AugmentConfig(colour=1, grey=0.5, blur=1, noise=1, jpeg=1)
    same = [change_look(image, config, np.random.default_rng(5)) for _ in range(2)]
    other = change_look(image, config, np.random.default_rng(6))
    assert np.array_equal(*same)
    assert not np.array_equal(same[0], other)
    assert same[0].shape == image.shape
    assert same[0].dtype == np.uint8
    still = AugmentConfig(colour=0, grey=0, blur=0, noise=0, jpeg=0)
    assert np.array_equal(change_look(image, still, np.random.default_rng(5)), image)


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_most_windows_are_centred_on_the_chosen_point_and_some_are_not(flip: float) -> None:
    config = AugmentConfig(flip=flip, rotate=1.0, zoom=(1.0, 1.0), shift=0.0)
    centre = np.array([[200.0, 40.0]], np.float32)
    labels = np.array([[190.0, 30.0, 210.0, 50.0]], np.float32)
    middles = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        moved = random_similarity(256, 256, 192, config, rng, window=128, centres_px=centre)
        assert moved.zoom == pytest.approx(192 / 256)
        box = moved.boxes(labels, head_outlines(labels, [None]))[0]
        middles.append((box[:2] + box[2:]) / 2)
    centred = (np.abs(np.array(middles) - 64) < 0.5).all(axis=1)
    assert 0.45 < centred.mean() < 0.85


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
@pytest.mark.parametrize("flip", [False, True])
def test_published_geometry_is_the_product_of_its_steps(quarters: int, flip: bool) -> None:
    """Mirror, rotation and zoom about a shifted centre, quarter turn about the middle, letterbox:
    applied one after the other to projected vertices, and to the parameters at once."""

    class Fixed:
        """A source that gives chosen numbers."""

        def random(self, count: int) -> list[float]:
            return [0.0, 0.0, 0.0 if flip else 1.0]

        def uniform(self, low: float, high: float, count: int | None = None) -> object:
            return np.array([0.6, 0.8, -0.7]) if count == 3 else 1.3

        def integers(self, high: int) -> int:
            return quarters

    height, width, size = 60, 100, 192
    change = published_similarity(height, width, size, Fixed(), 0.5)  # type: ignore[arg-type]
    flames = np.concatenate([[head(yaw), head(-yaw, 30, 40)] for yaw in range(0, 181, 20)])
    points = projected(flames)[..., :2]
    if flip:
        points = np.stack([width - points[..., 0], points[..., 1]], axis=-1)
    angle = np.deg2rad(0.6 * 45)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    centre = np.array([width * (0.5 + 0.08), height * (0.5 - 0.07)])
    points = 1.3 * (points - centre) @ turn.T + centre
    quarter = np.linalg.matrix_power(np.array([[0, -1], [1, 0]]), quarters)
    points = (points - [width / 2, height / 2]) @ quarter.T * (size / width) + size / 2
    moved = projected(change.flame(flames, mirror))[..., :2]
    assert np.abs((moved[:, SWAP] if flip else moved) - points).max() < 2e-3


def test_published_geometry_is_drawn_as_often_as_published() -> None:
    changes = [published_similarity(80, 80, 64, np.random.default_rng(seed)) for seed in range(800)]
    zooms = np.array([change.zoom / 0.8 for change in changes])
    turned = np.array([change.angle_rad != 0 for change in changes])
    assert 0.5 <= zooms.min() < 0.6
    assert 1.9 < zooms.max() <= 2.0
    assert np.mean(zooms != 1) == pytest.approx(0.35, abs=0.05)
    assert turned.mean() == pytest.approx(1 - 0.65 * (1 - 0.2 * 0.75), abs=0.05)
    assert not any(change.mirror_width for change in changes)
    config = AugmentConfig(recipe="published", flip=0.0)
    same = random_similarity(80, 80, 64, config, np.random.default_rng(3))
    assert same == changes[3]


def test_published_look_depends_on_the_seed_alone() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (6, 5, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    before = torch.random.get_rng_state()
    config = AugmentConfig(recipe="published")
    looks = [change_look(image, config, np.random.default_rng(seed)) for seed in range(40)]
    assert torch.equal(torch.random.get_rng_state(), before)
    again = [change_look(image, config, np.random.default_rng(seed)) for seed in range(40)]
    assert all(np.array_equal(*pair) for pair in zip(looks, again, strict=True))
    assert all(look.shape == image.shape and look.dtype == np.uint8 for look in looks)
    untouched = np.mean([np.array_equal(look, image) for look in looks])
    assert 0.02 < untouched < 0.35  # 0.8^3 * 0.875 * 0.95^2 * 0.5^2 = 0.10


def test_each_published_change_works_on_rgb() -> None:
    """Every change changes something and keeps the image; a red patch stays the reddest but
    where channels are meant to move."""
    from ml.training_data.published_augmentation import _steps

    image = torch.full((1, 3, 40, 48), 0.4)
    image[:, 0, 8:24, 8:24] = 0.9
    image[:, 2, 20:36, 28:44] = 0.8
    image += 0.02 * torch.rand(image.shape, generator=torch.Generator().manual_seed(0))
    groups = [changes for _, changes in _steps()]
    assert [len(changes) for changes in groups] == [5, 3, 2, 1, 1, 2, 1, 1]
    for number, changes in enumerate(groups):
        for index, change in enumerate(changes):
            torch.manual_seed(0)
            found = [change(image, np.random.default_rng(seed)).clamp(0, 1) for seed in range(4)]
            assert all(x.shape == image.shape for x in found), (number, index)
            assert max((x - image).abs().max() for x in found) > 1e-3, (number, index)
            if number not in (4, 5):
                patch = found[0][0, :, 12:20, 12:20].mean(dim=(1, 2))
                assert patch.argmax() == 0, (number, index)


def looks(
    image_rgb: NDArray[np.uint8], seeds: int = 40, **strengths: object
) -> Iterator[NDArray[np.uint8]]:
    """The image after one kind of change, drawn by each of some seeds."""
    config = AugmentConfig.model_validate({**NOTHING, **strengths})
    for seed in range(seeds):
        yield change_look(image_rgb, config, np.random.default_rng(seed))


def hsv(image_rgb: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(H, W, 3) hue in degrees, saturation and value from 0 to 1."""
    pixels = [colorsys.rgb_to_hsv(*pixel) for pixel in image_rgb.reshape(-1, 3) / 255]
    return np.array(pixels).reshape(image_rgb.shape) * [360, 1, 1]


def coloured(saturation: float) -> NDArray[np.uint8]:
    """(1, 90, 3) RGB of full value, hues 4 degrees apart."""
    hues = np.arange(90) / 90
    pixels = [colorsys.hsv_to_rgb(hue, saturation, 1.0) for hue in hues]
    return (255 * np.array([pixels])).round().astype(np.uint8)


def test_all_hues_turn_by_one_angle() -> None:
    image = coloured(1.0)
    turns = []
    for look in looks(image, colour=1.0, brightness=0.0, saturation=0.0, hue=8.0):
        turned = (hsv(look) - hsv(image))[..., 0]
        turned = (turned - turned[0, 0] + 180) % 360 - 180 + (turned[0, 0] + 180) % 360 - 180
        assert np.ptp(turned) < 1.0
        turns.append(turned.mean())
    assert -16.5 < min(turns) < -10  # eight of OpenCV's steps of two degrees
    assert 10 < max(turns) < 16.5


def test_saturation_changes_by_one_factor() -> None:
    image = coloured(0.6)
    factors = []
    for look in looks(image, colour=1.0, brightness=0.0, saturation=0.3, hue=0.0):
        factor = hsv(look)[..., 1] / hsv(image)[..., 1]
        assert np.ptp(factor) < 0.03
        factors.append(factor.mean())
    assert 0.68 < min(factors) < 0.8
    assert 1.2 < max(factors) < 1.32


def test_brightness_and_contrast_change_about_the_mean() -> None:
    ramp = np.arange(60, 180, dtype=np.uint8)
    image = np.repeat(np.repeat(ramp[None, :, None], 8, axis=0), 3, axis=2)
    mean = image[::4, ::4].mean()
    contrasts, gains = [], []
    for look in looks(image, colour=1.0, brightness=0.2, saturation=0.0, hue=0.0):
        contrast, offset = np.polyfit(ramp.astype(float), look[0, :, 0].astype(float), 1)
        contrasts.append(contrast)
        gains.append((contrast * mean + offset) / mean)
    for found in (contrasts, gains):
        assert 0.78 < min(found) < 0.87
        assert 1.13 < max(found) < 1.21


def test_grey_has_one_value_for_all_channels() -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    (look,) = looks(image, seeds=1, grey=1.0)
    expected = image @ np.array([0.299, 0.587, 0.114])  # red counts as red, not as blue
    assert np.abs(look - expected[..., None]).max() <= 1


def test_blur_is_between_its_bounds() -> None:
    image = np.zeros((31, 31, 3), np.uint8)
    image[15, 15] = 255
    sigmas = np.arange(0.2, 4.0, 0.02)
    # How bright the point stays tells the sigma.
    peaks = [float(cv2.GaussianBlur(image, (0, 0), s)[15, 15, 0]) for s in sigmas]
    found = [
        float(np.interp(-float(look[15, 15, 0]), -np.array(peaks), sigmas))
        for look in looks(image, blur=1.0, blur_sigma_px=2.0)
    ]
    assert 0.2 <= min(found) < 0.6
    assert 1.7 < max(found) < 2.1


def test_noise_is_between_its_bounds_and_moves_no_mean() -> None:
    image = np.full((50, 50, 3), 128, np.uint8)
    found = []
    for look in looks(image, noise=1.0, noise_sigma=8.0):
        change = look.astype(float) - image
        assert abs(change.mean()) < 1.0
        found.append(change.std())
    assert 0.9 < min(found) < 2.0
    assert 7.0 < max(found) < 8.3


def test_jpeg_has_every_quality_of_the_range() -> None:
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    qualities = {
        quality: decode_image(encode_jpeg(image, quality)).tobytes() for quality in range(38, 46)
    }
    found = {
        quality
        for look in looks(image, jpeg=1.0, jpeg_quality=(40, 42))
        for quality, data in qualities.items()
        if look.tobytes() == data
    }
    assert len(set(qualities.values())) == len(qualities)
    assert found == {40, 41, 42}


@pytest.mark.parametrize("kind", NOTHING)
def test_each_change_happens_as_often_as_configured(kind: str) -> None:
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    changed = [not np.array_equal(look, image) for look in looks(image, 200, **{kind: 0.3})]
    assert np.mean(changed) == pytest.approx(0.3, abs=0.1)
