"""The model card states size, licence and figures; a dataset card's licence is read from it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from ml.detector_training.model_card import dataset_licence, model_card


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("---\nlicense: apache-2.0\n---\n# Data\n", "apache-2.0"),
        ("---\npretty_name: x\n---\n# Data\n", "unknown"),
        ("# Data without front matter\n", "unknown"),
    ],
)
def test_licence_of_a_dataset_card(text: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / "CARD.md").write_text(text)
    assert dataset_licence(tmp_path / "CARD.md") == expected
    assert dataset_licence(tmp_path / "none.md") == "unknown"


def test_card() -> None:
    figures = {"val/ap50": 0.87654, "val/nme_bbox": 4.2, "train/loss": 1.0}
    card = model_card("nano", 1_234_567, 192, "pseudo", "cc-by-4.0", "ab" * 32, figures, 1234)
    assert yaml.safe_load(card.split("---\n")[1])["license"] == "cc-by-4.0"
    assert "1,234,567 parameters, input 192 px" in card
    assert "| AP at IoU 0.5 | 0.8765 |" in card
    assert "| NME over the box size | 4.2 % |" in card
    assert "measured on 1,234 images" in card
    assert "`abababababab`" in card
    assert "train/loss" not in card
    assert "by Monk skin tone" in card.split("## Limits")[1], "the card says where it is measured"
    assert "none" in model_card("S", 1, 640, "truth", "other", "c" * 64, {}, 1)
