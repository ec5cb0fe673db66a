import pickle

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from ml.records import tables
from ml.records.tables import (
    HEADS,
    POSES,
    RowGroups,
    TableError,
    TableSpec,
    empty_table,
    iter_table,
    read_stage,
    read_table,
    stack,
    table_writer,
    write_table,
)
from ml.records.workspace import Workspace


def heads(count=3):
    return pd.DataFrame(
        [
            {
                "sample_id": "a_0",
                "head_id": i,
                "split": "train",
                "bbox_xywh": np.arange(4) + i,
                "score": 0.5,
                "flame": None if i == 1 else np.full(413, i, np.float32),
                "flame_status": "small" if i == 1 else "ok",
                "head_model": "m",
                "teacher": "t",
                "threshold": 0.5,
                "source": "pseudo",
            }
            for i in range(count)
        ]
    )


ALL_TABLES = [value for value in vars(tables).values() if isinstance(value, TableSpec)]


def test_the_tables_were_found():
    assert len({spec.name for spec in ALL_TABLES}) >= 10


@pytest.mark.parametrize("spec", ALL_TABLES, ids=lambda s: s.name)
def test_empty_table_round_trips(spec, tmp_path):
    write_table(tmp_path / "t.parquet", empty_table(spec), spec)
    frame = read_table(tmp_path / "t.parquet", spec)
    assert len(frame) == 0
    assert list(frame.columns) == [c.name for c in spec.columns]


def test_values_nulls_and_types_round_trip(tmp_path):
    path = tmp_path / "t.parquet"
    write_table(path, heads(), HEADS)
    frame = read_table(path, HEADS)
    assert frame["flame"][1] is None
    assert frame["flame"][2].dtype == np.float32
    assert (frame["flame"][2] == 2).all()
    assert frame["score"].dtype == np.float32
    assert stack(frame["bbox_xywh"]).tolist() == [[0, 1, 2, 3], [1, 2, 3, 4], [2, 3, 4, 5]]


def test_equal_tables_give_equal_bytes_whatever_the_column_order(tmp_path):
    write_table(tmp_path / "a.parquet", heads(), HEADS)
    write_table(tmp_path / "b.parquet", heads()[list(heads().columns)[::-1]], HEADS)
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def planted(column, row, value):
    frame = heads()
    frame[column] = frame[column].astype(object)
    frame.at[row, column] = value
    return frame


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (
            planted("bbox_xywh", 2, np.array([1, np.nan, 2, 3])),
            r"bbox_xywh: row 2 .*finite.*nan at \[1\]",
        ),
        (planted("flame", 0, np.zeros(412)), r"flame: row 0 .*expected 413 numbers, got 412"),
        (planted("score", 1, float("nan")), r"score: row 1 .*expected a value"),
        (planted("score", 1, float("inf")), r"score: row 1 .*finite number, got infinity"),
        (planted("source", 1, "guess"), r"source: row 1 .*one of .*got 'guess'"),
        (planted("head_id", 1, 0), r"row 1 repeats the key"),
        (planted("head_id", 1, 10**6), r"head_id: expected int16"),
        (heads().drop(columns="score"), r"missing columns \['score'\]"),
        (heads().assign(extra=1), r"unknown columns \['extra'\]"),
    ],
)
def test_what_does_not_fit_is_refused_by_row_and_column(frame, message, tmp_path):
    with pytest.raises(TableError, match=message):
        write_table(tmp_path / "t.parquet", frame, HEADS)
    assert list(tmp_path.iterdir()) == []


def test_damaged_and_foreign_files_are_refused(tmp_path):
    path = tmp_path / "t.parquet"
    write_table(path, heads(), HEADS)
    with pytest.raises(TableError, match="has columns"):
        read_table(path, POSES)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(TableError, match="not a readable Parquet file"):
        read_table(path, HEADS)
    with pytest.raises(FileNotFoundError, match="materialise its stage first"):
        read_table(tmp_path / "none.parquet", HEADS)


def test_read_stage_keeps_shard_order(tmp_path):
    ws = Workspace(tmp_path, seed=0, num_shards=2, shard_size=1)
    for shard, name in zip(ws.shards, ("first", "second"), strict=True):
        write_table(ws.table_path("annotations", shard), heads(1).assign(sample_id=name), HEADS)
    assert read_stage(ws, "annotations", HEADS)["sample_id"].tolist() == ["first", "second"]


def test_rows_of_some_samples_keep_their_order_and_values(tmp_path):
    rows = heads(9).assign(sample_id=[f"a_{i % 3}" for i in range(9)])
    write_table(tmp_path / "t.parquet", rows, HEADS)
    wanted = pd.Index(["a_2", "nobody", "a_1"], dtype=object)
    pieces = list(iter_table(tmp_path / "t.parquet", HEADS, 4, wanted))
    found = pd.concat(pieces, ignore_index=True)
    assert [len(piece) for piece in pieces] == [2, 3, 1]
    expected = read_table(tmp_path / "t.parquet", HEADS)
    expected = expected[expected["sample_id"] != "a_0"].reset_index(drop=True)
    pd.testing.assert_frame_equal(found, expected)
    assert found["flame"][0] is None, "the head without parameters is among them"


def test_pieces_that_were_read_are_not_kept(tmp_path):
    path = tmp_path / "t.parquet"
    rows = heads(2000).assign(flame=list(np.random.default_rng(0).random((2000, 413), np.float32)))
    with table_writer(path, HEADS) as writer:
        for start in range(0, 2000, 100):
            writer.append(rows[start : start + 100])
    before, most = pa.total_allocated_bytes(), 0
    for _ in iter_table(path, HEADS, 100):
        most = max(most, pa.total_allocated_bytes() - before)
    assert path.stat().st_size > 2_000_000
    assert most < path.stat().st_size / 4, "row groups stay in memory"


def test_row_groups_of_several_tables_are_read_by_columns(tmp_path):
    paths = [tmp_path / name for name in ("one.parquet", "two.parquet")]
    for path, count in zip(paths, (5, 3), strict=True):
        with table_writer(path, HEADS) as rows:
            for first in range(0, count, 2):
                rows.append(heads(count).iloc[first : first + 2])
    groups = pickle.loads(pickle.dumps(RowGroups(paths, HEADS)))
    assert len(groups) == 3 + 2
    read = [groups.read(number, ("flame", "head_id")) for number in range(len(groups))]
    assert [list(part["head_id"]) for part in read] == [[0, 1], [2, 3], [4], [0, 1], [2]]
    assert list(read[0].columns) == ["head_id", "flame"]
    assert read[0]["flame"][1] is None
    assert (read[1]["flame"][1] == 3).all()


def test_a_row_group_that_cannot_be_read_names_its_table(tmp_path):
    path = tmp_path / "t.parquet"
    flame = np.random.default_rng(0).random((3, 413), np.float32)
    write_table(path, heads().assign(flame=list(flame)), HEADS)
    groups = RowGroups([path], HEADS)
    data = bytearray(path.read_bytes())
    data[4:3000] = bytes(2996)
    path.write_bytes(data)
    with pytest.raises(TableError, match=r"t\.parquet cannot be read to its end"):
        groups.read(0, ("flame",))
    with pytest.raises(TableError, match=r"t\.parquet"):
        RowGroups([path], POSES)


def test_pieces_have_the_columns_that_are_asked_for(tmp_path):
    write_table(tmp_path / "t.parquet", heads(5), HEADS)
    some = list(iter_table(tmp_path / "t.parquet", HEADS, 2, columns=("score", "sample_id")))
    assert [len(piece) for piece in some] == [2, 2, 1]
    assert list(some[0].columns) == ["sample_id", "score"]
