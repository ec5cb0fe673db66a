"""A table judged in pieces: the outcomes are those of the table as one."""

import gc

import numpy as np
import pandas as pd
import pytest
from great_expectations import expectations as gxe

from assets.checks.suite import Suite, critical
from assets.checks.tables import gathered, rows_of_shard, shard_tables
from assets.checks.validation import MAX_ROWS, validate
from ml.records.workspace import Workspace

TABLE = pd.DataFrame(
    {
        "shard": np.repeat(["shard-00000", "shard-00001", "shard-00002"], 40),
        "row": list(range(40)) * 3,
        # Once more in another piece: number 100 is number 3 again.
        "key": [f"item-{3 if number == 100 else number}" for number in range(120)],
        "value": [number % 60 for number in range(120)],
    }
)
CHECKS = (
    critical("rows", gxe.ExpectTableRowCountToBeBetween, "", min_value=100, max_value=130),
    critical("unique", gxe.ExpectColumnValuesToBeUnique, "", column="key"),
    critical("pairs", gxe.ExpectCompoundColumnsToBeUnique, "", column_list=["key", "value"]),
    critical("all", gxe.ExpectColumnValuesToBeBetween, "", column="value", max_value=29),
    critical(
        "mostly", gxe.ExpectColumnValuesToBeBetween, "", column="value", max_value=44, mostly=0.7
    ),
    critical("few", gxe.ExpectColumnValuesToBeBetween, "", column="value", max_value=2, mostly=0.3),
    critical("there", gxe.ExpectColumnValuesToNotBeNull, "", column="value"),
    critical("missing", gxe.ExpectColumnValuesToNotBeNull, "", column="nowhere"),
)


def pieces_of(size):
    return lambda ws, shards: (TABLE.iloc[i : i + size] for i in range(0, len(TABLE), size))


@pytest.fixture(scope="module")
def as_one(tmp_path_factory):
    ws = Workspace(tmp_path_factory.mktemp("one"), 1, 3, 40)
    return validate(ws, Suite("s", lambda *_: TABLE, CHECKS), [], None)


@pytest.mark.parametrize("size", [120, 40, 17])
def test_outcomes_in_pieces_are_those_of_the_whole(size, as_one, tmp_path):
    ws = Workspace(tmp_path, 1, 3, 40)
    found = validate(ws, Suite("s", pieces_of(size), CHECKS), [], None)
    assert found == as_one
    passed = {outcome.name.removeprefix("s__"): outcome.passed for outcome in found}
    # Pieces of 17 rows fail `mostly` that the whole passes, and see no double of each other.
    assert passed == {
        "rows": True, "unique": False, "pairs": True, "all": False, "mostly": True, "few": False,
        "there": True, "missing": False,
    }  # fmt: skip
    by_name = {outcome.name.removeprefix("s__"): outcome for outcome in found}
    assert [(r["shard"], r["row"]) for r in by_name["unique"].unexpected] == [
        ("shard-00000", 3), ("shard-00002", 20),
    ]  # fmt: skip
    assert (by_name["all"].num_unexpected, by_name["all"].num_rows) == (60, 120)
    assert len(by_name["all"].unexpected) == MAX_ROWS


@pytest.mark.parametrize("size", [120, 40])
def test_a_judged_table_is_not_kept(size, tmp_path):
    validate(Workspace(tmp_path, 1, 3, 40), Suite("s", pieces_of(size), CHECKS), [], None)
    gc.collect()
    kept = [each for each in gc.get_objects() if isinstance(each, pd.DataFrame)]
    assert [len(each) for each in kept if "row" in each and each is not TABLE] == []


def test_the_memory_of_a_large_table_is_returned(monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr("assets.checks.validation._release", lambda: calls.append(True))
    suite, ws = Suite("s", pieces_of(40), CHECKS), Workspace(tmp_path, 1, 3, 40)
    validate(ws, suite, [], None)
    assert calls == []
    monkeypatch.setattr("assets.checks.validation.PIECE_ROWS", 119)
    validate(ws, suite, [], None)
    assert calls == [True]


def test_shards_are_gathered_to_pieces(monkeypatch):
    monkeypatch.setattr("assets.checks.tables.PIECE_ROWS", 50)
    shards = [rows for _, rows in TABLE.groupby("shard")]
    assert [len(piece) for piece in gathered(shards)] == [80, 40]
    assert [len(piece) for piece in gathered([TABLE.iloc[:0]])] == [0]


def test_tables_of_shards_have_derived_columns(tmp_path):
    ws = Workspace(tmp_path, 1, 3, 40)
    for shard, rows in TABLE.groupby("shard"):
        ws.table_path("toys", shard).parent.mkdir(parents=True, exist_ok=True)
        rows[["value"]].to_parquet(ws.table_path("toys", shard))
    read = shard_tables("toys", lambda rows: rows.assign(twice=2 * rows["value"]))
    (table,) = read(ws, ws.shards)
    assert (table["twice"] == 2 * table["value"]).all()
    assert table["shard"].tolist() == TABLE["shard"].tolist()
    assert table["row"].tolist() == TABLE["row"].tolist()


def test_a_shard_is_read_out_of_a_table_of_all(tmp_path):
    TABLE.to_parquet(tmp_path / "all.parquet", row_group_size=30)
    found = rows_of_shard(tmp_path / "all.parquet", "shard-00001")
    pd.testing.assert_frame_equal(found, TABLE.iloc[40:80].reset_index(drop=True))
    assert len(rows_of_shard(tmp_path / "all.parquet", "shard-00009")) == 0
