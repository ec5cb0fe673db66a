"""Reading third-party files, and telling their faults from those of the machine.

A damaged file is the data's fault and becomes an exclusion. A full disk, a missing permission or
an exhausted quota is the machine's: it stops the stage with the system's own words.
"""

from __future__ import annotations

import errno
import os
import stat
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from ml.records.limits import LimitExceeded, check_limit
from ml.records.remote import AnyPath, RemotePath, is_address, located

_FAULTS_OF_PATHS: Final = frozenset(
    {
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.ENXIO,
        errno.EINVAL,
    }
)
"""Errors about the given path; all other system errors are about the machine."""
_KINDS: Final = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe, which would be waited for"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class Closing(ABC):
    """A resource that a `with` block always closes at its end."""

    @abstractmethod
    def close(self) -> None:
        """Release the resource."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class UnreadableFile(ValueError):
    """A path leads to nothing that can be read, or to more than is accepted."""


def existing(text: str) -> Path:
    """Return the path of an argument that is read; a type for argparse.

    Checked while arguments are parsed, before a command imports anything heavy.

    Args:
        text: as given on the command line.

    Returns:
        The path.

    Raises:
        FileNotFoundError: neither a file nor a folder.
        ValueError: an address, which only `predict` and the readers of datasets take.
    """
    if is_address(text):
        raise ValueError(f"{text}: expected a local file or folder; download it first")
    if not os.path.exists(text):
        raise FileNotFoundError(f"{text}: no such file or folder")
    return Path(text)


def is_environment(error: BaseException) -> bool:
    """Return whether an error is the machine's (space, permission, memory), not the data's.

    Decoders raise OSError without a number for what they cannot decode; the operating system gives
    one.

    Args:
        error: the exception.

    Returns:
        True when the work has to stop: another item would meet the same fault.
    """
    if isinstance(error, MemoryError):
        return True
    if not isinstance(error, OSError) or error.errno is None:
        return False
    return error.errno not in _FAULTS_OF_PATHS


def check_regular(path: AnyPath) -> os.stat_result:
    """Return the `stat` of a regular file that can be read from beginning to end.

    Args:
        path: the file, or its address.

    Returns:
        Its status.

    Raises:
        UnreadableFile: it is a folder, a pipe, a socket or a device.
        OSError: there is no such file, or the machine does not let it be looked at.
    """
    about = located(path).stat()
    if kind := next((name for is_kind, name in _KINDS if is_kind(about.st_mode)), ""):
        raise UnreadableFile(f"{path} is {kind}; expected a file")
    return about


def read_file(path: AnyPath, limit: int) -> bytes:
    """Return the bytes of a regular file, if they are not more than a limit.

    Args:
        path: the file, or its address.
        limit: bytes that are accepted, see `ml.records.limits`.

    Returns:
        The content.

    Raises:
        UnreadableFile: there is no such file, it is a folder, pipe or device, or it is too large.
        OSError: the machine or the store does not let it be read.
    """
    path = located(path)
    try:
        check_limit(check_regular(path).st_size, limit, "bytes in the file")
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except (OSError, ValueError) as error:
        # ValueError: a path with a null character, or a limit
        if isinstance(error, UnreadableFile) or is_environment(error):
            raise
        if isinstance(error, LimitExceeded):
            raise UnreadableFile(f"{path}: {error}") from error
        if isinstance(path, RemotePath):
            raise UnreadableFile(str(error)) from error
        words = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else error
        raise UnreadableFile(f"{path}: cannot be read: {words}") from error
    if len(data) > limit:
        raise UnreadableFile(f"{path}: more than {limit:,} bytes in the file")
    return data
