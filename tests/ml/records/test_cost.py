"""The cost model, worked by hand."""

import pytest

from ml.records.cost import StageMeasurement, paper_hours, plan_costs

RUN = [
    StageMeasurement("images", 50.0, 100, 10_000_000, "GPU", 8),
    StageMeasurement("head_detector", 3600.0, 80, 1000, "GPU"),
    StageMeasurement("trained_model", 20.0, 40, 0, "GPU"),
    StageMeasurement("trained_model_exact", 12.0, 0, 0, "GPU"),
    StageMeasurement("benchmark", 0.0, 5, 0, "GPU"),
]


def test_rates_are_scaled_to_what_each_stage_has_to_go_through():
    table = plan_costs(RUN, images=1_000_000, kept=50, hour_price=2.0).set_index("stage")
    # Of 100 generated images 50 were kept: two million have to be generated, at half a second.
    assert table.loc["images", "images"] == 2_000_000
    assert table.loc["images", "hours"] == pytest.approx(1_000_000 / 3600)
    assert table.loc["images", "gigabytes"] == pytest.approx(200)
    assert table.loc["images", "batch"] == 8
    # Trained once, whatever the size.
    assert table.loc["head_detector", "hours"] == pytest.approx(1)
    # 40 of the 50 kept are trained on, at half a second; a tenth as many are held out.
    assert table.loc["trained_model", "images"] == 800_000
    assert table.loc["trained_model", "hours"] == pytest.approx(400_000 / 3600)
    assert table.loc["benchmark", "images"] == 100_000
    # Switched off: it costs nothing however large the dataset.
    assert table.loc["trained_model_exact", ["images", "hours"]].tolist() == [0, 0]
    total = 1_400_000 / 3600 + 1
    assert table.loc["total", "hours"] == pytest.approx(total)
    assert table.loc["total", "cost"] == pytest.approx(2 * total)


def test_the_papers_hours():
    assert paper_hours(1_022_944) == pytest.approx(4000)


@pytest.mark.parametrize("numbers", [(0, 5, 0), (1, 0, 0), (1, 1, -1)])
def test_impossible_plans(numbers):
    with pytest.raises(ValueError, match="plan: expected at least one image"):
        plan_costs(RUN, *numbers)


def test_impossible_measurements():
    with pytest.raises(ValueError, match="measurement of images"):
        StageMeasurement("images", 1.0, -1, 0, "GPU")
