"""What a dataset of a given size costs, from what a smaller run took."""

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
KEPT: Final = frozenset(
    {"filtered_dataset", "trained_model", "trained_model_exact", "annotation_quality", "benchmark"}
)
"""Stages after the filters: they see the images that stay, all others those that are made."""


@dataclass(frozen=True)
class StageMeasurement:
    """What a stage took.

    Attributes:
        stage: its name.
        seconds: wall clock.
        images: images it went through in that time.
        size_bytes: of what it wrote for them.
        device: what it ran on.
        batch: images in a pass; 0 where there are no passes.
    """

    stage: str
    seconds: float
    images: int
    size_bytes: int
    device: str
    batch: int = 0

    def __post_init__(self) -> None:
        """Refuse what no rate follows from."""
        if self.seconds < 0 or self.images < 1 or self.size_bytes < 0:
            raise ValueError(
                f"measurement of {self.stage}: expected seconds and bytes of at least 0 and an "
                f"image or more, got {self.seconds} s, {self.size_bytes} bytes, {self.images}"
            )


def plan_costs(
    measurements: Sequence[StageMeasurement], images: int, share_kept: float, hour_price: float = 0
) -> pd.DataFrame:
    """Hours and storage of every stage for a dataset of some size.

    Work that grows with the data is scaled from the measured rate. On one device; more of them
    divide the hours of sharded stages.

    Args:
        measurements: one for each stage.
        images: images that the dataset is to hold.
        share_kept: share of generated images that the filters keep.
        hour_price: price of a device hour.

    Returns:
        Columns stage, device, batch, images (it has to go through), seconds_per_image, hours,
        gigabytes, cost; last row `total`.

    Raises:
        ValueError: a number makes no sense.
    """
    if images < 1 or not 0 < share_kept <= 1 or hour_price < 0:
        raise ValueError(
            f"plan: expected at least one image, a kept share over 0 up to 1 and a price of at "
            f"least 0, got {images}, {share_kept} and {hour_price}"
        )
    rows = []
    for m in measurements:
        made = images if m.stage in KEPT else round(images / share_kept)
        todo = m.images if m.stage in ONCE else made
        factor = todo / m.images
        hours = m.seconds * factor / 3600
        rows.append(
            {
                "stage": m.stage,
                "device": m.device,
                "batch": m.batch,
                "images": todo,
                "seconds_per_image": m.seconds / m.images,
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
    """The paper's GPU hours for as many images.

    Args:
        images: images of the dataset.
    """
    return PAPER_GPU_HOURS * images / PAPER_IMAGES
