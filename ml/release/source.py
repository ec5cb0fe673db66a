"""Our filtered dataset as a stream of samples: images as encoded, with their heads."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ml.records import reasons
from ml.records.exclusions import Exclusions
from ml.records.heads import NUM_FLAME_PARAMETERS
from ml.records.shards import DamagedSample, ShardReader
from ml.records.tables import (
    CAPTIONS,
    DATASET_HEADS,
    IMAGES,
    VERDICTS,
    TableError,
    iter_table,
    read_table,
)
from ml.records.workspace import Workspace
from ml.takedown.removal import hash_id, taken_down

STAGE = "filtered_dataset"


@dataclass(frozen=True)
class DatasetItem:
    """An image of the dataset and its heads.

    Attributes:
        sample_id: the image's id.
        split: train, val or test.
        shard: the tar shard it comes from.
        width: px.
        height: px.
        jpeg: the encoded image, as generated.
        boxes_xyxy: (N, 4) float32, px.
        scores: (N,) float32, the detector's.
        flame: (N, 413) float32, image frame, px; zeros where not valid.
        flame_valid: (N,) bool; False for heads too small to be labelled.
        prompt: what the image was made from; empty when unknown.
        stability: mean best IoU with the mirrored detections; None when not measured.
        derived: name -> (N, ...) float32, see `ml.release.derived`; NaN where not valid.
    """

    sample_id: str
    split: str
    shard: str
    width: int
    height: int
    jpeg: bytes
    boxes_xyxy: NDArray[np.float32]
    scores: NDArray[np.float32]
    flame: NDArray[np.float32]
    flame_valid: NDArray[np.bool_]
    prompt: str = ""
    stability: float | None = None
    derived: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.boxes_xyxy)


def iter_dataset(
    ws: Workspace, exclusions: Exclusions, splits: Sequence[str] = ("train", "val", "test")
) -> Iterator[DatasetItem]:
    """Stream the kept images in order; memory holds one shard's tables and one image.

    An image that is missing, cut or not the one the images table names becomes an exclusion.

    Args:
        ws: the workspace; reads `filtered_dataset`, `images` and, where there are any, `captions`.
        exclusions: receives what cannot be read.
        splits: which splits to give.

    Yields:
        The samples, shard by shard.

    Raises:
        FileNotFoundError: the dataset has not been made.
        TableError: the heads are not in the order of the verdicts.
    """
    folder = ws.stage_dir(STAGE)
    verdicts = read_table(folder / "verdicts.parquet", VERDICTS)
    kept = verdicts[verdicts["keep"]]
    heads = _HeadStream(folder / "heads.parquet")
    barred = taken_down(ws.root)
    for shard, rows in kept.groupby("shard", sort=False):
        images = read_table(ws.table_path("images", str(shard)), IMAGES).set_index("sample_id")
        prompts = _prompts(ws, str(shard))
        with ShardReader(ws.stage_dir("images") / f"{shard}.tar") as reader:
            for sample_id, split, stability in rows[["sample_id", "split", "stability"]].itertuples(
                index=False
            ):
                mine = heads.take(sample_id)
                if split not in splits:
                    continue
                if barred and hash_id(sample_id) in barred:
                    exclusions.add(
                        sample_id, reasons.TAKEN_DOWN, f"{sample_id} is listed in takedowns.json"
                    )
                    continue
                try:
                    jpeg = _checked_image(reader, sample_id, images)
                except DamagedSample as error:
                    exclusions.add(sample_id, reasons.DAMAGED_IMAGE, str(error))
                    continue
                size = images.loc[sample_id]
                yield DatasetItem(
                    sample_id,
                    split,
                    str(shard),
                    int(size["width"]),
                    int(size["height"]),
                    jpeg,
                    *head_arrays(mine),
                    prompt=prompts.get(sample_id, ""),
                    stability=None if pd.isna(stability) else float(stability),
                )
    heads.check_finished()


def count_kept(ws: Workspace, splits: Sequence[str]) -> int:
    """Return how many images `iter_dataset` would give if none were damaged."""
    verdicts = read_table(ws.stage_dir(STAGE) / "verdicts.parquet", VERDICTS)
    return int((verdicts["keep"] & verdicts["split"].isin(list(splits))).sum())


def head_arrays(
    rows: pd.DataFrame,
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
    """Return rows of one image as arrays.

    Args:
        rows: columns of `HEADS`.

    Returns:
        (N, 4) boxes xyxy, (N,) scores, (N, 413) parameters, (N,) whether they are valid.
    """
    count = len(rows)
    boxes, flame = (
        np.zeros((count, 4), np.float32),
        np.zeros((count, NUM_FLAME_PARAMETERS), np.float32),
    )
    valid = (rows["flame_status"] == "ok").to_numpy(dtype=bool)
    for row, (box, parameters) in enumerate(zip(rows["bbox_xywh"], rows["flame"], strict=True)):
        boxes[row] = box
        if valid[row]:
            flame[row] = parameters
    boxes[:, 2:] += boxes[:, :2]
    return boxes, rows["score"].to_numpy(dtype=np.float32), flame, valid


def _checked_image(reader: ShardReader, sample_id: str, images: pd.DataFrame) -> bytes:
    """Return the encoded image, compared with the images table."""
    if sample_id not in images.index:
        raise DamagedSample(reader.path, sample_id, "not in the images table")
    jpeg = reader.read(sample_id)
    found, expected = hashlib.sha256(jpeg).hexdigest(), images.loc[sample_id, "sha256"]
    if found != expected:
        detail = f".jpg has sha256 {found[:12]}, expected {str(expected)[:12]} as in the table"
        raise DamagedSample(reader.path, sample_id, detail)
    return jpeg


def _prompts(ws: Workspace, shard: str) -> dict[str, str]:
    path = ws.table_path("captions", shard)
    if not path.exists():
        return {}
    captions = read_table(path, CAPTIONS)
    return dict(zip(captions["sample_id"], captions["prompt"], strict=True))


class _HeadStream:
    """The heads table read piece by piece, handed out image by image."""

    def __init__(self, path: Path, batch_rows: int = 4096) -> None:
        self._path = path
        read: Callable[..., Iterator[pd.DataFrame]] = iter_table
        self._pieces = read(path, DATASET_HEADS, batch_rows)
        self._rows = pd.DataFrame({"sample_id": []})
        self._start = 0

    def take(self, sample_id: str) -> pd.DataFrame:
        """Return the next rows, as far as they are this image's."""
        parts = []
        while self._fill():
            ids = self._rows["sample_id"].to_numpy()[self._start :]
            others = np.flatnonzero(ids != sample_id)
            count = int(others[0]) if len(others) else len(ids)
            if count:
                parts.append(self._rows.iloc[self._start : self._start + count])
                self._start += count
            if len(others):
                break
        if not parts:
            return pd.DataFrame({c.name: [] for c in DATASET_HEADS.columns})
        return pd.concat(parts, ignore_index=True) if len(parts) > 1 else parts[0]

    def check_finished(self) -> None:
        """Refuse rows that no image took.

        Raises:
            TableError: the order of the heads is not that of the verdicts.
        """
        if self._fill():
            left = self._rows["sample_id"].iloc[self._start]
            raise TableError(
                f"{DATASET_HEADS.name}: {self._path} holds heads of {left!r} where no kept image "
                "is left to have them; rerun the stage filtered_dataset"
            )

    def _fill(self) -> bool:
        """Read the next piece when this one is used up; whether there are rows."""
        while self._start >= len(self._rows):
            piece = next(self._pieces, None)
            if piece is None:
                return False
            self._rows, self._start = piece, 0
        return True
