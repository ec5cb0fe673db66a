"""The judged tables: a stage's rows with `shard` and `row`, vectors reduced to what can be judged.

They are read without validation: it is the suite that must say what is wrong, shard and row
included. Of a table that grows with the dataset some rows are in memory at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from assets.checks.suite import Table
from ml.records.tables import TableError, open_parquet
from ml.records.workspace import Workspace

Derive = Callable[[pd.DataFrame], pd.DataFrame]

SHAPE_AND_EXPRESSION = slice(0, 400)
PIECE_ROWS = 200_000
"""Rows that are judged together: few enough for memory, enough for a small table in one piece."""
READ_ROWS = 8192
"""Rows that are read together where each has 413 numbers."""


def shard_tables(stage: str, *derive: Derive) -> Table:
    """Return a table of all given shards of a stage.

    Args:
        stage: whose `<shard>.parquet` files to read.
        derive: functions that add or replace columns, in order.
    """

    def read(ws: Workspace, shards: Sequence[str]) -> Iterator[pd.DataFrame]:
        return gathered(_with_place(ws.table_path(stage, shard), shard, derive) for shard in shards)

    return read


def one_table(stage: str, name: str, *derive: Derive) -> Table:
    """Return a table of a stage that is not sharded; the file's name replaces the shard.

    Args:
        stage: the stage.
        name: file in the stage's folder.
        derive: functions that add or replace columns, in order.
    """

    def read(ws: Workspace, shards: Sequence[str]) -> Iterator[pd.DataFrame]:
        def frames() -> Iterator[pd.DataFrame]:
            start = 0
            for frame in iter_raw(ws.stage_dir(stage) / name):
                yield _placed(frame, name, derive, start)
                start += len(frame)

        return gathered(frames())

    return read


def gathered(frames: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
    """Gather tables to pieces of `PIECE_ROWS` or a little more.

    Args:
        frames: tables of the same columns; one at least.

    Yields:
        Their rows in order.
    """
    waiting: list[pd.DataFrame] = []
    for frame in frames:
        waiting.append(frame)
        if sum(map(len, waiting)) >= PIECE_ROWS:
            yield pd.concat(waiting, ignore_index=True)
            waiting = []
    if waiting:
        yield pd.concat(waiting, ignore_index=True)


def read_raw(path: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Return an unvalidated Parquet file; vectors are lists or None.

    Args:
        path: the file.
        columns: those to read; all by default.

    Raises:
        TableError: the file is missing or damaged.
    """
    with _naming(path):
        return open_parquet(path).read(None if columns is None else list(columns)).to_pandas()


def iter_raw(path: Path) -> Iterator[pd.DataFrame]:
    """Yield a Parquet file piece by piece, at least one, as `read_raw` reads it.

    Raises:
        TableError: the file is missing or damaged.
    """
    with _naming(path):
        file = open_parquet(path)
        batches = file.iter_batches(READ_ROWS)
        while (batch := next(batches, None)) is not None:
            yield pa.Table.from_batches([batch]).to_pandas()
        if not file.metadata.num_rows:
            yield file.read().to_pandas()


def first_rows(path: Path, number: int) -> pd.DataFrame:
    """Return the first rows of a Parquet file, as `read_raw` reads them.

    Raises:
        TableError: the file is missing or damaged.
    """
    pieces: list[pd.DataFrame] = []
    for piece in iter_raw(path):
        pieces.append(piece)
        if sum(map(len, pieces)) >= number:
            break
    return pd.concat(pieces, ignore_index=True).head(number)


def rows_of_shard(path: Path, shard: str) -> pd.DataFrame:
    """Return the rows of one shard, by column `shard`; skip the row groups of others.

    Raises:
        TableError: the file is missing or damaged.
    """
    with _naming(path):
        filters = [("shard", "=", shard)]
        return pq.read_table(path, filters=filters, partitioning=None).to_pandas()


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Name the file in reading errors."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise TableError(f"{path}: not a readable Parquet file: {error}") from error


def boxes(frame: pd.DataFrame) -> pd.DataFrame:
    """Replace `bbox_xywh` by its four numbers; NaN where it is not four numbers."""
    left, top, width, height = _columns(frame["bbox_xywh"], 4).T
    return frame.drop(columns="bbox_xywh").assign(
        box_left=left, box_top=top, box_width=width, box_height=height
    )


def heads(frame: pd.DataFrame) -> pd.DataFrame:
    """Replace `flame` by columns to judge: whether it exists and is finite, its ranges."""
    present = frame["flame"].notna()
    # Imported here: it imports torch, which the declarations of checks do not need.
    from ml.flame.params import NUM_PARAMETERS, ROTATION, SCALE

    flame = _columns(frame["flame"], NUM_PARAMETERS)
    broken = present & ~np.isfinite(flame).all(axis=1)
    first, second = np.split(flame[:, ROTATION], 2, axis=1)
    return frame.drop(columns="flame").assign(
        has_flame=present,
        flame_finite=~broken,
        coefficient_max=np.abs(flame[:, SHAPE_AND_EXPRESSION]).max(axis=1),
        rotation_error=np.maximum(
            np.abs(np.linalg.norm(first, axis=1) - 1), np.abs((first * second).sum(axis=1))
        ),
        scale_px_per_m=flame[:, SCALE.start],
    )


def keypoints(frame: pd.DataFrame) -> pd.DataFrame:
    """Replace the skeletons' vectors by counts and ranges."""
    points = _columns(frame["keypoints"], 51).reshape(-1, 17, 3)
    visible = points[:, :, 2] > 0
    return frame.drop(
        columns=["keypoints", "joints_m", "head_rotation", "shift_px", "head_centre_m"]
    ).assign(
        keypoints_finite=np.isfinite(points).all(axis=(1, 2)),
        keypoints_visible=visible.sum(axis=1),
        confidence_max=points[:, :, 2].max(axis=1),
    )


def whole_pose(frame: pd.DataFrame) -> pd.DataFrame:
    """Add the number of persons of the row's pose in its shard."""
    counts = frame.groupby("pose_id")["person_id"].transform("size")
    return frame.assign(persons_listed=counts, all_listed=counts == frame["num_people"])


def texts(frame: pd.DataFrame) -> pd.DataFrame:
    """Add lengths of texts, and drop the texts."""
    return frame.assign(
        prompt_chars=frame["prompt"].str.len(), caption_chars=frame["caption"].str.len()
    ).drop(columns=["scene", "choices"])


def _with_place(path: Path, shard: str, derive: Sequence[Derive]) -> pd.DataFrame:
    return _placed(read_raw(path), shard, derive, 0)


def _placed(frame: pd.DataFrame, shard: str, derive: Sequence[Derive], start: int) -> pd.DataFrame:
    for function in derive:
        frame = function(frame)
    # Overwrites the column of the image's tar with the row's own file.
    frame = frame.drop(columns="shard", errors="ignore")
    return frame.assign(shard=shard, row=np.arange(start, start + len(frame)))


def _columns(vectors: pd.Series, length: int) -> np.ndarray:
    """Return (N, length) float64; a vector that is missing or of another length becomes NaN."""
    stacked = np.full((len(vectors), length), np.nan)
    for row, vector in enumerate(vectors):
        if vector is not None and np.ndim(vector) == 1 and len(vector) == length:
            stacked[row] = np.asarray(vector, dtype=np.float64)
    return stacked
