"""A source pose in two splits is refused, by name."""

import pandas as pd
import pytest

from ml.dataset.splits import LeakError, check_no_leak, split_counts


def samples(*rows):
    return pd.DataFrame(rows, columns=["sample_id", "pose_id", "split"])


CLEAN = samples(("a", "p1", "train"), ("b", "p1", "train"), ("c", "p2", "test"), ("d", "p3", "val"))


def test_clean_table_passes():
    check_no_leak(CLEAN)
    check_no_leak(CLEAN.iloc[:0])


def test_leak_names_pose_and_samples():
    leaking = pd.concat([CLEAN, samples(("e", "p2", "train"))])
    with pytest.raises(LeakError, match=r"1 source pose\(s\).*p2: c in test, e in train"):
        check_no_leak(leaking)


def test_many_leaks_show_three():
    rows = [(f"{pose}-{split}", pose, split) for pose in "abcde" for split in ("train", "val")]
    with pytest.raises(LeakError, match=r"5 source pose\(s\).*a: .*b: .*c: (?!.*d: )"):
        check_no_leak(samples(*rows))


def test_unknown_split_and_missing_column():
    with pytest.raises(ValueError, match=r"expected one of .* got \['dev'\]"):
        check_no_leak(samples(("a", "p", "dev")))
    with pytest.raises(ValueError, match=r"columns \['pose_id'\] are missing"):
        check_no_leak(CLEAN.drop(columns="pose_id"))


def test_counts_name_every_split():
    assert split_counts(CLEAN) == {"train": 2, "val": 1, "test": 1}
    assert split_counts(CLEAN.iloc[:0]) == {"train": 0, "val": 0, "test": 0}
