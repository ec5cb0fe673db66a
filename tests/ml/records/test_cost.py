"""The cost model, worked by hand."""

import pytest

from ml.records.cost import StageMeasurement, paper_hours, plan_costs

RUN = [
    StageMeasurement("images", 50.0, 100, 10_000_000, "GPU", 8),
    StageMeasurement("head_detector", 3600.0, 80, 1000, "GPU"),
    StageMeasurement("trained_model", 30.0, 60, 0, "GPU"),
]


def test_rates_are_scaled_to_what_each_stage_has_to_go_through():
    table = plan_costs(RUN, images=1_000_000, share_kept=0.5, hour_price=2.0).set_index("stage")
    # Twice as many have to be generated as stay: 2 million at half a second.
    assert table.loc["images", "images"] == 2_000_000
    assert table.loc["images", "hours"] == pytest.approx(1_000_000 / 3600)
    assert table.loc["images", "gigabytes"] == pytest.approx(200)
    assert table.loc["images", "batch"] == 8
    # Trained once, whatever the size.
    assert table.loc["head_detector", "hours"] == pytest.approx(1)
    # Half a second for each that stays.
    assert table.loc["trained_model", "hours"] == pytest.approx(500_000 / 3600)
    total = 1_500_000 / 3600 + 1
    assert table.loc["total", "hours"] == pytest.approx(total)
    assert table.loc["total", "cost"] == pytest.approx(2 * total)


def test_the_papers_hours():
    assert paper_hours(1_022_944) == pytest.approx(4000)


@pytest.mark.parametrize("numbers", [(0, 0.5, 0), (1, 0, 0), (1, 1.1, 0), (1, 1, -1)])
def test_impossible_plans(numbers):
    with pytest.raises(ValueError, match="plan: expected at least one image"):
        plan_costs(RUN, *numbers)


def test_impossible_measurements():
    with pytest.raises(ValueError, match="measurement of images"):
        StageMeasurement("images", 1.0, 0, 0, "GPU")
