"""Image shards: tar files in WebDataset naming, `<sample_id>.jpg` + `<sample_id>.json`.

The same samples in the same order give the same bytes. A damaged shard gives back what can
still be read and names the rest.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ml.records.atomic import atomic_write
from ml.records.files import Closing
from ml.records.remote import AnyPath, located
from ml.records.tars import DamagedTar, TarMember, TarReader


def read_at(file: IO[bytes], size: int, offset: int) -> bytes:
    """Return a range of an open file; of a local one, without moving its position.

    Args:
        file: of a path or an address.
        size: bytes.
        offset: the first one.

    Returns:
        The bytes, fewer at the end of the file.
    """
    try:
        descriptor = file.fileno()
    except io.UnsupportedOperation:
        file.seek(offset)
        return file.read(size)
    return os.pread(descriptor, size, offset)


class DamagedSample(ValueError):
    """A sample of a shard cannot be read; the message names shard, sample and cause."""

    def __init__(self, shard: AnyPath | str, sample_id: str, detail: str) -> None:
        """Store the parts, for a row of the exclusions."""
        self.shard = located(shard)
        super().__init__(f"{self.shard.name}/{sample_id}: {detail}")
        self.sample_id = sample_id
        self.detail = detail


@dataclass(frozen=True)
class Span:
    """Where a member's bytes are in the tar."""

    offset: int
    size: int


class ShardWriter:
    """Writes one shard; use it in a `with shard_writer(path) as writer` block."""

    def __init__(self, path: Path) -> None:
        """Open `path` for writing; members carry no times, owners or machine names."""
        self._tar = tarfile.open(path, "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115, see close

    def add(self, sample_id: str, members: Mapping[str, bytes | dict[str, Any]]) -> dict[str, Span]:
        """Append a sample.

        Args:
            sample_id: no dots or slashes; WebDataset splits names at the first dot.
            members: extension -> bytes, or a dict that is written as JSON.

        Returns:
            extension -> span of the member's bytes, for the table that indexes the shard.

        Raises:
            ValueError: the id has a dot or a slash.
        """
        if "." in sample_id or "/" in sample_id:
            raise ValueError(f"shard: sample id must have no dot or slash, got {sample_id!r}")
        spans = {}
        for extension in sorted(members):
            value = members[extension]
            data = value if isinstance(value, bytes) else json.dumps(value, sort_keys=True).encode()
            info = tarfile.TarInfo(f"{sample_id}.{extension}")
            info.size = len(data)
            info.mode = 0o644
            offset = self._tar.offset + tarfile.BLOCKSIZE
            self._tar.addfile(info, io.BytesIO(data))
            spans[extension] = Span(offset, len(data))
        return spans

    def close(self) -> None:
        """Write the end of the tar."""
        self._tar.close()


@contextmanager
def shard_writer(path: Path) -> Iterator[ShardWriter]:
    """Open a `ShardWriter` whose file appears at `path` only when the block ends without error."""
    with atomic_write(path) as temporary:
        writer = ShardWriter(temporary)
        try:
            yield writer
        finally:
            writer.close()


class ShardReader(Closing):
    """Random access to the samples of a shard.

    The index is made by walking the tar once. A tar that breaks in the middle keeps what came
    before; `damage` says where and why it broke.
    """

    def __init__(self, path: AnyPath | str) -> None:
        """Index the shard.

        Args:
            path: the tar file, or its address (`s3://bucket/shard.tar`): then members are read in
                ranges, and to index it every header, with what is between headers less than a
                mebibyte apart.

        Raises:
            FileNotFoundError: there is no such file.
            StoreUnavailable: a store cannot be read.
        """
        self.path = located(path)
        self.damage: str | None = None
        self._spans: dict[str, dict[str, Span]] = {}
        self._doubled: set[tuple[str, str]] = set()
        self._file: IO[bytes] = self.path.open("rb")
        self._index()

    def _index(self) -> None:
        size = self.path.stat().st_size
        end = 0
        try:
            with TarReader(self.path) as tar:
                for member in tar:
                    self._take(member)
                    end = member.offset + member.size
        except DamagedTar as error:
            self.damage = str(error)
        if end > size:
            self.damage = f"tar is cut at byte {size}, expected at least {end}"
        elif self.damage is None and not self._ends_with_zero_block(end, size):
            self.damage = f"tar breaks after byte {end}: no end marker"

    def _ends_with_zero_block(self, end: int, size: int) -> bool:
        start = -(-end // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
        block = read_at(self._file, tarfile.BLOCKSIZE, start)
        return start < size and len(block) == tarfile.BLOCKSIZE and not any(block)

    def _take(self, member: TarMember) -> None:
        """Index a member; a member that belongs to no sample is damage."""
        sample_id, _, extension = member.name.partition(".")
        if member.kind != "file" or "/" in member.name or not extension:
            self.damage = f"member {member.name!r} is not <sample_id>.<extension>"
        elif member.problem:
            self.damage = f"member {member.name!r}: {member.problem}"
        elif extension in self._spans.setdefault(sample_id, {}):
            self._doubled.add((sample_id, extension))
        else:
            self._spans[sample_id][extension] = Span(member.offset, member.size)

    def keys(self) -> list[str]:
        """Return ids of the samples that the index holds, in order."""
        return list(self._spans)

    def read(self, sample_id: str, extension: str = "jpg") -> bytes:
        """Return the bytes of one member.

        Raises:
            DamagedSample: the shard has no such member, or its bytes are cut off.
        """
        if (sample_id, extension) in self._doubled:
            detail = f".{extension} occurs in the shard twice, which is ambiguous"
            raise DamagedSample(self.path, sample_id, detail)
        span = self._spans.get(sample_id, {}).get(extension)
        if span is None:
            cause = f"; {self.damage}" if self.damage else ""
            raise DamagedSample(self.path, sample_id, f"no member .{extension} in the shard{cause}")
        data = read_at(self._file, span.size, span.offset)
        if len(data) != span.size:
            detail = (
                f".{extension} is cut: expected {span.size} bytes at {span.offset}, got {len(data)}"
            )
            raise DamagedSample(self.path, sample_id, detail)
        return data

    def read_json(self, sample_id: str) -> dict[str, Any]:
        """Return the sample's JSON.

        Raises:
            DamagedSample: it is missing, cut off or not JSON.
        """
        try:
            value = json.loads(self.read(sample_id, "json"))
        except (ValueError, RecursionError) as error:
            raise DamagedSample(self.path, sample_id, f".json is not JSON: {error}") from error
        if not isinstance(value, dict):
            raise DamagedSample(
                self.path, sample_id, f".json: expected an object, got {type(value)}"
            )
        return value

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class OpenShards:
    """Shards opened on first use; only the last few stay open.

    Picklable: each process opens its own.
    """

    def __init__(self, limit: int = 128) -> None:
        """Start without open shards.

        Args:
            limit: largest number of open shards; each has a file and its index.
        """
        self._limit = limit
        self._pid = os.getpid()
        self._readers: OrderedDict[AnyPath, ShardReader] = OrderedDict()

    def __reduce__(self) -> tuple[Any, ...]:
        # Open files are not pickled: another process opens its own.
        return type(self), (self._limit,)

    def __len__(self) -> int:
        return len(self._readers)

    def get(self, path: AnyPath) -> ShardReader:
        """Return the reader of a shard, indexed.

        Raises:
            FileNotFoundError: there is no such file.
        """
        if self._pid != os.getpid():  # a forked process shares the files' positions, not more
            self._pid, self._readers = os.getpid(), OrderedDict()
        if path not in self._readers:
            self._readers[path] = ShardReader(path)
            if len(self._readers) > self._limit:
                self._readers.popitem(last=False)[1].close()
        self._readers.move_to_end(path)
        return self._readers[path]
