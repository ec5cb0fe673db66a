"""Reading the official VGGHeads release: from its folders or its tar, split by split."""

from __future__ import annotations

import json
import logging
import re
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from ml.imaging.io import UnreadableImage, decode_image
from ml.records import reasons
from ml.records.exclusions import Exclusions
from ml.records.progress import progress
from ml.records.shards import DamagedSample
from ml.release.official import (
    BadAnnotation,
    ImageLabels,
    decode_annotation,
    from_official,
)
from ml.training_data.augmentation import head_outlines
from ml.training_data.samples import HeadLabels, HeadSample, HeadSamples, Project

_LOGGER = logging.getLogger(__name__)

NUM_VAL_SPLITS = 2
"""The official training validates on split_00000 and split_00001."""
_SPLIT_NAME = re.compile(r"split_(\d{5})")
_METRICS_NAME = "metrics.json"
_EXCLUSIONS_NAME = "files.txt"


class NotARelease(ValueError):
    """A folder or tar does not have the official layout; the message says what was looked for."""


@dataclass(frozen=True)
class OfficialSample:
    """A picture of the release and its heads.

    Attributes:
        sample_id: the picture's name without suffix.
        split_name: such as `split_00007`.
        jpeg: the encoded picture.
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
    """The split folders of an unpacked release, in order.

    Args:
        root: the folder that holds `large/`, or `large` itself.

    Returns:
        `split_00000`, `split_00001`, ...

    Raises:
        NotARelease: there are none.
    """
    for folder in (root / "large", root):
        if folder.is_dir():
            found = sorted(path for path in folder.iterdir() if _SPLIT_NAME.fullmatch(path.name))
            if found:
                return found
    raise NotARelease(f"{root}: no folder split_00000 in it or in its large/")


def split_of(split_name: str) -> str:
    """Our split of one of theirs: val for the first two, train for the others.

    Args:
        split_name: such as `split_00007`.

    Returns:
        `train` or `val`.
    """
    match = _SPLIT_NAME.fullmatch(split_name)
    return "val" if match and int(match[1]) < NUM_VAL_SPLITS else "train"


def iter_split(folder: Path, exclusions: Exclusions) -> Iterator[OfficialSample]:
    """Stream one split folder; whatever is not given is excluded with its reason.

    Args:
        folder: `split_00007`.
        exclusions: receives listed, unpaired and damaged files.

    Yields:
        The samples by name.

    Raises:
        NotARelease: `images` or `annotations` is missing, or `files.txt` is no text.
    """
    for name in ("images", "annotations"):
        if not (folder / name).is_dir():
            raise NotARelease(f"{folder}: no folder {name} in it")
    listed, stabilities = read_exclusion_list(folder), _stabilities(folder)
    images = {path.stem: path for path in sorted((folder / "images").iterdir())}
    annotations = {path.stem: path for path in (folder / "annotations").glob("*.npz")}
    for name in sorted(set(annotations) - set(images)):
        exclusions.add(
            name, reasons.NO_IMAGE, f"{folder.name}/annotations/{name}.npz has no picture"
        )
    for name, image_path in images.items():
        where = f"{folder.name}/{image_path.name}"
        if name in listed:
            exclusions.add(name, reasons.EXCLUSION_LIST, f"{where} stands in {_EXCLUSIONS_NAME}")
        elif "." in name:
            exclusions.add(name, reasons.BAD_NAME, f"{where}: a name with a dot is no sample id")
        elif name not in annotations:
            exclusions.add(name, reasons.NO_ANNOTATION, f"{where} has no annotations/{name}.npz")
        else:
            try:
                jpeg = _read_bytes(image_path)
                image = decode_image(jpeg)
                labels = from_official(decode_annotation(annotations[name]))
            except UnreadableImage as error:
                exclusions.add(name, reasons.DAMAGED_IMAGE, f"{where}: {error}")
            except BadAnnotation as error:
                exclusions.add(name, reasons.DAMAGED_ANNOTATION, f"{where}: {error}")
            else:
                yield OfficialSample(name, folder.name, jpeg, image, labels, stabilities.get(name))


def iter_release(source: Path, exclusions: Exclusions) -> Iterator[Iterator[OfficialSample]]:
    """Stream a release, one iterator a split.

    Args:
        source: an unpacked release, or the tar of one (compressed or not).
        exclusions: receives what is left out.

    Yields:
        The samples of each split; use one up before asking for the next.

    Raises:
        NotARelease: it has no split.
    """
    if source.is_dir():
        for folder in split_folders(source):
            yield iter_split(folder, exclusions)
        return
    with tempfile.TemporaryDirectory(prefix="vggheads-") as spool:
        for folder in unpack_splits(source, Path(spool), exclusions):
            yield iter_split(folder, exclusions)
            shutil.rmtree(folder)


def unpack_splits(tar_path: Path, spool: Path, exclusions: Exclusions) -> Iterator[Path]:
    """Unpack a release's tar split by split, reading it once from front to back.

    A split is complete when the tar goes on to another: the disk holds one split at a time.

    Args:
        tar_path: `VGGHeads.tar`.
        spool: where to unpack.
        exclusions: receives members that are no file of a split.

    Yields:
        Folder of each split; the caller may remove it before asking for the next.

    Raises:
        NotARelease: the file is no tar, or holds no split.
    """
    current: Path | None = None
    seen: set[str] = set()
    try:
        with tarfile.open(tar_path, "r|*") as tar:
            for member in tar:
                place = None if member.isdir() else _place(member)
                if place is None:
                    if not member.isdir():
                        detail = f"{tar_path.name}: {member.name!r} is no file of a split"
                        exclusions.add(PurePosixPath(member.name).stem, reasons.BAD_MEMBER, detail)
                    continue
                split_name, relative = place
                if current is not None and current.name != split_name:
                    yield current
                    current = None
                if split_name in seen and current is None:
                    detail = f"{tar_path.name}: {member.name!r} comes after its split was complete"
                    exclusions.add(relative.stem, reasons.LATE_MEMBER, detail)
                    continue
                current = spool / split_name
                seen.add(split_name)
                target = current / relative
                target.parent.mkdir(parents=True, exist_ok=True)
                content = tar.extractfile(member)
                with target.open("wb") as file:
                    shutil.copyfileobj(content or _empty(), file)
    except (tarfile.TarError, EOFError, OSError) as error:
        if not seen:
            raise NotARelease(f"{tar_path}: not a readable tar: {error}") from error
        # What came before the damage is used; the rest of the tar is lost, and said so.
        exclusions.add(tar_path.stem, reasons.DAMAGED_TAR, f"{tar_path.name} breaks: {error}")
    if current is not None:
        yield current
    if not seen:
        raise NotARelease(f"{tar_path}: no member split_00000/images/... in it")


def read_exclusion_list(folder: Path) -> frozenset[str]:
    """Names in a split's `files.txt`, without suffix; empty without that file.

    Args:
        folder: the split.

    Returns:
        Names of removed pictures.

    Raises:
        NotARelease: the file is no text.
    """
    path = folder / _EXCLUSIONS_NAME
    if not path.is_file():
        return frozenset()
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        # Ignoring the list would bring removed pictures back.
        raise NotARelease(f"{path}: not a list of names: {error}") from error
    return frozenset(PurePosixPath(line.strip()).stem for line in lines if line.strip())


class OfficialSamples(HeadSamples):
    """An unpacked release as training data, without copying it: files are read when asked for."""

    @staticmethod
    def open(root: Path, split: str, project: Project | None = None) -> OfficialSamples:
        """List the pictures of our train or val split.

        Args:
            root: the unpacked release.
            split: train or val.
            project: head model's projection, to bound rotated boxes tightly.

        Returns:
            Pictures that have an annotation and stand in no exclusion list.

        Raises:
            NotARelease: it has no such split.
        """
        ids: list[str] = []
        paths: list[Path] = []
        for folder in split_folders(root):
            if split_of(folder.name) != split:
                continue
            listed = read_exclusion_list(folder)
            named = {path.stem for path in (folder / "annotations").glob("*.npz")} - listed
            for path in sorted((folder / "images").iterdir()):
                if path.stem in named:
                    ids.append(path.stem)
                    paths.append(path)
        if not ids:
            raise NotARelease(f"{root}: no labelled picture of split {split}")
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
        images: sample id -> its picture; the annotation is in the folder beside.
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


def _place(member: tarfile.TarInfo) -> tuple[str, Path] | None:
    """Split name and path within it, or None for what does not belong there."""
    parts = PurePosixPath(member.name).parts
    at = next((i for i, part in enumerate(parts) if _SPLIT_NAME.fullmatch(part)), None)
    if at is None or not member.isfile() or ".." in parts or member.name.startswith("/"):
        return None
    inside = parts[at + 1 :]
    named = len(inside) == 1 and inside[0] in (_EXCLUSIONS_NAME, _METRICS_NAME)
    filed = len(inside) == 2 and inside[0] in ("images", "annotations")
    return (parts[at], Path(*inside)) if named or filed else None


def _stabilities(folder: Path) -> dict[str, float]:
    """Stability by picture; a damaged `metrics.json` costs nothing but these figures."""
    path = folder / _METRICS_NAME
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
        # One record a picture, or one column a key: both are called "metrics" in the wild.
        names = rows["filename"]
        rows = [
            {"filename": name, "stability_metric": value}
            for name, value in zip(names, rows["stability_metric"], strict=True)
        ]
    found = {PurePosixPath(row["filename"]).stem: row.get("stability_metric") for row in rows}
    return {name: float(value) for name, value in found.items() if value is not None}


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UnreadableImage(f"image file cannot be read: {error}") from error


def _empty() -> tempfile.SpooledTemporaryFile[bytes]:
    return tempfile.SpooledTemporaryFile()
