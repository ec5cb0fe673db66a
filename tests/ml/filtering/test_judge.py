"""Judging: verdicts with their numbers, and no more than three batched passes."""

from __future__ import annotations

import numpy as np
import pytest

from ml.filtering.judge import DetectionLimits, Judge, Judgement, RulesConfig
from ml.filtering.rules import Finding
from tests.fixtures.filter_fakes import LopsidedDetector, SquareDetector, draw_image

ONE = draw_image((50, 30, 20))
TWO = draw_image((20, 30, 15), (80, 30, 15))
NONE = draw_image()


class FixedFaces:
    name = "fixed"

    def __init__(self, *boxes):
        self.boxes = np.array(boxes, np.float32).reshape(-1, 4)

    def detect_faces(self, images):
        return [self.boxes for _ in images]


def judge_of(detector, faces=None, **rules):
    return Judge(detector, faces, DetectionLimits(), RulesConfig(**rules))


def judge(images, detector=None, known=None, faces=None, **rules):
    names = [f"s{i}" for i in range(len(images))]
    return judge_of(detector or SquareDetector(), faces, **rules).judge(names, images, known)


def test_a_stable_image_is_kept_with_its_numbers():
    (one, two) = judge([ONE, TWO])
    assert (one.keep, one.finding.detail, one.num_heads_halves) == (True, "1 heads", -1)
    assert (two.keep, two.num_heads_halves, two.column) == (True, 2, 60)
    assert two.stability == pytest.approx(1)
    assert two.num_faces_missed == -1


def test_three_passes_and_both_halves_in_one():
    detector = SquareDetector()
    judge([ONE, TWO, NONE, TWO], detector)
    assert [len(shapes) for shapes in detector.calls] == [4, 4, 4]
    # The last pass holds two parts of each image with two heads, each as its own draw_image.
    assert detector.calls[2] == [(80, 60, 3)] * 4


def test_known_boxes_save_the_first_pass():
    known = [SquareDetector._find(image)[0] for image in (ONE, TWO)]
    detector = SquareDetector()
    judged = judge([ONE, TWO], detector, known)
    assert len(detector.calls) == 2
    again = judge([ONE, TWO])
    assert [j.to_json() for j in judged] == [j.to_json() for j in again]


def test_without_anything_to_cut_there_are_two_passes():
    detector = SquareDetector()
    judge([ONE, NONE], detector)
    assert len(detector.calls) == 2


def test_no_images_no_passes():
    detector = SquareDetector()
    assert judge([], detector) == []
    assert detector.calls == []


def test_rule_1_no_head():
    (judgement,) = judge([NONE])
    assert judgement.finding.reason == "no_head"
    assert judgement.stability is None


def test_rule_2_a_detector_that_sees_only_one_side():
    lone_left = draw_image((5, 30, 15), (70, 30, 15))
    (judgement,) = judge([lone_left], LopsidedDetector())
    assert judgement.finding.reason == "flip_count"
    assert judgement.finding.detail == "1 heads, 2 on the mirrored image"
    # Mirrored back, the second pass shows where the missed head is.
    assert sorted(judgement.boxes_flipped[:, 0].tolist()) == [5, 70]
    assert judgement.stability == pytest.approx(1)


def test_rule_3_a_face_beside_all_heads():
    faces = FixedFaces((52, 35, 60, 45), (100, 5, 110, 15))
    (judgement,) = judge([ONE], faces=faces)
    assert judgement.finding.reason == "face_without_head"
    assert judgement.num_faces_missed == 1
    (covered,) = judge([ONE], faces=FixedFaces((52, 35, 60, 45)))
    assert covered.keep
    assert covered.num_faces_missed == 0


def test_rule_4_a_head_that_needs_its_surroundings():
    # Cut at column 60, each part is 60 px wide: the left quarter of the right part hides a head.
    image = draw_image((40, 30, 10), (66, 30, 10))
    (judgement,) = judge([image], LopsidedDetector())
    assert judgement.finding.reason == "cut_count"
    assert judgement.finding.detail == "2 heads, 1 when cut at column 60 (1 on the left)"
    assert judgement.num_heads_halves == 1


def test_rule_4_parts_are_reported_in_pixels_of_the_whole_image():
    (judgement,) = judge([TWO])
    np.testing.assert_array_equal(judgement.boxes_parts, judgement.boxes)


def test_the_paper_removes_what_the_gap_keeps():
    # One head on the middle line: neither half shows it whole.
    (gap,) = judge([ONE])
    (half,) = judge([ONE], cut="half")
    assert gap.keep
    assert half.finding.reason == "cut_count"
    assert half.finding.detail == "1 heads, 0 when cut at column 60 (0 on the left)"


class FadingDetector(SquareDetector):
    """Sees squares in the left half of an image at a lower score."""

    @staticmethod
    def _find(image):
        boxes, _ = SquareDetector._find(image)
        right = boxes[:, 0] > image.shape[1] / 2
        return boxes, np.where(right, 0.7, 0.3).astype(np.float32)


def test_a_weak_sighting_confirms_unless_the_papers_counts_are_asked_for():
    image = draw_image((80, 30, 15))
    (confirmed,) = judge([image], FadingDetector(), confirm_threshold=0.25)
    assert confirmed.keep
    assert confirmed.num_heads_flipped == 1
    (plain,) = judge([image], FadingDetector(), confirm_threshold=0.5)
    assert plain.finding.reason == "flip_count"
    assert plain.num_heads_flipped == 0


def test_a_judgement_survives_the_work_folder():
    for judgement in judge([ONE, TWO, NONE], faces=FixedFaces((1.1, 2.7, 30, 40))):
        again = Judgement.from_json(judgement.to_json())
        assert again.to_json() == judgement.to_json()
        assert again.boxes.dtype == np.float32
        np.testing.assert_array_equal(again.boxes_flipped, judgement.boxes_flipped)


class RedScreen:
    name = "red:0"

    def screen(self, images):
        return [Finding("unsafe_class", "red") if i[0, 0, 0] > 200 else None for i in images]


def test_a_screen_comes_before_the_rules():
    red = draw_image((50, 30, 20))
    red[:4, :4] = (255, 0, 0)
    detector = SquareDetector()
    limits, rules = DetectionLimits(), RulesConfig(confirm_threshold=0.5)
    judge = Judge(detector, None, limits, rules, (RedScreen(),))
    found = judge.judge(["ok", "red", "none"], [draw_image((50, 30, 20)), red, draw_image()])
    assert [j.finding.reason for j in found] == ["keep", "unsafe_class", "no_head"]
    assert [j.keep for j in found] == [True, False, False]


def test_rule_4_gives_every_image_its_own_parts():
    wide = draw_image((10, 5, 12), (30, 40, 10), (90, 30, 14))
    lone = draw_image((50, 30, 20))
    other = draw_image((8, 50, 18), (70, 10, 16))
    found = judge([lone, wide, other])
    assert [j.column is not None for j in found] == [False, True, True]
    for judgement in found[1:]:
        assert judgement.keep
        np.testing.assert_array_equal(judgement.boxes_parts, judgement.boxes)
    assert [j.num_heads_halves for j in found] == [-1, 3, 2]


class EdgeDetector(SquareDetector):
    """Takes the right border of a narrow image for a head."""

    @staticmethod
    def _find(image):
        boxes, scores = SquareDetector._find(image)
        if image.shape[1] < 100:
            width = image.shape[1]
            boxes = np.concatenate([boxes, np.float32([[width - 20, 60, width - 5, 75]])])
            scores = np.append(scores, np.float32(0.9))
        return boxes, scores


def test_more_heads_in_the_parts_are_as_wrong_as_fewer():
    (judgement,) = judge([TWO], EdgeDetector())
    assert judgement.finding.reason == "cut_count"
    assert judgement.num_heads_halves == 4
