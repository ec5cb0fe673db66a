"""Samples found damaged while a training reads them: remembered over kills, excluded at the end."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from ml.imaging.io import UnreadableImage
from ml.records import reasons
from ml.records.exclusions import Exclusions
from ml.records.shards import DamagedSample
from ml.training.processes import in_all_folders
from ml.training_data.labels import WrongLabels


class Damage(NamedTuple):
    """A damaged sample: its id, a constant of `ml.records.reasons`, and where and how."""

    sample_id: str
    reason: str
    detail: str

    @staticmethod
    def of(error: DamagedSample) -> Damage:
        """Return reason and detail of a reader's error.

        Args:
            error: raised by `HeadSamples`.
        """
        reason = reasons.DAMAGED_SHARD
        for cause, its_reason in _REASONS.items():
            if isinstance(error.__cause__, cause):
                reason = its_reason
        return Damage(error.sample_id, reason, str(error))


_REASONS = {UnreadableImage: reasons.DAMAGED_IMAGE, WrongLabels: reasons.DAMAGED_LABEL}


class DamageLog:
    """A file of damaged images that the processes of a training on one machine append to.

    Processes that a launcher started have one each: files are not appended to over a network.
    """

    def __init__(self, path: Path) -> None:
        """Name the file.

        Args:
            path: in the folder of unfinished work, so that a resumed training reads it.
        """
        self.path = path
        self._noted: set[str] = set()

    def note(self, found: Iterable[Damage]) -> None:
        """Write down images that were not written down before by this process."""
        for damage in found:
            if damage.sample_id not in self._noted:
                self._noted.add(damage.sample_id)
                with self.path.open("a") as file:
                    file.write(json.dumps(damage) + "\n")

    def exclude(self, exclusions: Exclusions) -> set[str]:
        """Exclude all images that any process noted, in order of their ids.

        Args:
            exclusions: receives them.

        Returns:
            The ids of the damaged samples.
        """
        paths = [path for path in in_all_folders(self.path) if path.exists()]
        lines = [line for path in paths for line in path.read_text().splitlines()]
        # A process that was killed may have left half a line; the image is met again.
        whole = [line for line in lines if line.endswith("]")]
        found = {row[0]: Damage(*row) for row in map(json.loads, whole)}
        for sample_id in sorted(found):
            exclusions.add(*found[sample_id])
        return set(found)
