"""A JSON file of one large object: values are located once and read one at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from ml.benchmarks.predictions import PredictionError

_CHUNK = 1 << 22
_BLANKS = (" ", "\t", "\r", "\n")


class ObjectFile(Mapping[str, Any]):
    """The values of a JSON object; only their offsets are kept in memory."""

    def __init__(self, path: Path) -> None:
        """Find the values.

        Args:
            path: a .json file with an object at its top.

        Raises:
            PredictionError: it cannot be read, is no object, or has a key twice.
        """
        self.path = Path(path)
        self._places: dict[str, tuple[int, int]] = {}
        try:
            # one character a byte, so that positions in the text are positions in the file
            with self.path.open(encoding="latin-1", newline="") as file:
                self._scan(_Scanner(file, self.path))
        except OSError as error:
            raise PredictionError(f"{path}: cannot be read: {error}") from error

    def _scan(self, text: _Scanner) -> None:
        text.expect("{")
        if text.peek() == "}":
            return
        while True:
            name = text.key()
            text.expect(":")
            start, end = text.value()
            if name in self._places:
                raise PredictionError(f"{self.path}: {name!r} occurs twice")
            self._places[name] = (start, end)
            if text.peek() == "}":
                return
            text.expect(",")

    def __getitem__(self, key: str) -> Any:
        start, end = self._places[key]
        with self.path.open("rb") as file:
            file.seek(start)
            return json.loads(file.read(end - start))

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


class _Scanner:
    """Reads JSON values out of a text of any length."""

    def __init__(self, file: IO[str], path: Path) -> None:
        self._file, self._path = file, path
        self._decoder = json.JSONDecoder()
        self._text, self._position, self._before, self._ended = "", 0, 0, False

    def peek(self) -> str:
        """Return the next character that is not blank, which stays."""
        while True:
            while self._text[self._position : self._position + 1] in _BLANKS:
                self._position += 1
            if self._position < len(self._text):
                return self._text[self._position]
            if not self._more():
                raise self._wrong("it ends too early")

    def expect(self, character: str) -> None:
        """Pass one character."""
        found = self.peek()
        if found != character:
            raise self._wrong(f"expected {character!r}, got {found!r}")
        self._position += 1

    def key(self) -> str:
        """Return the next value, which must be a text."""
        start, end = self.value()
        raw = self._text[start - self._before : end - self._before].encode("latin-1")
        try:
            key = json.loads(raw)
        except ValueError as error:
            raise self._wrong(f"key {raw!r}: {error}") from error
        if not isinstance(key, str):
            raise PredictionError(f"{self._path}: expected a text as key, got {key!r}")
        return key

    def value(self) -> tuple[int, int]:
        """Return where the next value begins and ends in the file."""
        self.peek()
        while True:
            try:
                _, end = self._decoder.raw_decode(self._text, self._position)
            except (ValueError, RecursionError) as error:
                if self._more():
                    continue
                raise self._wrong(str(error)) from error
            # a number at the end of the buffer may continue
            if end == len(self._text) and self._more():
                continue
            start, self._position = self._before + self._position, end
            return start, self._before + end

    def _more(self) -> bool:
        if self._ended:
            return False
        # doubled each time: a large value is tried a few times, not once per chunk
        chunk = self._file.read(max(_CHUNK, len(self._text) - self._position))
        self._before += self._position
        self._text, self._position = self._text[self._position :] + chunk, 0
        self._ended = not chunk
        return True

    def _wrong(self, message: str) -> PredictionError:
        where = self._before + self._position
        return PredictionError(f"{self._path}, byte {where}: not a JSON object: {message}")
