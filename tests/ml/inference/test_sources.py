from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from ml.imaging.io import UnreadableImage, encode_png
from ml.inference.sources import (
    count_images,
    expand,
    is_single,
    read_images,
)
from ml.records.exclusions import Exclusions
from tests.ml.inference.conftest import noise_image


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for index, name in enumerate(("b.png", "a.PNG", "deep/c.png")):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_png(noise_image(index, 8, 12)))
    (tmp_path / "images" / "notes.txt").write_text("no image")
    return tmp_path / "images"


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
    assert count_images([path, path, path]) == 9
    assert not is_single(path)
    images = list(read_images([path]))
    assert [image.name for image in images] == [f"{path}#{n:05d}" for n in range(3)]
    assert images[2].image_rgb.shape == (16, 32, 3)
    assert np.abs(images[2].image_rgb[8, 16].astype(int) - (160, 0, 0)).max() < 12
    assert [image.time_s for image in images] == pytest.approx([0.0, 0.2, 0.4])


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no images in this folder; looked for .avi, .avif"):
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
    assert (row.sample_id, row.reason) == (str(path), "damaged_image")


def test_a_folder_tells_of_what_it_does_not_give(folder: Path) -> None:
    image = Image.fromarray(noise_image(1, 8, 12))
    for name in ("c.jfif", "d.avif", "e.gif", "f.jp2"):
        image.save(folder / name)
    image.save(folder / "g.ppm")
    write_video(folder / "h.avi", 2)
    (folder / "i.heic").write_bytes(b"no decoder here")
    (folder / "j.jpg").symlink_to(folder / "nowhere.jpg")
    (folder / ".hidden").write_text("of no interest")
    exclusions = Exclusions("predict")
    images = list(read_images(expand(folder, exclusions), exclusions))
    assert len(images) == 3 + 5 + 2
    rows = exclusions.to_frame()
    found = dict(zip(rows["sample_id"].map(lambda p: Path(p).name), rows["reason"], strict=True))
    assert found == {"notes.txt": "other_kind", "i.heic": "other_kind", "j.jpg": "damaged_image"}


def test_a_folder_that_is_written_to_is_not_read(folder: Path) -> None:
    out = folder / "predictions"
    out.mkdir()
    (out / "drawing.png").write_bytes((folder / "b.png").read_bytes())
    assert len(expand(folder)) == 4
    assert len(expand(folder, without=out)) == 3


def test_every_damage_of_a_film_is_an_exclusion_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "film.avi"
    write_video(path, 30)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    exclusions = Exclusions("predict")
    list(read_images([path], exclusions))
    ids = [row["sample_id"] for row in exclusions.rows()]
    assert len(ids) > 1
    assert ids == [f"{path}#damage-{number}" for number in range(len(ids))]


def test_an_unreadable_video_in_a_list_costs_nothing_else(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(bytes(2000))
    exclusions = Exclusions("predict", tmp_path / "excluded.csv")
    entries = [tmp_path / "broken.mp4", folder / "b.png", tmp_path / "gone.mov"]
    assert count_images(entries) is None
    reader = read_images(entries, exclusions)
    assert next(reader).name.endswith("b.png")
    # What was excluded so far is on disk before anything else happens.
    assert "broken.mp4" in (tmp_path / "excluded.csv").read_text()
    assert list(reader) == []
    lines = (tmp_path / "excluded.csv").read_text().splitlines()
    assert lines[0] == "sample_id,stage,reason,detail"
    assert len(lines) == 3
