"""Checks the header of a PLY file before trimesh reads it: some damaged ones mislead trimesh."""

from __future__ import annotations

from collections.abc import Mapping

from ml.records.limits import MAX_PICKLE_BYTES, check_limit, short

_FORMATS = ("ascii", "binary_little_endian", "binary_big_endian")
_TYPES: Mapping[str, int] = {
    "char": 1, "uchar": 1, "short": 2, "ushort": 2, "int": 4, "uint": 4, "float": 4, "double": 8,
    "int8": 1, "uint8": 1, "int16": 2, "uint16": 2, "int32": 4, "uint32": 4,
    "float32": 4, "float64": 8,
}  # fmt: skip
"""Type -> bytes in a binary file."""
_COUNTERS = ("char", "uchar", "short", "ushort", "int", "uint", "int8", "uint8", "int16", "uint16",
             "int32", "uint32")  # fmt: skip
_COORDINATES = ("x", "y", "z")


def check_ply(data: bytes) -> tuple[int, int]:
    """Check a PLY file's header, and the sizes it states against the bytes in the file.

    Args:
        data: the file.

    Returns:
        Numbers of vertices and of polygons that it states; trimesh reads a cut text file as far as
        it goes.

    Raises:
        ValueError: no header of version 1.0, an unknown type, no vertices with three coordinates,
            or more values than the file has bytes.
    """
    header, end, body = data.partition(b"end_header")
    lines = [line.split() for line in header.decode("ascii").splitlines() if line.strip()]
    if not end or not lines or lines[0] != ["ply"]:
        raise ValueError("expected a header from `ply` to `end_header`")
    if len(lines) < 2 or lines[1][1:] not in [[name, "1.0"] for name in _FORMATS]:
        raise ValueError(f"expected format {', '.join(_FORMATS)} 1.0")
    elements: dict[str, int] = {}
    properties: dict[str, dict[str, int]] = {}
    for words in lines[2:]:
        if words[0] in ("comment", "obj_info"):
            continue
        if words[0] == "element" and len(words) == 3 and words[2].isdigit():
            check_limit(int(words[2]), MAX_PICKLE_BYTES, "elements")
            elements[words[1]], properties[words[1]] = int(words[2]), {}
        elif words[0] == "property" and elements:
            properties[list(elements)[-1]] |= dict([_property(words)])
        else:
            raise ValueError(f"a header line {short(' '.join(words))!r}")
    if not set(_COORDINATES) <= set(properties.get("vertex", ())):
        raise ValueError("expected an element vertex with x, y and z")
    _check_sizes(elements, properties, len(body), lines[1][1] == "ascii")
    return elements["vertex"], elements.get("face", 0)


def _property(words: list[str]) -> tuple[str, int]:
    """Return a property's name and its least number of bytes."""
    if words[1:2] == ["list"] and len(words) == 5:
        if words[2] in _COUNTERS and words[3] in _TYPES:
            return words[4], _TYPES[words[2]]
    elif len(words) == 3 and words[1] in _TYPES:
        return words[2], _TYPES[words[1]]
    raise ValueError(f"a property {short(' '.join(words[1:]))!r}")


def _check_sizes(
    elements: Mapping[str, int],
    properties: Mapping[str, Mapping[str, int]],
    num_bytes: int,
    is_text: bool,
) -> None:
    least = 0
    for name, count in elements.items():
        if count and not properties[name]:
            raise ValueError(f"element {short(name)!r} has no properties")
        # in text, a value takes at least one character and a separator
        row = properties[name].values()
        least += count * (2 * len(row) if is_text else sum(row))
    if least > num_bytes + 1:
        raise ValueError(f"{least:,} bytes claimed, {num_bytes:,} are there")
