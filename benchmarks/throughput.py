"""Parameters, multiply-accumulates and images per second of detectors: the paper's table 8.

    python -m benchmarks.throughput                # S, M, L on the GPU; without one the rows say so
    python -m benchmarks.throughput --device cpu --sizes nano --batches 1 8
    python -m benchmarks.throughput --precisions fp32 bf16 fp16 --runtimes torch onnxruntime
    python -m benchmarks.throughput --sizes --checkpoints data/trained_model --output scores

`ml.benchmarks.architectures` documents what is timed. `--output` writes a score file per model,
which `ml.benchmarks.tables` compares with the paper's numbers. `vggheads study architectures`
measures the same for a project and its MLflow.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.report import commit, parser_of, start
from ml.benchmarks.architectures import (
    PRECISIONS,
    RUNTIMES,
    cost_scores,
    of_file,
    of_size,
    speeds,
    unmeasured,
)
from ml.records.atomic import write_json


def main() -> None:
    """Print the table."""
    parser = parser_of(__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--sizes", nargs="*", default=["S", "M", "L"])
    parser.add_argument("--checkpoints", nargs="*", type=Path, default=[], help="models on disk")
    parser.add_argument("--runtimes", nargs="+", choices=RUNTIMES, default=["torch"])
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=["fp32"])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 64])
    parser.add_argument("--threads", type=int, default=None, help="torch threads")
    parser.add_argument("--seconds", type=float, default=5.0, help="time for each metric")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="for a score file a model")
    arguments = parser.parse_args()
    start(arguments.threads)
    print("\n| model | side px | parameters | GMACs | runtime | precision | batch | images/s |")
    print("|---|---|---|---|---|---|---|---|")
    # heads are wanted only where something can be timed
    timed = not unmeasured("torch", "fp32", arguments.device)
    for one in [*arguments.sizes, *arguments.checkpoints]:
        model = of_file(one.name, one, timed) if isinstance(one, Path) else of_size(one, timed)
        found: dict[tuple[str, str, int], float | None] = {}
        for runtime, precision, batch, value in speeds(
            model,
            arguments.runtimes,
            arguments.precisions,
            arguments.batches,
            arguments.device,
            arguments.seconds,
        ):
            found[runtime, precision, batch] = value
            reason = unmeasured(runtime, precision, arguments.device)
            text = f"not measured: {reason}" if value is None else f"{value:.1f}"
            print(
                f"| {model.name} | {model.side} | {model.parameters:,} | {model.gmacs:.2f} "
                f"| {runtime} | {precision} | {batch} | {text} |",
                flush=True,
            )
        if arguments.output:
            scores = cost_scores(model, found, [f"commit {commit()}"])
            write_json(arguments.output / f"{model.name}.json", scores)


if __name__ == "__main__":
    main()
