"""Predictions from a store: the same as from a folder, or a clear error; nothing is downloaded."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ml.imaging.io import encode_png
from ml.inference.detector import HeadDetector
from ml.inference.output_folder import LIST_NAME
from ml.inference.sources import expand
from ml.records.exclusions import Exclusions
from ml.records.remote import StoreUnavailable
from tests.fixtures.s3 import needs_s3, put, put_folder, s3_server
from tests.ml.inference.conftest import noise_image
from tests.ml.inference.test_cli import run


@pytest.fixture(scope="module")
def s3():
    with s3_server() as server:
        yield server


@pytest.fixture
def checkpoint(project: Path) -> Path:
    return project / "trained_model"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    for index, name in enumerate(("one.png", "one-2/a.png", "deep/er/two.png")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(encode_png(noise_image(index, 80, 120)))
    return folder


def results(folder: Path) -> dict[str, object]:
    found = {}
    for path in sorted(folder.rglob("heads.json")):
        found[path.parent.relative_to(folder).as_posix()] = json.loads(path.read_text())["heads"]
    return found


@needs_s3
def test_a_prefix_gives_what_the_folder_gives(s3, images, checkpoint, tmp_path):
    address = put_folder(images, "photos")
    local, out = tmp_path / "local", tmp_path / "out"
    assert run("predict", images, "--checkpoint", checkpoint, "--output", local) == 0
    assert run("predict", f"{address}/", "--checkpoint", checkpoint, "--output", out) == 0
    assert results(out) == results(local)
    assert sorted(results(out)) == ["deep/er/two", "one", "one-2/a"]
    names = {image["file_name"] for image in json.loads((out / "coco.json").read_text())["images"]}
    assert f"{address}/deep/er/two.png" in names


@needs_s3
def test_one_image_by_its_address_and_again(s3, images, checkpoint, tmp_path):
    address = put_folder(images, "single")
    out = tmp_path / "out"
    for _ in range(2):
        assert (
            run("predict", f"{address}/one.png", "--checkpoint", checkpoint, "--output", out) == 0
        )
        assert list(results(out)) == ["one"]
    detector = HeadDetector(checkpoint, score_threshold=0.2)
    one = detector(f"{address}/one.png")
    assert one.name == f"{address}/one.png"
    np.testing.assert_array_equal(
        one.heads.boxes_xyxy, detector(images / "one.png").heads.boxes_xyxy
    )
    assert len(detector(address)) == 3


@needs_s3
def test_names_that_lead_out_of_the_output_folder_are_excluded(s3, checkpoint, tmp_path):
    png = encode_png(noise_image(1, 64, 64))
    keys = ("evil/../../up.png", "evil//abs.png", "evil/./here.png", "evil/good.png")
    put({**dict.fromkeys(keys, png), "evil/note.txt": b"x", "evil/clip.mp4": b"x",
         "evil/.hidden.png": png, "evil/damaged.png": png[:90], "evil/folder/": b""})  # fmt: skip
    out = tmp_path / "a" / "b" / "out"
    assert run("predict", "s3://lab/evil", "--checkpoint", checkpoint, "--output", out) == 1
    assert list(results(tmp_path)) == ["a/b/out/good"]
    rows = (out / "excluded.csv").read_text()
    assert rows.count("unsafe_path") == 3
    assert rows.count("other_kind") == 2
    assert rows.count("damaged_image") == 1
    assert rows.count("s3://lab/") >= 6


@needs_s3
@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (
            "s3://nowhere/x",
            FileNotFoundError,
            "s3://nowhere/x: The specified bucket does not exist",
        ),
        ("s3://lab/none.png", FileNotFoundError, "s3://lab/none.png: no such file or folder"),
        ("s3://lab/clip.mp4", ValueError, "videos are read from local files; download it first"),
        ("s3://lab/texts", ValueError, "s3://lab/texts: no images in this folder"),
    ],
)
def test_what_cannot_be_read_is_an_error_at_once(s3, checkpoint, tmp_path, source, error, message):
    put({"clip.mp4": b"x", "texts/a.txt": b"x"})
    with pytest.raises(error, match=message):
        run("predict", source, "--checkpoint", checkpoint, "--output", tmp_path / "out")


@needs_s3
def test_an_object_that_is_deleted_meanwhile_is_an_exclusion(s3, images):
    import boto3

    entries = expand(put_folder(images, "gone"))
    boto3.client("s3").delete_object(Bucket="lab", Key="gone/one.png")
    from ml.inference.sources import read_images

    exclusions = Exclusions("predict")
    assert len(list(read_images(entries, exclusions))) == 2
    (row,) = exclusions.to_frame().itertuples()
    assert (row.sample_id, row.reason) == ("s3://lab/gone/one.png", "damaged_image")
    assert "no such file" in row.detail


@needs_s3
def test_a_store_that_goes_away_stops_the_run_and_keeps_what_is_written(
    images, checkpoint, tmp_path, monkeypatch
):
    from ml.inference import writing

    out = tmp_path / "out"
    with s3_server() as server:
        address = put_folder(images, "photos")
        write = writing.write_json

        def stop_afterwards(path, value):
            write(path, value)
            server.stop()

        monkeypatch.setattr(writing, "write_json", stop_afterwards)
        with pytest.raises(StoreUnavailable, match=r"s3://lab cannot be read: Could not connect"):
            run("predict", address, "--checkpoint", checkpoint, "--output", out, "--batch-size", 1)
    monkeypatch.undo()
    assert list(results(out)) == ["deep/er/two"]
    assert not (out / "excluded.csv").exists(), "no image is at fault"
    assert (out / LIST_NAME).exists()
    with s3_server():
        address = put_folder(images, "photos")
        assert run("predict", address, "--checkpoint", checkpoint, "--output", out) == 0
        assert len(results(out)) == 3
