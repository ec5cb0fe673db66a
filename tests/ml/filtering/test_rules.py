"""The four rules and the stability metric: by hand, against a naive twin, by symmetry."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml.filtering.rules import (
    Sightings,
    check_cut,
    check_faces,
    check_flip,
    check_heads,
    confirmed_count,
    cut_column,
    cut_image,
    first_finding,
    flip_boxes,
    flip_image,
    stability,
    uncovered_faces,
)


def boxes(*rows):
    return np.array(rows, np.float32).reshape(-1, 4)


NOTHING = boxes()
corners = st.tuples(st.integers(0, 58), st.integers(1, 20))
many_boxes = st.lists(corners, max_size=6).map(
    lambda rows: boxes(*[(x, 0, min(x + w, 60), 10) for x, w in rows])
)


def test_rule_1():
    assert check_heads(0).reason == "no_head"
    assert check_heads(1) is None


def test_rule_2_names_both_counts():
    assert check_flip(3, 3) is None
    finding = check_flip(3, 2)
    assert finding.reason == "flip_count"
    assert finding.detail == "3 heads, 2 on the mirrored image"


@pytest.mark.parametrize(
    ("faces", "heads", "alone"),
    [
        (NOTHING, boxes((0, 0, 9, 9)), []),
        (boxes((0, 0, 9, 9)), NOTHING, [True]),
        (boxes((0, 0, 9, 9)), boxes((8, 8, 20, 20)), [False]),
        (boxes((0, 0, 9, 9)), boxes((9, 0, 20, 9)), [True]),
        (boxes((0, 0, 9, 9), (30, 0, 39, 9)), boxes((5, 5, 8, 8)), [False, True]),
    ],
    ids=["no face", "no head", "corner overlap", "touching edge", "one of two"],
)
def test_rule_3_any_overlap_will_do(faces, heads, alone):
    assert uncovered_faces(faces, heads).tolist() == alone
    finding = check_faces(faces, heads)
    assert (finding is not None) == any(alone)


def test_rule_3_says_where():
    finding = check_faces(boxes((0, 0, 9, 9), (30, 2, 39, 11)), boxes((0, 0, 9, 9)))
    assert finding.reason == "face_without_head"
    assert finding.detail == "1 of 2 faces without head, one at [30, 2, 39, 11]"


def test_rule_4_counts():
    assert check_cut(3, 3, 1, 50) is None
    finding = check_cut(3, 2, 1, 50)
    assert finding.reason == "cut_count"
    assert finding.detail == "3 heads, 2 when cut at column 50 (1 on the left)"


@pytest.mark.parametrize(
    ("heads", "expected"),
    [
        (NOTHING, None),
        (boxes((10, 0, 20, 9), (70, 0, 80, 9)), 50),
        (boxes((10, 0, 20, 9), (45, 0, 58, 9)), 45),
        (boxes((10, 0, 20, 9), (42, 0, 53, 9), (70, 0, 80, 9)), 53),
        (boxes((45, 0, 55, 9), (10, 0, 20, 9)), 45),
        (boxes((10, 0, 20, 9)), None),
        (boxes((40, 0, 60, 9)), None),
        (boxes((0, 0, 5, 9), (5, 0, 95, 9)), None),
        (boxes((0, 0, 100, 9)), None),
    ],
    ids=[
        "no head",
        "free middle",
        "middle crossed, left edge nearer",
        "middle crossed, right edge nearer",
        "equally near, left preferred",
        "all heads on one side",
        "a single head",
        "the gap leaves too narrow a part",
        "no free column at all",
    ],
)
def test_the_gap_by_hand(heads, expected):
    assert cut_column(heads, width=100) == expected


def test_the_paper_cuts_in_half_whatever_is_there():
    assert cut_column(boxes((40, 0, 60, 9)), width=100, form="half") == 50
    assert cut_column(NOTHING, width=101, form="half") == 50


def naive_gap(heads, width, min_part_px):
    """Walk from the middle outwards, left before right."""
    middle = width / 2
    by_distance = sorted(range(1, width), key=lambda c: (abs(c - middle), c))
    for column in by_distance:
        if all(not (x0 < column < x1) for x0, _, x1, _ in heads.tolist()):
            left = [b for b in heads.tolist() if b[2] <= column]
            right = [b for b in heads.tolist() if b[0] >= column]
            wide = column >= min_part_px and width - column >= min_part_px
            return column if left and right and wide else None
    return None


@settings(max_examples=150, deadline=None)
@given(many_boxes, st.sampled_from([1, 5, 10]))
def test_the_gap_against_its_naive_twin(heads, min_part_px):
    assert cut_column(heads, 60, "at_gap", min_part_px) == naive_gap(heads, 60, min_part_px)


@settings(max_examples=50, deadline=None)
@given(many_boxes)
def test_the_gap_crosses_no_head_and_has_heads_on_both_sides(heads):
    column = cut_column(heads, 60)
    if column is not None:
        assert not ((heads[:, 0] < column) & (heads[:, 2] > column)).any()
        assert (heads[:, 2] <= column).any()
        assert (heads[:, 0] >= column).any()


def test_parts_make_the_whole():
    image = np.arange(4 * 7 * 3, dtype=np.uint8).reshape(4, 7, 3)
    left, right = cut_image(image, 3)
    assert left.shape == (4, 3, 3)
    np.testing.assert_array_equal(np.concatenate([left, right], axis=1), image)


def test_flipping_moves_boxes_with_the_image():
    image = np.zeros((10, 20, 3), np.uint8)
    image[2:5, 3:9] = 255
    mirrored = flip_boxes(boxes((3, 2, 9, 5)), 20)[0].astype(int)
    x0, y0, x1, y1 = mirrored
    assert (flip_image(image)[y0:y1, x0:x1] == 255).all()
    assert flip_image(image).sum() == flip_image(image)[y0:y1, x0:x1].sum()


@settings(max_examples=50, deadline=None)
@given(many_boxes)
def test_flipping_twice_is_the_identity(heads):
    np.testing.assert_array_equal(flip_boxes(flip_boxes(heads, 60), 60), heads)


def test_the_first_objection_decides():
    assert first_finding([None, check_flip(2, 1), check_cut(2, 1, 0, 5)], 2).reason == "flip_count"
    kept = first_finding([None, None], 2)
    assert (kept.reason, kept.detail) == ("keep", "2 heads")


A, B, C = (0, 0, 10, 10), (20, 0, 30, 10), (40, 0, 50, 10)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (((A, B), (A, B)), ((A, B), (A, B)), 2),
        (((A, B), (A, B)), ((A,), (A,)), 1),
        (((A, B), (A, B)), ((A,), (A, B)), 2),
        (((A,), (A, B)), ((A, B), (A, B)), 1),
        (((A,), (A,)), ((A, B), (A, B)), 2),
        (((A, B), (A, B)), ((A, C), (A, B, C)), 3),
        (((A, B), (A, B, C)), ((A, C), (A, B, C)), 2),
        (((A,), (A,)), ((), (A,)), 1),
        (((), ()), ((), ()), 0),
    ],
    ids=[
        "both strong",
        "lost",
        "confirmed in the second",
        "confirmed in the first",
        "new",
        "one confirmed, one new",
        "both ways",
        "only weak",
        "nothing",
    ],
)
def test_weak_sightings_confirm(first, second, expected):
    views = [Sightings(boxes(*strong), boxes(*weak)) for strong, weak in (first, second)]
    assert confirmed_count(*views) == expected


@settings(max_examples=50, deadline=None)
@given(many_boxes, many_boxes)
def test_without_weaker_sightings_it_is_the_plain_count(one, other):
    assert confirmed_count(Sightings(one, one), Sightings(other, other)) == len(other)


def test_stability():
    heads = boxes((0, 0, 10, 10), (20, 0, 30, 10))
    assert stability(heads, heads) == pytest.approx(1)
    assert stability(heads, heads[:1]) == pytest.approx(0.5)
    # Half as wide: IoU 0.5; the other is exact.
    assert stability(heads, boxes((0, 0, 5, 10), (20, 0, 30, 10))) == pytest.approx(0.75)
    assert stability(heads, NOTHING) == 0
    assert stability(NOTHING, heads) is None


def test_stability_is_not_the_official_metric():
    # A lone head off the middle: comparing it with its own mirror, as the official code does, would
    # give 0 for a detector that is perfectly stable.
    heads = boxes((0, 0, 10, 10))
    assert stability(heads, flip_boxes(flip_boxes(heads, 60), 60)) == 1
    assert stability(heads, flip_boxes(heads, 60)) == 0


@pytest.mark.parametrize(("right", "confirmed"), [(5.05, 1), (5.2, 1), (4.75, 0)])
def test_four_tenths_of_overlap_confirm(right, confirmed):
    head = np.float32([[0, 0, 12, 10]])
    other = np.float32([[0, 0, right, 10]])  # overlap: right / 12
    nobody = np.zeros((0, 4), np.float32)
    assert (right / 12 >= 0.4) == bool(confirmed)
    assert confirmed_count(Sightings(head, head), Sightings(nobody, other)) == confirmed


def test_a_strong_sighting_at_four_tenths_needs_no_confirmation():
    # One head of the second view is the strong partner of both heads of the first.
    heads, other = boxes((0, 0, 10, 10), (0, -6, 10, 4)), boxes((0, 0, 10, 4))
    assert confirmed_count(Sightings(heads, heads), Sightings(other, other)) == 1


def test_more_heads_are_as_wrong_as_fewer():
    assert check_flip(1, 2).reason == "flip_count"
    assert check_flip(2, 1).reason == "flip_count"
    assert check_cut(2, 3, 1, 60).reason == "cut_count"
    assert check_cut(3, 2, 1, 60).reason == "cut_count"
