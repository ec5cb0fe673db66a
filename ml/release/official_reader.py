"""Reading the official VGGHeads release: from its folders or its tars, part by part."""

from __future__ import annotations

import json
import logging
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from ml.imaging.io import UnreadableImage, decode_image
from ml.records import reasons
from ml.records.atomic import temporary_folder
from ml.records.exclusions import Exclusions
from ml.records.files import UnreadableFile
from ml.records.ids import sample_seed
from ml.records.remote import AnyPath, RemotePath, located
from ml.release.archives import (
    EXCLUSIONS_NAME,
    METRICS_NAME,
    SPLIT_NAME,
    TEST_FOLDER,
    NotARelease,
    PartFiles,
    Release,
    StoredFile,
)
from ml.release.official import (
    BadAnnotation,
    ImageLabels,
    decode_annotation,
    from_official,
)

logger = logging.getLogger(__name__)

NUM_VAL_SPLITS = 2
"""The official training validates on split_00000 and split_00001."""


@dataclass(frozen=True)
class OfficialSample:
    """An image of the release and its heads.

    Attributes:
        sample_id: the image's name without suffix.
        split_name: such as `split_00007`.
        jpeg: the encoded image.
        image_rgb: (H, W, 3) uint8.
        labels: heads, image frame.
        stability: from `metrics.json`; None when it has none.
        listed: `train` or `val`, of the part's list that names it; None where none does.
    """

    sample_id: str
    split_name: str
    jpeg: bytes
    image_rgb: NDArray[np.uint8]
    labels: ImageLabels
    stability: float | None = None
    listed: str | None = None


def split_of(split_name: str) -> str:
    """Return our split of a part as the official training has it: val for the first two splits.

    Args:
        split_name: such as `split_00007` or `test/split_00000`.

    Returns:
        `train`, `val` or `test`.
    """
    return SplitRule().of(split_name, "")


@dataclass(frozen=True)
class SplitRule:
    """Which images are for what.

    Attributes:
        val: numbers of the splits to validate on.
        test: numbers of the splits to benchmark on.
        by_id: fraction of the images labelled manually, which have no splits, that go to val and to
            test, by their ids alone.
        everywhere: those of `by_id` that take their fraction of every other split too, because the
            copy does not contain theirs.
    """

    val: tuple[int, ...] = tuple(range(NUM_VAL_SPLITS))
    test: tuple[int, ...] = ()
    by_id: Mapping[str, float] = field(default_factory=dict)
    everywhere: tuple[str, ...] = ()

    def of(self, part: str, sample_id: str, listed: str | None = None) -> str:
        """Return the split of an image.

        Args:
            part: the part of the release it is in.
            sample_id: its id.
            listed: the split of the list that names it, if one does.
        """
        folder = part.split("/")[-1]
        if part.startswith(f"{TEST_FOLDER}/"):
            return "test"
        if listed or folder in ("train", "val", "test"):
            return listed or folder
        match = SPLIT_NAME.fullmatch(folder)
        number = int(match[1]) if match else -1
        if number in self.val:
            return "val"
        if number in self.test:
            return "test"
        draw = sample_seed(0, "release", sample_id) / 2**63
        for split, fraction in self.by_id.items():
            if number >= 0 and split not in self.everywhere:
                continue
            if draw < fraction:
                return split
            draw -= fraction
        return "train"


def comparable(name: str) -> str:
    """Return the form in which names are compared: file systems differ in case and Unicode.

    Args:
        name: an image's name without suffix.

    Returns:
        Its composed form without case.
    """
    return unicodedata.normalize("NFC", name).casefold()


def listed_names(files: PartFiles) -> list[str]:
    """Return the names of a part's images, and of the annotations that have none.

    Args:
        files: of the part.

    Returns:
        Names without suffix: what `iter_part` has to give or to exclude.
    """
    images = {comparable(file.stem) for file in files.images}
    labels = [file for file in files.annotations if file.name.endswith(".npz")]
    alone = [file for file in labels if comparable(file.stem) not in images]
    return [file.stem for file in (*files.images, *alone)]


def pair_files(
    files: PartFiles, exclusions: Exclusions
) -> list[tuple[str, StoredFile, StoredFile]]:
    """Return images and annotations that belong together beyond doubt; all others are excluded.

    Args:
        files: of one part.
        exclusions: receives listed, unpaired and ambiguous files.

    Returns:
        Name, image and annotation, in order of the names.

    Raises:
        NotARelease: `files.txt` is no text.
    """
    removed = read_list(files, EXCLUSIONS_NAME)
    by_name = _by_name(files.images)
    annotations = _by_name([file for file in files.annotations if file.name.endswith(".npz")])
    part, pairs = files.name, []
    for key in sorted(by_name.keys() | annotations.keys()):
        images, labels = by_name.get(key, []), annotations.get(key, [])
        if not images:
            for file in labels:
                where = f"{part}/annotations/{file.name}"
                exclusions.add(file.stem, reasons.NO_IMAGE, f"{where} has no image")
            continue
        where = f"{part}/{' and '.join(file.name for file in images)}"
        if key in removed:
            reason, detail = reasons.EXCLUSION_LIST, f"{where} is listed in {EXCLUSIONS_NAME}"
        elif len(images) > 1 or len(labels) > 1:
            also = f"; annotations {' and '.join(file.name for file in labels) or 'none'}"
            reason, detail = reasons.SHARED_NAME, f"{where} have one name{also}"
        elif "." in images[0].stem:
            reason, detail = reasons.BAD_NAME, f"{where}: a name with a dot is no sample id"
        elif not labels:
            missing = f"annotations/{images[0].stem}.npz"
            reason, detail = reasons.NO_ANNOTATION, f"{where} has no {missing}"
        else:
            pairs.append((images[0].stem, images[0], labels[0]))
            continue
        for file in images:
            exclusions.add(file.stem, reason, detail)
    return pairs


def _by_name(files: Sequence[StoredFile]) -> dict[str, list[StoredFile]]:
    images: dict[str, list[StoredFile]] = {}
    for file in sorted(files, key=lambda file: file.name):
        images.setdefault(comparable(file.stem), []).append(file)
    return images


def iter_part(files: PartFiles, exclusions: Exclusions) -> Iterator[OfficialSample]:
    """Stream one part; whatever is not given is excluded with its reason.

    Args:
        files: of the part.
        exclusions: receives listed, unpaired, ambiguous and damaged files.

    Yields:
        The samples by name.

    Raises:
        NotARelease: one of its lists is no text.
    """
    part, stabilities = files.name, _stabilities(files)
    listed = {
        name: split for split in ("train", "val") for name in read_list(files, f"{split}_files.txt")
    }
    for name, image_file, annotation in pair_files(files, exclusions):
        where = f"{part}/{image_file.name}"
        try:
            jpeg = image_file.read()
            image = decode_image(jpeg)
        except (UnreadableImage, UnreadableFile) as error:
            exclusions.add(name, reasons.DAMAGED_IMAGE, f"{where}: {error}")
            continue
        try:
            labels = from_official(decode_annotation(annotation.read()))
        except (BadAnnotation, UnreadableFile) as error:
            exclusions.add(name, reasons.DAMAGED_ANNOTATION, f"{where}: {error}")
            continue
        stability, split = stabilities.get(name), listed.get(comparable(name))
        yield OfficialSample(name, part, jpeg, image, labels, stability, split)


def iter_release(
    sources: AnyPath | str | Sequence[AnyPath | str],
    exclusions: Exclusions,
    spool: Path | None = None,
) -> Iterator[Iterator[OfficialSample]]:
    """Stream a release, one iterator a part; its folders and its tars give the same samples.

    Args:
        sources: unpacked releases, folders of tars, tars (compressed or not): several where
            mirrors cut it. Tars and folders of tars may be addresses (`s3://bucket/folder`): they
            are read in place, members in ranges.
        exclusions: receives what is left out.
        spool: folder for lists, and for what has to be decompressed; next to the first source if
            left out, or the present folder next to an address.

    Yields:
        The samples of each part; use one up before asking for the next.

    Raises:
        NotARelease: it has no part.
        StoreUnavailable: a store cannot be read.
    """
    several = [sources] if isinstance(sources, str | Path | RemotePath) else sources
    given = [located(source) for source in several]
    first = given[0]
    beside = spool or (Path.cwd() if isinstance(first, RemotePath) else first.absolute().parent)
    with temporary_folder(beside) as lists:
        release = Release(given, lists, exclusions)
        for part in release.parts:
            yield iter_part(release.files(part), exclusions)


def read_list(files: PartFiles, name: str) -> frozenset[str]:
    """Return names in one of a part's lists, without suffix and as `comparable` has them.

    Args:
        files: of the part.
        name: `files.txt`, of what was removed, or a list of what belongs to a split.

    Returns:
        The names; none without that file.

    Raises:
        NotARelease: the file is no text.
    """
    if name not in files.lists:
        return frozenset()
    try:
        lines = files.lists[name].read().decode("utf-8").splitlines()
    except (UnicodeDecodeError, UnreadableFile) as error:
        # Ignoring the list would bring removed images back.
        raise NotARelease(f"{files.name}/{name}: not a list of names: {error}") from error
    stems = (PurePosixPath(line.strip()).stem for line in lines if line.strip())
    return frozenset(comparable(stem) for stem in stems)


def _stabilities(files: PartFiles) -> dict[str, float]:
    """Return the stability by image; a damaged `metrics.json` costs nothing but its numbers."""
    if METRICS_NAME not in files.lists:
        return {}
    try:
        return dict(_parse_metrics(files.lists[METRICS_NAME].read().decode("utf-8")))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        logger.warning("%s/%s: stability is not read: %s", files.name, METRICS_NAME, error)
        return {}


def _parse_metrics(text: str) -> Mapping[str, float]:
    rows = json.loads(text)
    if isinstance(rows, dict):
        # One record an image, or one column a key: both are called "metrics" in the wild.
        names = rows["filename"]
        rows = [
            {"filename": name, "stability_metric": value}
            for name, value in zip(names, rows["stability_metric"], strict=True)
        ]
    found = {PurePosixPath(row["filename"]).stem: row.get("stability_metric") for row in rows}
    return {name: float(value) for name, value in found.items() if value is not None}
