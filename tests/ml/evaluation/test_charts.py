"""Groups, curves and photographs of a report, by hand."""

import numpy as np
import pandas as pd
import pytest

from ml.evaluation import photographs
from ml.evaluation.charts import calibration, draw_charts, head_sizes, precision_recall
from ml.evaluation.groups import compare_skin_tones, group_intervals, group_table, turned_wrongly
from ml.evaluation.metrics import average_precision
from ml.evaluation.photographs import PHOTOGRAPHS, read_photographs
from ml.evaluation.protocol import Evaluation, EvaluationSample
from ml.records.heads import Heads

PAIRS = pd.DataFrame(
    {
        "image": [0, 1, 1],
        "prediction": [0, 0, 1],
        "truth": [0, 0, 1],
        "turn_deg": [10.0, 40.0, 45.0],
        "size_px": [15.0, 30.0, 90.0],
        "visible": [1.0, 0.4, 0.6],
        "skin_tone": [1, 5, 10],
        "nme_bbox": [2.0, 4.0, 6.0],
        "rotation_deg": [5.0, 10.0, 20.0],
    }
)
PREDICTIONS = pd.DataFrame(
    {"image": [0, 0, 1, 1], "score": [0.9, 0.25, 0.8, 0.35], "correct": [True, False, True, True]}
)


PAIRS["nme_aligned"] = [1.0, 2.0, 3.0]
PAIRS["people"] = [2, 2, 2]
MISSED = PAIRS.iloc[[0]].assign(image=0, truth=1, turn_deg=50.0)


def evaluation(pairs=PAIRS, num_images=2):
    return Evaluation(
        predictions=PREDICTIONS,
        pairs=pairs,
        num_true=np.array([2, 2]),
        num_missed=np.array([1, 0]),
        num_ignored=0,
        annotated=np.array([1, 2]),
        coefficients=np.zeros((len(pairs), 2, 20)),
        asked=pd.concat([pairs.assign(found=True), MISSED.assign(found=False)], ignore_index=True),
    )


def rng():
    return np.random.default_rng(0)


def test_groups_with_intervals_over_images():
    tables = group_table(evaluation(), rng(), 50)
    yaw = tables["rotation of the head from the camera, degrees"]
    # Every group lies in one image, so a draw has either its mean or nothing.
    assert list(yaw) == [
        "group", "heads", "found %", "NME %", "rotation deg", "over 90 deg", "aligned %",
    ]  # fmt: skip
    assert yaw.to_numpy().tolist() == [
        ["0 to 30", 1, "100", "2.0 [2.0, 2.0]", "5.0 [5.0, 5.0]", 0, "1.0"],
        ["30 to 60", 3, "67", "5.0 [5.0, 5.0]", "15.0 [15.0, 15.0]", 0, "2.5"],
    ]
    assert [len(table) for table in tables.values()] == [2, 3, 3, 1, 3]
    assert tables["heads in the image"]["group"].tolist() == ["2"]
    assert "Monk skin tone" not in group_table(
        evaluation(PAIRS.drop(columns="skin_tone")), rng(), 5
    )


def test_groups_stand_beside_the_baselines():
    frontal = evaluation(PAIRS.assign(rotation_deg=[10.0, 40.0, 50.0], nme_bbox=[5.0, 20.0, 30.0]))
    mean = evaluation(PAIRS.assign(nme_bbox=[2.5, 5.0, 8.0], nme_aligned=[1.0, 1.0, 2.0]))
    tables = group_table(
        evaluation(), rng(), 5, {"mean head": mean, "always frontal": frontal}
    )  # fmt: skip
    yaw = tables["rotation of the head from the camera, degrees"].set_index("group")
    assert yaw.loc["30 to 60", "mean head: NME %"] == "6.5"
    assert yaw.loc["30 to 60", "mean head: aligned %"] == "1.5"
    assert yaw.loc["30 to 60", "always frontal: NME %"] == "25.0"
    assert yaw.loc["30 to 60", "always frontal: rotation deg"] == "45.0"


def test_a_group_of_missed_heads_stays_in_its_table():
    found = evaluation()
    found.asked.loc[3, "turn_deg"] = 70.0
    table = group_table(found, rng(), 5, {"mean head": evaluation()})
    row = table["rotation of the head from the camera, degrees"].set_index("group").loc["60 to 90"]
    assert row.tolist() == [1, "0", "n/a", "n/a", 0, "n/a", "n/a", "n/a"]


def test_heads_seen_from_behind_and_heads_turned_the_wrong_way():
    pairs = PAIRS.assign(turn_deg=[100.0, 150.0, 45.0], rotation_deg=[91.0, 170.0, 90.0])
    table = group_table(evaluation(pairs), rng(), 5)[
        "rotation of the head from the camera, degrees"
    ].set_index("group")
    assert table["over 90 deg"].to_dict() == {
        "30 to 60": 0, "90 to 120, from behind": 1, "120 to 180, from behind": 1,
    }  # fmt: skip
    listed = turned_wrongly(evaluation(pairs), ["first", "second"])
    assert listed.to_numpy().tolist() == [
        ["second", 0, "170", "150", "30", "0.40"],
        ["first", 0, "91", "100", "15", "1.00"],
    ]
    assert len(turned_wrongly(evaluation(), ["first", "second"])) == 0


def test_an_interval_holds_the_mean_and_comes_from_the_images():
    pairs = pd.DataFrame(
        {"image": [0, 0, 1, 2], "group": ["a"] * 4, "error": [1.0, 1.0, 4.0, 10.0]}
    )
    found = group_intervals(pairs, "group", "error", 4, rng(), 400).loc["a"]
    assert (found["heads"], found["mean"]) == (4, 4.0)
    assert found["low"] == pytest.approx(1.0, abs=0.01)
    assert 4.0 < found["high"] <= 10.0


@pytest.mark.parametrize(
    ("darker", "verdict"),
    [(5.0, "one of this model on these heads"), (0.0, "too few to distinguish")],
)
def test_skin_tones_are_compared_in_a_sentence(darker, verdict):
    noise = np.random.default_rng(1).normal(0, 1, 80)
    tones = np.tile([2, 9], 40)
    pairs = pd.DataFrame(
        {
            "image": np.arange(80),
            "skin_tone": tones,
            "nme_bbox": 8 + noise + darker * (tones == 9),
            "rotation_deg": 12 + noise,
        }
    )
    told = Evaluation(PREDICTIONS, pairs, np.ones(80), np.zeros(80), 0, np.ones(80), np.zeros(0))
    text = compare_skin_tones(told, rng(), 200)
    assert text.startswith(
        "Heads of skin tones 7 to 10 (40) differ from those of tones 1 to 3 (40)"
    )
    assert verdict in text
    assert compare_skin_tones(evaluation(), rng(), 5) is None, "three heads tell nothing"


def test_the_curve_ends_at_the_recall_and_its_area_is_the_average_precision():
    curve = precision_recall(PREDICTIONS, 4)
    assert curve["recall"].tolist() == [0.25, 0.5, 0.75, 0.75]
    assert curve["precision"].tolist() == [1, 1, 1, 0.75]
    scores, correct = PREDICTIONS["score"].to_numpy(), PREDICTIONS["correct"].to_numpy()
    assert average_precision(scores, correct, 4) == pytest.approx(76 / 101)


def test_calibration_compares_scores_with_what_is_right():
    found = calibration(PREDICTIONS, bins=2)
    assert found["score"].tolist() == pytest.approx([0.3, 0.85])
    assert found["correct"].tolist() == [0.5, 1.0]
    assert found["number"].tolist() == [2, 2]


def samples():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 30, 30], [0, 0, 5, 5]], np.float32)
    heads = Heads(boxes, np.ones(3), np.zeros((3, 413)))
    ignore = np.array([False, False, True])
    return [EvaluationSample(f"s{i}", np.zeros((9, 9, 3), np.uint8), heads, ignore) for i in (0, 1)]


def test_sizes_of_found_and_missed_heads():
    sizes = head_sizes(evaluation(), samples())
    assert sizes["size_px"].tolist() == [10, 30, 10, 30]
    assert sizes["found"].tolist() == [True, False, True, True]


def test_all_charts_are_drawn_and_draw_the_same_twice():
    drawn = [draw_charts({"a": evaluation()}, samples(), 0.3, rng(), 5) for _ in range(2)]
    assert drawn[0] == drawn[1]
    assert all(svg.startswith("<svg") and svg.endswith("</svg>\n") for svg in drawn[0].values())
    confusion = drawn[0]["Found, missed and false heads (a)"]
    for text in ("3", "found", "1", "missed", "0", "false"):
        assert f">{text}<" in confusion
    sizes = drawn[0]["Found and missed by size (a)"]
    for text in ("found", "missed", "size of the head, px", "heads"):
        assert f">{text}<" in sizes


def test_charts_and_tables_have_the_same_groups():
    drawn = draw_charts({"a": evaluation()}, samples(), 0.3, rng(), 5)
    tables = group_table(evaluation(), rng(), 5)
    for of, table in (
        ("turn", tables["rotation of the head from the camera, degrees"]),
        ("size", tables["size of the head, px"]),
    ):
        chart = drawn[f"NME, % of head box, by {of} (a)"]
        assert len(table)
        for group in table["group"]:
            assert f">{group}<" in chart


def test_charts_without_a_prediction_say_so():
    nothing = Evaluation(
        predictions=PREDICTIONS.iloc[:0],
        pairs=PAIRS.iloc[:0],
        num_true=np.array([2, 2]),
        num_missed=np.array([2, 2]),
        num_ignored=0,
        annotated=np.array([0, 0]),
        coefficients=np.zeros((0, 2, 20)),
        asked=PAIRS.assign(found=False),
    )
    drawn = draw_charts({"a": nothing}, samples(), 0.3, rng(), 5)
    assert ">no head was found<" in drawn["NME, % of head box, by turn (a)"]
    assert ">no head was predicted<" in drawn["Precision and recall"]
    assert ">no head was predicted<" in drawn["Calibration of the score (a)"]


def test_photographs_of_installed_packages_alone(monkeypatch):
    found = read_photographs()
    assert list(found) == list(PHOTOGRAPHS)
    assert all(image.ndim == 3 and image.dtype == np.uint8 for image in found.values())
    there = photographs.find_spec
    monkeypatch.setattr(
        photographs, "find_spec", lambda name: None if name == "skimage" else there(name)
    )
    assert list(read_photographs()) == ["an officer"]
