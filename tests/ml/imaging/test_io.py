import io

import cv2
import numpy as np
import pytest
from PIL import GifImagePlugin, Image

from ml.imaging import io as reader
from ml.imaging.grids import contact_sheet
from ml.imaging.io import (
    TRANSPARENT_GREY,
    UnreadableImage,
    decode_image,
    encode_jpeg,
    encode_png,
    to_rgb,
)


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


def test_contact_sheet_places_every_image(red):
    sheet = contact_sheet([red] * 5, columns=3, cell_px=60, labels=["a"] * 5)
    assert sheet.shape == (2 * (64 + 18) + 4, 3 * 64 + 4, 3)
    assert (sheet[4 + 30, 4 + 30] == red[0, 0]).all()
    assert (sheet[4 + 82 + 30, 4 + 64 + 30] == red[0, 0]).all()
    assert (sheet[4 + 82 + 30, 4 + 128 + 30] == 245).all()


@pytest.fixture
def pattern():
    """Each quarter another colour, so that turning it shows."""
    image = np.zeros((16, 24, 3), np.uint8)
    image[:8, :12], image[:8, 12:], image[8:, :12], image[8:, 12:] = (
        (250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 0)
    )  # fmt: skip
    return image


def encoded(image, form, **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def sideways(pattern):
    """A PIL image whose EXIF orientation says: turn me 90 degrees clockwise to see `pattern`."""
    image = Image.fromarray(np.ascontiguousarray(np.rot90(pattern)))
    exif = Image.Exif()
    exif[0x0112] = 6
    return image, exif


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_exif_orientation_is_followed(pattern, form):
    image, exif = sideways(pattern)
    options = {"quality": 98, "subsampling": 0} if form == "JPEG" else {}
    found = decode_image(encoded(image, form, exif=exif, **options))
    assert found.shape == pattern.shape
    assert np.abs(found.astype(int) - pattern)[2:6, 2:10].max() < 12


def test_exif_orientation_of_a_transparent_image_and_of_a_pil_image(pattern):
    image, exif = sideways(pattern)
    data = encoded(image.convert("RGBA"), "PNG", exif=exif)
    assert (decode_image(data) == pattern).all()
    assert (to_rgb(Image.open(io.BytesIO(data))) == pattern).all()


@pytest.mark.parametrize(("form", "options"), [("PNG", {}), ("WEBP", {"lossless": True})])
def test_what_is_transparent_becomes_grey(pattern, form, options):
    alpha = np.full(pattern.shape[:2], 255, np.uint8)
    alpha[:8] = 0
    rgba = np.dstack([pattern, alpha])
    found = decode_image(encoded(Image.fromarray(rgba), form, **options))
    assert (found[:8] == 127).all()
    assert (found[8:] == pattern[8:]).all()
    assert (to_rgb(rgba) == found).all()
    half = np.dstack([pattern, np.full(pattern.shape[:2], 128, np.uint8)])
    assert np.abs(to_rgb(half)[0, 0].astype(int) - (189, 63, 63)).max() <= 1


def test_palette_with_a_transparent_colour(pattern):
    image = Image.fromarray(pattern).quantize(8)
    hidden = image.getpixel((0, 0))
    found = decode_image(encoded(image, "PNG", transparency=hidden))
    assert (found[:8, :12] == 127).all()
    assert (found[12, 20] == pattern[12, 20]).all()


def test_grey_and_16_bit_files():
    ramp = np.tile(np.arange(0, 65536, 2048, dtype=np.uint16), (8, 1))
    data = cv2.imencode(".png", ramp)[1].tobytes()
    found = decode_image(data)
    assert found.shape == (8, 32, 3)
    assert (found == (ramp >> 8).astype(np.uint8)[:, :, None]).all()
    assert (to_rgb(ramp) == found).all()
    assert (to_rgb(Image.open(io.BytesIO(data))) == found).all()
    colour = np.dstack([ramp, ramp[:, ::-1], np.full_like(ramp, 4096)])
    data = cv2.imencode(".png", cv2.cvtColor(colour, cv2.COLOR_RGB2BGR))[1].tobytes()
    assert (decode_image(data) == colour >> 8).all()


def test_arrays_of_other_types(pattern):
    assert to_rgb(pattern) is pattern
    assert (to_rgb(pattern / 255.0) == pattern).all()
    assert (to_rgb(pattern[:, :, 0]) == pattern[:, :, :1]).all()
    assert (to_rgb(pattern[:, :, :1]) == pattern[:, :, :1]).all()
    assert (to_rgb(pattern[:, :, 0] > 0)[:8, :12] == 255).all()


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4, 2), np.uint8), r"got \(4, 4, 2\)"),
        (np.zeros((0, 4, 3), np.uint8), r"got \(0, 4, 3\)"),
        (np.zeros((4, 4, 3), np.int64), "got int64"),
        (np.full((4, 4, 3), 200.0), r"within \[0, 1\], got 200 to 200; convert to uint8"),
        (np.full((4, 4, 3), np.nan), r"within \[0, 1\], got nan"),
        ([[1, 2]], "expected a numpy array or a PIL image, got list"),
    ],
)
def test_arrays_that_are_no_images(image, message):
    with pytest.raises(UnreadableImage, match=message):
        to_rgb(image)


def test_a_jpeg_with_something_behind_its_end_is_whole(red):
    data = encode_jpeg(red) + b"film" * 100
    assert decode_image(data).shape == red.shape
    with pytest.raises(UnreadableImage, match="JPEG is truncated"):
        decode_image(data[: len(data) // 3])


def test_a_damaged_transparent_png_is_named(pattern):
    data = encoded(Image.fromarray(np.dstack([pattern, pattern[:, :, :1]])), "PNG")
    with pytest.raises(UnreadableImage, match="cannot be decoded"):
        decode_image(data[: len(data) // 2])


@pytest.mark.parametrize("form", ["AVIF", "JPEG", "PNG", "WEBP", "TIFF"])
def test_a_rotation_in_the_metadata_is_applied(form):
    pixels = np.zeros((16, 40, 3), np.uint8)
    pixels[:, :20, 0] = 200
    exif = Image.Exif()
    exif[0x0112] = 6
    options = {"lossless": True} if form == "WEBP" else {}
    image = decode_image(encoded(Image.fromarray(pixels), form, exif=exif, **options))
    assert image.shape == (40, 16, 3)
    assert image[5, 8, 0] > 150
    assert image[35, 8, 0] < 50


@pytest.mark.parametrize("form", ["PNG", "GIF", "TIFF", "AVIF", "WEBP"])
def test_transparency_becomes_grey_behind_large_profiles_too(form):
    rgba = np.full((16, 16, 4), 255, np.uint8)
    rgba[:, :8, 3] = 0
    options = {} if form in ("GIF", "TIFF") else {"icc_profile": bytes(9000)}
    image = decode_image(encoded(Image.fromarray(rgba), form, **options))
    assert np.abs(image[8, 2].astype(int) - TRANSPARENT_GREY).max() <= 2
    assert image[8, 13].min() > 250


def test_a_transparent_colour_of_a_palette_becomes_grey():
    image = Image.fromarray(np.repeat(np.array([[0, 1]], np.uint8), 8, 0).repeat(8, 1), "P")
    image.putpalette([200, 0, 0, 0, 0, 200])
    decoded = decode_image(encoded(image, "PNG", transparency=0, icc_profile=bytes(9000)))
    assert (decoded[4, 2] == TRANSPARENT_GREY).all()
    assert decoded[4, 13].tolist() == [0, 0, 200]


def test_fill_bytes_and_trailers_are_legal_and_cuts_are_not():
    whole = encode_jpeg(np.random.default_rng(1).integers(0, 255, (64, 64, 3), np.uint8))
    at = whole.index(b"\xff\xdb")
    filled = whole[:at] + b"\xff\xff\xff" + whole[at:]
    for data in (filled, whole + bytes(5000), filled + b"trailer" * 900):
        np.testing.assert_array_equal(decode_image(data), decode_image(whole))
    with pytest.raises(UnreadableImage, match="truncated"):
        decode_image(filled[:-40])


def test_a_fault_of_the_reader_is_no_unreadable_image_and_a_decoder_s_is(red, monkeypatch):
    def decoder(image):
        raise TypeError("not bytes")

    data = encoded(Image.fromarray(red), "GIF")
    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "load", decoder)
        patch.setattr(GifImagePlugin.GifImageFile, "load", decoder)
        with pytest.raises(UnreadableImage, match="cannot be decoded: not bytes"):
            decode_image(data)
    monkeypatch.setattr(reader, "MAX_IMAGE_PIXELS", None)
    with pytest.raises(TypeError, match="not supported"):
        decode_image(data)
