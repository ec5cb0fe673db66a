"""Dagster's metadata refers to images and contains none."""

import numpy as np

from dagster_project.markers import Marker
from dagster_project.metadata import unit_metadata
from ml.imaging.io import encode_jpeg


def test_images_are_named_and_not_carried(tmp_path):
    path = tmp_path / "data" / "images" / "sheet a.jpg"
    path.parent.mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 255, (300, 900, 3), np.uint8)
    path.write_bytes(encode_jpeg(noise))
    name, gone = "data/images/sheet a.jpg", "data/images/gone.jpg"
    marker = Marker("f", images={"sheet": name, "gone": gone})
    values = unit_metadata(tmp_path, marker)
    text = values["image: sheet"].value
    assert text == "![sheet a](/project/data/images/sheet%20a.jpg)\n\n`data/images/sheet a.jpg`"
    assert values["image: gone"].value == f"{gone} (removed)"
    assert all(len(str(value.value)) < 200 for value in values.values())
