"""Apply every falsification to a copy of a finished run, and print which check saw it."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path

from assets.checks.bounded import accept_reference
from assets.checks.validation import Outcome, validate
from assets.stage_asset import suites_of
from dagster_project.stages import STAGES
from tests.falsification.faults import FAULTS
from tests.falsification.run import make_run, workspace
from tests.rehearsal import ROOT

CROPS = ["crops-00000", "crops-00001"]


def judged(root: Path, stage: str) -> list[Outcome]:
    """Outcomes of a stage's suites that fail."""
    ws = workspace(root)
    units = CROPS if stage == "crops" else ws.shards if STAGES[stage].partitioned else ["stage"]
    import_module(STAGES[stage].asset_module)
    outcomes = [o for suite in suites_of(stage) for o in validate(ws, suite, units, None)]
    return [outcome for outcome in outcomes if not outcome.passed]


def falsify(base: Path, name: str) -> tuple[str, list[str], list[str]]:
    """Name, checks that stop it, and checks that warn."""
    fault = FAULTS[name]
    with tempfile.TemporaryDirectory(dir=base.parent) as folder:
        # Links: faults replace files, they never write into one.
        shutil.copytree(base, folder, copy_function=os.link, dirs_exist_ok=True)
        fault.change(workspace(Path(folder)))
        failed = judged(Path(folder), fault.stage)
    stopped = [outcome.name for outcome in failed if outcome.blocks]
    return name, stopped, [outcome.name for outcome in failed if not outcome.blocks]


def main(arguments: list[str] | None = None) -> int:
    """Run the campaign; 1 when a critical falsification passes or the clean run fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("project", nargs="?", type=Path, default=ROOT)
    parser.add_argument("--only", default="", help="falsifications whose name holds this")
    options = parser.parse_args(arguments)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / "run"
        accept_reference(make_run(options.project.resolve(), base), CROPS)
        # What the profile switches off, such as an imported release, has not run.
        ran = [stage for stage in STAGES if (base / "data" / stage).is_dir()]
        unseen = [o.sentence() for stage in ran for o in judged(base, stage)]
        for sentence in unseen:
            sys.stdout.write(f"the unfalsified run fails: {sentence}\n")
        names = [name for name in FAULTS if options.only in name]
        workers = ProcessPoolExecutor(os.cpu_count() or 1, mp_context=get_context("spawn"))
        with workers as pool:
            for name, stopped, warned in pool.map(partial(falsify, base), names):
                told = ", ".join(stopped[:3]) + (
                    f" and {len(stopped) - 3} more" * (len(stopped) > 3)
                )
                if not stopped:
                    told = f"warned by {', '.join(warned)}" if warned else "nothing"
                    if FAULTS[name].kind == "critical":
                        unseen.append(name)
                    else:
                        told += " (only a statistic over 100,000 heads could see it)"
                sys.stdout.write(f"{name:<42} {told}\n")
                sys.stdout.flush()
    seconds = time.monotonic() - started
    passed = sum(name in unseen for name in names)
    sys.stdout.write(
        f"{len(names)} falsifications, {passed} critical ones unseen, {seconds:.0f} s\n"
    )
    return 1 if unseen else 0
