"""Report of a stage's work."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

Scalar = int | float | str | bool


@dataclass(frozen=True)
class StageReport:
    """Counts, metadata, tables and images of a finished stage or shard.

    Attributes:
        num_in: samples the stage was given.
        num_out: samples in its output.
        num_excluded: samples it excluded; each has a row in the exclusions table.
        metadata: values shown with the counts; equal inputs give equal ones.
        timings: name -> seconds; shown, but never stored in the data folder, as they differ from
            run to run.
        tables: small tables worth showing.
        images: name -> path of a JPEG or PNG file.
        place: machine, process and device it was made on; shown, never stored, as it differs too.
    """

    num_in: int
    num_out: int
    num_excluded: int = 0
    metadata: dict[str, Scalar] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    images: dict[str, Path] = field(default_factory=dict)
    place: str = ""

    def __post_init__(self) -> None:
        if self.num_in != self.num_out + self.num_excluded:
            raise ValueError(
                f"stage lost samples: in {self.num_in} != out {self.num_out} "
                f"+ excluded {self.num_excluded}"
            )
