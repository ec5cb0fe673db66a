import numpy as np

from ml.imaging.matching import match_heads

A, B, C = [0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]


def boxes(*rows):
    return np.array(rows, np.float32).reshape(-1, 4)


def test_empty_one_and_many():
    none = match_heads(boxes(), np.zeros(0), boxes())
    assert len(none.pairs) == len(none.false_positives) == len(none.missed) == 0
    assert match_heads(boxes(), np.zeros(0), boxes(A, B)).missed.tolist() == [0, 1]
    assert match_heads(boxes(A), np.ones(1), boxes()).false_positives.tolist() == [0]
    many = match_heads(boxes(B, C, A), np.array([0.3, 0.2, 0.9]), boxes(A, B))
    assert sorted(many.pairs.tolist()) == [[0, 1], [2, 0]]
    assert many.false_positives.tolist() == [1]


def test_the_confident_prediction_wins_and_the_double_is_false():
    got = match_heads(boxes(A, A), np.array([0.5, 0.8]), boxes(A))
    assert got.pairs.tolist() == [[1, 0]]
    assert got.false_positives.tolist() == [0]


def test_below_the_threshold_both_are_counted():
    got = match_heads(boxes([6, 0, 16, 10]), np.ones(1), boxes(A))
    assert got.false_positives.tolist() == [0]
    assert got.missed.tolist() == [0]


def test_ignored_heads_are_neither_found_nor_missed():
    got = match_heads(
        boxes(A, A, B), np.array([0.9, 0.8, 0.7]), boxes(A, C), np.array([True, False])
    )
    assert got.neutral.tolist() == [0, 1]
    assert got.false_positives.tolist() == [2]
    assert got.missed.tolist() == [1]


def test_a_head_that_counts_comes_before_an_ignored_one():
    got = match_heads(boxes(A), np.ones(1), boxes(A, [1, 0, 11, 10]), np.array([True, False]))
    assert got.pairs.tolist() == [[0, 1]]
