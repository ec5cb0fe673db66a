"""What every describer of source images offers, and how answers become words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, Protocol

import numpy as np
from pydantic import Field

from ml.records.config import StageConfig
from ml.records.models import ModelRef

_NUMBERS: Final = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight")


class Question(StageConfig):
    """A question about an image, and how its answer becomes part of the description."""

    ask: str = Field(min_length=3)
    """The question; neutral, about activity, clothing, place and light, not about a person's
    identity."""
    phrase: str = Field(default="{answer}", pattern=r"\{answer\}")
    """The part of the description, which contains `{answer}`."""


QUESTIONS: Final = (
    Question(ask="what are the people doing?", phrase="{answer}"),
    Question(ask="what are the people wearing?", phrase="wearing {answer}"),
    Question(ask="where is this picture taken?", phrase="place: {answer}"),
    Question(ask="how is the light?", phrase="{answer} light"),
)


class DescriberConfig(StageConfig):
    """Which model describes source images, and what it is asked."""

    backend: Literal["blip-vqa", "blip"] = "blip-vqa"
    """`blip-vqa` answers the questions below; `blip` writes a free caption."""
    model: ModelRef | None = None
    """The model's folder."""
    questions: tuple[Question, ...] = QUESTIONS
    """Questions for blip-vqa; the answers are joined to the description in this order."""
    useless_answers: tuple[str, ...] = ("", "yes", "no", "none", "nothing", "unknown", "not sure")
    """Answers without information, which are omitted."""
    max_new_tokens: int = Field(default=50, ge=1, le=10**9)
    """Maximum number of tokens of an answer or caption."""
    device: str = "auto"
    """Where to compute; `auto` takes the GPU when there is one."""


class Describer(Protocol):
    """Describes images in words that may be kept."""

    version: str
    """Name and hash of its model, recorded with every description."""

    def describe(self, images_rgb: Sequence[np.ndarray], num_people: Sequence[int]) -> list[str]:
        """Describe some images.

        Args:
            images_rgb: (H, W, 3) uint8 RGB each, sizes may differ.
            num_people: people whose pose was found in each.

        Returns:
            One description an image.
        """
        ...


def compose(num_people: int, answers: Sequence[str], config: DescriberConfig) -> str:
    """Join a subject and the answers that say something.

    Args:
        num_people: people in the image, at least one.
        answers: one a question.
        config: questions and answers that say nothing.

    Returns:
        Such as `two people, walking, wearing coats, place: street, bright light`.

    Raises:
        ValueError: the numbers of answers and questions differ.
    """
    if len(answers) != len(config.questions):
        raise ValueError(f"describer: expected {len(config.questions)} answers, got {len(answers)}")
    parts = [subject_of(num_people)]
    for question, raw in zip(config.questions, answers, strict=True):
        answer = " ".join(raw.split()).strip(" .,?!").lower()
        if answer not in config.useless_answers:
            parts.append(question.phrase.format(answer=answer))
    return ", ".join(parts)


def subject_of(num_people: int) -> str:
    """Return the people of an image in neutral words.

    Args:
        num_people: at least one.

    Returns:
        `a person`, `two people`, ..., `a group of 12 people`.
    """
    if num_people == 1:
        return "a person"
    if num_people < len(_NUMBERS):
        return f"{_NUMBERS[num_people]} people"
    return f"a group of {num_people} people"
