"""Small files that claim to be large: written by hand, for no library makes them."""

from __future__ import annotations

import io
import pickle
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np

from ml.imaging.io import encode_jpeg


def png(
    width: int, height: int, colour: int = 0, bits: int = 1, transparent: bool = False
) -> bytes:
    """A PNG of zeros: a few kilobytes for any size."""
    channels = {0: 1, 2: 3, 3: 1, 6: 4}[colour]
    row = b"\0" + bytes((width * channels * bits + 7) // 8)
    packer = zlib.compressobj(1)
    # Many rows at once, for the sake of speed; the rest one by one.
    many = row * 500
    packed = [packer.compress(many) for _ in range(height // 500)]
    packed += [packer.compress(row * (height % 500)), packer.flush()]
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    chunks = [(b"IHDR", header)]
    if colour == 3:
        chunks.append((b"PLTE", bytes(6)))
    if transparent:
        chunks.append((b"tRNS", b"\0" if colour == 3 else bytes(2 * min(channels, 3))))
    chunks += [(b"IDAT", b"".join(packed)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def jpeg(width: int, height: int) -> bytes:
    """A whole JPEG of 16 px whose header claims another size."""
    data = bytearray(encode_jpeg(np.zeros((16, 16, 3), np.uint8)))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def gif(width: int, height: int) -> bytes:
    """A GIF of 1 px on a canvas of another size."""
    canvas = struct.pack("<HH", width, height)
    return (
        b"GIF89a" + canvas + b"\x80\0\0" + bytes(6)
        + b"," + struct.pack("<HHHH", 0, 0, 1, 1) + b"\0\x02\x02D\x01\0;"
    )  # fmt: skip


def bmp(width: int, height: int) -> bytes:
    """The header of a BMP, and one byte."""
    about = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + about + b"\0"


def zip_bomb(name: str, size: int, beside: dict[str, bytes] | None = None) -> bytes:
    """A zip whose one member is zeros, packed."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for other, data in (beside or {}).items():
            archive.writestr(other, data)
        with archive.open(name, "w", force_zip64=True) as member:
            block = bytes(16 << 20)
            for start in range(0, size, len(block)):
                member.write(block[: min(len(block), size - start)])
    return out.getvalue()


def lying_npy(shape: tuple[int, ...]) -> bytes:
    """An npz whose array claims a shape and has eight bytes."""
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}"
    header += " " * (-(len(header) + 11) % 64) + "\n"
    body = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + bytes(8)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in ("bbox", "extended_bbox", "3dmm_params", "lmk_face_idx", "lmk_b_coords"):
            archive.writestr(f"{name}.npy", body)
    return out.getvalue()


def memo_bomb() -> bytes:
    """Ten bytes for which the unpickler makes room for two thousand million objects."""
    return b"\x80\x02}r" + struct.pack("<I", 2**31 - 1) + b"."


def torch_zip(content: bytes, storages: dict[str, bytes]) -> bytes:
    """A checkpoint as torch.save lays it out, around any pickle."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        for key, data in storages.items():
            archive.writestr(f"archive/data/{key}", data)
    return out.getvalue()


def sparse_tar(path: Path, name: str, size: int) -> None:
    """A tar of two kilobytes with a member that claims a size; its content is one hole."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo(name)
        info.pax_headers = {
            "GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.map": f"{size},0",
            "GNU.sparse.size": str(size), "GNU.sparse.name": name,
        }  # fmt: skip
        tar.addfile(info)


def doubling_list(depth: int = 60) -> bytes:
    """A pickled list that is small in memory and has 2**depth items when written out."""
    value: list[object] = [0]
    for _ in range(depth):
        value = [value, value]
    return pickle.dumps(value, protocol=2)
