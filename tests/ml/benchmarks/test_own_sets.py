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


def test_files_that_are_no_single_category_are_refused(tmp_path):
    content = json.loads((write_coco_file(tmp_path) / "annotations.json").read_text())
    content["annotations"][1]["category_id"] = 5
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    with pytest.raises(UnreadableBenchmarkFile, match=r"one category, got \['4', '5'\]"):
        list(read_coco_boxes(tmp_path, Exclusions("t")))
    (tmp_path / "annotations.json").write_text('{"images": []}')
    with pytest.raises(UnreadableBenchmarkFile, match="lacks annotations"):
        list(read_coco_boxes(tmp_path, Exclusions("t")))
