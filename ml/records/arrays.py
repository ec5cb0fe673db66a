"""The one reader of npz and npy files: nothing in them is run, no size they claim is believed."""

from __future__ import annotations

import io
import tokenize
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

import numpy as np
from numpy.typing import NDArray

from ml.records.files import UnreadableFile, check_regular, is_environment, read_file
from ml.records.limits import (
    MAX_ARRAY_BYTES,
    LimitExceeded,
    brief,
    check_limit,
    check_zip,
    short,
)

_KINDS: Final = "biufU"
"""Booleans, whole numbers, floats and texts; never objects, which would have to be unpickled."""
# Errors of zipfile, zlib and numpy's header parser on damaged bytes.
_DAMAGE: Final = (
    zipfile.BadZipFile,
    zlib.error,
    OSError,
    EOFError,
    RuntimeError,
    ValueError,
    IndexError,
    KeyError,
    TypeError,
    SyntaxError,
    OverflowError,
    tokenize.TokenError,
)


class UnreadableArrays(ValueError):
    """An npz file cannot be read; the message gives array and cause."""


def read_arrays(
    source: bytes | Path,
    wanted: Collection[str] | None = None,
    max_array_bytes: int = MAX_ARRAY_BYTES,
) -> dict[str, NDArray[Any]]:
    """Read arrays of numbers and texts.

    Args:
        source: the file, or its bytes.
        wanted: names to read if they are there; all of them if left out.
        max_array_bytes: largest size of one array.

    Returns:
        Name -> array, writable, in the file's order.

    Raises:
        UnreadableArrays: missing, no npz, damaged, too large, or it holds pickled objects.
        OSError: the machine does not let it be read.
    """
    try:
        if isinstance(source, Path):
            size = check_regular(source).st_size
            with source.open("rb") as file:
                return _read(file, size, wanted, max_array_bytes)
        return _read(io.BytesIO(source), len(source), wanted, max_array_bytes)
    except UnreadableArrays:
        raise
    except (UnreadableFile, LimitExceeded) as error:
        raise UnreadableArrays(str(error)) from error
    except _DAMAGE as error:
        if is_environment(error):
            raise
        raise UnreadableArrays(f"not a readable .npz file: {short(str(error))}") from error


def read_array(path: Path, max_array_bytes: int = MAX_ARRAY_BYTES) -> NDArray[Any]:
    """Read the array of numbers or texts of an .npy file.

    Args:
        path: the file.
        max_array_bytes: largest size of the array.

    Returns:
        The array, writable.

    Raises:
        UnreadableArrays: missing, no npy, damaged, too large, or it holds pickled objects.
        OSError: the machine does not let it be read.
    """
    try:
        return _array(bytearray(read_file(path, max_array_bytes)), path.name)
    except UnreadableFile as error:
        raise UnreadableArrays(str(error)) from error
    except UnreadableArrays:
        raise
    except _DAMAGE as error:
        if is_environment(error):
            raise
        raise UnreadableArrays(f"{path}: not a readable .npy file: {short(str(error))}") from error


def _read(
    file: BinaryIO, size: int, wanted: Collection[str] | None, limit: int
) -> dict[str, NDArray[Any]]:
    arrays = {}
    with zipfile.ZipFile(file) as archive:
        infos = {i.filename.removesuffix(".npy"): i for i in archive.infolist()}
        if len(infos) < len(archive.infolist()):
            raise UnreadableArrays("an array occurs in it twice")
        chosen = {name: i for name, i in infos.items() if wanted is None or name in wanted}
        for name, info in chosen.items():
            check_limit(info.file_size, limit, f"bytes of the array {brief(name)}")
        check_zip(archive, size, limit * max(1, len(chosen)))
        for name, info in chosen.items():
            raw = bytearray(info.file_size)
            with cast(zipfile.ZipExtFile, archive.open(info)) as member:
                filled = member.readinto(raw) if raw else 0
                while 0 < filled < len(raw):
                    more = member.readinto(memoryview(raw)[filled:])
                    if not more:
                        break
                    filled += more
                # One read past the end makes zipfile compare the checksum.
                if filled != len(raw) or member.read(1):
                    raise UnreadableArrays(f"{name}: {filled} bytes, expected {len(raw)}")
            arrays[name] = _array(raw, name)
    return arrays


def _array(raw: bytearray, name: str) -> NDArray[Any]:
    """Return an array of its file's bytes, after the header's claims were compared with them."""
    stream = io.BytesIO(raw[: 1 << 16])
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise UnreadableArrays(f"{name}: array format {version} is not supported")
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    else:
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(stream)
    if dtype.kind not in _KINDS or dtype.hasobject:
        raise UnreadableArrays(f"{name}: expected numbers, got dtype {brief(str(dtype))}")
    count = 1
    for side in shape:
        count *= int(side)
    needed, left = count * dtype.itemsize, len(raw) - stream.tell()
    if needed != left or any(side < 0 for side in shape):
        raise UnreadableArrays(
            f"{name}: shape {brief(shape)} needs {brief(needed)} bytes, the file has {left}"
        )
    if not left:
        return np.zeros(shape, dtype)
    flat: NDArray[Any] = np.frombuffer(raw, dtype, count, stream.tell())
    return flat.reshape(shape, order="F" if fortran else "C")
