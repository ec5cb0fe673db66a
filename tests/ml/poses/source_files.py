"""Source images as folders and as img2dataset's tars, whole and malformed."""

from __future__ import annotations

import io
import json
import struct
import tarfile
import zlib
from pathlib import Path

import numpy as np

from ml.imaging.io import encode_jpeg, encode_png

SECRET_URL = "https://images.example/alice-in-her-garden.jpg"
SECRET_CAPTION = "Alice Example of 12 Garden Lane"


def image(seed: int = 0, height: int = 96, width: int = 80) -> np.ndarray:
    """Coloured blocks."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8)
    return np.kron(blocks, np.ones((16, 16, 1), np.uint8))


def jpeg(seed: int = 0, height: int = 96, width: int = 80) -> bytes:
    return encode_jpeg(image(seed, height, width), 90)


def png_bomb(side: int = 50_000) -> bytes:
    """A PNG of a few hundred bytes that states billions of pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    data = zlib.compress(b"\0" * 10_000)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def note(label: str | None = "UNLIKELY", **values: object) -> bytes:
    """img2dataset's JSON beside an image."""
    about = {"url": SECRET_URL, "caption": SECRET_CAPTION, "status": "success", **values}
    if label is not None:
        about["NSFW"] = label
    return json.dumps(about).encode()


def write_tar(path: Path, members: list[tuple[str, bytes]]) -> Path:
    """A tar of the given members, in order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def sample(key: str, data: bytes, about: bytes, extension: str = "jpg") -> list[tuple[str, bytes]]:
    """The three members of an img2dataset sample."""
    return [
        (f"{key}.{extension}", data),
        (f"{key}.json", about),
        (f"{key}.txt", SECRET_CAPTION.encode()),
    ]


def write_png(path: Path, seed: int, height: int, width: int) -> None:
    """An image file, with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_png(image(seed, height, width)))
