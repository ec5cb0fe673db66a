"""The name filter: an image must not be generated from a text that names a person.

Diffusion models associate a person's appearance with the name (paper, section 3.3), so a caption
with a first or last name is excluded before it becomes a prompt.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Final, Literal, Protocol

Label = Literal["first name", "last name", "name"]

_WORD: Final = re.compile(r"[^\W\d_]+(?:[-'’][^\W\d_]+)*")  # noqa: RUF001 (typographic apostrophe)
_POSSESSIVE: Final = re.compile(r"['’]s$", re.IGNORECASE)  # noqa: RUF001 (typographic apostrophe)
_SAINTS: Final = frozenset({"san", "santa", "saint", "st", "sao"})
_TITLE_CASE_SHARE: Final = 0.7
"""Above this fraction of capitalised words a caption is a title, and capitals mean nothing."""


@dataclass(frozen=True)
class NameSpan:
    """A personal name found in a text.

    Attributes:
        start: First character.
        end: Character after the last.
        label: Kind of name; `name` when first and last name are not distinguished.
        rule: Which rule found it.
    """

    start: int
    end: int
    label: Label
    rule: str


class NameDetector(Protocol):
    """Finds personal names in a text.

    Attributes:
        version: What it is, with the versions of its models.
    """

    @property
    def version(self) -> str:
        """What it is, with the versions of its models."""
        ...

    def find(self, text: str) -> list[NameSpan]:
        """Find all personal names.

        Args:
            text: A caption.

        Returns:
            Non-overlapping spans in order; empty when there is no name.
        """
        ...

    def find_all(self, texts: Sequence[str]) -> list[list[NameSpan]]:
        """Find all personal names in each of many texts.

        Args:
            texts: captions.

        Returns:
            For each what `find` returns.
        """
        ...


@dataclass(frozen=True)
class _Word:
    start: int
    end: int
    text: str
    key: str

    @property
    def is_capitalised(self) -> bool:
        return self.text[0].isupper()


class GazetteerNameDetector:
    """The embedded detector: lists of common names, and capitalised pairs of unknown words.

    Rules, the first that fits a word wins:

    * `first and last name`: a listed first name, then a listed last name; in any case when
      neither is also a word ("maria garcia"), else both capitalised ("Rose Young").
    * `capitalised pair`: two neighbouring capitalised words that are no known places, days,
      nationalities or function words, whether listed or not; off in captions written as titles.
    * `listed first name`, `listed last name`: a listed name alone that is not also a word; a last
      name only when capitalised.
    """

    version = "gazetteer"

    def find(self, text: str) -> list[NameSpan]:
        """Find personal names by the rules of the class.

        Args:
            text: A caption; any case, punctuation and accents.

        Returns:
            Non-overlapping spans in order; empty when there is no name.
        """
        words = [_to_word(match) for match in _WORD.finditer(text)]
        num_capitals = sum(word.is_capitalised for word in words)
        is_title = len(words) >= 4 and num_capitals > _TITLE_CASE_SHARE * len(words)
        spans: list[NameSpan] = []
        index = 0
        while index < len(words):
            word = words[index]
            after = words[index + 1] if index + 1 < len(words) else None
            if after is not None and not _are_neighbours(text, word, after):
                after = None
            if after is not None and word.key in _SAINTS and after.is_capitalised:
                index += 2  # a town: San Francisco, Santa Monica
            elif after is not None and _is_listed_pair(word, after, is_title):
                spans.append(NameSpan(word.start, after.end, "name", "first and last name"))
                index += 2
            elif after is not None and not is_title and _is_capitalised_pair(word, after):
                spans.append(NameSpan(word.start, after.end, "name", "capitalised pair"))
                index += 2
            else:
                single = _single_name(word)
                if single is not None:
                    spans.append(NameSpan(word.start, word.end, *single))
                index += 1
        return spans

    def find_all(self, texts: Sequence[str]) -> list[list[NameSpan]]:
        """Find personal names in each of many texts.

        Args:
            texts: captions.

        Returns:
            For each what `find` returns.
        """
        return [self.find(text) for text in texts]


@cache
def name_list(file_name: str) -> frozenset[str]:
    """Return a bundled list of names.

    Args:
        file_name: A file of `ml/captions/data`: one entry a line, `#` starts a comment.

    Returns:
        The entries as written.
    """
    text = resources.files("ml.captions").joinpath("data", file_name).read_text("utf-8")
    lines = (line.strip() for line in text.splitlines())
    return frozenset(line for line in lines if line and not line.startswith("#"))


def _to_word(match: re.Match[str]) -> _Word:
    written = _POSSESSIVE.sub("", match.group())
    decomposed = unicodedata.normalize("NFKD", written.lower())
    key = "".join(char for char in decomposed if not unicodedata.combining(char))
    return _Word(match.start(), match.start() + len(written), written, key)


def _are_neighbours(text: str, word: _Word, after: _Word) -> bool:
    """Return whether only blanks separate two words."""
    return text[word.end : after.start].isspace()


def _is_word_too(word: _Word) -> bool:
    return word.key in name_list("ambiguous_names.txt")


def _is_listed_pair(word: _Word, after: _Word, is_title: bool) -> bool:
    if word.key not in name_list("first_names.txt") or after.key not in name_list("last_names.txt"):
        return False
    if not (_is_word_too(word) or _is_word_too(after)):
        return True
    if _is_word_too(word) and _is_word_too(after) and is_title:
        return False
    return word.is_capitalised and after.is_capitalised


def _is_capitalised_pair(word: _Word, after: _Word) -> bool:
    return all(
        part.is_capitalised
        and len(part.text) > 1
        and part.key not in name_list("capitalised_words.txt")
        for part in (word, after)
    )


def _single_name(word: _Word) -> tuple[Label, str] | None:
    if _is_word_too(word):
        return None
    if word.key in name_list("first_names.txt"):
        return "first name", "listed first name"
    if word.is_capitalised and word.key in name_list("last_names.txt"):
        return "last name", "listed last name"
    return None
