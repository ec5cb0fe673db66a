"""Words and numbers that the statistics of a dataset are of."""

import numpy as np
import pandas as pd
import pytest

from ml.captions.scene import NO_SCENE, PersonLook, Scene
from ml.quality.distributions import head_statistics, scene_words


def test_words_are_those_of_captions_that_have_a_scene():
    clothes = ("shirt", "red", "plain", "jeans", "blue")
    looks = (
        PersonLook("person", 2, *clothes, "short", "brown", "glasses", "none", "none"),
        PersonLook("man", 9, *clothes, "long", "black", "none", "cap", "none"),
    )
    scene = Scene("a park", "overcast light", looks).to_json()
    words = scene_words(pd.DataFrame({"scene": [NO_SCENE, scene, NO_SCENE]}))
    assert words["place"] == ["a park"]
    assert words["light"] == ["overcast light"]
    assert words["skin_tone"] == ["2", "9"]
    assert words["hair_style"] == ["short", "long"]
    assert (words["glasses"], words["hat"]) == (["glasses", "none"], ["none", "cap"])
    nothing = scene_words(pd.DataFrame({"scene": [NO_SCENE]}))
    assert not any(nothing.values())


def test_coefficients_around_another_head_than_the_mean_show_in_the_largest_mean():
    names = ("yaw_deg", "pitch_deg", "roll_deg", "from_frontal_deg", "head_px")
    spread = np.array([-1.0, 1.0, -1.0, 1.0])
    columns = dict.fromkeys(names, spread)
    columns |= {f"shape_{i}": spread for i in range(5)}
    columns |= {f"expression_{i}": spread for i in range(3)}
    centred = head_statistics(columns)
    assert (centred["shape_mean_max"], centred["expression_mean_max"]) == (0.0, 0.0)
    columns |= {"shape_4": spread - 2.5, "expression_0": spread / 2 + 0.25}
    shifted = head_statistics(columns)
    assert shifted["shape_mean_max"] == pytest.approx(2.5)
    assert shifted["expression_mean_max"] == pytest.approx(0.25)
    assert shifted["shape_std_min"] == centred["shape_std_min"]
