"""Estimated cost of a dataset of a given size, from a smaller run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import pandas as pd

PAPER_GPU_HOURS: Final = 4000.0
"""The paper's data generation: 4000 GPU hours for 1,022,944 images."""
PAPER_IMAGES: Final = 1_022_944
ONCE: Final = frozenset({"head_model", "labels", "head_detector", "crops", "flame_regressor"})
"""Stages whose work does not grow with the dataset."""


@dataclass(frozen=True)
class StageMeasurement:
    """Measured cost of a stage.

    Attributes:
        stage: its name.
        seconds: wall clock.
        images: images it went through in that time; 0 for a stage that was switched off.
        size_bytes: size of its output for them.
        device: where it ran.
        batch: images in a pass; 0 where there are no passes.
    """

    stage: str
    seconds: float
    images: int
    size_bytes: int
    device: str
    batch: int = 0

    def __post_init__(self) -> None:
        """Check that rates can be computed."""
        if min(self.seconds, self.images, self.size_bytes) < 0:
            raise ValueError(
                f"measurement of {self.stage}: expected seconds, bytes and images of at least 0, "
                f"got {self.seconds} s, {self.size_bytes} bytes, {self.images} images"
            )


def plan_costs(
    measurements: Sequence[StageMeasurement], images: int, kept: int, hour_price: float = 0
) -> pd.DataFrame:
    """Return hours and storage of every stage for a dataset of some size.

    Work that grows with the data is scaled from what was measured: as many images are generated,
    labelled, dropped, trained on and held out for each that stays. On one device; more of them
    divide the hours of sharded stages.

    Args:
        measurements: one for each stage.
        images: images that the dataset is to hold.
        kept: images that the filters kept in the measured project.
        hour_price: price of a device hour.

    Returns:
        Columns stage, device, batch, images (it has to go through), seconds_per_image, hours,
        gigabytes, cost; last row `total`.

    Raises:
        ValueError: a number makes no sense.
    """
    if images < 1 or kept < 1 or hour_price < 0:
        raise ValueError(
            "plan: expected at least one image, wanted and kept, and a price of at least 0, got "
            f"{images}, {kept} and {hour_price}"
        )
    rows = []
    for m in measurements:
        factor = 1.0 if m.stage in ONCE or not m.images else images / kept
        hours = m.seconds * factor / 3600 if m.images else 0.0
        rows.append(
            {
                "stage": m.stage,
                "device": m.device,
                "batch": m.batch,
                "images": round(m.images * factor),
                "seconds_per_image": m.seconds / max(m.images, 1),
                "hours": hours,
                "gigabytes": m.size_bytes * factor / 1e9,
                "cost": hours * hour_price,
            }
        )
    table = pd.DataFrame(rows)
    total = {"stage": "total", "device": "", "batch": 0, "images": images, "seconds_per_image": 0.0}
    sums = {name: float(table[name].sum()) for name in ("hours", "gigabytes", "cost")}
    total["seconds_per_image"] = sums["hours"] * 3600 / images
    return pd.concat([table, pd.DataFrame([{**total, **sums}])], ignore_index=True)


def paper_hours(images: int) -> float:
    """Return the paper's GPU hours for a number of images.

    Args:
        images: images of the dataset.
    """
    return PAPER_GPU_HOURS * images / PAPER_IMAGES
