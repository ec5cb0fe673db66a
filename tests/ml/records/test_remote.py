"""Addresses are read in place, in ranges; a store's faults are told from a file's."""

import http.server
import pickle
import threading
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

from ml.imaging.io import UnreadableImage, decode_image, encode_jpeg
from ml.records import remote
from ml.records.files import UnreadableFile, existing, is_environment, read_file
from ml.records.limits import MAX_IMAGE_FILE_BYTES
from ml.records.remote import RemotePath, StoreUnavailable, UnusableAddress, child, located
from ml.records.shards import DamagedSample, ShardReader, shard_writer
from ml.records.tables import EXCLUSIONS, TableError, iter_table, read_table, table_rows
from ml.training_data.samples import HeadSamples
from tests.fixtures.ports import free_port
from tests.fixtures.s3 import needs_s3, put, s3_server


@pytest.fixture(scope="module")
def s3():
    with s3_server() as server:
        yield server


@pytest.mark.parametrize(
    ("text", "parts", "shown"),
    [
        ("s3://lab/a/b.jpg", ("s3://lab", "a", "b.jpg"), "s3://lab/a/b.jpg"),
        ("s3://lab/a b?c#d.jpg", ("s3://lab", "a b?c#d.jpg"), "s3://lab/a b?c#d.jpg"),
        ("s3://lab/", ("s3://lab",), "s3://lab"),
        ("https://u:p@h:1/a%20b.jpg?X-Signature=x", ("https://h:1", "a b.jpg"), "https://h:1/a%20b.jpg"),
    ],
)  # fmt: skip
def test_names_of_addresses(text, parts, shown):
    place = located(text)
    assert (place.parts, str(place)) == (parts, shown)
    assert pickle.loads(pickle.dumps(place)) == place


@pytest.mark.parametrize(
    "text",
    [
        "s3://", "s3:///a.jpg", "s3://lab/../a.jpg", "s3://lab//a.jpg", "s3://lab/./a.jpg",
        "https://host", "https://host/..%2Fa.jpg", "https://host/%2e%2e/a.jpg", "s3://lab/a\0.jpg",
    ],
)  # fmt: skip
def test_names_that_would_lead_elsewhere_are_refused(text):
    with pytest.raises(UnusableAddress, match="without empty parts"):
        located(text)


def test_what_is_no_address_is_a_local_path():
    assert located("s3/a.jpg") == Path("s3/a.jpg")
    assert located("gs://lab/a.jpg") == Path("gs://lab/a.jpg")
    with pytest.raises(ValueError, match="expected a local file or folder; download it first"):
        existing("s3://lab/a.jpg")


def test_the_order_is_that_of_paths():
    names = ["a/b.jpg", "a-b.jpg", "a/a.jpg", "a.jpg", "B.jpg"]
    folder = RemotePath("s3://lab/x")
    expected = [p.as_posix() for p in sorted(map(Path, names))]
    found = sorted(child(folder, name) for name in names)
    assert [place.relative_to(folder).as_posix() for place in found] == expected


@pytest.mark.parametrize(
    ("address", "package"), [("s3://lab/a", "s3fs"), ("http://h/a", "aiohttp")]
)
def test_a_missing_extra_is_named(monkeypatch, address, package):
    monkeypatch.setattr(remote, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=rf"{package}: pip install 'vggheads\[s3\]'"):
        read_file(located(address), 10)


@needs_s3
def test_files_have_the_limits_and_errors_of_local_ones(s3):
    put({"f/a.bin": b"12345", "f/empty": b"", "f/no.jpg": b"no image"})
    assert read_file(located("s3://lab/f/a.bin"), 5) == b"12345"
    assert read_file(located("s3://lab/f/empty"), 5) == b""
    for name, message in (
        ("a.bin", "s3://lab/f/a.bin: 5 bytes in the file, expected at most 4"),
        ("b.bin", "s3://lab/f/b.bin: no such file or folder"),
        ("", "s3://lab/f is a folder"),
    ):
        with pytest.raises(UnreadableFile, match=message):
            read_file(located(f"s3://lab/f/{name}"), 4)
    with pytest.raises(UnreadableFile, match="bucket does not exist"):
        read_file(located("s3://nowhere/a"), 4)
    with pytest.raises(UnreadableImage, match="of no known format"):
        decode_image(located("s3://lab/f/no.jpg"))


class _Requests:
    """Ranges that were asked for, and the bytes that came."""

    def __init__(self, monkeypatch):
        import s3fs

        self.sizes = []
        fetch = s3fs.core.S3File._fetch_range

        def counted(file, start, end):
            data = fetch(file, start, end)
            self.sizes.append(len(data))
            return data

        monkeypatch.setattr(s3fs.core.S3File, "_fetch_range", counted)


@pytest.fixture
def shard(tmp_path):
    """Ten members of 3 MB: a store is read in blocks of one."""
    path = tmp_path / "shard-00000.tar"
    with shard_writer(path) as writer:
        for i in range(10):
            writer.add(f"s{i}", {"jpg": bytes([i]) * 3_000_000, "json": {"number": i}})
    return path


@needs_s3
def test_members_of_a_shard_are_read_in_ranges(s3, shard, monkeypatch):
    put({"shards/shard-00000.tar": shard.read_bytes()})
    requests = _Requests(monkeypatch)
    with ShardReader("s3://lab/shards/shard-00000.tar") as reader, ShardReader(shard) as local:
        assert reader.keys() == local.keys()
        assert reader.damage is None
        assert sum(requests.sizes) < 14_000_000, "headers, with a block each"
        requests.sizes.clear()
        assert reader.read("s7") == local.read("s7")
        assert reader.read_json("s3") == {"number": 3}
        assert sum(requests.sizes) < 6_000_000
        with pytest.raises(DamagedSample, match=r"shard-00000.tar/none: no member .jpg"):
            reader.read("none")


@needs_s3
@pytest.mark.parametrize("cut", [1_000_000, 9_500_000])
def test_a_cut_shard_in_a_store_is_read_as_a_local_one(s3, shard, cut):
    shard.write_bytes(shard.read_bytes()[:cut])
    put({f"cut-{cut}.tar": shard.read_bytes()})
    with ShardReader(f"s3://lab/cut-{cut}.tar") as reader, ShardReader(shard) as local:
        assert reader.damage == local.damage.replace(shard.name, f"cut-{cut}.tar")
        assert reader.keys() == local.keys() == [f"s{i}" for i in range(cut // 3_000_000 + 1)]
        last = reader.keys()[-1]
        with pytest.raises(DamagedSample, match="jpg is cut"):
            reader.read(last)
        assert last == "s0" or len(reader.read("s0")) == 3_000_000


@needs_s3
def test_row_groups_of_a_table_are_read_in_ranges(s3, tmp_path, monkeypatch):
    rows = 40_000
    ids = [f"{i:08d}" for i in range(rows)]
    words = np.random.default_rng(0).integers(0, 2**60, rows).astype(str)
    frame = pd.DataFrame(
        {"sample_id": ids, "stage": "s", "reason": words, "detail": words}
    )  # fmt: skip
    table = EXCLUSIONS.schema.empty_table().from_pandas(frame, EXCLUSIONS.schema)
    path = tmp_path / "t.parquet"
    pq.write_table(table, path, row_group_size=2_000, compression="none", store_schema=False)
    assert path.stat().st_size > 1_500_000
    put({"t.parquet": path.read_bytes(), "bad.parquet": b"PAR1 no"})
    requests = _Requests(monkeypatch)
    monkeypatch.setattr(remote, "_BLOCK", 1 << 14)
    first = next(iter_table("s3://lab/t.parquet", EXCLUSIONS, 100))
    assert len(first) == 100
    assert sum(requests.sizes) < 400_000
    pd.testing.assert_frame_equal(
        read_table("s3://lab/t.parquet", EXCLUSIONS), read_table(path, EXCLUSIONS)
    )
    assert table_rows("s3://lab/t.parquet", EXCLUSIONS) == rows
    with pytest.raises(FileNotFoundError, match=r"s3://lab/u.parquet: no such file"):
        read_table("s3://lab/u.parquet", EXCLUSIONS)
    with pytest.raises(FileNotFoundError, match="bucket does not exist"):
        read_table("s3://nowhere/t.parquet", EXCLUSIONS)
    with pytest.raises(TableError, match=r"bad.parquet is not a readable Parquet file"):
        read_table("s3://lab/bad.parquet", EXCLUSIONS)


@needs_s3
def test_samples_of_shards_in_a_store_are_read_by_forked_loader_processes(s3, tmp_path):
    """The connection of a process that forks is of no use to its children."""
    path = tmp_path / "shard-00000.tar"
    ids = [f"s{i}" for i in range(6)]
    with shard_writer(path) as writer:
        for i, name in enumerate(ids):
            writer.add(name, {"jpg": encode_jpeg(np.full((16, 16, 3), 40 * i, np.uint8))})
    put({"train/shard-00000.tar": path.read_bytes()})
    samples = HeadSamples(ids, ["s3://lab/train/shard-00000.tar"] * 6, {})
    expected = [int(samples[i].image_rgb[0, 0, 0]) for i in range(6)]
    assert expected == sorted(expected)
    assert expected[-1] > 190
    loader = torch.utils.data.DataLoader(
        samples, batch_size=1, num_workers=1, multiprocessing_context="fork", collate_fn=_value
    )
    assert list(loader) == expected


def _value(batch):
    return int(batch[0].image_rgb[0, 0, 0])


@needs_s3
def test_a_store_without_credentials_or_server_is_an_error_of_the_environment(s3, monkeypatch):
    import boto3
    import s3fs

    boto3.client("s3").put_object(Bucket="lab", Key="open.bin", Body=b"1", ACL="public-read")
    put({"closed.bin": b"1"})
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    s3fs.S3FileSystem.clear_instance_cache()
    place = located("s3://lab/open.bin")
    with pytest.raises(StoreUnavailable, match=r"s3://lab cannot be read: Unable.*AWS_PROFILE or"):
        read_file(place, 10)
    # What fsspec makes of FSSPEC_S3_ANON=true when it is imported.
    import fsspec

    monkeypatch.setitem(fsspec.config.conf, "s3", {"anon": "true"})
    s3fs.S3FileSystem.clear_instance_cache()
    assert read_file(place, 10) == b"1"
    with pytest.raises(StoreUnavailable, match="Forbidden; these credentials may not read it"):
        read_file(located("s3://lab/closed.bin"), 10)
    monkeypatch.delitem(fsspec.config.conf, "s3")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(StoreUnavailable, match="AWS_ENDPOINT_URL right") as caught:
        read_file(place, 10)
    s3fs.S3FileSystem.clear_instance_cache()
    assert is_environment(caught.value)
    assert "open.bin" not in caught.value.brief
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.brief) == (str(caught.value), caught.value.brief)


@contextmanager
def web(answer):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            answer(self)

        do_GET = do_HEAD  # noqa: N815

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def respond(handler, status, body=b"", claimed=None):
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(body) if claimed is None else claimed))
    handler.end_headers()
    if handler.command == "GET":
        handler.wfile.write(body)


@needs_s3
def test_images_of_a_web_server():
    jpeg = encode_jpeg(np.full((20, 30, 3), 90, np.uint8))

    def answer(handler):
        path = handler.path.partition("?")[0]
        if path == "/a.jpg":
            respond(handler, 200, jpeg)
        elif path == "/cut.jpg":
            respond(handler, 200, jpeg[:100], len(jpeg))
        elif path == "/endless.jpg":
            respond(handler, 200, b"", MAX_IMAGE_FILE_BYTES + 1)
        else:
            respond(handler, 403 if path == "/secret.jpg" else 404)

    with web(answer) as host:
        assert decode_image(located(f"{host}/a.jpg?signature=x")).shape == (20, 30, 3)
        with pytest.raises(UnreadableImage, match=r"/b.jpg: no such file"):
            decode_image(located(f"{host}/b.jpg"))
        with pytest.raises(
            UnreadableImage, match="268,435,457 bytes in the file, expected at most"
        ):
            decode_image(located(f"{host}/endless.jpg"))
        with pytest.raises(StoreUnavailable, match=f"{host} cannot be read: 403"):
            decode_image(located(f"{host}/secret.jpg"))
        with pytest.raises(StoreUnavailable, match=f"{host} cannot be read") as caught:
            decode_image(located(f"{host}/cut.jpg?signature=x"))
        assert "signature" not in str(caught.value)
