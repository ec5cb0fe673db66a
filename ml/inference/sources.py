"""Where images come from: arrays, PIL images, files, folders, videos, cameras and streams."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias, Union

import numpy as np

from ml.imaging.io import SUFFIXES as IMAGE_SUFFIXES
from ml.imaging.io import UnreadableImage, decode_image, to_rgb
from ml.inference.live import LiveSource, live_source, read_live
from ml.inference.videos import SUFFIXES as VIDEO_SUFFIXES
from ml.inference.videos import count_frames, read_frames
from ml.records import reasons
from ml.records.exclusions import Exclusions

if TYPE_CHECKING:
    from PIL import Image

OneImage: TypeAlias = Union[np.ndarray, str, Path, LiveSource, "Image.Image"]
Source: TypeAlias = OneImage | Sequence[OneImage]
_SUFFIXES: Final = IMAGE_SUFFIXES | VIDEO_SUFFIXES


@dataclass(frozen=True)
class NamedImage:
    """An image and its name.

    Attributes:
        name: path as it was given or found, `image-3`, or `clip.mp4#00012`.
        image_rgb: (H, W, 3) uint8 RGB.
        time_s: of a frame of a video or a live source, seconds after the first.
    """

    name: str
    image_rgb: np.ndarray
    time_s: float | None = None


def is_video(source: object) -> bool:
    """Return whether a source is the path of a video."""
    return isinstance(source, str | Path) and Path(source).suffix.lower() in VIDEO_SUFFIXES


def is_live(source: object) -> bool:
    """Return whether a source is a camera or a stream, which has no end."""
    return isinstance(source, LiveSource) or live_source(source) is not None


def is_single(source: Source) -> bool:
    """Return whether a source is one image and not several."""
    if is_live(source):
        return False
    if isinstance(source, str | Path):
        return not (Path(source).is_dir() or is_video(source))
    return not isinstance(source, list | tuple)


def expand(
    source: Source, exclusions: Exclusions | None = None, without: Path | None = None
) -> list[OneImage]:
    """Return the images and videos of a source.

    A folder becomes its images and videos, in order of their paths.

    Args:
        source: an image, a path, or several of them.
        exclusions: receives files of a folder that are neither, hidden ones apart, and links that
            lead nowhere.
        without: a folder to skip, so that outputs are not read as inputs.

    Returns:
        Images and paths of files; a video stays one entry.

    Raises:
        ValueError: a folder holds no image.
    """
    if isinstance(source, list | tuple):
        return [part for one in source for part in expand(one, exclusions, without)]
    if live := live_source(source):
        return [live]
    if not (isinstance(source, str | Path) and Path(source).is_dir()):
        return [source]  # type: ignore[list-item]
    require_images(Path(source), without)
    found: list[OneImage] = []
    for path in sorted(_files(Path(source), without)):
        if path.suffix.lower() in _SUFFIXES:
            # also a link that leads nowhere, which is reported when it is read
            found.append(path)
        elif exclusions is not None:
            kind = path.suffix.lower() or "no ending"
            exclusions.add(
                str(path), reasons.OTHER_KIND, f"{kind}: neither image nor video by its ending"
            )
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
        endings = ", ".join(sorted(_SUFFIXES))
        raise ValueError(f"{folder}: no images in this folder; looked for {endings}")


def _files(folder: Path, without: Path | None) -> Iterator[Path]:
    """Yield the files of a folder that are not hidden and not in another one."""
    left_out = without.resolve() if without else None
    for path in folder.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if hidden or path.is_dir() or (left_out and left_out in path.resolve().parents):
            continue
        yield path


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
        name = str(entry) if isinstance(entry, str | Path) else f"image-{index}"
        try:
            if isinstance(entry, LiveSource):
                name = entry.name
                for frame in read_live(entry):
                    yield NamedImage(f"{name}#{frame.number:05d}", frame.image_rgb, frame.time_s)
            elif is_video(entry):
                yield from _frames(Path(name), exclusions)
            elif isinstance(entry, str | Path):
                yield NamedImage(name, decode_image(Path(entry)))
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
