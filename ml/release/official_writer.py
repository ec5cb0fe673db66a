"""Our dataset in the official layout."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from ml.records.atomic import remove, temporary_path, write_bytes, write_json, write_text
from ml.release.official import ImageLabels, encode_annotation, to_official
from ml.release.official_reader import NUM_VAL_SPLITS
from ml.release.source import DatasetItem

IMAGES_PER_SPLIT = 10_000


class OfficialWriter:
    """Writes samples into `large/split_*`; a split folder appears when it is complete.

    Val samples go to the two splits on which the official training validates, train samples to the
    others, test samples to `test/split_*` next to `large`, where no official script looks.
    """

    def __init__(self, root: Path, images_per_split: int = IMAGES_PER_SPLIT) -> None:
        """Choose where to write.

        Args:
            root: new folder.
            images_per_split: images in a split folder; all that are left go to the last of val.
        """
        self._root, self._size = root, images_per_split
        self._next = {"train": NUM_VAL_SPLITS, "val": 0, "test": 0}
        self._open: dict[str, _Split] = {}

    def add(self, item: DatasetItem) -> None:
        """Write one image and its annotation.

        Args:
            item: the sample.
        """
        split = self._open.get(item.split)
        full = split is not None and split.count >= self._size
        last_val = item.split == "val" and self._next["val"] >= NUM_VAL_SPLITS
        if split is None or (full and not last_val):
            self._close(item.split)
            base = self._root / ("test" if item.split == "test" else "large")
            split = _Split(base / f"split_{self._next[item.split]:05d}")
            self._next[item.split] += 1
            self._open[item.split] = split
        split.add(item)

    def close(self) -> None:
        """Complete the open splits; val always has its two, for the official loader lists both."""
        for name in ("val", "train", "test"):
            self._close(name)
        while self._next["val"] < NUM_VAL_SPLITS:
            _Split(self._root / "large" / f"split_{self._next['val']:05d}").close()
            self._next["val"] += 1

    def _close(self, name: str) -> None:
        if name in self._open:
            self._open.pop(name).close()


class _Split:
    """One split folder while it is being written, under a hidden name."""

    def __init__(self, folder: Path) -> None:
        self.count = 0
        self._folder = folder
        self._temporary = temporary_path(folder)
        remove(self._temporary)
        self._metrics: list[dict[str, str | int | float | None]] = []
        for name in ("images", "annotations"):
            (self._temporary / name).mkdir(parents=True, exist_ok=True)

    def add(self, item: DatasetItem) -> None:
        labels = ImageLabels(item.boxes_xyxy, item.flame, item.flame_valid)
        heads = to_official(labels, item.width, item.height)
        name = item.sample_id
        write_bytes(self._temporary / "images" / f"{name}.jpg", item.jpeg)
        derived = {key: values[item.flame_valid] for key, values in item.derived.items()}
        annotation = encode_annotation(heads, derived)
        write_bytes(self._temporary / "annotations" / f"{name}.npz", annotation)
        self._metrics.append(
            {
                "filename": f"{name}.jpg",
                "num_heads": len(item),
                "stability_metric": item.stability,
            }
        )
        self.count += 1

    def close(self) -> None:
        # Removed images are not written, so there is nothing to skip.
        write_text(self._temporary / "files.txt", "")
        write_json(self._temporary / "metrics.json", self._metrics)
        remove(self._folder)
        os.replace(self._temporary, self._folder)


def write_official(
    items: Iterable[DatasetItem], root: Path, images_per_split: int = IMAGES_PER_SPLIT
) -> int:
    """Write a dataset in the official layout, streaming.

    Args:
        items: the samples.
        root: new folder.
        images_per_split: images in a split folder.

    Returns:
        Number of images written.
    """
    writer = OfficialWriter(root, images_per_split)
    count = 0
    for item in items:
        writer.add(item)
        count += 1
    writer.close()
    return count
