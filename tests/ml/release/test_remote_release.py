"""A release in a store gives the samples of its tar here, member by member."""

from __future__ import annotations

import pytest

from ml.records.exclusions import Exclusions
from ml.release.archives import NotARelease
from ml.release.official_reader import iter_release
from tests.fixtures.s3 import needs_s3, put, s3_server
from tests.ml.release.test_official_tar import packed, read, release  # noqa: F401


@pytest.fixture(scope="module")
def s3():
    with s3_server() as server:
        yield server


@needs_s3
@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_tar_in_a_store_gives_the_samples_of_the_tar(s3, release, tmp_path, monkeypatch, mode):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    tar = packed(release, "VGGHeads/", mode)
    prefix = mode.replace(":", "-")
    put({f"{prefix}/VGGHeads.tar": tar.read_bytes(), f"{prefix}/readme.txt": b"x"})
    before = sorted(tmp_path.iterdir())
    expected = read(tar)
    assert len(expected[0]) == 3
    assert read(f"s3://lab/{prefix}/VGGHeads.tar") == expected
    assert read(f"s3://lab/{prefix}/") == expected
    assert sorted(tmp_path.iterdir()) == before


@needs_s3
def test_what_is_no_release_is_named(s3):
    put({"none/a.txt": b"x", "bad/a.tar": b"no tar" * 200})
    for source, message in (
        ("s3://lab/none", "no tar in this folder"),
        ("s3://lab/missing.tar", "missing.tar: no such file or folder; expected a tar"),
        ("s3://lab/bad/a.tar", "not a readable tar"),
    ):
        with pytest.raises(NotARelease, match=message):
            list(iter_release(source, Exclusions("read")))
