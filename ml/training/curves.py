"""Training curves as an image."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ml.records.atomic import atomic_write

_COLUMNS = 4


def plot_history(history: pd.DataFrame, path: Path) -> None:
    """Plot every logged quantity over epochs, training and validation on one axis.

    Args:
        history: epoch rows with columns `epoch`, `train/<name>`, `val/<name>`, `lr/<name>`.
        path: the PNG to write; the same history gives the same bytes.
    """
    columns = [name for name in history.columns if "/" in name and not name.startswith("lr/")]
    names = list(dict.fromkeys(name.split("/", 1)[1] for name in columns))
    rows = -(-max(len(names), 1) // _COLUMNS)
    figure = Figure(figsize=(3.2 * _COLUMNS, 2.4 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    with mpl.rc_context({"font.size": 8}):
        for number, name in enumerate(names, 1):
            axis = figure.add_subplot(rows, _COLUMNS, number)
            for part, style in (("train", "-"), ("val", "o-")):
                if f"{part}/{name}" in history:
                    known = history[["epoch", f"{part}/{name}"]].dropna()
                    axis.plot(known["epoch"] + 1, known.iloc[:, 1], style, ms=3, label=part)
            axis.set_title(name)
            axis.set_xlabel("epoch")
            axis.grid(alpha=0.3)
            axis.legend(frameon=False)
        with atomic_write(path) as temporary:
            figure.savefig(temporary, dpi=100, metadata={"Software": None})
