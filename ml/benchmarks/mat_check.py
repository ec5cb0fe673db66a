"""Checks the structure of a MAT file before scipy reads it: scipy crashes on some damaged files."""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Collection

from ml.records.limits import MAX_JSON_BYTES, check_limit

_ITEM_BYTES = {1: 1, 2: 1, 3: 2, 4: 2, 5: 4, 6: 4, 7: 4, 9: 8, 12: 8, 13: 8, 16: 1, 17: 2, 18: 4}
_INT8, _INT32, _UINT32, _MATRIX, _COMPRESSED = 1, 5, 6, 14, 15
_CELL, _CHAR = 1, 4
_NUMBERS = range(6, 16)
_MAX_DEPTH = 6
"""Of cells in cells; deeper ones are not checked, so this is no limit of `ml.records.limits`."""


def check_mat(data: bytes, names: Collection[str]) -> None:
    """Compare the sizes stated in a MAT file of level 5 with the bytes it has.

    Args:
        data: the file.
        names: the variables that will be read; others are only measured.

    Raises:
        ValueError: it is of another level, or damaged, or one of these variables is neither
            numbers, text nor cells of such.
        zlib.error: a compressed variable is damaged.
    """
    order = {b"IM": "<", b"MI": ">"}.get(data[126:128])
    # a zero among the first four bytes makes scipy read level 4; the major version of 7.3 is 2
    if order is None or 0 in data[:4] or data[124 + (order == "<")] != 1:
        raise ValueError("expected a MAT file of level 5, which MATLAB writes up to version 7")
    position = 128
    while position < len(data):
        kind, body, position = _element(data, position, order)
        if kind == _COMPRESSED:
            unpack = zlib.decompressobj()
            inner = unpack.decompress(body, MAX_JSON_BYTES)
            check_limit(len(inner) + (not unpack.eof), MAX_JSON_BYTES, "bytes of a variable")
            if not unpack.eof:
                raise ValueError("a compressed variable breaks off")
            kind, body, _ = _element(inner, 0, order)
        if kind != _MATRIX:
            raise ValueError(f"expected variables, got an element of type {kind}")
        _check_matrix(body, order, names, 0)


def _element(data: bytes, position: int, order: str) -> tuple[int, bytes, int]:
    """Return the type and content of the element at a position, and where the next begins."""
    if position + 8 > len(data):
        raise ValueError("an element breaks off")
    kind, size = struct.unpack_from(f"{order}II", data, position)
    if kind >> 16:
        # up to four bytes are in the tag itself
        kind, size = kind & 0xFFFF, kind >> 16
        if size > 4:
            raise ValueError(f"a short element of {size} bytes")
        return kind, data[position + 4 : position + 4 + size], position + 8
    start, end = position + 8, position + 8 + size
    if end > len(data):
        raise ValueError(f"an element of {size} bytes where {len(data) - start} are left")
    padding = 0 if kind == _COMPRESSED else -size % 8
    return kind, data[start:end], end + padding


def _check_matrix(body: bytes, order: str, names: Collection[str] | None, depth: int) -> None:
    """Check a variable, or a cell, which has no name; `names` None means that it is read."""
    if not body and depth:
        return
    flags_kind, flags, position = _element(body, 0, order)
    sizes_kind, sizes, position = _element(body, position, order)
    name_kind, name, position = _element(body, position, order)
    if (flags_kind, sizes_kind, name_kind) != (_UINT32, _INT32, _INT8) or len(flags) != 8:
        raise ValueError("a variable without flags, sizes and name")
    if names is not None and name.decode("latin-1") not in names:
        return
    word = struct.unpack_from(f"{order}I", flags)[0]
    dims = struct.unpack(f"{order}{len(sizes) // 4}i", sizes[: len(sizes) // 4 * 4])
    if len(dims) < 2 or min(dims) < 0 or len(dims) > 8:
        raise ValueError(f"a variable of sizes {dims[:8]}")
    kind, count = word & 0xFF, math.prod(dims)
    if kind == _CELL and depth < _MAX_DEPTH:
        check_limit(count, len(body) // 8, "cells")
        for _ in range(count):
            inner, cell, position = _element(body, position, order)
            if inner != _MATRIX:
                raise ValueError(f"a cell of type {inner}")
            _check_matrix(cell, order, None, depth + 1)
    elif kind == _CHAR or (kind in _NUMBERS and not word & 0x0800):
        if count == 0 and position >= len(body):
            return
        inner, values, _ = _element(body, position, order)
        item = _ITEM_BYTES.get(inner)
        if item is None or len(values) != count * item:
            raise ValueError(f"{len(values)} bytes of type {inner} for {count} numbers")
    else:
        raise ValueError(f"a variable of class {kind}, expected real numbers, text or cells")
