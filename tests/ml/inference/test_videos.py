"""Films whole, cut, damaged, of odd rates, turned; and films written with the times they had."""

from __future__ import annotations

import re
import shutil
import sys
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from ml.imaging.io import UnreadableImage
from ml.inference.videos import _decoded, count_frames, read_frames, video_writer

av = pytest.importorskip("av")
FRAMES = 60
FORMS = {
    "a.mp4": ("mpeg4", {"movflags": "faststart"}),
    "b.avi": ("mjpeg", {}),
    "c.mkv": ("mpeg4", {}),
    "d.webm": ("libvpx", {}),
    "e.mov": ("mjpeg", {"movflags": "faststart"}),
}


def write(
    path: Path,
    codec: str,
    options: dict[str, str],
    frames: int = FRAMES,
    left_out: range = range(0),
) -> None:
    """A film of noise that moves, at 25 frames a second, some of which are not written."""
    rng = np.random.default_rng(0)
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height = 160, 120
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for number in range(frames):
            image = np.full((120, 160, 3), 4 * number, np.uint8)
            image[number : number + 40, 20:100] = rng.integers(0, 255, (40, 80, 3))
            packets = stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24"))
            if number not in left_out:
                container.mux(packets)
        container.mux(stream.encode(None))


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    for name, (codec, options) in FORMS.items():
        write(folder / name, codec, options)
    return folder


def read(path: Path):
    problems: list[str] = []
    return list(read_frames(path, problems.append)), problems


@pytest.mark.parametrize("name", FORMS)
def test_a_whole_film_gives_all_its_frames_and_no_complaint(films: Path, name: str) -> None:
    frames, problems = read(films / name)
    assert problems == []
    assert [frame.number for frame in frames] == list(range(FRAMES))
    assert [frame.time_s for frame in frames] == pytest.approx(np.arange(FRAMES) / 25, abs=2e-3)
    assert frames[30].image_rgb.shape == (120, 160, 3)
    assert abs(int(frames[30].image_rgb[5, 150, 0]) - 120) < 12
    assert count_frames(films / name) in (FRAMES, None)


INDEXED = ("a.mp4", "b.avi", "e.mov")
"""Containers that state where every frame ends, so that the frame that is cut is known."""


@pytest.mark.parametrize("name", FORMS)
def test_a_film_that_is_cut_says_so(films: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    whole = (films / name).read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 5])
    frames, problems = read(path)
    assert 5 < len(frames) < 40
    if name in INDEXED:
        assert any(re.match(r"the frame at 0\.\d+ s is cut", problem) for problem in problems)
    assert "the film is cut" in problems[-1]


@pytest.mark.parametrize("name", FORMS)
def test_a_hole_in_a_film_is_told_of_and_the_rest_is_read(
    films: Path, tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    data = bytearray((films / name).read_bytes())
    start, length = len(data) // 2, len(data) // 12
    data[start : start + length] = bytes(length)
    path.write_bytes(data)
    frames, problems = read(path)
    assert 20 < len(frames) < FRAMES
    assert problems
    if FORMS[name][0] == "mpeg4":
        # Neither patched together from other frames nor shown with what is damaged in them.
        assert any("cannot be decoded" in problem for problem in problems)
        assert any(re.match(r"the frame at \d\.\d+ s is damaged", problem) for problem in problems)


def test_a_pause_of_a_film_with_times_of_its_own_is_no_loss(tmp_path: Path) -> None:
    write(tmp_path / "c.mkv", *FORMS["c.mkv"], left_out=range(20, 25))
    frames, problems = read(tmp_path / "c.mkv")
    assert [p for p in problems if "missing" in p] == []
    assert [frame.number for frame in frames] == list(range(len(frames)))
    assert max(b.time_s - a.time_s for a, b in pairwise(frames)) > 0.2


class Packets:
    """A container whose packets are what a test says: a packet, or an error of the demuxer."""

    def __init__(self, *packets: object) -> None:
        self.format = SimpleNamespace(name="mov")
        self._packets = packets

    def demux(self, _stream: object):
        for packet in self._packets:
            if isinstance(packet, Exception):
                raise packet
            yield packet


def test_an_end_by_an_error_of_the_container_is_told(films: Path) -> None:
    frame = SimpleNamespace(is_corrupt=False, width=8, height=8)
    huge = SimpleNamespace(is_corrupt=False, width=10**5, height=10**5)
    packet = SimpleNamespace(
        pts=50, time_base=Fraction(1, 25), is_corrupt=False, decode=lambda: [frame, huge]
    )
    problems: list[str] = []
    error = av.error.InvalidDataError(1, "broken")
    assert list(_decoded(Packets(packet, error), None, problems.append)) == [frame]
    assert problems == [
        "the frame at 2.000 s has 100000 x 100000 pixels", "it cannot be read further: broken"
    ]  # fmt: skip


def test_frames_above_the_limit_are_refused_by_the_header(
    films: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ml.inference.videos.MAX_IMAGE_PIXELS", 160 * 120 - 1)
    with pytest.raises(UnreadableImage, match="frames of 160 x 120 pixels, expected at most"):
        read(films / "a.mp4")


def test_frames_that_were_never_written_are_counted_where_every_frame_lasts_as_long(
    tmp_path: Path,
) -> None:
    write(tmp_path / "b.avi", *FORMS["b.avi"], left_out=range(20, 25))
    frames, problems = read(tmp_path / "b.avi")
    assert problems == ["5 frames are missing before 1.000 s"]
    assert [frame.number for frame in frames] == [*range(20), *range(25, FRAMES)]


@pytest.mark.parametrize("content", [b"", b"no film", bytes(5000), b"RIFF\0\0\0\0AVI LIST"])
def test_what_is_no_film_cannot_be_opened(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.mp4").write_bytes(content)
    with pytest.raises(UnreadableImage, match=r"x\.mp4 (cannot be opened|has no images)"):
        read(tmp_path / "x.mp4")
    with pytest.raises(UnreadableImage, match="cannot be opened"):
        read(tmp_path)
    assert count_frames(tmp_path / "x.mp4") is None


def test_a_film_in_an_unknown_code_is_unreadable(films: Path, tmp_path: Path) -> None:
    path = tmp_path / "c.mkv"
    content = (films / "c.mkv").read_bytes()
    assert b"V_MPEG4/ISO/ASP" in content
    path.write_bytes(content.replace(b"V_MPEG4/ISO/ASP", b"V_MPEG9/ISO/ASP"))
    with pytest.raises(UnreadableImage, match="nothing here decodes its images"):
        read(path)


@pytest.mark.parametrize(
    "content",
    [
        "#EXTM3U\n#EXTINF:2.4,\na.mp4\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile a.mp4\n",
    ],
)
def test_a_playlist_that_names_other_files_is_no_film(
    films: Path, tmp_path: Path, content: str
) -> None:
    shutil.copy(films / "a.mp4", tmp_path)
    playlist = tmp_path / "x.mp4"
    playlist.write_text(content)
    with pytest.raises(UnreadableImage, match="cannot be opened"):
        read(playlist)


def test_the_film_s_matrix_turns_its_frames(films: Path, tmp_path: Path) -> None:
    data = bytearray((films / "a.mp4").read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    fixed = lambda *values: b"".join(int(v).to_bytes(4, "big", signed=True) for v in values)  # noqa: E731
    assert data[at : at + 36] == fixed(65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30)
    data[at : at + 36] = fixed(0, 65536, 0, -65536, 0, 0, 120 * 65536, 0, 1 << 30)
    (tmp_path / "turned.mp4").write_bytes(data)
    frames, _ = read(tmp_path / "turned.mp4")
    plain, _ = read(films / "a.mp4")
    np.testing.assert_array_equal(frames[9].image_rgb, np.rot90(plain[9].image_rgb, -1))


@pytest.mark.parametrize("name", ["film.mp4", "a:b 100%03d #ü.mp4"])
def test_written_frames_keep_their_times_in_any_name(tmp_path: Path, name: str) -> None:
    times = [0.0, 0.04, 0.08, 0.5, 0.54, 2.0]
    with video_writer(tmp_path / name, 25.0) as append:
        for number, time in enumerate(times):
            append(np.full((33, 47, 3), 40 * number, np.uint8), time)
    frames, problems = read(tmp_path / name)
    assert problems == []
    assert [frame.time_s for frame in frames] == pytest.approx(times, abs=1e-3)
    assert frames[0].image_rgb.shape == (34, 48, 3)
    assert abs(int(frames[4].image_rgb[10, 10, 1]) - 160) < 8


def test_a_relative_name_is_no_protocol(
    films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with video_writer(Path("concat:b.mp4"), 25.0) as append:
        append(np.zeros((32, 32, 3), np.uint8), 0.0)
    assert (tmp_path / "concat:b.mp4").stat().st_size > 0
    assert len(read(Path("concat:b.mp4"))[0]) == 1


def test_without_pyav_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ValueError, match=r"pip install 'vggheads\[video\]'"):
        read(tmp_path / "x.mp4")
