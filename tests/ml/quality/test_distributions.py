"""Words and numbers that the statistics of a dataset are of."""

import pandas as pd

from ml.captions.scene import NO_SCENE, PersonLook, Scene
from ml.quality.distributions import scene_words


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
