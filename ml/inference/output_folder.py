"""The output folder of `predict`: results of the last run are removed first."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ml.records.atomic import remove, remove_temporaries
from ml.records.remote import AnyPath, RemotePath

LIST_NAME: Final = ".vggheads-results"
"""Folders of results in it, a line each, written before the results."""
_RESULTS: Final = (
    "drawing.jpg", "drawing.mp4", "heads.json", "heads.jsonl", "pncc.png", "head_*.jpg",
    "head_*.obj", "head_*.glb", "frame-[0-9]*",
)  # fmt: skip
_TOP: Final = ("coco.json", "excluded.csv")
_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+:/")


class OutputFolder:
    """Records the written files, so that the next run replaces them and nothing else."""

    def __init__(self, path: Path) -> None:
        """Name the folder; nothing is made or removed yet.

        Args:
            path: the folder.

        Raises:
            ValueError: there is a file of that name.
        """
        self.path = Path(path)
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"predict: --output {path} is a file; name a folder")

    def check_sources(self, sources: Sequence[AnyPath]) -> None:
        """Check that a source can be read and is not replaced while it is read.

        Args:
            sources: images, folders, videos, and addresses of images and folders.

        Raises:
            FileNotFoundError: a source does not exist.
            StoreUnavailable: the store of an address cannot be read.
            ValueError: a source is an address of another kind or the standard input, or is in this
                folder.
        """
        files: list[Path] = []
        for source in sources:
            if isinstance(source, RemotePath):
                source.stat()
                continue
            files.append(source)
            if str(source) == "-":
                raise ValueError("predict: '-': the standard input is not read; name a file")
            if _URL.match(str(source)) and not source.exists():
                # A path has one slash there.
                address = str(source).replace(":/", "://", 1)
                raise ValueError(
                    f"predict: {address}: of addresses, s3://, https:// and http:// are read; "
                    "download it first"
                )
        if missing := [str(source) for source in files if not source.exists()]:
            raise FileNotFoundError(f"predict: no such file or folder: {', '.join(missing)}")
        own = self.path.resolve()
        for source in files:
            found = source.resolve()
            if found == own or own in found.parents:
                raise ValueError(
                    f"predict: {source} is in the output folder {self.path}, whose results this "
                    "run replaces; name another with --output"
                )

    def check_writable(self) -> None:
        """Check that the folder can be made, or files in it.

        Raises:
            ValueError: the user may not write there.
        """
        place = self.path.absolute()
        while not place.exists():
            place = place.parent
        if not os.access(place, os.W_OK | os.X_OK):
            raise ValueError(
                f"predict: no permission to write in {place}; name another folder with --output"
            )

    def begin(self) -> None:
        """Remove the last run's files; other files are not touched."""
        listed = self.path / LIST_NAME
        if listed.is_file():
            for line in listed.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
                self._clear(self.path / line)
            for name in (*_TOP, LIST_NAME):
                remove(self.path / name)
            remove_temporaries(self.path)

    def note(self, folder: Path) -> None:
        """Write down a folder that is about to receive results.

        Args:
            folder: in this folder.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / LIST_NAME).open("a", encoding="utf-8", errors="surrogateescape") as file:
            file.write(f"{folder.relative_to(self.path)}\n")

    def _clear(self, folder: Path) -> None:
        """Remove results from a folder, and the folders that are empty then."""
        inside = self.path.resolve() in folder.resolve().parents
        if not inside or not folder.is_dir():
            return
        for pattern in _RESULTS:
            for path in folder.glob(pattern):
                remove(path)
        while folder != self.path and not any(folder.iterdir()):
            folder.rmdir()
            folder = folder.parent
