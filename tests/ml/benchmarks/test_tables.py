import csv
import io
import json
import re

import pytest

from ml.benchmarks.paper import PAPER_TABLES
from ml.benchmarks.sets import SETS
from ml.benchmarks.tables import (
    ALL_MISSED,
    NOT_GIVEN,
    NOT_MEASURED,
    ModelResults,
    paper_grid,
    read_scores,
    set_grids,
    summary_grids,
    to_csv,
    write_tables,
)
from ml.stages import benchmark

PROVENANCE = {"date": "2026-01-01", "command": "a <b> | c"}


def scores(name, protocol, **metrics):
    return {"set": name, "protocol": protocol, "model": "m", "notes": [], **metrics}


def results():
    pose = {"euler_mae_deg": 5.0, "euler_mae_deg_low": 4.5, "euler_mae_deg_high": 5.5}
    ours = ModelResults(
        "<script>nano|",
        "ours",
        [
            scores("aflw2000", "ours", rotation_deg=9.0, euler_mae_deg=77.0),
            scores(
                "aflw2000", "vggheads", **pose, yaw_mae_deg=None, num_missed=3.0, num_heads=1969
            ),
            scores("fddb", "coco", ap50=0.91),
        ],
        {"Dataset": "demo"},
    )
    outside = ModelResults(
        "6DRepNet", "outside", [scores("aflw2000", "vggheads", euler_mae_deg=3.5)], {}
    )
    return [ours, outside]


def test_all_tables_of_section_5_are_there_and_whole():
    assert list(PAPER_TABLES) == list(range(2, 13))
    for table in PAPER_TABLES.values():
        for row in table.rows:
            assert len(row.values) == len(table.columns), (table.number, row.model)
            assert len(row.labels) == len(table.label_columns), (table.number, row.model)


def test_printed_means_are_those_of_the_printed_angles():
    """What was typed is what is printed: a wrong digit would break a mean, unless it is doubted."""
    checked = 0
    for number, starts in ((3, (0, 4)), (9, (0,)), (10, (0,)), (12, (0,))):
        for row in PAPER_TABLES[number].rows:
            for start in starts:
                mae, *angles = row.values[start : start + 4]
                if any(v.doubt for v in angles):
                    assert abs(mae.value - sum(v.value for v in angles) / 3) > 0.1
                    continue
                assert mae.value == pytest.approx(sum(v.value for v in angles) / 3, abs=0.0101)
                checked += 1
    assert checked == 6 + 10 + 12 + 2


def test_a_model_has_the_same_numbers_in_every_table():
    def row(number, model, *labels):
        found = [r for r in PAPER_TABLES[number].rows if r.model == model and r.labels == labels]
        return [v.text for v in found[0].values]

    assert row(3, "VGGHeads") == row(9, "VGGHeads") + row(10, "VGGHeads")
    assert row(12, "VGGHeads") == row(10, "VGGHeads")
    assert row(3, "img2pose") == row(9, "img2pose") + row(10, "img2pose")
    assert row(2, "VGGHeads", "VGGHeads")[6] == row(5, "VGGHeads", "VGGHeads")[0]
    # table 2 contradicts the others, and says so
    doubts = [v.doubt for v in PAPER_TABLES[2].rows[1].values]
    assert row(2, "VGGHeads", "VGGHeads")[4] != row(9, "VGGHeads")[0]
    assert "3.76" in doubts[4]
    assert "3.79" in doubts[5]


def test_what_cannot_be_read_has_no_value():
    ringnet = PAPER_TABLES[11].rows[1]
    assert [v.value for v in ringnet.values][:3] == [None, None, 1.634]
    assert all(ringnet.values[i].doubt for i in (0, 1, 5))
    parameters = PAPER_TABLES[8].rows[2].values[0]
    assert parameters.value == 17_004_954
    assert parameters.text == "17,004,954"


def test_columns_name_sets_and_protocols_that_exist():
    for table in PAPER_TABLES.values():
        for column in table.columns:
            if column.benchmark in SETS:
                assert column.protocol in SETS[column.benchmark].protocols, column
    # the stage that measures our own renders, in the form of table 7
    assert {c.benchmark for c in PAPER_TABLES[7].columns[:3]} == {benchmark.STAGE}
    assert {c.protocol for c in PAPER_TABLES[7].columns[:3]} == {benchmark.PROTOCOL}


def test_ours_and_outside_stand_below_the_paper():
    grid = paper_grid(PAPER_TABLES[9], results())
    origins = [row.origin for row in grid.rows]
    assert origins == ["paper"] * 11 + ["ours", "outside"]
    ours, outside = grid.rows[-2:]
    assert ours.names == ("<script>nano|",)
    # from the column's own protocol, not from `ours`
    assert ours.cells[0].text == "5.00 [4.50, 5.50]"
    assert ours.cells[0].note == "3 of 1,969 heads missed"
    assert [cell.text for cell in ours.cells[1:]] == [NOT_MEASURED] * 3
    assert outside.cells[0].text == "3.50"


def test_units_are_the_papers():
    grid = paper_grid(PAPER_TABLES[5], results())
    assert grid.rows[-1].names == ("<script>nano|", "demo")
    assert grid.rows[-1].cells[0].text == "91.0"


def test_nothing_measured_is_said():
    for table in PAPER_TABLES.values():
        last = paper_grid(table, []).rows[-1]
        assert last.origin == "ours"
        assert {cell.text for cell in last.cells} == {NOT_MEASURED}
    assert paper_grid(PAPER_TABLES[4], []).rows[0].cells[1].text == NOT_GIVEN
    nan = [ModelResults("m", "ours", [scores("biwi", "vggheads", euler_mae_deg=float("nan"))], {})]
    assert paper_grid(PAPER_TABLES[10], nan).rows[-1].names == ("this project",)


def test_a_model_that_found_nothing_was_measured_all_the_same():
    counts = {"num_heads": 3, "num_missed": 3}
    nothing = scores("aflw2000", "vggheads", euler_mae_deg=None, **counts)
    found = [ModelResults("blind", "ours", [nothing], {})]
    row = paper_grid(PAPER_TABLES[9], found).rows[-1]
    assert row.names[0] == "blind"
    assert [cell.text for cell in row.cells] == [ALL_MISSED, *[NOT_MEASURED] * 3]
    assert summary_grids(found)[0].rows[0].cells[0].text == ALL_MISSED
    some = scores("aflw2000", "vggheads", euler_mae_deg=None, num_heads=3, num_missed=2)
    assert summary_grids([ModelResults("x", "ours", [some], {})])[0].rows[0].cells[0].text == (
        NOT_MEASURED
    )


def test_a_set_has_all_metrics_of_all_protocols():
    grids = {grid.name: grid for grid in set_grids(results())}
    assert set(grids) == {"set_aflw2000", "set_fddb"}
    rows = {row.names: [cell.text for cell in row.cells] for row in grids["set_aflw2000"].rows}
    assert rows["ours", "rotation_deg"] == ["9.000", NOT_MEASURED]
    assert rows["vggheads", "euler_mae_deg"] == ["5.000 [4.500, 5.500]", "3.500"]
    assert rows["vggheads", "num_missed"] == ["3", NOT_MEASURED]
    assert not any(name.endswith("_low") for _, name in rows)
    assert grids["set_fddb"].columns == (("ours", "<script>nano|"),)


def test_files_show_the_numbers_and_escape_names(tmp_path):
    written = write_tables(tmp_path, results(), PROVENANCE)
    assert len([name for name in written if name.endswith(".csv")]) == 11 + 2 + 1
    page = written["tables.html"].read_text()
    assert "<script>" not in page
    assert "&lt;script&gt;nano|" in page
    assert "a &lt;b&gt; | c" in page
    text = written["tables.md"].read_text()
    assert "<script>" not in text
    assert "5.00 [4.50, 5.50]" in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    widths = [len(re.split(r"(?<!\\)\|", line)) for line in tables]
    head = 0
    for line, width in zip(tables, widths, strict=True):
        if line.startswith(("| Model", "| Protocol", "| Set", "| | |")):
            head = width
        assert width == head, line


def test_csv_holds_values_intervals_and_doubts():
    rows = list(csv.DictReader(io.StringIO(to_csv(paper_grid(PAPER_TABLES[9], results())))))
    assert float(rows[-2]["AFLW2000-3D MAE ↓"]) == 5.0
    assert rows[-2]["AFLW2000-3D MAE ↓ low"] == "4.5"
    assert rows[-2]["AFLW2000-3D Yaw ↓"] == NOT_MEASURED
    assert "7.11" in rows[5]["AFLW2000-3D Roll ↓ note"]


def test_same_results_same_bytes(tmp_path):
    first, second = (write_tables(tmp_path / n, results(), PROVENANCE) for n in "ab")
    for name in first:
        assert first[name].read_bytes() == second[name].read_bytes()


def test_score_files_are_checked(tmp_path):
    path = tmp_path / "s.json"
    path.write_text(json.dumps(scores("biwi", "ours", rotation_deg=1.0)))
    assert read_scores(path)["rotation_deg"] == 1.0
    path.write_text('{"set": "biwi"}')
    with pytest.raises(ValueError, match="protocol, model is missing"):
        read_scores(path)
    path.write_text("{")
    with pytest.raises(ValueError, match="expected a JSON score file"):
        read_scores(path)
    with pytest.raises(ValueError, match="must have different names"):
        write_tables(tmp_path, [results()[0]] * 2, {})
