"""The embedded captioner: a grammar that draws a scene and describes it in neutral words.

It takes the place of an image captioner, faults included: now and then it writes a person's name,
which the name rule has to find.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np

from ml.captions.names import name_list
from ml.captions.scene import (
    COLOURS,
    GLASSES,
    HAIR_COLOURS,
    HATS,
    LIGHTS,
    MONK_TONES,
    PLACES,
    PersonLook,
    Scene,
)

T = TypeVar("T")

INDOORS: Final = ("an office", "a kitchen", "a living room", "a studio")
_PREPOSITIONS: Final = {
    "a city street": "on",
    "a beach": "on",
    "a market": "at",
    "a station": "at",
}
_LIGHTS_INDOORS: Final = (
    "bright daylight",
    "overcast light",
    "warm lamp light",
    "soft studio light",
    "backlight",
)
_LIGHTS_OUTDOORS: Final = tuple(light for light in LIGHTS if light != "soft studio light")
_NUMBERS: Final = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight")

_ADULTS: Final = {"man": 0.4, "woman": 0.4, "person": 0.2}
_CHILDREN: Final = {"boy": 0.5, "girl": 0.5}
_TOPS: Final = {
    "t-shirt": 0.20, "shirt": 0.17, "sweater": 0.15, "jacket": 0.14, "coat": 0.09,
    "hoodie": 0.13, "tank top": 0.12,
}  # fmt: skip
_PATTERNS: Final = {"plain": 0.5, "striped": 0.15, "checked": 0.13, "dotted": 0.09, "printed": 0.13}
_BOTTOMS: Final = {"jeans": 0.4, "trousers": 0.35, "shorts": 0.25}
_DRESS_PROBABILITY: Final = {"woman": 0.22, "girl": 0.22, "person": 0.05}
_SKIRT_PROBABILITY: Final = {"woman": 0.18, "girl": 0.18, "person": 0.05}
_HAIR: Final[dict[str, dict[str, float]]] = {
    "man": {"bald": 0.14, "buzz cut": 0.18, "short": 0.26, "side part": 0.20, "curly": 0.10,
            "afro": 0.06, "long": 0.04, "bun": 0.02},
    "woman": {"buzz cut": 0.03, "short": 0.10, "side part": 0.06, "curly": 0.14, "afro": 0.08,
              "bob": 0.18, "long": 0.21, "bun": 0.10, "ponytail": 0.10},
    "boy": {"buzz cut": 0.2, "short": 0.4, "side part": 0.15, "curly": 0.2, "afro": 0.05},
    "girl": {"short": 0.12, "curly": 0.16, "afro": 0.06, "bob": 0.2, "long": 0.24, "bun": 0.07,
             "ponytail": 0.15},
}  # fmt: skip
_HAIR_COLOURS: Final = {
    "black": 0.26, "dark brown": 0.22, "brown": 0.16, "auburn": 0.08, "blond": 0.12, "grey": 0.09,
    "white": 0.07,
}  # fmt: skip
_GLASSES: Final = {"none": 0.76, "glasses": 0.15, "sunglasses": 0.09}
_HATS: Final = {"cap": 0.36, "beanie": 0.27, "wide hat": 0.23, "headscarf": 0.14}
_BEARDS: Final = {"none": 0.55, "stubble": 0.22, "beard": 0.23}


@dataclass(frozen=True)
class Caption:
    """The captioner's output for one image.

    Attributes:
        scene: Content of the image.
        text: The caption.
        described: Indices of the people the text describes, in the order of their mention.
        names_person: Whether the text holds a personal name.
    """

    scene: Scene
    text: str
    described: tuple[int, ...]
    names_person: bool


class ToneDeck:
    """Draws Monk tones evenly: each of the ten once before any repeats."""

    def __init__(self, rng: np.random.Generator) -> None:
        """Shuffle the first deck; `rng` shuffles this and all later ones."""
        self._rng = rng
        self._left: list[int] = []

    def deal(self, count: int) -> list[int]:
        """Take tones off the deck.

        Args:
            count: Number of tones.

        Returns:
            Monk tones, 1 to 10.
        """
        while len(self._left) < count:
            self._left += [int(tone) for tone in self._rng.permutation(MONK_TONES)]
        dealt, self._left = self._left[:count], self._left[count:]
        return dealt


def compose(
    rng: np.random.Generator,
    is_child: Sequence[bool],
    tones: Sequence[int],
    *,
    name_probability: float,
    hat_probability: float,
    max_described: int,
) -> Caption:
    """Draw a scene for the people of a pose and its caption.

    Args:
        rng: Source of randomness.
        is_child: For each person, in the pose's order (nearest first).
        tones: Monk tone of each person.
        name_probability: That the text names a person.
        hat_probability: That a person wears a hat or a headscarf.
        max_described: Most people whose looks the text describes, nearest first.

    Returns:
        Scene and caption.

    Raises:
        ValueError: There are no people, more than eight, or another number of tones.
    """
    if not 1 <= len(is_child) <= 8 or len(tones) != len(is_child):
        raise ValueError(
            f"captions: expected 1 to 8 people and a tone for each, got {len(is_child)} people and "
            f"{len(tones)} tones"
        )
    place = _pick(rng, dict.fromkeys(PLACES, 1.0))
    lights = _LIGHTS_INDOORS if place in INDOORS else _LIGHTS_OUTDOORS
    light = _pick(rng, dict.fromkeys(lights, 1.0))
    looks = tuple(
        _draw_look(rng, child, tone, hat_probability)
        for child, tone in zip(is_child, tones, strict=True)
    )
    scene = Scene(place=place, light=light, people=looks)
    described = tuple(range(min(len(looks), max_described)))
    text = _say(rng, scene, described)
    named = bool(rng.random() < name_probability)
    if named:
        text = f"{text}, with {_draw_name(rng)}"
    return Caption(scene, text, described, named)


def describe(look: PersonLook) -> str:
    """Return one person in neutral words: clothing, glasses and hat, nothing of origin or skin.

    Args:
        look: The person's look.

    Returns:
        A noun phrase such as `a woman in a red striped shirt and blue jeans with glasses`.
    """
    pattern = "" if look.top_pattern == "plain" else f" {look.top_pattern}"
    clothes = f"{_article(look.top_colour)} {look.top_colour}{pattern} {look.top}"
    if look.top != "dress":
        bottom = f"{look.bottom_colour} {look.bottom}"
        is_singular = look.bottom == "skirt"
        clothes += f" and {_article(bottom)} {bottom}" if is_singular else f" and {bottom}"
    extras = [look.glasses] if look.glasses != GLASSES[0] else []
    if look.hat != HATS[0]:
        extras.append(f"{_article(look.hat)} {look.hat}")
    wearing = f" with {' and '.join(extras)}" if extras else ""
    return f"a {look.subject} in {clothes}{wearing}"


def _say(rng: np.random.Generator, scene: Scene, described: Sequence[int]) -> str:
    where = f"{_PREPOSITIONS.get(scene.place, 'in')} {scene.place}"
    phrases = [describe(scene.people[index]) for index in described]
    form = int(rng.integers(3))
    if len(scene.people) == 1:
        sentences = (
            f"{phrases[0]} {where}, {scene.light}",
            f"{phrases[0]} {where} in {scene.light}",
            f"a photo of {phrases[0]} {where}, {scene.light}",
        )
        return sentences[form]
    number = _NUMBERS[len(scene.people)]
    listed = "; ".join(phrases)
    lead = "among them " if len(described) < len(scene.people) else ""
    sentences = (
        f"{number} people {where}, {scene.light}: {lead}{listed}",
        f"{number} people {where} in {scene.light}, {lead}{listed}",
        f"a photo of {number} people {where}, {scene.light}, {lead}{listed}",
    )
    return sentences[form]


def _draw_look(
    rng: np.random.Generator, is_child: bool, tone: int, hat_probability: float
) -> PersonLook:
    subject = _pick(rng, _CHILDREN if is_child else _ADULTS)
    # A neutral subject may look like anybody.
    hair_of = subject if subject in _HAIR else _pick(rng, {"man": 0.5, "woman": 0.5})
    top_colour, bottom_colour = _pick_colour(rng), _pick_colour(rng)
    top, bottom = _pick(rng, _TOPS), _pick(rng, _BOTTOMS)
    if rng.random() < _DRESS_PROBABILITY.get(subject, 0.0):
        top, bottom, bottom_colour = "dress", "skirt", top_colour
    elif rng.random() < _SKIRT_PROBABILITY.get(subject, 0.0):
        bottom = "skirt"
    hat = _pick(rng, _HATS) if rng.random() < hat_probability else HATS[0]
    has_beard = not is_child and hair_of == "man"
    return PersonLook(
        subject=subject,
        skin_tone=tone,
        top=top,
        top_colour=top_colour,
        top_pattern=_pick(rng, _PATTERNS),
        bottom=bottom,
        bottom_colour=bottom_colour,
        hair_style=_pick(rng, _HAIR[hair_of]),
        hair_colour=_draw_hair_colour(rng, is_child),
        glasses=_pick(rng, _GLASSES),
        hat=hat,
        beard=_pick(rng, _BEARDS) if has_beard else "none",
    )


def _draw_hair_colour(rng: np.random.Generator, is_child: bool) -> str:
    """Return any colour with any skin tone, so that a detector cannot lean on the pairing."""
    fractions = {
        name: 0.0 if is_child and name in ("grey", "white") else _HAIR_COLOURS[name]
        for name in HAIR_COLOURS
    }
    return _pick(rng, fractions)


def _draw_name(rng: np.random.Generator) -> str:
    """Return a first and a last name, half of the time from lists unknown to the name rule."""
    if rng.random() < 0.5:
        return _one_of(rng, sorted(name_list("unlisted_names.txt")))
    first = _one_of(rng, sorted(name_list("first_names.txt")))
    last = _one_of(rng, sorted(name_list("last_names.txt")))
    return f"{first.capitalize()} {last.capitalize()}"


def _pick_colour(rng: np.random.Generator) -> str:
    return _one_of(rng, COLOURS)


def _one_of(rng: np.random.Generator, items: Sequence[T]) -> T:
    return items[int(rng.integers(len(items)))]


def _pick(rng: np.random.Generator, fractions: Mapping[str, float]) -> str:
    weights = np.fromiter(fractions.values(), dtype=np.float64)
    return list(fractions)[int(rng.choice(len(weights), p=weights / weights.sum()))]


def _article(words: str) -> str:
    return "an" if words[0] in "aeio" else "a"
