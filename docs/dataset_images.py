"""Sheets of images and of dense ground truth, for README and docs/dense.md.

    python -m docs.dataset_images --project .
    vggheads generate --images 5 --output faces --depth --normals --segmentation --uv --pncc
    python -m docs.dataset_images --dense faces

The first shows images of a finished demo, the second the maps of generated ones. Look at what it
made before you commit it.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from ml.imaging.grids import contact_sheet
from ml.imaging.io import decode_image, encode_jpeg
from ml.records.atomic import write_bytes
from ml.records.shards import ShardReader

FOLDER: Final = Path(__file__).parent / "images"
_CELL_PX: Final = 180
_GAZE: Final = 0.12
"""Length of the drawn gaze, of the image's side."""
_PALETTE: Final = np.array(
    [(0, 0, 0), (250, 195, 165), (230, 80, 60), (250, 250, 250), (90, 60, 40), (60, 170, 90),
     (80, 120, 240), (120, 90, 60), (240, 200, 40), (150, 150, 150)], np.uint8
)  # fmt: skip
"""Colours of the segmentation's classes, in order."""

Image = NDArray[np.uint8]


def images(project: Path, count: int = 24) -> Image:
    """Return the first images of a finished demo as a sheet, uint8 RGB.

    Args:
        project: the folder with `data/`.
        count: how many.
    """
    cells: list[Image] = []
    for tar, name in islice(_names(project / "data" / "images"), count):
        with ShardReader(tar) as reader:
            cells.append(decode_image(reader.read(name)))
    return contact_sheet(cells, 6, 256)


def dense(folder: Path, count: int = 5) -> Image:
    """Return generated images, each with its maps in a row, uint8 RGB.

    Args:
        folder: what `vggheads generate` wrote, with depth, normals, segmentation, UV and PNCC.
        count: how many images.
    """
    cells: list[Image] = []
    for tar, name in islice(_names(folder / "data" / "images"), count):
        with ShardReader(tar) as reader:
            image = decode_image(reader.read(name))
            maps = np.load(io.BytesIO(reader.read(name, "dense.npz")))
            heads = json.loads(reader.read(name, "heads.json"))["heads"]
            cells += [image, _marked(image, heads), *_coloured(maps)]
    return contact_sheet(cells, 7, _CELL_PX)


def _names(folder: Path) -> Iterator[tuple[Path, str]]:
    """Yield the tar and the id of every sample."""
    for tar in sorted(folder.glob("shard-*.tar")):
        with ShardReader(tar) as reader:
            names = reader.keys()
        yield from ((tar, name) for name in names)


def _marked(image: Image, heads: list[Mapping[str, Any]]) -> Image:
    """Return the image with landmarks, green where visible, and gaze."""
    drawn = image.copy()
    side = len(image)
    for head in heads:
        points = np.array(head["landmarks_px"])
        for point, seen in zip(points, head["landmarks_visible"], strict=True):
            colour = (0, 255, 0) if seen else (255, 0, 0)
            cv2.circle(drawn, tuple(point.astype(int)), side // 160, colour, -1)
        eyes = points[36:48].mean(axis=0)
        end = eyes + _GAZE * side * np.array(head["gaze"][:2])
        start, end = (tuple(p.astype(int).tolist()) for p in (eyes, end))
        cv2.line(drawn, start, end, (255, 220, 0), max(side // 160, 1))
    return drawn


def _coloured(maps: Mapping[str, np.ndarray]) -> list[Image]:
    """Return depth (near is light), normals, segmentation, UV and PNCC as colours."""
    depth = maps["depth"].astype(np.float32)
    there = np.isfinite(depth)
    near, far = float(depth[there].min()), float(depth[there].max())
    light = np.where(there, 255 - 190 * (depth - near) / max(far - near, 1e-6), 0)
    uv = np.nan_to_num(maps["uv"].astype(np.float32))
    uv = np.dstack([255 * (uv - uv.min()) / max(float(np.ptp(uv)), 1e-6), np.zeros(uv.shape[:2])])
    return [
        np.repeat(light[..., None], 3, axis=2).astype(np.uint8),
        (127.5 + 127.5 * maps["normals"].astype(np.float32) * (1, -1, -1)).astype(np.uint8),
        _PALETTE[maps["segmentation"]],
        np.where(np.isnan(maps["uv"][..., :1]), 0, uv).astype(np.uint8),
        maps["pncc"],
    ]


def main() -> None:
    """Write the sheets that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--project", type=Path, help="a finished demo")
    parser.add_argument("--dense", type=Path, help="a folder of `vggheads generate`")
    options = parser.parse_args()
    if options.project:
        write_bytes(FOLDER / "generated.jpg", encode_jpeg(images(options.project), 85))
    if options.dense:
        write_bytes(FOLDER / "dense.jpg", encode_jpeg(dense(options.dense), 85))


if __name__ == "__main__":
    main()
