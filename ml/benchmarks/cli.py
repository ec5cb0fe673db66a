"""Commands for public benchmarks: score predictions, or run and score a model.

Heavy modules are imported when a command runs, so that `--help` responds quickly.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ml.benchmarks import quality_cli
from ml.records.files import existing
from ml.records.printing import add_json_option, print_json

if TYPE_CHECKING:
    from ml.benchmarks.scoring import BenchmarkResult

Run = Callable[[argparse.Namespace], int]
Add = Callable[[str, Run, str], argparse.ArgumentParser]
SET_NAMES = (
    "aflw2000",
    "biwi",
    "dad",
    "fddb",
    "wider",
    "feng",
    "now",
    "dad-test",
    "now-test",
    "coco",
    "renders",
)
"""Names shown by `--help`; the registry is in `ml.benchmarks.sets`."""
DEFAULT_HEAD_MODEL = Path("data/head_model/head_model.npz")
_SHOWN = 8


def add_commands(add: Add) -> None:
    """Declare the commands.

    Args:
        add: takes a command's name, function and one line of help; returns its parser.
    """
    parser = add("score", score, "score existing predictions on a public benchmark")
    parser.add_argument("set", choices=SET_NAMES, metavar="SET", help=", ".join(SET_NAMES))
    parser.add_argument(
        "--truth", type=existing, required=True, metavar="DIR", help="data set folder"
    )
    parser.add_argument(
        "--predictions",
        type=existing,
        required=True,
        metavar="PATH",
        help="predictions as .jsonl or in the benchmark's official format, see docs/benchmarks",
    )
    _add_protocol(parser)
    parser.add_argument("--output", type=Path, metavar="FILE", help="file for the scores")
    add_json_option(parser)
    parser = add("benchmark", benchmark, "run a model on a public benchmark and score it")
    parser.add_argument("set", choices=SET_NAMES, metavar="SET", help=", ".join(SET_NAMES))
    parser.add_argument(
        "--data", type=existing, required=True, metavar="DIR", help="data set folder"
    )
    parser.add_argument(
        "--model",
        type=existing,
        required=True,
        metavar="PATH",
        help="model folder, exported model, official .trcd, .onnx or .pth, or predictions",
    )
    _add_protocol(parser)
    parser.add_argument(
        "--boxes",
        metavar="KIND",
        help="region scored as a head's box: head, face_half_pi or face_pi (default: head, but a "
        "face on FDDB and WIDER FACE)",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="output folder for scores, exclusions and predictions",
    )
    add_json_option(parser)
    quality_cli.add_commands(add)


def _add_protocol(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--protocol", metavar="NAME", help="evaluation protocol (default: the first)"
    )
    parser.add_argument(
        "--head-model",
        type=existing,
        metavar="FILE",
        help="head_model.npz of the parameters (default: the model's, or the project's)",
    )


def score(options: argparse.Namespace) -> int:
    """Score predictions; print the metrics, and write them if requested."""
    from ml.benchmarks.scoring import score as run
    from ml.records.atomic import write_json

    head_model = options.head_model or DEFAULT_HEAD_MODEL
    result = run(options.set, options.truth, options.predictions, options.protocol, head_model)
    if options.output:
        write_json(options.output, result.as_json())
    _show(result, options.json)
    return 0


def benchmark(options: argparse.Namespace) -> int:
    """Run a model and write the metrics."""
    from ml.benchmarks.running import benchmark as run

    result = run(
        options.set,
        options.data,
        options.model,
        options.protocol,
        options.output,
        options.head_model,
        options.boxes,
        options.device,
    )
    _show(result, options.json)
    if options.output and not options.json:
        print(f"written: {options.output / 'scores.json'}")
    return 0


def _show(result: BenchmarkResult, as_json: bool) -> None:
    if as_json:
        print_json(result.as_json())
        return
    for name, value in result.scores.metrics.items():
        low, high = result.scores.intervals.get(name, (float("nan"), float("nan")))
        print(f"{name:<28} {value:10.4f}   [{low:.4f}, {high:.4f}]")
    for name, count in result.scores.counts.items():
        print(f"{name:<28} {count:10}")
    for reason, count in result.excluded.items():
        print(f"left out: {count} {reason}")
    for row in result.exclusions.to_frame().head(_SHOWN).itertuples():
        print(f"  {row.sample_id}: {row.detail}")
    for difference in result.differences:
        print(f"warning: not the published set: {difference}")
    for note in result.scores.notes:
        print(f"note: {note}")
