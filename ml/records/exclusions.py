"""Exclusions of a stage, with reasons: in = out + excluded, always."""

from __future__ import annotations

import csv
import logging
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ml.records.workspace import Workspace

if TYPE_CHECKING:
    import pandas as pd

# Tables, and with them pandas, are imported where rows become one: a detector that looks at
# photographs writes its exclusions to a CSV file and needs neither.
logger = logging.getLogger(__name__)


class LostSamples(RuntimeError):
    """A stage has neither used nor excluded a sample that it read, or counted one twice."""


class TooManyExcluded(RuntimeError):
    """A stage leaves out more samples than its configuration allows."""


class Exclusions:
    """Collects the excluded samples of one stage and shard."""

    def __init__(self, stage: str, journal: Path | None = None) -> None:
        """Start empty.

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
            sample_id: the excluded sample; a head is written `sample_id#head_id`.
            reason: a constant of `ml.records.reasons`.
            detail: where, expected, got.
        """
        logger.info("%s: excluded %s (%s): %s", self.stage, sample_id, reason, detail)
        row = {"sample_id": sample_id, "stage": self.stage, "reason": reason, "detail": detail}
        self._keep({name: _writable(text) for name, text in row.items()})

    def _keep(self, row: dict[str, str]) -> None:
        self._rows.append(row)
        if self._journal is not None:
            _append(self._journal, row)

    def extend(self, rows: Iterable[dict[str, str]]) -> None:
        """Take over rows that another object of the same stage collected, as `rows` gave them."""
        for row in rows:
            self._keep(row)

    def rows(self) -> list[dict[str, str]]:
        """Return the rows as dictionaries, to be stored with unfinished work."""
        return list(self._rows)

    @property
    def num_samples(self) -> int:
        """Excluded samples; single heads and boxes of a sample, `sample_id#number`, aside."""
        return sum("#" not in row["sample_id"] for row in self._rows)

    def account(self, given: Iterable[str], used: Iterable[str]) -> tuple[int, int, int]:
        """Account for every sample that was read: it is used or excluded.

        Args:
            given: ids as they were read: of rows, of images in shards, of files. An id that is read
                twice has to be used or excluded twice.
            used: ids in the output.

        Returns:
            Numbers of samples that were given, used and excluded; single heads and boxes, whose
            rows are `sample_id#number`, do not count.

        Raises:
            LostSamples: the message names the ids.
        """
        names, its_output = [_writable(n) for n in given], [_writable(n) for n in used]
        if not self._rows and names == its_output:
            return len(names), len(names), 0  # counting millions takes seconds
        read, done = Counter(names), Counter(its_output)
        rows = [row["sample_id"] for row in self._rows]
        excluded = Counter(name for name in rows if "#" not in name or name in read)
        total = done + excluded
        if problems := [
            _first(names, what)
            for names, what in (
                (sorted((read - total).elements()), "read, and neither used nor excluded"),
                (sorted((total - read).elements()), "used or excluded, more often than read"),
            )
            if names
        ]:
            raise LostSamples(f"{self.stage}: {'; '.join(problems)}")
        return read.total(), done.total(), excluded.total()

    def check_drop_rate(
        self,
        num_in: int,
        limit: float,
        noun: str,
        part: str = "",
        *,
        needs_one: bool = False,
        advice: str = "",
    ) -> None:
        """Fail when too many samples are excluded.

        Args:
            num_in: samples that the stage, or this part of it, was given.
            limit: largest fraction that may be excluded, `max_drop_rate` of the stage.
            noun: what a sample is, in the plural, for the message.
            part: shard or split, for the message.
            needs_one: whether it is an error too that no sample is left.
            advice: what to do, for the message.

        Raises:
            TooManyExcluded: the message counts reasons and shows the first exclusion.
        """
        excluded = [row for row in self._rows if "#" not in row["sample_id"]]
        first = "".join(f"{r['sample_id']}: {r['detail']}" for r in excluded[:1])
        counts = Counter(row["reason"] for row in excluded)
        check_drop_rate(
            " ".join(filter(None, (self.stage, part))),
            counts,
            num_in,
            f"{self.stage}.max_drop_rate",
            limit,
            noun,
            first=first,
            needs_one=needs_one,
            advice=advice,
        )

    def __len__(self) -> int:
        return len(self._rows)

    def to_frame(self) -> pd.DataFrame:
        """Return the rows, as declared by `EXCLUSIONS`."""
        import pandas as pd

        from ml.records.tables import EXCLUSIONS, empty_table

        return pd.DataFrame(self._rows) if self._rows else empty_table(EXCLUSIONS)

    def write(self, ws: Workspace, shard: str) -> None:
        """Write `data/<stage>/<shard>.exclusions.parquet`, empty when nothing was excluded."""
        from ml.records.tables import EXCLUSIONS, write_table

        write_table(ws.table_path(self.stage, f"{shard}.exclusions"), self.to_frame(), EXCLUSIONS)


def check_drop_rate(
    who: str,
    counts: Counter[str],
    num_in: int,
    setting: str,
    limit: float,
    noun: str,
    *,
    first: str = "",
    needs_one: bool = False,
    advice: str = "",
) -> None:
    """Fail when too many samples are excluded; see `Exclusions.check_drop_rate`.

    Args:
        who: stage, and shard or split, for the message.
        counts: number of excluded samples by reason.
        num_in: samples that were given.
        setting: the limit's key in params.yaml, for the message.
        limit: largest fraction that may be excluded.
        noun: what a sample is, in the plural, for the message.
        first: the first exclusion, for the message.
        needs_one: whether it is an error too that no sample is left.
        advice: what to do, for the message.

    Raises:
        TooManyExcluded: the message counts reasons and shows the first exclusion.
    """
    number = counts.total()
    if number <= limit * num_in and not (needs_one and number >= num_in):
        return
    by_reason = ", ".join(f"{reason} {count}" for reason, count in counts.most_common())
    raise TooManyExcluded(
        f"{who}: {number} of {num_in} {noun} excluded, more than {setting} = {limit:g} allows"
        f"{', or none is left' if needs_one else ''} ({by_reason})"
        f"{'; first: ' if first else ''}{first}{'; ' if advice else ''}{advice}"
    )


def read_exclusions(ws: Workspace, stages: list[str]) -> pd.DataFrame:
    """Return all exclusions of some stages, in order of stage and shard.

    Absent files count as none.
    """
    import pandas as pd

    from ml.records.tables import EXCLUSIONS, empty_table, read_table

    frames = [
        read_table(path, EXCLUSIONS)
        for stage in stages
        for path in sorted(ws.stage_dir(stage).glob("*.exclusions.parquet"))
    ]
    return pd.concat([empty_table(EXCLUSIONS), *frames], ignore_index=True)


def _first(names: list[str], what: str, limit: int = 20) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return f"{what}: {', '.join(names[:limit])}{more}"


def _append(path: Path, row: dict[str, str]) -> None:
    """Append a row to a CSV file, with a heading where it begins."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        if file.tell() == 0:
            writer.writeheader()
        writer.writerow(row)


def _writable(text: str) -> str:
    """Return the text that a file can hold; damaged inputs may have names that are not Unicode."""
    return text.encode("utf-8", "backslashreplace").decode()
