"""Pictures of other people's making as the start of poses: a folder, or tars of img2dataset.

Nothing is ever unpacked to disk, and what is read here is forgotten once a pose has been made: no
pixel, address, file name or caption of a source leaves this package, not even in an error text.
"""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, Final

from ml.poses.config import SourceConfig

SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".webp"})


@dataclass(frozen=True)
class Problem:
    """Why a source picture is not used; the detail names nothing of the source but its place."""

    reason: str
    detail: str


@dataclass(frozen=True)
class SourcePicture:
    """One picture of a source.

    Attributes:
        place: where it stands in its source, such as `picture 12 of the folder`.
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


def source_pictures(
    config: SourceConfig, kind: str, root: Path, shard_index: int, shard_size: int
) -> Iterator[SourcePicture]:
    """The pictures of one shard, in the source's order.

    Args:
        config: where the source is and what is refused unread.
        kind: `folder` or `webdataset`.
        root: the project folder, to which a relative `config.path` belongs.
        shard_index: number of the shard.
        shard_size: pictures in a shard.

    Yields:
        Pictures; also those that cannot be used, with their problem.

    Raises:
        ValueError: there is no source, it ends before this shard, or a tar holds more pictures
            than its shards take.
    """
    folder = Path(root) / config.path
    if not config.path or not folder.is_dir():
        raise ValueError(
            f"poses.pictures.path: expected a folder with pictures or tars, got {config.path!r}; "
            "bring the source there, or name another folder in params.yaml"
        )
    if kind == "folder":
        yield from _from_folder(config, folder, shard_index, shard_size)
    else:
        yield from _from_tars(config, folder, shard_index, shard_size)


def _from_folder(
    config: SourceConfig, folder: Path, shard_index: int, shard_size: int
) -> Iterator[SourcePicture]:
    files = _picture_files(folder)
    start = shard_index * shard_size
    if start >= len(files):
        raise ValueError(
            f"poses: shard {shard_index} begins at picture {start}, the folder has {len(files)}; "
            f"lower run.num_shards to {-(-len(files) // shard_size)}"
        )
    for number, path in enumerate(files[start : start + shard_size], start):
        place = f"picture {number} of the folder"
        if path.is_symlink():
            yield _refused(place, "unsafe path", "a link may lead anywhere, expected a file")
        elif (size := path.stat().st_size) > config.max_bytes:
            yield _refused(place, "too large", _too_large(size, config))
        else:
            beside = path.with_suffix(".json")
            about = beside.read_bytes() if beside.is_file() else None
            yield _picture(place, path.read_bytes(), about, config)


@lru_cache(maxsize=2)
def _picture_files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and not p.is_dir())


def _from_tars(
    config: SourceConfig, folder: Path, shard_index: int, shard_size: int
) -> Iterator[SourcePicture]:
    tars = sorted(folder.glob("*.tar"))
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
            f"shards take {room}; raise poses.pictures.shards_per_tar to "
            f"{-(-len(index.samples) // shard_size)}"
        )
    with tars[number].open("rb") as file:
        own = index.samples[part * shard_size : (part + 1) * shard_size]
        for position, members in enumerate(own, part * shard_size):
            yield _from_members(f"sample {position} of {place}", members, file.fileno(), config)
    # What belongs to no sample is told once, by the tar's first shard.
    if part == 0:
        yield from (replace(problem, place=place) for problem in index.problems)


@dataclass(frozen=True)
class Member:
    """A file in a tar: its extension and where its bytes lie."""

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
    problems: list[SourcePicture]

    @staticmethod
    @lru_cache(maxsize=4)
    def read(path: Path) -> TarIndex:
        """Walk a tar's headers.

        Args:
            path: the tar.

        Returns:
            Its index; a damaged tar keeps the samples before the damage.
        """
        samples: dict[str, list[Member]] = {}
        problems: list[SourcePicture] = []
        size, end = path.stat().st_size, 0
        try:
            with tarfile.open(path, "r:") as tar:
                for info in tar:
                    end = info.offset_data + info.size
                    if problem := _unsafe(info, size):
                        problems.append(SourcePicture("", problem=problem))
                        continue
                    key, _, extension = PurePosixPath(info.name).name.partition(".")
                    member = Member(extension.lower(), info.offset_data, info.size)
                    samples.setdefault(key, []).append(member)
        except (tarfile.TarError, EOFError, OSError, ValueError) as error:
            detail = f"cannot be read after byte {end} of {size}: {type(error).__name__}"
            problems.append(SourcePicture("", problem=Problem("broken tar", detail)))
        return TarIndex(list(samples.values()), problems)


def _unsafe(info: tarfile.TarInfo, tar_size: int) -> Problem | None:
    path = PurePosixPath(info.name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
        return Problem("unsafe path", "a member's name leads out of the folder it is in")
    if info.isdir():
        return None if not info.size else Problem("unsafe path", "a folder with content")
    if not info.isreg():
        return Problem("unsafe path", "a member is a link or a device, expected a file")
    if info.offset_data + info.size > tar_size:
        missing = info.offset_data + info.size - tar_size
        return Problem("broken tar", f"a member's last {missing} bytes are missing")
    return None


def _from_members(
    place: str, members: list[Member], descriptor: int, config: SourceConfig
) -> SourcePicture:
    pictures = [m for m in members if f".{m.extension}" in SUFFIXES]
    notes = [m for m in members if m.extension == "json"]
    if not pictures:
        return _refused(place, "no picture", "the sample has no jpg, png or webp")
    picture = pictures[0]
    if max(m.size for m in (picture, *notes)) > config.max_bytes:
        return _refused(place, "too large", _too_large(picture.size, config))
    about = os.pread(descriptor, notes[0].size, notes[0].offset) if notes else None
    data = os.pread(descriptor, picture.size, picture.offset)
    return _picture(place, data, about, config)


def _picture(place: str, data: bytes, about: bytes | None, config: SourceConfig) -> SourcePicture:
    """A picture with what its JSON says: safety label and address, nothing else."""
    try:
        values: Any = json.loads(about) if about is not None else {}
    except (ValueError, RecursionError):
        return _refused(place, "unreadable json", "what stands beside the picture is not JSON")
    if not isinstance(values, dict):
        return _refused(place, "unreadable json", "expected an object beside the picture")
    label = values.get(config.label_field)
    url = values.get("url")
    return SourcePicture(
        place,
        data,
        label="" if label is None else str(label).strip().upper(),
        url_sha256=hashlib.sha256(url.encode()).hexdigest() if isinstance(url, str) else "",
    )


def _refused(place: str, reason: str, detail: str) -> SourcePicture:
    return SourcePicture(place, problem=Problem(reason, detail))


def _too_large(size: int, config: SourceConfig) -> str:
    return f"{size} bytes, expected at most {config.max_bytes} (poses.pictures.max_bytes)"
