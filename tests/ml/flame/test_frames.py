import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml.flame import frames


def random_flame(rng: np.random.Generator, num_heads: int) -> np.ndarray:
    flame = rng.normal(size=(num_heads, 413)).astype(np.float32)
    flame[:, 409:411] = rng.uniform(-50, 300, (num_heads, 2))
    flame[:, 412] = rng.uniform(20, 4000, num_heads)
    return flame


def test_square_holds_the_extended_box_and_keeps_its_centre() -> None:
    boxes = np.array([[10, 20, 50, 100]], np.float32)
    np.testing.assert_array_equal(frames.square_frames(boxes), [[-30, 0, 120]])


@pytest.mark.parametrize("num_heads", [0, 1, 3])
def test_any_number_of_heads(num_heads: int) -> None:
    boxes = np.tile(np.array([[10, 20, 50, 100]], np.float32), (num_heads, 1))
    squares = frames.square_frames(boxes)
    assert squares.shape == (num_heads, 3)
    crops = frames.extract_crops(np.zeros((64, 64, 3), np.uint8), squares, 32)
    assert crops.shape == (num_heads, 32, 32, 3)
    flame = random_flame(np.random.default_rng(0), num_heads)
    assert frames.crop_to_image(flame, squares, 32).shape == (num_heads, 413)
    assert frames.dad_crop_to_image(flame, boxes).shape == (num_heads, 413)


@settings(max_examples=50, deadline=None)
@given(
    left=st.floats(-100, 600),
    top=st.floats(-100, 600),
    side=st.floats(4, 900),
    seed=st.integers(0, 1000),
)
def test_round_trip_is_exact(left: float, top: float, side: float, seed: int) -> None:
    flame = random_flame(np.random.default_rng(seed), 4)
    squares = np.tile(np.array([[left, top, side]], np.float32), (4, 1))
    zoom = 128 / side
    inverse = np.tile([[-left * zoom, -top * zoom, 128 * zoom]], (4, 1))
    back = frames.crop_to_image(frames.crop_to_image(flame, inverse, 128), squares, 128)
    np.testing.assert_allclose(back, flame, rtol=2e-6, atol=1e-3)
    np.testing.assert_array_equal(back[:, :409], flame[:, :409])


def test_points_move_with_the_parameters() -> None:
    """Projecting in the image equals moving the points projected in the crop."""
    rng = np.random.default_rng(3)
    flame = random_flame(rng, 5)
    squares = np.array([[7.5, -3, 41]], np.float32).repeat(5, axis=0)
    points_m = rng.normal(scale=0.1, size=(9, 2))

    def project(params: np.ndarray) -> np.ndarray:
        return params[:, None, 412:413] * points_m[None] + params[:, None, 409:411]

    moved = project(flame) * squares[:, None, 2:] / 128 + squares[:, None, :2]
    in_image = project(frames.crop_to_image(flame, squares, 128))
    np.testing.assert_allclose(in_image, moved, rtol=1e-4, atol=1e-2)


def test_dad_convention_by_its_own_projection() -> None:
    """u = ((S + 1) x + t + 1) / 2 * 256 is in pixels of the extended crop."""
    rng = np.random.default_rng(1)
    dad = np.zeros((2, 413), np.float32)
    dad[:, 409:412] = rng.normal(size=(2, 3))
    dad[:, 412] = [0.5, 7]
    boxes = np.array([[100, -20, 180, 60], [3, 5, 400, 500]], np.float32)
    points = rng.normal(scale=0.1, size=(6, 2))
    image = frames.dad_crop_to_image(dad, boxes)
    for params, moved, box in zip(dad, image, boxes, strict=True):
        crop_px = ((params[412] + 1) * points + params[409:411] + 1) / 2 * 256
        np.testing.assert_allclose(
            moved[412] * points + moved[409:411], crop_px + box[:2], rtol=1e-5
        )
    assert (image[:, 411] == 0).all()


def test_dad_convention_round_trip() -> None:
    flame = random_flame(np.random.default_rng(2), 4)
    flame[:, 411] = 0
    boxes = np.array([[10, 20, 110, 160]] * 4, np.float32)
    back = frames.dad_crop_to_image(frames.image_to_dad_crop(flame, boxes), boxes)
    np.testing.assert_allclose(back, flame, rtol=1e-5, atol=1e-3)


def test_whole_image_at_its_own_size_is_unchanged() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    crop = frames.extract_crops(image, np.array([[0, 0, 64]]), 64)[0]
    np.testing.assert_array_equal(crop, image)


def test_outside_is_black_on_the_side_that_is_outside() -> None:
    image = np.full((40, 40, 3), 200, np.uint8)
    crop = frames.extract_crops(image, np.array([[-20, 0, 40]]), 40)[0]
    assert (crop[:, :20] == 0).all()
    assert (crop[:, 20:] == 200).all()


def test_reduction_averages_cells() -> None:
    image = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    crop = frames.extract_crops(image, np.array([[0, 0, 96]]), 32)[0]
    means = image.reshape(32, 3, 32, 3, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(crop, means, atol=1)


@pytest.mark.parametrize("side", [24.0, 57.3, 200.0])
def test_a_drawn_point_lands_where_the_frame_says(side: float) -> None:
    image = np.zeros((256, 256, 3), np.uint8)
    cv2.circle(image, (121, 88), 4, (255, 255, 255), -1)
    square = np.array([[121.5 - side / 3, 88.5 - side / 2, side]], np.float32)
    crop = frames.extract_crops(image, square, 128)[0][..., 0].astype(float)
    rows, columns = np.mgrid[:128, :128] + 0.5
    centre = np.array([(columns * crop).sum(), (rows * crop).sum()]) / crop.sum()
    np.testing.assert_allclose(centre, [128 / 3, 64], atol=0.3)


def test_errors_name_the_shape_and_the_row() -> None:
    with pytest.raises(ValueError, match=r"flame: last dimension must be 413 .* got \(2, 412\)"):
        frames.crop_to_image(np.zeros((2, 412)), np.array([[0, 0, 1.0]] * 2), 128)
    with pytest.raises(ValueError, match=r"boxes: expected \(N, 4\)"):
        frames.square_frames(np.zeros((2, 5)))
    with pytest.raises(ValueError, match=r"frames\[1\]: expected numbers and a side > 0"):
        frames.extract_crops(np.zeros((4, 4, 3), np.uint8), np.array([[0, 0, 1.0], [0, 0, 0]]), 8)
    with pytest.raises(ValueError, match=r"image_rgb: expected \(H, W, 3\), got \(4, 4\)"):
        frames.extract_crops(np.zeros((4, 4), np.uint8), np.array([[0, 0, 1.0]]), 8)
