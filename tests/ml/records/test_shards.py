import tarfile

import pytest

from ml.records.shards import DamagedSample, ShardReader, shard_writer


@pytest.fixture
def shard(tmp_path):
    path = tmp_path / "shard-00000.tar"
    with shard_writer(path) as writer:
        for i in range(4):
            writer.add(f"s{i}", {"jpg": bytes([i]) * 700, "json": {"number": i}})
    return path


def test_spans_point_at_the_bytes(tmp_path):
    with shard_writer(tmp_path / "a.tar") as writer:
        writer.add("x", {"jpg": b"first", "json": {}})
        span = writer.add("y", {"jpg": b"second", "json": {}})["jpg"]
    data = (tmp_path / "a.tar").read_bytes()
    assert data[span.offset : span.offset + span.size] == b"second"


def test_reads_back_and_is_a_plain_tar(shard):
    with ShardReader(shard) as reader:
        assert reader.keys() == ["s0", "s1", "s2", "s3"]
        assert reader.damage is None
        assert reader.read("s2") == bytes([2]) * 700
        assert reader.read_json("s3") == {"number": 3}
    with tarfile.open(shard) as tar:
        assert tar.getnames()[:2] == ["s0.jpg", "s0.json"]


def test_same_samples_same_bytes(shard, tmp_path):
    with shard_writer(tmp_path / "b.tar") as writer:
        for i in range(4):
            writer.add(f"s{i}", {"json": {"number": i}, "jpg": bytes([i]) * 700})
    assert (tmp_path / "b.tar").read_bytes() == shard.read_bytes()


@pytest.mark.parametrize("cut", [100, 1536, 3000, 5200, 6700])
def test_a_cut_tar_keeps_what_came_before_the_cut(shard, cut):
    data = shard.read_bytes()
    shard.write_bytes(data[:cut])
    with ShardReader(shard) as reader:
        assert reader.damage is not None
        whole = [s for i, s in enumerate(["s0", "s1", "s2", "s3"]) if (i + 1) * 2560 <= cut]
        for sample_id in whole:
            assert len(reader.read(sample_id)) == 700
        for sample_id in {"s0", "s1", "s2", "s3"} - set(reader.keys()):
            with pytest.raises(DamagedSample, match=f"shard-00000.tar/{sample_id}: no member .jpg"):
                reader.read(sample_id)


def test_garbage_in_the_middle_is_reported(shard):
    data = bytearray(shard.read_bytes())
    data[2560 * 2 : 2560 * 2 + 512] = b"\x07" * 512
    shard.write_bytes(data)
    with ShardReader(shard) as reader:
        assert reader.keys() == ["s0", "s1"]
        assert "breaks after byte" in reader.damage


def test_a_failed_block_leaves_no_file(tmp_path):
    with pytest.raises(ValueError, match="must have no dot"), shard_writer(tmp_path / "c.tar") as w:
        w.add("a.b", {"jpg": b""})
    assert list(tmp_path.iterdir()) == []


def test_a_member_that_occurs_twice_is_not_returned(tmp_path):
    path = tmp_path / "x.tar"
    with shard_writer(path) as writer:
        writer.add("a", {"jpg": b"first", "json": {}})
        writer.add("b", {"jpg": b"other", "json": {}})
        writer.add("a", {"jpg": b"second"})
    with ShardReader(path) as reader:
        with pytest.raises(DamagedSample, match=r"x.tar/a: .jpg occurs in the shard twice"):
            reader.read("a")
        assert reader.read("b") == b"other"
