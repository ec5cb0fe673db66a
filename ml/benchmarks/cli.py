"""Commands on public benchmarks: score a file of predictions.

Everything heavy is imported when a command runs, so that `--help` is quick.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from ml.benchmarks import quality_cli

Run = Callable[[argparse.Namespace], int]
Add = Callable[[str, Run, str], argparse.ArgumentParser]
#: What the help lists; `ml.benchmarks.sets` has them all.
SET_NAMES = ("aflw2000", "biwi", "dad", "fddb", "wider")
DEFAULT_HEAD_MODEL = Path("data/head_model/head_model.npz")
_SHOWN = 8


def add_commands(add: Add) -> None:
    """Declare the commands.

    Args:
        add: takes a command's name, function and one line of help; returns its parser.
    """
    parser = add("score", score, "score a file of predictions on a public benchmark")
    parser.add_argument("set", choices=SET_NAMES, metavar="SET", help=", ".join(SET_NAMES))
    parser.add_argument("--truth", type=Path, required=True, metavar="DIR", help="the set's folder")
    parser.add_argument(
        "--predictions",
        type=Path,
        required=True,
        metavar="PATH",
        help="a .jsonl of ours, or what the set's own tools read; docs/benchmarks tells the form",
    )
    _add_protocol(parser)
    parser.add_argument("--json", type=Path, required=True, metavar="FILE", help="where to write")
    quality_cli.add_commands(add)


def _add_protocol(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--protocol", metavar="NAME", help="whose rules; the set's first if unsaid")
    parser.add_argument(
        "--head-model",
        type=Path,
        default=DEFAULT_HEAD_MODEL,
        metavar="FILE",
        help="of the predictions, where a metric needs one (%(default)s)",
    )


def score(options: argparse.Namespace) -> int:
    """Score predictions and write the metrics."""
    from ml.benchmarks.scoring import score as run
    from ml.records.atomic import write_json

    result = run(
        options.set, options.truth, options.predictions, options.protocol, options.head_model
    )
    values = result.as_json()
    write_json(options.json, values)
    for name, value in result.scores.metrics.items():
        low, high = result.scores.intervals.get(name, (float("nan"), float("nan")))
        print(f"{name:<28} {value:10.4f}   [{low:.4f}, {high:.4f}]")
    for name, count in result.scores.counts.items():
        print(f"{name:<28} {count:10}")
    for reason, count in result.excluded.items():
        print(f"left out: {count} {reason}")
    for row in result.exclusions.to_frame().head(_SHOWN).itertuples():
        print(f"  {row.sample_id}: {row.detail}")
    for difference in values["count_differences"]:
        print(f"warning: not the published set: {difference}")
    for note in values["notes"]:
        print(f"note: {note}")
    return 0
