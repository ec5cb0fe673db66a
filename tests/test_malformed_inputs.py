"""300 malformed inputs: each excluded or refused with a reason, nothing else lost, no crash."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from ml.imaging.io import UnreadableImage, decode_image, encode_jpeg, encode_png
from ml.labels.coco import CocoError, read_coco
from ml.labels.tool_export import CVAT_FILE, STUDIO_FILE, export_for_labelling
from ml.labels.tool_import import LabelImportError, import_labels
from ml.records import reasons
from ml.records.exclusions import Exclusions
from ml.records.shards import DamagedSample, ShardReader, shard_writer
from ml.records.tables import IMAGES, read_stage
from ml.release.archives import NotARelease
from ml.release.official_reader import iter_release
from ml.release.official_writer import write_official
from ml.release.source import iter_dataset
from tests.fixtures import small_dataset
from tests.malformed import damaged_bytes, damaged_json, dump

PER_FAMILY = 50
SHARD = "shard-00000"
FAMILIES = ("images", "tars", "json", "npz", "coco", "labels")


def rngs(family):
    return [np.random.default_rng([FAMILIES.index(family), i]) for i in range(PER_FAMILY)]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return small_dataset.write_dataset(tmp_path_factory.mktemp("base"))


@pytest.fixture
def ws(base, tmp_path):
    shutil.copytree(base.root, tmp_path / "project")
    return base.__class__(tmp_path / "project", base.seed, base.num_shards, base.shard_size)


def says_why(error, part=""):
    """The message is more than a word, and names the place."""
    assert len(str(error)) > 15
    assert part in str(error)


def stream(ws):
    exclusions = Exclusions("fuzz")
    items = {item.sample_id: item.jpeg for item in iter_dataset(ws, exclusions)}
    frame = exclusions.to_frame()
    assert all(len(detail) > 10 for detail in frame["detail"])
    return items, set(frame["sample_id"])


def test_there_are_300():
    assert len(FAMILIES) * PER_FAMILY == 300


def test_damaged_images(ws):
    good, _ = stream(ws)
    pixels = small_dataset.draw_image("x")
    encoded = (encode_jpeg(pixels), encode_png(pixels))
    path = ws.stage_dir("images") / f"{SHARD}.tar"
    refused = 0
    with ShardReader(path) as reader:
        samples = {key: reader.read(key) for key in reader.keys()}  # noqa: SIM118, no mapping
    for number, rng in enumerate(rngs("images")):
        data = damaged_bytes(encoded[number % 2], rng)
        try:
            image = decode_image(data)
        except UnreadableImage as error:
            refused += 1
            says_why(error)
        else:
            assert image.dtype == np.uint8
            assert image.ndim == 3
        with shard_writer(path) as writer:
            for key, jpeg in samples.items():
                writer.add(key, {"jpg": data if key == "image-a1" else jpeg})
        items, excluded = stream(ws)
        assert excluded == {"image-a1"}
        assert items == {key: jpeg for key, jpeg in good.items() if key != "image-a1"}
    assert refused > PER_FAMILY / 2


def test_damaged_tars(ws):
    good, _ = stream(ws)
    path = ws.stage_dir("images") / f"{SHARD}.tar"
    whole = path.read_bytes()
    lost = 0
    for rng in rngs("tars"):
        path.write_bytes(damaged_bytes(whole, rng))
        items, excluded = stream(ws)
        # What is given is what was written, byte for byte, and the other shard is whole.
        assert all(good[key] == jpeg for key, jpeg in items.items())
        assert set(items) | excluded == set(good)
        assert not set(items) & excluded
        assert {key for key in good if key.startswith("image-b")} <= set(items)
        lost += len(excluded)
    assert lost > PER_FAMILY


def test_damaged_json_in_a_shard(tmp_path):
    whole = dump({"sample_id": "b", "boxes": [[1, 2, 3, 4]], "prompt": "people"})
    path = tmp_path / "x.tar"
    refused = 0
    for rng in rngs("json"):
        data = damaged_bytes(whole, rng)
        with shard_writer(path) as writer:
            for key in "abc":
                writer.add(key, {"json": data if key == "b" else whole})
        with ShardReader(path) as reader:
            assert reader.read_json("a") == reader.read_json("c") == json.loads(whole)
            try:
                assert isinstance(reader.read_json("b"), dict)
            except DamagedSample as error:
                refused += 1
                says_why(error, "x.tar/b: ")
    assert refused > PER_FAMILY / 2


@pytest.fixture(scope="module")
def release(base, tmp_path_factory):
    root = tmp_path_factory.mktemp("release")
    write_official(iter_dataset(base, Exclusions("export")), root)
    return root


RELEASED = {f"image-{name}" for name in ("a0", "a1", "a3", "b0", "b1", "b2")}


def read_release(root, exclusions=None):
    # An empty collection of exclusions is false.
    parts = iter_release(root, Exclusions("fuzz") if exclusions is None else exclusions)
    return [sample for part in parts for sample in part]


def test_damaged_annotations(release, tmp_path):
    shutil.copytree(release, tmp_path / "r")
    split = tmp_path / "r" / "large" / "split_00002"
    target = split / "annotations" / "image-a3.npz"
    whole = target.read_bytes()
    (before,) = (s.labels for s in read_release(tmp_path / "r") if s.sample_id == "image-a3")
    lost = 0
    for rng in rngs("npz"):
        target.write_bytes(damaged_bytes(whole, rng))
        (split / "metrics.json").write_bytes(dump(damaged_json([{"filename": "a"}], rng)))
        exclusions = Exclusions("fuzz")
        samples = {s.sample_id: s.labels for s in read_release(tmp_path / "r", exclusions)}
        frame = exclusions.to_frame()
        assert {"image-a0", "image-b2"} <= set(samples)
        assert set(samples) | set(frame["sample_id"]) == RELEASED
        if len(frame):
            assert frame["reason"].tolist() == ["damaged_annotation"]
            assert "image-a3.jpg: " in frame["detail"][0]
            lost += 1
        else:
            # The zip's checksums saw to it that the numbers are the written ones.
            np.testing.assert_array_equal(samples["image-a3"].flame, before.flame)
    assert lost > PER_FAMILY / 2


def test_damaged_release_tars(release, tmp_path):
    whole = Path(shutil.make_archive(str(tmp_path / "VGGHeads"), "tar", release)).read_bytes()
    path = tmp_path / "damaged.tar"
    for rng in rngs("tars")[:20]:
        path.write_bytes(damaged_bytes(whole, rng))
        exclusions = Exclusions("fuzz")
        try:
            found = [s.sample_id for split in iter_release(path, exclusions) for s in split]
        except NotARelease as error:
            says_why(error)
        else:
            rows = exclusions.to_frame()
            # Names behind a break are unknown; all others are given or excluded.
            if reasons.DAMAGED_TAR not in set(rows["reason"]):
                assert {*found, *rows["sample_id"]} == RELEASED
            assert not set(found) & set(rows["sample_id"])
            assert set(found) <= RELEASED


def test_damaged_coco_files(base, tmp_path):
    export_for_labelling(base, tmp_path / "l")
    whole = json.loads((tmp_path / "l" / CVAT_FILE).read_text())
    images = read_stage(base, "images", IMAGES)
    path, refused = tmp_path / "coco.json", 0
    for number, rng in enumerate(rngs("coco")):
        structured = number % 5
        data = dump(damaged_json(whole, rng)) if structured else damaged_bytes(dump(whole), rng)
        path.write_bytes(data)
        try:
            assert read_coco(path).images is not None
        except CocoError as error:
            refused += 1
            says_why(error)
        check_import(path, images)
    assert refused > PER_FAMILY / 2


def test_damaged_labels(base, tmp_path):
    export_for_labelling(base, tmp_path / "l")
    whole = json.loads((tmp_path / "l" / STUDIO_FILE).read_text())
    for task in whole:
        task["annotations"] = [{"result": task["predictions"][0]["result"]}]
        del task["predictions"]
    images = read_stage(base, "images", IMAGES)
    path, seen = tmp_path / "studio.json", set()
    for number, rng in enumerate(rngs("labels")):
        structured = number % 5
        data = dump(damaged_json(whole, rng)) if structured else damaged_bytes(dump(whole), rng)
        path.write_bytes(data)
        seen.add(check_import(path, images))
    assert {"refused", "excluded"} <= seen


def check_import(path, images):
    """Everything in the file is given, excluded with a reason, or the whole file refused."""
    exclusions = Exclusions("fuzz")
    try:
        result = import_labels(path, images, exclusions)
    except LabelImportError as error:
        says_why(error)
        return "refused"
    frame = exclusions.to_frame()
    assert all(len(detail) > 10 for detail in frame["detail"])
    of_images = frame[~frame["sample_id"].str.contains("#", regex=False)]
    given = sum(len(data.images) for data in result.datasets.values())
    assert given + len(of_images) == len(result.sample_ids)
    for data in result.datasets.values():
        for box in data.boxes:
            assert all(np.isfinite(box.bbox_xywh))
    return "excluded" if len(frame) else "whole"
