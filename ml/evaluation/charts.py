"""Charts of a benchmark as SVG text for its report; equal evaluations give equal bytes."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from ml.evaluation.groups import group_intervals, group_names, group_of
from ml.evaluation.protocol import Evaluation, EvaluationSample
from ml.imaging.boxes import box_area

ERRORS: Final = (("rotation_deg", "rotation error, degrees"), ("nme_bbox", "NME, % of head box"))
_GROUPED: Final = (("turn_deg", "turn", "degrees"), ("size_px", "size", "px"))
"""Attribute of a head, its name, its unit."""
_SCORE_BINS: Final = 10
_COLOURS: Final = ("#0b6fb3", "#d1495b", "#3a7d44", "#8a5fbf")
_STYLE: Final[dict[str, Any]] = {
    "font.size": 9,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.hashsalt": "vggheads",
    "svg.fonttype": "none",  # as text: smaller, and it can be searched
    "font.family": "sans-serif",
}


def draw_charts(
    evaluations: Mapping[str, Evaluation],
    samples: Sequence[EvaluationSample],
    operating_score: float,
    rng: np.random.Generator,
    resamples: int,
) -> dict[str, str]:
    """Draw all charts.

    Args:
        evaluations: title of a model -> its matched benchmark; the first one's errors are shown.
        samples: the evaluated images.
        operating_score: confidence from which a prediction is shown to people.
        rng: seeded generator, for intervals.
        resamples: bootstrap draws.

    Returns:
        Title -> SVG.
    """
    title, first = next(iter(evaluations.items()))
    sizes = head_sizes(first, samples)
    return {
        "Precision and recall": _svg(lambda a: _precision_recall(a, evaluations, operating_score)),
        f"Calibration of the score ({title})": _svg(lambda a: _calibration(a, first.predictions)),
        f"Found, missed and false heads ({title})": _svg(lambda a: _confusion(a, first)),
        f"Found and missed by size ({title})": _svg(lambda a: _found_by_size(a, sizes)),
        **{
            f"{label.capitalize() if name != 'nme_bbox' else label}, by {of} ({title})": _svg(
                partial(
                    _errors,
                    evaluation=first,
                    column=column,
                    error=(name, label),
                    quantity=f"{of} of the head, {unit}",
                    draws=(rng, resamples),
                )
            )
            for name, label in ERRORS
            for column, of, unit in _GROUPED
        },
    }


def precision_recall(predictions: pd.DataFrame, num_true: int) -> pd.DataFrame:
    """Return the curve: a row a prediction, most confident first.

    Args:
        predictions: columns score and correct, of all predictions that count.
        num_true: true heads that count.

    Returns:
        Columns score, recall, precision.
    """
    ordered = predictions.sort_values("score", ascending=False, kind="stable")
    hits = ordered["correct"].to_numpy(bool).cumsum()
    return pd.DataFrame(
        {
            "score": ordered["score"].to_numpy(),
            "recall": hits / max(num_true, 1),
            "precision": hits / np.arange(1, len(hits) + 1),
        }
    )


def calibration(predictions: pd.DataFrame, bins: int = _SCORE_BINS) -> pd.DataFrame:
    """Return the precision of predictions by confidence.

    Args:
        predictions: columns score and correct.
        bins: equal parts of [0, 1].

    Returns:
        A row a part that holds predictions: score (mean), correct (fraction), number.
    """
    part = np.minimum((predictions["score"] * bins).astype(int), bins - 1)
    grouped = predictions.groupby(part)
    return pd.DataFrame(
        {
            "score": grouped["score"].mean(),
            "correct": grouped["correct"].mean(),
            "number": grouped.size(),
        }
    ).reset_index(drop=True)


def head_sizes(evaluation: Evaluation, samples: Sequence[EvaluationSample]) -> pd.DataFrame:
    """Return every head of the ground truth, with its size and whether it was found.

    Args:
        evaluation: of the samples.
        samples: images with their true heads.

    Returns:
        Columns size_px and found.
    """
    pairs = evaluation.pairs
    found = set(zip(pairs["image"].tolist(), pairs["truth"].tolist(), strict=True))
    rows = [
        (size, (image, head) in found)
        for image, sample in enumerate(samples)
        for head, size in enumerate(np.sqrt(box_area(sample.heads.boxes_xyxy)))
        if not sample.ignore[head]
    ]
    return pd.DataFrame(rows, columns=["size_px", "found"])


def _precision_recall(
    axes: Axes, evaluations: Mapping[str, Evaluation], operating_score: float
) -> None:
    for (title, evaluation), colour in zip(evaluations.items(), _COLOURS, strict=False):
        curve = precision_recall(evaluation.predictions, int(evaluation.num_true.sum()))
        axes.plot(curve["recall"], curve["precision"], color=colour, label=title)
        shown = curve[curve["score"] >= operating_score]
        if len(shown):
            last = shown.iloc[-1]
            axes.plot([last["recall"]], [last["precision"]], "o", color=colour)
    if not any(len(evaluation.predictions) for evaluation in evaluations.values()):
        _nothing(axes, "no head was predicted")
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1.01), ylim=(0, 1.02))
    axes.legend(title=f"points: score {operating_score:g}", loc="lower left")


def _calibration(axes: Axes, predictions: pd.DataFrame) -> None:
    found = calibration(predictions)
    if found.empty:
        _nothing(axes, "no head was predicted")
    axes.plot([0, 1], [0, 1], "--", color="#888888", label="calibrated")
    axes.plot(found["score"], found["correct"], "o-", color=_COLOURS[0])
    for _, row in found.iterrows():
        axes.annotate(
            f"{row['number']:.0f}", (row["score"], row["correct"]), (4, -10),
            textcoords="offset points", color="#555555",
        )  # fmt: skip
    axes.set(xlabel="score", ylabel="fraction that are heads", xlim=(0, 1), ylim=(0, 1.03))
    axes.legend(title="numbers: predictions", loc="upper left")


def _confusion(axes: Axes, evaluation: Evaluation) -> None:
    missed = int(evaluation.num_missed.sum())
    found = int(evaluation.num_true.sum()) - missed
    false = int(evaluation.annotated.sum()) - found
    table = np.array([[found, missed], [false, np.nan]])
    axes.imshow(np.nan_to_num(table), cmap="Blues", vmin=0, vmax=max(found * 1.3, 1))
    for row, column, text in (
        (0, 0, f"{found}\nfound"),
        (0, 1, f"{missed}\nmissed"),
        (1, 0, f"{false}\nfalse"),
        (1, 1, "not counted"),
    ):
        dark = np.nan_to_num(table)[row, column] > found / 2
        axes.text(column, row, text, ha="center", va="center", color="white" if dark else "black")
    axes.set_xticks([0, 1], ["predicted", "not predicted"])
    axes.set_yticks([0, 1], ["head", "no head"])
    axes.grid(False)
    axes.spines[:].set_visible(False)


def _found_by_size(axes: Axes, sizes: pd.DataFrame) -> None:
    names = group_names("size_px")
    counts = sizes.groupby(group_of(sizes["size_px"]))["found"].agg(["sum", "size"])
    counts = counts.reindex(range(len(names))).fillna(0)
    axes.bar(counts.index, counts["sum"], color=_COLOURS[0], label="found")
    axes.bar(
        counts.index, counts["size"] - counts["sum"], bottom=counts["sum"], color=_COLOURS[1],
        label="missed",
    )  # fmt: skip
    axes.set_xticks(counts.index, names)
    axes.set(xlabel="size of the head, px", ylabel="heads")
    axes.legend()


def _errors(
    axes: Axes,
    evaluation: Evaluation,
    column: str,
    error: tuple[str, str],
    quantity: str,
    draws: tuple[np.random.Generator, int],
) -> None:
    """Means by group, with intervals over images and the number of heads."""
    name, label = error
    axes.set(xlabel=quantity, ylabel=label)
    if evaluation.pairs.empty:
        _nothing(axes, "no head was found")
        return
    pairs = evaluation.pairs.assign(part=group_of(evaluation.pairs[column]))
    means = group_intervals(pairs, "part", name, evaluation.num_images, *draws)
    position = means.index.to_numpy()
    names = [name.replace(", ", "\n") for name in group_names(column)]
    axes.errorbar(
        position, means["mean"],
        np.abs(means[["low", "high"]].to_numpy().T - means["mean"].to_numpy()),
        fmt="o-", capsize=3, color=_COLOURS[0],
    )  # fmt: skip
    axes.set_xticks(
        position,
        [f"{names[i]}\n({n} heads)" for i, n in zip(position, means["heads"], strict=True)],
    )
    axes.tick_params("x", labelsize=7)
    axes.set_ylim(bottom=0)


def _nothing(axes: Axes, why: str) -> None:
    """Say why a chart is empty."""
    axes.text(0.5, 0.5, why, ha="center", va="center", transform=axes.transAxes, color="#555555")


def _svg(draw: Callable[[Axes], None]) -> str:
    """Return one chart as an `<svg>` element."""
    with mpl.rc_context(_STYLE):  # type: ignore[arg-type] # keys are strings here
        figure = Figure(figsize=(5.2, 3.3), layout="constrained", facecolor="white")
        FigureCanvasSVG(figure)
        draw(figure.subplots())
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    return text[text.index("<svg") :]
