"""Reading videos, with frame times and damaged or missing frames, and writing them.

Read by PyAV, which reports decoding errors and timestamps. OpenCV does neither: a video that breaks
off ends there as if it had been whole, and its count of frames is a guess for some containers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ml.imaging.io import UnreadableImage
from ml.records.files import UnreadableFile, check_regular, is_environment
from ml.records.limits import MAX_IMAGE_PIXELS

if TYPE_CHECKING:
    from av.container import InputContainer, OutputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

SUFFIXES: Final = frozenset({".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".ts"})
_FORMATS: Final = "mov,avi,matroska,webm,mpegts,mpeg"
"""FFmpeg's names of containers; playlists, which name other files, are none of them."""
_CONSTANT_RATE: Final = ("avi",)
"""Containers in which every frame lasts as long as the next: there, a gap is a loss."""
_TICKS: Final = 30_000
"""Of a second, in written videos: MPEG-4 counts in 16 bits."""
_DEFAULT_RATE: Final = 25.0
_QUARTER_TURN: Final = 90


@dataclass(frozen=True)
class Frame:
    """One frame.

    Attributes:
        number: position in the video, from 0; frames that are lost are counted where that is known.
        time_s: when it is shown, seconds after the first.
        image_rgb: (H, W, 3) uint8 RGB, upright.
    """

    number: int
    time_s: float
    image_rgb: np.ndarray


def count_frames(path: Path) -> int | None:
    """Return the number of frames that a video states, for a progress bar.

    Args:
        path: the video.

    Returns:
        None when it states none, or cannot be opened.
    """
    try:
        with _opened(path) as (_, stream):
            return stream.frames or None
    except UnreadableImage:
        return None


def read_frames(path: Path, report: Callable[[str], None]) -> Iterator[Frame]:
    """Yield the frames that can be decoded, in order.

    Args:
        path: the video.
        report: called with a description of every gap: a frame that cannot be decoded, a
            gap, an end before the time.

    Yields:
        Frames; only the present one is in memory.

    Raises:
        UnreadableImage: it cannot be opened, or none of its frames can be decoded.
        ValueError: PyAV is not installed.
    """
    with _opened(path) as (container, stream):
        step = 1.0 / float(stream.average_rate or stream.guessed_rate or _DEFAULT_RATE)
        constant = container.format.name in _CONSTANT_RATE
        first: float | None = None
        number, expected = 0, 0.0
        for decoded in _decoded(container, stream, report):
            absolute = decoded.time if decoded.time is not None else expected + (first or 0.0)
            first = absolute if first is None else first
            time = absolute - first
            if constant and number and time > expected + step / 2:
                lost = round((time - expected) / step)
                report(f"{lost} frames are missing before {time:.3f} s")
                number += lost
            duration = float((decoded.duration or 0) * (decoded.time_base or 0)) or step
            yield Frame(number, time, _upright(decoded))
            number, expected = number + 1, time + duration
        if first is None:
            raise UnreadableImage("video has no frame that can be decoded")
        wanted = _duration(container, stream)
        if wanted is not None and wanted - expected > 1.5 * step:
            report(f"it ends after {expected:.3f} s of {wanted:.3f}: the film is cut")


@contextmanager
def video_writer(path: Path, rate: float) -> Iterator[Callable[[np.ndarray, float], None]]:
    """Write an MPEG-4 video whose frames keep their times.

    Args:
        path: a .mp4 file.
        rate: frames per second, as far as there is one.

    Yields:
        A function that appends an image ((H, W, 3) uint8 RGB; later ones are brought to the size of
        the first) at a time in seconds.

    Raises:
        ValueError: PyAV is not installed.
    """
    av = _av()
    container: OutputContainer = av.open(f"file:{path}", "w", format="mp4")
    state: dict[str, Any] = {"last": -1}

    def append(image_rgb: np.ndarray, time_s: float) -> None:
        height, width = image_rgb.shape[:2]
        if "stream" not in state:
            stream = container.add_stream("mpeg4", rate=Fraction(rate).limit_denominator(1001))
            # MPEG-4 halves its colours, so sides are even.
            stream.width, stream.height = width + width % 2, height + height % 2
            stream.pix_fmt, stream.bit_rate = "yuv420p", max(1_000_000, 8 * width * height)
            stream.codec_context.time_base = Fraction(1, _TICKS)
            state["stream"] = stream
        stream = state["stream"]
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image_rgb), format="rgb24")
        frame = frame.reformat(stream.width, stream.height, "yuv420p")
        state["last"] = max(state["last"] + 1, round(time_s * _TICKS))
        frame.pts, frame.time_base = state["last"], Fraction(1, _TICKS)
        container.mux(stream.encode(frame))

    try:
        yield append
        if "stream" in state:
            container.mux(state["stream"].encode(None))
    finally:
        container.close()


@contextmanager
def _opened(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    av = _av()
    try:
        check_regular(path)
        # FFmpeg could interpret parts of a name as a protocol or an image number.
        with av.logging.Capture(local=False):
            container = av.open(
                f"file:{Path(path).absolute()}",
                options={"protocol_whitelist": "file", "format_whitelist": _FORMATS},
                metadata_errors="replace",
            )
    except (UnreadableFile, av.FFmpegError, OSError, ValueError) as error:
        if is_environment(error):
            raise
        cause = getattr(error, "strerror", None) or error
        raise UnreadableImage(
            f"video {path} cannot be opened: damaged, cut, or of an unknown format ({cause})"
        ) from error
    with container:
        if not container.streams.video:
            raise UnreadableImage(f"video {path} has no images in it")
        stream = container.streams.video[0]
        if stream.codec_context is None:
            raise UnreadableImage(f"video {path}: nothing here decodes its images")
        if stream.width * stream.height > MAX_IMAGE_PIXELS:
            raise UnreadableImage(
                f"video {path} has frames of {stream.width} x {stream.height} pixels, expected at "
                f"most {MAX_IMAGE_PIXELS:,}"
            )
        # Report errors instead of concealing damage in frames.
        stream.codec_context.options = {"err_detect": "explode"}
        yield container, stream


def _decoded(
    container: InputContainer, stream: VideoStream, report: Callable[[str], None]
) -> Iterator[VideoFrame]:
    """Decode packet by packet; one that cannot be decoded is reported and skipped."""
    av = _av()
    packets = container.demux(stream)
    while True:
        try:
            with av.logging.Capture(local=False) as said:
                packet = next(packets, None)
        except (av.FFmpegError, OSError) as error:
            if is_environment(error) and not isinstance(error, av.FFmpegError):
                raise
            report(f"it cannot be read further: {error.strerror}")
            return
        for _, name, text in said:
            # The container's complaints; it continues behind the damage and raises nothing.
            if name == container.format.name:
                report(f"the file is damaged: {text.strip()}")
        if packet is None:
            return
        which = "a frame"
        if packet.pts is not None and packet.time_base is not None:
            which = f"the frame at {float(packet.pts * packet.time_base):.3f} s"
        if packet.is_corrupt:
            report(f"{which} is cut")
            continue
        try:
            with av.logging.Capture(local=False):
                frames = packet.decode()
        except (av.FFmpegError, OSError) as error:
            report(f"{which} cannot be decoded: {error.strerror}")
            continue
        for frame in frames:
            if frame.is_corrupt:
                report(f"{which} is damaged")
            elif frame.width * frame.height <= MAX_IMAGE_PIXELS:
                yield frame
            else:
                report(f"{which} has {frame.width} x {frame.height} pixels")


def _upright(frame: VideoFrame) -> np.ndarray:
    """Return a frame's pixels, rotated by the video's matrix."""
    pixels = frame.to_ndarray(format="rgb24")
    turns = round(frame.rotation / _QUARTER_TURN) % 4
    return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels


def _duration(container: InputContainer, stream: VideoStream) -> float | None:
    """Return the stated duration of the images; None if only the sound has one."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    hours, _, rest = stream.metadata.get("DURATION", "").partition(":")
    minutes, _, seconds = rest.partition(":")
    try:
        return 3600 * int(hours) + 60 * int(minutes) + float(seconds)
    except ValueError:
        pass
    if container.duration and len(container.streams) == 1:
        # In FFmpeg's microseconds.
        return container.duration / 1_000_000
    return None


def _av() -> Any:
    """Return PyAV, which logs errors and nothing less: they are captured and reported.

    Raises:
        ValueError: it is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise ValueError(
            "videos need PyAV, which is not installed: pip install 'vggheads[video]'"
        ) from error
    av.logging.set_level(av.logging.ERROR)
    return av
