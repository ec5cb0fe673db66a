import numpy as np
import pytest
import torch

from ml.flame.frames import image_to_network, network_to_image
from ml.imaging.letterbox import PADDING_VALUE, Letterbox, letterbox_image


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [
        (640, 640, Letterbox(1.0, 0, 0)),
        (1280, 640, Letterbox(0.5, 0, 160)),
        (320, 640, Letterbox(1.0, 160, 0)),
        (100, 50, Letterbox(6.4, 0, 160)),
    ],
)
def test_fit_by_hand(width, height, expected):
    assert Letterbox.fit(width, height, 640) == expected


def test_image_is_centred_on_grey():
    image = np.full((50, 100, 3), 200, dtype=np.uint8)
    square, letterbox = letterbox_image(image, 64)
    assert square.shape == (64, 64, 3)
    assert letterbox == Letterbox(0.64, 0, 16)
    assert (square[16:48] == 200).all()
    assert (square[:16] == PADDING_VALUE).all()
    assert (square[48:] == PADDING_VALUE).all()


def test_image_of_the_right_size_is_untouched():
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    square, letterbox = letterbox_image(image, 64)
    np.testing.assert_array_equal(square, image)
    assert letterbox == Letterbox()


@pytest.mark.parametrize("shape", [(1, 700, 3), (700, 1, 3), (3, 5, 3)])
def test_extreme_images_fit(shape):
    square, _ = letterbox_image(np.zeros(shape, dtype=np.uint8), 64)
    assert square.shape == (64, 64, 3)


def test_a_drawn_box_lands_where_the_similarity_says():
    image = np.zeros((120, 300, 3), dtype=np.uint8)
    image[30:90, 60:150] = 255
    square, letterbox = letterbox_image(image, 150)
    rows, columns = np.nonzero(square[:, :, 0] > 200)
    found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    box = letterbox.boxes_to_network(np.array([60, 30, 150, 90], dtype=np.float32))
    np.testing.assert_allclose(found, box, atol=0.01)


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor])
def test_round_trips(kind):
    rng = np.random.default_rng(1)
    letterbox = Letterbox(0.37, 12, 80)
    boxes = kind(rng.uniform(0, 500, (4, 4)).astype(np.float32))
    flame = kind(rng.normal(size=(4, 413)).astype(np.float32))
    back = letterbox.boxes_to_image(letterbox.boxes_to_network(boxes))
    assert type(back) is type(boxes)
    np.testing.assert_allclose(back, boxes, rtol=1e-4)
    again = network_to_image(image_to_network(flame, letterbox), letterbox)
    assert type(again) is type(flame)
    np.testing.assert_allclose(again, flame, atol=1e-4)


def test_parameters_move_with_the_points_they_project_to():
    rng = np.random.default_rng(2)
    letterbox = Letterbox(2.5, 30, 7)
    flame = rng.normal(size=413).astype(np.float32)
    flame[412] = 150
    vertices = rng.normal(size=(10, 3))  # already rotated
    points = flame[412] * vertices[:, :2] + flame[409:411]
    moved = image_to_network(flame, letterbox)
    expected = points * 2.5 + [30, 7]
    np.testing.assert_allclose(moved[412] * vertices[:, :2] + moved[409:411], expected, rtol=1e-5)
    np.testing.assert_array_equal(moved[:409], flame[:409])


def test_errors_say_what_is_wrong():
    with pytest.raises(ValueError, match=r"expected \(H, W, 3\), got \(4, 4\)"):
        letterbox_image(np.zeros((4, 4), dtype=np.uint8), 32)
    with pytest.raises(ValueError, match="image with pixels, got 0 x 4"):
        letterbox_image(np.zeros((4, 0, 3), dtype=np.uint8), 32)
    with pytest.raises(ValueError, match=r"Letterbox.scale: expected a finite number > 0, got 0"):
        Letterbox(0.0)


def test_shrinking_averages_what_it_cannot_show():
    # Five pixels to one: the centre of each 25 is black or white, and 12 or 13 of them are white.
    board = np.indices((160, 160)).sum(axis=0) % 2
    image = np.repeat((255 * board).astype(np.uint8)[:, :, None], 3, axis=2)
    square, _ = letterbox_image(image, 32)
    assert set(np.unique(square)) == {round(255 * 12 / 25), round(255 * 13 / 25)}
