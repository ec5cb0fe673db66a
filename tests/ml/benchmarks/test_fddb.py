import cv2
import numpy as np
import pytest

from ml.benchmarks.fddb import (
    read_fddb,
    read_fddb_predictions,
    write_fddb_text,
)
from ml.benchmarks.files import MissingBenchmarkFile, UnreadableBenchmarkFile
from ml.benchmarks.metrics_fddb import ellipse_overlaps, region_overlaps
from ml.benchmarks.predictions import HeadPredictions, PredictionError
from ml.benchmarks.scoring import score
from ml.imaging.boxes import ellipse_boxes
from ml.records.exclusions import Exclusions
from tests.benchmark_sets.boxes import FDDB_FACES, fddb_boxes, write_fddb

ONE, TWO, LAST = FDDB_FACES


def scored(tmp_path, predictions, protocol=None, **layout):
    path = tmp_path / "detections.txt"
    write_fddb_text(
        path, [(n, HeadPredictions(np.array(s, float), b)) for n, (b, s) in predictions.items()]
    )
    return score("fddb", write_fddb(tmp_path / "fddb", **layout), path, protocol, resamples=20)


def perfect():
    scores = iter(np.linspace(0.9, 0.5, 4))
    return {
        name: (fddb_boxes(name), [next(scores) for _ in rows]) for name, rows in FDDB_FACES.items()
    }


def by_drawing(box, ellipse, size=None, pad=100):
    """The same by masks: drawn on a canvas with a margin, of which the image is cut out."""
    height, width = size or (300, 300)
    masks = np.zeros((2, height + 2 * pad, width + 2 * pad), np.uint8)
    corners = np.rint(box).astype(int) + pad
    cv2.rectangle(masks[0], tuple(corners[:2].tolist()), tuple(corners[2:].tolist()), 1, -1)
    a, b, angle, x, y = ellipse
    centre = (round(x) + pad, round(y) + pad)
    cv2.ellipse(masks[1], centre, (int(a), int(b)), np.degrees(angle), 0, 360, 1, -1)
    masks = masks[:, pad:-pad, pad:-pad] if size else masks[:, pad:, pad:]
    both = (masks[0] & masks[1]).sum()
    return both / max((masks[0] | masks[1]).sum(), 1)


def test_images_come_in_the_order_of_the_folds(tmp_path):
    samples = list(read_fddb(write_fddb(tmp_path), Exclusions("t")))
    assert [s.sample_id for s in samples] == [ONE, TWO, LAST]
    assert [int(s.truth.attributes["fold"][0]) for s in samples] == [1, 1, 2]
    np.testing.assert_allclose(samples[1].truth.ellipses, FDDB_FACES[TWO], atol=1e-6)
    assert samples[0].load_image().shape == (160, 200, 3)


def test_the_box_of_an_ellipse():
    flat, upright = (4.0, 2.0, 0.0, 10, 20), (4.0, 2.0, np.pi / 2, 10, 20)
    np.testing.assert_allclose(
        ellipse_boxes(np.array([flat, upright])), [[6, 18, 14, 22], [8, 16, 12, 24]], atol=1e-9
    )
    slanted = (3.0, 3.0, 0.7, 0, 0)
    np.testing.assert_allclose(ellipse_boxes(np.array([slanted])), [[-3, -3, 3, 3]])


def test_perfect_boxes_find_every_face_and_cover_an_ellipse_s_part_of_its_box(tmp_path):
    result = scored(tmp_path, perfect())
    metrics = result.scores.metrics
    assert {v for k, v in metrics.items() if k.startswith("disc")} == {1.0}
    # an ellipse covers pi / 4 of its box if that lies along it, less if it is slanted
    assert 0.68 < metrics["cont_tpr"] < np.pi / 4
    assert (result.scores.counts["num_missed"], result.scores.counts["num_faces"]) == (0, 4)
    np.testing.assert_allclose(result.scorer.curves.discrete, [0.25, 0.5, 0.75, 1.0])
    assert result.scorer.curves.lines("discrete")[0] == "0.250000 0 0.9"
    assert len(result.scorer.curves.lines("continuous")) == 4


def ellipses(name, faces=FDDB_FACES):
    return np.array(faces[name], float)


def scored_ellipses(tmp_path, predictions, protocol=None, **layout):
    path = tmp_path / "ellipses.txt"
    write_fddb_text(
        path,
        [(n, HeadPredictions(np.array(s, float), ellipses=e)) for n, (e, s) in predictions.items()],
    )
    return score("fddb", write_fddb(tmp_path / "fddb", **layout), path, protocol, resamples=5)


@pytest.mark.parametrize("images", [True, False])
def test_ellipses_as_detections_cover_every_face_whole(tmp_path, images):
    found = {n: (ellipses(n), np.linspace(0.9, 0.5, len(FDDB_FACES[n]))) for n in FDDB_FACES}
    result = scored_ellipses(tmp_path, found, images=images)
    assert set(result.scores.metrics.values()) == {1.0}
    coco = scored_ellipses(tmp_path, found, "coco", images=images).scores.metrics
    assert coco == {"ap50": pytest.approx(1.0), "ap50_95": pytest.approx(1.0)}


def test_ellipses_of_a_known_error_a_missing_head_and_a_second_hit(tmp_path):
    one, two, last = (ellipses(n) for n in FDDB_FACES)
    moved = np.add(one, [0, 0, 0, 6, 0])
    found = {
        ONE: (moved, [0.9]),
        TWO: (np.concatenate([two[:1], two[:1]]), [0.8, 0.7]),
        LAST: (last, [0.6]),
    }
    result = scored_ellipses(tmp_path, found)
    counts = result.scores.counts
    assert (counts["num_missed"], counts["num_false_positives"]) == (1, 1)
    masks = np.zeros((2, 160, 200), np.uint8)
    for mask, (a, b, t, x, y) in zip(masks, (one[0], moved[0]), strict=True):
        centre = (round(x), round(y))
        cv2.ellipse(mask, centre, (int(a), int(b)), np.degrees(t), 0, 360, 1, -1)
    overlap = (masks[0] & masks[1]).sum() / (masks[0] | masks[1]).sum()
    assert 0.7 < overlap < 0.9
    np.testing.assert_allclose(
        result.scorer.curves.continuous, np.cumsum([overlap, 1, 0, 1]) / 4, atol=1e-9
    )


@pytest.mark.parametrize("size", [(160, 200), None])
def test_an_ellipse_that_leaves_the_image_is_cut_where_the_image_ends(size):
    # centred on the right border of a 200 px wide image: 21 of its 41 columns are inside
    whole = np.array([[20.0, 20, 0, 199, 80]])
    inside = np.array([[20.0, 20, 0, 189, 80]])
    canvas = np.zeros((2, 160, 400), np.uint8)
    cv2.ellipse(canvas[0], (199, 80), (20, 20), 0, 0, 360, 1, -1)
    cv2.ellipse(canvas[1], (189, 80), (20, 20), 0, 0, 360, 1, -1)
    if size:
        canvas = canvas[:, :, :200]
    expected = (canvas[0] & canvas[1]).sum() / (canvas[0] | canvas[1]).sum()
    assert ellipse_overlaps(inside, whole, size)[0, 0] == pytest.approx(expected)
    left_of_it = np.array([[10.0, 10, 0, -50, 50]])
    assert ellipse_overlaps(left_of_it, left_of_it, size)[0, 0] == 0
    assert ellipse_overlaps(np.zeros((0, 5)), whole, size).shape == (0, 1)
    assert ellipse_overlaps(whole, np.zeros((0, 5)), size).shape == (1, 0)


def test_impossible_ellipses(tmp_path):
    root = write_fddb(tmp_path / "f", faces={ONE: FDDB_FACES[ONE], "a/b": [(9, 9, 0, 1e9, 50)]})
    path = tmp_path / "d.txt"
    write_fddb_text(path, [(ONE, HeadPredictions(ellipses=ellipses(ONE)))])
    result = score("fddb", root, path, resamples=2)
    assert result.excluded == {"damaged_annotation": 1}
    assert "an ellipse reaches 1000000009 px far" in result.exclusions.rows()[0]["detail"]
    assert result.scores.counts["num_faces"] == 1
    for row, message in (
        ("0 5 0 10 10 0.5", "half axes over 0 px"),
        ("5 5 0 10 0.5", None),
        ("5 5 0 10 1 1 0.5", "expected 5 numbers"),
    ):
        path.write_text(f"{ONE}\n1\n{row}\n")
        if message:
            with pytest.raises(PredictionError, match=message):
                read_fddb_predictions(path)
        else:
            assert read_fddb_predictions(path)[ONE].boxes_xyxy is not None
    path.write_text(f"{ONE}\n1\n5 5 0 2e6 10 0.5\n")
    with pytest.raises(PredictionError, match="px far"):
        score("fddb", root, path, resamples=2)


def test_coco_s_precision_is_another_metric(tmp_path):
    result = scored(tmp_path, perfect(), "coco")
    assert result.scores.metrics == {"ap50": pytest.approx(1.0), "ap50_95": pytest.approx(1.0)}


def test_a_missing_head_a_second_hit_and_an_empty_image(tmp_path):
    found = perfect()
    found[ONE] = (np.zeros((0, 4)), [])
    two = fddb_boxes(TWO)
    found[TWO] = (np.concatenate([two, two[:1]]), [0.9, 0.8, 0.7])
    result = scored(tmp_path, found)
    counts = result.scores.counts
    assert (counts["num_missed"], counts["num_false_positives"]) == (1, 1)
    curves = result.scorer.curves
    np.testing.assert_allclose(curves.discrete, [1 / 4, 2 / 4, 2 / 4, 3 / 4])
    np.testing.assert_allclose(curves.false_positives, [0, 0, 1, 1])


def test_a_hit_in_an_image_without_a_face_is_wrong(tmp_path):
    """The published lists have no such image; one's own folds may."""
    found = {**perfect(), "2003/05/05/big/img_0": (np.array([[5.0, 5, 40, 40]]), [0.95])}
    faces = {"2003/05/05/big/img_0": [], **FDDB_FACES}
    result = scored(tmp_path, found, faces=faces)
    assert (result.scores.counts["num_images"], result.scores.counts["num_faces"]) == (4, 4)
    assert result.scores.counts["num_false_positives"] == 1
    np.testing.assert_allclose(result.scorer.curves.false_positives, [1, 1, 1, 1, 1])
    np.testing.assert_allclose(result.scorer.curves.discrete, [0, 1 / 4, 2 / 4, 3 / 4, 1])


def test_equal_scores_are_one_step(tmp_path):
    found = {name: (boxes, [0.5] * len(boxes)) for name, (boxes, _) in perfect().items()}
    curves = scored(tmp_path, found).scorer.curves
    np.testing.assert_allclose(curves.discrete, [1.0])
    np.testing.assert_allclose(curves.thresholds, [0.5])


def test_the_assignment_maximises_the_sum_not_each_detection_s_own_overlap(tmp_path):
    faces = {"a/img_1": [(20, 20, 0, 60, 60), (20, 20, 0, 84, 60)], "b/img_2": [(9, 9, 0, 50, 50)]}
    # both lie nearest to the left face; the second, though weaker, is better off there
    boxes = np.array([[50.0, 40, 92, 80], [40.0, 40, 80, 80]])
    path = tmp_path / "d.txt"
    write_fddb_text(path, [("a/img_1", HeadPredictions(np.array([0.9, 0.8]), boxes))])
    root = write_fddb(tmp_path / "fddb", faces=faces)
    curves = score("fddb", root, path, resamples=2).scorer.curves
    overlaps = region_overlaps(boxes, np.array(faces["a/img_1"], float), (160, 200))
    assert overlaps.argmax(axis=1).tolist() == [0, 0]
    np.testing.assert_allclose(curves.continuous[0], overlaps[0, 0] / 3)
    np.testing.assert_allclose(curves.continuous[1], (overlaps[0, 1] + overlaps[1, 0]) / 3)


@pytest.mark.parametrize("size", [(160, 200), None])
@pytest.mark.parametrize(
    ("box", "ellipse"),
    [
        ([30.0, 30, 70, 70], (15.0, 25.0, 0.3, 50.0, 50.0)),
        ([-10.0, 40, 10, 60], (10.0, 10.0, 0.0, 0.0, 50.0)),
        ([179.0, 40, 219, 80], (20.0, 20.0, 0.0, 199.0, 60.0)),
        ([100.0, 120, 150, 190], (30.0, 40.0, -1.2, 120.0, 150.0)),
        ([0.4, 0.6, 20.5, 21.5], (12.9, 9.2, 0.1, 10.4, 10.6)),
    ],
)
def test_overlaps_are_those_of_drawn_masks_cut_at_the_image_s_border(box, ellipse, size):
    found = region_overlaps(np.array([box]), np.array([ellipse]), size)
    assert found[0, 0] == pytest.approx(by_drawing(box, ellipse, size), abs=1e-12)


def test_what_lies_outside_the_image_overlaps_nothing():
    outside = np.array([[10.0, 10, 0, -50, 50]])
    assert region_overlaps(np.array([[-60.0, 40, -40, 60]]), outside, (160, 200))[0, 0] == 0


def test_half_of_an_ellipse_outside_scores_as_much_as_the_half_inside(tmp_path):
    faces = {"a/img_1": [(10, 10, 0, 0, 50)], "b/img_2": [(9, 9, 0, 50, 50)]}
    path = tmp_path / "d.txt"
    write_fddb_text(path, [("a/img_1", HeadPredictions(boxes_xyxy=np.array([[0.0, 40, 10, 60]])))])
    curves = score("fddb", write_fddb(tmp_path / "f", faces=faces), path, resamples=2).scorer.curves
    # 11 x 21 px of the box, of which about pi / 4 are the ellipse's
    half = by_drawing([0, 40, 10, 60], faces["a/img_1"][0], (160, 200))
    assert half == pytest.approx(np.pi / 4, abs=0.02)
    assert curves.continuous[0] == pytest.approx(half / 2)
    assert curves.discrete[0] == 0.5


def test_radii_are_cut_to_whole_pixels_and_centres_rounded():
    box = np.array([[30.0, 30, 70, 70]])
    exact = region_overlaps(box, np.array([[15.0, 15, 0, 50, 50]]))
    np.testing.assert_array_equal(
        exact, region_overlaps(box, np.array([[15.9, 15.9, 0, 50.4, 49.6]]))
    )


def test_without_images_the_note_says_what_is_not_cut(tmp_path):
    result = scored(tmp_path, perfect(), images=False)
    assert "the sizes of 3 images are unknown" in result.scores.notes[-1]
    assert result.scores.metrics["disc_tpr"] == 1.0


def test_an_image_with_a_broken_ellipse_is_excluded_and_counted(tmp_path):
    faces = {**FDDB_FACES, "2003/01/18/big/img_9": [(0.0, 5.0, 0, 1, 1)]}
    path = tmp_path / "d.txt"
    write_fddb_text(path, [(ONE, HeadPredictions(boxes_xyxy=fddb_boxes(ONE)))])
    result = score("fddb", write_fddb(tmp_path / "f", faces=faces), path, resamples=2)
    assert result.excluded == {"damaged_annotation": 1}
    assert result.as_json()["num_excluded"] == 1
    assert result.scores.counts["num_images"] == 3
    assert "num_faces: found 4, published 5,171" in result.as_json()["count_differences"]


def test_files_of_another_form(tmp_path):
    with pytest.raises(MissingBenchmarkFile, match="FDDB: not found below"):
        list(read_fddb(tmp_path, Exclusions("t")))
    root = write_fddb(tmp_path / "fddb", images=False)
    (root / "FDDB-folds" / "FDDB-fold-03-ellipseList.txt").write_text("img\n1\n1 2 3 4\n")
    with pytest.raises(
        UnreadableBenchmarkFile, match=r"fold-03-ellipseList.txt, line 3: expected 6"
    ):
        list(read_fddb(root, Exclusions("t")))
    path = tmp_path / "d.txt"
    path.write_text("a\n0\na\n0\n")
    with pytest.raises(PredictionError, match="image 'a' again"):
        read_fddb_predictions(path)
    with pytest.raises(PredictionError, match="no such file"):
        read_fddb_predictions(tmp_path / "none.txt")


def test_the_real_lists_have_every_published_count(reference, tmp_path):
    path = tmp_path / "perfect.txt"
    samples = list(read_fddb(reference / "fddb", Exclusions("t")))
    write_fddb_text(
        path,
        [(s.sample_id, HeadPredictions(boxes_xyxy=s.truth.boxes_xyxy)) for s in samples],
    )
    result = score("fddb", reference / "fddb", path, resamples=2)
    assert result.differences == ()
    counts = result.scores.counts
    folds = [counts[f"num_images_fold_{fold:02d}"] for fold in range(1, 11)]
    assert folds == [290, 285, 274, 302, 298, 302, 279, 276, 259, 280]
    assert (counts["num_images"], counts["num_faces"], counts["num_missed"]) == (2845, 5171, 0)
    assert result.scores.metrics["disc_tpr"] == 1.0
    ellipses = np.concatenate([s.truth.ellipses for s in samples])
    assert (ellipses[:, 1] > ellipses[:, 0]).sum() == 1
    assert np.abs(ellipses[:, 2]).max() <= np.pi / 2 + 1e-6
    assert min(len(s.truth) for s in samples) == 1
