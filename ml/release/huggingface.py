"""Parquet files that Hugging Face's `datasets` loads as they are, with the dataset card.

Nothing of that library is needed to write them: an image is a struct of bytes and path, and the
schema's metadata says so in the library's own words.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ml.records.atomic import atomic_write
from ml.records.heads import NUM_FLAME_PARAMETERS
from ml.release.source import DatasetItem

IMAGES_PER_FILE = 5000
ROWS_PER_GROUP = 100
"""Images are large: small row groups let readers start without the whole file."""

_SCHEMA = pa.schema(
    [
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("sample_id", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("prompt", pa.string()),
        ("boxes_xyxy", pa.list_(pa.list_(pa.float32(), 4))),
        ("scores", pa.list_(pa.float32())),
        ("flame", pa.list_(pa.list_(pa.float32(), NUM_FLAME_PARAMETERS))),
        ("has_parameters", pa.list_(pa.bool_())),
    ]
)


def _feature(kind: str) -> dict[str, Any]:
    return {"dtype": kind, "_type": "Value"}


def _list(feature: dict[str, Any], length: int = -1) -> dict[str, Any]:
    return {"feature": feature, "length": length, "_type": "List"}


_FEATURES = {
    "image": {"_type": "Image"},
    "sample_id": _feature("string"),
    "width": _feature("int32"),
    "height": _feature("int32"),
    "prompt": _feature("string"),
    "boxes_xyxy": _list(_list(_feature("float32"), 4)),
    "scores": _list(_feature("float32")),
    "flame": _list(_list(_feature("float32"), NUM_FLAME_PARAMETERS)),
    "has_parameters": _list(_feature("bool")),
}


def write_huggingface(
    items: Iterable[DatasetItem], root: Path, images_per_file: int = IMAGES_PER_FILE
) -> int:
    """Write `data/<split>-00000.parquet`, ...

    Args:
        items: the samples, streamed.
        root: new folder; `export` puts the card into it as README.md.
        images_per_file: images in a file.

    Returns:
        Number of images written.
    """
    count = 0
    with ExitStack() as stack:
        splits: dict[str, _SplitFiles] = {}
        for item in items:
            if item.split not in splits:
                splits[item.split] = _SplitFiles(root / "data", item.split, images_per_file, item)
                stack.push(splits[item.split].finish)
            splits[item.split].add(item)
            count += 1
    return count


def card_front_matter(splits: Sequence[str]) -> dict[str, Any]:
    """Return what the card's front matter must say so that the hub finds the files.

    Args:
        splits: the splits written.

    Returns:
        The key `configs`.
    """
    named = {"val": "validation"}
    files = [{"split": named.get(s, s), "path": f"data/{s}-*.parquet"} for s in splits]
    return {"configs": [{"config_name": "default", "data_files": files}]}


class _SplitFiles:
    """The open file of one split, and the rows of its next row group."""

    def __init__(self, folder: Path, split: str, size: int, first: DatasetItem) -> None:
        self._folder, self._split, self._size = folder, split, size
        self._count = 0
        self._rows: list[dict[str, Any]] = []
        self._open = ExitStack()
        self._writer: pq.ParquetWriter | None = None
        # Derived arrays are lists of flat numbers: readers give them the shape that the card names.
        lengths = {name: int(np.prod(v.shape[1:])) for name, v in first.derived.items()}
        features = dict(_FEATURES)
        schema = _SCHEMA
        for name, length in lengths.items():
            features[name] = _list(_list(_feature("float32"), length))
            schema = schema.append(pa.field(name, pa.list_(pa.list_(pa.float32(), length))))
        metadata = {"huggingface": json.dumps({"info": {"features": features}})}
        self._schema = schema.with_metadata(metadata)

    def add(self, item: DatasetItem) -> None:
        if self._writer is None or self._count % self._size == 0:
            self._close()
            number = self._count // self._size
            path = self._folder / f"{self._split}-{number:05d}.parquet"
            temporary = self._open.enter_context(atomic_write(path))
            self._writer = self._open.enter_context(
                # Images are compressed already.
                pq.ParquetWriter(temporary, self._schema, compression="none")
            )
        self._rows.append(_row(item))
        self._count += 1
        if len(self._rows) == ROWS_PER_GROUP:
            self._flush()

    def finish(self, kind: object, error: object, trace: object) -> None:
        """Close the last file; after an error it does not appear."""
        if kind is None:
            self._flush()
        self._open.__exit__(kind, error, trace)  # type: ignore[arg-type]

    def _close(self) -> None:
        self._flush()
        self._open.close()

    def _flush(self) -> None:
        if self._rows and self._writer is not None:
            self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
            self._rows = []


def _row(item: DatasetItem) -> dict[str, Any]:
    flame = np.where(item.flame_valid[:, None], item.flame, np.float32(np.nan))
    return {
        "image": {"bytes": item.jpeg, "path": f"{item.sample_id}.jpg"},
        "sample_id": item.sample_id,
        "width": item.width,
        "height": item.height,
        "prompt": item.prompt,
        "boxes_xyxy": item.boxes_xyxy.tolist(),
        "scores": item.scores.tolist(),
        "flame": flame.tolist(),
        "has_parameters": item.flame_valid.tolist(),
        **{name: [head.ravel() for head in values] for name, values in item.derived.items()},
    }
