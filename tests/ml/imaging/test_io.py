import numpy as np
import pytest

from ml.imaging.grids import contact_sheet
from ml.imaging.io import UnreadableImage, decode_image, encode_jpeg, encode_png


@pytest.fixture
def red():
    return np.tile(np.array([220, 30, 10], np.uint8), (32, 48, 1))


def test_channels_are_rgb_both_ways(red, tmp_path):
    assert (decode_image(encode_png(red)) == red).all()
    assert np.abs(decode_image(encode_jpeg(red, 95)).astype(int) - red).max() <= 4
    (tmp_path / "red.png").write_bytes(encode_png(red))
    assert decode_image(tmp_path / "red.png").shape == (32, 48, 3)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: b"", "empty: expected encoded bytes, got 0"),
        (lambda data: data[: len(data) // 2], "JPEG is truncated"),
        (lambda data: b"hello world", "no known format"),
    ],
)
def test_damage_is_named(red, damage, message):
    with pytest.raises(UnreadableImage, match=message):
        decode_image(damage(encode_jpeg(red)))


def test_missing_file_is_named(tmp_path):
    with pytest.raises(UnreadableImage, match="cannot be read"):
        decode_image(tmp_path / "none.jpg")


def test_encoder_refuses_other_arrays(red):
    with pytest.raises(ValueError, match=r"expected \(H, W, 3\) uint8 RGB, got \(32, 48\)"):
        encode_jpeg(red[..., 0])


def test_contact_sheet_places_every_picture(red):
    sheet = contact_sheet([red] * 5, columns=3, cell_px=60, labels=["a"] * 5)
    assert sheet.shape == (2 * (64 + 18) + 4, 3 * 64 + 4, 3)
    assert (sheet[4 + 30, 4 + 30] == red[0, 0]).all()
    assert (sheet[4 + 82 + 30, 4 + 64 + 30] == red[0, 0]).all()
    assert (sheet[4 + 82 + 30, 4 + 128 + 30] == 245).all()
