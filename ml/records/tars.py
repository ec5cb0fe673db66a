"""The only reader of tars: members one by one, within limits, with one error type.

A tar that breaks off yields the members before the break; then the error gives place and cause.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any, Final, Literal, Self

from ml.records.files import Closing, UnreadableFile, check_regular, is_environment
from ml.records.limits import MAX_IMAGE_FILE_BYTES, MAX_TAR_HEADER_BYTES, MAX_TAR_PADDING_BYTES
from ml.records.remote import AnyPath, located

_CHUNK: Final = 1 << 20
_OPENERS: Final[dict[bytes, Callable[..., Any]]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
}
_HEADERS: Final = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
# What tarfile and the decompressors below it raise on damaged bytes; a chain of extended headers
# is read by recursion.
_DAMAGE: Final = (
    tarfile.TarError,
    OSError,
    EOFError,
    ValueError,
    IndexError,
    KeyError,
    OverflowError,
    RecursionError,
    zlib.error,
    lzma.LZMAError,
)


class DamagedTar(ValueError):
    """A tar cannot be read to its end; the message gives byte and cause.

    Attributes:
        after: bytes that could be read.
    """

    def __init__(self, text: str, after: int = 0) -> None:
        """Keep where it broke."""
        super().__init__(text)
        self.after = after


class _Info(tarfile.TarInfo):
    """A member whose header is compared with the limits before tarfile acts on it."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """Read a header block.

        Raises:
            tarfile.ReadError: there is none, it is damaged, or a size is negative or unreasonable.
        """
        if not buf:
            # tarfile takes this for the end; whole tars end with a block of zeros.
            raise tarfile.ReadError("it ends without an end marker")
        try:
            info = super().frombuf(buf, encoding, errors)
        except (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError) as error:  # type: ignore[attr-defined]
            # Behind the first member tarfile takes these for the end too.
            raise tarfile.ReadError(f"a damaged header ({error})") from error
        if info.size < 0:
            raise tarfile.ReadError(f"a member claims {info.size} bytes")
        if info.type in _HEADERS and info.size > MAX_TAR_HEADER_BYTES:
            raise tarfile.ReadError(
                f"a name or header claims {info.size:,} bytes, expected at most "
                f"{MAX_TAR_HEADER_BYTES:,}"
            )
        return info


@dataclass(frozen=True)
class TarMember:
    """One entry of a tar.

    Attributes:
        name: as in the tar.
        kind: a plain file, a folder, or another kind.
        offset: where its bytes begin, in a tar that is not compressed.
        size: bytes.
        problem: why its content must not be used, empty when it may.
    """

    name: str
    kind: Literal["file", "folder", "other"]
    offset: int
    size: int
    problem: str = ""


def opener_of(path: AnyPath) -> Callable[..., IO[bytes]] | None:
    """Return the function that opens a compressed file, selected by its first bytes.

    Args:
        path: a regular file, or its address.

    Returns:
        `gzip.open`, `bz2.open` or `lzma.open`; None where it is none of theirs.
    """
    with path.open("rb") as file:
        start = file.read(6)
    return next((opener for magic, opener in _OPENERS.items() if start.startswith(magic)), None)


class TarReader(Closing):
    """Iterates over a tar's members; `read` and `chunks` give the content of the present one."""

    def __init__(
        self, path: AnyPath, stream: bool = False, max_member_bytes: int = MAX_IMAGE_FILE_BYTES
    ) -> None:
        """Open a tar.

        Args:
            path: the file, or its address.
            stream: read from front to back, compressed or not; else it must be uncompressed.
            max_member_bytes: members that claim more are given with a problem.

        Raises:
            DamagedTar: it is no tar, or its first member is damaged.
            OSError: the machine does not let it be read, or there is no such file.
        """
        self.end = 0
        self._path, self._limit = located(path), max_member_bytes
        self._info: tarfile.TarInfo | None = None
        try:
            check_regular(self._path)
        except UnreadableFile as error:
            raise DamagedTar(str(error)) from error
        # tarfile's own decompression compares no checksums.
        packed = opener_of(self._path) if stream else None
        self._raw: IO[bytes] = self._path.open("rb")
        self._file: IO[bytes] = packed(self._raw, "rb") if packed else self._raw
        try:
            mode: Literal["r|", "r:"] = "r|" if stream else "r:"
            self._tar = tarfile.open(fileobj=self._file, mode=mode, tarinfo=_Info)  # noqa: SIM115
        except _DAMAGE as error:
            self._file.close()
            self._raw.close()
            raise self._damaged(error) from error

    def __iter__(self) -> Iterator[TarMember]:
        """Yield the members in order.

        Raises:
            DamagedTar: it breaks after the members that were given.
        """
        while (info := self._next()) is not None:
            self._info = info
            if info.isfile():
                kind: Literal["file", "folder", "other"] = "file"
            else:
                kind = "folder" if info.isdir() else "other"
            yield TarMember(info.name, kind, info.offset_data, info.size, self._problem(info))
            self.end = info.offset_data + info.size

    def read(self) -> bytes:
        """Return the content of the member that the iteration gave last.

        Raises:
            DamagedTar: it is cut.
        """
        return b"".join(self.chunks())

    def chunks(self) -> Iterator[bytes]:
        """Yield the same content in pieces of at most a mebibyte.

        Raises:
            DamagedTar: it is cut.
        """
        assert self._info is not None
        try:
            content = self._tar.extractfile(self._info)
        except _DAMAGE as error:
            raise self._damaged(error) from error
        while content is not None:
            try:
                piece = content.read(_CHUNK)
            except _DAMAGE as error:
                raise self._damaged(error) from error
            if not piece:
                break
            yield piece

    def close(self) -> None:
        """Close the file."""
        self._tar.close()
        self._file.close()
        self._raw.close()

    def _next(self) -> tarfile.TarInfo | None:
        try:
            info = self._tar.next()
        except _DAMAGE as error:
            raise self._damaged(error) from error
        # tarfile remembers every member; nothing here grows with the tar.
        self._tar.members.clear()  # type: ignore[attr-defined]
        if info is None:
            self._check_padding()
        elif info.size < 0:
            # From an extended header: going on from there would never end.
            raise DamagedTar(f"{self._path.name}: a member claims {info.size} bytes", self.end)
        return info

    def _check_padding(self) -> None:
        """Reject data behind an end marker: a header was overwritten by zeros."""
        for _ in range(MAX_TAR_PADDING_BYTES // _CHUNK):
            try:
                piece = self._tar.fileobj.read(_CHUNK)
            except _DAMAGE as error:
                raise self._damaged(error) from error
            if not piece:
                return
            if piece.count(0) != len(piece):
                raise DamagedTar(
                    f"{self._path.name}: not only zeros behind the end marker after byte "
                    f"{self.end}; data there are lost",
                    self.end,
                )

    def _problem(self, info: tarfile.TarInfo) -> str:
        if info.issparse():
            return "a sparse file: its holes are in no file, expected plain bytes"
        if info.size > self._limit:
            return f"claims {info.size:,} bytes, expected at most {self._limit:,}"
        return ""

    def _damaged(self, error: BaseException) -> BaseException:
        """Return the error to raise: the machine's own, or the tar's damage."""
        if is_environment(error):
            return error
        text = f"{self._path.name} breaks after byte {self.end}: {error}"
        return DamagedTar(text, self.end)
