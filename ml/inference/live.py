"""Cameras and network streams: the newest frame each time, however long the last one took."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import cv2
import numpy as np

from ml.imaging.io import UnreadableImage
from ml.inference.options import STREAMS

_CAMERA: Final = re.compile(r"\d{1,3}")
_PATIENCE_S: Final = 15.0
"""Longest silence of a source: cameras start for seconds, streams wait for a key frame."""


@dataclass(frozen=True)
class LiveSource:
    """A source that does not end by itself.

    Attributes:
        address: the number of a camera, or a stream's address.
        name: name of its results; without the user and password of an address.
    """

    address: int | str
    name: str


@dataclass(frozen=True)
class LiveFrame:
    """One frame.

    Attributes:
        number: position among the frames that came, from 0; those that were not looked at, because
            the one before took too long, are counted.
        time_s: arrival time, seconds after the first.
        image_rgb: (H, W, 3) uint8 RGB.
    """

    number: int
    time_s: float
    image_rgb: np.ndarray


def live_source(text: object) -> LiveSource | None:
    """Return the live source that a command-line argument denotes.

    Args:
        text: `0` for the first camera, unless a file is called so; `rtsp://host/path` and such.

    Returns:
        None when it is neither.
    """
    if not isinstance(text, str):
        return None
    if _CAMERA.fullmatch(text) and not Path(text).exists():
        return LiveSource(int(text), f"camera-{int(text)}")
    parts = urlsplit(text) if "://" in text else None
    if parts is None or parts.scheme not in STREAMS:
        return None
    place = f"{parts.hostname or 'any'}{parts.path.replace('/', '-')}"
    return LiveSource(text, f"{parts.scheme}-{place}")


def read_live(source: LiveSource, patience_s: float = _PATIENCE_S) -> Iterator[LiveFrame]:
    """Yield frames as they come; those that come while the caller is busy are passed over.

    Args:
        source: camera or stream.
        patience_s: silence after which it counts as ended, seconds.

    Yields:
        Frames, the newest each time.

    Raises:
        UnreadableImage: it cannot be opened, or gave no frame.
    """
    capture = cv2.VideoCapture(source.address)
    if not capture.isOpened():
        capture.release()
        raise UnreadableImage(
            f"{source.name} cannot be opened: is it there, does it need a password, is another "
            "program using it?"
        )
    newest = _Newest(capture)
    try:
        seen = -1
        while (frame := newest.after(seen, patience_s)) is not None:
            seen = frame.number
            yield frame
        if seen < 0:
            raise UnreadableImage(f"{source.name} gave no image in {patience_s:g} s")
    finally:
        newest.stop()


class _Newest:
    """Reads all the time in a thread, and keeps the last frame."""

    def __init__(self, capture: cv2.VideoCapture) -> None:
        self._capture = capture
        self._changed = threading.Condition()
        self._frame: LiveFrame | None = None
        self._ended = False
        self._wanted = True
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        number, began = 0, 0.0
        while self._wanted:
            there, image_bgr = self._capture.read()
            if not there:
                break
            now = time.monotonic()
            began = began or now
            rgb = cv2.cvtColor(image_bgr, cv2.COLOR_BGR2RGB)
            with self._changed:
                self._frame = LiveFrame(number, now - began, rgb)
                self._changed.notify_all()
            number += 1
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def after(self, number: int, patience_s: float) -> LiveFrame | None:
        """Return a frame later than `number`; None at the end, or after so long a silence."""

        def newer() -> bool:
            return self._frame is not None and self._frame.number > number

        with self._changed:
            self._changed.wait_for(lambda: newer() or self._ended, patience_s)
            return self._frame if newer() else None

    def stop(self) -> None:
        """End the reading; a source that is silent is left to its thread."""
        self._wanted = False
        self._thread.join(1.0)
        if not self._thread.is_alive():
            self._capture.release()
