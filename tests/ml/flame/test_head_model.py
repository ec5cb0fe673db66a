import dataclasses

import numpy as np
import pytest

from ml.flame.head_model import HeadModel


def test_save_load_round_trip_with_equal_bytes(head_model, tmp_path):
    first, second = tmp_path / "a.npz", tmp_path / "b.npz"
    head_model.save(first)
    again = HeadModel.load(first)
    again.save(second)
    assert first.read_bytes() == second.read_bytes()
    assert again.sha256 == head_model.sha256
    assert len(again.sha256) == 64
    assert again.source == head_model.source
    assert again.shape_names == head_model.shape_names
    assert again.regions.keys() == head_model.regions.keys()
    np.testing.assert_array_equal(again.attributes["brow"], head_model.attributes["brow"])


def test_the_hash_sees_one_changed_number(head_model):
    template = head_model.v_template.copy()
    template[0, 0] += 1e-6
    assert dataclasses.replace(head_model, v_template=template).sha256 != head_model.sha256


def test_head_triangles_stay_in_the_head(head_model):
    triangles = head_model.faces_of("head")
    assert np.isin(triangles, head_model.regions["head"]).all()
    outside = len(head_model.faces) - len(triangles)
    assert outside == (~np.isin(head_model.faces, head_model.regions["head"]).all(axis=1)).sum()


def test_missing_file_says_which_stage_makes_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file .*nothing.npz; run the stage head_model"):
        HeadModel.load(tmp_path / "nothing.npz")


@pytest.mark.parametrize(
    "damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"not an archive"]
)
def test_damaged_file_is_named(head_model, tmp_path, damage):
    path = tmp_path / "head.npz"
    head_model.save(path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r"head model: .*head.npz is damaged or no npz"):
        HeadModel.load(path)


def test_foreign_npz_is_refused(tmp_path):
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    with pytest.raises(ValueError, match=r"other.npz is not a 'vggheads head model 1' file"):
        HeadModel.load(tmp_path / "other.npz")


def test_pickled_objects_are_not_loaded(tmp_path):
    np.savez(tmp_path / "evil.npz", format=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ValueError, match="damaged or no npz"):
        HeadModel.load(tmp_path / "evil.npz")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            {"v_template": np.zeros((5022, 3), np.float32)},
            r"v_template must be \(5023, 3\), got \(5022, 3\)",
        ),
        ({"v_template": np.full((5023, 3), np.nan, np.float32)}, "v_template contains NaN"),
        (
            {"faces": np.full((9976, 3), 5023, np.int32)},
            r"faces must lie in 0..5022, got 5023..5023",
        ),
        (
            {"mirror_shape": np.ones(299, np.float32)},
            r"mirror_shape must be \(300,\) or \(300, 300\), got \(299,\)",
        ),
        ({"regions": {"all": np.arange(3, dtype=np.int32)}}, "regions must have 'all' and 'head'"),
        ({"attributes": {"skin": np.zeros(3, np.float32)}}, "attribute 'skin' must be"),
    ],
)
def test_wrong_arrays_are_refused_by_name(head_model, change, text):
    with pytest.raises(ValueError, match=text):
        dataclasses.replace(head_model, **change)


def test_empty_region_is_refused(head_model):
    regions = {**head_model.regions, "nose": np.zeros(0, np.int32)}
    with pytest.raises(ValueError, match="region 'nose' is empty"):
        dataclasses.replace(head_model, regions=regions)


def test_unknown_region_lists_the_known_ones(head_model):
    with pytest.raises(KeyError, match=r"no region 'beard'; there are all, .*head"):
        head_model.region("beard")
