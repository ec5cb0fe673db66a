"""Files of a judged shard: verdicts, unreadable images, and the models that judged.

Every shard is judged for itself, by any process; the dataset is put together from these files.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import pandas as pd

from ml.filtering.judge import Judge, Judgement
from ml.filtering.screens import NONE_NEEDED
from ml.records.atomic import write_json
from ml.records.exclusions import Exclusions
from ml.records.tables import (
    EXCLUSIONS,
    VERDICTS,
    Column,
    TableSpec,
    empty_table,
    read_table,
    write_table,
)

JUDGED: Final = TableSpec(
    "judged",
    (
        *(
            replace(column, kind="float64") if column.name == "stability" else column
            for column in VERDICTS.columns
        ),
        Column(
            "views",
            "str",
            "all boxes the verdict rests on, JSON; empty but for the first of each reason",
        ),
    ),
    VERDICTS.key,
)
"""Verdicts as they were judged: a mean over them is one of doubles."""
_COLUMNS: Final = [column.name for column in VERDICTS.columns]


@dataclass(frozen=True)
class JudgedBy:
    """The models that judged a shard.

    Attributes:
        face_check: name of the face detector, or `none`.
        image_safety: names of the screens.
        detector_passes: passes of the head detector over an image.
    """

    face_check: str
    image_safety: str
    detector_passes: int

    @staticmethod
    def of(judge: Judge, detector_passes: int) -> JudgedBy:
        """Return the names of a judge's models.

        Args:
            judge: the judge.
            detector_passes: passes of its head detector over an image.
        """
        return JudgedBy(
            judge.face_detector.name if judge.face_detector else "none",
            ", ".join(screen.name for screen in judge.screens) or NONE_NEEDED,
            detector_passes,
        )


@dataclass(frozen=True)
class JudgedShard:
    """A judged shard.

    Attributes:
        verdicts: columns of `VERDICTS`, stability as float64; in the order of the images.
        shown: the judgements that may be shown, by sample id.
        damaged: the images that could not be read, columns of `EXCLUSIONS`.
        by: the models that judged.
    """

    verdicts: pd.DataFrame
    shown: Mapping[str, Judgement]
    damaged: pd.DataFrame
    by: JudgedBy

    @property
    def num_in(self) -> int:
        """Return the number of images that were to be judged."""
        return len(self.verdicts) + len(self.damaged)


def write_judged(
    folder: Path,
    images: pd.DataFrame,
    judgements: Sequence[Judgement],
    damaged: Exclusions,
    by: JudgedBy,
    num_shown: int,
) -> None:
    """Write the judgements of a shard.

    Args:
        folder: receives the files, whose names are those of the shard.
        images: the images that were to be judged, columns of `IMAGES`; all of one shard.
        judgements: of those that could be read.
        damaged: the others.
        by: the models that judged.
        num_shown: number of images per reason whose boxes are stored for previews.
    """
    shard = folder.name
    of_image = {judgement.sample_id: judgement for judgement in judgements}
    seen: Counter[str] = Counter()
    rows = []
    for sample_id, split, tar in images[["sample_id", "split", "shard"]].to_numpy().tolist():
        judgement = of_image.get(sample_id)
        if judgement is None:
            continue
        seen[judgement.finding.reason] += 1
        is_shown = seen[judgement.finding.reason] <= num_shown
        rows.append(_row(judgement, split, tar, is_shown))
    table = pd.DataFrame(rows).astype({"stability": "float64"}) if rows else empty_table(JUDGED)
    parent = folder.parent
    write_table(parent / f"{shard}.parquet", table, JUDGED)
    write_table(parent / f"{shard}.exclusions.parquet", damaged.to_frame(), EXCLUSIONS)
    write_json(parent / f"{shard}.by.json", by.__dict__)


def is_judged(folder: Path) -> bool:
    """Return whether a shard's files are there.

    Args:
        folder: as for `write_judged`.
    """
    return (folder.parent / f"{folder.name}.by.json").is_file()


def read_judged(folder: Path) -> JudgedShard:
    """Read the files of `write_judged`.

    Args:
        folder: the same.

    Raises:
        FileNotFoundError: the shard was not judged.
        TableError: a table is damaged.
    """
    parent, shard = folder.parent, folder.name
    table = read_table(parent / f"{shard}.parquet", JUDGED)
    views = table.loc[table["views"] != "", ["sample_id", "views"]]
    by = json.loads((parent / f"{shard}.by.json").read_text(encoding="utf-8"))
    return JudgedShard(
        table[_COLUMNS],
        {name: Judgement.from_json(json.loads(text)) for name, text in views.to_numpy().tolist()},
        read_table(parent / f"{shard}.exclusions.parquet", EXCLUSIONS),
        JudgedBy(**by),
    )


def _row(judgement: Judgement, split: str, shard: str, is_shown: bool) -> dict[str, object]:
    return {
        "sample_id": judgement.sample_id,
        "split": split,
        "shard": shard,
        "keep": judgement.keep,
        "reason": judgement.finding.reason,
        "detail": judgement.finding.detail,
        "num_heads": len(judgement.boxes),
        "num_heads_flipped": judgement.num_heads_flipped,
        "num_heads_halves": judgement.num_heads_halves,
        "num_faces_missed": judgement.num_faces_missed,
        "stability": judgement.stability,
        "views": json.dumps(judgement.to_json()) if is_shown else "",
    }
