"""WebDataset shards of the dataset: tar files that stream over a network without an index."""

from __future__ import annotations

import io
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from ml.records.shards import ShardWriter, shard_writer
from ml.release.source import DatasetItem

IMAGES_PER_SHARD = 1000


def write_webdataset(
    items: Iterable[DatasetItem], root: Path, images_per_shard: int = IMAGES_PER_SHARD
) -> int:
    """Write `<split>-00000.tar`, ...: a sample is `.jpg`, `.json` (boxes, scores, prompt), `.npy`.

    `.flame.npy` holds (N, 413) float32, image frame, px, NaN for heads without parameters; so do
    the derived arrays, `.landmarks.npy` and the like.

    Args:
        items: the samples, streamed.
        root: new folder.
        images_per_shard: images in a tar.

    Returns:
        Number of images written.
    """
    count = 0
    with ExitStack() as stack:
        splits: dict[str, _SplitShards] = {}
        for item in items:
            if item.split not in splits:
                splits[item.split] = _SplitShards(root, item.split, images_per_shard)
                stack.push(splits[item.split].finish)
            splits[item.split].add(item)
            count += 1
    return count


class _SplitShards:
    """The open shard of one split."""

    def __init__(self, root: Path, split: str, size: int) -> None:
        self._root, self._split, self._size = root, split, size
        self._count = 0
        self._open = ExitStack()
        self._writer: ShardWriter | None = None

    def add(self, item: DatasetItem) -> None:
        if self._writer is None or self._count % self._size == 0:
            self._open.close()
            number = self._count // self._size
            path = self._root / f"{self._split}-{number:05d}.tar"
            self._writer = self._open.enter_context(shard_writer(path))
        self._writer.add(item.sample_id, _members(item))
        self._count += 1

    def finish(self, kind: object, error: object, trace: object) -> None:
        """Close the last shard; after an error it does not appear."""
        self._open.__exit__(kind, error, trace)  # type: ignore[arg-type]


def _npy(values: np.ndarray) -> bytes:
    array = io.BytesIO()
    np.save(array, values.astype(np.float32))
    return array.getvalue()


def _members(item: DatasetItem) -> dict[str, bytes | dict[str, object]]:
    flame = np.where(item.flame_valid[:, None], item.flame, np.float32(np.nan))
    return {
        "jpg": item.jpeg,
        "flame.npy": _npy(flame),
        **{f"{name}.npy": _npy(values) for name, values in item.derived.items()},
        "json": {
            "sample_id": item.sample_id,
            "split": item.split,
            "width": item.width,
            "height": item.height,
            "boxes_xyxy": [[round(float(v), 3) for v in box] for box in item.boxes_xyxy],
            "scores": [round(float(v), 5) for v in item.scores],
            "has_parameters": [bool(v) for v in item.flame_valid],
            "prompt": item.prompt,
        },
    }
