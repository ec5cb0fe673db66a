"""Labelled images: labels from both tables, lazy reading, damage becomes exclusions."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ml.imaging.io import encode_jpeg
from ml.records.exclusions import Exclusions
from ml.records.shards import DamagedSample, shard_writer
from ml.training_data import samples as module
from ml.training_data.damage import Damage
from ml.training_data.labels import HeadLabels, LabelLimits, exact_labels, pseudo_labels
from ml.training_data.samples import HeadSamples, ShardImages


def flame(scale: float = 100.0) -> np.ndarray:
    vector = np.zeros(413, np.float32)
    vector[[403, 407]] = (1, -1)
    vector[412] = scale
    return vector


def truth_table() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "sample_id": ["b", "a", "b"],
            "head_id": [0, 0, 1],
            "bbox_xywh": [np.array([10, 10, 20, 30], np.float32) for _ in range(3)],
            "visible": [1.0, 0.1, 0.9],
            "inside": [1.0, 1.0, 0.3],
            "flame": [flame(100), flame(50), flame(70)],
        }
    )


def write_shard(path: Path, images: dict[str, bytes]) -> None:
    with shard_writer(path) as writer:
        for sample_id, data in images.items():
            writer.add(sample_id, {"jpg": data, "json": {}})


def jpeg(value: int) -> bytes:
    return encode_jpeg(np.full((16, 24, 3), value, np.uint8))


@pytest.fixture
def samples(tmp_path: Path) -> HeadSamples:
    good = jpeg(50)
    write_shard(tmp_path / "one.tar", {"a": good, "cut": good[:-40], "empty": b""})
    write_shard(tmp_path / "two.tar", {"b": jpeg(200)})
    one, two = tmp_path / "one.tar", tmp_path / "two.tar"
    labels = exact_labels(truth_table(), LabelLimits())
    return HeadSamples(["a", "cut", "empty", "gone", "b"], [one, one, one, one, two], labels)


def test_exact_labels_group_rows_and_ignore_the_hidden() -> None:
    labels = exact_labels(truth_table(), LabelLimits())
    assert set(labels) == {"a", "b"}
    assert labels["b"].flame[:, 412].tolist() == [100, 70]
    assert labels["b"].ignore.tolist() == [False, True]
    assert labels["a"].ignore.tolist() == [True]
    assert labels["b"].boxes_xyxy[0].tolist() == [10, 10, 30, 40]
    assert exact_labels(truth_table().iloc[:0], LabelLimits()) == {}


def test_pseudo_labels_ignore_heads_flagged_small() -> None:
    heads = truth_table().assign(flame_status=["ok", "small", "ok"])
    heads["flame"] = [flame(100), None, flame(70)]
    labels = pseudo_labels(heads)
    assert labels["a"].ignore.tolist() == [True]
    assert labels["a"].flame_valid.tolist() == [False]
    assert not labels["a"].flame.any()
    assert labels["b"].flame_valid.all()
    assert not labels["b"].ignore.any()


def test_outlines_follow_the_projection() -> None:
    def project(parameters: np.ndarray) -> np.ndarray:
        angle = np.linspace(0, 2 * np.pi, 100)
        disc = np.stack([20 + 9 * np.cos(angle), 25 + 9 * np.sin(angle), 0 * angle], 1)
        return np.repeat(disc[None], len(parameters), 0).astype(np.float32)

    with_mesh = exact_labels(truth_table(), LabelLimits(), project)["a"].outlines
    assert np.allclose(with_mesh.reshape(-1, 2).min(0), [10, 10], atol=1e-4)
    assert np.allclose(with_mesh.reshape(-1, 2).max(0), [30, 40], atol=1e-4)


def test_damaged_images_are_excluded_with_reason(samples: HeadSamples) -> None:
    exclusions = Exclusions("trained_model")
    kept = samples.without_damaged(exclusions)
    assert list(kept.sample_ids) == ["a", "b"]
    table = exclusions.to_frame().set_index("sample_id")
    assert set(table.index) == {"cut", "empty", "gone"}
    assert table["reason"].to_dict() == {
        "cut": "damaged_image",
        "empty": "damaged_image",
        "gone": "damaged_shard",
    }
    assert "truncated" in table.loc["cut", "detail"]
    assert "one.tar" in table.loc["cut", "detail"]
    assert len(kept) + len(exclusions) == len(samples)
    assert kept[1].image_rgb[0, 0].tolist() == [200, 200, 200]


@pytest.mark.parametrize(
    ("column", "value", "text"),
    [
        ("flame", np.nan, r"flame\[7\] is not finite"),
        ("bbox_xywh", np.inf, r"boxes_xyxy\[3\] is not finite"),
        ("bbox_xywh", -5.0, "has no area"),
        ("flame", -1.0, "scale must be > 0"),
    ],
)
def test_damaged_labels_are_excluded(
    samples: HeadSamples, column: str, value: float, text: str
) -> None:
    table = truth_table()
    place = {"nan": 7, "inf": 3, "-5.0": 3, "-1.0": 412}[str(value)]
    table[column][0][place] = value
    samples.labels = exact_labels(table, LabelLimits())
    exclusions = Exclusions("trained_model")
    kept = samples.without_damaged(exclusions)
    assert list(kept.sample_ids) == ["a"]
    row = exclusions.to_frame().set_index("sample_id").loc["b"]
    assert row["reason"] == "damaged_label"
    assert pd.Series([row["detail"]]).str.contains(text).all()
    with pytest.raises(DamagedSample, match=text) as late:
        samples[4]
    assert Damage.of(late.value).reason == "damaged_label"


def test_damage_found_late_names_shard_and_sample(samples: HeadSamples) -> None:
    with pytest.raises(DamagedSample, match=r"one.tar/cut: JPEG is truncated"):
        samples[1]


def test_cache_respects_its_budget_and_readers_are_not_pickled(samples: HeadSamples) -> None:
    one_image = 16 * 24 * 3
    samples.cache_bytes = one_image
    first = samples[0].image_rgb
    assert samples[0].image_rgb is first
    assert samples[4].image_rgb is not samples[4].image_rgb
    copy = pickle.loads(pickle.dumps(samples))
    assert np.array_equal(copy[4].image_rgb, samples[4].image_rgb)


def test_of_what_does_not_fit_damage_is_found_when_it_is_read(samples: HeadSamples) -> None:
    samples.cache_bytes = 16 * 24 * 3
    samples.sample_ids = ["cut", "a", "b", "empty"]
    one, two = samples.shards[0], samples.shards[-1]
    samples.shards = [one, one, two, one]
    exclusions = Exclusions("trained_model")
    kept = samples.without_damaged(exclusions, beyond_cache=False)
    assert list(exclusions.to_frame()["sample_id"]) == ["cut"]
    assert list(kept.sample_ids) == ["a", "b", "empty"], "after b no room is left"
    with pytest.raises(DamagedSample):
        kept[2]


def test_where_not_all_will_fit_reading_ahead_ends_early(
    samples: HeadSamples, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SIZED_BY", 2)
    one, two = samples.shards[0], samples.shards[-1]
    samples.sample_ids = ["a", "b", "cut", "a"]
    samples.shards = [one, two, one, one]
    one_image = 16 * 24 * 3
    for budget, kept in (
        (4 * one_image, ["a", "b", "a"]),
        (4 * one_image - 1, ["a", "b", "cut", "a"]),
    ):
        samples.cache_bytes, samples._cached_bytes = budget, 0
        samples._images.clear()
        found = samples.without_damaged(Exclusions("trained_model"), beyond_cache=False)
        assert list(found.sample_ids) == kept


def test_images_without_rows_have_no_heads(samples: HeadSamples) -> None:
    samples.labels = {}
    assert len(samples[0].labels) == 0


def test_label_shapes_are_checked() -> None:
    empty = HeadLabels.empty()
    with pytest.raises(ValueError, match=r"HeadLabels.ignore: expected shape \(0,\), got \(2,\)"):
        HeadLabels(
            empty.boxes_xyxy, empty.flame, empty.flame_valid, np.zeros(2, bool), empty.outlines
        )


def test_images_alone_are_a_sequence(samples: HeadSamples) -> None:
    images = ShardImages(samples.without_damaged(Exclusions("toy")))
    assert len(images) == 2
    assert images[-1].mean() == pytest.approx(200, abs=2)
    assert [image.mean() for image in images[:1]] == [pytest.approx(50, abs=2)]
    with pytest.raises(IndexError):
        images[2]
