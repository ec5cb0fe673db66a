import numpy as np
import pandas as pd
import pytest
import torch

from ml.evaluation.baselines import always_frontal, mean_head
from ml.evaluation.protocol import EvaluationSample, evaluate, join_evaluations
from ml.evaluation.report import (
    METRICS,
    Metric,
    cell,
    read_group,
    results_frame,
    standalone,
    write_report,
)
from ml.flame.geometry import HeadGeometry
from ml.flame.params import ROTATION, SCALE
from ml.flame.rotation import matrix_from_euler_deg, sixd_from_matrix
from ml.inference.drawing import draw_heads
from ml.records.heads import Heads
from ml.stages.annotation_quality import annotated_heads


@pytest.fixture(scope="module")
def geometry(open_head):
    return HeadGeometry(open_head)


def make_heads(geometry, yaws_deg, score=1.0, x=60.0):
    flame = np.zeros((len(yaws_deg), 413), np.float32)
    angles = torch.tensor([[0.0, float(yaw), 0.0] for yaw in yaws_deg])
    flame[:, ROTATION] = sixd_from_matrix(matrix_from_euler_deg(angles)).numpy()
    flame[:, 409] = x + 120 * np.arange(len(yaws_deg))
    flame[:, 410] = 80
    flame[:, SCALE] = 300
    points = geometry.vertices_px(flame)
    boxes = np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1)
    return Heads(boxes, np.full(len(yaws_deg), score), flame)


def sample(heads, ignore=None, name="a"):
    attributes = pd.DataFrame(
        {"visible": 1.0, "skin_tone": 5, "hair_style": "bald", "glasses": "none", "hat": "none"},
        index=range(len(heads)),
    )
    ignore = np.zeros(len(heads), bool) if ignore is None else np.array(ignore)
    image = np.full((160, 320, 3), 90, np.uint8)
    return EvaluationSample(name, image, heads, ignore, attributes)


def test_parts_join_to_the_evaluation_of_all_images(geometry):
    truth = [make_heads(geometry, yaws) for yaws in ([0, 50], [20], [-40, 10], [70])]
    found = [
        Heads.empty(),
        make_heads(geometry, [40], 0.9),
        make_heads(geometry, [-40, 100], 0.4, x=70.0),
        make_heads(geometry, [60, 0], 0.8),
    ]
    samples = [sample(heads, name=str(i)) for i, heads in enumerate(truth)]
    whole = evaluate(found, samples, geometry)
    parts = [evaluate(found[i:j], samples[i:j], geometry) for i, j in ((0, 1), (1, 3), (3, 4))]
    joined = join_evaluations(parts)
    assert list(joined.pairs["image"]) == [1, 2, 2, 3]
    for name in ("predictions", "pairs", "asked"):
        pd.testing.assert_frame_equal(getattr(joined, name), getattr(whole, name))
    for name in ("num_true", "num_missed", "annotated", "coefficients"):
        np.testing.assert_array_equal(getattr(joined, name), getattr(whole, name))
    assert joined.num_ignored == whole.num_ignored
    draws = [e.intervals(np.random.default_rng(0), 20) for e in (joined, whole)]
    assert draws[0] == draws[1]


def test_perfect_predictions_are_perfect(geometry):
    heads = make_heads(geometry, [0, 50])
    figures = evaluate([heads], [sample(heads)], geometry).metrics()
    assert figures["ap50"] == figures["recall"] == figures["precision"] == 1
    assert figures["nme_bbox"] == pytest.approx(0, abs=1e-5)
    assert figures["rotation_deg"] == pytest.approx(0, abs=0.05)
    assert figures["failure_rate"] == figures["num_missed"] == 0


def test_errors_by_hand(geometry):
    truth = make_heads(geometry, [0, 20])
    turned = make_heads(geometry, [10, 20])
    moved = turned.flame.copy()
    moved[1, 409] += 4
    predicted = Heads(turned.boxes_xyxy, turned.scores, moved)
    evaluation = evaluate([predicted], [sample(truth)], geometry)
    pairs = evaluation.pairs.sort_values("truth")
    assert pairs["rotation_deg"].to_numpy() == pytest.approx([10, 0], abs=0.05)
    assert pairs["yaw_deg"].to_numpy() == pytest.approx([10, 0], abs=0.05)
    size = np.ptp(geometry.vertices_px(truth.flame[1:])[0], axis=0)
    assert pairs["nme_bbox"].iloc[1] == pytest.approx(100 * 4 / np.sqrt(size.prod()), rel=1e-4)


def test_face_error_sees_shape_and_not_pose(geometry):
    truth = make_heads(geometry, [0, 20, -40, 70])
    flame = truth.flame.copy()
    flame[:, :5] = np.random.default_rng(3).normal(size=(4, 5))
    flame[:, 300:303] = np.random.default_rng(4).normal(size=(4, 3))
    truth = Heads(truth.boxes_xyxy, truth.scores, flame)
    posed = flame.copy()
    posed[:, ROTATION] = make_heads(geometry, [10, 5, -60, 90]).flame[:, ROTATION]
    posed[:, SCALE] *= 1.1
    turned = Heads(truth.boxes_xyxy, truth.scores, posed)
    results = [
        evaluate([heads], [sample(truth)], geometry).metrics()
        for heads in (truth, turned, mean_head(truth))
    ]
    assert [r["nme_aligned"] for r in results[:2]] == pytest.approx([0, 0], abs=1e-3)
    assert results[2]["nme_aligned"] > 1.0
    assert results[1]["nme_bbox"] > 1.0
    assert [r["shape_correlation"] for r in results] == pytest.approx([1, 1, 0])
    assert [r["expression_correlation"] for r in results] == pytest.approx([1, 1, 0])
    # The faces of others with the right expressions.
    flame = flame.copy()
    flame[:, :5] *= -1
    others = evaluate([Heads(truth.boxes_xyxy, truth.scores, flame)], [sample(truth)], geometry)
    assert others.metrics()["shape_correlation"] == pytest.approx(-1)
    assert others.metrics()["expression_correlation"] == pytest.approx(1)


def test_heads_turned_the_wrong_way_are_counted(geometry):
    truth = make_heads(geometry, [0, 20])
    behind = make_heads(geometry, [130, 80])
    predicted = Heads(truth.boxes_xyxy, truth.scores, behind.flame)
    assert evaluate([predicted], [sample(truth)], geometry).metrics()["rotation_over_90"] == 1


def test_missed_heads_are_failures_and_ignored_heads_are_not(geometry):
    truth = make_heads(geometry, [0, 0])
    one = truth[[0]]
    figures = evaluate([one], [sample(truth)], geometry).metrics()
    assert (figures["recall"], figures["precision"], figures["num_missed"]) == (0.5, 1, 1)
    assert figures["failure_rate"] == 0.5
    forgiven = evaluate([one], [sample(truth, [False, True])], geometry)
    assert forgiven.metrics()["recall"] == 1
    assert forgiven.num_ignored == 1


def test_unsure_predictions_only_count_for_average_precision(geometry):
    truth = make_heads(geometry, [0])
    unsure = Heads(truth.boxes_xyxy, [0.1], truth.flame)
    figures = evaluate([unsure], [sample(truth)], geometry, operating_score=0.3).metrics()
    assert figures["ap50"] == 1
    assert figures["recall"] == 0
    assert np.isnan(figures["nme_bbox"])


def test_flawless_images_have_every_head_and_nothing_else(geometry):
    two = make_heads(geometry, [0, 0])
    one = two[[0]]
    unsure = Heads(two.boxes_xyxy, np.array([0.9, 0.2]), two.flame)
    cases = [(two, two), (one, two), (two, one), (unsure, one)]
    evaluation = evaluate([c[0] for c in cases], [sample(c[1]) for c in cases], geometry)
    assert evaluation.flawless.tolist() == [True, False, False, True]
    aside = evaluate([two], [sample(two, ignore=[False, True])], geometry)
    assert aside.flawless.tolist() == [True]


def test_nothing_predicted_and_nothing_there(geometry):
    truth = make_heads(geometry, [0])
    samples = [sample(truth), sample(Heads.empty(), name="b")]
    evaluation = evaluate([Heads.empty(), Heads.empty()], samples, geometry)
    assert evaluation.metrics()["ap50"] == 0
    assert evaluation.metrics()["failure_rate"] == 1
    with pytest.raises(ValueError, match="1 predictions for 2 samples"):
        evaluate([Heads.empty()], samples, geometry)


def test_intervals_are_those_of_resampled_images(geometry):
    yaws = np.arange(40.0)
    truth = [make_heads(geometry, [yaw]) for yaw in yaws]
    frontal = [always_frontal(heads, geometry) for heads in truth]
    evaluation = evaluate(frontal, [sample(t) for t in truth], geometry)
    low, high = evaluation.intervals(np.random.default_rng(0), 400)["rotation_deg"]
    mean = evaluation.metrics()["rotation_deg"]
    assert mean == pytest.approx(19.5, abs=0.1)
    # A mean of 40 draws, by the central limit theorem.
    half = 1.96 * yaws.std() / np.sqrt(len(yaws))
    assert (mean - low, high - mean) == pytest.approx((half, half), rel=0.15)


def test_baselines_keep_boxes_and_replace_what_they_say(geometry):
    heads = make_heads(geometry, [40, -40])
    heads.flame[:, :50] = 1.0
    neutral = mean_head(heads)
    assert (neutral.flame[:, :403] == 0).all()
    assert (neutral.flame[:, 403:] == heads.flame[:, 403:]).all()
    frontal = always_frontal(heads, geometry)
    assert geometry.euler_deg(frontal.flame) == pytest.approx(np.zeros((2, 3)), abs=1e-3)
    points = geometry.vertices_px(frontal.flame)
    fitted = np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1)
    assert fitted[:, [1, 3]] == pytest.approx(heads.boxes_xyxy[:, [1, 3]], abs=0.05)
    assert len(always_frontal(Heads.empty(), geometry)) == 0


def test_cells():
    metric = Metric("ap50", "AP50", "↑", "{:.2f}")
    assert cell(metric, {"ap50": 0.5, "ap50_low": 0.4, "ap50_high": 0.6}) == "0.50 [0.40, 0.60]"
    assert cell(metric, {}) == "n/a"


def test_report_holds_the_metrics_in_both_forms(tmp_path):
    figures = {"pseudo-labels": {m.name: 1.5 for m in METRICS}, "always frontal": {}}
    written = write_report(
        tmp_path,
        figures,
        {"yaw": pd.DataFrame({"group": ["0 to 30"], "heads": [7]})},
        {"recall": "0.901"},
        {"Successes": tmp_path / "images" / "good.jpg"},
        {
            "protocol": "p/1",
            "ground_truth": "exact",
            "num_images": 3,
            "num_heads": 7,
            "num_ignored": 1,
        },
        {"seed": "1"},
        {"Calibration": "<svg><text>0.3</text></svg>"},
        {"yaw": "few heads", "Successes": "chosen"},
    )
    for path in written.values():
        text = path.read_text()
        for expected in (
            "pseudo-labels", "1.500", "0 to 30", "0.901", "images/good.jpg", "p/1", "Calibration",
            "few heads", "chosen",
        ):  # fmt: skip
            assert expected in text, (path, expected)
    assert "<svg><text>0.3</text></svg>" in written["html"].read_text()
    assert "![Calibration](charts/01.svg)" in written["markdown"].read_text()
    assert (tmp_path / "charts" / "01.svg").read_text() == "<svg><text>0.3</text></svg>"
    table = [line for line in written["markdown"].read_text().splitlines() if line.startswith("|")]
    assert len(table) == 2 + len(METRICS) + 3
    read = read_group(written["markdown"], "yaw")
    assert read.to_dict("list") == {"group": ["0 to 30"], "heads": ["7"]}
    assert read_group(written["markdown"], "size").empty
    assert results_frame(figures).shape == (len(METRICS), 2)


def test_one_file_with_its_images_says_when_it_was_made(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a&b.jpg").write_bytes(b"pixels")
    page = tmp_path / "report.html"
    page.write_text('<img src="images/a&amp;b.jpg" alt="x"><table><!-- made --></table>')
    text = standalone(page, {"commit": "abc<1>"})
    assert '<img src="data:image/jpeg;base64,cGl4ZWxz" alt="x">' in text
    assert "<tr><td>commit</td><td>abc&lt;1&gt;</td></tr>" in text
    page.write_text("<table></table>")
    with pytest.raises(ValueError, match="expected one line '<!-- made -->'; make the stage again"):
        standalone(page, {})


def test_annotated_heads_without_parameters_carry_nan():
    rows = pd.DataFrame(
        {
            "bbox_xywh": [np.array([1, 2, 3, 4]), np.array([0, 0, 9, 9])],
            "score": [0.9, 0.8],
            "flame": [np.zeros(413, np.float32), None],
        }
    )
    heads = annotated_heads(rows)
    assert heads.boxes_xyxy[0].tolist() == [1, 2, 4, 6]
    assert np.isfinite(heads.flame).all(axis=1).tolist() == [True, False]
    assert len(annotated_heads(rows.iloc[:0])) == 0


def test_small_heads_are_outlined_and_large_ones_shaded(geometry):
    image = np.full((160, 320, 3), 90, np.uint8)
    heads = make_heads(geometry, [30])
    large = draw_heads(image, heads, geometry, ("mesh",))
    assert (large != draw_heads(image, heads, geometry, ("contour",))).any()
    small = Heads(heads.boxes_xyxy.copy(), heads.scores, heads.flame.copy())
    small.boxes_xyxy[:, 2:] = small.boxes_xyxy[:, :2] + 40
    small.flame[:, 412] *= 0.3
    drawn = draw_heads(image, small, geometry, ("mesh",))
    assert (drawn == draw_heads(image, small, geometry, ("contour",))).all()
    assert (drawn != image).any()


@pytest.mark.parametrize("style", ["box", "mesh", "contour", "landmarks", "pose"])
def test_every_style_draws_on_the_head_and_nowhere_else(geometry, style):
    image = np.full((160, 320, 3), 90, np.uint8)
    heads = make_heads(geometry, [30])
    drawn = draw_heads(image, heads, geometry, (style,))
    changed = np.argwhere((drawn != image).any(axis=2))
    left, top, right, bottom = heads.boxes_xyxy[0]
    assert len(changed) > 20
    assert (image == 90).all()
    margin = 12
    assert changed[:, 1].min() >= left - margin
    assert changed[:, 1].max() <= right + margin
    assert changed[:, 0].min() >= top - margin
    assert changed[:, 0].max() <= bottom + margin


def test_drawing_a_head_without_parameters_draws_its_box(geometry):
    image = np.zeros((80, 80, 3), np.uint8)
    heads = Heads([[10, 10, 50, 50]], [1.0], np.full((1, 413), np.nan))
    assert (draw_heads(image, heads, geometry, ("mesh", "pose", "landmarks")) == 0).all()
    assert (draw_heads(image, heads, geometry)[10, 10:50] > 0).any()
    with pytest.raises(ValueError, match=r"styles \['smile'\] are unknown"):
        draw_heads(image, heads, geometry, ("smile",))
