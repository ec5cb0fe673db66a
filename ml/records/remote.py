"""Files in object stores and on web servers, read in place: `s3://`, `https://` and `http://`.

Only reading is offered, in ranges where the server gives them: of a tar that is random access to
its members, of a Parquet file to its row groups. Nothing is copied to the disk.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, Final, TypeAlias, cast
from urllib.parse import unquote, urlsplit, urlunsplit

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

_PACKAGES: Final = {"s3": "s3fs", "https": "aiohttp", "http": "aiohttp"}
"""Scheme of an address -> the package that fsspec reads it with."""
_BLOCK: Final = 1 << 20
"""Bytes that are read ahead; headers of a tar's small members are then a request for many."""
_HELP: Final = (
    ("NoCredentialsError", "set AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; "
     "FSSPEC_S3_ANON=true for what is public"),
    ("PermissionError", "these credentials may not read it"),
    ("EndpointConnectionError", "is AWS_ENDPOINT_URL right, and is the server up?"),
)  # fmt: skip
_MISSING: Final = (404, 410)
"""Statuses of HTTP that concern the file and not the server."""
_UNSAFE: Final = frozenset({"", ".", ".."})
"""Parts of a name that lead elsewhere once it becomes the name of a local file."""


class StoreUnavailable(OSError):
    """A store does not answer, refuses or breaks off: a fault of the environment.

    The message names the store and the cause. It is no file's fault, so that nothing is excluded.

    Attributes:
        brief: the same without a name of a file.
    """

    def __init__(self, text: str, brief: str = "") -> None:
        """Take the messages; the number marks an error of the environment."""
        super().__init__(errno.EIO, text)
        self.brief = brief or text

    def __str__(self) -> str:
        return str(self.strerror)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.strerror, self.brief)


class UnusableAddress(ValueError):
    """An address that cannot be read: another scheme, or a name that would lead elsewhere."""


class _RemoteFile(io.RawIOBase):
    """An open remote file whose errors are `StoreUnavailable` or FileNotFoundError."""

    def __init__(self, place: RemotePath, file: Any) -> None:
        self._place, self._file = place, file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return bool(self._file.seekable())

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if not self.seekable():
            raise io.UnsupportedOperation(f"{self._place} is sent as a whole only; download it")
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def read(self, size: int | None = -1) -> bytes:
        with _translated(self._place):
            data: bytes = self._file.read(-1 if size is None else size)
        return data

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


@dataclass(frozen=True)
class RemotePath:
    """An address, with the methods of a path that readers use.

    It holds no connection: each process opens its own, so it may be pickled and used after a fork.

    Attributes:
        address: as opened, without a slash at its end.
    """

    address: str

    def __post_init__(self) -> None:
        """Check the parts of the address.

        Raises:
            UnusableAddress: no host or bucket, no name, or a part that leads elsewhere.
        """
        scheme, _, rest = self.address.partition("://")
        store, *parts = rest.split("/")
        if scheme != "s3":
            parts = [unquote(part) for part in urlsplit(self.address).path.split("/")[1:]]
        named = bool(parts) or scheme == "s3"
        if not store or not named or any(p in _UNSAFE or "\0" in p or "/" in p for p in parts):
            raise UnusableAddress(f"{self}: expected {scheme}://NAME/... without empty parts or ..")

    def __str__(self) -> str:
        """Return the address without password and query, which may be a signature."""
        if self._is_s3:
            return self.address
        parts = urlsplit(self.address)
        host = parts.netloc.rpartition("@")[2]
        return urlunsplit((parts.scheme, host, parts.path, "", ""))

    def __lt__(self, other: RemotePath) -> bool:
        """Order as paths are ordered: part by part."""
        return self.parts < other.parts

    @property
    def _is_s3(self) -> bool:
        return self.address.startswith("s3://")

    @property
    def store(self) -> str:
        """The bucket or server, such as `s3://bucket`."""
        return "/".join(str(self).split("/")[:3])

    @property
    def parts(self) -> tuple[str, ...]:
        """Return store and names."""
        names = str(self).split("/")[3:]
        return (self.store, *(names if self._is_s3 else map(unquote, names)))

    @property
    def name(self) -> str:
        """Return the last name; of a bucket, its own."""
        return self.parts[-1].rpartition("/")[2]

    @property
    def stem(self) -> str:
        """Return the name without suffix."""
        return PurePosixPath(self.name).stem

    @property
    def suffix(self) -> str:
        """Return the name's suffix."""
        return PurePosixPath(self.name).suffix

    def with_suffix(self, suffix: str) -> RemotePath:
        """Return the address with another suffix."""
        head, _, last = self.address.rpartition("/")
        return RemotePath(f"{head}/{PurePosixPath(last).with_suffix(suffix)}")

    def relative_to(self, folder: RemotePath) -> PurePosixPath:
        """Return the names below a folder.

        Raises:
            ValueError: it is not in the folder.
        """
        count = len(folder.parts)
        if self.parts[:count] != folder.parts:
            raise ValueError(f"{self} is not in {folder}")
        return PurePosixPath(*self.parts[count:])

    def stat(self) -> os.stat_result:
        """Return kind and size, 0 where the server does not say.

        Raises:
            FileNotFoundError: there is no such file, folder or bucket.
            StoreUnavailable: the store cannot be asked.
        """
        files = self._files()
        with _translated(self):
            about = files.info(self.address)
        kind = stat.S_IFDIR if about["type"] == "directory" else stat.S_IFREG
        return os.stat_result((kind, 0, 0, 0, 0, 0, about.get("size") or 0, 0, 0, 0))

    def exists(self) -> bool:
        """Return whether there is a file or folder."""
        try:
            self.stat()
        except FileNotFoundError:
            return False
        return True

    def is_dir(self) -> bool:
        """Return whether it is a folder; servers of http have none."""
        if not self._is_s3:
            return False
        try:
            return stat.S_ISDIR(self.stat().st_mode)
        except FileNotFoundError:
            return False

    def is_file(self) -> bool:
        """Return whether it is a file."""
        return self.exists() and not self.is_dir()

    def open(self, mode: str = "rb") -> IO[bytes]:
        """Open the file for reading.

        Args:
            mode: `rb`; there is no other.

        Raises:
            FileNotFoundError: it is not there.
            StoreUnavailable: the store cannot be read.
        """
        if mode != "rb":
            raise ValueError(f"{self}: only read, got mode {mode!r}")
        files = self._files()
        with _translated(self):
            file = files.open(self.address, "rb", block_size=_BLOCK, cache_type="readahead")
        return cast("IO[bytes]", _RemoteFile(self, file))

    def names(self) -> list[str]:
        """Return the names of all files below this folder, as the store has them, in its order.

        Raises:
            FileNotFoundError: there is no such bucket.
            StoreUnavailable: the store cannot be listed.
        """
        files = self._files()
        start = f"{self.address.removeprefix('s3://')}/"
        with _translated(self):
            # Objects that end in a slash are what consoles make folders with.
            found = [name for name in files.find(self.address) if not name.endswith("/")]
        return [name.removeprefix(start) for name in found if name.startswith(start)]

    def _files(self) -> AbstractFileSystem:
        """Return the process's connection.

        Raises:
            ModuleNotFoundError: a package is missing, which the extra `s3` installs.
        """
        scheme = self.address.partition("://")[0]
        package = _PACKAGES[scheme]
        if find_spec(package) is None:
            raise ModuleNotFoundError(
                f"{scheme}:// needs the package {package}: pip install 'vggheads[s3]'", name=package
            )
        import fsspec

        return fsspec.filesystem(scheme)


AnyPath: TypeAlias = Path | RemotePath


def is_address(place: object) -> bool:
    """Return whether a text or path is an address that is read in place.

    Args:
        place: anything.
    """
    if isinstance(place, RemotePath):
        return True
    return isinstance(place, str) and place.partition("://")[0] in _PACKAGES and "://" in place


def located(place: str | os.PathLike[str] | RemotePath) -> AnyPath:
    """Return what a text names: an address as such, anything else as a local path.

    Args:
        place: a path or an address.

    Raises:
        UnusableAddress: an address without bucket or name, or with a part that leads elsewhere.
    """
    if isinstance(place, RemotePath):
        return place
    if isinstance(place, str) and is_address(place):
        return RemotePath(place.rstrip("/"))
    return Path(place)


def child(folder: RemotePath, name: str) -> RemotePath:
    """Return a file of a folder.

    Args:
        folder: of a store.
        name: one of its `names`.

    Raises:
        UnusableAddress: a part of the name would lead elsewhere.
    """
    return RemotePath(f"{folder.address}/{name}")


@contextmanager
def _translated(place: RemotePath) -> Iterator[None]:
    """Raise errors of the many libraries below fsspec as errors of two kinds."""
    try:
        yield
    except _failures() as error:
        # fsspec calls all faults of a web server a missing file, with the fault as the cause.
        cause = error.__cause__ if isinstance(error, FileNotFoundError) else None
        fault = cause if getattr(cause, "status", 404) not in _MISSING else error
        if isinstance(fault, FileNotFoundError):
            raise FileNotFoundError(f"{place}: {_words(fault, place)}") from error
        kinds = {kind.__name__ for kind in type(fault).__mro__}
        advice = next((text for name, text in _HELP if name in kinds), "")
        text, brief = (
            f"{place.store} cannot be read: {words}" + (f"; {advice}" if advice else "")
            for words in (_words(fault, place), type(fault).__name__)
        )
        raise StoreUnavailable(text, brief) from error


def _words(error: BaseException | None, place: RemotePath) -> str:
    """Return the cause in one line, without the query of an address that it may repeat."""
    if isinstance(error, FileNotFoundError) and "bucket" not in str(error):
        return "no such file or folder"
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].replace(place.address, str(place)).rstrip(".")


def _failures() -> tuple[type[Exception], ...]:
    """Return the exceptions of the libraries that are installed."""
    found: list[type[Exception]] = [OSError, RuntimeError]
    if find_spec("botocore"):
        from botocore.exceptions import BotoCoreError, ClientError

        found += [BotoCoreError, ClientError]
    if find_spec("aiohttp"):
        from aiohttp import ClientError as HttpError

        found.append(HttpError)
    return tuple(found)
