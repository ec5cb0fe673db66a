"""From caption to prompt: people of every origin equally often, and a quality suffix.

Follows the prompt rewriting of the paper's data generation with its gaps closed: words match in
any case, next to punctuation and in the plural; the term agrees with the noun's gender; the article
follows the new word; one subject gets one term, however often it is mentioned; terms come evenly.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Literal

import numpy as np

Gender = Literal["masculine", "feminine", "neutral"]

NEGATIVE_PROMPT: Final = (
    "worst quality, low quality, sketch, bad anatomy, bad body, bad face, nsfw, nudity, violence"
)
QUALITY_SUFFIX: Final = ", ultra highres"


@dataclass(frozen=True)
class Term:
    """A word for the origin of a person.

    Attributes:
        masculine: Form before a masculine noun; also the term's name.
        feminine: Form before a feminine noun.
        neutral: Form before a neutral noun.
        tones: Monk tones, first and last, that an image of such a person may show. Wide on
            purpose; it only keeps a rendered image from contradicting its prompt.
    """

    masculine: str
    feminine: str
    neutral: str
    tones: tuple[int, int]

    def form(self, gender: Gender) -> str:
        """Return the form that agrees with a noun.

        Args:
            gender: The noun's gender.

        Returns:
            The word or words to put before the noun.
        """
        forms = {"masculine": self.masculine, "feminine": self.feminine, "neutral": self.neutral}
        return forms[gender]


def _invariable(name: str, first_tone: int, last_tone: int) -> Term:
    return Term(name, name, name, (first_tone, last_tone))


TERMS: Final = (
    Term("Latino", "Latina", "Latin American", (2, 8)),
    _invariable("Black", 6, 10),
    _invariable("Asian", 1, 8),
    _invariable("White", 1, 4),
    _invariable("Middle Eastern", 2, 7),
    _invariable("Indigenous", 3, 9),
    _invariable("Pacific Islander", 4, 9),
    _invariable("Mixed race", 2, 9),
    Term("Afro-Latino", "Afro-Latina", "Afro-Latin American", (5, 10)),
    _invariable("South Asian", 4, 9),
    _invariable("Southeast Asian", 3, 8),
    _invariable("East Asian", 1, 5),
    _invariable("Biracial", 2, 9),
    _invariable("Multiracial", 2, 9),
    _invariable("Arab", 2, 7),
)
"""The paper's fifteen words."""

_NOUNS: Final[dict[str, Gender]] = {
    "man": "masculine", "men": "masculine", "male": "masculine", "males": "masculine",
    "boy": "masculine", "boys": "masculine",
    "woman": "feminine", "women": "feminine", "female": "feminine", "females": "feminine",
    "girl": "feminine", "girls": "feminine",
    "person": "neutral", "persons": "neutral",
}  # fmt: skip
_PEOPLE_VARIANTS: Final = ("people", "people of different races")
# A hyphen makes another word of it: "snow-man", "man-made".
_PEOPLE_WORDS: Final = "|".join([*_NOUNS, "people"])
_SUBJECT: Final = re.compile(rf"(?<![\w-])({_PEOPLE_WORDS})(?![\w-])", re.IGNORECASE)
_WORD_BEFORE: Final = re.compile(r"([A-Za-z'-]+)(\s+)$")
_REFERS_BACK: Final = frozenset({"the", "this", "that", "these", "those", "same"})
_ALL_FORMS: Final = tuple(
    {form.lower() for term in TERMS for form in (term.masculine, term.feminine, term.neutral)}
)


@dataclass(frozen=True)
class Prompt:
    """A rewritten caption.

    Attributes:
        text: The final prompt.
        choices: Every choice made, JSON-serialisable: `subjects` (position in the caption, noun,
            term or None, reason), `people`, `suffix`.
    """

    text: str
    choices: dict[str, Any]

    @property
    def terms(self) -> list[str]:
        """Names of the terms that were put in, in order of their subjects."""
        return [item["term"] for item in self.choices["subjects"] if item["term"] is not None]

    def choices_json(self) -> str:
        """Return the choices as JSON with sorted keys."""
        return json.dumps(self.choices, sort_keys=True)


class TermDeck:
    """Draws terms evenly: each of the fifteen once before any repeats."""

    def __init__(self, rng: np.random.Generator) -> None:
        """Shuffle the first deck; `rng` shuffles this and all later ones."""
        self._rng = rng
        self._left: list[Term] = []

    def deal(self) -> Term:
        """Take a term off the deck.

        Returns:
            The term.
        """
        if not self._left:
            self._left = [TERMS[int(index)] for index in self._rng.permutation(len(TERMS))]
        return self._left.pop()


def rewrite(
    caption: str,
    rng: np.random.Generator,
    *,
    probability: float = 0.8,
    suffix_probability: float = 0.5,
    suffix: str = QUALITY_SUFFIX,
    tones: Sequence[int] = (),
    deck: TermDeck | None = None,
) -> Prompt:
    """Diversify a caption and turn it into a prompt.

    Args:
        caption: A caption without names.
        rng: Source of randomness.
        probability: For each subject, that it gets a term.
        suffix_probability: That the quality suffix is appended.
        suffix: The quality suffix, with its leading comma.
        tones: Monk tones of the subjects in the order of their mention, where the image's skin
            tones are decided already; terms are then drawn so that they fit and still come evenly.
        deck: deals the terms of subjects without a tone; without it each is drawn by chance.

    Returns:
        The prompt and every choice.

    Source:
        Paper 3.1. The released generator matches exact lower-case words between blanks only, uses
        masculine forms for women, and records nothing.
    """
    choices: dict[str, Any] = {"subjects": [], "people": None, "suffix": False}
    pieces: list[str] = []
    seen: set[str] = set()
    position, num_described = 0, 0
    for match in _SUBJECT.finditer(caption):
        noun = match.group(1)
        before = caption[position : match.start()]
        if noun.lower() == "people":
            changed = rng.random() < probability
            chosen = _PEOPLE_VARIANTS[int(rng.integers(2))] if changed else None
            choices["people"] = chosen
            after = "" if chosen is None else chosen[len("people") :]
            pieces += [before, noun, after]
        else:
            reason = _reason_to_keep(caption, match, before, noun, seen)
            term = None
            if reason is None:
                tone = tones[num_described] if num_described < len(tones) else None
                num_described += 1
                reason = "not drawn"
                if rng.random() < probability:
                    term, reason = _draw_term(rng, tone, deck), "drawn"
            seen.add(noun.lower())
            pieces += _with_term(before, noun, term)
            choices["subjects"].append(
                {
                    "start": match.start(),
                    "noun": noun.lower(),
                    "term": None if term is None else term.masculine,
                    "reason": reason,
                }
            )
        position = match.end()
    text = "".join([*pieces, caption[position:]])
    if rng.random() < suffix_probability:
        choices["suffix"] = True
        text = text.rstrip(" .,;!") + suffix
    return Prompt(text, choices)


def find_terms(text: str) -> list[str]:
    """Return names of the terms that a text applies to people, each once.

    A term counts directly before a noun for people: "a Black man" has one, "a man in black" none.

    Args:
        text: A caption or prompt.

    Returns:
        Masculine forms, as in `TERMS`, in the order of `TERMS`. A longer term hides the shorter
        one inside it: "East Asian" does not count as "Asian".
    """
    lowered = text.lower()
    found = set()
    spelled = [(form.lower(), term.masculine) for term in TERMS for form in set(_forms(term))]
    for form, name in sorted(spelled, key=lambda item: -len(item[0])):
        pattern = rf"(?<![\w-]){re.escape(form)}(?=\s+(?:{_PEOPLE_WORDS})(?![\w-]))"
        if re.search(pattern, lowered):
            found.add(name)
            lowered = re.sub(pattern, lambda match: "#" * len(match.group()), lowered)
    return [term.masculine for term in TERMS if term.masculine in found]


@cache
def term_weights() -> np.ndarray:
    """Return the frequency of each term for each skin tone.

    Scaled alternately by rows and columns (Sinkhorn) until, with skin tones drawn evenly, the
    terms come evenly too and never with a tone outside their range.

    Returns:
        (10, 15) float64; row t - 1 holds the probabilities of `TERMS` for Monk tone t.
    """
    tones = np.arange(1, 11)
    weights = np.stack(
        [((tones >= term.tones[0]) & (tones <= term.tones[1])).astype(float) for term in TERMS],
        axis=1,
    )
    for _ in range(500):
        weights /= weights.sum(axis=0, keepdims=True) * len(TERMS)
        weights /= weights.sum(axis=1, keepdims=True)
    weights.flags.writeable = False
    return weights


def _forms(term: Term) -> tuple[str, str, str]:
    return term.masculine, term.feminine, term.neutral


def _draw_term(rng: np.random.Generator, tone: int | None, deck: TermDeck | None) -> Term:
    if tone is None and deck is not None:
        return deck.deal()
    if tone is None:
        return TERMS[int(rng.integers(len(TERMS)))]
    if not 1 <= tone <= 10:
        raise ValueError(f"tones: Monk tones are 1 to 10, got {tone}")
    return TERMS[int(rng.choice(len(TERMS), p=term_weights()[tone - 1]))]


def _reason_to_keep(
    caption: str, match: re.Match[str], before: str, noun: str, seen: set[str]
) -> str | None:
    """Return why a mention gets no term, or None if it may get one."""
    preceding = _WORD_BEFORE.search(caption[: match.start()])
    word_before = preceding.group(1).lower() if preceding else ""
    if not before.strip() and word_before in _NOUNS:
        return "same subject"  # "male person": the adjective has it
    if word_before in _REFERS_BACK and noun.lower() in seen:
        return "same subject"
    ends = caption[: match.start()].rstrip().lower()
    if any(re.search(rf"(?<![\w-]){re.escape(form)}$", ends) for form in _ALL_FORMS):
        return "already described"
    return None


def _with_term(before: str, noun: str, term: Term | None) -> list[str]:
    """Return the text before a noun, the term and the noun, with the article and case put right."""
    if term is None:
        return [before, noun]
    form = term.form(_NOUNS[noun.lower()])
    preceding = _WORD_BEFORE.search(before)
    if preceding and preceding.group(1).lower() in ("a", "an"):
        article = "an" if form[0] in "AEIO" else "a"
        written = article.capitalize() if preceding.group(1)[0].isupper() else article
        before = before[: preceding.start()] + written + preceding.group(2)
    return [before, form, " ", noun.lower() if noun.istitle() else noun]
