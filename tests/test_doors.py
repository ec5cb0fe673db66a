"""A reader raises only its declared error, and a file's claims cost no memory."""

from __future__ import annotations

import errno
import os
import pickle
import subprocess
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from ml.flame.flame_file import read_flame_file, read_masks
from ml.flame.landmark_files import read_landmarks
from ml.flame.safe_pickle import FlameFileError
from ml.imaging.io import UnreadableImage, decode_image
from ml.model.checkpoint_file import UnusableCheckpoint, read_checkpoint_tensors
from ml.records import limits
from ml.records.arrays import UnreadableArrays, read_arrays
from ml.records.files import UnreadableFile, is_environment, read_file
from ml.records.tables import EXCLUSIONS, TableError, read_table
from ml.records.tars import DamagedTar, TarReader
from tests import bombs, doors_of_sets
from tests.doors import doors, knock

PER_DOOR = 60
DOORS = doors() | doors_of_sets.doors()
NOT_WHOLE = {"detector", "FLAME model", "head model"}
"""Their seeds are whole files of a neighbouring kind: real ones have 50 to 500 MB. A small detector
is behind the doors `weight file` and `model folder`.
"""


EXCLUDING = {"shard", "release folder"}
"""They read on and name what they leave out."""


@pytest.mark.parametrize("name", sorted(set(DOORS) - NOT_WHOLE))
def test_whole_files_are_taken(name, tmp_path):
    for number, (suffix, content) in enumerate(DOORS[name].files()):
        path = tmp_path / f"{number}{suffix}"
        path.write_bytes(DOORS[name].rebuild(content))
        door = DOORS[name]
        assert door.count(door.read(path)) == door.given(path.read_bytes())


@pytest.mark.parametrize("name", sorted(DOORS))
def test_only_the_declared_error_leaves_a_reader(name, tmp_path):
    found = knock(name, DOORS[name], PER_DOOR, tmp_path)
    assert found["taken"] + found["refused"] == PER_DOOR
    assert found["mute"] == found["endless"] == 0
    assert found["refused"] > PER_DOOR / 4 or name in EXCLUDING


MEASURE = """
import sys
from pathlib import Path
from ml.imaging.io import decode_image
print(decode_image(Path(sys.argv[1])).shape)
# getrusage would tell of the parent's memory, from before this program was loaded.
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(int(status["VmHWM"].split()[0]) // 1024)
"""


def test_a_large_transparent_image_is_read_in_little_memory(tmp_path):
    path, side = tmp_path / "a.png", 5000
    path.write_bytes(bombs.png(side, side, colour=3, bits=1, transparent=True))
    command = [sys.executable, "-c", MEASURE, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    shape, peak = done.stdout.splitlines()
    assert shape == f"({side}, {side}, 3)"
    # 16 bytes a pixel: 1.7 GB at the limit of 100 megapixels.
    assert int(peak) < 100 + 16 * side * side / 2**20


@pytest.mark.parametrize(
    "content",
    [
        bombs.jpeg(30_000, 30_000),
        bombs.png(30_000, 30_000),
        bombs.gif(30_000, 30_000),
        bombs.bmp(30_000, 30_000),
        bombs.png(10_001, 10_000),
    ],
)
def test_a_size_is_compared_before_anything_is_decoded(content, monkeypatch):
    import cv2
    from PIL import ImageFile

    def decode(*_, **__):
        raise AssertionError("it was decoded")

    monkeypatch.setattr(cv2, "imdecode", decode)
    monkeypatch.setattr(ImageFile.ImageFile, "load", decode)
    with pytest.raises(UnreadableImage, match=r"expected 1 to 100,000,000|too large"):
        decode_image(content)


def test_checkpoints_that_unpack_to_too_much_are_refused_unread(tmp_path, monkeypatch):
    def read(*_):
        raise AssertionError("it was unpacked")

    path = tmp_path / "bomb.pth"
    path.write_bytes(bombs.zip_bomb("archive/data/0", 100 << 20, {"archive/data.pkl": b"}."}))
    assert path.stat().st_size < 1 << 20
    monkeypatch.setattr(zipfile.ZipFile, "read", read)
    with pytest.raises(UnusableCheckpoint, match="104,857,602 bytes in the archive's members"):
        read_checkpoint_tensors(path)


@pytest.mark.parametrize("content", [bombs.memo_bomb(), bombs.doubling_list()])
def test_pickles_that_ask_for_memory_or_print_themselves(content, tmp_path):
    path = tmp_path / "x.pkl"
    path.write_bytes(content)
    for read in (read_masks, read_flame_file):
        with pytest.raises(FlameFileError) as caught:
            read(path)
        assert len(str(caught.value)) < 1000
    path.write_bytes(bombs.torch_zip(content, {}))
    with pytest.raises(UnusableCheckpoint) as caught:
        read_checkpoint_tensors(path)
    assert len(str(caught.value)) < 1000


def test_one_storage_named_often_is_read_once(tmp_path):
    import torch

    path, reads = tmp_path / "x.pth", []
    shared = torch.zeros(1000)
    torch.save({"net": {f"w{n}": shared[n:] for n in range(200)}}, path)
    state = read_checkpoint_tensors(path)
    reads = {tensor.untyped_storage().data_ptr() for tensor in state.values()}
    assert len(state) == 200
    assert len(reads) == 1


def test_a_tensor_larger_than_its_storage_is_refused(tmp_path):
    import torch

    path = tmp_path / "x.pth"
    torch.save({"net": {"w": torch.zeros(1).expand(10**6, 10**6)}}, path)
    assert path.stat().st_size < 10_000
    with pytest.raises(UnusableCheckpoint, match="larger than its storage"):
        read_checkpoint_tensors(path)


def test_arrays_that_claim_more_than_they_have(tmp_path):
    path = tmp_path / "x.npz"
    path.write_bytes(bombs.lying_npy((10**9, 10**9)))
    with pytest.raises(UnreadableArrays, match="bytes, the file has 8"):
        read_arrays(path)
    path.write_bytes(bombs.zip_bomb("lmk_face_idx.npy", 200 << 20))
    with pytest.raises(FlameFileError, match="expected at most"):
        read_landmarks(path)


def test_a_table_of_a_thousand_million_equal_values_is_refused(tmp_path, monkeypatch):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "t.parquet"
    names = [column.name for column in EXCLUSIONS.columns]
    rows = pa.array(["x"]).dictionary_encode().take(pa.array(np.zeros(2_000_000, np.int32)))
    pq.write_table(pa.table(dict.fromkeys(names, rows)), path)
    assert path.stat().st_size < 40_000
    monkeypatch.setattr("ml.records.tables.MAX_TABLE_BYTES", 1 << 20)
    with pytest.raises(TableError, match="64,000,000 bytes"):
        read_table(path, EXCLUSIONS)


def test_sparse_and_oversized_members_are_named_and_not_unpacked(tmp_path):
    path = tmp_path / "x.tar"
    bombs.sparse_tar(path, "a.jpg", 4 << 30)
    assert path.stat().st_size < 20_000
    with TarReader(path) as tar:
        (member,) = tar
    assert "sparse" in member.problem
    with TarReader(path, max_member_bytes=0) as tar:
        assert all(member.problem for member in tar)


def test_a_name_of_gigabytes_in_a_compressed_tar_is_refused(tmp_path):
    import gzip
    import tarfile

    info = tarfile.TarInfo("@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 3 << 30
    path = tmp_path / "x.tar"
    path.write_bytes(gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(4096)))
    with pytest.raises(DamagedTar, match="3,221,225,472 bytes"), TarReader(path, stream=True) as t:
        list(t)


def test_a_negative_size_does_not_go_round_for_ever(tmp_path):
    import tarfile

    path = tmp_path / "x.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("a.jpg")
        info.pax_headers = {"size": "-1024"}
        tar.addfile(info)
    with pytest.raises(DamagedTar, match="claims -1024 bytes"), TarReader(path) as tar:
        list(tar)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EDQUOT, errno.EIO])
def test_faults_of_the_machine_keep_their_own_words(number, tmp_path, monkeypatch):
    path = tmp_path / "a.jpg"
    path.write_bytes(b"x")

    def fails(*_, **__):
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(Path, "open", fails)
    for read in (decode_image, read_arrays, lambda p: read_file(p, 100), TarReader):
        with pytest.raises(OSError, match=os.strerror(number)) as caught:
            read(path)
        assert caught.value.errno == number
    assert is_environment(MemoryError())
    assert not is_environment(ValueError())
    assert not is_environment(OSError("a decoder's complaint"))


def test_pipes_folders_and_missing_files_are_told_apart_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "link.jpg").symlink_to(tmp_path / "nowhere")
    for name, word in (("pipe.jpg", "named pipe"), ("", "folder"), ("link.jpg", "No such file")):
        with pytest.raises(UnreadableFile, match=word):
            read_file(tmp_path / name, 10)
        with pytest.raises(UnreadableImage, match=word):
            decode_image(tmp_path / name)
    with pytest.raises(DamagedTar, match="named pipe"):
        TarReader(tmp_path / "pipe.jpg")
    (tmp_path / "large").write_bytes(bytes(11))
    with pytest.raises(UnreadableFile, match="11 bytes in the file, expected at most 10"):
        read_file(tmp_path / "large", 10)


def test_masks_of_every_protocol_with_ordered_keys_and_scalars(tmp_path):
    path = tmp_path / "m.pkl"
    masks = OrderedDict(face=np.arange(5), ears=np.arange(3), note=np.int64(3))
    plain = OrderedDict(face=np.arange(5), ears=np.arange(3))
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        path.write_bytes(pickle.dumps(plain, protocol))
        assert read_masks(path)["face"].tolist() == [0, 1, 2, 3, 4]
        path.write_bytes(pickle.dumps(masks, protocol))
        with pytest.raises(FlameFileError, match="note must be vertex indices"):
            read_masks(path)


def test_messages_are_short_whatever_they_speak_of():
    endless: list[object] = []
    endless.append(endless)
    doubling: object = 0
    for _ in range(70):
        doubling = [doubling, doubling]
    for value in (endless, doubling, 10**9000, "x" * 10**6, {"a": "y" * 10**6}, b"z" * 10**6):
        assert len(limits.brief(value)) <= 303


def test_a_name_of_thousands_of_bytes_is_not_quoted_whole(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, a=np.arange(2000))
    data = bytearray(path.read_bytes())
    # The name's length in the member's own header, which zipfile compares with the directory's.
    data[26:28] = (4000).to_bytes(2, "little")
    with pytest.raises(UnreadableArrays, match="File name in directory") as refused:
        read_arrays(bytes(data))
    assert len(str(refused.value)) < 400
