"""The command line: make the data and the models, look at them, use them."""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from dagster_project.config_commands import config, edit_lines, profile
from dagster_project.dataset_commands import add_dataset_commands
from dagster_project.doctor import check_quickly, examine
from dagster_project.env import prepare
from dagster_project.graph import descendants
from dagster_project.pipeline import Pipeline
from dagster_project.stages import project
from ml.benchmarks import cli as benchmarks
from ml.inference import cli as inference
from ml.records.files import is_environment
from ml.records.lineage import UnknownSample

_SEE_DOCTOR = "`vggheads doctor` says what is damaged"
Command = Callable[[Pipeline, argparse.Namespace], int]


def main(arguments: Sequence[str] | None = None, pipeline: Pipeline | None = None) -> int:
    """Run a command.

    Args:
        arguments: those of the command line by default.
        pipeline: the project; this checkout by default.

    Returns:
        Exit status.
    """
    is_own = pipeline is None
    pipeline = pipeline or project()
    options = _parser(pipeline).parse_args(arguments)
    handler = logging.StreamHandler()
    handler.setLevel(logging.INFO if options.verbose else logging.ERROR)
    logging.basicConfig(handlers=[handler], format="%(levelname)s %(name)s: %(message)s")
    command: Command = options.command
    try:
        if is_own:
            _check_place(pipeline)
        home = prepare(pipeline.root)
        if command in _ON_RECORDS:
            check_quickly(pipeline, home)
        return command(pipeline, options)
    except (ValueError, FileNotFoundError, UnknownSample) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except _database_errors() as error:
        cause = str(error).splitlines()[0]
        machine = any(word in cause for word in ("disk is full", "no space", "readonly", "locked"))
        hint = "what is finished is kept, run again" if machine else _SEE_DOCTOR
        print(f"error: {cause}; {hint}", file=sys.stderr)
        return 2
    except OSError as error:
        if not is_environment(error):
            raise
        print(f"error: {error}; what is finished is kept, run again", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; run again to go on", file=sys.stderr)
        return 130


def _check_place(pipeline: Pipeline) -> None:
    """Refuse to work on one project from within another: its code and data would be mixed up.

    Raises:
        ValueError: the current folder lies in another checkout than this program.
    """
    for folder in (Path.cwd(), *Path.cwd().parents):
        if (folder / "dvc.yaml").is_file() and (folder / "params.yaml").is_file():
            if folder.resolve() != pipeline.root.resolve():
                raise ValueError(
                    f"this program belongs to {pipeline.root}, and you are in the project {folder};"
                    f" there, use `python -m dagster_project.cli` or install it with `make install`"
                )
            return


def _database_errors() -> tuple[type[Exception], ...]:
    """What Dagster's and MLflow's stores raise; imported only when something was raised."""
    import sqlite3

    from sqlalchemy.exc import DatabaseError

    return (sqlite3.DatabaseError, DatabaseError)


def _parser(pipeline: Pipeline) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="vggheads", description=__doc__)
    parser.add_argument("-v", "--verbose", action="store_true", help="show what Dagster logs")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Command, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(command=command)
        return sub

    demo_parser = add("demo", demo, "run the whole pipeline: only what is not up to date")
    demo_parser.add_argument("--force", action="store_true", help="make everything again")
    make = add("materialize", materialize, "make one stage, check it, record it in dvc.lock")
    make.add_argument("stage", choices=list(pipeline.assets), metavar="STAGE")
    make.add_argument("--shard", help="only this shard, such as shard-00003")
    make.add_argument("--force", action="store_true", help="make again what is finished")
    check = add("check", recheck, "run the checks on the data on disk, make nothing")
    check.add_argument("stages", nargs="*", metavar="STAGE", help="all by default")
    add("status", status, "show which stages are up to date")
    trace = add("lineage", lineage, "show where an image comes from and what was decided about it")
    trace.add_argument("sample", metavar="SAMPLE", help="an image's id, such as image-00003-00012")
    add("sync", sync, "report to Dagster the data that dvc.lock records")
    config_parser = add("config", config, "show all values and where each comes from")
    config_parser.add_argument("stages", nargs="*", metavar="STAGE", help="all by default")
    config_parser.add_argument("--explain", action="store_true", help="say what each value means")
    profile_parser = add("profile", profile, "write params.yaml from conf/NAME.yaml")
    profile_parser.add_argument("name", metavar="NAME")
    profile_parser.add_argument("--force", action="store_true", help="overwrite edits")
    add("ui", ui, "serve Dagster and MLflow")
    doctor_parser = add("doctor", doctor, "find damaged records: dvc.lock, locks, databases")
    doctor_parser.add_argument("--repair", action="store_true", help="move what is damaged aside")
    bench_parser = add("bench", bench, "measure speed: all of benchmarks/, or those named")
    bench_parser.add_argument("names", nargs="*", metavar="NAME", help="such as flame_layer")
    inference.add_commands(lambda name, run, text: add(name, _plain(run), text))
    benchmarks.add_commands(lambda name, run, text: add(name, _plain(run), text))
    add_dataset_commands(add)
    return parser


def _plain(run: inference.Run) -> Command:
    """A command that knows no pipeline."""
    return lambda pipeline, options: run(options)


def demo(pipeline: Pipeline, options: argparse.Namespace) -> int:
    """Make every stage that is not up to date, then show the results."""
    from dagster_project.launch import launch, open_instance
    from dagster_project.schedule import Schedule

    started = time.monotonic()
    stale = list(pipeline.graph) if options.force else pipeline.stale()
    if stale:
        wanted = descendants(pipeline.graph, stale)
        stages = [stage for stage in pipeline.graph if stage in wanted]
        with open_instance(prepare(pipeline.root)) as instance:
            _print_plan(pipeline, stages)
            schedule = Schedule(
                pipeline,
                stages,
                lambda stage: launch(
                    pipeline, instance, [stage], force=options.force, verbose=options.verbose
                ),
                lambda stage: _materialize_command(pipeline.program, stage, options),
            )
            if not schedule.run():
                print("failed; what is finished is kept, and the same command goes on from there")
                return 1
    else:
        print("every stage is up to date: nothing to do")
    _print_results(pipeline)
    print(f"\n{time.monotonic() - started:.1f} s. `make ui` shows the assets and the runs.")
    return 0


def _materialize_command(
    program: Sequence[str], stage: str, options: argparse.Namespace
) -> list[str]:
    """This program again, to make one stage with the same options."""
    verbose = ["--verbose"] if options.verbose else []
    force = ["--force"] if options.force else []
    # The same interpreter on the project's own code; its folder is the current one.
    return [sys.executable, *program, *verbose, "materialize", stage, *force]


def materialize(pipeline: Pipeline, options: argparse.Namespace) -> int:
    """Make one stage."""
    from dagster_project.launch import launch, open_instance

    with open_instance(prepare(pipeline.root)) as instance:
        done = launch(
            pipeline,
            instance,
            [options.stage],
            shard=options.shard,
            force=options.force,
            verbose=options.verbose,
        )
    return 0 if done else 1


def recheck(pipeline: Pipeline, options: argparse.Namespace) -> int:
    """Run checks; print those that fail."""
    from dagster_project.checker import Checker
    from dagster_project.launch import open_instance

    failed = 0
    with open_instance(prepare(pipeline.root)) as instance:
        for evaluation, problem in Checker(pipeline).judge(options.stages):
            instance.report_runless_asset_event(evaluation)
            if not evaluation.passed:
                kind = "FAILS" if problem else "warns"
                stage = evaluation.asset_key.to_user_string()
                print(f"{stage} {kind}: {evaluation.description}")
            failed += bool(problem)
    print(f"{failed} critical checks fail" if failed else "all critical checks pass")
    return 1 if failed else 0


def status(pipeline: Pipeline, options: argparse.Namespace) -> int:
    """Print every stage's state."""
    locked, stale = pipeline.bridge.locked(), set(pipeline.stale())
    for stage in pipeline.graph:
        units = pipeline.units(stage)
        finished = len(units) - len(pipeline.unfinished(stage, units))
        state = "up to date" if stage not in stale else "changed" if stage in locked else "not made"
        shards = f"{finished}/{len(units)} shards" if pipeline.assets[stage].sharded else ""
        print(f"{stage:<20} {state:<11} {shards}".rstrip())
    print("\n".join(["", *edit_lines(pipeline)]))
    return 1 if stale else 0


def lineage(pipeline: Pipeline, options: argparse.Namespace) -> int:
    """Print everything recorded about one image, as JSON."""
    from ml.records.lineage import sample_lineage

    found = sample_lineage(pipeline.workspace(), options.sample)
    print(json.dumps(found, indent=2, default=str))
    return 0


def sync(pipeline: Pipeline, options: argparse.Namespace) -> int:
    """Report recorded data to Dagster."""
    from dagster_project.launch import open_instance
    from dagster_project.sync import DvcSync

    with open_instance(prepare(pipeline.root)) as instance:
        events = DvcSync(pipeline).unknown(instance)
        for event in events:
            instance.report_runless_asset_event(event)
    print(f"{len(events)} materializations reported")
    return 0


def ui(pipeline: Pipeline, options: argparse.Namespace) -> int:
    """Serve Dagster and MLflow."""
    from dagster_project.serve import serve

    return serve(pipeline.root, prepare(pipeline.root))


def doctor(pipeline: Pipeline, options: argparse.Namespace) -> int:
    """Print what is damaged, and repair it if asked to."""
    home = prepare(pipeline.root)
    findings = examine(pipeline, home)
    for finding in findings:
        print(f"{finding.path}: {finding.problem}\n  remedy: {finding.remedy}")
        if options.repair and finding.repair is not None:
            finding.repair()
            print("  done")
    if not findings:
        print("nothing is damaged")
    elif options.repair:
        findings = examine(pipeline, home)
        print(f"{len(findings)} findings are left" if findings else "nothing is damaged any more")
    else:
        print("`vggheads doctor --repair` does this")
    return 1 if findings else 0


def bench(pipeline: Pipeline, options: argparse.Namespace) -> int:
    """Run benchmarks one after the other, each in a process of its own."""
    folder = pipeline.root / "benchmarks"
    known = sorted(path.stem for path in folder.glob("*.py") if "def main()" in path.read_text())
    unknown = sorted(set(options.names) - set(known))
    if unknown or not known:
        raise ValueError(
            f"bench: no benchmark {', '.join(unknown) or folder}; there are {', '.join(known)}"
        )
    failed = 0
    for name in options.names or known:
        print(f"\n## {name}\n", flush=True)
        command = [sys.executable, "-m", f"benchmarks.{name}"]
        failed += subprocess.run(command, cwd=pipeline.root, check=False).returncode != 0
    return 1 if failed else 0


def _print_plan(pipeline: Pipeline, stages: Sequence[str]) -> None:
    run = pipeline.params.run
    total = len(pipeline.graph)
    print(
        f"profile {run.profile}: {run.num_shards} shards of {run.shard_size} images, "
        f"{run.workers} processes; {len(stages)} of {total} stages to make\n",
        flush=True,
    )


def _print_results(pipeline: Pipeline) -> None:
    """The report's first table, and where the report is."""
    report = pipeline.stage_dir("benchmark") / "report.md"
    if not report.exists():
        return
    lines = report.read_text().splitlines()
    first = next((i for i, line in enumerate(lines) if line.startswith("|")), len(lines))
    rows = []
    for line in lines[first:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    rows = [row for row in rows if not all(set(cell) <= set("-: ") for cell in row)]
    print()
    for row in rows:
        widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
        print("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip())
    for name in ("report.html", "report.md"):
        if (path := report.with_name(name)).exists():
            print(f"\nreport: {path}")
            break


_ON_RECORDS = frozenset({demo, materialize, recheck, status, sync, ui})
"""Commands that read or write what `check_quickly` looks at."""


if __name__ == "__main__":
    sys.exit(main())
