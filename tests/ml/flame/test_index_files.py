"""Published lists of vertices: identified by length, read without code execution."""

import numpy as np
import pytest

from ml.flame.index_files import read_index_files
from ml.flame.safe_pickle import FlameFileError


def save(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, value)
    return path


def as_dictionary(numbers):
    """An array of one object, as the 445 keypoints lie in their files."""
    box = np.empty((), object)
    half = len(numbers) // 2
    box[()] = {"left": list(map(int, numbers[:half])), "right": numbers[half:]}
    return box


def keypoints(folder, counts, wrap):
    first = 0
    for name, count in counts.items():
        save(folder / f"{name}.npy", wrap(np.arange(first, first + count)))
        first += count
    return folder


OF_445 = {"brows": 36, "contour": 130, "eyes": 72, "forehead": 17, "lips": 82, "nose": 88,
          "temples": 20}  # fmt: skip
OF_191 = {"brows": 32, "contour": 26, "eyes": 44, "forehead": 7, "lips": 50, "nose": 32}


@pytest.mark.parametrize(
    ("name", "count", "region"),
    [
        ("head_indices.npy", 2470, "head"),  # VGGHeads
        ("face.npy", 2094, "face"),
        ("head_w_ears.npy", 3457, "face_with_ears"),
        ("head.npy", 3457, "face_with_ears"),  # DAD-3DHeads
        ("head_indices.npy", 3669, "head_with_ears"),
        ("face_w_ears.npy", 3669, "head_with_ears"),
        ("eyeballs.npy", 1090, "eyeballs"),
    ],
)
def test_a_list_is_what_its_length_says_not_its_name(tmp_path, name, count, region):
    path = save(tmp_path / name, np.arange(count)[::-1])
    found = read_index_files([path])
    assert list(found) == [region]
    assert found[region].dtype == np.int32
    np.testing.assert_array_equal(found[region], np.arange(count))


def test_keypoints_lie_in_several_files_without_the_cheeks(tmp_path):
    of_445 = keypoints(tmp_path / "keypoints_445", OF_445, as_dictionary)
    save(of_445 / "cheeks.npy", as_dictionary(np.arange(3000, 3120)))
    of_191 = keypoints(tmp_path / "keypoints_191", OF_191, lambda numbers: numbers)
    found = read_index_files([of_445, of_191])
    assert {name: len(index) for name, index in found.items()} == {
        "keypoints_445": 445,
        "keypoints_191": 191,
    }


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.arange(2471), r"published lists, 2470 \(head\), .* got 2471"),
        (np.arange(2470) + 2600, r"must lie in 0\.\.5022, got 2600\.\.5069"),
        (np.arange(2470.0), "expected whole numbers in a row, got float64"),
        (np.zeros((2, 3), int), r"expected whole numbers in a row, got int64 of shape \(2, 3\)"),
        (np.array(["a"]), "must hold numbers"),
    ],
)
def test_what_is_no_published_list_is_refused(tmp_path, value, message):
    with pytest.raises(FlameFileError, match=message):
        read_index_files([save(tmp_path / "x.npy", value)])


def test_lists_that_contradict_each_other_are_refused(tmp_path):
    head = save(tmp_path / "head.npy", np.arange(2470))
    face = save(tmp_path / "face.npy", np.arange(2094) + 500)
    with pytest.raises(FlameFileError, match=r"face must lie within head, but 124 .* such as 2470"):
        read_index_files([head, face])
    other = save(tmp_path / "other.npy", np.arange(2470) + 1)
    with pytest.raises(FlameFileError, match="both are head, with different vertices"):
        read_index_files([head, other])


def test_absent_files_say_where_they_come_from(tmp_path):
    with pytest.raises(FileNotFoundError) as absent:
        read_index_files([tmp_path / "absent.npy"])
    assert str(absent.value) == (
        f"vertex list: no file {tmp_path / 'absent.npy'}; VGGHeads' repository has them in "
        "head_detector/assets/flame_indices, DAD-3DHeads' in model_training/model/static"
    )
    (tmp_path / "empty").mkdir()
    with pytest.raises(FlameFileError, match="the folder has none of brows, contour"):
        read_index_files([tmp_path / "empty"])
