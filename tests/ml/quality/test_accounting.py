"""Accounts: each possible fault of an id is reported by id."""

import pandas as pd
import pytest

from ml.quality.accounting import account, belong, in_order, marked, people_listed
from tests.fixtures.findings import problems_of

GIVEN = ["image-00001-00000", "image-00001-00001", "image-00001-00002"]
A, B, C = GIVEN


def problems(given, kept, excluded, **more):
    return problems_of(account(given, kept, excluded, "captions", "images", **more))


def test_kept_and_excluded_make_what_was_given():
    assert problems(GIVEN, [A, C], [B, "image-00001-00000#3"]) == []


@pytest.mark.parametrize(
    ("given", "kept", "excluded", "told"),
    [
        (GIVEN, [A, C], [], f"{B} is lost: in captions, neither in images nor excluded"),
        (GIVEN, [A, B, B, C], [], f"{B} is in images more than once"),
        ([*GIVEN, C], GIVEN, [], f"{C} is in captions more than once"),
        (GIVEN, GIVEN, [A], f"{A} is in images and among its exclusions"),
        ([A, B], GIVEN, [], f"{C} is in images but was not in captions"),
        ([A, B], [A, B], [C], f"{C} is in the exclusions of images but was not in captions"),
    ],
)
def test_each_fault_is_reported_by_id(given, kept, excluded, told):
    assert problems(given, kept, excluded) == [told]


def test_what_was_taken_down_is_not_lost():
    assert problems(GIVEN, [A, C], [], forgiven={B}) == []
    assert len(problems(GIVEN, [C], [], forgiven={B})) == 1


def test_an_id_lies_in_its_own_shard():
    ids = [*GIVEN, "image-00001-00003-v2", "image-00002-00000", "odd"]
    found = problems_of(belong(ids, "shard-00001", "images"))
    assert [text.split(" ")[0] for text in found] == ["image-00002-00000", "odd"]


@pytest.mark.parametrize(("out", "excluded"), [(4, 1), (5, 0)])
def test_reported_counts_are_those_of_the_files(out, excluded):
    assert problems_of(marked({"num_out": 5, "num_excluded": 1}, 5, 1, "shard-00000")) == []
    found = problems_of(marked({"num_out": 5, "num_excluded": 1}, out, excluded, "shard-00000"))
    assert len(found) == 1
    assert found[0].startswith("shard-00000: the stage reported")


def test_what_was_taken_down_since_may_be_missing_from_the_files():
    counts = {"num_out": 5, "num_excluded": 0}
    for kept, told in ((5, 0), (4, 0), (3, 1), (6, 1)):
        assert len(problems_of(marked(counts, kept, 0, "shard-00000", taken_down=1))) == told


def test_a_pose_lists_all_its_people():
    poses = pd.DataFrame({"pose_id": ["b", "a", "b"], "num_people": [2, 1, 2]})
    assert problems_of(people_listed(poses)) == []
    assert problems_of(people_listed(poses.iloc[:2])) == ["b lists 1 of its 2 people"]
    twice = pd.concat([poses, poses.iloc[1:2]])
    assert problems_of(people_listed(twice)) == ["a lists 2 of its 1 people"]


@pytest.mark.parametrize(
    ("taken", "lost"),
    [
        ({"c", "a", "d"}, []),
        ({"c", "a"}, []),
        (set(), []),
        ({"c", "d"}, ["a"]),
        ({"b"}, ["c", "a", "d"]),
        # Of what does not exist another rule tells.
        ({"c", "x"}, []),
    ],
)
def test_what_is_drawn_in_order_has_no_gap(taken, lost):
    found = problems_of(in_order(["c", "a", "d", "b"], taken, "labels"))
    assert found == [f"{item} is lost: labels skip it" for item in lost]


def test_a_loss_at_the_end_of_a_row_is_named_when_their_number_is_known() -> None:
    found = problems_of(in_order(["a", "b", "c"], {"a"}, "labels", least=2))
    assert found == ["b is lost: labels skip it"]
