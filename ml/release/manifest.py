"""Missing parts of a copy of the official release: splits, halves of pairs, altered files.

Users report copies of 174 GB in place of 187, and images without annotation. Nothing is decoded
here; what is in a file is judged when it is imported.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import pandas as pd

from ml.records.progress import progress
from ml.release.archives import (
    EXCLUSIONS_NAME,
    SMALL,
    SPLIT_NAME,
    NotARelease,
    PartFiles,
    Release,
)
from ml.release.official_reader import comparable, read_list

NUM_SPLITS: Final = 100
NUM_IMAGES: Final = 1_022_944
"""Images that stay in the published release, after its lists of removed ones."""
SUMS_NAME: Final = "MD5SUMS"
COLUMNS: Final = ("what", "where", "detail")
_EXAMPLES: Final = 3
_CHUNK: Final = 1 << 22


def what_lacks(release: Release, sources: Sequence[Path], sums: bool = True) -> pd.DataFrame:
    """Compare a copy of the release with what was published, by names and checksums.

    Args:
        release: the listed copy.
        sources: where it is; a file MD5SUMS is searched for there, or next to a tar.
        sums: whether to read every file that MD5SUMS names.

    Returns:
        Columns what, where, detail; empty if nothing is missing.
    """
    rows = [*_missing_parts(release), *_cut_tars(release)]
    num_images = 0
    for part in progress(release.parts, "checking parts"):
        files = release.files(part)
        paired, problems = _pairs(files)
        num_images += 0 if part.split("/")[0] == SMALL else paired
        rows += problems
    if num_images < NUM_IMAGES:
        detail = f"{num_images:,} images with annotation of {NUM_IMAGES:,} that were published"
        rows.append(("images", "large", detail))
    if sums:
        for path in _sums_files(sources):
            rows += _check_sums(path)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _missing_parts(release: Release) -> Iterator[tuple[str, str, str]]:
    numbers = {int(match[1]) for part in release.parts if (match := SPLIT_NAME.fullmatch(part))}
    missing = [number for number in range(NUM_SPLITS) if number not in numbers]
    if missing:
        names = ", ".join(_spans(missing))
        yield "splits", "large", f"{len(missing)} of {NUM_SPLITS} are missing: {names}"
    if not any(part.split("/")[0] == SMALL for part in release.parts):
        yield "part", SMALL, "the images labelled manually are missing"


def _cut_tars(release: Release) -> Iterator[tuple[str, str, str]]:
    for text in release.damaged:
        yield "tar", text.split()[0].rstrip(":"), text


def _pairs(files: PartFiles) -> tuple[int, list[tuple[str, str, str]]]:
    """Return how many annotated images are not listed as removed, and what is missing."""
    rows: list[tuple[str, str, str]] = []
    try:
        removed = read_list(files, EXCLUSIONS_NAME)
    except NotARelease as error:
        removed = frozenset()
        rows.append(("list", files.name, str(error)))
    images = {comparable(file.stem): file.name for file in files.images}
    labels = {comparable(f.stem): f.name for f in files.annotations if f.name.endswith(".npz")}
    for what, mine, other in (("annotation", images, labels), ("image", labels, images)):
        alone = sorted(mine[key] for key in mine.keys() - other.keys() - removed)
        if alone:
            shown = ", ".join(alone[:_EXAMPLES]) + (", ..." if len(alone) > _EXAMPLES else "")
            rows.append((what, files.name, f"{len(alone)} missing: of {shown}"))
    return len((images.keys() & labels.keys()) - removed), rows


def _sums_files(sources: Sequence[Path]) -> list[Path]:
    folders = [source if source.is_dir() else source.absolute().parent for source in sources]
    found = (folder / SUMS_NAME for folder in dict.fromkeys(folders))
    return [path for path in found if path.is_file()]


def _check_sums(path: Path) -> Iterator[tuple[str, str, str]]:
    """Compare the files that a list of sums names; a line at a time, however long it is."""
    with path.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(progress(lines, path.name), start=1):
            expected, _, name = line.strip().partition(" ")
            name = name.strip().removeprefix("*")
            if not line.strip() or line.startswith("#"):
                continue
            if len(expected) != 32 or not name:
                detail = f"line {number}: expected a sum and a name, got {line.strip()[:60]!r}"
                yield SUMS_NAME, path.name, detail
                continue
            target = path.parent / name
            if not target.resolve().is_relative_to(path.parent.resolve()):
                yield SUMS_NAME, name, f"line {number} leads out of {path.parent.name}"
            elif not target.is_file():
                yield "file", name, f"is listed in {path.name} and missing"
            elif (found := _md5(target)) != expected.lower():
                yield "file", name, f"its MD5 is {found}, published {expected.lower()}"


def _md5(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        for piece in progress(iter(lambda: file.read(_CHUNK), b""), f"4 MiB of {path.name}"):
            digest.update(piece)
    return digest.hexdigest()


def _spans(numbers: Sequence[int]) -> list[str]:
    """Run of numbers: 3, 5 to 9."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and spans[-1][1] == number - 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return [str(low) if low == high else f"{low} to {high}" for low, high in spans]
