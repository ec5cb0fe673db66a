"""Finding and reading the files of published data sets, with errors that say what is missing."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ml.benchmarks.mat_check import check_mat
from ml.imaging.io import decode_image
from ml.records.files import UnreadableFile, is_environment, read_file
from ml.records.limits import MAX_JSON_BYTES, short

# What is left for scipy to complain of once `check_mat` has passed a file. TypeError, KeyError and
# AttributeError are not included: they indicate a bug and must not be reported as damage.
_MAT_DAMAGE = (ValueError, IndexError, OverflowError, EOFError, struct.error, zlib.error)


class MissingBenchmarkFile(FileNotFoundError):
    """A file of a data set is missing from its published place."""


class UnreadableBenchmarkFile(ValueError):
    """A file of a data set does not have the published format."""


def find_path(root: Path, candidates: Sequence[str], what: str) -> Path:
    """Return the first existing path of a file or folder.

    Args:
        root: the folder that the user names.
        candidates: paths below it, the published one first; may contain wildcards.
        what: data set and file, for the error message.

    Returns:
        The path; of several that match a wildcard the first by name.

    Raises:
        MissingBenchmarkFile: none of them exists.
    """
    root = Path(root)
    for candidate in candidates:
        wild = any(sign in candidate for sign in "*[")
        found = sorted(root.glob(candidate)) if wild else [root / candidate]
        for path in found:
            if path.exists():
                return path
    raise MissingBenchmarkFile(
        f"{what}: not found below {root}; looked for {', '.join(candidates)}. docs/benchmarks says "
        "how to get the set, and its layout on disk"
    )


def image_loader(path: Path) -> Callable[[], np.ndarray]:
    """Return a function that reads an image as RGB when it is called."""
    return lambda: decode_image(path)


def image_size(path: Path) -> tuple[int, int]:
    """Return the height and width of an image, from its header alone; px.

    Raises:
        MissingBenchmarkFile: there is no such file.
        UnreadableBenchmarkFile: it is no image.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            return image.height, image.width
    except FileNotFoundError as error:
        raise MissingBenchmarkFile(f"{path}: no such file") from error
    except (OSError, UnidentifiedImageError, SyntaxError, Image.DecompressionBombError) as error:
        if is_environment(error):
            raise
        raise UnreadableBenchmarkFile(f"{path}: not an image: {error}") from error


def read_mat(path: Path, keys: Sequence[str], optional: Sequence[str] = ()) -> dict[str, Any]:
    """Return some variables of a MATLAB file; nothing in it is executed.

    Args:
        path: a MAT file up to version 7.
        keys: the variables that must be there.
        optional: variables that are read if they are there.

    Returns:
        Variable -> array; cells are object arrays.

    Raises:
        MissingBenchmarkFile: there is no such file.
        UnreadableBenchmarkFile: it is damaged, of a later version, or a variable is missing.
    """
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    data = read_bytes(path)
    try:
        check_mat(data, [*keys, *optional])
        content = loadmat(io.BytesIO(data), variable_names=[*keys, *optional])
    except (MatReadError, *_MAT_DAMAGE) as error:
        raise UnreadableBenchmarkFile(
            f"{path}: not a MAT file that scipy reads ({type(error).__name__}: {short(str(error))})"
        ) from error
    missing = [key for key in keys if key not in content]
    if missing:
        raise UnreadableBenchmarkFile(f"{path}: missing {', '.join(missing)}")
    return {key: content[key] for key in (*keys, *optional) if key in content}


def read_lines(path: Path) -> list[str]:
    """Return lines of a text file without their ends.

    Raises:
        MissingBenchmarkFile: there is no such file.
        UnreadableBenchmarkFile: it is not text.
    """
    try:
        return read_bytes(path).decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise UnreadableBenchmarkFile(f"{path}: not UTF-8 text: {error}") from error


def read_json(path: Path) -> Any:
    """Return the content of a JSON file.

    Raises:
        MissingBenchmarkFile: there is no such file.
        UnreadableBenchmarkFile: it is not JSON, or larger than is accepted.
    """
    data = read_bytes(path)
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UnreadableBenchmarkFile(f"{path}: not JSON: {short(str(error))}") from error


def read_bytes(path: Path, limit: int = MAX_JSON_BYTES) -> bytes:
    """Return the content of a file, if it has no more bytes than a limit.

    Raises:
        MissingBenchmarkFile: there is no such file.
        UnreadableBenchmarkFile: it is larger, or no regular file.
    """
    if not path.exists():
        raise MissingBenchmarkFile(f"{path}: no such file")
    try:
        return read_file(path, limit)
    except UnreadableFile as error:
        raise UnreadableBenchmarkFile(str(error)) from error


class NumberedLines:
    """Reads the lines of a text file; errors name the line."""

    def __init__(self, path: Path) -> None:
        """Read the file."""
        self.path = path
        self._lines = read_lines(path)
        self.number = 0

    def skip_blank(self) -> bool:
        """Skip blank lines; return whether another line follows."""
        while self.number < len(self._lines) and not self._lines[self.number].strip():
            self.number += 1
        return self.number < len(self._lines)

    def take(self, what: str) -> str:
        """Return the next line.

        Raises:
            UnreadableBenchmarkFile: the file ends.
        """
        if self.number >= len(self._lines):
            raise UnreadableBenchmarkFile(f"{self.path}: ends where {what} is expected")
        self.number += 1
        return self._lines[self.number - 1].strip()

    def count(self, what: str) -> int:
        """Return the next line as a count.

        Raises:
            UnreadableBenchmarkFile: it is not a count.
        """
        text = self.take(what)
        if not text.isdigit():
            raise self.wrong(f"expected {what}, got {text!r}")
        return int(text)

    def row(self, length: int, what: str) -> list[float]:
        """Return the next line as numbers.

        Args:
            length: how many.
            what: their meaning, for the error message.

        Raises:
            UnreadableBenchmarkFile: fewer, more, or no finite numbers.
        """
        text = self.take(what)
        try:
            values = [float(word) for word in text.split()]
        except ValueError:
            values = []
        if len(values) != length or not np.isfinite(values).all():
            raise self.wrong(f"expected {length} numbers ({what}), got {text[:80]!r}")
        return values

    def rows(self, count: int, length: int, what: str) -> np.ndarray:
        """Return the next lines as a table; (count, length) float64."""
        return np.array([self.row(length, what) for _ in range(count)]).reshape(-1, length)

    def width(self) -> int:
        """Return how many words the next line has; 0 at the end."""
        return len(self._lines[self.number].split()) if self.number < len(self._lines) else 0

    def wrong(self, message: str) -> UnreadableBenchmarkFile:
        """Return an error that names the current line."""
        return UnreadableBenchmarkFile(f"{self.path}, line {self.number}: {message}")


def detections_by_image(path: Path, forms: Mapping[int, str]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield detections as the tools of WIDER and FDDB read them: name, count, rows of numbers.

    Args:
        path: the text file.
        forms: numbers in a row -> their meaning; the first row of an image determines its format.

    Yields:
        An image's name and its (N, numbers in a row) rows.

    Raises:
        UnreadableBenchmarkFile: the file has another form.
    """
    lines = NumberedLines(path)
    while lines.skip_blank():
        name = lines.take("an image's name")
        count = lines.count("the number of its detections")
        width = lines.width()
        length = width if width in forms else min(forms)
        yield name, lines.rows(count, length, forms[length])
