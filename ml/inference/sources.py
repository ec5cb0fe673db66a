"""Where images come from: arrays, PIL images, files, folders, videos, cameras and streams.

Files and folders of images may be addresses of a store (`s3://`) or web server: they are read in
place, one image after the other.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final, TypeAlias, Union

import numpy as np

from ml.imaging.io import SUFFIXES as IMAGE_SUFFIXES
from ml.imaging.io import UnreadableImage, decode_image, to_rgb
from ml.inference.live import LiveSource, live_source, read_live
from ml.inference.videos import SUFFIXES as VIDEO_SUFFIXES
from ml.inference.videos import count_frames, read_frames
from ml.records import reasons
from ml.records.exclusions import Exclusions
from ml.records.remote import AnyPath, RemotePath, UnusableAddress, child, located

if TYPE_CHECKING:
    from PIL import Image

OneImage: TypeAlias = Union[np.ndarray, str, Path, RemotePath, LiveSource, "Image.Image"]
Source: TypeAlias = OneImage | Sequence[OneImage]
_SUFFIXES: Final = IMAGE_SUFFIXES | VIDEO_SUFFIXES


@dataclass(frozen=True)
class NamedImage:
    """An image and its name.

    Attributes:
        name: path or address as it was given or found, `image-3`, or `clip.mp4#00012`.
        image_rgb: (H, W, 3) uint8 RGB.
        time_s: of a frame of a video or a live source, seconds after the first.
    """

    name: str
    image_rgb: np.ndarray
    time_s: float | None = None


def is_video(source: object) -> bool:
    """Return whether a source is the path or address of a video."""
    if not isinstance(source, str | Path | RemotePath):
        return False
    return located(source).suffix.lower() in VIDEO_SUFFIXES


def is_live(source: object) -> bool:
    """Return whether a source is a camera or a stream, which has no end."""
    return isinstance(source, LiveSource) or live_source(source) is not None


def is_single(source: Source) -> bool:
    """Return whether a source is one image and not several."""
    if is_live(source):
        return False
    if isinstance(source, str | Path | RemotePath):
        return not (located(source).is_dir() or is_video(source))
    return not isinstance(source, list | tuple)


def expand(
    source: Source, exclusions: Exclusions | None = None, without: Path | None = None
) -> list[OneImage]:
    """Return the images and videos of a source.

    A folder becomes its images and videos, in order of their paths.

    Args:
        source: an image, a path, or several of them.
        exclusions: receives files of a folder that are neither, hidden ones apart, and links that
            lead nowhere. Of a folder in a store it receives the videos, too, which are read from
            local files only, and names that would lead elsewhere.
        without: a folder to skip, so that outputs are not read as inputs.

    Returns:
        Images and paths of files; a video stays one entry.

    Raises:
        ValueError: a folder holds no image, or an address is that of a video.
        FileNotFoundError: there is no such bucket.
    """
    if isinstance(source, list | tuple):
        return [part for one in source for part in expand(one, exclusions, without)]
    if live := live_source(source):
        return [live]
    place = located(source) if isinstance(source, str | Path | RemotePath) else None
    if isinstance(place, RemotePath):
        return _expand_remote(place, exclusions)
    if place is None or not place.is_dir():
        return [source]  # type: ignore[list-item]
    found: list[OneImage] = []
    for path in sorted(_files(place, without)):
        if path.suffix.lower() in _SUFFIXES:
            # also a link that leads nowhere, which is reported when it is read
            found.append(path)
        elif exclusions is not None:
            exclusions.add(str(path), reasons.OTHER_KIND, _of_no_kind(path.suffix))
    if not found:
        raise _no_images(place, _SUFFIXES)
    return found


def require_images(folder: Path, without: Path | None = None) -> None:
    """Check that a folder contains an image or a video; the first that is found suffices.

    Args:
        folder: the folder.
        without: a folder in it that does not count.

    Raises:
        ValueError: it contains none.
    """
    if not any(path.suffix.lower() in _SUFFIXES for path in _files(folder, without)):
        raise _no_images(folder, _SUFFIXES)


def _no_images(folder: AnyPath, suffixes: Collection[str]) -> ValueError:
    endings = ", ".join(sorted(suffixes))
    return ValueError(f"{folder}: no images in this folder; looked for {endings}")


def _of_no_kind(suffix: str) -> str:
    return f"{suffix.lower() or 'no ending'}: neither image nor video by its ending"


def _files(folder: Path, without: Path | None) -> Iterator[Path]:
    """Yield the files of a folder that are not hidden and not in another one."""
    left_out = without.resolve() if without else None
    for path in folder.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if hidden or path.is_dir() or (left_out and left_out in path.resolve().parents):
            continue
        yield path


def _expand_remote(place: RemotePath, exclusions: Exclusions | None) -> list[OneImage]:
    """Return the image of an address, or those of a folder in a store, in order."""
    if not place.is_dir():
        if is_video(place):
            raise ValueError(f"{place}: videos are read from local files; download it first")
        return [place]
    images: list[RemotePath] = []
    for name in place.names():
        if any(part.startswith(".") and part not in (".", "..") for part in name.split("/")):
            continue
        found = f"{place}/{name}"
        kind = PurePosixPath(name).suffix.lower()
        if kind in IMAGE_SUFFIXES:
            try:
                images.append(child(place, name))
                continue
            except UnusableAddress as error:
                problem = reasons.UNSAFE_PATH, str(error)
        elif kind in VIDEO_SUFFIXES:
            problem = reasons.OTHER_KIND, "videos are read from local files; download it first"
        else:
            problem = reasons.OTHER_KIND, _of_no_kind(kind)
        if exclusions is not None:
            exclusions.add(found, *problem)
    if not images:
        raise _no_images(place, IMAGE_SUFFIXES)
    return list[OneImage](sorted(images))


def count_images(entries: Sequence[OneImage]) -> int | None:
    """Return the number of images, for a progress bar.

    Args:
        entries: what `expand` returned.

    Returns:
        None when a video does not state its number of frames, or a source has no end.
    """
    total = 0
    for entry in entries:
        if isinstance(entry, LiveSource):
            return None
        frames = count_frames(Path(str(entry))) if is_video(entry) else 1
        if frames is None:
            return None
        total += frames
    return total


def read_images(
    entries: Sequence[OneImage], exclusions: Exclusions | None = None
) -> Iterator[NamedImage]:
    """Read images one by one; a video yields its frames.

    Args:
        entries: what `expand` returned.
        exclusions: receives those that cannot be read, and what is missing of videos; without it
            they end the reading.

    Yields:
        Images in order.

    Raises:
        UnreadableImage: an image or a part of a video cannot be read and there are no exclusions.
    """
    for index, entry in enumerate(entries):
        name = str(entry) if isinstance(entry, str | Path | RemotePath) else f"image-{index}"
        try:
            if isinstance(entry, LiveSource):
                name = entry.name
                for frame in read_live(entry):
                    yield NamedImage(f"{name}#{frame.number:05d}", frame.image_rgb, frame.time_s)
            elif is_video(entry):
                yield from _frames(Path(name), exclusions)
            elif isinstance(entry, str | Path | RemotePath):
                yield NamedImage(name, decode_image(located(entry)))
            else:
                yield NamedImage(name, to_rgb(entry))
        except UnreadableImage as error:
            if exclusions is None:
                raise UnreadableImage(f"{name}: {error}") from error
            reason = reasons.DAMAGED_VIDEO if is_live(entry) else reasons.DAMAGED_IMAGE
            exclusions.add(name, reason, str(error))


def _frames(path: Path, exclusions: Exclusions | None) -> Iterator[NamedImage]:
    """Yield a video's frames; missing frames are reported as they occur, `path#n` each."""
    told = 0

    def report(problem: str) -> None:
        nonlocal told
        if exclusions is None:
            raise UnreadableImage(problem)
        exclusions.add(f"{path}#damage-{told}", reasons.DAMAGED_VIDEO, problem)
        told += 1

    for frame in read_frames(path, report):
        yield NamedImage(f"{path}#{frame.number:05d}", frame.image_rgb, frame.time_s)
