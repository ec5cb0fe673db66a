"""What a stage leaves out, and why: in = out + excluded, always."""

from __future__ import annotations

import csv
import logging
from pathlib import Path

import pandas as pd

from ml.records.tables import EXCLUSIONS, empty_table, read_table, write_table
from ml.records.workspace import Workspace

logger = logging.getLogger(__name__)


class Exclusions:
    """Collects the excluded samples of one stage and shard."""

    def __init__(self, stage: str, journal: Path | None = None) -> None:
        """Start without any.

        Args:
            stage: the stage that excludes.
            journal: a CSV file to which every row is appended as it happens, so that whatever ends
                a run takes no account of it along; made with the first row.
        """
        self.stage = stage
        self._journal = journal
        self._rows: list[dict[str, str]] = []

    def add(self, sample_id: str, reason: str, detail: str) -> None:
        """Exclude a sample.

        Args:
            sample_id: what is left out; a head is written `sample_id#head_id`.
            reason: one word or two, equal for equal causes, so that they can be counted.
            detail: where, expected, got.
        """
        logger.info("%s: excluded %s (%s): %s", self.stage, sample_id, reason, detail)
        row = {"sample_id": sample_id, "stage": self.stage, "reason": reason, "detail": detail}
        row = {name: _writable(text) for name, text in row.items()}
        self._rows.append(row)
        if self._journal is not None:
            _append(self._journal, row)

    def __len__(self) -> int:
        return len(self._rows)

    def to_frame(self) -> pd.DataFrame:
        """The rows, as declared by `EXCLUSIONS`."""
        return pd.DataFrame(self._rows) if self._rows else empty_table(EXCLUSIONS)

    def write(self, ws: Workspace, shard: str) -> None:
        """Write `data/<stage>/<shard>.exclusions.parquet`, empty when nothing was excluded."""
        write_table(ws.table_path(self.stage, f"{shard}.exclusions"), self.to_frame(), EXCLUSIONS)


def read_exclusions(ws: Workspace, stages: list[str]) -> pd.DataFrame:
    """All exclusions of some stages, in order of stage and shard; absent files count as none."""
    frames = [
        read_table(path, EXCLUSIONS)
        for stage in stages
        for path in sorted(ws.stage_dir(stage).glob("*.exclusions.parquet"))
    ]
    return pd.concat([empty_table(EXCLUSIONS), *frames], ignore_index=True)


def _append(path: Path, row: dict[str, str]) -> None:
    """Append a row to a CSV file, with a heading where it begins."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        if file.tell() == 0:
            writer.writeheader()
        writer.writerow(row)


def _writable(text: str) -> str:
    """Text that a file can hold: what damaged inputs are called need not be valid Unicode."""
    return text.encode("utf-8", "backslashreplace").decode()
