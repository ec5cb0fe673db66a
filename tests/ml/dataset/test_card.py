"""The dataset card: front matter, numbers, links, licences, limits."""

import pandas as pd
import pytest
import yaml

from ml.dataset.card import KNOWN_LIMITS, CardMetadata, markdown_table, write_card
from ml.dataset.statistics import COLUMNS

ROWS = [
    ("count", "num_images", 1234), ("count", "num_heads", 2500),
    ("count", "mean_heads_per_image", 2.026), ("count", "num_heads_with_parameters", 2400),
    ("split", "train", 1000), ("split", "val", 100), ("split", "test", 134),
    *[(part, stage, value)
      for part, value in (("drop_in", 100), ("drop_out", 80), ("drop_rate", 0.2))
      for stage in ("poses", "captions", "images", "annotations", "filtered_dataset")],
    ("exclusion_reason", "captions: name", 20),
]  # fmt: skip
STATISTICS = pd.DataFrame(ROWS, columns=list(COLUMNS)).astype({"value": "float64"})


def metadata(**changes):
    settings = {
        "name": "vggheads-demo",
        "profile": "demo",
        "run_seed": 7,
        "image_size": "256x256",
        "parents": ["open-head", "renderer"],
    }
    return CardMetadata(**{**settings, **changes})


def card(tmp_path, plots=None, **changes):
    path = tmp_path / "data" / "CARD.md"
    write_card(path, STATISTICS, plots or {}, metadata(**changes))
    return path.read_text(encoding="utf-8")


def test_front_matter_is_yaml_the_hub_reads(tmp_path):
    front = yaml.safe_load(card(tmp_path).split("---")[1])
    assert front["license"] == "apache-2.0"
    assert front["size_categories"] == ["1K<n<10K"]
    assert "object-detection" in front["task_categories"]
    assert front["pretty_name"] == "vggheads-demo"


def test_mixed_licences_are_other_and_listed(tmp_path):
    text = card(tmp_path, parents=["renderer", "dad-3dnet"])
    assert yaml.safe_load(text.split("---")[1])["license"] == "other"
    assert "| dad-3dnet | CC-BY-NC-SA-4.0 | no | yes |" in text


def test_numbers_and_limits_are_there(tmp_path):
    text = card(tmp_path)
    assert "1,234 images with 2,500 heads (2.03 an image)" in text
    assert "train 1,000, val 100, test 134" in text
    assert "| captions | 100 | 80 | 20.0% |" in text
    assert "| captions: name | 20 |" in text
    for limit in KNOWN_LIMITS:
        assert limit in text
    assert "artist's head model and simple bodies" in text
    assert "artist's head model and simple bodies" not in card(tmp_path, rendered=False)


def test_label_quality_only_when_known(tmp_path):
    assert "Quality of the labels" not in card(tmp_path)
    text = card(tmp_path, label_quality={"recall": 0.9123456})
    assert "| recall | 0.9123 |" in text


def test_plots_are_linked_relative_to_the_card(tmp_path):
    plot = tmp_path / "data" / "plots" / "yaw_deg.png"
    assert "![yaw deg](plots/yaw_deg.png)" in card(tmp_path, {"yaw_deg": plot})
    assert str(tmp_path) not in card(tmp_path, {"yaw_deg": plot})


def test_unknown_parent_is_refused(tmp_path):
    with pytest.raises(KeyError, match="asset register: 'mystery' is unknown"):
        card(tmp_path, parents=["mystery"])


def test_settings_table(tmp_path):
    assert "| cut probability | 0.06 |" in card(tmp_path, settings={"cut probability": 0.06})


def test_markdown_table_by_hand():
    frame = pd.DataFrame({"a": ["x|y", "z"], "b": [2.0, 0.123456]})
    assert markdown_table(frame).splitlines() == [
        "| a | b |", "| --- | --- |", "| x\\|y | 2 |", "| z | 0.1235 |",
    ]  # fmt: skip
