"""The scene a caption describes: place, light and the look of every person.

The vocabularies are the contract between the scene grammar, which draws from them, and the
renderer, which must be able to draw every word in them.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

PLACES = (
    "a city street",
    "a park",
    "a beach",
    "an office",
    "a kitchen",
    "a living room",
    "a studio",
    "a forest",
    "a stadium",
    "a market",
    "a station",
    "a mountain meadow",
)
LIGHTS = (
    "bright daylight",
    "overcast light",
    "golden hour light",
    "night light",
    "warm lamp light",
    "soft studio light",
    "backlight",
)
TOPS = ("t-shirt", "shirt", "sweater", "jacket", "coat", "dress", "hoodie", "tank top")
BOTTOMS = ("jeans", "trousers", "shorts", "skirt")
PATTERNS = ("plain", "striped", "checked", "dotted", "printed")
COLOURS = (
    "black",
    "white",
    "grey",
    "navy",
    "blue",
    "light blue",
    "red",
    "burgundy",
    "green",
    "olive",
    "yellow",
    "orange",
    "brown",
    "beige",
    "pink",
    "purple",
)
HAIR_STYLES = (
    "bald",
    "buzz cut",
    "short",
    "side part",
    "curly",
    "afro",
    "bob",
    "long",
    "bun",
    "ponytail",
)
HAIR_COLOURS = ("black", "dark brown", "brown", "auburn", "blond", "grey", "white")
GLASSES = ("none", "glasses", "sunglasses")
HATS = ("none", "cap", "beanie", "wide hat", "headscarf")
BEARDS = ("none", "stubble", "beard")
MONK_TONES = tuple(range(1, 11))
NO_SCENE = "null"
"""Stands for a scene's JSON where a caption is free text."""


@dataclass(frozen=True)
class PersonLook:
    """Look of one person; every word comes from the vocabularies of this module.

    `skin_tone` is the Monk scale's number, 1 (lightest) to 10 (darkest). `subject` is the
    neutral noun used in the caption: person, man, woman, girl or boy.
    """

    subject: str
    skin_tone: int
    top: str
    top_colour: str
    top_pattern: str
    bottom: str
    bottom_colour: str
    hair_style: str
    hair_colour: str
    glasses: str
    hat: str
    beard: str


@dataclass(frozen=True)
class Scene:
    """Content of a caption and its image; `people` follows the pose's person order."""

    place: str
    light: str
    people: tuple[PersonLook, ...]

    def to_json(self) -> str:
        """Serialise with sorted keys, so that equal scenes give equal text."""
        return json.dumps(asdict(self), sort_keys=True)

    @staticmethod
    def from_json(text: str) -> Scene:
        """Read the output of `to_json`.

        Raises:
            ValueError: it is not JSON, a field is unknown or missing, or a word is unknown.
        """
        raw = json.loads(text)
        try:
            people = tuple(PersonLook(**person) for person in raw.pop("people"))
            return _of_the_vocabularies(Scene(people=people, **raw))
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(
                f"scene: expected place, light and people, got {text[:80]!r}: {error}"
            ) from error


_WORDS: dict[str, tuple[object, ...]] = {
    "skin_tone": MONK_TONES,
    "top": TOPS,
    "top_colour": COLOURS,
    "top_pattern": PATTERNS,
    "bottom": BOTTOMS,
    "bottom_colour": COLOURS,
    "hair_style": HAIR_STYLES,
    "hair_colour": HAIR_COLOURS,
    "glasses": GLASSES,
    "hat": HATS,
    "beard": BEARDS,
}
"""Fields of a person, and the words that a renderer can draw there."""


def _of_the_vocabularies(scene: Scene) -> Scene:
    """Return the scene, when all its words are known."""
    said: list[tuple[str, object, tuple[object, ...]]] = [
        ("place", scene.place, PLACES),
        ("light", scene.light, LIGHTS),
    ]
    for number, look in enumerate(scene.people):
        said += [
            (f"people[{number}].{field}", getattr(look, field), words)
            for field, words in _WORDS.items()
        ]
    for field, word, words in said:
        if word not in words:
            raise ValueError(f"scene: {field}: expected one of {list(words)}, got {word!r}")
    return scene
