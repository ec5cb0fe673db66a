"""Dataset statistics against numbers counted by hand."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.transform import Rotation

from ml.captions.scene import PersonLook, Scene
from ml.dataset.statistics import (
    StatisticsCounter,
    compute_statistics,
    plot_statistics,
    section,
    write_statistics,
)
from ml.imaging.io import decode_image


def flame(yaw_deg, pitch_deg=0.0, roll_deg=0.0):
    """A head turned about three axes; positive: nose to the left of the image, and upwards."""
    turned = Rotation.from_euler("XYZ", (-pitch_deg, -yaw_deg, -roll_deg), degrees=True)
    rotation = np.diag([1.0, -1.0, -1.0]) @ turned.as_matrix()
    vector = np.zeros(413, np.float32)
    vector[403:409] = rotation[:, :2].T.reshape(-1)
    vector[412] = 100
    return vector


def scene(*tones):
    look = {
        "subject": "person", "top": "coat", "top_colour": "red", "top_pattern": "plain",
        "bottom": "jeans", "bottom_colour": "blue", "hair_style": "bob", "hair_colour": "brown",
        "glasses": "none", "hat": "none", "beard": "none",
    }  # fmt: skip
    return Scene(
        "a park", "backlight", tuple(PersonLook(skin_tone=t, **look) for t in tones)
    ).to_json()


@pytest.fixture
def tables():
    """Four images; three are kept, with 2, 1 and 0 heads."""
    images = pd.DataFrame(
        {
            "sample_id": ["a", "b", "c", "d"],
            "pose_id": ["p1", "p1", "p2", "p3"],
            "split": ["train", "train", "val", "test"],
        }
    )
    heads = pd.DataFrame(
        {
            "sample_id": ["a", "a", "b", "d"],
            "bbox_xywh": [np.array(b, np.float32) for b in
                          ((0, 0, 10, 20), (0, 0, 10, 30), (0, 0, 5, 7), (0, 0, 90, 90))],
            "flame": [flame(0.0), flame(40.0), None, flame(170.0)],
        }
    )  # fmt: skip
    verdicts = pd.DataFrame(
        {
            "sample_id": ["a", "b", "c", "d"],
            "keep": [True, True, True, False],
        }
    )
    exclusions = pd.DataFrame(
        [
            ("x1", "captions", "name", "1"),
            ("x2", "captions", "name", "2"),
            ("a#1", "annotations", "non_finite", "3"),
            ("x3", "images", "no renderable pose", "4"),
            ("d", "filtered_dataset", "flip", "5"),
            ("e", "labels", "damaged_image", "6"),
        ],
        columns=["sample_id", "stage", "reason", "detail"],
    )
    captions = pd.DataFrame(
        {"sample_id": ["a", "b", "c", "d"], "scene": [scene(1, 10), scene(10), scene(4), scene(5)]}
    )
    return images, heads, verdicts, exclusions, captions


@pytest.fixture
def statistics(tables):
    return compute_statistics(*tables)


def non_zero(values):
    return {name: int(value) for name, value in values.items() if value}


def test_counts_by_hand(statistics):
    count = section(statistics, "count")
    assert count["num_images_generated"] == 4
    assert count["num_images"] == 3
    assert count["num_heads"] == 3
    assert count["num_heads_with_parameters"] == 2
    assert count["num_heads_without_parameters"] == 1
    assert count["mean_heads_per_image"] == 1.0
    assert count["median_head_height_px"] == 20
    assert count["num_source_poses"] == 2
    assert count["mean_angle_from_frontal_deg"] == pytest.approx(20.0, abs=1e-2)


def test_distributions_by_hand(statistics):
    assert non_zero(section(statistics, "split")) == {"train": 2, "val": 1}
    assert section(statistics, "heads_per_image").to_dict() == {"0": 1, "1": 1, "2": 1}
    assert non_zero(section(statistics, "head_height_px")) == {
        "0 to 8": 1, "16 to 24": 1, "24 to 32": 1,
    }  # fmt: skip
    assert section(statistics, "yaw_deg")["30 to 45"] == 1
    assert section(statistics, "yaw_deg").sum() == 2
    assert non_zero(section(statistics, "angle_from_frontal_deg")) == {"0 to 15": 1, "30 to 45": 1}
    assert non_zero(section(statistics, "monk_tone")) == {"1": 1, "4": 1, "10": 2}


def test_three_angles_of_a_head_are_told_apart(tables):
    images, heads, verdicts, exclusions, captions = tables
    heads["flame"] = [flame(40.0, 20.0, -50.0), flame(-70.0, -5.0, 10.0), None, flame(170.0)]
    found = compute_statistics(images, heads, verdicts, exclusions, captions)
    assert non_zero(section(found, "yaw_deg")) == {"-75 to -60": 1, "30 to 45": 1}
    assert non_zero(section(found, "pitch_deg")) == {"-15 to 0": 1, "15 to 30": 1}
    assert non_zero(section(found, "roll_deg")) == {"-60 to -45": 1, "0 to 15": 1}


def test_drop_rates_by_hand(statistics):
    rate = section(statistics, "drop_rate")
    # 4 images came from 5 captions, those from 7 poses; heads and labels do not count.
    assert section(statistics, "drop_in").to_dict() == {
        "poses": 7, "captions": 7, "images": 5, "annotations": 4, "filtered_dataset": 4,
    }  # fmt: skip
    assert rate["captions"] == pytest.approx(2 / 7, abs=1e-5)
    assert rate["images"] == pytest.approx(1 / 5)
    assert rate["annotations"] == 0
    assert rate["filtered_dataset"] == pytest.approx(1 / 4)
    reasons = section(statistics, "exclusion_reason")
    assert reasons["captions: name"] == 2
    assert "labels: unreadable image" not in reasons


def test_pieces_count_as_the_whole(tables, statistics):
    *pieces, exclusions = [*tables[:3], tables[4], tables[3]]
    counter = StatisticsCounter()
    for ids in (["b", "c", "d"], [], ["a"]):
        counter.add(*(table[table["sample_id"].isin(ids)] for table in pieces))
    # The median and the poses that two pieces share cannot be had from their numbers.
    pd.testing.assert_frame_equal(counter.table(exclusions), statistics)


def test_values_beyond_the_edges_are_counted(tables):
    images, heads, *rest = tables
    heads.at[0, "bbox_xywh"] = np.array((0, 0, 5000, 5000), np.float32)
    statistics = compute_statistics(images, heads, *rest)
    assert section(statistics, "head_height_px")["512 to 1024"] == 1


def test_captions_without_a_scene_have_no_tones(tables):
    images, heads, verdicts, exclusions, captions = tables
    free = captions.assign(scene=["null", captions["scene"][1], "null", "null"])
    tones = section(compute_statistics(images, heads, verdicts, exclusions, free), "monk_tone")
    assert tones["10"] == 1
    assert tones.sum() == 1


def test_no_images_at_all(tables):
    empty = [table.iloc[:0] for table in tables]
    statistics = compute_statistics(*empty)
    assert section(statistics, "count")["mean_heads_per_image"] == 0
    assert section(statistics, "drop_rate").sum() == 0


def test_verdict_about_nothing_or_twice_is_refused(tables):
    images, heads, verdicts, *rest = tables
    twice = pd.concat([verdicts, verdicts.iloc[:1]])
    with pytest.raises(ValueError, match="verdicts name a twice"):
        compute_statistics(images, heads, twice, *rest)
    with pytest.raises(
        ValueError, match="1 verdicts are about images that do not exist, such as a"
    ):
        compute_statistics(images.iloc[1:], heads, verdicts, *rest)


def test_unknown_section_lists_the_known(statistics):
    with pytest.raises(KeyError, match=r"no section 'age', got .*'monk_tone'"):
        section(statistics, "age")


def test_files_round_trip(statistics, tmp_path):
    paths = write_statistics(statistics, tmp_path)
    read = pd.read_csv(paths["csv"], dtype={"name": str})
    pd.testing.assert_frame_equal(read, statistics, check_dtype=False)
    nested = json.loads(paths["json"].read_text())
    for name in set(statistics["section"]):
        assert nested[name] == section(statistics, name).to_dict()
    assert nested["count"]["num_images"] == 3


def test_plots_are_images_with_the_same_bytes(statistics, tmp_path):
    few = statistics[statistics["section"].isin(["yaw_deg", "drop_rate"])]
    first = plot_statistics(few, tmp_path / "a")
    second = plot_statistics(few, tmp_path / "b")
    assert set(first) == {"overview", "yaw_deg", "drop_rate"}
    for name, path in first.items():
        assert path.read_bytes() == second[name].read_bytes()
        assert decode_image(path).std() > 5
