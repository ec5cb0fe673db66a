"""Images with their head labels, read from shards and tables; damage becomes an exclusion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, overload

import numpy as np
from numpy.typing import NDArray

from ml.imaging.io import UnreadableImage, decode_image
from ml.imaging.reading import read_image
from ml.records import reasons
from ml.records.exclusions import Exclusions
from ml.records.progress import progress
from ml.records.shards import DamagedSample, OpenShards
from ml.records.tables import VERDICTS, iter_table
from ml.records.workspace import Workspace
from ml.training_data.labels import HeadLabels, WrongLabels, label_problem

_SIZED_BY: Final = 64
"""Images by whose mean size the cache is judged."""


def kept_images(ws: Workspace, split: str) -> tuple[list[str], list[Path]]:
    """Return the images of a split that the filtered dataset keeps.

    Args:
        ws: the workspace.
        split: train, val or test.

    Returns:
        Their ids, and the tar of each.
    """
    ids: list[str] = []
    tars: list[Path] = []
    of_shard: dict[str, Path] = {}
    path = ws.stage_dir("filtered_dataset") / "verdicts.parquet"
    # Details of a verdict are most of the table.
    for table in iter_table(path, VERDICTS, columns=("sample_id", "split", "shard", "keep")):
        kept = table[table["keep"] & (table["split"] == split)]
        ids += [str(value) for value in kept["sample_id"]]
        for shard in kept["shard"].unique():
            of_shard.setdefault(shard, ws.stage_dir("images") / f"{shard}.tar")
        tars += [of_shard[shard] for shard in kept["shard"]]
    return ids, tars


def kept_ids(ws: Workspace, split: str) -> list[str]:
    """Return the ids of `kept_images`."""
    return kept_images(ws, split)[0]


@dataclass(frozen=True)
class HeadSample:
    """An image and its heads.

    Attributes:
        sample_id: the image's id.
        image_rgb: (H, W, 3) uint8.
        labels: heads in the image's px.
    """

    sample_id: str
    image_rgb: NDArray[np.uint8]
    labels: HeadLabels


@dataclass
class HeadSamples:
    """Random access to labelled images; decoded images are kept while they fit the budget.

    Picklable: shards are opened in each process when first needed, a few at a time.

    Attributes:
        sample_ids: ids in order.
        shards: tar file of each sample.
        labels: by sample id; an image without entry has no heads.
        cache_bytes: budget for decoded images.
    """

    sample_ids: Sequence[str]
    shards: Sequence[Path]
    labels: Mapping[str, HeadLabels]
    cache_bytes: int = 0
    _images: dict[str, NDArray[np.uint8]] = field(default_factory=dict, repr=False)
    _cached_bytes: int = 0
    _readers: OpenShards = field(default_factory=OpenShards, repr=False)

    def __len__(self) -> int:
        return len(self.sample_ids)

    def __getitem__(self, index: int) -> HeadSample:
        sample_id = self.sample_ids[index]
        image = self._images.get(sample_id)
        if image is None:
            self._check_labels(index)
            image = self._decode(index)
        return HeadSample(sample_id, image, self.labels.get(sample_id, HeadLabels.empty()))

    def _decode(self, index: int) -> NDArray[np.uint8]:
        """Read and decode one image; keep it if there is room."""
        sample_id = self.sample_ids[index]
        try:
            reader = self._readers.get(self.shards[index])
            return self._remember(sample_id, decode_image(reader.read(sample_id)))
        except UnreadableImage as error:
            raise DamagedSample(self.shards[index], sample_id, str(error)) from error

    def _check_labels(self, index: int) -> None:
        """Raise `DamagedSample` for wrong labels."""
        sample_id = self.sample_ids[index]
        if problem := label_problem(self.labels, sample_id):
            cause = WrongLabels(problem)
            raise DamagedSample(self.shards[index], sample_id, problem) from cause

    def _remember(self, sample_id: str, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if self._cached_bytes + image.nbytes <= self.cache_bytes:
            self._images[sample_id] = image
            self._cached_bytes += image.nbytes
        return image

    def without_damaged(self, exclusions: Exclusions, *, beyond_cache: bool = True) -> HeadSamples:
        """Leave out samples with wrong labels and damaged images, each with a row.

        Args:
            exclusions: receives id, reason and detail of excluded samples.
            beyond_cache: whether to look at all samples in any case; else this ends where they
                turn out not to fit the cache, and damage in the rest is found when it is read.

        Returns:
            The readable samples, decoded in advance as far as the budget allows.
        """
        kept: list[int] = []
        rest = range(len(self))
        for index in progress(rest, "reading images"):
            rest = range(index + 1, len(self))
            sample_id = self.sample_ids[index]
            problem = label_problem(self.labels, sample_id)
            if problem:
                exclusions.add(sample_id, reasons.DAMAGED_LABEL, problem)
            elif self._read(index, exclusions) is not None:
                kept.append(index)
                if not beyond_cache and not self._will_fit(sample_id, len(kept)):
                    break
        return self._of([*kept, *rest])

    def _will_fit(self, last_id: str, num_read: int) -> bool:
        """Return whether all images fit the cache, by the mean size of those that were read."""
        if last_id not in self._images:
            return False
        expected = self._cached_bytes / num_read * len(self)
        return num_read < _SIZED_BY or expected <= self.cache_bytes

    def reordered(self, sample_ids: Sequence[str]) -> HeadSamples:
        """Return the same samples, with their decoded images, in another order.

        Args:
            sample_ids: ids in the new order.

        Raises:
            KeyError: one of them is not there.
        """
        position = {sample_id: index for index, sample_id in enumerate(self.sample_ids)}
        return self._of([position[sample_id] for sample_id in sample_ids])

    def _of(self, indices: Sequence[int]) -> HeadSamples:
        return HeadSamples(
            [self.sample_ids[i] for i in indices],
            [self.shards[i] for i in indices],
            self.labels,
            self.cache_bytes,
            self._images,
            self._cached_bytes,
        )

    def _read(self, index: int, exclusions: Exclusions) -> NDArray[np.uint8] | None:
        """Decode an image and keep it if there is room; None when it was excluded."""
        sample_id = self.sample_ids[index]
        image = read_image(self._readers.get(self.shards[index]), sample_id, exclusions)
        return None if image is None else self._remember(sample_id, image)


class ShardImages(Sequence[NDArray[np.uint8]]):
    """Images of shards, decoded on demand and cached within a budget."""

    def __init__(self, samples: HeadSamples) -> None:
        """Show the images alone.

        Args:
            samples: images by position, with their budget.
        """
        self._samples = samples

    def __len__(self) -> int:
        return len(self._samples)

    @overload
    def __getitem__(self, index: int) -> NDArray[np.uint8]: ...

    @overload
    def __getitem__(self, index: slice) -> list[NDArray[np.uint8]]: ...

    def __getitem__(self, index: int | slice) -> NDArray[np.uint8] | list[NDArray[np.uint8]]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return self._samples[index].image_rgb
