"""Reading the official VGGHeads release: from its folders or its tar, split by split."""

from __future__ import annotations

import json
import logging
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from ml.imaging.io import UnreadableImage, decode_image
from ml.records import reasons
from ml.records.atomic import PREFIX, remove, temporary_folder
from ml.records.exclusions import Exclusions
from ml.records.files import UnreadableFile, read_file
from ml.records.limits import MAX_IMAGE_FILE_BYTES
from ml.records.progress import progress
from ml.records.shards import DamagedSample
from ml.release.official import (
    BadAnnotation,
    ImageLabels,
    decode_annotation,
    from_official,
)
from ml.release.official_tar import (
    EXCLUSIONS_NAME,
    METRICS_NAME,
    SPLIT_NAME,
    TEST_FOLDER,
    NotARelease,
    TarSplits,
)
from ml.training_data.augmentation import head_outlines
from ml.training_data.samples import HeadLabels, HeadSample, HeadSamples, Project

_LOGGER = logging.getLogger(__name__)

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
    """

    sample_id: str
    split_name: str
    jpeg: bytes
    image_rgb: NDArray[np.uint8]
    labels: ImageLabels
    stability: float | None = None


def split_folders(root: Path) -> list[Path]:
    """The split folders of an unpacked release, in order; those of `test/`, which is ours, last.

    Args:
        root: the folder that holds `large/`, or `large` itself.

    Returns:
        `split_00000`, `split_00001`, ...

    Raises:
        NotARelease: there are none.
    """
    for folder in (root / "large", root):
        found = _splits_in(folder)
        if found:
            return [*found, *_splits_in(root / TEST_FOLDER)]
    raise NotARelease(f"{root}: no folder split_00000 in it or in its large/")


def _splits_in(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if SPLIT_NAME.fullmatch(path.name))


def name_of_split(folder: Path) -> str:
    """What a split is called: its folder's name, with `test/` before it for one of ours.

    Args:
        folder: one of `split_folders`.

    Returns:
        Such as `split_00007` or `test/split_00000`.
    """
    is_test = folder.parent.name == TEST_FOLDER
    return f"{TEST_FOLDER}/{folder.name}" if is_test else folder.name


def split_of(split_name: str) -> str:
    """Our split of one of theirs: val for the first two, train for the others.

    Args:
        split_name: such as `split_00007`.

    Returns:
        `train`, `val` or `test`.
    """
    if split_name.startswith(f"{TEST_FOLDER}/"):
        return "test"
    match = SPLIT_NAME.fullmatch(split_name)
    return "val" if match and int(match[1]) < NUM_VAL_SPLITS else "train"


def comparable(name: str) -> str:
    """What a name is compared by: file systems and archives differ in case and in Unicode's forms.

    Args:
        name: an image's name without suffix.

    Returns:
        Its composed form without case.
    """
    return unicodedata.normalize("NFC", name).casefold()


def pair_files(folder: Path, exclusions: Exclusions) -> list[tuple[str, Path, Path]]:
    """Images and annotations that belong together beyond doubt; all others are excluded.

    Args:
        folder: `split_00007`; a folder that is missing in it counts as empty.
        exclusions: receives listed, unpaired and ambiguous files.

    Returns:
        Name, image and annotation, in order of the names.

    Raises:
        NotARelease: `files.txt` is no text.
    """
    listed = {comparable(name) for name in read_exclusion_list(folder)}
    images = _by_name(folder / "images", "*")
    annotations = _by_name(folder / "annotations", "*.npz")
    split, pairs = name_of_split(folder), []
    for key in sorted(images.keys() | annotations.keys()):
        found, labels = images.get(key, []), annotations.get(key, [])
        if not found:
            for path in labels:
                where = f"{split}/annotations/{path.name}"
                exclusions.add(path.stem, reasons.NO_IMAGE, f"{where} has no image")
            continue
        where = f"{split}/{' and '.join(path.name for path in found)}"
        if key in listed:
            reason, detail = reasons.EXCLUSION_LIST, f"{where} stands in {EXCLUSIONS_NAME}"
        elif len(found) > 1 or len(labels) > 1:
            also = f"; annotations {' and '.join(path.name for path in labels) or 'none'}"
            reason, detail = reasons.SHARED_NAME, f"{where} have one name{also}"
        elif "." in found[0].stem:
            reason, detail = reasons.BAD_NAME, f"{where}: a name with a dot is no sample id"
        elif not labels:
            missing = f"annotations/{found[0].stem}.npz"
            reason, detail = reasons.NO_ANNOTATION, f"{where} has no {missing}"
        else:
            pairs.append((found[0].stem, found[0], labels[0]))
            continue
        for path in found:
            exclusions.add(path.stem, reason, detail)
    return pairs


def _by_name(folder: Path, pattern: str) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.glob(pattern)):
        if not path.name.startswith(PREFIX):
            found.setdefault(comparable(path.stem), []).append(path)
    return found


def iter_split(folder: Path, exclusions: Exclusions) -> Iterator[OfficialSample]:
    """Stream one split folder; whatever is not given is excluded with its reason.

    Args:
        folder: `split_00007`.
        exclusions: receives listed, unpaired, ambiguous and damaged files.

    Yields:
        The samples by name.

    Raises:
        NotARelease: `files.txt` is no text.
    """
    split, stabilities = name_of_split(folder), _stabilities(folder)
    for name, image_path, annotation in pair_files(folder, exclusions):
        where = f"{split}/{image_path.name}"
        try:
            jpeg = read_file(image_path, MAX_IMAGE_FILE_BYTES)
            image = decode_image(jpeg)
            labels = from_official(decode_annotation(annotation))
        except (UnreadableImage, UnreadableFile) as error:
            exclusions.add(name, reasons.DAMAGED_IMAGE, f"{where}: {error}")
        except BadAnnotation as error:
            exclusions.add(name, reasons.DAMAGED_ANNOTATION, f"{where}: {error}")
        else:
            yield OfficialSample(name, split, jpeg, image, labels, stabilities.get(name))


def iter_release(
    source: Path, exclusions: Exclusions, spool: Path | None = None
) -> Iterator[Iterator[OfficialSample]]:
    """Stream a release, one iterator a split; its folder and its tar give the same samples.

    Args:
        source: an unpacked release, or the tar of one (compressed or not).
        exclusions: receives what is left out.
        spool: folder with room for a split of a tar; beside the tar if left out.

    Yields:
        The samples of each split; use one up before asking for the next.

    Raises:
        NotARelease: it has no split.
    """
    if source.is_dir():
        for folder in split_folders(source):
            yield iter_split(folder, exclusions)
        return
    if not source.exists():
        raise NotARelease(f"{source}: no such folder or tar")
    with temporary_folder(spool or source.absolute().parent) as unpacked:
        for folder in TarSplits(source, unpacked, exclusions):
            yield iter_split(folder, exclusions)
            remove(folder)


def read_exclusion_list(folder: Path) -> frozenset[str]:
    """Names in a split's `files.txt`, without suffix; empty without that file.

    Args:
        folder: the split.

    Returns:
        Names of removed images.

    Raises:
        NotARelease: the file is no text.
    """
    path = folder / EXCLUSIONS_NAME
    if not path.is_file():
        return frozenset()
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        # Ignoring the list would bring removed images back.
        raise NotARelease(f"{path}: not a list of names: {error}") from error
    return frozenset(PurePosixPath(line.strip()).stem for line in lines if line.strip())


class OfficialSamples(HeadSamples):
    """An unpacked release as training data, without copying it: files are read when asked for."""

    @staticmethod
    def open(root: Path, split: str, project: Project | None = None) -> OfficialSamples:
        """List the images of our train or val split.

        Args:
            root: the unpacked release.
            split: train or val.
            project: head model's projection, to bound rotated boxes tightly.

        Returns:
            Images that have an annotation and stand in no exclusion list.

        Raises:
            NotARelease: it has no such split.
        """
        ids: list[str] = []
        paths: list[Path] = []
        left_out, seen = Exclusions("read"), set[str]()
        for folder in split_folders(root):
            for name, path, _ in pair_files(folder, left_out):
                if split_of(name_of_split(folder)) != split or comparable(name) in seen:
                    continue
                seen.add(comparable(name))
                ids.append(name)
                paths.append(path)
        if not ids:
            raise NotARelease(f"{root}: no labelled image of split {split}")
        labels = LazyLabels(dict(zip(ids, paths, strict=True)), project)
        return OfficialSamples(ids, paths, labels)

    def _decode(self, index: int) -> NDArray[np.uint8]:
        path = self.shards[index]
        try:
            return decode_image(path)
        except UnreadableImage as error:
            raise DamagedSample(path, self.sample_ids[index], str(error)) from error

    def __getitem__(self, index: int) -> HeadSample:
        name = self.sample_ids[index]
        return HeadSample(name, self._decode(index), self.labels[name])

    def without_damaged(self, exclusions: Exclusions) -> OfficialSamples:
        """Read every file once and leave out the damaged ones, each with a row.

        Args:
            exclusions: receives id, reason and detail.

        Returns:
            The readable samples.
        """
        kept = []
        for index in progress(range(len(self)), "reading the release"):
            name = self.sample_ids[index]
            try:
                self._decode(index)
                self.labels[name]
            except DamagedSample as error:
                exclusions.add(name, reasons.DAMAGED_IMAGE, str(error))
            except BadAnnotation as error:
                exclusions.add(name, reasons.DAMAGED_ANNOTATION, f"{name}.npz: {error}")
            else:
                kept.append(index)
        return OfficialSamples(
            [self.sample_ids[i] for i in kept], [self.shards[i] for i in kept], self.labels
        )


@dataclass(frozen=True)
class LazyLabels(Mapping[str, HeadLabels]):
    """Labels read from their files when asked for.

    Attributes:
        images: sample id -> its image; the annotation is in the folder beside.
        project: see `OfficialSamples.open`.
    """

    images: Mapping[str, Path]
    project: Project | None = field(default=None)

    def __getitem__(self, sample_id: str) -> HeadLabels:
        path = self.images[sample_id]
        annotation = path.parent.parent / "annotations" / f"{path.stem}.npz"
        return head_labels(from_official(decode_annotation(annotation)), self.project)

    def __iter__(self) -> Iterator[str]:
        return iter(self.images)

    def __len__(self) -> int:
        return len(self.images)


def head_labels(labels: ImageLabels, project: Project | None = None) -> HeadLabels:
    """Labels as training takes them; heads without parameters are ignored.

    Args:
        labels: boxes and parameters, image frame.
        project: head model's projection; ellipses bound the heads without it.

    Returns:
        The labels.
    """
    valid = labels.flame_valid
    vertices: list[NDArray[np.float32] | None] = [None] * len(valid)
    if project is not None and valid.any():
        for row, points in zip(np.flatnonzero(valid), project(labels.flame[valid]), strict=True):
            vertices[row] = points
    outlines = head_outlines(labels.boxes_xyxy, vertices)
    return HeadLabels(labels.boxes_xyxy, labels.flame, valid, ~valid, outlines)


def _stabilities(folder: Path) -> dict[str, float]:
    """Stability by image; a damaged `metrics.json` costs nothing but these metrics."""
    path = folder / METRICS_NAME
    if not path.is_file():
        return {}
    try:
        return dict(_parse_metrics(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        _LOGGER.warning("%s: stability is not read: %s", path, error)
        return {}


@lru_cache(maxsize=2)
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
