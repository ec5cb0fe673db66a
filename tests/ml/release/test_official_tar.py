"""A release's folder and its tar give the same samples, and no name costs another its labels."""

from __future__ import annotations

import errno
import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest

from ml.imaging.io import encode_jpeg, encode_png
from ml.records.exclusions import Exclusions
from ml.records.tables import EXCLUSIONS, read_table
from ml.release.archives import NotARelease
from ml.release.official_import import import_official
from ml.release.official_reader import iter_release
from tests import bombs
from tests.doors import annotation_files

NPZ = annotation_files()[0][1]


def image(value: int) -> np.ndarray:
    return np.full((60, 80, 3), value, np.uint8)


def put(folder: Path, name: str, value: int = 90, suffix: str = ".jpg", label: bool = True) -> None:
    for part in ("images", "annotations"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    encode = encode_png if suffix == ".png" else encode_jpeg
    (folder / "images" / f"{name}{suffix}").write_bytes(encode(image(value)))
    if label:
        (folder / "annotations" / f"{name}.npz").write_bytes(NPZ)


@pytest.fixture
def release(tmp_path):
    root = tmp_path / "VGGHeads"
    put(root / "large" / "split_00000", "a", 10)
    for part in ("images", "annotations"):
        (root / "large" / "split_00001" / part).mkdir(parents=True)
    put(root / "large" / "split_00002", "b", 20)
    put(root / "large" / "split_00002", "c", 30, label=False)
    put(root / "test" / "split_00000", "d", 40)
    return root


def packed(root: Path, prefix: str, mode: str = "w", folders_first: bool = False) -> Path:
    path = root.parent / "VGGHeads.tar"
    with tarfile.open(path, mode) as tar:
        files = sorted(root.rglob("*"), key=lambda p: (not p.is_dir() if folders_first else 0, p))
        for file in files:
            tar.add(file, f"{prefix}{file.relative_to(root)}", recursive=False)
    return path


def read(source: Path):
    exclusions = Exclusions("read")
    found = {
        sample.sample_id: (sample.split_name, int(sample.image_rgb[0, 0, 0]))
        for split in iter_release(source, exclusions)
        for sample in split
    }
    rows = exclusions.to_frame()
    return found, sorted(zip(rows["sample_id"], rows["reason"], strict=True))


@pytest.mark.parametrize("prefix", ["", "./", "VGGHeads/"])
@pytest.mark.parametrize(("mode", "folders_first"), [("w", False), ("w:gz", True)])
def test_a_folder_and_its_tar_give_the_same(release, prefix, mode, folders_first):
    expected = read(release)
    assert expected[0] == {
        "a": ("split_00000", 10), "b": ("split_00002", 20), "d": ("test/split_00000", 40),
    }  # fmt: skip
    assert expected[1] == [("c", "no_annotation")]
    assert read(packed(release, prefix, mode, folders_first)) == expected
    assert not list(release.parent.glob(".tmp-*"))


@pytest.mark.parametrize("inside", ["", "images", "annotations"])
def test_an_empty_split_alone_is_a_release_without_samples(tmp_path, inside):
    root = tmp_path / "VGGHeads"
    (root / "large" / "split_00001" / inside).mkdir(parents=True)
    assert read(root) == read(packed(root, "")) == ({}, [])


def test_folder_and_tar_are_imported_alike(release, tmp_path):
    reports = [
        import_official(source, tmp_path / str(number))
        for number, source in enumerate((release, packed(release, "")))
    ]
    assert reports[0].num_out == reports[1].num_out == 3
    first, second = (
        {
            str(path.relative_to(tmp_path / name)): path.read_bytes()
            for path in (tmp_path / name).rglob("*")
            if path.is_file() and "excl" not in path.name and path.suffix != ".csv"
        }
        for name in "01"
    )
    assert first == second


@pytest.mark.parametrize("part", [0.2, 0.5, 0.8])
def test_a_tar_that_is_cut_gives_a_part_and_says_so(release, part):
    whole, _ = read(release)
    path = packed(release, "")
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])
    found, excluded = read(path)
    assert found.items() < whole.items()
    assert "damaged_tar" in [reason for _, reason in excluded]


COLLISIONS = [
    (("a", ".jpg"), ("a", ".png")),
    (("A", ".jpg"), ("a", ".jpg")),
    (("\u00e9", ".jpg"), ("e\u0301", ".jpg")),
]


@pytest.mark.parametrize("names", COLLISIONS)
def test_names_that_cannot_be_told_apart_are_excluded_both(tmp_path, names):
    root = tmp_path / "r"
    split = root / "large" / "split_00002"
    for number, (name, suffix) in enumerate(names):
        put(split, name, 50 * number, suffix)
    put(split, "other")
    exclusions = Exclusions("read")
    found = [s.sample_id for part in iter_release(root, exclusions) for s in part]
    assert found == ["other"]
    rows = exclusions.to_frame()
    assert sorted(rows["sample_id"]) == sorted(name for name, _ in names)
    assert set(rows["reason"]) == {"shared_name"}
    for name, suffix in names:
        assert all(f"{name}{suffix}" in detail for detail in rows["detail"])
    assert read(packed(root, ""))[0].keys() == {"other"}


def test_a_name_in_two_splits_is_excluded_with_both_places(tmp_path):
    root = tmp_path / "r"
    put(root / "large" / "split_00002", "Same", 10)
    put(root / "large" / "split_00003", "same", 20)
    put(root / "large" / "split_00003", "other", 30)
    import_official(root, tmp_path / "out")
    path = tmp_path / "out" / "data" / "import_official" / "import.exclusions.parquet"
    (row,) = read_table(path, EXCLUSIONS).to_dict("records")
    assert row["reason"] == "duplicate"
    assert row["detail"] == "split_00003/same: split_00002/Same has the name too"
    journal = (tmp_path / "out" / "data" / "import_official.csv").read_text()
    assert "split_00002/Same has the name too" in journal


def test_a_file_that_stands_in_a_tar_twice_and_another_release_in_it(release):
    path = packed(release, "")
    with tarfile.open(path, "a") as tar:
        tar.add(release / "large/split_00002/images/b.jpg", "large/split_00009/images/x.jpg")
        tar.add(release / "large/split_00000/images/a.jpg", "large/split_00009/images/x.jpg")
        tar.add(release / "large/split_00000/images/a.jpg", "old/large/split_00009/images/y.jpg")
    found, excluded = read(path)
    assert found.keys() == {"a", "b", "d"}
    assert ("x", "shared_name") in excluded
    assert ("y", "bad_member") in excluded


def test_sparse_members_are_not_unpacked(tmp_path):
    path = tmp_path / "x.tar"
    bombs.sparse_tar(path, "large/split_00000/images/a.jpg", 4 << 30)
    found, excluded = read(path)
    assert (found, excluded) == ({}, [("a", "too_large")])


def test_a_small_sparse_member_is_not_read_either(tmp_path):
    path = tmp_path / "x.tar"
    bombs.sparse_tar(path, "large/split_00000/images/a.jpg", 1 << 20)
    assert read(path) == ({}, [("a", "too_large")])


def test_an_image_with_two_annotations_is_excluded(tmp_path):
    root = tmp_path / "r"
    put(root / "large" / "split_00002", "b")
    put(root / "large" / "split_00002", "A")
    path = root / "large" / "split_00002" / "annotations" / "a.npz"
    path.write_bytes(NPZ)
    assert read(root) == ({"b": ("split_00002", 90)}, [("A", "shared_name")])


def test_a_tar_that_ends_within_its_last_image_says_so(release):
    path = packed(release, "")
    with tarfile.open(path) as tar:
        last = tar.getmembers()[-1]
    path.write_bytes(path.read_bytes()[: last.offset_data + 1])
    assert "damaged_tar" in [reason for _, reason in read(path)[1]]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EACCES])
def test_a_full_disk_stops_the_import_with_its_own_words(release, tmp_path, monkeypatch, number):
    # A compressed tar is decompressed beside the data; a plain one takes no room but its shards'.
    path, opened = packed(release, "", "w:gz"), Path.open

    class Full(io.BytesIO):
        def write(self, data):
            raise OSError(number, os.strerror(number))

    def full(self, mode="r", *rest, **options):
        if "w" in mode and "VGGHeads.tar" in self.name:
            return Full()
        return opened(self, mode, *rest, **options)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(OSError, match=os.strerror(number)):
        import_official(path, tmp_path / "out")
    assert not list(tmp_path.rglob(".tmp-*"))


def test_what_is_no_release_is_told(tmp_path):
    with pytest.raises(NotARelease, match="no such folder or tar"):
        list(iter_release(tmp_path / "nowhere.tar", Exclusions("read")))
    os.mkfifo(tmp_path / "pipe.tar")
    with pytest.raises(NotARelease, match="named pipe"):
        list(iter_release(tmp_path / "pipe.tar", Exclusions("read")))
