"""Twins of another skin tone: the stage's own image, changed where there is skin and only there."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from benchmarks import skin_tones
from ml.captions.config import CaptionsConfig
from ml.evaluation.protocol import Evaluation
from ml.evaluation.samples import EVALUATED, read_samples
from ml.generation.config import ImagesConfig
from ml.imaging.io import decode_image
from ml.poses.config import PosesConfig
from ml.records.exclusions import Exclusions
from ml.records.workspace import Workspace
from ml.stages import captions, images, poses

SHARD = "shard-00000"
CONFIG = ImagesConfig()


@pytest.fixture
def workspace(tmp_path, open_head):
    ws = Workspace(root=tmp_path, seed=5, num_shards=1, shard_size=3)
    open_head.save(ws.stage_dir("head_model") / "head_model.npz")
    everything = {"test_fraction": 0.0, "val_fraction": 0.0, "max_people": 1}
    poses.run_shard(ws, PosesConfig(width=96, height=96, **everything), SHARD)
    captions.run_shard(ws, CaptionsConfig(name_probability=0.0), SHARD)
    images.run_shard(ws, CONFIG, SHARD)
    return ws


def drawn(ws, samples, tone):
    return [decode_image(image) for _, image in skin_tones.redraw(ws, CONFIG, samples, tone)]


def test_twins_differ_in_their_skin_alone(workspace):
    samples = read_samples(workspace, "train", EVALUATED, Exclusions("benchmark"))
    assert len(samples) >= 2
    own = drawn(workspace, samples, None)
    assert all(
        np.array_equal(image, sample.image_rgb) for image, sample in zip(own, samples, strict=True)
    )
    skin_tones.check_same(workspace, CONFIG, samples)
    light, dark = drawn(workspace, samples, 1), drawn(workspace, samples, 10)
    for pale, deep in zip(light, dark, strict=True):
        change = pale.mean(axis=2) - deep.mean(axis=2)
        assert change.max() > 20
        assert np.median(np.abs(change)) < 2, "background and clothes stay"
        assert change.min() > -40, "no more than the ringing of JPEG"


def test_twins_of_another_configuration_are_refused(workspace):
    samples = read_samples(workspace, "train", EVALUATED, Exclusions("benchmark"))
    with pytest.raises(ValueError, match=r"drawn again, it differs; remake"):
        skin_tones.check_same(workspace, CONFIG.model_copy(update={"jpeg_quality_max": 60,
                              "jpeg_quality_min": 60}), samples)  # fmt: skip


def evaluation(found, errors, tones):
    pairs = pd.DataFrame(
        {
            "image": found, "truth": 0, "rotation_deg": errors, "nme_bbox": np.array(errors) / 2,
            "skin_tone": tones,
        }
    )  # fmt: skip
    asked = pd.DataFrame({"found": np.isin(np.arange(4), found)})
    none = np.zeros(4, int)
    return Evaluation(pairs, pairs, none + 1, none, none, 0, none, asked)


def test_rows_of_tones_have_the_heads_that_all_have():
    one = evaluation([0, 1, 2], [10.0, 20.0, 90.0], [1, 2, 8])
    other = evaluation([0, 1, 3], [12.0, 22.0, 5.0], [1, 2, 9])
    table = skin_tones.by_tone({1: one, 10: other}).set_index("tone")
    assert list(table.index.astype(int)) == [1, 10]
    assert list(table["found %"]) == ["75.0", "75.0"]
    assert list(table["heads"]) == [2, 2]
    assert [text.split()[0] for text in table["rotation deg"]] == ["15.0", "17.0"]


def test_groups_are_of_the_tones_before():
    table = skin_tones.by_origin(evaluation([0, 1, 2], [10.0, 20.0, 90.0], [1, 4, 10]))
    assert list(table["heads"]) == [1, 1, 1]
    assert [text.split()[0] for text in table["rotation deg"]] == ["10.0", "20.0", "90.0"]
