from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from ml.imaging.io import UnreadableImage, encode_png
from ml.inference.sources import UNREADABLE, expand, is_single, read_images, video_info
from ml.records.exclusions import Exclusions
from tests.ml.inference.conftest import noise_image


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for index, name in enumerate(("b.png", "a.PNG", "deep/c.png")):
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_png(noise_image(index, 8, 12)))
    (tmp_path / "pictures" / "notes.txt").write_text("no picture")
    return tmp_path / "pictures"


def write_video(path: Path, frames: int = 3) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 5, (32, 16))
    for value in range(frames):
        writer.write(np.full((16, 32, 3), (0, 0, 80 * value), np.uint8))
    writer.release()


def test_a_folder_gives_its_images_in_order(folder: Path) -> None:
    entries = expand(str(folder))
    assert entries == [folder / "a.PNG", folder / "b.png", folder / "deep" / "c.png"]
    names = [image.name for image in read_images(entries)]
    assert names == [str(entry) for entry in entries]
    assert not is_single(folder)
    assert is_single(folder / "a.PNG")


def test_lists_may_mix_everything(folder: Path) -> None:
    array = noise_image(5, 4, 4)
    entries = expand([array, folder, Image.fromarray(array)])
    images = list(read_images(entries))
    assert len(images) == 5
    assert (images[0].image_rgb == array).all()
    assert (images[4].image_rgb == array).all()
    assert images[0].name == "image-0"
    assert not is_single([array])
    assert is_single(array)
    assert is_single(Image.fromarray(array))


def test_a_video_gives_its_frames_in_rgb(tmp_path: Path) -> None:
    path = tmp_path / "clip.avi"
    write_video(path)
    assert video_info(path) == (3, 5.0)
    assert not is_single(path)
    images = list(read_images([path]))
    assert [image.name for image in images] == [f"{path}#{n:05d}" for n in range(3)]
    assert images[2].image_rgb.shape == (16, 32, 3)
    assert np.abs(images[2].image_rgb[8, 16].astype(int) - (160, 0, 0)).max() < 12


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no images in this folder; looked for .bmp, .jpeg"):
        expand(tmp_path)


@pytest.mark.parametrize("name", ["none.png", "broken.jpg", "none.mp4", "broken.mp4"])
def test_unreadable_entries_are_named_or_excluded(folder: Path, name: str) -> None:
    path = folder / name
    if "broken" in name:
        path.write_bytes(b"\xff\xd8\xff\xe0 nothing")
    with pytest.raises(UnreadableImage, match=name):
        list(read_images([path]))
    exclusions = Exclusions("predict")
    images = list(read_images([path, folder / "b.png"], exclusions))
    assert [image.name for image in images] == [str(folder / "b.png")]
    row = exclusions.to_frame().iloc[0]
    assert (row.sample_id, row.reason) == (str(path), UNREADABLE)
