"""Figures of a filtering run: what each rule removed."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from ml.filtering.rules import RULES


def drop_table(verdicts: pd.DataFrame, reasons: Sequence[str] = RULES) -> pd.DataFrame:
    """Return how many images each rule removed, in the order of the rules.

    Args:
        verdicts: columns of `VERDICTS`.
        reasons: what an image may be removed for, in the order in which it is looked at.

    Returns:
        Columns rule, tested (images that reached the rule), removed, rate (removed / tested) and
        share (removed / all images); last row `all rules`.
    """
    rows = []
    left, total = len(verdicts), max(len(verdicts), 1)
    for rule in reasons:
        removed = int((verdicts["reason"] == rule).sum())
        rows.append((rule, left, removed, removed / max(left, 1), removed / total))
        left -= removed
    removed = len(verdicts) - left
    rows.append(("all rules", len(verdicts), removed, removed / total, removed / total))
    return pd.DataFrame(rows, columns=["rule", "tested", "removed", "rate", "share"]).round(4)


def figures(
    verdicts: pd.DataFrame, heads: pd.DataFrame, num_in: int, reasons: Sequence[str]
) -> dict[str, float]:
    """Return flat figures of the run.

    Args:
        verdicts: columns of `VERDICTS`.
        heads: those of kept images.
        num_in: images the stage was given.
        reasons: as in `drop_table`.

    Returns:
        Counts, drop rates and mean stability by name.
    """
    num_kept, total = int(verdicts["keep"].sum()), max(num_in, 1)
    stabilities = verdicts["stability"].dropna()
    return {
        "images_judged": float(num_in),
        "images_kept": float(num_kept),
        "heads_kept": float(len(heads)),
        "heads_per_image": round(len(heads) / max(num_kept, 1), 4),
        "drop_rate": round(1 - num_kept / total, 6),
        **{
            f"drop_rate_{rule}": round(float((verdicts["reason"] == rule).sum()) / total, 6)
            for rule in reasons
        },
        "stability_mean": round(float(stabilities.mean()), 6) if len(stabilities) else 0.0,
    }
