"""The README's tables of results are written from a demo's files."""

import json

import pytest

from docs.results import README, TURN, replaced, tables

HEADER = "| group | heads | found % | NME % | rotation deg | over 90 deg | aligned % |"
HEADER += " always frontal: NME % | always frontal: rotation deg |"
REPORT = f"""# Benchmark

### {TURN}

{HEADER}
|---|---|---|---|---|---|---|---|---|
| 0 to 30 | 12 | 75 | 9.1 [8.0, 10.0] | 14.2 [12.0, 16.0] | 0 | 2.0 | 19.3 | 25.2 |

### size of the head, px

| group | heads |
|---|---|
| 0 to 20 | 3 |
"""


def write_benchmark(folder, ap50):
    models = ("pseudo_labels", "pseudo_labels_flip", "mean_head", "always_frontal")
    values = {"num_images": 40, "pseudo_labels.num_heads": 90}
    for model in models:
        values |= {f"{model}.ap50": ap50, f"{model}.rotation_deg": None, f"{model}.nme_bbox": 15.66}
    values |= {"pseudo_labels.ap50_low": ap50 - 0.1, "pseudo_labels.ap50_high": ap50 + 0.1}
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps(values))
    (folder / "report.md").write_text(REPORT)


def test_a_demo_alone_gives_intervals_and_bands(tmp_path):
    write_benchmark(tmp_path / "data" / "benchmark", 0.75)
    lines = tables(tmp_path).splitlines()
    assert lines[0].startswith("| 40 held-out renders, 90 heads | pseudo-labels |")
    assert "| AP50 ↑ | 0.750 [0.650, 0.850] | 0.750 | same boxes | same boxes |" in lines
    assert "| rotation error, mean, degrees ↓ | n/a | n/a | same rotations | n/a |" in lines
    assert "| NME, % of head box ↓ | 15.7 | 15.7 | 15.7 | 15.7 |" in lines
    band = "| 0 to 30 | 12 | 75 | 14.2 [12.0, 16.0] | 25.2 | 9.1 [8.0, 10.0] | 19.3 |"
    assert lines[-1] == band, "other groups stay in the report"


def test_several_trainings_give_median_and_range(tmp_path):
    write_benchmark(tmp_path / "data" / "benchmark", 0.75)
    for number, ap50 in enumerate((0.7, 0.9, 0.75)):
        folder = tmp_path / "data" / "studies" / "seeds" / f"seed-{number}"
        write_benchmark(folder / "evaluation" / "data" / "benchmark", ap50)
    text = tables(tmp_path)
    assert text.startswith("| median (range) of 3 trainings |")
    assert "| AP50 ↑ | 0.750 (0.700 to 0.900) |" in text
    assert "0.750 [0.650, 0.850]" in text


def test_only_what_stands_between_the_marks_is_replaced():
    text = README.read_text()
    new = replaced(text, "new\n")
    before, _, rest = text.partition("<!-- results -->\n")
    assert (
        new
        == f"{before}<!-- results -->\nnew\n<!-- /results -->\n"
        + rest.partition("<!-- /results -->\n")[2]
    )
    with pytest.raises(ValueError, match="expected tables between"):
        replaced("nothing", "new")
