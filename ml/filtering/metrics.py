"""Metrics of a filtering run: images removed by each rule."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pandas as pd

from ml.filtering.rules import RULES


class VerdictTally:
    """Counts verdicts piece by piece; keeps eight bytes per image, for the mean stability."""

    def __init__(self) -> None:
        """Start with empty counts."""
        self.reasons: Counter[str] = Counter()
        self.num_kept = 0
        self._stabilities: list[np.ndarray] = []

    def __len__(self) -> int:
        return self.reasons.total()

    def add(self, verdicts: pd.DataFrame) -> None:
        """Count verdicts.

        Args:
            verdicts: columns of `VERDICTS`.
        """
        self.reasons.update(verdicts["reason"].tolist())
        self.num_kept += int(verdicts["keep"].sum())
        self._stabilities.append(verdicts["stability"].dropna().to_numpy(np.float64))

    @property
    def mean_stability(self) -> float:
        """Return the mean over images with heads; 0 without any."""
        found = np.concatenate([np.zeros(0), *self._stabilities])
        return float(found.mean()) if len(found) else 0.0


def drop_table(tally: VerdictTally, reasons: Sequence[str] = RULES) -> pd.DataFrame:
    """Return the number of images that each rule removed, in the order of the rules.

    Args:
        tally: the verdicts.
        reasons: reasons for removal, in the order of the checks.

    Returns:
        Columns rule, tested (images that reached the rule), removed, rate (removed / tested) and
        fraction (removed / all images); last row `all rules`.
    """
    rows = []
    left, total = len(tally), max(len(tally), 1)
    for rule in reasons:
        removed = tally.reasons[rule]
        rows.append((rule, left, removed, removed / max(left, 1), removed / total))
        left -= removed
    removed = len(tally) - left
    rows.append(("all rules", len(tally), removed, removed / total, removed / total))
    return pd.DataFrame(rows, columns=["rule", "tested", "removed", "rate", "fraction"]).round(4)


def run_metrics(
    tally: VerdictTally, num_heads: int, num_in: int, reasons: Sequence[str]
) -> dict[str, float]:
    """Return flat metrics of the run.

    Args:
        tally: the verdicts.
        num_heads: heads of kept images.
        num_in: images the stage was given.
        reasons: as in `drop_table`.

    Returns:
        Counts, drop rates and mean stability by name.
    """
    num_kept, total = tally.num_kept, max(num_in, 1)
    return {
        "images_judged": float(num_in),
        "images_kept": float(num_kept),
        "heads_kept": float(num_heads),
        "heads_per_image": round(num_heads / max(num_kept, 1), 4),
        "drop_rate": round(1 - num_kept / total, 6),
        **{f"drop_rate_{rule}": round(tally.reasons[rule] / total, 6) for rule in reasons},
        "stability_mean": round(tally.mean_stability, 6),
    }
