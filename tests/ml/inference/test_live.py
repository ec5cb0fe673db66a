"""Cameras and streams: their names, the newest frame each time, and an end."""

from __future__ import annotations

import json
import socket
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from ml.imaging.io import UnreadableImage
from ml.inference import live
from ml.inference.live import LiveSource, live_source, read_live
from tests.ml.inference.test_cli import run


def test_what_is_live_and_what_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert live_source("0") == LiveSource(0, "camera-0")
    (tmp_path / "0").write_text("a file")
    assert live_source("0") is None
    found = live_source("rtsp://me:secret@host:554/a/b")
    assert found == LiveSource("rtsp://me:secret@host:554/a/b", "rtsp-host-a-b")
    for other in ("photo.jpg", "12345", "https://example.org/a.jpg", tmp_path, None):
        assert live_source(other) is None


class Camera:
    """Gives numbered grey frames as fast as it is read, then ends."""

    def __init__(self, frames: int, pause_s: float) -> None:
        self.left, self.pause_s, self.given = frames, pause_s, 0

    def isOpened(self) -> bool:
        return True

    def read(self) -> tuple[bool, np.ndarray | None]:
        if self.given == self.left:
            return False, None
        time.sleep(self.pause_s)
        self.given += 1
        image_bgr = np.zeros((4, 4, 3), np.uint8)
        image_bgr[..., 0] = self.given
        return True, image_bgr

    def release(self) -> None:
        self.left = 0


def test_a_slow_reader_sees_the_newest_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live.cv2, "VideoCapture", lambda address: Camera(30, 0.005))
    seen = []
    for frame in read_live(LiveSource(0, "camera-0"), 2.0):
        # Blue of OpenCV's BGR is the last channel of RGB.
        assert frame.image_rgb[0, 0].tolist() == [0, 0, frame.number + 1]
        seen.append(frame)
        time.sleep(0.03)
    numbers = [frame.number for frame in seen]
    assert numbers == sorted(set(numbers))
    assert numbers[-1] == 29
    assert len(numbers) < 25
    times = [frame.time_s for frame in seen]
    assert times[0] >= 0
    assert times == sorted(times)


def test_a_source_that_is_not_there_or_silent_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnreadableImage, match="camera-99 cannot be opened"):
        next(read_live(LiveSource(99, "camera-99")))
    monkeypatch.setattr(live.cv2, "VideoCapture", lambda address: Camera(0, 0.0))
    with pytest.raises(UnreadableImage, match="camera-0 gave no image in 2 s"):
        next(read_live(LiveSource(0, "camera-0"), 2.0))


def test_predict_looks_at_a_stream(project: Path, tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    stop = threading.Event()

    def send() -> None:
        rng = np.random.default_rng(0)
        with av.open(f"udp://127.0.0.1:{port}?pkt_size=1316", "w", format="mpegts") as container:
            stream = container.add_stream("mpeg2video", rate=25)
            stream.width, stream.height, stream.pix_fmt = 96, 96, "yuv420p"
            while not stop.is_set():
                pixels = rng.integers(0, 256, (96, 96, 3), dtype=np.uint8)
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                container.mux(stream.encode(frame))
                time.sleep(0.01)

    sender = threading.Thread(target=send)
    sender.start()
    try:
        out = tmp_path / "out"
        address = f"udp://127.0.0.1:{port}"
        words = ("--checkpoint", project / "trained_model", "--output", out, "--frames", 3)
        assert run("predict", address, *words, "--draw", "bbox", "--device", "cpu") == 0
    finally:
        stop.set()
        sender.join()
    lines = (out / "udp-127.0.0.1" / "heads.jsonl").read_text().splitlines()
    images = [json.loads(line)["image"] for line in lines]
    assert len(images) == 3
    assert all(image["name"].startswith("udp-127.0.0.1#") for image in images)
    assert (out / "udp-127.0.0.1" / "drawing.mp4").stat().st_size > 0
    assert cv2.VideoCapture(str(out / "udp-127.0.0.1" / "drawing.mp4")).isOpened()
