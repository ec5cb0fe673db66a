"""The files of a release wherever they are, folders and tars together, read in place.

The published release is a tar of 187 GB, and its mirrors cut it into several; nothing of it is
unpacked. One walk over the tars' headers lists on the disk what each part (a split, or the images
labelled manually) is made of; then parts are read one after the other, each file in place.
"""

from __future__ import annotations

import csv
import lzma
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any, Final

from ml.records import reasons
from ml.records.atomic import PREFIX
from ml.records.exclusions import Exclusions
from ml.records.files import Closing, UnreadableFile, is_environment, read_file
from ml.records.limits import MAX_IMAGE_FILE_BYTES
from ml.records.progress import progress
from ml.records.remote import AnyPath, RemotePath, child, located
from ml.records.tars import DamagedTar, TarMember, TarReader, opener_of

SPLIT_NAME: Final = re.compile(r"split_(\d{5})")
METRICS_NAME: Final = "metrics.json"
EXCLUSIONS_NAME: Final = "files.txt"
KEEP_NAMES: Final = ("train_files.txt", "val_files.txt")
"""Lists of what belongs to a split, which the official loader takes where they are."""
LARGE, SMALL, TEST_FOLDER = "large", "small", "test"
"""`small` holds the 10,000 images labelled manually; `test` is our own split, next to `large`."""
TAR_SUFFIXES: Final = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_KINDS: Final = ("images", "annotations")
_LISTS: Final = (METRICS_NAME, EXCLUSIONS_NAME, *KEEP_NAMES)
_CHUNK: Final = 1 << 20
_TEXT: Final[dict[str, Any]] = {"encoding": "utf-8", "errors": "surrogateescape"}
"""Names in tars need be no text."""
_OPEN_LISTS: Final = 32
"""Lists of parts that are written at once."""


class NotARelease(ValueError):
    """A folder or tar does not have the official layout; the message says what was looked for."""


@dataclass(frozen=True)
class StoredFile:
    """A file of a release.

    Attributes:
        name: its name without folders.
        source: the file, or the tar that holds it, here or in a store.
        offset: first byte in the tar; -1 for a file of its own.
        size: bytes in the tar.
    """

    name: str
    source: AnyPath
    offset: int = -1
    size: int = 0

    @property
    def stem(self) -> str:
        """Return its name without suffix."""
        return PurePosixPath(self.name).stem

    def read(self) -> bytes:
        """Return its content.

        Raises:
            UnreadableFile: it is gone, too large, or the tar ends within it.
        """
        if self.offset < 0:
            return read_file(self.source, MAX_IMAGE_FILE_BYTES)
        with self.source.open("rb") as file:
            file.seek(self.offset)
            data = file.read(self.size)
        if len(data) != self.size:
            raise UnreadableFile(
                f"{self.source.name} ends within {self.name}: {len(data)} of {self.size} bytes"
            )
        return data


@dataclass
class PartFiles:
    """The files of one part of a release.

    Attributes:
        name: `split_00007`, `test/split_00000`, `small` or `small/<folder>`.
        images: in the order they were found.
        annotations: likewise.
        lists: name -> `files.txt`, `metrics.json`, `train_files.txt`, `val_files.txt`.
    """

    name: str
    images: list[StoredFile] = field(default_factory=list)
    annotations: list[StoredFile] = field(default_factory=list)
    lists: dict[str, StoredFile] = field(default_factory=dict)


def part_of(path: str) -> tuple[str, str, tuple[str, ...]] | None:
    """Return what a path inside a release is: its part, its kind, and the folders before them.

    Args:
        path: such as `VGGHeads/large/split_00007/images/x.jpg`.

    Returns:
        Part, `images`, `annotations` or `lists`, and what precedes `large`, `small` or `test`;
        None for what is no file of a part.
    """
    pure = PurePosixPath(path)
    parts = tuple(piece for piece in pure.parts if piece != ".")
    if pure.is_absolute() or ".." in parts or not parts:
        return None
    at = next((i for i, piece in enumerate(parts) if SPLIT_NAME.fullmatch(piece)), None)
    if at is not None and SMALL not in parts[:at]:
        before, inside = parts[:at], parts[at + 1 :]
        group = before[-1] if before and before[-1] in (LARGE, TEST_FOLDER) else ""
        name = f"{TEST_FOLDER}/{parts[at]}" if group == TEST_FOLDER else parts[at]
        before = before[:-1] if group else before
    elif SMALL in parts:
        at = parts.index(SMALL)
        before, rest = parts[:at], parts[at + 1 :]
        depth = next((i for i, piece in enumerate(rest) if piece in _KINDS), len(rest) - 1)
        if depth < 0 or depth > 1:
            return None
        name, inside = "/".join((SMALL, *rest[:depth])), rest[depth:]
    else:
        return None
    if len(inside) == 2 and inside[0] in _KINDS:
        return name, inside[0], before
    if len(inside) == 1 and inside[0] in _LISTS:
        return name, "lists", before
    return None


class Release:
    """The parts of a release in folders and tars."""

    def __init__(self, sources: Sequence[AnyPath], spool: Path, exclusions: Exclusions) -> None:
        """List everything once.

        Args:
            sources: folders (of an unpacked release, or of tars) and tars, compressed or not. In a
                store, tars and folders of tars: of these the headers are read here, and members
                later in ranges.
            spool: folder for the lists, and for what has to be decompressed first.
            exclusions: receives members that are no file of a part, or cannot be used.

        Raises:
            NotARelease: a source is missing or no tar, or there is no part in any.
            OSError: the machine's fault, such as a full disk.
        """
        self.damaged: list[str] = []
        self.tars: list[AnyPath] = []
        self._spool, self._exclusions = spool, exclusions
        self._lists: dict[str, Path] = {}
        with _Lists(spool, self._lists) as lists:
            for source in sources:
                self._list_source(source, lists)
        if not self._lists:
            where = ", ".join(str(source) for source in sources)
            raise NotARelease(
                f"{where}: no folder split_00000 in it or in its large/, no small/, and no member "
                "split_00000/images/... or small/images/... in its tars"
            )

    @property
    def parts(self) -> list[str]:
        """Return the parts in order: splits, those labelled manually, those of `test/`."""
        return sorted(self._lists, key=_order)

    def files(self, part: str) -> PartFiles:
        """Read the list of one part; copies that mirrors hold of one file count once.

        Args:
            part: one of `parts`.
        """
        found = PartFiles(part)
        known: dict[tuple[str, str], StoredFile] = {}
        ambiguous: set[tuple[str, str]] = set()
        with self._lists[part].open(newline="", **_TEXT) as file:
            for kind, name, source, offset, size in csv.reader(file):
                stored = StoredFile(name, located(source), int(offset), int(size))
                first = known.setdefault((kind, name), stored)
                same = first is stored or first.source != stored.source
                if not same or _size(first) != _size(stored):
                    where = f"in {first.source.name} and again in {stored.source.name}"
                    detail = f"{part}/{kind}/{name} occurs {where}; neither is used"
                    self._exclusions.add(stored.stem, reasons.SHARED_NAME, detail)
                    ambiguous.add((kind, name))
        for (kind, name), stored in known.items():
            if (kind, name) in ambiguous:
                continue
            if kind == "lists":
                found.lists[name] = stored
            else:
                (found.images if kind == "images" else found.annotations).append(stored)
        return found

    def _list_source(self, source: AnyPath, lists: _Lists) -> None:
        if isinstance(source, RemotePath):
            for path in _remote_tars(source):
                self._list_tar(path, lists)
        elif source.is_dir():
            self._list_folder(source, lists)
        elif source.exists():
            self._list_tar(source, lists)
        else:
            raise NotARelease(f"{source}: no such folder or tar")

    def _list_folder(self, root: Path, lists: _Lists) -> None:
        for folder in _part_folders(root):
            inside = folder.relative_to(root).as_posix()
            prefix = f"{SMALL}/" if root.name == SMALL else ""
            place = part_of(f"{prefix}{inside}/images/x")
            assert place is not None  # _part_folders gives no other folders
            found = False
            for kind in _KINDS:
                for path in progress(sorted((folder / kind).glob("*")), f"{place[0]}/{kind}"):
                    if not path.name.startswith(PREFIX):
                        lists.append(place[0], kind, StoredFile(path.name, path))
                        found = True
            for name in _LISTS:
                if (folder / name).is_file():
                    lists.append(place[0], "lists", StoredFile(name, folder / name))
                    found = True
            if not found:
                lists.touch(place[0])
        for path in _tars_in(root):
            self._list_tar(path, lists)

    def _list_tar(self, path: AnyPath, lists: _Lists) -> None:
        self.tars.append(path)
        plain, base, seen = self._plain(path), None, False
        try:
            with TarReader(plain, max_member_bytes=MAX_IMAGE_FILE_BYTES) as tar:
                size = plain.stat().st_size
                for member in progress(tar, f"listing {path.name}"):
                    if member.kind == "folder":
                        # A split of which there are only folders is an empty one, as on a disk.
                        if place := part_of(f"{member.name}/images/x") or part_of(
                            f"{member.name}/x"
                        ):
                            lists.touch(place[0])
                        continue
                    place = part_of(member.name) if member.kind == "file" else None
                    if place is None:
                        self._exclude(path, member, reasons.BAD_MEMBER, "is no file of a split")
                        continue
                    part, kind, before = place
                    base, seen = before if base is None else base, True
                    if before != base:
                        first = "/".join(base) or "the first"
                        detail = f"is of another release than {first}"
                        self._exclude(path, member, reasons.BAD_MEMBER, detail)
                    elif member.problem:
                        self._exclude(path, member, reasons.TOO_LARGE, member.problem)
                        lists.touch(part)
                    elif member.offset + member.size > size:
                        raise DamagedTar(f"{path.name} ends within {member.name}", size)
                    else:
                        name = PurePosixPath(member.name).name
                        lists.append(
                            part, kind, StoredFile(name, plain, member.offset, member.size)
                        )
        except DamagedTar as error:
            if not seen:
                raise NotARelease(f"{path}: not a readable tar: {error}") from error
            # What came before the damage is used; the rest of the tar is lost, and said so.
            self.damaged.append(str(error))
            self._exclusions.add(path.stem, reasons.DAMAGED_TAR, str(error))

    def _plain(self, path: AnyPath) -> AnyPath:
        """Return the tar itself, or what can be decompressed of a compressed one."""
        if not path.is_file():
            return path
        opener = opener_of(path)
        if opener is None:
            return path
        plain = self._spool / f"{len(self.tars):03d}-{path.name}.plain"
        with path.open("rb") as raw, opener(raw, "rb") as packed, plain.open("wb") as file:
            try:
                for piece in progress(iter(lambda: packed.read(_CHUNK), b""), f"MiB {path.name}"):
                    file.write(piece)
            except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
                if is_environment(error):
                    raise
                self.damaged.append(f"{path.name}: {error}")
                detail = f"{path.name} cannot be decompressed to its end: {error}"
                self._exclusions.add(path.stem, reasons.DAMAGED_TAR, detail)
        return plain

    def _exclude(self, path: AnyPath, member: TarMember, reason: str, detail: str) -> None:
        name = PurePosixPath(member.name).stem or member.name
        self._exclusions.add(name, reason, f"{path.name}: {member.name!r} {detail}")


def glance(source: Path) -> str:
    """Return a file of a part that a source holds; only the start of each of its tars is read.

    Args:
        source: a folder (of an unpacked release, or of tars) or a tar, compressed or not.

    Raises:
        NotARelease: it is missing, or it, or one of its tars, holds no file of a part.
    """
    if not source.exists():
        raise NotARelease(f"{source}: no such folder or tar")
    if not source.is_dir():
        return _first_member(source)
    tars = [_first_member(path) for path in _tars_in(source)]
    if folder := next(_part_folders(source), None):
        return f"{folder.relative_to(source)}/"
    if not tars:
        raise NotARelease(
            f"{source}: no folder split_00000 in it or in its large/, no small/, and no tar"
        )
    return tars[0]


def _first_member(path: Path) -> str:
    try:
        with TarReader(path, stream=True, max_member_bytes=MAX_IMAGE_FILE_BYTES) as tar:
            for member in tar:
                if member.kind == "file" and part_of(member.name):
                    return member.name
    except DamagedTar as error:
        raise NotARelease(f"{path}: not a readable tar: {error}") from error
    raise NotARelease(
        f"{path}: no member split_00000/images/... or small/images/... in it; is it a tar of the "
        "release?"
    )


class _Lists(Closing):
    """The lists of the parts while they are written; few of them are open at once."""

    def __init__(self, folder: Path, paths: dict[str, Path]) -> None:
        self._folder, self._paths = folder, paths
        self._stack = ExitStack()
        self._open: dict[str, IO[str]] = {}

    def append(self, part: str, kind: str, file: StoredFile) -> None:
        """Append a file to its part's list."""
        row = (kind, file.name, str(file.source), file.offset, file.size)
        csv.writer(self._file(part)).writerow(row)

    def touch(self, part: str) -> None:
        """List a part of which nothing can be used."""
        self._file(part)

    def _file(self, part: str) -> IO[str]:
        if part not in self._open:
            if len(self._open) >= _OPEN_LISTS:
                self._stack.close()
                self._open.clear()
            path = self._folder / f"{part.replace('/', '-')}.csv"
            mode = "a" if part in self._paths else "w"
            self._paths[part] = path
            self._open[part] = self._stack.enter_context(path.open(mode, newline="", **_TEXT))
        return self._open[part]

    def close(self) -> None:
        """Close the lists that are open."""
        self._stack.close()


def _part_folders(root: Path) -> Iterator[Path]:
    """Yield folders of parts in an unpacked release, or in its `large` or `small` itself."""
    large = _splits_in(root / LARGE) or _splits_in(root)
    yield from large
    for small in (root / SMALL, *((root,) if root.name == SMALL else ())):
        if small.is_dir():
            folders = [small, *sorted(path for path in small.iterdir() if path.is_dir())]
            yield from (f for f in folders if any((f / kind).is_dir() for kind in _KINDS))
    yield from _splits_in(root / TEST_FOLDER)


def _remote_tars(source: RemotePath) -> list[RemotePath]:
    """Return the tars of a folder in a store, or the one that is named itself.

    Raises:
        NotARelease: there is nothing, or no tar.
    """
    try:
        if not source.is_dir():
            source.stat()
            return [source]
        names = [name for name in source.names() if "/" not in name and name.endswith(TAR_SUFFIXES)]
    except FileNotFoundError as error:
        raise NotARelease(
            f"{error}; expected a tar of the release, or a folder of its tars"
        ) from error
    if not names:
        raise NotARelease(
            f"{source}: no tar in this folder; in a store, a release is read from tars"
        )
    return sorted(child(source, name) for name in names)


def _tars_in(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.name.endswith(TAR_SUFFIXES) and p.is_file())


def _splits_in(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if SPLIT_NAME.fullmatch(path.name))


def _order(part: str) -> tuple[int, str]:
    group = 1 if part.split("/")[0] == SMALL else 2 if part.startswith(f"{TEST_FOLDER}/") else 0
    return group, part


def _size(file: StoredFile) -> int:
    return file.size if file.offset >= 0 else file.source.stat().st_size
