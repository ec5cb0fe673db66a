"""The `generation-quality` command: FID, KID and inception score against a reference.

Heavy modules are imported when the command runs, so that `--help` responds quickly.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from ml.records.files import existing
from ml.records.printing import add_json_option, print_json

Run = Callable[[argparse.Namespace], int]
Add = Callable[[str, Run, str], argparse.ArgumentParser]


def add_commands(add: Add) -> None:
    """Declare the command.

    Args:
        add: takes a command's name, function and one line of help; returns its parser.
    """
    parser = add(
        "generation-quality", generation_quality, "compute FID, KID and inception score of images"
    )
    parser.add_argument(
        "images",
        nargs="+",
        metavar="[TITLE=]IMAGES",
        help="folder of images, a .tar, or a folder of tars; all sets use the same reference",
    )
    parser.add_argument(
        "--reference", type=existing, required=True, metavar="IMAGES", help="real images"
    )
    parser.add_argument(
        "--inception",
        type=existing,
        required=True,
        metavar="FILE",
        help="pt_inception-2015-12-05-6726825d.pth, as pytorch-fid and torch-fidelity use it",
    )
    parser.add_argument(
        "--reference-limit",
        type=int,
        metavar="N",
        help="use the first N reference images (paper: 1500)",
    )
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[64, 2048], help="feature dimensions (%(default)s)"
    )
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="(%(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of KID and the splits (%(default)s)"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="file for the scores")
    add_json_option(parser)


def generation_quality(options: argparse.Namespace) -> int:
    """Measure sets of images against a reference."""
    sources = [_titled(text) for text in options.images]
    from ml.benchmarks.generation_quality import Measuring, compare_sets
    from ml.benchmarks.inception import load_inception
    from ml.records.atomic import write_json
    from ml.records.models import choose_device

    device = choose_device(options.device)
    measuring = Measuring(
        load_inception(options.inception).to(device),
        sizes=tuple(options.sizes),
        batch_size=options.batch_size,
        device=str(device),
        seed=options.seed,
    )
    results = compare_sets(sources, options.reference, measuring, options.reference_limit)
    plain = {title: {**s.as_dict(), "notes": list(s.notes)} for title, s in results.items()}
    if options.output:
        write_json(options.output, plain)
    if options.json:
        print_json(plain)
        return 0
    for title, scores in results.items():
        print(title)
        for name, value in scores.metrics.items():
            print(f"  {name:<24} {value:.4f}")
        for name, count in scores.counts.items():
            print(f"  {name:<24} {count}")
        for note in scores.notes:
            print(f"  note: {note}")
    for row in measuring.exclusions.to_frame().itertuples():
        print(f"left out: {row.sample_id}: {row.reason}: {row.detail}")
    return 0


def _titled(text: str) -> tuple[str, Path]:
    """Return `TITLE=PATH` or a path, whose name then is the title.

    A path may hold an equals sign.

    Raises:
        FileNotFoundError: there are no such images.
    """
    title, separator, rest = text.partition("=")
    if separator and not Path(text).exists():
        return title, existing(rest)
    return Path(text).name, existing(text)
