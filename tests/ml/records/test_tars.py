"""Damage anywhere in a tar is reported; nothing after it is lost silently."""

from __future__ import annotations

import pytest

from ml.records.shards import ShardReader
from ml.records.tars import DamagedTar, TarReader
from tests.doors import tar_files

TAR = tar_files()[0][1]
SECOND = TAR.find(b"a.json")


def with_second_header(block: bytes) -> bytes:
    return TAR[:SECOND] + block + TAR[SECOND + 512 :]


CASES = [
    (with_second_header(bytes(512)), "not only zeros behind the end marker"),
    (with_second_header(b"b" + TAR[SECOND + 1 : SECOND + 512]), "bad checksum"),
    (TAR[: SECOND + 100], "truncated header"),
    (TAR[:SECOND], "without an end marker"),
    (TAR + TAR, "not only zeros behind the end marker"),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("content", "words"), CASES)
def test_members_before_the_damage_are_yielded_and_then_it_is_reported(
    tmp_path, content, words, stream
):
    path = tmp_path / "x.tar"
    path.write_bytes(content)
    found = []
    with pytest.raises(DamagedTar, match=words), TarReader(path, stream=stream) as tar:
        found.extend(member.name for member in tar)
    assert found == (["a.jpg", "a.json", "b.jpg"] if content == TAR + TAR else ["a.jpg"])
    with ShardReader(path) as reader:
        assert reader.keys()[0] == "a"
        assert words in str(reader.damage)


def test_padding_of_any_length_is_no_damage(tmp_path):
    path = tmp_path / "x.tar"
    for content in (TAR.rstrip(b"\0") + bytes(2048), TAR + bytes(1 << 20)):
        path.write_bytes(content + bytes(-len(content) % 512))
        with TarReader(path) as tar:
            assert len(list(tar)) == 3
