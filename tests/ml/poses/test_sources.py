"""Sources give every image or say why not; nothing unsafe is followed, nothing is unpacked."""

from __future__ import annotations

import io
import json
import tarfile

import numpy as np
import pytest

from ml.poses.config import SourceConfig
from ml.poses.screening import canvas_size, screen
from ml.poses.sources import Problem, SourceImage, TarIndex, source_images
from ml.records.remote import StoreUnavailable
from tests.fixtures.s3 import needs_s3, put, put_folder, s3_server
from tests.ml.poses.source_files import (
    SECRET_URL,
    jpeg,
    note,
    png_bomb,
    sample,
    write_png,
    write_tar,
)


def read(root, kind="webdataset", shard=0, size=10, **config):
    config = SourceConfig(path="source", **config)
    return list(source_images(config, kind, root, shard, size))


def reasons(images, **config):
    judged = [screen(item, SourceConfig(path="source", **config)) for item in images]
    return [item.reason if isinstance(item, Problem) else "ok" for item in judged]


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        (sample("0", jpeg(), note()), "ok"),
        (sample("0", jpeg(), note(), "JPEG"), "ok"),
        (sample("0", jpeg(), note("NSFW")), "unsafe_label"),
        (sample("0", jpeg(), note("unsure")), "unsafe_label"),
        (sample("0", jpeg(), note(None)), "no_safety_label"),
        (sample("0", jpeg(), b"{"), "damaged_json"),
        (sample("0", jpeg(), b"[1]"), "damaged_json"),
        (sample("0", jpeg(), b"[" * 100_000), "damaged_json"),
        (sample("0", jpeg(), b"\xff\xfe{}\x00"), "damaged_json"),
        ([("0.json", note()), ("0.txt", b"words")], "no_image"),
        (sample("0", b"", note()), "damaged_image"),
        (sample("0", b"no image", note()), "damaged_image"),
        (sample("0", jpeg()[:-40], note()), "damaged_image"),
        (sample("0", jpeg()[:200], note()), "damaged_image"),
        (sample("0", png_bomb(), note(), "png"), "too_large"),
        (sample("0", png_bomb(12_000), note(), "png"), "too_large"),
        (sample("0", jpeg(height=176, width=80), note()), "aspect_ratio"),
        (sample("0", jpeg(height=64, width=144), note()), "aspect_ratio"),
        (sample("0", jpeg(height=160, width=80), note()), "ok"),
    ],
)
def test_every_sample_is_used_or_refused_for_its_reason(tmp_path, members, reason):
    write_tar(tmp_path / "source" / "00000.tar", members)
    assert reasons(read(tmp_path), require_label=True) == [reason]


@pytest.mark.parametrize(
    "name", ["../0.jpg", "a/../../0.jpg", "/etc/0.jpg", "..\\0.jpg", "C:/0.jpg"]
)
def test_names_that_lead_elsewhere_are_refused_and_others_kept(tmp_path, name):
    members = [(name, jpeg()), *sample("1", jpeg(1), note())]
    write_tar(tmp_path / "source" / "0.tar", members)
    images = read(tmp_path)
    assert reasons(images) == ["ok", "unsafe_path"]
    assert not list(tmp_path.rglob("*.jpg"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE])
def test_links_and_devices_are_refused(tmp_path, kind):
    path = tmp_path / "source" / "0.tar"
    path.parent.mkdir()
    with tarfile.open(path, "w") as tar:
        info = tarfile.TarInfo("0.jpg")
        info.type, info.linkname = kind, "/etc/passwd"
        tar.addfile(info)
        data = jpeg()
        info = tarfile.TarInfo("1.jpg")
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
    assert reasons(read(tmp_path)) == ["ok", "unsafe_path"]


def test_a_tar_that_breaks_keeps_what_came_before(tmp_path):
    path = write_tar(
        tmp_path / "source" / "0.tar",
        [*sample("0", jpeg(0), note()), *sample("1", jpeg(1), note())],
    )
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.index(b"1.jpg") + 700])
    TarIndex.read.cache_clear()
    images = read(tmp_path)
    assert reasons(images)[0] == "ok"
    assert reasons(images)[-1] == "damaged_tar"
    path.write_bytes(b"no tar at all" * 100)
    TarIndex.read.cache_clear()
    assert reasons(read(tmp_path)) == ["damaged_tar"]


def test_shards_share_a_tar_and_together_hold_it(tmp_path):
    for number in range(2):
        members = [m for i in range(5) for m in sample(f"{i}", jpeg(10 * number + i), note())]
        write_tar(tmp_path / "source" / f"{number:05d}.tar", members)
    parts = [read(tmp_path, shard=i, size=3, shards_per_tar=2) for i in range(4)]
    assert [len(part) for part in parts] == [3, 2, 3, 2]
    assert len({item.sha256 for part in parts for item in part}) == 10
    assert [item.place for item in parts[3]] == ["sample 3 of tar 1", "sample 4 of tar 1"]
    with pytest.raises(
        ValueError, match=r"shard 4 is part 0 of tar 2, the folder has 2 tars; lowe"
    ):
        read(tmp_path, shard=4, size=3, shards_per_tar=2)
    with pytest.raises(ValueError, match=r"tar 0 holds 5 samples, its 1 shards take 3; raise .* 2"):
        read(tmp_path, size=3, shards_per_tar=1)


def test_a_folder_is_read_in_order_with_what_stands_beside(tmp_path):
    folder = tmp_path / "source"
    for index in range(4):
        write_png(folder / f"sub{index % 2}" / f"{index}.png", index, 64, 64)
    (folder / "notes.txt").write_text("no image")
    (folder / "sub0" / "2.json").write_bytes(note("NSFW"))
    (folder / "sub1" / "link.png").symlink_to(folder / "sub0" / "0.png")
    images = read(tmp_path, "folder", size=3)
    assert reasons(images) == ["ok", "unsafe_label", "ok"]
    assert reasons(read(tmp_path, "folder", shard=1, size=3)) == ["ok", "unsafe_path"]
    with pytest.raises(
        ValueError, match=r"shard 2 begins at image 6, the folder has 5; lower .* 2"
    ):
        read(tmp_path, "folder", shard=2, size=3)


def test_files_beyond_the_limit_are_not_read(tmp_path):
    write_png(tmp_path / "source" / "0.png", 0, 64, 64)
    write_tar(tmp_path / "source" / "0.tar", sample("0", jpeg(), note()))
    assert reasons(read(tmp_path, "folder", max_bytes=10)) == ["too_large"]
    assert reasons(read(tmp_path, max_bytes=10)) == ["too_large"]


def test_an_absent_source_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"poses.images.path: expected a folder .* got 'source'"):
        read(tmp_path)


def test_addresses_are_kept_as_hashes_only(tmp_path):
    write_tar(tmp_path / "source" / "0.tar", sample("0", jpeg(), note()))
    (item,) = read(tmp_path)
    assert len(item.url_sha256) == 64
    assert SECRET_URL not in repr(item)


@pytest.mark.parametrize(
    ("size", "canvas"),
    [
        ((1000, 1000), (1024, 1024)),
        ((500, 600), (1024, 1232)),
        ((400, 800), (640, 1280)),
        ((3000, 2000), (1280, 848)),
        ((1, 1), (1024, 1024)),
    ],
)
def test_canvases_have_1024_px_on_their_shorter_side_and_at_most_1280(size, canvas):
    assert canvas_size(*size, SourceConfig(path="source")) == canvas


def test_seeded_damage_never_crashes_and_loses_nothing_else(tmp_path):
    """A hundred tars with bytes overwritten at random: images or reasons, nothing else."""
    good = [m for i in range(3) for m in sample(f"{i}", jpeg(i, 32, 32), note())]
    path = write_tar(tmp_path / "source" / "0.tar", good)
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    rng = np.random.default_rng(5)
    outcomes = set()
    for _ in range(100):
        data = whole.copy()
        for _ in range(int(rng.integers(1, 12))):
            at = int(rng.integers(len(data) - 64))
            data[at : at + int(rng.integers(1, 64))] = rng.integers(256)
        path.write_bytes(data[: int(rng.integers(len(data) // 2, len(data) + 1))].tobytes())
        TarIndex.read.cache_clear()
        found = reasons(read(tmp_path))
        assert found
        outcomes |= set(found)
    assert {"ok", "damaged_tar"} < outcomes


def test_a_problem_is_passed_on_unseen():
    item = SourceImage("here", problem=Problem("damaged_tar", "why"))
    assert screen(item, SourceConfig(path="source")).reason == "damaged_tar"


def test_folder_and_whole_name_belong_to_an_image_of_a_tar(tmp_path):
    names = ["a/000.jpg", "b/000.jpg", "photo.v1.jpg", "photo.v2.jpg", "b/000.json"]
    about = json.dumps({"url": "u"}).encode()
    write_tar(tmp_path / "0.tar", [(n, about if n.endswith("json") else n.encode()) for n in names])
    config = SourceConfig(path=".", shards_per_tar=1)
    found = list(source_images(config, "webdataset", tmp_path, 0, 10))
    assert [image.data.decode() for image in found] == names[:4]
    assert [bool(image.url_sha256) for image in found] == [False, True, False, False]


def test_images_that_share_a_name_are_both_refused(tmp_path):
    write_tar(
        tmp_path / "0.tar", [("a.jpg", b"1"), ("a.jpg", b"2"), ("b.JPG", b"3"), ("b.png", b"4")]
    )
    config = SourceConfig(path=".", shards_per_tar=1)
    found = list(source_images(config, "webdataset", tmp_path, 0, 10))
    assert [image.problem.reason for image in found] == ["shared_name", "shared_name"]
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("x.jpg", "x.png", "y.jpg", "x.json", "y.json"):
        (folder / name).write_bytes(b"{}")
    config = SourceConfig(path="folder")
    found = list(source_images(config, "folder", tmp_path, 0, 10))
    assert [image.problem.reason if image.problem else "" for image in found] == [
        "shared_name",
        "shared_name",
        "",
    ]


@pytest.fixture(scope="module")
def s3():
    with s3_server() as server:
        yield server


def both(root, address, kind, shard=0, size=10, **config):
    """The images of a local source and of its copy in a store."""
    local = read(root, kind, shard, size, **config)
    stored = SourceConfig(path=address, **config)
    return local, list(source_images(stored, kind, root, shard, size))


@needs_s3
def test_a_folder_in_a_store_gives_what_the_folder_gives(s3, tmp_path):
    folder = tmp_path / "source"
    for index, name in enumerate(("b.png", "a/x.png", "a-b.png", "a/x.jpg")):
        write_png(folder / name, index, 96, 80)
    (folder / "b.json").write_bytes(note())
    (folder / "a" / "x.json").write_bytes(note())
    (folder / "notes.txt").write_text("x")
    address = put_folder(folder, "folder")
    for shard in (0, 1):
        local, stored = both(tmp_path, address, "folder", shard, 2)
        assert local == stored
        assert len(local) == 2
    put({"folder/../up.png": b"x", "folder//z.jpg": b"x"})
    (_, stored) = both(tmp_path, address, "folder", 0, 9)
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    from ml.poses.sources import _image_files

    _image_files.cache_clear()
    (_, stored) = both(tmp_path, address, "folder", 0, 9)
    assert [item.problem.reason for item in stored if item.problem] == [
        *["shared_name"] * 2, *["unsafe_path"] * 2,
    ]  # fmt: skip
    with pytest.raises(ValueError, match="expected a folder with images or tars"):
        both(tmp_path, "s3://lab/nothing-here", "folder")


@needs_s3
def test_tars_in_a_store_give_what_tars_in_a_folder_give(s3, tmp_path):
    whole = [*sample("0", jpeg(0), note()), *sample("1", jpeg(1), note("NSFW"))]
    write_tar(tmp_path / "source" / "00000.tar", whole)
    cut = write_tar(tmp_path / "source" / "00001.tar", [*whole, *sample("2", jpeg(2), note())])
    cut.write_bytes(cut.read_bytes()[:-12_000])
    address = put_folder(tmp_path / "source", "tars")
    for shard in (0, 1):
        local, stored = both(tmp_path, address, "webdataset", shard, shards_per_tar=1)
        assert local == stored
        assert len(local) >= 2
    assert any(item.problem for item in stored)


@needs_s3
@pytest.mark.parametrize("kind", ["folder", "webdataset"])
def test_a_store_that_goes_away_stops_the_stage_and_names_no_file(tmp_path, kind):
    folder = tmp_path / "source"
    for index in range(3):
        write_png(folder / f"alice-{index}.png", index, 96, 80)
    # Larger than what is read ahead, so that the second image is another request.
    filling = [("alice.bin", bytes(3 << 20))]
    write_tar(folder / "t.tar", [*sample("alice", jpeg(), note()), *filling,
                                 *sample("bob", jpeg(), note())])  # fmt: skip
    with s3_server() as server:
        config = SourceConfig(path=put_folder(folder, "away"), shards_per_tar=1)
        images = source_images(config, kind, tmp_path, 0, 10)
        assert next(images).problem is None
        server.stop()
        with pytest.raises(
            StoreUnavailable, match=r"^poses.images.path: s3://lab cannot"
        ) as caught:
            list(images)
    assert "alice" not in str(caught.value)
    assert caught.value.__suppress_context__
