"""Which files belong to a unit."""

import hashlib
from pathlib import Path

import pytest

from dagster_project.markers import (
    WHOLE,
    Marker,
    complete,
    content_version,
    read_marker,
    unit_files,
    write_marker,
)

FILES = (
    "data/images/shard-00001.tar",
    "data/images/shard-00001-preview.png",
    "data/images/shard-000011.tar",
    "data/images/shard-00002.tar",
    "data/images/shard-00001.json",
    "data/images/.tmp-shard-00001.tar",
    "data/images/shard-00001.exclusions.parquet",
    "data/truth/depth/shard-00001_depth.npz",
    "data/other/shard-00001.tar",
)


def _write(root: Path) -> None:
    for name in FILES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)


def test_files_of_a_shard_are_those_that_begin_with_its_name(tmp_path: Path) -> None:
    _write(tmp_path)
    found = unit_files(tmp_path, ("data/images", "data/truth"), "shard-00001")
    assert list(found) == [
        "data/images/shard-00001-preview.png",
        "data/images/shard-00001.exclusions.parquet",
        "data/images/shard-00001.tar",
        "data/truth/depth/shard-00001_depth.npz",
    ]
    for name, md5 in found.items():
        assert md5 == hashlib.md5(name.encode()).hexdigest()


def test_a_whole_stage_has_all_files_but_its_marker_and_unfinished_ones(tmp_path: Path) -> None:
    _write(tmp_path)
    (tmp_path / "data/images/stage.json").write_text("{}")
    found = unit_files(tmp_path, ("data/images",), WHOLE)
    assert set(found) == {
        name for name in FILES if name.startswith("data/images/") and ".tmp-" not in name
    }


def test_markers_are_read_as_they_were_written(tmp_path: Path) -> None:
    assert read_marker(tmp_path, "shard-00001") is None
    marker = Marker("f" * 64, {"data/a.tar": "1"}, 5, 3, 2, {"share": 0.6}, {"grid": "data/a.png"})
    write_marker(tmp_path, "shard-00001", marker)
    assert read_marker(tmp_path, "shard-00001") == marker
    assert read_marker(tmp_path, "shard-00002") is None


@pytest.mark.parametrize("content", ["", "{", "[]", "5", "{}", '{"fingerprint": "a", "other": 1}'])
def test_a_file_that_is_no_marker_is_an_unfinished_unit(tmp_path: Path, content: str) -> None:
    (tmp_path / "stage.json").write_text(content)
    assert read_marker(tmp_path, WHOLE) is None


def test_a_unit_is_complete_with_all_its_files(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    assert complete(tmp_path, Marker("f"))
    assert complete(tmp_path, Marker("f", {"a": "1"}))
    assert not complete(tmp_path, Marker("f", {"a": "1", "b": "2"}))


def test_a_version_is_that_of_the_files_in_their_order() -> None:
    first, second = Marker("x", {"b": "2", "a": "1"}), Marker("y", {"c": "3"})
    expected = hashlib.md5(b'[["a", "1"], ["b", "2"], ["c", "3"]]').hexdigest()
    assert content_version({"one": first, "two": second}) == expected
    assert content_version({"two": second, "one": first}) == expected
    assert content_version({"one": first}) != expected
    assert content_version({}) == hashlib.md5(b"[]").hexdigest()
