"""After a takedown no file holds the sample, and everything else is as it was."""

from __future__ import annotations

import base64
import gzip
import io
import json
import shutil
import sqlite3
import tarfile
import zipfile

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ml.imaging.io import decode_image, encode_jpeg, encode_png
from ml.labels.coco import read_coco, write_coco
from ml.labels.tool_export import CVAT_FILE, export_for_labelling
from ml.records.exclusions import Exclusions, read_exclusions
from ml.records.shards import ShardReader
from ml.records.tables import DATASET_HEADS, IMAGES, VERDICTS, read_table
from ml.release.source import iter_dataset
from ml.takedown import removal
from ml.takedown.removal import (
    REGISTER_NAME,
    TakedownError,
    find_target,
    search,
    take_down,
    taken_down,
    unsearched,
)


@pytest.fixture
def project(dataset):
    """The dataset with what else names a sample: labels, exclusions, sheets, work, a cache."""
    export_for_labelling(dataset, dataset.root / "x")
    write_coco(
        dataset.stage_dir("labels") / "train.json", read_coco(dataset.root / "x" / CVAT_FILE)
    )
    shutil.rmtree(dataset.root / "x")
    exclusions = Exclusions("annotations")
    exclusions.add("image-a0#1", "non_finite", "a head of image-a0")
    exclusions.add("image-a3", "damaged_image", "shard-00000.tar/image-a3.jpg")
    exclusions.write(dataset, "shard-00000")
    sheets = dataset.stage_dir("filtered_dataset") / "images"
    sheets.mkdir()
    (sheets / "kept.jpg").write_bytes(b"\xff\xd8 who is on it nobody knows")
    work = dataset.work_dir("filtered_dataset")
    (work / "shard-00000.json").write_text('{"judgements": [{"sample_id": "image-a0"}]}')
    (dataset.stage_dir("benchmark")).mkdir()
    (dataset.stage_dir("benchmark") / "per_image.csv").write_text(
        "id,ap\nimage-a0,1\nimage-a01,2\n"
    )
    return dataset


def everything(ws):
    exclusions = Exclusions("export")
    return {i.sample_id: (i.jpeg, len(i)) for i in iter_dataset(ws, exclusions)}, exclusions


def test_a_sample_is_gone_everywhere_and_nothing_else_is(project):
    before, _ = everything(project)
    target = find_target(project, ["image-a0"], [])
    assert len(target.hashes) == 1
    found = search(project.root, target)
    names = {line.split(": ")[0] for line in found}
    assert {
        "data/images/shard-00000.tar",
        "data/images/shard-00000.parquet",
        "data/captions/shard-00000.parquet",
        "data/annotations/shard-00000.parquet",
        "data/annotations/shard-00000.exclusions.parquet",
        "data/filtered_dataset/verdicts.parquet",
        "data/filtered_dataset/heads.parquet",
        "data/labels/train.json",
        "data/benchmark/per_image.csv",
    } <= names
    removal = take_down(project, target)
    assert search(project.root, target) == []
    assert "data/filtered_dataset/images/kept.jpg" in removal.deleted
    assert any(".work" in name for name in removal.deleted)
    after, _ = everything(project)
    assert after == {key: value for key, value in before.items() if key != "image-a0"}
    # Longer ids that begin alike are other samples.
    assert "image-a01,2" in (project.stage_dir("benchmark") / "per_image.csv").read_text()
    coco = read_coco(project.stage_dir("labels") / "train.json")
    assert "image-a0" not in {image.sample_id for image in coco.images}
    assert len(coco.images) == 5
    assert len(coco.boxes) == 7
    left = read_exclusions(project, ["annotations"])
    assert left["sample_id"].tolist() == ["image-a3"]
    # The table that indexes the shard knows the new places.
    images = read_table(project.table_path("images", "shard-00000"), IMAGES)
    data = (project.stage_dir("images") / "shard-00000.tar").read_bytes()
    for row in images.to_dict("records"):
        jpeg = data[row["offset"] : row["offset"] + row["size"]]
        assert jpeg[:2] == b"\xff\xd8"
        if row["sample_id"] in after:
            assert jpeg == after[row["sample_id"]][0]


def test_a_source_takes_all_its_images_with_it(project):
    target = find_target(project, [], ["pose-image-b2"])
    assert target.samples == {"image-b2"}
    take_down(project, target)
    assert search(project.root, target) == []
    assert "image-b2" not in everything(project)[0]
    heads = read_table(project.stage_dir("filtered_dataset") / "heads.parquet", DATASET_HEADS)
    assert set(heads["sample_id"]) == {"image-a0", "image-a1", "image-a3", "image-b1"}
    verdicts = read_table(project.stage_dir("filtered_dataset") / "verdicts.parquet", VERDICTS)
    assert len(verdicts) == 6


def test_copies_are_found_in_caches_and_under_other_names(project):
    target = find_target(project, ["image-a0"], [])
    jpeg = everything(project)[0]["image-a0"][0]
    take_down(project, target)
    cache = project.root / ".dvc" / "cache" / "ab"
    cache.mkdir(parents=True)
    (cache / "cdef").write_bytes(jpeg)
    (cache / "text").write_text("excluded image-a0: too small")
    with tarfile.open(cache / "old", "w", format=tarfile.USTAR_FORMAT) as tar:
        tar.add(cache / "cdef", "renamed.jpg")
    assert search(project.root, target) == [
        ".dvc/cache/ab/cdef: the image itself",
        ".dvc/cache/ab/old: a copy of an image as renamed.jpg",
        ".dvc/cache/ab/text: image-a0",
    ]


def test_what_is_made_again_stays_out_of_exports(project, tmp_path):
    target = find_target(project, ["image-a0"], [])
    whole = tmp_path / "copy"
    shutil.copytree(project.root, whole)
    take_down(project, target)
    register = (project.root / REGISTER_NAME).read_text()
    assert "image-a0" not in register
    assert len(taken_down(project.root)) == 1
    # The same seed would bring the same sample back.
    shutil.rmtree(project.root / "data")
    shutil.copytree(whole / "data", project.root / "data")
    items, exclusions = everything(project)
    assert "image-a0" not in items
    assert exclusions.to_frame()["reason"].tolist() == ["taken_down"]


def test_unknown_ids_and_files_that_cannot_be_edited(project):
    with pytest.raises(TakedownError, match=r"no stage knows \['image-x'\]"):
        find_target(project, ["image-x"], [])
    target = find_target(project, ["image-a0"], [])
    (project.root / "data" / "notes.bin").write_bytes(b"\0\1 image-a0 \2")
    with pytest.raises(TakedownError, match=r"notes\.bin names a sample"):
        take_down(project, target)
    (project.root / REGISTER_NAME).write_text(json.dumps(3))
    with pytest.raises(TakedownError, match="not a list of hashes"):
        taken_down(project.root)


def test_what_looks_like_a_removed_image_is_found_wherever_it_stands(project):
    with ShardReader(project.stage_dir("images") / "shard-00000.tar") as reader:
        gone = decode_image(reader.read("image-a0"))
    target = find_target(project, ["image-a0"], [])
    take_down(project, target)
    assert search(project.root, target) == []
    height, width = gone.shape[:2]
    small = encode_jpeg(cv2.resize(gone, (width * 2 // 3, height * 2 // 3)), 70)
    (project.root / "copy.bin").write_bytes(small)
    text = base64.b64encode(encode_png(gone)).decode()
    (project.root / "page.html").write_text(f'<img src="data:image/png;base64,{text}">')
    with sqlite3.connect(project.root / "log.db") as connection:
        connection.execute("CREATE TABLE events (event TEXT)")
        connection.execute(
            "INSERT INTO events VALUES (?)", (f"![x](data:image/png;base64,{text})",)
        )
    images = pa.array([{"bytes": small, "path": "x"}])
    pq.write_table(pa.table({"image": images}), project.root / "export.parquet")
    with tarfile.open(project.root / "packed.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
        info = tarfile.TarInfo("other-name.jpg")
        info.size = len(small)
        tar.addfile(info, io.BytesIO(small))
    found = {line.split(":")[0] for line in search(project.root, target)}
    assert found == {"copy.bin", "page.html", "log.db", "export.parquet", "packed.tar"}


def test_what_cannot_be_looked_into_is_named(project):
    with zipfile.ZipFile(project.root / "packed.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.txt", "image-a0" * 100)
    with zipfile.ZipFile(project.root / "plain.npz", "w") as archive:
        archive.writestr("a.txt", "nothing")
    (project.root / "log.gz").write_bytes(gzip.compress(b"image-a0"))
    assert unsearched(project.root) == ["log.gz", "packed.zip"]


def test_folders_on_another_disk_are_searched_and_other_links_named(project, tmp_path):
    disk = tmp_path / "disk"
    shutil.move(project.root / "data", disk)
    (project.root / "data").symlink_to(disk)
    target = find_target(project, ["image-a0"], [])
    assert take_down(project, target).edited
    (disk / "note.txt").write_text("image-a0")
    assert search(project.root, target) == ["data/note.txt: image-a0"]
    (disk / "log.gz").write_bytes(gzip.compress(b"image-a0"))
    (tmp_path / "far").mkdir()
    (project.root / "extra").symlink_to(tmp_path / "far")
    (disk / "note").symlink_to(tmp_path / "far")
    (project.root / "near").symlink_to(disk / "note.txt")
    (project.root / "loop").symlink_to(project.root / "loop")
    far = f"a link to {(tmp_path / 'far').resolve()}"
    assert unsearched(project.root) == ["data/log.gz", f"data/note: {far}", f"extra: {far}"]
    assert unsearched(project.root, [tmp_path / "far"]) == ["data/log.gz"]


def test_images_in_stored_zips_are_found_films_and_arrays_named(project):
    with ShardReader(project.stage_dir("images") / "shard-00000.tar") as reader:
        gone = decode_image(reader.read("image-a0"))
    target = find_target(project, ["image-a0"], [])
    take_down(project, target)
    with zipfile.ZipFile(project.root / "plain.zip", "w") as archive:
        archive.writestr("x.png", encode_png(gone))
    np.save(project.root / "pixels.npy", np.stack([gone, gone]))
    np.savez(project.root / "pixels.npz", labels=np.arange(4), images=np.stack([gone]))
    np.savez(project.root / "labels.npz", labels=np.arange(4), masks=np.zeros((4, 4), np.uint8))
    starts = {
        "a.mp4": b"\0\0\0\x18ftypmp42", "b": b"\x1aE\xdf\xa3", "c.avi": b"RIFF\0\0\0\0AVI LIST",
        "d.heic": b"\0\0\0\x18ftypheic", "e.webp": b"RIFF\0\0\0\0WEBP",
        "f.avif": b"\0\0\0\x18ftypavif",
    }  # fmt: skip
    for name, start in starts.items():
        (project.root / name).write_bytes(start + bytes(300))
    assert search(project.root, target) == ["plain.zip: an image that looks like one of them"]
    film = "a film, or an image that is not decoded"
    assert unsearched(project.root) == [
        f"a.mp4: {film}", f"b: {film}", f"c.avi: {film}", f"d.heic: {film}",
        "pixels.npy: an array of pixels", "pixels.npz: arrays of pixels",
    ]  # fmt: skip


def test_images_without_a_signature_are_named(project, monkeypatch):
    assert find_target(project, ["image-a0"], []).unsigned == ()
    monkeypatch.setattr(removal, "signature", lambda image: None)
    assert find_target(project, ["image-a0"], []).unsigned == ("image-a0",)
