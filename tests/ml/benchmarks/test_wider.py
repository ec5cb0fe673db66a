import json

import numpy as np
import pytest

from ml.benchmarks.files import MissingBenchmarkFile, UnreadableBenchmarkFile
from ml.benchmarks.predictions import HeadPredictions, PredictionError, open_predictions
from ml.benchmarks.scoring import score
from ml.benchmarks.wider import WiderPredictions, read_wider, write_wider_text
from ml.records.exclusions import Exclusions
from tests.benchmark_sets.boxes import WIDER_FACES, write_wider

FIRST = "0--Parade/0_Parade_marchingband_1_465"
SECOND = "0--Parade/0_Parade_Parade_0_317"
THIRD = "2--Demonstration/2_Demonstration_Protesters_2_231"


def boxes(image, rows=None):
    event, file = image.split("/")
    xywh = np.array(WIDER_FACES[event][file], float)[:, :4]
    xywh = xywh if rows is None else xywh[rows]
    return np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)


def scored(tmp_path, predictions, protocol=None, truth=None):
    folder = tmp_path / "predictions"
    for image, (xyxy, scores) in predictions.items():
        write_wider_text(folder, image, HeadPredictions(np.array(scores, float), xyxy))
    root = truth or write_wider(tmp_path / "wider", images=False)
    return score("wider", root, folder, protocol, resamples=20)


def test_text_and_mat_say_the_same(tmp_path):
    mats, texts = Exclusions("t"), Exclusions("t")
    from_mat = list(read_wider(write_wider(tmp_path / "a"), mats))
    from_text = list(read_wider(write_wider(tmp_path / "b", mat=False), texts))
    assert [s.sample_id for s in from_mat] == [FIRST, SECOND, THIRD]
    for one, other in zip(from_mat, from_text, strict=True):
        assert one.sample_id == other.sample_id
        np.testing.assert_array_equal(one.truth.boxes_xyxy, other.truth.boxes_xyxy)
        np.testing.assert_array_equal(one.truth.ignored, other.truth.ignored)
    assert not from_text[0].truth.kept
    np.testing.assert_array_equal(from_mat[0].truth.kept["medium"], [True, True, False])
    np.testing.assert_array_equal(from_mat[1].truth.ignored, [True, True])
    # the row that stands for "no face" is no broken box
    for rows in (mats, texts):
        frame = rows.to_frame()
        assert list(frame["sample_id"]) == [f"{SECOND}#2"]
        assert list(frame["reason"]) == ["damaged_box"]
    assert from_mat[0].load_image().shape == (160, 200, 3)


def test_a_perfect_run_scores_one_in_every_difficulty(tmp_path):
    result = scored(tmp_path, {FIRST: (boxes(FIRST), [0.9, 0.8, 0.7])})
    assert result.scores.metrics == {"ap_easy": 1.0, "ap_medium": 1.0, "ap_hard": 1.0}
    assert result.scores.counts["num_missed_hard"] == 0
    assert result.scores.intervals["ap_hard"][1] == 1.0


def test_equal_scores_give_a_number(tmp_path):
    result = scored(tmp_path, {FIRST: (boxes(FIRST), [0.5, 0.5, 0.5])})
    assert result.scores.metrics["ap_hard"] == 1.0


def test_a_missing_face_costs_its_recall(tmp_path):
    result = scored(tmp_path, {FIRST: (boxes(FIRST, [0, 2]), [0.9, 0.8])})
    assert result.scores.metrics["ap_easy"] == 1.0
    assert result.scores.metrics["ap_medium"] == pytest.approx(0.5)
    assert result.scores.metrics["ap_hard"] == pytest.approx(2 / 3)
    assert result.scores.counts["num_missed_hard"] == 1


def test_a_second_hit_is_wrong(tmp_path):
    found = boxes(FIRST, [0, 0, 1, 2])
    result = scored(tmp_path, {FIRST: (found, [0.9, 0.8, 0.7, 0.6])})
    # recall 1/3 at precision 1, then 2/3 at 2/3 and 3/3 at 3/4: made monotone, 3/4
    assert result.scores.metrics["ap_hard"] == pytest.approx(1 / 3 + 2 / 3 * 3 / 4)
    # on easy only the first face counts, the others are neither right nor wrong
    assert result.scores.metrics["ap_easy"] == 1.0


def test_faces_that_are_not_asked_for_and_empty_images(tmp_path):
    found = {
        FIRST: (boxes(FIRST), [0.9, 0.8, 0.7]),
        SECOND: (boxes(SECOND, [0]), [1.0]),
        THIRD: (np.array([[5.0, 5, 60, 60]]), [0.95]),
    }
    result = scored(tmp_path, found)
    # the invalid face is neutral although it comes first; the one in the empty image is wrong
    hard = 3 / 4
    assert result.scores.metrics["ap_hard"] == pytest.approx(hard)
    assert result.scores.metrics["ap_easy"] == pytest.approx(1 / 2)


def test_boxes_reach_one_pixel_further(tmp_path):
    # 8 x 9 is 9 x 10 here; a box of 8 x 4 covers 45 of these 90 pixels, but 32 of 72 otherwise
    half = np.array([[150.0, 100, 158, 104]])
    result = scored(
        tmp_path, {FIRST: (np.concatenate([boxes(FIRST, [0, 1]), half]), [0.9, 0.8, 0.7])}
    )
    assert result.scores.metrics["ap_hard"] == 1.0


def test_the_mean_over_all_boxes_ignores_invalid_faces(tmp_path):
    found = {FIRST: (boxes(FIRST), [0.9, 0.8, 0.7]), SECOND: (boxes(SECOND, [0]), [1.0])}
    result = scored(tmp_path, found, "coco", write_wider(tmp_path / "text", mat=False))
    assert result.scores.metrics == {"ap50": pytest.approx(1.0), "ap50_95": pytest.approx(1.0)}
    assert result.scores.counts["num_ignored"] == 1
    with pytest.raises(PredictionError, match="need wider_face_val"):
        scored(tmp_path, found, truth=tmp_path / "text")


def test_predictions_of_no_image_of_the_set_are_told(tmp_path):
    found = {FIRST: (boxes(FIRST), [1, 1, 1]), "0--Parade/elsewhere": (boxes(FIRST), [1, 1, 1])}
    result = scored(tmp_path, found)
    assert result.scores.counts["num_unknown_images"] == 1
    (tmp_path / "other").mkdir()
    with open_predictions(tmp_path / "other" / "p.jsonl", "x") as writer:
        writer.add("elsewhere", HeadPredictions())
    with pytest.raises(PredictionError, match="none of the 1 predicted images is in the set"):
        score("wider", tmp_path / "wider", tmp_path / "other" / "p.jsonl")


def test_prediction_files_of_another_form(tmp_path):
    (tmp_path / "event").mkdir()
    with pytest.raises(PredictionError, match="found none"):
        WiderPredictions(tmp_path)
    path = tmp_path / "event" / "a.txt"
    for text, message in (
        ("a\n2\n1 2 3 4 0.5\n", "ends where x y w h score is expected"),
        ("a\n1\n1 2 3 4\n", r"line 3: expected 5 numbers \(x y w h score\), got '1 2 3 4'"),
        ("a\nmany\n", "line 2: expected the number of its detections, got 'many'"),
        ("a\n0\nb\n0\n", "expected one image, got 2"),
    ):
        path.write_text(text)
        with pytest.raises(PredictionError, match=message):
            WiderPredictions(tmp_path)["event/a"]
    path.write_text("a\n0\n")
    assert len(WiderPredictions(tmp_path)["event/a"]) == 0


def test_damaged_or_missing_ground_truth(tmp_path):
    with pytest.raises(MissingBenchmarkFile, match="WIDER FACE ground truth: not found below"):
        list(read_wider(tmp_path, Exclusions("t")))
    root = write_wider(tmp_path / "wider", images=False)
    keep = root / "eval_tools" / "ground_truth" / "wider_hard_val.mat"
    keep.write_bytes(keep.read_bytes()[:300])
    with pytest.raises(UnreadableBenchmarkFile, match=r"wider_hard_val\.mat: "):
        list(read_wider(root, Exclusions("t")))


def test_the_real_files_have_every_published_count(reference, tmp_path):
    with open_predictions(tmp_path / "p.jsonl", "perfect") as writer:
        for sample in read_wider(reference / "wider", Exclusions("t")):
            writer.add(sample.sample_id, HeadPredictions(boxes_xyxy=sample.truth.boxes_xyxy))
    result = score("wider", reference / "wider", tmp_path / "p.jsonl", resamples=2)
    assert result.differences == ()
    counts = result.scores.counts
    published = {
        "num_events": 61, "num_images": 3226, "num_rows": 39708, "num_images_without_face": 4,
        "num_degenerate": 7, "num_invalid": 585, "num_faces_easy": 7211,
        "num_faces_medium": 13319, "num_faces_hard": 31958, "num_images_without_easy": 622,
        "num_images_without_medium": 207, "num_images_without_hard": 7,
    }  # fmt: skip
    assert {name: counts[name] for name in published} == published
    # two faces of the set have the very same box, of which the tool lets only one be found
    assert counts["num_missed_hard"] == 2
    assert min(result.scores.metrics.values()) > 0.9998
    json.dumps(result.as_json(), allow_nan=False)
