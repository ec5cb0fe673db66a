"""Size of each set as stated by its publishers and users, to detect an incomplete copy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class PublishedCount:
    """A number that a whole copy of a set must have.

    Attributes:
        value: the number.
        verified: counted on the published files; else quoted from papers, which do not all agree.
    """

    value: int
    verified: bool = False


def _verified(**counts: int) -> dict[str, PublishedCount]:
    return {name: PublishedCount(value, True) for name, value in counts.items()}


def _quoted(**counts: int) -> dict[str, PublishedCount]:
    return {name: PublishedCount(value) for name, value in counts.items()}


PUBLISHED_COUNTS: Mapping[str, Mapping[str, PublishedCount]] = {
    "aflw2000": _verified(num_annotations=2000) | _quoted(num_images=1969, num_excluded_angles=31),
    "biwi": _verified(num_sequences=24) | _quoted(num_images=15678),
    "dad-test": _quoted(num_images=2746),
    "fddb": _verified(
        num_folds=10,
        num_images=2845,
        num_faces=5171,
        num_images_fold_01=290,
        num_images_fold_02=285,
        num_images_fold_03=274,
        num_images_fold_04=302,
        num_images_fold_05=298,
        num_images_fold_06=302,
        num_images_fold_07=279,
        num_images_fold_08=276,
        num_images_fold_09=259,
        num_images_fold_10=280,
    ),
    "wider": _verified(
        num_events=61,
        num_images=3226,
        num_rows=39708,
        num_images_without_face=4,
        num_degenerate=7,
        num_invalid=585,
        num_faces_easy=7211,
        num_faces_medium=13319,
        num_faces_hard=31958,
        num_images_without_easy=622,
        num_images_without_medium=207,
        num_images_without_hard=7,
    ),
    "feng": _quoted(num_images=2000, num_images_hq=656, num_images_lq=1344, num_subjects=135),
}
"""Set -> name of a count -> its value."""


@dataclass(frozen=True)
class CountDifference:
    """A count that differs from the published one."""

    name: str
    published: PublishedCount
    found: int

    def __str__(self) -> str:
        kind = "published" if self.published.verified else "quoted in papers"
        return f"{self.name}: found {self.found:,}, {kind} {self.published.value:,}"


def count_differences(benchmark: str, counts: Mapping[str, int]) -> list[CountDifference]:
    """Return which counts of a copy differ from the published ones.

    Args:
        benchmark: a key of `PUBLISHED_COUNTS`; any other set has no published counts.
        counts: name -> what was counted; names without a published count are ignored.

    Returns:
        The differences, in the order of the published counts.
    """
    return [
        CountDifference(name, published, int(counts[name]))
        for name, published in PUBLISHED_COUNTS.get(benchmark, {}).items()
        if name in counts and int(counts[name]) != published.value
    ]
