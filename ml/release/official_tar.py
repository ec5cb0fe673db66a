"""The official release's tar, unpacked split by split: what comes out is what its folder holds."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

from ml.records import reasons
from ml.records.exclusions import Exclusions
from ml.records.limits import MAX_IMAGE_FILE_BYTES
from ml.records.tars import DamagedTar, TarMember, TarReader

SPLIT_NAME: Final = re.compile(r"split_(\d{5})")
METRICS_NAME: Final = "metrics.json"
EXCLUSIONS_NAME: Final = "files.txt"
TEST_FOLDER: Final = "test"
"""Ours, beside `large`: the official release has no test split."""


class NotARelease(ValueError):
    """A folder or tar does not have the official layout; the message says what was looked for."""


class TarSplits:
    """Reads a release's tar once from front to back; the disk holds one split at a time."""

    def __init__(self, tar_path: Path, spool: Path, exclusions: Exclusions) -> None:
        """Nothing is read yet.

        Args:
            tar_path: `VGGHeads.tar`, compressed or not.
            spool: where to unpack.
            exclusions: receives members that are no file of a split, or cannot be used.
        """
        self._path, self._spool, self._exclusions = tar_path, spool, exclusions
        self._current: Path | None = None
        self._seen: set[Path] = set()
        self._base: tuple[str, ...] | None = None

    def __iter__(self) -> Iterator[Path]:
        """Unpack; a split is complete when the tar goes on to another.

        Yields:
            Folder of each split that has files; the caller may remove it before asking on.

        Raises:
            NotARelease: the file is no tar, or holds no split.
            OSError: the machine's fault, such as a full disk: nothing after it is read.
        """
        try:
            with TarReader(self._path, stream=True, max_member_bytes=MAX_IMAGE_FILE_BYTES) as tar:
                for member in tar:
                    place = self._place(member)
                    if place is None:
                        continue
                    split, relative = place
                    if self._current is not None and self._current != split:
                        yield self._current
                        self._current = None
                    if split in self._seen and self._current is None:
                        detail = "comes after its split was complete"
                        self._exclude(member, reasons.LATE_MEMBER, detail)
                        continue
                    self._current = split
                    self._seen.add(split)
                    self._unpack(tar, member, split / relative)
        except DamagedTar as error:
            if not self._seen and not self._base:
                raise NotARelease(f"{self._path}: not a readable tar: {error}") from error
            # What came before the damage is used; the rest of the tar is lost, and said so.
            self._exclusions.add(self._path.stem, reasons.DAMAGED_TAR, str(error))
        if self._current is not None:
            yield self._current
        if self._base is None:
            raise NotARelease(f"{self._path}: no member split_00000/images/... in it")

    def _place(self, member: TarMember) -> tuple[Path, Path] | None:
        """The split's folder in the spool and the path in it, None for what is not unpacked."""
        parts = tuple(part for part in PurePosixPath(member.name).parts if part != ".")
        at = next((i for i, part in enumerate(parts) if SPLIT_NAME.fullmatch(part)), None)
        if at is None or ".." in parts or member.name.startswith("/"):
            if member.kind != "folder":
                self._exclude(member, reasons.BAD_MEMBER, "is no file of a split")
            return None
        base, inside = parts[:at], parts[at + 1 :]
        group = TEST_FOLDER if base and base[-1] == TEST_FOLDER else "large"
        if group == "large":
            self._base = base if self._base is None else self._base
            if base != self._base:
                detail = f"is of another release than {'/'.join(self._base) or 'the first'}"
                self._exclude(member, reasons.BAD_MEMBER, detail)
                return None
        else:
            self._base = (*base[:-1], "large") if self._base is None else self._base
        if member.kind == "folder":
            # A split of folders alone has no samples, here as in a folder.
            return None
        named = len(inside) == 1 and inside[0] in (EXCLUSIONS_NAME, METRICS_NAME)
        filed = len(inside) == 2 and inside[0] in ("images", "annotations")
        if member.kind != "file" or not (named or filed):
            self._exclude(member, reasons.BAD_MEMBER, "is no file of a split")
            return None
        if member.problem:
            self._exclude(member, reasons.TOO_LARGE, member.problem)
            return None
        return self._spool / group / parts[at], Path(*inside)

    def _unpack(self, tar: TarReader, member: TarMember, target: Path) -> None:
        """Write a member's content; a file that the tar does not hold whole is not kept."""
        if target.exists():
            target.unlink()
            self._exclude(member, reasons.SHARED_NAME, "stands in the tar twice")
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with target.open("wb") as file:
                for piece in tar.chunks():
                    file.write(piece)
        except DamagedTar:
            target.unlink()
            raise

    def _exclude(self, member: TarMember, reason: str, detail: str) -> None:
        name = PurePosixPath(member.name).stem or member.name
        self._exclusions.add(name, reason, f"{self._path.name}: {member.name!r} {detail}")
