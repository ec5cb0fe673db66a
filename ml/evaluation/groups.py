"""Errors of the found heads by attributes of the heads, with intervals over the images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import pandas as pd

from ml.evaluation.metrics import bootstrap_intervals
from ml.evaluation.protocol import Evaluation

TONES = "Monk skin tone"
# The errors are grouped by these, so that a weakness of one group cannot hide in the mean.
_GROUPS: Mapping[str, str] = {
    "rotation of the head from the camera, degrees": "turn_deg",
    "size of the head, px": "size_px",
    "visible fraction": "visible",
    "heads in the image": "people",
    TONES: "skin_tone",
}
EDGES: Mapping[str, tuple[float, ...]] = {
    "turn_deg": (0, 30, 60, 90, 120, 180.1),
    "size_px": (0, 20, 40, 80, 10_000),
    "visible": (0, 0.5, 0.8, 1.001),
    "people": (1, 2, 3, 5, 100),
    "skin_tone": (1, 4, 7, 11),
}
"""Attribute of a head -> edges of its groups, of tables and charts alike."""
ERRORS = {"NME %": "nme_bbox", "rotation deg": "rotation_deg"}
"""Column of a table of groups -> error of a head."""
_BASELINES = {
    "mean head": {"NME %": "nme_bbox", "aligned %": "nme_aligned"},
    "always frontal": {"NME %": "nme_bbox", "rotation deg": "rotation_deg"},
}
"""Title of a baseline -> its columns."""
_BEHIND_DEG = 90.0
_NONE = "n/a"
WRONG_WAY_DEG = 90.0
_LISTED = 40
"""Most heads in the list of those turned the wrong way."""
_TONE = "skin_tone"
_LIGHT, _DARK = (1, 4), (7, 11)
_MIN_HEADS = 10
"""Of each side, for a comparison to be made at all."""


def group_table(
    evaluation: Evaluation,
    rng: np.random.Generator,
    resamples: int,
    baselines: Mapping[str, Evaluation] | None = None,
) -> dict[str, pd.DataFrame]:
    """Return errors by turn, size, visibility, number of heads in the image, and skin tone.

    Args:
        evaluation: a matched benchmark.
        rng: seeded generator.
        resamples: bootstrap draws of the images.
        baselines: title (a key of `_BASELINES`) -> what the same boxes reach with another head.

    Returns:
        Title -> table with columns group, heads (that count), found, NME and rotation error, both
        with 95 % intervals, rotation errors above `WRONG_WAY_DEG`, the error
        without pose and size, and the baselines' errors. No table of unknown
        attributes.
    """
    pairs, tables = evaluation.pairs, {}
    for title, column in _GROUPS.items():
        if column not in pairs:
            continue
        part_of = group_of(pairs[column])
        grouped = pairs.assign(part=part_of)
        found = {
            label: group_intervals(grouped, "part", name, evaluation.num_images, rng, resamples)
            for label, name in ERRORS.items()
        }
        asked = group_of(evaluation.asked[column])
        lines = []
        for part, group in enumerate(group_names(column)):
            here, of_group = part_of == part, evaluation.asked[asked == part]
            if not len(of_group):
                continue
            lines.append(
                {
                    "group": group,
                    "heads": len(of_group),
                    "found %": f"{100 * of_group['found'].mean():.0f}",
                    **{
                        label: with_interval(pd.Series(means.loc[part])) if here.any() else _NONE
                        for label, means in found.items()
                    },
                    f"over {WRONG_WAY_DEG:.0f} deg": int(
                        (pairs.loc[here, "rotation_deg"] > WRONG_WAY_DEG).sum()
                    ),
                    "aligned %": _mean_of(evaluation, here, "nme_aligned"),
                    **_of_baselines(baselines or {}, here),
                }
            )
        tables[title] = pd.DataFrame(lines)
    return tables


def _of_baselines(baselines: Mapping[str, Evaluation], here: np.ndarray) -> dict[str, str]:
    """Return a row's cells of the baselines, whose pairs are those of the detector's boxes."""
    return {
        f"{title}: {label}": _mean_of(evaluation, here, name)
        for title, evaluation in baselines.items()
        for label, name in _BASELINES[title].items()
    }


def _mean_of(evaluation: Evaluation, here: np.ndarray, name: str) -> str:
    return f"{evaluation.pairs.loc[here, name].mean():.1f}" if here.any() else _NONE


def turned_wrongly(evaluation: Evaluation, sample_ids: Sequence[str]) -> pd.DataFrame:
    """List the found heads whose rotation is wrong by more than `WRONG_WAY_DEG`, worst first.

    Args:
        evaluation: a matched benchmark.
        sample_ids: ids of its images, in order.

    Returns:
        The worst of them, columns image, head (number of the true head), error, and what the head
        is like.
    """
    wrong = evaluation.pairs[evaluation.pairs["rotation_deg"] > WRONG_WAY_DEG]
    wrong = wrong.sort_values("rotation_deg", ascending=False).head(_LISTED)
    columns = {"rotation_deg": "error deg", "turn_deg": "turned deg", "size_px": "size px"}
    table = pd.DataFrame({"image": [sample_ids[int(i)] for i in wrong["image"]]})
    table["head"] = wrong["truth"].to_numpy()
    for name, label in columns.items():
        table[label] = [f"{value:.0f}" for value in wrong[name]]
    if "visible" in wrong:
        table["visible"] = [f"{value:.2f}" for value in wrong["visible"]]
    return table


def compare_skin_tones(
    evaluation: Evaluation, rng: np.random.Generator, resamples: int
) -> str | None:
    """Describe the difference of errors between the darkest and the lightest skin tones.

    Args:
        evaluation: a matched benchmark.
        rng: seeded generator.
        resamples: bootstrap draws of the images.

    Returns:
        None where tones are not known, or of too few heads.
    """
    pairs = evaluation.pairs
    if _TONE not in pairs:
        return None
    sides = [pairs[_TONE].between(low, high - 1) for low, high in (_LIGHT, _DARK)]
    if min(side.sum() for side in sides) < _MIN_HEADS:
        return None
    light, dark = sides
    texts, sure = [], False
    for label, name in (("NME", "nme_bbox"), ("rotation error", "rotation_deg")):
        difference = float(pairs.loc[dark, name].mean() - pairs.loc[light, name].mean())
        low, high = _difference_interval(evaluation, name, dark, light, rng, resamples)
        unit = " degrees" if name == "rotation_deg" else " points"
        texts.append(f"{label} by {difference:+.1f}{unit} [{low:+.1f}, {high:+.1f}]")
        sure = sure or low > 0 or high < 0
    verdict = (
        "A difference of which the interval does not hold zero is one of this model on these heads."
        if sure
        else "Both intervals include zero: these heads are too few to distinguish the groups."
    )
    groups = [
        f"tones {low} to {high - 1} ({int(side.sum())})"
        for (low, high), side in ((_DARK, dark), (_LIGHT, light))
    ]
    return (
        f"Heads of skin {groups[0]} differ from those of {groups[1]}: {', '.join(texts)}. {verdict}"
    )


def _difference_interval(
    evaluation: Evaluation,
    name: str,
    one: pd.Series,
    other: pd.Series,
    rng: np.random.Generator,
    resamples: int,
) -> tuple[float, float]:
    """Return the 95 % interval of the difference of two groups' means, over images."""
    pairs = evaluation.pairs
    rows = [
        pairs.loc[side].groupby("image")[name].agg(["sum", "size"])
        .reindex(range(evaluation.num_images)).fillna(0).to_numpy()
        for side in (one, other)
    ]  # fmt: skip

    def difference(draw: np.ndarray) -> dict[str, float]:
        (a, b), (c, d) = (table[draw].sum(axis=0) for table in rows)
        return {name: float(a / b - c / d) if b and d else float("nan")}

    return bootstrap_intervals(difference, evaluation.num_images, rng, resamples)[name]


def group_intervals(
    pairs: pd.DataFrame,
    group: str,
    name: str,
    num_images: int,
    rng: np.random.Generator,
    resamples: int,
) -> pd.DataFrame:
    """Return the mean of an error in each group, with a 95 % interval over images.

    Args:
        pairs: found heads, with columns image, `group` and `name`.
        group: column of the groups.
        name: column of the error.
        num_images: images in the benchmark.
        rng: seeded generator.
        resamples: bootstrap draws.

    Returns:
        A row a group that has heads, indexed by it: heads, mean, low, high.
    """
    sums = pairs.pivot_table(index="image", columns=group, values=name, aggfunc="sum")
    sums = sums.reindex(range(num_images)).fillna(0.0)
    counts = pairs.pivot_table(index="image", columns=group, values=name, aggfunc="count")
    counts = counts.reindex(range(num_images)).fillna(0)
    groups = list(sums.columns)

    def means(draw: np.ndarray) -> dict[str, float]:
        total, heads = sums.to_numpy()[draw].sum(axis=0), counts.to_numpy()[draw].sum(axis=0)
        values = np.divide(total, heads, out=np.full(len(heads), np.nan), where=heads > 0)
        return {str(g): float(v) for g, v in zip(groups, values, strict=True)}

    intervals = bootstrap_intervals(means, num_images, rng, resamples)
    rows = [
        {
            "heads": int(counts[g].sum()),
            "mean": float(sums[g].sum() / counts[g].sum()),
            "low": intervals[str(g)][0],
            "high": intervals[str(g)][1],
        }
        for g in groups
    ]
    return pd.DataFrame(rows, groups, ["heads", "mean", "low", "high"])


def with_interval(row: pd.Series) -> str:
    """Return a row of `group_intervals` as text: the mean and its interval."""
    return f"{row['mean']:.1f} [{row['low']:.1f}, {row['high']:.1f}]"


def group_of(values: pd.Series) -> np.ndarray:
    """Return the group of each value: its number in `EDGES[values.name]`.

    Raises:
        KeyError: the series is not named after such an attribute.
    """
    return np.searchsorted(EDGES[str(values.name)], values, side="right") - 1


def group_names(column: str) -> list[str]:
    """Return the names of an attribute's groups, in order."""
    return [_name(column, low, high) for low, high in pairwise(EDGES[column])]


def _name(column: str, low: float, high: float) -> str:
    if column == "people" and high >= 100:
        return f"from {low:.0f}"
    if column in (_TONE, "people"):
        return f"{low:.0f}" if high - low == 1 else f"{low:.0f} to {high - 1:.0f}"
    if column == "size_px" and high > 1000:
        return f"from {low:.0f}"
    if column == "visible":
        return f"{low:g} to {np.floor(high * 100) / 100:g}"
    behind = ", from behind" if column == "turn_deg" and low >= _BEHIND_DEG else ""
    return f"{low:g} to {int(high)}{behind}"
