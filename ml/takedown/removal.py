"""Remove samples from all files that contain or derive from them, and verify the removal.

Files are identified by content, not by name, so that DVC's cache is searched like the data. What
cannot show whom it shows (contact sheets, plots with images) is removed and made again.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import sqlite3
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ml.imaging.io import UnreadableImage, decode_image
from ml.records.atomic import atomic_write, write_json
from ml.records.progress import progress
from ml.records.shards import DamagedSample, ShardReader, shard_writer
from ml.records.tables import (
    CAPTIONS,
    IMAGES,
    POSES,
    open_parquet,
    read_table,
    write_table,
)
from ml.records.workspace import Workspace
from ml.takedown.likeness import Signature, embedded_images, resembles, signature

REGISTER_NAME: Final = "takedowns.json"
"""In the project folder, tracked by git: hashes of removed samples, which keep them out."""
_SKIPPED_FOLDERS: Final = frozenset(
    {".git", ".venv", "__pycache__", "node_modules", "vggheads.egg-info"}
)
"""The last holds the README, whose examples name images."""
_FOLLOWED: Final = ("data", "reports", "mlruns", ".dagster")
"""Folders of a project that may lie on another disk; other links out of it are only named."""
_TABLES = "SELECT name FROM sqlite_master WHERE type = 'table'"
_PACKED: Final = (
    b"PK\x03\x04",
    b"\x1f\x8b",
    b"BZh",
    b"\xfd7zXZ",
    b"\x28\xb5\x2f\xfd",
    b"7z\xbc\xaf",
)
"""First bytes of zip, gzip, bzip2, xz, zstd and 7z files."""
_FILMS: Final = (b"\x1aE\xdf\xa3", b"\0\0\1\xba", b"FLV")
"""First bytes of Matroska, MPEG and Flash films."""
_PIXELS: Final = re.compile(rb"\x93NUMPY.{1,40}'\|u1'.{1,60}\((?:\d+, ){2}\d+", re.DOTALL)
"""Header of a numpy file of bytes with three dimensions or more."""
_IMAGE_SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif"})
_TEXT_SUFFIXES: Final = frozenset({".csv", ".txt", ".md", ".html", ".xml", ".yaml"})


class TakedownError(ValueError):
    """A sample to be removed does not exist, or traces are left; the message names them."""


@dataclass(frozen=True)
class Target:
    """The target of a takedown.

    Attributes:
        samples: ids of images.
        sources: ids of poses, all of whose images are removed.
        hashes: sha256 of the encoded images, to find copies under other names.
        signatures: signatures of the images, to find copies of another size or encoding.
        unsigned: ids of images without a signature: unreadable, or of nearly one colour.
    """

    samples: frozenset[str]
    sources: frozenset[str]
    hashes: frozenset[str] = frozenset()
    signatures: list[Signature] = field(default_factory=list, hash=False)
    unsigned: tuple[str, ...] = ()

    @property
    def names(self) -> frozenset[str]:
        """All ids to look for."""
        return self.samples | self.sources

    def pattern(self) -> re.Pattern[str]:
        """Match an id where it is not part of a longer one."""
        longest_first = sorted(self.names, key=lambda name: (-len(name), name))
        joined = "|".join(re.escape(name) for name in longest_first)
        return re.compile(rf"(?<![\w-])(?:{joined})(?![\w-])")


@dataclass
class Removal:
    """Result of a takedown, by file relative to the project.

    Attributes:
        edited: files that were written again without the samples.
        deleted: files that were removed: images that may show them, unfinished work.
    """

    edited: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)


def find_target(ws: Workspace, samples: Iterable[str], sources: Iterable[str]) -> Target:
    """Look up the images of sources, and the hashes of all images.

    Args:
        ws: the workspace.
        samples: ids of images.
        sources: ids of poses.

    Returns:
        Everything to take down.

    Raises:
        TakedownError: one of the ids is unknown.
    """
    wanted, poses = set(samples), set(sources)
    known: set[str] = set()
    images: set[str] = set()
    hashes: set[str] = set()
    for shard in ws.shards:
        for stage, spec in (("poses", POSES), ("captions", CAPTIONS), ("images", IMAGES)):
            path = ws.table_path(stage, shard)
            if not path.exists():
                continue
            table = read_table(path, spec)
            known |= set(table["pose_id"]) & poses
            if "sample_id" in table:
                wanted |= set(table.loc[table["pose_id"].isin(poses), "sample_id"])
                known |= set(table["sample_id"]) & wanted
                if stage == "images":
                    mine = table["sample_id"].isin(wanted)
                    hashes |= set(table.loc[mine, "sha256"])
                    images |= set(table.loc[mine, "sample_id"])
    if missing := sorted((wanted | poses) - known):
        raise TakedownError(
            f"takedown: no stage knows {missing[:5]}; ids look like those of images"
        )
    shown = _signatures(ws, wanted)
    unsigned = tuple(sorted(images - set(shown)))
    return Target(
        frozenset(wanted), frozenset(poses), frozenset(hashes), list(shown.values()), unsigned
    )


def _signatures(ws: Workspace, wanted: set[str]) -> dict[str, Signature]:
    """Return the signatures of the images that can still be read."""
    found = {}
    for shard in ws.shards:
        path = ws.stage_dir("images") / f"{shard}.tar"
        if not path.exists():
            continue
        with ShardReader(path) as reader:
            for sample_id in wanted.intersection(reader.keys()):
                try:
                    shown = signature(decode_image(reader.read(sample_id)))
                except (DamagedSample, UnreadableImage):
                    continue
                if shown is not None:
                    found[sample_id] = shown
    return found


def take_down(ws: Workspace, target: Target) -> Removal:
    """Remove the samples from every shard, table and list under `data/`.

    Args:
        ws: the workspace.
        target: what is to go.

    Returns:
        The edited and deleted files.

    Raises:
        TakedownError: a file that names a sample is of no kind that can be edited.
    """
    removal = Removal()
    # Images that merely resemble one of them are reported for review, not edited.
    target = replace(target, signatures=[])
    data = ws.root / "data"
    for path in progress(sorted(_files(data)), "takedown"):
        name = path.relative_to(ws.root).as_posix()
        if path.suffix in _IMAGE_SUFFIXES or ".work" in path.relative_to(data).parts:
            # Unfinished work can be made again, and images of several samples cannot be edited.
            if path.suffix in _IMAGE_SUFFIXES or found_in(path, target):
                path.unlink()
                removal.deleted.append(name)
        elif found_in(path, target):
            _edit(ws, path, target)
            removal.edited.append(name)
    remember(ws.root, target)
    return removal


def remember(root: Path, target: Target) -> None:
    """Note the hashes of ids in `takedowns.json`; exports leave out whatever is in it.

    Args:
        root: the project folder.
        target: the removed samples.
    """
    known = taken_down(root) | {hash_id(name) for name in target.names}
    write_json(root / REGISTER_NAME, sorted(known))


def taken_down(root: Path) -> frozenset[str]:
    """Return hashes of ids that were taken down; see `hash_id`.

    Args:
        root: the project folder.

    Raises:
        TakedownError: the list cannot be read.
    """
    path = root / REGISTER_NAME
    if not path.exists():
        return frozenset()
    try:
        return frozenset(str(value) for value in json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise TakedownError(f"{path}: not a list of hashes: {error}") from error


def hash_id(name: str) -> str:
    """Return the hash under which an id is recorded: the list must not name removed samples."""
    return hashlib.sha256(name.encode()).hexdigest()


def search(
    root: Path,
    target: Target,
    skipped: Sequence[str] = (REGISTER_NAME,),
    is_copy: Callable[[Path], bool] = lambda path: False,
) -> list[str]:
    """Read every file of a project and name those in which a sample still is.

    Args:
        root: the project folder: data, caches, runs, reports, everything but git's own files.
        target: what to look for.
        skipped: files that are left out, relative to the root.
        is_copy: asked about a file with a find: whether it is a copy of such a file, no trace.

    Returns:
        `path: what was found`, sorted; empty is the proof.
    """
    found = []
    left_out = frozenset(skipped)
    for path in progress(sorted(_files(root)), "searching every file"):
        name = path.relative_to(root).as_posix()
        if name not in left_out and (what := found_in(path, target)) and not is_copy(path):
            found.append(f"{name}: {what}")
    return found


def found_in(path: Path, target: Target) -> str:
    """Return the parts of the target in a file; empty if there are none.

    Args:
        path: a file of any kind; its kind is identified by its first bytes.
        target: what to look for.
    """
    with path.open("rb") as file:
        start = file.read(262)
    if start[:4] == b"PAR1":
        return _found_in_table(path, target)
    if start[257:262] == b"ustar":
        return _found_in_tar(path, target)
    if start.startswith(b"SQLite format 3\0") and (what := _found_in_database(path, target)):
        return what
    if start.startswith(_PACKED) and _is_plain_zip(path) and (what := _found_in_zip(path, target)):
        return what
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() in target.hashes:
        return "the image itself"
    match = target.pattern().search(path.name) or target.pattern().search(data.decode("latin-1"))
    return match.group() if match else _shown_in(data, target)


def _shown_in(data: bytes, target: Target) -> str:
    """Return whether bytes are, or hold as text, an image that shows what was removed."""
    if not target.signatures:
        return ""
    if resembles(data, target.signatures):
        return "an image that looks like one of them"
    if any(resembles(image, target.signatures) for image in embedded_images(data)):
        return "an image in its text that looks like one of them"
    return ""


def unsearched(root: Path, others: Sequence[Path] = ()) -> list[str]:
    """Return what cannot be searched: packed files, films, arrays of pixels, links out of it.

    Args:
        root: the project folder.
        others: folders outside that are searched too.

    Returns:
        Paths relative to it, and what they are, sorted.
    """
    found = []
    for path in _files(root):
        name = path.relative_to(root).as_posix()
        with path.open("rb") as file:
            start = file.read(262)
        if start.startswith(_PACKED) and not _is_plain_zip(path):
            found.append(name)
        elif start.startswith(_PACKED) and any(map(_PIXELS.match, _zip_members(path))):
            found.append(f"{name}: arrays of pixels")
        elif _PIXELS.match(start):
            found.append(f"{name}: an array of pixels")
        elif start.startswith(_FILMS) or _is_media(start):
            found.append(f"{name}: a film, or an image that is not decoded")
    followed = _followed(root)
    searched = [os.path.realpath(place) for place in (root, *followed, *others)]
    for folder in (root, *followed):
        for path in folder.rglob("*"):
            if not path.is_symlink() or path in followed or _is_skipped(root, path):
                continue
            target = Path(os.path.realpath(path))
            if target.exists() and not any(target.is_relative_to(place) for place in searched):
                found.append(f"{path.relative_to(root).as_posix()}: a link to {target}")
    return sorted(found)


def _is_media(start: bytes) -> bool:
    """Return whether a file is an AVI, or of the family of MP4 except AVIF, which is decoded."""
    if start[:4] == b"RIFF":
        return start[8:12] == b"AVI "
    return start[4:8] == b"ftyp" and start[8:12] not in (b"avif", b"avis")


def _is_plain_zip(path: Path) -> bool:
    """Return whether a zip's members are stored, like those of npz files and checkpoints."""
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
            return all(i.compress_type == 0 and not i.flag_bits & 1 for i in infos)
    except (zipfile.BadZipFile, OSError, ValueError):
        return False


def _zip_members(path: Path) -> Iterator[bytes]:
    """Yield the contents of a zip's members."""
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            try:
                yield archive.read(name)
            except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError):
                # Damaged: the bytes of the file are searched as those of any other.
                continue


def _found_in_zip(path: Path, target: Target) -> str:
    """Search the members of a zip that packs nothing for images; ids are in its bytes."""
    return next(filter(None, (_image_found(data, target) for data in _zip_members(path))), "")


def _found_in_database(path: Path, target: Target) -> str:
    """Search the values of a SQLite database: in its file, long ones lie torn over many pages."""
    pattern = target.pattern()
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            names = [row[0] for row in connection.execute(_TABLES)]
            for name in names:
                quoted = name.replace('"', '""')
                for row in connection.execute(f'SELECT * FROM "{quoted}"'):
                    for value in row:
                        if not isinstance(value, str | bytes):
                            continue
                        data = value.encode() if isinstance(value, str) else value
                        if match := pattern.search(data.decode("latin-1")):
                            return match.group()
                        if what := _shown_in(data, target):
                            return what
    except sqlite3.DatabaseError:
        # Damaged or busy: the bytes of the file are searched as those of any other.
        return ""
    return ""


def _found_in_table(path: Path, target: Target) -> str:
    pattern = target.pattern()
    try:
        for batch in open_parquet(path).iter_batches(1000):
            for column in _texts(batch):
                for value in column.to_pylist():
                    if value and (match := pattern.search(value)):
                        return match.group()
            for column in _binaries(batch):
                for value in column.to_pylist():
                    if value and (what := _image_found(value, target)):
                        return what
    except pa.ArrowException as error:
        raise TakedownError(f"{path}: cannot be searched, it is damaged: {error}") from error
    return ""


def _image_found(data: bytes, target: Target) -> str:
    if hashlib.sha256(data).hexdigest() in target.hashes:
        return "a copy of an image"
    return _shown_in(data, target)


def _binaries(batch: pa.RecordBatch) -> Iterator[pa.Array]:
    """Yield columns of bytes, those in structures too: images in Hugging Face's layout."""
    columns = list(batch.columns)
    while columns:
        column = columns.pop()
        if pa.types.is_struct(column.type):
            columns += column.flatten()
        elif pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
            yield column


def _texts(batch: pa.RecordBatch) -> Iterator[pa.Array]:
    for column in batch.columns:
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            yield column


def _found_in_tar(path: Path, target: Target) -> str:
    pattern = target.pattern()
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                content = tar.extractfile(member)
                data = content.read() if content else b""
                if match := pattern.search(member.name):
                    return match.group()
                if hashlib.sha256(data).hexdigest() in target.hashes:
                    return f"a copy of an image as {member.name}"
                if shown := _shown_in(data, target):
                    return f"{shown} as {member.name}"
                if match := pattern.search(data.decode("latin-1")):
                    return match.group()
    except (tarfile.TarError, EOFError, OSError) as error:
        raise TakedownError(f"{path}: cannot be searched, it is damaged: {error}") from error
    return ""


def _edit(ws: Workspace, path: Path, target: Target) -> None:
    with path.open("rb") as file:
        start = file.read(262)
    if start[:4] == b"PAR1":
        _edit_table(path, target)
    elif start[257:262] == b"ustar":
        _edit_shard(ws, path, target)
    elif path.suffix == ".json":
        _edit_json(path, target)
    elif path.suffix in _TEXT_SUFFIXES:
        pattern = target.pattern()
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        with atomic_write(path) as temporary:
            temporary.write_text("".join(x for x in lines if not pattern.search(x)), "utf-8")
    else:
        raise TakedownError(
            f"takedown: {path} names a sample, and a file of its kind cannot be edited; remove it "
            "and run the stage that makes it"
        )


def _edit_table(path: Path, target: Target) -> None:
    """Drop every row that contains an id, in any column."""
    table = open_parquet(path).read()
    pattern = rf"(^|[^\w-])({'|'.join(re.escape(n) for n in sorted(target.names))})($|[^\w-])"
    gone = pa.chunked_array([pa.array([False] * len(table), pa.bool_())])
    for column in table.columns:
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            hit = pc.fill_null(pc.match_substring_regex(column, pattern), False)
            gone = pc.or_(gone, hit)
    with atomic_write(path) as temporary:
        pq.write_table(
            table.filter(pc.invert(gone)), temporary, compression="zstd", store_schema=False
        )


def _edit_shard(ws: Workspace, path: Path, target: Target) -> None:
    """Write the tar again, and the offsets in the table that indexes it."""
    spans = {}
    with ShardReader(path) as reader, shard_writer(path) as writer:
        members = _members(path)
        for sample_id, extensions in members.items():
            if sample_id in target.samples:
                continue
            try:
                parts: dict[str, bytes | dict[str, Any]] = {
                    extension: reader.read(sample_id, extension) for extension in extensions
                }
            except DamagedSample as error:
                raise TakedownError(f"takedown: {path} cannot be written again: {error}") from error
            spans[sample_id] = writer.add(sample_id, parts)
    index = path.with_suffix(".parquet")
    if path.parent == ws.stage_dir("images") and index.exists():
        table = read_table(index, IMAGES)
        table = table[table["sample_id"].isin(spans)].reset_index(drop=True)
        jpegs = [spans[sample_id]["jpg"] for sample_id in table["sample_id"]]
        table = table.assign(offset=[s.offset for s in jpegs], size=[s.size for s in jpegs])
        write_table(index, table, IMAGES)


def _members(path: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    with tarfile.open(path, "r:") as tar:
        for member in tar:
            sample_id, _, extension = member.name.partition(".")
            found.setdefault(sample_id, []).append(extension)
    return found


def _edit_json(path: Path, target: Target) -> None:
    """Drop list items and keys that name a sample; COCO's boxes go with their image."""
    value = json.loads(path.read_text(encoding="utf-8"))
    pattern = target.pattern()
    if isinstance(value, dict) and {"images", "annotations"} <= set(value):
        kept = [i for i in value["images"] if not pattern.search(json.dumps(i))]
        ids = {image.get("id") for image in kept}
        boxes = [a for a in value["annotations"] if a.get("image_id") in ids]
        value = {**value, "images": kept, "annotations": boxes}
    pruned = _pruned(value, pattern)
    out = io.StringIO()
    json.dump(pruned, out, indent=1, sort_keys=True)
    with atomic_write(path) as temporary:
        temporary.write_text(out.getvalue() + "\n", "utf-8")


def _pruned(value: Any, pattern: re.Pattern[str]) -> Any:
    """Return a JSON value without the parts that name a sample."""
    if isinstance(value, dict):
        return {
            key: _pruned(inner, pattern)
            for key, inner in value.items()
            if not pattern.search(key) and not _is_match(inner, pattern)
        }
    if isinstance(value, list):
        return [
            _pruned(inner, pattern)
            for inner in value
            if not (_is_match(inner, pattern) or _names(inner, pattern))
        ]
    return value


def _is_match(value: Any, pattern: re.Pattern[str]) -> bool:
    return isinstance(value, str) and bool(pattern.search(value))


def _names(value: Any, pattern: re.Pattern[str]) -> bool:
    """Return whether a record is a sample's own: one of its values is the id."""
    values = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(_is_match(inner, pattern) for inner in values)


def _files(root: Path) -> Iterator[Path]:
    for folder in (root, *_followed(root)):
        for path in folder.rglob("*"):
            if path.is_file() and not path.is_symlink() and not _is_skipped(root, path):
                yield path


def _followed(root: Path) -> list[Path]:
    """Return links to folders outside the project in the place of its own."""
    inside = os.path.realpath(root)
    links = (root / name for name in _FOLLOWED)
    return [
        link
        for link in links
        if link.is_symlink()
        and link.is_dir()
        and not Path(os.path.realpath(link)).is_relative_to(inside)
    ]


def _is_skipped(root: Path, path: Path) -> bool:
    return bool(_SKIPPED_FOLDERS.intersection(path.relative_to(root).parts))
