"""Limits of all external inputs, in one place and checked before any work is done.

A header can claim any size; allocating it is what costs. Readers compare the claim with these
numbers and refuse, so that no file makes a process use more than two gigabytes.
"""

from __future__ import annotations

import pickletools
import reprlib
import zipfile
from collections.abc import Iterable
from itertools import islice
from typing import Any, Final

MAX_IMAGE_PIXELS: Final = 100_000_000
"""A decoded image of this number of pixels, its alpha and its RGB copy fit into 1.3 GB."""
MAX_IMAGE_FILE_BYTES: Final = 256 << 20
MAX_ARRAY_BYTES: Final = 64 << 20
"""One array of a file of labels or of a head model; FLAME's largest has 48 MB."""
MAX_INDEX_BYTES: Final = 1 << 30
"""One array of an identity index: half a million faces."""
MAX_CHECKPOINT_BYTES: Final = 1 << 30
"""All members of a checkpoint, unpacked; YOLO-NAS L with its averaged weights has 0.5 GB."""
MAX_PICKLE_BYTES: Final = 256 << 20
"""A FLAME model has 53 MB, 106 MB with chumpy's copies."""
MAX_JSON_BYTES: Final = 100 << 20
"""Python's objects take about ten times as much."""
MAX_YAML_BYTES: Final = 4 << 20
MAX_YAML_VALUES: Final = 1_000_000
"""Keys and values of a document with its aliases written out."""
MAX_TAR_HEADER_BYTES: Final = 1 << 20
"""Long names and extended headers, which tarfile reads into memory whole."""
MAX_TAR_PADDING_BYTES: Final = 64 << 20
"""Behind a tar's end marker; writers fill up to 10 kB."""
MAX_LABELLED_BOXES: Final = 10_000
"""In one image of a file of labels."""
MAX_NETWORK_SIDE_PX: Final = 8192
"""Side of a network's input: what a description asks for is allocated."""
MAX_UPLOAD_BYTES: Final = 50 << 20
"""A file that a visitor of the web page sends."""
MAX_TABLE_BYTES: Final = 1 << 30
"""Values of a table that is read whole, at eight bytes each; the shards' have 20 MB."""
_MAX_EXPANSION: Final = 20
"""Numbers do not compress better than this; a bomb does by a thousand."""
_FREE_EXPANSION: Final = 16 << 20


class LimitExceeded(ValueError):
    """A size exceeds its limit; the message gives amount, unit and limit."""


def check_limit(amount: int, limit: int, what: str) -> None:
    """Check a claimed size against its limit.

    Args:
        amount: the claimed size.
        limit: the largest accepted size.
        what: the amount's unit and nature, such as `bytes of an array`.

    Raises:
        LimitExceeded: the claim is larger than the limit, or negative.
    """
    if not 0 <= amount <= limit:
        raise LimitExceeded(f"{amount:,} {what}, expected at most {limit:,}")


def check_zip(archive: zipfile.ZipFile, size: int, limit: int) -> None:
    """Check the unpacked size of an archive.

    Args:
        archive: an open archive, of which only the directory has been read.
        size: bytes of its file.
        limit: bytes that all members together may have.

    Raises:
        LimitExceeded: the members claim more, or more than numbers can have been packed from.
    """
    total = sum(info.file_size for info in archive.infolist())
    check_limit(total, limit, "bytes in the archive's members")
    if total > max(_FREE_EXPANSION, _MAX_EXPANSION * size):
        raise LimitExceeded(
            f"{total:,} bytes in the archive's members, packed into {size:,}: numbers do not "
            f"compress to less than 1/{_MAX_EXPANSION}"
        )


def check_pickle(data: bytes) -> None:
    """Reject a pickle whose opcodes request memory that its bytes do not back.

    The opcodes are only listed: nothing is built and nothing is run.

    Args:
        data: the pickle.

    Raises:
        LimitExceeded: it files an object under a number far beyond the count of its objects, for
            which the unpickler would make room, or claims a longer text than there are bytes.
        ValueError: it is no pickle, or cut.
    """
    for count, (opcode, argument, _) in enumerate(pickletools.genops(data), 1):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and isinstance(argument, int):
            check_limit(argument, 2 * count + 1024, "as the number of a memo")


class _Brief(reprlib.Repr):
    """A representation of any value, bounded in length and depth."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxdict, self.maxlist, self.maxtuple = 2, 4, 4, 4
        self.maxset, self.maxfrozenset, self.maxdeque, self.maxarray = 4, 4, 4, 4
        self.maxstring, self.maxlong, self.maxother = 80, 40, 80

    def repr_int(self, value: int, level: int) -> str:
        """Describe integers by their size where Python refuses to print them."""
        if value.bit_length() > 512:
            return f"<whole number of {value.bit_length()} bits>"
        return super().repr_int(value, level)


_BRIEF: Final = _Brief()


def brief(value: Any) -> str:
    """Return the name of an outside value in a message, short however deep the value is.

    Args:
        value: anything; a value that refers to itself or doubles at each level included.

    Returns:
        Its representation, at most some hundred characters.
    """
    return short(_BRIEF.repr(value))


def short(text: str) -> str:
    """Return an external text as shown in a message.

    Args:
        text: of any length.

    Returns:
        Its beginning, at most some hundred characters.
    """
    return text if len(text) <= 300 else f"{text[:300]}..."


def short_names(names: Iterable[Any]) -> str:
    """Return the first names of external data for an error message.

    Args:
        names: such as a mapping's keys; of any kind.

    Returns:
        Texts as they are and everything else by `brief`, sorted and joined.
    """
    first = (name if isinstance(name, str) else brief(name) for name in islice(names, 20))
    return short(", ".join(sorted(first)))
