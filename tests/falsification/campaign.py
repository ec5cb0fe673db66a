"""Apply every falsification to a copy of a finished run, and print which check saw it."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path

from assets.checks.bounded import accept_reference
from assets.checks.validation import MAX_ROWS, Outcome, validate
from assets.stage_asset import suites_of
from dagster_project.stages import STAGES
from tests.falsification import page
from tests.falsification.elsewhere import elsewhere
from tests.falsification.faults import FAULTS as CHANGES
from tests.falsification.losses import LOSSES
from tests.falsification.run import make_run, workspace
from tests.rehearsal import ROOT

FAULTS = CHANGES | LOSSES
CROPS = ["crops-00000", "crops-00001"]


def judged(root: Path, stage: str) -> list[Outcome]:
    """Outcomes of a stage's suites that fail."""
    ws = workspace(root)
    units = CROPS if stage == "crops" else ws.shards if STAGES[stage].partitioned else ["stage"]
    import_module(STAGES[stage].asset_module)
    outcomes = [o for suite in suites_of(stage) for o in validate(ws, suite, units, None)]
    return [outcome for outcome in outcomes if not outcome.passed]


@dataclass(frozen=True)
class Seen:
    """Findings of the suites on a falsification.

    Attributes:
        name: the falsification's.
        stopped: checks that stop it.
        warned: checks that warn of it.
        unnamed: ids of lost rows that no check which stops it names.
    """

    name: str
    stopped: tuple[str, ...]
    warned: tuple[str, ...]
    unnamed: tuple[str, ...]


def falsify(base: Path, name: str) -> Seen:
    """Falsify a copy of a run, and judge it."""
    fault = FAULTS[name]
    with tempfile.TemporaryDirectory(dir=base.parent) as folder:
        # Links: faults replace files, they never write into one.
        shutil.copytree(base, folder, copy_function=os.link, dirs_exist_ok=True)
        lost = fault.change(workspace(Path(folder))) or set()
        failed = judged(Path(folder), fault.stage)
    told = " ".join(str(row["value"]) for one in failed if one.blocks for row in one.unexpected)
    unnamed = sorted(item for item in lost if item not in told)
    # A check names so many rows and counts the rest.
    enough = len(lost) - len(unnamed) >= MAX_ROWS
    return Seen(
        name,
        tuple(outcome.name for outcome in failed if outcome.blocks),
        tuple(outcome.name for outcome in failed if not outcome.blocks),
        () if enough else tuple(unnamed),
    )


def checks_of(stages: Iterable[str]) -> list[str]:
    """Names of all checks of some stages, whose modules have been imported."""
    return [
        suite.check_name(check)
        for stage in stages
        for suite in suites_of(stage)
        for check in suite.checks
    ]


def main(arguments: list[str] | None = None) -> int:
    """Run the campaign.

    Returns:
        1 when a critical falsification passes, lost ids are not named, the unfalsified run fails,
        or a check fails nowhere: neither here nor in a test that `elsewhere` names; else 0.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("project", nargs="?", type=Path, default=ROOT)
    parser.add_argument("--only", default="", help="falsifications whose name holds this")
    parser.add_argument("--page", type=Path, help="a page whose tables are written anew")
    options = parser.parse_args(arguments)
    if options.page and options.only:
        parser.error("--page needs every falsification; leave --only out")
    started = time.monotonic()
    names = [name for name in FAULTS if options.only in name]
    faults, failing, stopped = [], set(), []
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / "run"
        accept_reference(make_run(options.project.resolve(), base), CROPS)
        # What has no finished stage has no checks to be judged.
        ran = [stage for stage in STAGES if (base / "data" / stage).is_dir()]
        for sentence in (o.sentence() for stage in ran for o in judged(base, stage)):
            faults.append(sentence)
            say(f"the unfalsified run fails: {sentence}")
        workers = ProcessPoolExecutor(os.cpu_count() or 1, mp_context=get_context("spawn"))
        with workers as pool:
            for seen in pool.map(partial(falsify, base), names):
                failing |= {*seen.stopped, *seen.warned}
                faults += _wrong(seen)
                stopped.append((seen.name, seen.stopped))
                say(_line(seen))
    unseen = sum(name in faults for name in names)
    say(f"{len(names)} falsifications, {unseen} critical ones unseen")
    if not options.only:
        faults += _never_failed(checks_of(ran), failing)
    if options.page:
        page.write(options.page, stopped)
    say(f"{time.monotonic() - started:.0f} s")
    return 1 if faults else 0


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _wrong(seen: Seen) -> list[str]:
    """Fault of an outcome: the falsification passed, or ids are missing."""
    if not seen.stopped:
        return [seen.name] if FAULTS[seen.name].kind == "critical" else []
    return [f"{seen.name}: {', '.join(seen.unnamed)}"] if seen.unnamed else []


def _line(seen: Seen) -> str:
    """A falsification's line in the table."""
    told = ", ".join(seen.stopped[:3])
    told += f" and {len(seen.stopped) - 3} more" * (len(seen.stopped) > 3)
    if not seen.stopped:
        told = f"warned by {', '.join(seen.warned)}" if seen.warned else "nothing"
        if FAULTS[seen.name].kind != "critical":
            told += " (only a statistic over 100,000 heads could see it)"
    if seen.unnamed:
        told += f"; NOT NAMED: {', '.join(seen.unnamed)}"
    return f"{seen.name:<52} {told}"


def _never_failed(checks: Sequence[str], failing: Collection[str]) -> list[str]:
    """Checks that fail nowhere, and entries of `ELSEWHERE` that are no longer needed."""
    silent = [check for check in checks if check not in failing and not elsewhere(check)]
    for check in silent:
        say(f"no falsification makes it fail: {check}")
    number = sum(check in failing for check in checks)
    other = sum(check not in failing and bool(elsewhere(check)) for check in checks)
    say(f"{len(checks)} checks: {number} failed here, {other} only in tests of their own")
    return silent
