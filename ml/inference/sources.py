"""Where images come from: arrays, PIL images, files, folders, videos."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, Union

import cv2
import numpy as np

from ml.imaging.io import UnreadableImage, decode_image, to_rgb
from ml.records.exclusions import Exclusions

if TYPE_CHECKING:
    from PIL import Image

OneImage: TypeAlias = Union[np.ndarray, str, Path, "Image.Image"]
Source: TypeAlias = OneImage | Sequence[OneImage]

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
VIDEO_SUFFIXES = frozenset({".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v"})
UNREADABLE = "unreadable image"
"""Reason in the exclusions."""


@dataclass(frozen=True)
class NamedImage:
    """An image and what to call it.

    Attributes:
        name: path relative to the folder it came from, file name, or `image-3`, `clip-00012`.
        image_rgb: (H, W, 3) uint8 RGB.
    """

    name: str
    image_rgb: np.ndarray


def is_video(source: object) -> bool:
    """Whether a source is the path of a video."""
    return isinstance(source, str | Path) and Path(source).suffix.lower() in VIDEO_SUFFIXES


def is_single(source: Source) -> bool:
    """Whether a source is one image and not several."""
    if isinstance(source, str | Path):
        return not (Path(source).is_dir() or is_video(source))
    return not isinstance(source, list | tuple)


def expand(source: Source) -> list[OneImage]:
    """What a source consists of; a folder becomes its images, in order of their paths.

    Args:
        source: an image, a path, or several of them.

    Returns:
        Images and paths of files; a video stays one entry.

    Raises:
        ValueError: a folder holds no image.
    """
    if isinstance(source, list | tuple):
        return [part for one in source for part in expand(one)]
    if isinstance(source, str | Path) and Path(source).is_dir():
        found: list[OneImage] = [
            path
            for path in sorted(Path(source).rglob("*"))
            if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()
        ]
        if not found:
            endings = ", ".join(sorted(IMAGE_SUFFIXES))
            raise ValueError(f"{source}: no images in this folder; looked for {endings}")
        return found
    return [source]  # type: ignore[list-item]


def read_images(
    entries: Sequence[OneImage], exclusions: Exclusions | None = None
) -> Iterator[NamedImage]:
    """Read images one after the other; a video gives its frames.

    Args:
        entries: what `expand` returned.
        exclusions: receives those that cannot be read; without it they end the reading.

    Yields:
        Images in order.

    Raises:
        UnreadableImage: an image or video cannot be read and there are no exclusions.
    """
    for index, entry in enumerate(entries):
        name = str(entry) if isinstance(entry, str | Path) else f"image-{index}"
        try:
            if is_video(entry):
                yield from _frames(Path(name))
            elif isinstance(entry, str | Path):
                yield NamedImage(name, decode_image(Path(entry)))
            else:
                yield NamedImage(name, to_rgb(entry))
        except UnreadableImage as error:
            if exclusions is None:
                raise UnreadableImage(f"{name}: {error}") from error
            exclusions.add(name, UNREADABLE, str(error))


def video_info(path: Path) -> tuple[int, float]:
    """Frames (0 if the file does not say) and frames per second (25 if it does not say).

    Args:
        path: a video.

    Returns:
        Number of frames as the file states it, and frames per second.

    Raises:
        UnreadableImage: it cannot be opened.
    """
    capture = _open(path)
    try:
        count = max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        rate = float(capture.get(cv2.CAP_PROP_FPS))
        return count, rate if np.isfinite(rate) and rate > 0 else 25.0
    finally:
        capture.release()


def _frames(path: Path) -> Iterator[NamedImage]:
    capture = _open(path)
    try:
        number = 0
        while True:
            there, frame = capture.read()
            if not there:
                break
            yield NamedImage(f"{path}#{number:05d}", cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
            number += 1
    finally:
        capture.release()
    if number == 0:
        raise UnreadableImage("video has no frame that can be decoded")


def _open(path: Path) -> cv2.VideoCapture:
    if not path.is_file():
        raise UnreadableImage(f"no video file {path}")
    capture = cv2.VideoCapture(str(path))
    if not capture.isOpened():
        raise UnreadableImage(f"video {path} cannot be opened: damaged, or of an unknown format")
    return capture
