"""COCO detection files of the dataset, written image by image, and a table of parameters."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import pandas as pd

from ml.labels.coco import HEAD_CATEGORY_ID, HEAD_CATEGORY_NAME
from ml.records.atomic import atomic_write, temporary_path, write_bytes
from ml.records.heads import NUM_FLAME_PARAMETERS
from ml.records.tables import Column, TableSpec, TableWriter, table_writer
from ml.release.source import DatasetItem

PARAMETERS: Final = TableSpec(
    "coco_parameters",
    (
        Column("annotation_id", "int64", "the annotation's id in the split's JSON"),
        Column("flame", "float32", "413 parameters, image frame, px", length=NUM_FLAME_PARAMETERS),
    ),
    key=("annotation_id",),
)
SPLITS: Final = ("train", "val", "test")
_PARTS: Final = ("images", "annotations")


def write_coco_export(items: Iterable[DatasetItem], root: Path) -> int:
    """Write `annotations/<split>.json`, `parameters/<split>.parquet` and `images/<split>/*.jpg`.

    A head without parameters is marked `ignore: 1, iscrowd: 1`, so that COCOeval counts it neither
    as missed nor as a false alarm; boxes are cut at the image's borders.

    Args:
        items: the samples, streamed.
        root: new folder.

    Returns:
        Number of images written.
    """
    count = 0
    stream = iter(items)
    first = next(stream, None)
    spec = _parameters(first) if first is not None else PARAMETERS
    with ExitStack() as stack:
        writers = {split: stack.enter_context(_SplitWriter(root, split, spec)) for split in SPLITS}
        for item in chain([first] if first is not None else [], stream):
            writers[item.split].add(item)
            count += 1
    return count


def _parameters(item: DatasetItem) -> TableSpec:
    """Return the table of parameters, with the derived columns that the samples carry, flat."""
    columns = (
        Column(name, "float32", "see ml.release.derived", length=int(np.prod(values.shape[1:])))
        for name, values in item.derived.items()
    )
    return PARAMETERS.extended(PARAMETERS.name, *columns)


class _SplitWriter:
    """The files of one split; the lists of the JSON grow in files of their own until the end."""

    def __init__(self, root: Path, split: str, spec: TableSpec) -> None:
        self._root, self._split, self._spec = root, split, spec
        self._num_images = self._num_boxes = 0

    def __enter__(self) -> _SplitWriter:
        self._stack = ExitStack()
        folder = self._root / "annotations"
        folder.mkdir(parents=True, exist_ok=True)
        self._target = self._stack.enter_context(atomic_write(folder / f"{self._split}.json"))
        self._paths = {part: temporary_path(folder / f"{self._split}.{part}") for part in _PARTS}
        self._files: dict[str, IO[str]] = {}
        for part, path in self._paths.items():
            self._stack.callback(path.unlink, missing_ok=True)
            self._files[part] = self._stack.enter_context(path.open("w", encoding="utf-8"))
        self._table: TableWriter = self._stack.enter_context(
            table_writer(self._root / "parameters" / f"{self._split}.parquet", self._spec)
        )
        return self

    def __exit__(self, *error: Any) -> bool | None:
        if error[0] is None:
            self._join()
        return self._stack.__exit__(*error)

    def add(self, item: DatasetItem) -> None:
        name = f"{self._split}/{item.sample_id}.jpg"
        write_bytes(self._root / "images" / name, item.jpeg)
        self._num_images += 1
        image = {
            "id": self._num_images,
            "file_name": name,
            "width": item.width,
            "height": item.height,
            "sample_id": item.sample_id,
            "shard": item.shard,
        }
        self._append("images", image, self._num_images)
        ids: list[int] = []
        for head, (box, score) in enumerate(zip(item.boxes_xyxy, item.scores, strict=True)):
            self._num_boxes += 1
            self._append("annotations", self._annotation(item, head, box, score), self._num_boxes)
            if item.flame_valid[head]:
                ids.append(self._num_boxes)
        valid = item.flame_valid
        derived = {name: list(values[valid]) for name, values in item.derived.items()}
        columns = {"annotation_id": ids, "flame": list(item.flame[valid]), **derived}
        self._table.append(pd.DataFrame(columns))

    def _annotation(
        self, item: DatasetItem, head: int, box: np.ndarray, score: np.floating
    ) -> dict[str, Any]:
        low = np.clip(box[:2], 0, [item.width, item.height])
        size = np.clip(box[2:], 0, [item.width, item.height]) - low
        ignored = int(not item.flame_valid[head])
        return {
            "id": self._num_boxes,
            "image_id": self._num_images,
            "category_id": HEAD_CATEGORY_ID,
            "bbox": [round(float(value), 3) for value in (*low, *size)],
            "area": round(float(size[0] * size[1]), 3),
            "iscrowd": ignored,
            "ignore": ignored,
            "score": round(float(score), 5),
        }

    def _append(self, part: str, value: dict[str, Any], number: int) -> None:
        self._files[part].write((",\n" if number > 1 else "") + json.dumps(value, sort_keys=True))

    def _join(self) -> None:
        """Put the JSON together from its parts, without holding it in memory."""
        head = {
            "categories": [{"id": HEAD_CATEGORY_ID, "name": HEAD_CATEGORY_NAME}],
            "info": {"description": f"heads, {self._split} split"},
        }
        with self._target.open("w", encoding="utf-8") as target:
            target.write(json.dumps(head, sort_keys=True)[:-1])
            for part in _PARTS:
                self._files[part].close()
                target.write(f',\n"{part}": [\n')
                with self._paths[part].open(encoding="utf-8") as source:
                    while chunk := source.read(1 << 20):
                        target.write(chunk)
                target.write("\n]")
            target.write("}\n")
