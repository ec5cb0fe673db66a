"""A seeded generator of malformed inputs: damaged bytes and JSON with wrong values in it."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

WRONG_VALUES = (
    None, "", "text", True, -1, 0, 10**400, 1e308, float("nan"), float("inf"), [], {}, [[]],
    [1, 2, 3], {"a": {"b": []}}, "\ud800", "../../etc/passwd", "a" * 5000,
)  # fmt: skip


def damaged_bytes(data: bytes, rng: np.random.Generator) -> bytes:
    """Bytes that are not the given ones: cut, overwritten, doubled, stuffed or random."""
    kinds: tuple[Callable[[bytes, np.random.Generator], bytes], ...] = (
        lambda d, r: d[: int(r.integers(0, len(d)))],
        lambda d, r: b"",
        lambda d, r: r.bytes(int(r.integers(1, 2000))),
        _flip_bits,
        _zero_block,
        lambda d, r: d[int(r.integers(1, len(d))) :],
        lambda d, r: _insert(d, r.bytes(int(r.integers(1, 600))), r),
        lambda d, r: _insert(d, d[: int(r.integers(1, len(d)))], r),
    )
    while True:
        result = kinds[int(rng.integers(len(kinds)))](data, rng)
        if result != data:
            return result


def damaged_json(value: Any, rng: np.random.Generator) -> Any:
    """A copy of a JSON value with one to three places made wrong."""
    result = copy.deepcopy(value)
    for _ in range(int(rng.integers(1, 4))):
        places = list(_places(result))
        if not places:
            break
        holder, key = places[int(rng.integers(len(places)))]
        action = int(rng.integers(3))
        if action == 0 and isinstance(holder, dict):
            del holder[key]
        elif action == 1 and isinstance(holder, list):
            holder.append(copy.deepcopy(holder[key]))
        else:
            holder[key] = WRONG_VALUES[int(rng.integers(len(WRONG_VALUES)))]
    return result


def dump(value: Any) -> bytes:
    """JSON as careless tools write it, NaN and lone surrogates included."""
    return json.dumps(value, allow_nan=True).encode("utf-8", "surrogatepass")


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Holder and key of every value inside."""
    keys = (
        value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    )
    for key in keys:
        yield value, key
        yield from _places(value[key])


def _flip_bits(data: bytes, rng: np.random.Generator) -> bytes:
    changed = bytearray(data)
    for place in rng.integers(0, len(data), int(rng.integers(1, 40))):
        changed[place] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def _zero_block(data: bytes, rng: np.random.Generator) -> bytes:
    start = int(rng.integers(0, len(data)))
    length = min(len(data) - start, int(rng.integers(1, 700)))
    return data[:start] + bytes(length) + data[start + length :]


def _insert(data: bytes, extra: bytes, rng: np.random.Generator) -> bytes:
    at = int(rng.integers(0, len(data)))
    return data[:at] + extra + data[at:]
