import json

import numpy as np
import pytest

from ml.benchmarks.coco import read_coco_boxes
from ml.benchmarks.files import MissingBenchmarkFile, UnreadableBenchmarkFile
from ml.benchmarks.predictions import HeadPredictions, open_predictions
from ml.benchmarks.renders import read_renders
from ml.benchmarks.scoring import score
from ml.records.exclusions import Exclusions
from tests.benchmark_sets.boxes import write_image
from tests.benchmark_sets.ours import write_coco_file, write_renders


def write(path, predictions):
    with open_predictions(path, "test") as writer:
        for image, boxes in predictions.items():
            writer.add(image, HeadPredictions(boxes_xyxy=np.array(boxes, float)))
    return path


def test_renders_of_the_test_split_with_what_is_hidden_ignored(tmp_path):
    samples = list(read_renders(write_renders(tmp_path), Exclusions("t")))
    assert [s.sample_id for s in samples] == ["r0", "r2"]
    np.testing.assert_array_equal(samples[0].truth.boxes_xyxy, [[10, 10, 40, 50], [60, 20, 90, 60]])
    np.testing.assert_array_equal(samples[0].truth.ignored, [False, True])
    assert samples[1].load_image()[0, 0].tolist() == [80, 80, 80]
    path = write(tmp_path / "p.jsonl", {"r0": [[10, 10, 40, 50], [60, 20, 90, 60]]})
    result = score("renders", tmp_path, path, resamples=5)
    assert result.scores.metrics["ap50"] == pytest.approx(1.0)
    assert result.scores.counts["num_ignored"] == 1
    with pytest.raises(MissingBenchmarkFile, match="renders: no tables"):
        list(read_renders(tmp_path / "none", Exclusions("t")))


def test_a_coco_file_of_any_one_category(tmp_path):
    exclusions = Exclusions("t")
    write_image(tmp_path / "images" / "sub" / "7.jpg")
    samples = list(read_coco_boxes(write_coco_file(tmp_path), exclusions))
    assert [s.sample_id for s in samples] == ["sub/7.jpg", "sub/9.jpg"]
    np.testing.assert_array_equal(samples[0].truth.boxes_xyxy[0], [-5, -5, 25, 25])
    np.testing.assert_array_equal(samples[0].truth.ignored, [False, True])
    assert len(samples[1].truth) == 0
    assert samples[0].load_image().shape == (160, 200, 3)
    assert "no area" in exclusions.to_frame()["detail"][0]
    # a false alarm in the empty image comes first: precision is one half
    path = tmp_path / "p.jsonl"
    with open_predictions(path, "test") as writer:
        writer.add("sub/7.jpg", HeadPredictions(np.array([0.5]), np.array([[-5.0, -5, 25, 25]])))
        writer.add("sub/9.jpg", HeadPredictions(np.array([0.9]), np.array([[3.0, 3, 9, 9]])))
    result = score("coco", tmp_path, path, resamples=5)
    assert result.scores.metrics["ap50"] == pytest.approx(0.5)
    assert (result.scores.counts["num_faces"], result.scores.counts["num_missed"]) == (1, 0)


def test_an_empty_set_of_predictions_finds_nothing(tmp_path):
    write_coco_file(tmp_path)
    result = score("coco", tmp_path, write(tmp_path / "p.jsonl", {}), resamples=5)
    assert result.scores.metrics["ap50"] == 0
    assert result.scores.counts["num_missed"] == 1


def write_scored(path, predictions):
    with open_predictions(path, "test") as writer:
        for image, (boxes, scores) in predictions.items():
            writer.add(image, HeadPredictions(np.array(scores, float), np.array(boxes, float)))
    return path


def two_faces(tmp_path):
    """Two images, each with a face of 100 x 100 px."""
    content = {
        "images": [{"id": i, "file_name": f"{i}.jpg"} for i in (1, 2)],
        "categories": [{"id": 1, "name": "head"}],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 1, "bbox": [0, 0, 100, 100]} for i in (1, 2)
        ],
    }
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    return tmp_path


RIGHT, LOW, AWAY = [0, 0, 100, 100], [0, 0, 100, 62], [300, 300, 400, 400]


@pytest.mark.parametrize(
    ("first", "second", "ap50", "ap50_95"),
    [
        pytest.param(([RIGHT], [0.9]), ([RIGHT], [0.8]), 1, 1, id="perfect"),
        # an overlap of 0.62 is one at 0.5, 0.55 and 0.6 only
        pytest.param(([LOW], [0.9]), ([LOW], [0.8]), 1, 0.3, id="known error"),
        # half of the recalls, of 0 to 1 in steps of 0.01, are reached
        pytest.param(([RIGHT], [0.9]), ([], []), 51 / 101, 51 / 101, id="missing"),
        # right, wrong, right: 1 up to a recall of one half, then 2/3
        pytest.param(
            ([RIGHT, RIGHT], [0.9, 0.8]),
            ([RIGHT], [0.7]),
            (51 + 50 * 2 / 3) / 101,
            (51 + 50 * 2 / 3) / 101,
            id="second hit",
        ),
        # wrong, right, right, in the order in which equals come
        pytest.param(
            ([AWAY, RIGHT], [0.5, 0.5]), ([RIGHT], [0.5]), 2 / 3, 2 / 3, id="equal scores"
        ),
    ],
)
def test_coco_by_hand(tmp_path, first, second, ap50, ap50_95):
    root = two_faces(tmp_path)
    path = write_scored(tmp_path / "p.jsonl", {"1.jpg": first, "2.jpg": second})
    metrics = score("coco", root, path, resamples=2).scores.metrics
    assert metrics["ap50"] == pytest.approx(ap50)
    assert metrics["ap50_95"] == pytest.approx(ap50_95)


def test_files_that_are_no_single_category_are_refused(tmp_path):
    content = json.loads((write_coco_file(tmp_path) / "annotations.json").read_text())
    content["annotations"][1]["category_id"] = 5
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    with pytest.raises(UnreadableBenchmarkFile, match=r"one category, got \['4', '5'\]"):
        list(read_coco_boxes(tmp_path, Exclusions("t")))
    (tmp_path / "annotations.json").write_text('{"images": []}')
    with pytest.raises(UnreadableBenchmarkFile, match="missing annotations"):
        list(read_coco_boxes(tmp_path, Exclusions("t")))
