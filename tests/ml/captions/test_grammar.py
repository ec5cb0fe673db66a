"""The scene grammar describes the scene in words of the vocabularies."""

import json
from collections import Counter

import pytest

from ml.captions import scene as words
from ml.captions.grammar import INDOORS, ToneDeck, compose, describe
from ml.captions.scene import PersonLook, Scene
from ml.records.ids import sample_rng


def caption(index, is_child=(False,), tones=None, **changes):
    settings = {"name_probability": 0.0, "hat_probability": 0.22, "max_described": 3, **changes}
    tones = tones or [5] * len(is_child)
    return compose(sample_rng(9, "test", str(index)), list(is_child), tones, **settings)


LOOK = PersonLook(
    subject="woman",
    skin_tone=5,
    top="shirt",
    top_colour="red",
    top_pattern="striped",
    bottom="skirt",
    bottom_colour="olive",
    hair_style="bob",
    hair_colour="brown",
    glasses="glasses",
    hat="wide hat",
    beard="none",
)


def test_describe_by_hand():
    expected = "a woman in a red striped shirt and an olive skirt with glasses and a wide hat"
    assert describe(LOOK) == expected
    plain = PersonLook(**{**LOOK.__dict__, "top": "dress", "top_colour": "orange",
                          "top_pattern": "plain", "glasses": "none", "hat": "none"})  # fmt: skip
    assert describe(plain) == "a woman in an orange dress"


def test_words_come_from_the_vocabularies():
    vocabulary = {
        "top": words.TOPS,
        "top_colour": words.COLOURS,
        "top_pattern": words.PATTERNS,
        "bottom": words.BOTTOMS,
        "bottom_colour": words.COLOURS,
        "hair_style": words.HAIR_STYLES,
        "hair_colour": words.HAIR_COLOURS,
        "glasses": words.GLASSES,
        "hat": words.HATS,
        "beard": words.BEARDS,
        "skin_tone": words.MONK_TONES,
        "subject": ("person", "man", "woman", "girl", "boy"),
    }
    seen = {name: set() for name in vocabulary}
    places, lights = set(), set()
    for index in range(400):
        scene = caption(index, is_child=(False, index % 3 == 0)).scene
        places.add(scene.place)
        lights.add(scene.light)
        for person in scene.people:
            for name in vocabulary:
                seen[name].add(getattr(person, name))
    for name, allowed in vocabulary.items():
        assert seen[name] <= set(allowed), name
        if name != "skin_tone":
            assert seen[name] == set(allowed), f"{name}: never drawn"
    assert places == set(words.PLACES)
    assert lights == set(words.LIGHTS)


@pytest.mark.parametrize(("num_people", "number"), [(2, "two"), (5, "five"), (8, "eight")])
def test_text_says_number_place_light_and_clothes(num_people, number):
    for index in range(30):
        made = caption(index, is_child=(False,) * num_people)
        assert f"{number} people" in made.text
        assert made.scene.place in made.text
        assert made.scene.light in made.text
        assert made.described == tuple(range(min(num_people, 3)))
        for person in made.scene.people[:3]:
            assert describe(person) in made.text


def test_text_never_says_skin_tone_or_hair():
    for index in range(100):
        assert "skin" not in caption(index).text


def test_children_are_girls_and_boys_without_beard_or_grey_hair():
    for index in range(200):
        child, adult = caption(index, is_child=(True, False)).scene.people
        assert child.subject in ("girl", "boy")
        assert child.beard == "none"
        assert child.hair_colour not in ("grey", "white")
        assert adult.subject in ("man", "woman", "person")


def test_studio_light_is_only_indoors():
    for index in range(150):
        scene = caption(index).scene
        assert scene.light != "soft studio light" or scene.place in INDOORS


def test_names_come_at_the_configured_rate():
    named = [caption(index, name_probability=0.04).names_person for index in range(5000)]
    assert sum(named) / len(named) == pytest.approx(0.04, abs=0.012)
    assert not any(caption(index).names_person for index in range(100))


def test_tone_deck_is_even():
    deck = ToneDeck(sample_rng(1, "test", "deck"))
    dealt = [tone for count in (3, 8, 1, 5, 7, 6) for tone in deck.deal(count)]
    assert Counter(dealt) == dict.fromkeys(words.MONK_TONES, 3)


def test_tones_are_kept_in_order():
    people = caption(1, is_child=(False,) * 3, tones=[10, 1, 4]).scene.people
    assert [person.skin_tone for person in people] == [10, 1, 4]


@pytest.mark.parametrize(
    ("is_child", "tones"), [((), []), ((False,) * 9, [1] * 9), ((False,), [1, 2])]
)
def test_wrong_numbers_are_refused(is_child, tones):
    with pytest.raises(ValueError, match="expected 1 to 8 people and a tone for each"):
        compose(
            sample_rng(1, "t", "x"),
            list(is_child),
            tones,
            name_probability=0,
            hat_probability=0,
            max_described=3,
        )


def test_scene_json_round_trip():
    scene = caption(3, is_child=(False, True)).scene
    assert Scene.from_json(scene.to_json()) == scene


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"place": "the moon"}, r"scene: place: expected one of \['a city street'.*'the moon'"),
        ({"light": 3}, r"scene: light: .* got 3"),
        ({"hair_style": "mohawk"}, r"scene: people\[1\].hair_style: .* got 'mohawk'"),
        ({"skin_tone": 11}, r"scene: people\[1\].skin_tone: .* got 11"),
        ({"hat": None}, r"scene: people\[1\].hat: .* got None"),
        ({"shoes": "red"}, "scene: expected place, light and people"),
    ],
)
def test_a_scene_that_nobody_can_draw_is_refused_when_read(change, told):
    scene = json.loads(caption(3, is_child=(False, True)).scene.to_json())
    field, value = next(iter(change.items()))
    part = scene if field in scene else scene["people"][1]
    part[field] = value
    with pytest.raises(ValueError, match=told):
        Scene.from_json(json.dumps(scene))
