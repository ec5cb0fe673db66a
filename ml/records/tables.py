"""The tables of the pipeline: columns with dtype and unit, declared once, validated on write.

One Parquet file per stage and shard. A float vector column is a list column in the file and a
numpy array in each row of the data frame; `stack` makes one array of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ml.records.atomic import atomic_write
from ml.records.files import check_regular, is_environment
from ml.records.heads import NUM_FLAME_PARAMETERS
from ml.records.limits import MAX_TABLE_BYTES, check_limit
from ml.records.remote import AnyPath, RemotePath, located
from ml.records.workspace import Workspace

Kind = Literal["str", "bool", "int8", "int16", "int32", "int64", "float32", "float64"]
_ARROW = {
    "str": pa.string(),
    "bool": pa.bool_(),
    "int8": pa.int8(),
    "int16": pa.int16(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "float32": pa.float32(),
    "float64": pa.float64(),
}


@dataclass(frozen=True)
class Column:
    """A declared column.

    Attributes:
        name: the column's name.
        kind: the scalar type, also of a vector's elements.
        doc: meaning, with unit and frame.
        length: number of elements of a vector column, None for a scalar.
        nullable: whether a value may be missing.
        choices: the allowed values of a string column, empty for any.
    """

    name: str
    kind: Kind
    doc: str
    length: int | None = None
    nullable: bool = False
    choices: tuple[str, ...] = ()

    @property
    def arrow_type(self) -> pa.DataType:
        """The column's type in the Parquet file."""
        scalar = _ARROW[self.kind]
        return scalar if self.length is None else pa.list_(scalar, self.length)


@dataclass(frozen=True)
class TableSpec:
    """A declared table: its name, its columns in order, and the columns that name a row."""

    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]

    @property
    def schema(self) -> pa.Schema:
        """The Parquet schema."""
        return pa.schema([pa.field(c.name, c.arrow_type, c.nullable) for c in self.columns])

    def extended(self, name: str, *columns: Column) -> TableSpec:
        """Return this table with more columns, under another name."""
        return TableSpec(name, self.columns + columns, self.key)

    def with_columns(self, names: Sequence[str]) -> TableSpec:
        """Return this table with some of its columns, in its order."""
        return replace(self, columns=tuple(c for c in self.columns if c.name in names))


class TableError(ValueError):
    """A table does not fit its declaration; the message names table, row, column and value."""


_SPLIT = Column(
    "split", "str", "train, val or test; fixed by the pose", choices=("train", "val", "test")
)
_SAMPLE = Column("sample_id", "str", "the image's id")
_HEAD_ID = Column("head_id", "int16", "number of the head in its image")
_BBOX = Column("bbox_xywh", "float32", "left, top, width, height; image px", length=4)

POSES = TableSpec(
    "poses",
    (
        Column("pose_id", "str", "the pose's id; several images may share it"),
        Column("person_id", "int16", "number of the person in the pose"),
        _SPLIT,
        Column("width", "int16", "image width, px"),
        Column("height", "int16", "image height, px"),
        Column("num_people", "int16", "persons in the pose"),
        Column("layout", "str", "how the sampler placed the people; empty of estimated poses"),
        Column("depth", "int16", "order from the camera, 0 nearest"),
        Column("keypoints", "float32", "COCO-17: x px, y px, confidence", length=51),
        Column(
            "joints_m", "float32", "COCO-17 in 3D, image axes, metres", length=51, nullable=True
        ),
        Column(
            "head_rotation", "float32", "3x3, FLAME frame to image axes", length=9, nullable=True
        ),
        Column("scale_px_per_m", "float32", "weak-perspective scale", nullable=True),
        Column(
            "shift_px",
            "float32",
            "image position of the joints' origin, px",
            length=2,
            nullable=True,
        ),
        Column(
            "head_centre_m",
            "float32",
            "FLAME origin in the joints' frame, m",
            length=3,
            nullable=True,
        ),
    ),
    key=("pose_id", "person_id"),
)
POSE_SOURCES = TableSpec(
    "pose_sources",
    (
        Column("pose_id", "str", "the pose that was estimated"),
        _SPLIT,
        Column("description", "str", "neutral words for what the source showed"),
        Column("captioner", "str", "which describer, with the version of its model"),
        Column("estimator", "str", "which estimator, with the versions of its models"),
        Column("source", "str", "the source's name in the asset register"),
        Column(
            "image_sha256", "str", "of the source's bytes, so that its owner can have it removed"
        ),
        Column("url_sha256", "str", "of the source's address, for the same; empty without one"),
    ),
    key=("pose_id",),
)
CAPTIONS = TableSpec(
    "captions",
    (
        _SAMPLE,
        Column("pose_id", "str", "the pose it describes"),
        _SPLIT,
        Column("num_people", "int16", "persons in the pose"),
        Column("caption", "str", "the captioner's words"),
        Column("prompt", "str", "the final prompt"),
        Column("negative_prompt", "str", "negative prompt of the generator"),
        Column("choices", "str", "every choice of the prompt rewriting, JSON"),
        Column("scene", "str", "the described scene, JSON; see ml.captions.scene"),
        Column("captioner", "str", "which captioner"),
        Column("seed", "int64", "the image's seed"),
    ),
    key=("sample_id",),
)
IMAGES = TableSpec(
    "images",
    (
        _SAMPLE,
        Column("pose_id", "str", "the pose it was made from"),
        _SPLIT,
        Column("shard", "str", "the tar shard that holds it"),
        Column("width", "int16", "px"),
        Column("height", "int16", "px"),
        Column("offset", "int64", "first byte of the image in the tar"),
        Column("size", "int64", "bytes of the encoded image"),
        Column("sha256", "str", "of the encoded image"),
        Column("seed", "int64", "the image's seed"),
        Column("generator", "str", "which generator"),
        Column("num_people", "int16", "persons asked for"),
        Column("mean_luma", "float32", "mean brightness, 0 to 255"),
    ),
    key=("sample_id",),
)
TRUTH = TableSpec(
    "truth",
    (
        _SAMPLE,
        _HEAD_ID,
        Column("person_id", "int16", "the person in the pose"),
        _SPLIT,
        _BBOX,
        Column(
            "visible", "float32", "fraction of the head's own pixels in front that are seen, 0 to 1"
        ),
        Column("inside", "float32", "fraction of the head inside the image, 0 to 1"),
        Column(
            "flame",
            "float32",
            "413 parameters, image frame, px; see ml.flame.params",
            length=NUM_FLAME_PARAMETERS,
        ),
        Column("skin_tone", "int8", "Monk scale, 1 to 10"),
        Column("hair_style", "str", "from ml.captions.scene"),
        Column("glasses", "str", "from ml.captions.scene"),
        Column("hat", "str", "from ml.captions.scene"),
        Column("head_model", "str", "sha256 of the head model"),
    ),
    key=("sample_id", "head_id"),
)
HEADS = TableSpec(
    "annotations",
    (
        _SAMPLE,
        _HEAD_ID,
        _SPLIT,
        _BBOX,
        Column("score", "float32", "detector's confidence, 0 to 1"),
        Column(
            "flame",
            "float32",
            "413 parameters, image frame, px",
            length=NUM_FLAME_PARAMETERS,
            nullable=True,
        ),
        Column(
            "flame_status",
            "str",
            "ok, or why there are no parameters: small (below the size that can be labelled), "
            "non_finite, bad_fit (the regressor failed; see the exclusions)",
            choices=("ok", "small", "non_finite", "bad_fit"),
        ),
        Column("head_model", "str", "sha256 of the head model"),
        Column("teacher", "str", "name and sha256 of detector and regressor"),
        Column("threshold", "float32", "detector's score threshold"),
        Column(
            "source", "str", "where the label comes from", choices=("rendered", "pseudo", "manual")
        ),
    ),
    key=("sample_id", "head_id"),
)
ANNOTATED_IMAGES = TableSpec(
    "annotated_images",
    (
        _SAMPLE,
        _SPLIT,
        Column("num_heads", "int16", "heads found in the image, 0 for none"),
    ),
    key=("sample_id",),
)
VERDICTS = TableSpec(
    "verdicts",
    (
        _SAMPLE,
        _SPLIT,
        Column("shard", "str", "the tar shard that holds the image"),
        Column("keep", "bool", "whether the image stays in the dataset"),
        Column("reason", "str", "keep, or the first rule that removed it"),
        Column("detail", "str", "the numbers behind the verdict"),
        Column("num_heads", "int16", "heads detected"),
        Column("num_heads_flipped", "int16", "heads detected on the mirrored image"),
        Column("num_heads_halves", "int16", "heads detected on both parts; -1 when not cut"),
        Column("num_faces_missed", "int16", "faces without any head; -1 when no face detector ran"),
        Column("stability", "float32", "mean best IoU with the mirrored detections", nullable=True),
    ),
    key=("sample_id",),
)
TRAINING_SAMPLES = TableSpec(
    "training_samples",
    (
        Column("sample_id", "str", "an image or crop that a training used"),
        Column("split", "str", "train or val", choices=("train", "val")),
    ),
    key=("sample_id",),
)
EXCLUSIONS = TableSpec(
    "exclusions",
    (
        Column("sample_id", "str", "what was excluded"),
        Column("stage", "str", "by which stage"),
        Column("reason", "str", "one word or two, the same for the same cause"),
        Column("detail", "str", "where, expected, got"),
    ),
    key=("sample_id", "stage", "detail"),
)
CROPS = TableSpec(
    "crops",
    (
        Column("crop_id", "str", "the crop's id"),
        Column("split", "str", "train or val", choices=("train", "val")),
        Column("shard", "str", "the tar shard that holds it"),
        Column("width", "int16", "px"),
        Column("height", "int16", "px"),
        _BBOX,
        Column("flame", "float32", "413 parameters, crop frame, px", length=NUM_FLAME_PARAMETERS),
        Column("visible", "float32", "fraction of the head that is seen, 0 to 1"),
        Column("seed", "int64", "the crop's seed"),
    ),
    key=("crop_id",),
)
DATASET_HEADS = HEADS.extended(
    "filtered_dataset", Column("shard", "str", "the tar shard of the image")
)


def write_table(path: Path, frame: pd.DataFrame, spec: TableSpec) -> None:
    """Validate a table and write it atomically; equal tables give equal bytes.

    Args:
        path: the Parquet file.
        frame: columns of `spec` in any order; no others.
        spec: the declaration.

    Raises:
        TableError: a column is missing or unknown, or a value does not fit.
    """
    table = _to_arrow(frame, spec)
    with atomic_write(path) as temporary:
        pq.write_table(table, temporary, compression="zstd", store_schema=False)


SAMPLES_NAME = "samples.parquet"
"""In a training's folder: the images or crops that it used."""


def write_samples(folder: Path, train: Sequence[str], val: Sequence[str]) -> None:
    """Write the ids that a training used, for its account.

    Args:
        folder: of the stage.
        train: ids that it was trained on.
        val: ids that it was validated on.
    """
    split = ["train"] * len(train) + ["val"] * len(val)
    rows = pd.DataFrame({"sample_id": [*train, *val], "split": split})
    write_table(folder / SAMPLES_NAME, rows, TRAINING_SAMPLES)


# Errors of pyarrow on damaged bytes, and of the conversion on columns of another type.
_DAMAGE = (
    pa.ArrowException,
    OSError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    OverflowError,
)


class TableWriter:
    """Appends validated rows to an open table; see `table_writer`."""

    def __init__(self, writer: pq.ParquetWriter, spec: TableSpec, group_rows: int = 0) -> None:
        """Take over an open Parquet file."""
        self._writer, self._spec, self._group_rows = writer, spec, group_rows
        self._waiting: list[pd.DataFrame] = []
        self._num_waiting = 0
        self._is_empty = True

    def append(self, frame: pd.DataFrame) -> None:
        """Validate rows and write them, as one row group unless rows are gathered.

        Args:
            frame: columns of the table's declaration; keys are unique within a row group.

        Raises:
            TableError: a column is missing or unknown, or a value does not fit.
        """
        if len(frame):
            self._waiting.append(frame)
            self._num_waiting += len(frame)
        if self._num_waiting > self._group_rows:
            self._write(pd.concat(self._waiting, ignore_index=True))

    def finish(self) -> None:
        """Write the rows that were gathered last; of gathered rows none are a row group, too."""
        if self._waiting:
            self._write(pd.concat(self._waiting, ignore_index=True))
        elif self._is_empty and self._group_rows:
            self._write(empty_table(self._spec))

    def _write(self, frame: pd.DataFrame) -> None:
        self._writer.write_table(_to_arrow(frame, self._spec))
        self._waiting, self._num_waiting, self._is_empty = [], 0, False


@contextmanager
def table_writer(path: Path, spec: TableSpec, group_rows: int = 0) -> Iterator[TableWriter]:
    """Open a table to be written piece by piece, larger than memory; atomic as `write_table`.

    Args:
        path: the Parquet file.
        spec: the declaration.
        group_rows: gather rows until there are more than so many; a table of no more has the bytes
            that `write_table` gives it.

    Yields:
        The writer.
    """
    with (
        atomic_write(path) as temporary,
        pq.ParquetWriter(temporary, spec.schema, compression="zstd", store_schema=False) as writer,
    ):
        rows = TableWriter(writer, spec, group_rows)
        yield rows
        rows.finish()


def read_table(path: AnyPath | str, spec: TableSpec) -> pd.DataFrame:
    """Read a table that `write_table` wrote.

    Args:
        path: the Parquet file, or its address (`s3://bucket/table.parquet`).
        spec: the declaration.

    Raises:
        FileNotFoundError: there is no such file.
        TableError: the file is damaged or has other columns.
        StoreUnavailable: a store cannot be read.
    """
    path = located(path)
    with _open_table(path, spec) as file, _reading(path, spec):
        _check_size(file.metadata, range(file.num_row_groups))
        return _to_frame(file.read(), spec)


def iter_table(
    path: AnyPath | str,
    spec: TableSpec,
    batch_rows: int = 4096,
    sample_ids: pd.Index | None = None,
    columns: Sequence[str] | None = None,
) -> Iterator[pd.DataFrame]:
    """Read a table that `write_table` wrote piece by piece, for tables larger than memory.

    Args:
        path: the Parquet file, or its address, of which row groups are read one by one.
        spec: the declaration.
        batch_rows: most rows of a piece.
        sample_ids: read the rows of these samples alone; an index, since it is searched for every
            piece.
        columns: read these alone; all by default.

    Yields:
        Rows in the order of the file.

    Raises:
        FileNotFoundError: there is no such file.
        TableError: the file is damaged or has other columns.
    """
    path = located(path)
    shown = spec if columns is None else spec.with_columns(columns)
    with _open_table(path, spec) as file, _reading(path, spec):
        for batch in file.iter_batches(batch_rows, columns=[c.name for c in shown.columns]):
            table = pa.Table.from_batches([batch])
            if sample_ids is not None:
                # Before anything is made Python's: of 20 rows one is in a split for validation.
                ids = pd.Index(table.column("sample_id").to_pylist(), dtype=object)
                table = table.filter(pa.array(sample_ids.get_indexer(ids) >= 0))
            yield _to_frame(table, shown)


class RowGroups:
    """Row groups of some tables of one declaration, read one at a time and by columns.

    Picklable: no file stays open.
    """

    def __init__(self, paths: Sequence[AnyPath], spec: TableSpec) -> None:
        """List them.

        Args:
            paths: the Parquet files.
            spec: their declaration.

        Raises:
            FileNotFoundError: there is no such file.
            TableError: a file is damaged or has other columns.
        """
        self._spec = spec
        self._places: list[tuple[AnyPath, int]] = []
        for path in paths:
            with _open_table(path, spec) as file:
                self._places += [(path, group) for group in range(file.num_row_groups)]

    def __len__(self) -> int:
        return len(self._places)

    def read(self, group: int, columns: Sequence[str]) -> pd.DataFrame:
        """Return some columns of a row group.

        Args:
            group: its number, counted over all files.
            columns: names of columns.

        Raises:
            TableError: the file is damaged.
        """
        path, number = self._places[group]
        with _open_table(path, self._spec) as file, _reading(path, self._spec):
            _check_size(file.metadata, [number])
            table = file.read_row_group(number, list(columns))
            return _to_frame(table, self._spec.with_columns(columns))


def open_parquet(path: AnyPath) -> pq.ParquetFile:
    """Open a Parquet file so that it can be read piece by piece.

    By default pyarrow (25.0) buffers every row group that is read and keeps it until the file is
    closed: a training on labels of 3.7 GB had 10.5 GB resident.
    """
    if isinstance(path, RemotePath):
        return pq.ParquetFile(path.open(), pre_buffer=False)
    return pq.ParquetFile(path, pre_buffer=False)


def table_rows(path: AnyPath | str, spec: TableSpec) -> int:
    """Return the number of rows of a table without reading them.

    Args:
        path: the Parquet file.
        spec: the declaration.

    Raises:
        FileNotFoundError: there is no such file.
        TableError: the file is damaged or has other columns.
    """
    with _open_table(located(path), spec) as file:
        return int(file.metadata.num_rows)


def read_stage(
    ws: Workspace, stage: str, spec: TableSpec, shards: Sequence[str] | None = None
) -> pd.DataFrame:
    """Read the shards of a stage (default: all of the workspace), concatenated in order.

    Raises:
        FileNotFoundError: a shard is missing.
    """
    names = ws.shards if shards is None else shards
    frames = [read_table(ws.table_path(stage, shard), spec) for shard in names]
    if not frames:
        return empty_table(spec)
    return pd.concat(frames, ignore_index=True)


def empty_table(spec: TableSpec) -> pd.DataFrame:
    """Return a table without rows, with the declared columns."""
    table = spec.schema.empty_table()
    return pd.DataFrame({c.name: _from_arrow(table.column(c.name), c) for c in spec.columns})


def stack(column: pd.Series) -> np.ndarray:
    """Stack a vector column into one (N, length) array; (0, 0) when there are no rows."""
    return np.stack(list(column)) if len(column) else np.zeros((0, 0), np.float32)


def _open_table(path: AnyPath, spec: TableSpec) -> pq.ParquetFile:
    """Open a Parquet file whose columns are the declared ones."""
    if isinstance(path, RemotePath):
        path.stat()  # whose error says whether a bucket or a file is missing
    elif not path.exists():
        raise FileNotFoundError(f"{spec.name}: no table at {path}; materialise its stage first")
    try:
        check_regular(path)
        file = open_parquet(path)
    except _DAMAGE as error:
        if is_environment(error):
            raise
        raise TableError(f"{spec.name}: {path} is not a readable Parquet file: {error}") from error
    expected, got = [c.name for c in spec.columns], file.schema_arrow.names
    if got != expected:
        file.close()
        raise TableError(f"{spec.name}: {path} has columns {got}, expected {expected}")
    return file


@contextmanager
def _reading(path: AnyPath, spec: TableSpec) -> Iterator[None]:
    """Name the table in errors of damaged bytes."""
    try:
        yield
    except _DAMAGE as error:
        if is_environment(error):
            raise
        raise TableError(f"{spec.name}: {path} cannot be read to its end: {error}") from error


def _check_size(about: pq.FileMetaData, groups: Iterable[int]) -> None:
    """Refuse row groups that claim too many values; repeated ones take memory too."""
    values = sum(
        about.row_group(group).column(column).num_values
        for group in groups
        for column in range(about.num_columns)
    )
    check_limit(8 * values, MAX_TABLE_BYTES, f"bytes for its {values:,} values")


def _to_frame(table: pa.Table, spec: TableSpec) -> pd.DataFrame:
    return pd.DataFrame({c.name: _from_arrow(table.column(c.name), c) for c in spec.columns})


def _to_arrow(frame: pd.DataFrame, spec: TableSpec) -> pa.Table:
    expected = {c.name for c in spec.columns}
    if set(frame.columns) != expected:
        missing = sorted(expected - set(frame.columns))
        unknown = sorted(set(frame.columns) - expected)
        raise TableError(f"{spec.name}: missing columns {missing}, unknown columns {unknown}")
    arrays = [_column_to_arrow(frame, column, spec) for column in spec.columns]
    _check_unique(frame, spec)
    return pa.Table.from_arrays(arrays, schema=spec.schema)


def _column_to_arrow(frame: pd.DataFrame, column: Column, spec: TableSpec) -> pa.Array:
    values = frame[column.name]
    missing = values.isna().to_numpy()
    if column.length is None and column.kind.startswith("float"):
        # A missing scalar is a null; a NaN that is not allowed to be missing is an error.
        missing = missing.astype(bool)
    if missing.any() and not column.nullable:
        raise _error(frame, spec, column, int(np.argmax(missing)), "a value", "none or NaN")
    if column.length is not None:
        return _vectors_to_arrow(frame, column, spec, missing)
    if column.choices:
        wrong = ~values.isin(column.choices).to_numpy() & ~missing
        if wrong.any():
            row = int(np.argmax(wrong))
            raise _error(
                frame, spec, column, row, f"one of {column.choices}", repr(values.iloc[row])
            )
    if column.kind.startswith("float"):
        numbers = values.to_numpy(dtype=np.float64, na_value=np.nan)
        infinite = np.isinf(numbers)
        if infinite.any():
            raise _error(
                frame, spec, column, int(np.argmax(infinite)), "a finite number", "infinity"
            )
    plain = [None if gone else value for gone, value in zip(missing, values.tolist(), strict=True)]
    try:
        return pa.array(plain, type=column.arrow_type)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise TableError(f"{spec.name}.{column.name}: expected {column.kind}: {error}") from error


def _vectors_to_arrow(
    frame: pd.DataFrame, column: Column, spec: TableSpec, missing: np.ndarray
) -> pa.Array:
    length = column.length or 0
    flat = np.zeros((len(frame), length), dtype=column.kind)
    for row, value in enumerate(frame[column.name]):
        if missing[row]:
            continue
        vector = np.asarray(value, dtype=column.kind).reshape(-1)
        if vector.size != length:
            raise _error(frame, spec, column, row, f"{length} numbers", f"{vector.size}")
        if not np.isfinite(vector).all():
            where = int(np.argmax(~np.isfinite(vector)))
            raise _error(
                frame, spec, column, row, "finite numbers", f"{vector[where]} at [{where}]"
            )
        flat[row] = vector
    values = pa.array(flat.reshape(-1), type=_ARROW[column.kind])
    mask = pa.array(missing) if missing.any() else None
    return pa.FixedSizeListArray.from_arrays(values, length, mask=mask)


def _from_arrow(column: pa.ChunkedArray, spec: Column) -> pd.Series:
    if spec.length is None:
        # An object column of str keeps the same type on every pandas version.
        return (
            column.to_pandas()
            if spec.kind != "str"
            else pd.Series(column.to_pylist(), dtype=object)
        )
    rows: list[np.ndarray | None] = []
    for chunk in column.chunks:
        # flatten() leaves out the slots of missing rows, whatever they contain.
        numbers = iter(chunk.flatten().to_numpy(zero_copy_only=False).reshape(-1, spec.length))
        rows += [next(numbers) if ok else None for ok in chunk.is_valid().to_pylist()]
    return pd.Series(rows, dtype=object)


def _check_unique(frame: pd.DataFrame, spec: TableSpec) -> None:
    doubled = frame.duplicated(list(spec.key)).to_numpy()
    if doubled.any():
        row = int(np.argmax(doubled))
        key = {name: frame[name].iloc[row] for name in spec.key}
        raise TableError(f"{spec.name}: row {row} repeats the key {key}")


def _error(
    frame: pd.DataFrame, spec: TableSpec, column: Column, row: int, expected: str, got: str
) -> TableError:
    key = {name: frame[name].iloc[row] for name in spec.key}
    return TableError(f"{spec.name}.{column.name}: row {row} {key}: expected {expected}, got {got}")
