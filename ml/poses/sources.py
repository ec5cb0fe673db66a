"""Images of other people's making as the start of poses: a folder, or tars of img2dataset.

Both may be in an object store, where images and members of tars are read in ranges. Nothing is ever
unpacked to disk, and what is read here is forgotten once a pose has been made: no pixel, address,
file name or caption of a source leaves this package, not even in an error text.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import IO, Any

from ml.imaging.io import SUFFIXES
from ml.poses.config import SourceConfig
from ml.records import reasons
from ml.records.files import UnreadableFile, read_file
from ml.records.remote import (
    AnyPath,
    RemotePath,
    StoreUnavailable,
    UnusableAddress,
    child,
    is_address,
    located,
)
from ml.records.shards import read_at
from ml.records.tars import DamagedTar, TarMember, TarReader


@dataclass(frozen=True)
class Problem:
    """Why a source image is not used; the detail names nothing of the source but its place."""

    reason: str
    detail: str


@dataclass(frozen=True)
class SourceImage:
    """One image of a source.

    Attributes:
        place: its position in the source, such as `image 12 of the folder`.
        data: its encoded bytes; empty when there is a problem.
        label: what the source says of its safety, upper case; empty when it says nothing.
        url_sha256: hash of its address, for those who ask to be removed; empty without one.
        problem: why it cannot be used, None when it can.
    """

    place: str
    data: bytes = b""
    label: str = ""
    url_sha256: str = ""
    problem: Problem | None = None

    @property
    def sha256(self) -> str:
        """Hash of the encoded bytes, for those who ask to be removed."""
        return hashlib.sha256(self.data).hexdigest()


def source_images(
    config: SourceConfig, kind: str, root: Path, shard_index: int, shard_size: int
) -> Iterator[SourceImage]:
    """Yield the images of one shard, in the source's order.

    Args:
        config: where the source is and what is refused unread.
        kind: `folder` or `webdataset`.
        root: the project folder, to which a relative `config.path` belongs.
        shard_index: number of the shard.
        shard_size: images in a shard.

    Yields:
        Images; also those that cannot be used, with their problem.

    Raises:
        ValueError: there is no source, it ends before this shard, or a tar holds more images
            than its shards take.
        StoreUnavailable: a store cannot be read; names no file.
    """
    folder = located(config.path if is_address(config.path) else Path(root) / config.path)
    of_kind = _from_folder if kind == "folder" else _from_tars
    try:
        if not config.path or not folder.is_dir():
            raise ValueError(
                f"poses.images.path: expected a folder with images or tars, got {config.path!r}; "
                "bring the source there, or name another folder in params.yaml"
            )
        yield from of_kind(config, folder, shard_index, shard_size)
    except StoreUnavailable as error:
        # Libraries repeat the address of what they were reading.
        raise StoreUnavailable(f"poses.images.path: {error.brief}") from None


def _from_folder(
    config: SourceConfig, folder: AnyPath, shard_index: int, shard_size: int
) -> Iterator[SourceImage]:
    files, doubled, notes = _image_files(folder)
    start = shard_index * shard_size
    if start >= len(files):
        raise ValueError(
            f"poses: shard {shard_index} begins at image {start}, the folder has {len(files)}; "
            f"lower run.num_shards to {-(-len(files) // shard_size)}"
        )
    for number, path in enumerate(files[start : start + shard_size], start):
        place = f"image {number} of the folder"
        if path is None:
            detail = "parts of a name lead elsewhere, expected names of files"
            yield _refused(place, reasons.UNSAFE_PATH, detail)
            continue
        if isinstance(path, Path) and path.is_symlink():
            yield _refused(place, reasons.UNSAFE_PATH, "a link may lead anywhere, expected a file")
            continue
        beside = path.with_suffix(".json")
        has_note = beside in notes if notes is not None else beside.is_file()
        if path in doubled and has_note:
            detail = "several images share a JSON; its image is ambiguous"
            yield _refused(place, reasons.SHARED_NAME, detail)
            continue
        try:
            data = read_file(path, config.max_bytes)
            about = read_file(beside, config.max_bytes) if has_note else None
        except UnreadableFile:
            size = path.stat().st_size if path.exists() else 0
            if size > config.max_bytes:
                yield _refused(place, reasons.TOO_LARGE, _too_large(size, config))
            else:
                yield _refused(place, reasons.UNREADABLE_FILE, "a pipe, a device or gone")
            continue
        yield _image(place, data, about, config)


@lru_cache(maxsize=2)
def _image_files(
    folder: AnyPath,
) -> tuple[Sequence[AnyPath | None], frozenset[AnyPath], frozenset[AnyPath] | None]:
    """Return the images in order, those that differ from another only in their suffix, and JSONs.

    Of a store, whose listing names everything, an image whose name is unsafe is None, at the end.
    JSONs are looked up where they are, on a disk: None.
    """
    files: list[AnyPath] = []
    notes: set[AnyPath] = set()
    num_unsafe = 0
    if isinstance(folder, RemotePath):
        for name in folder.names():
            suffix = PurePosixPath(name).suffix.lower()
            if suffix not in SUFFIXES and suffix != ".json":
                continue
            try:
                (notes.add if suffix == ".json" else files.append)(child(folder, name))
            except UnusableAddress:
                num_unsafe += suffix != ".json"
    else:
        found = (p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
        files += (path for path in found if not path.is_dir())
    files.sort()
    count = Counter(path.with_suffix("") for path in files)
    doubled = frozenset(path for path in files if count[path.with_suffix("")] > 1)
    in_store = frozenset(notes) if isinstance(folder, RemotePath) else None
    return [*files, *[None] * num_unsafe], doubled, in_store


def _from_tars(
    config: SourceConfig, folder: AnyPath, shard_index: int, shard_size: int
) -> Iterator[SourceImage]:
    tars = _tars(folder)
    number, part = divmod(shard_index, config.shards_per_tar)
    if number >= len(tars):
        raise ValueError(
            f"poses: shard {shard_index} is part {part} of tar {number}, the folder has "
            f"{len(tars)} tars; lower run.num_shards to {len(tars) * config.shards_per_tar}"
        )
    index = TarIndex.read(tars[number])
    place = f"tar {number}"
    room = config.shards_per_tar * shard_size
    if len(index.samples) > room:
        raise ValueError(
            f"poses: {place} holds {len(index.samples)} samples, its {config.shards_per_tar} "
            f"shards take {room}; raise poses.images.shards_per_tar to "
            f"{-(-len(index.samples) // shard_size)}"
        )
    with tars[number].open("rb") as file:
        own = index.samples[part * shard_size : (part + 1) * shard_size]
        for position, members in enumerate(own, part * shard_size):
            yield _from_members(f"sample {position} of {place}", members, file, config)
    # What belongs to no sample is reported once, by the tar's first shard.
    if part == 0:
        yield from (replace(problem, place=place) for problem in index.problems)


def _tars(folder: AnyPath) -> Sequence[AnyPath]:
    if not isinstance(folder, RemotePath):
        return sorted(folder.glob("*.tar"))
    names = (name for name in folder.names() if name.endswith(".tar") and "/" not in name)
    return sorted(child(folder, name) for name in names)


@dataclass(frozen=True)
class Member:
    """A file in a tar: its extension and where its bytes are."""

    extension: str
    offset: int
    size: int


@dataclass(frozen=True)
class TarIndex:
    """The samples of a tar, and what is wrong with it.

    Attributes:
        samples: members of each sample, in order.
        problems: members that are refused, and a break in the middle.
    """

    samples: list[list[Member]]
    problems: list[SourceImage]

    @staticmethod
    @lru_cache(maxsize=4)
    def read(path: AnyPath) -> TarIndex:
        """Walk a tar's headers.

        Args:
            path: the tar, or its address.

        Returns:
            Its index; a damaged tar keeps the samples before the damage.
        """
        samples: dict[str, list[Member]] = {}
        problems: list[SourceImage] = []
        size = path.stat().st_size
        try:
            with TarReader(path) as tar:
                for info in tar:
                    if problem := _unsafe(info, size):
                        problems.append(SourceImage("", problem=problem))
                    elif info.kind == "file":
                        # The folder belongs to the name, and so does all before the last dot:
                        # `photo.v1.jpg` and `photo.v2.jpg` are two images.
                        inside = PurePosixPath(info.name)
                        member = Member(inside.suffix[1:].lower(), info.offset, info.size)
                        samples.setdefault(str(inside.with_suffix("")), []).append(member)
        except DamagedTar as error:
            cause = type(error.__cause__ or error).__name__
            detail = f"cannot be read after byte {error.after} of {size}: {cause}"
            problems.append(SourceImage("", problem=Problem(reasons.DAMAGED_TAR, detail)))
        return TarIndex(list(samples.values()), problems)


def _unsafe(info: TarMember, tar_size: int) -> Problem | None:
    path = PurePosixPath(info.name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or (path.parts and ":" in path.parts[0]):
        return Problem(reasons.UNSAFE_PATH, "a member's name leads out of the folder it is in")
    if info.kind == "folder":
        return None if not info.size else Problem(reasons.UNSAFE_PATH, "a folder with content")
    if info.kind != "file" or not path.name:
        return Problem(reasons.UNSAFE_PATH, "a member is a link or a device, expected a file")
    if info.problem:
        return Problem(reasons.TOO_LARGE, f"a member {info.problem}")
    if info.offset + info.size > tar_size:
        missing = info.offset + info.size - tar_size
        return Problem(reasons.DAMAGED_TAR, f"a member's last {missing} bytes are missing")
    return None


def _from_members(
    place: str, members: list[Member], file: IO[bytes], config: SourceConfig
) -> SourceImage:
    images = [m for m in members if f".{m.extension}" in SUFFIXES]
    notes = [m for m in members if m.extension == "json"]
    if not images:
        return _refused(place, reasons.NO_IMAGE, "the sample has no jpg, png or webp")
    if len(images) > 1 or len(notes) > 1:
        detail = f"{len(images)} images and {len(notes)} JSONs under one name"
        return _refused(place, reasons.SHARED_NAME, detail)
    image = images[0]
    if max(m.size for m in (image, *notes)) > config.max_bytes:
        return _refused(place, reasons.TOO_LARGE, _too_large(image.size, config))
    about = read_at(file, notes[0].size, notes[0].offset) if notes else None
    data = read_at(file, image.size, image.offset)
    return _image(place, data, about, config)


def _image(place: str, data: bytes, about: bytes | None, config: SourceConfig) -> SourceImage:
    """Return an image with what its JSON says: safety label and address, nothing else."""
    try:
        values: Any = json.loads(about) if about is not None else {}
    except (ValueError, RecursionError):
        return _refused(place, reasons.DAMAGED_JSON, "the file of the image's metadata is not JSON")
    if not isinstance(values, dict):
        return _refused(place, reasons.DAMAGED_JSON, "expected an object as metadata of the image")
    label = values.get(config.label_field)
    url = values.get("url")
    return SourceImage(
        place,
        data,
        label="" if label is None else str(label).strip().upper(),
        url_sha256=hashlib.sha256(url.encode()).hexdigest() if isinstance(url, str) else "",
    )


def _refused(place: str, reason: str, detail: str) -> SourceImage:
    return SourceImage(place, problem=Problem(reason, detail))


def _too_large(size: int, config: SourceConfig) -> str:
    return f"{size} bytes, expected at most {config.max_bytes} (poses.images.max_bytes)"
