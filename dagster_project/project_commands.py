"""Commands on the project: run, check and inspect it."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence

from dagster_project.config_commands import edit_lines, edits_json
from dagster_project.doctor import Finding, examine
from dagster_project.env import prepare
from dagster_project.graph import ancestors, descendants
from dagster_project.pages import page_path
from dagster_project.pipeline import Pipeline
from ml.records.printing import print_json
from vggheads.cli import RUN_AGAIN


def demo(pipeline: Pipeline, options: argparse.Namespace) -> int:
    """Make every stage that is not up to date, then show the results."""
    from dagster_project.launch import launch, open_instance
    from dagster_project.preflight import ensure
    from dagster_project.schedule import Schedule

    started = time.monotonic()
    stale = list(pipeline.graph) if options.force else pipeline.stale()
    if stale:
        wanted = descendants(pipeline.graph, stale)
        stages = [stage for stage in pipeline.graph if stage in wanted]
        if problems := ensure(pipeline, stages):
            print(f"{len(problems)} problems of the preflight: nothing was started")
            return 1
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
                print(f"failed; {RUN_AGAIN}")
                return 1
    else:
        print("every stage is up to date: nothing to do")
    _print_results(pipeline)
    print(f"\n{time.monotonic() - started:.1f} s. `make ui` shows the assets and the runs.")
    return 0


def _materialize_command(
    program: Sequence[str], stage: str, options: argparse.Namespace
) -> list[str]:
    """Return the command that makes one stage in a new process with the same options."""
    verbose = ["--verbose"] if options.verbose else []
    force = ["--force"] if options.force else []
    # The same interpreter on the project's own code; its folder is the current one.
    return [sys.executable, *program, *verbose, "materialize", stage, *force]


def preflight(pipeline: Pipeline, options: argparse.Namespace) -> int:
    """Verify every model, file and source of the active profile, and run each model once."""
    from dagster_project.preflight import look, remember, table

    if options.table:
        print(table(pipeline.root), end="")
        return 0
    report = look(pipeline, options.stages)
    remember(pipeline, options.stages, report.problems)
    if options.json:
        print_json(report.as_dict())
        return 1 if report.problems else 0
    for tried in report.tried:
        print(f"{tried.stage}: {tried.place}: {tried.seconds:.3f} s on {tried.device}")
    if report.disk is not None:
        disk = report.disk
        needed = "" if disk.needed_bytes is None else f", {disk.needed_bytes / 1e9:.1f} GB needed"
        print(f"disk: {disk.images:,} images planned{needed}, {disk.free_bytes / 1e9:.1f} GB free")
    for problem in report.problems:
        print(problem)
    count = len(report.problems)
    print(f"{len(report.found)} models, files and sources are there, {count} problems")
    return 1 if report.problems else 0


def materialize(pipeline: Pipeline, options: argparse.Namespace) -> int:
    """Make one stage, with its dependencies if requested, in one run.

    Raises:
        ValueError: there is no such stage, or a shard is asked for of several stages.
    """
    pipeline.require_stages("materialize", [options.stage])
    from dagster_project.launch import launch, open_instance

    stages = [options.stage]
    if options.upstream:
        if options.shard:
            raise ValueError("materialize: --upstream makes whole stages; leave --shard out")
        needed = ancestors(pipeline.graph, stages)
        stale = needed if options.force else descendants(pipeline.graph, pipeline.stale()) & needed
        stages = [stage for stage in pipeline.graph if stage in stale]
        if not stages:
            print(f"{options.stage} and all that it depends on are up to date: nothing to do")
            return 0
        _print_plan(pipeline, stages)
    with open_instance(prepare(pipeline.root)) as instance:
        done = launch(
            pipeline,
            instance,
            stages,
            shard=options.shard,
            force=options.force,
            verbose=options.verbose,
        )
    return 0 if done else 1


def recheck(pipeline: Pipeline, options: argparse.Namespace) -> int:
    """Run checks; print those that fail."""
    pipeline.require_stages("check", options.stages)
    import dagster as dg

    from dagster_project.checker import Checker
    from dagster_project.launch import open_instance

    failed, judged = 0, dict.fromkeys(options.stages or pipeline.graph, 0)
    found: list[dict[str, object]] = []
    with open_instance(prepare(pipeline.root)) as instance:
        for evaluation, problem in Checker(pipeline).judge(options.stages):
            instance.report_runless_asset_event(evaluation)
            stage = evaluation.asset_key.to_user_string()
            if not evaluation.passed and not options.json:
                kind = "FAILS" if problem else "warns"
                print(f"{stage} {kind}: {evaluation.description}")
            found.append(
                {
                    "stage": stage,
                    "check": evaluation.check_name,
                    "passed": evaluation.passed,
                    "critical": evaluation.severity is dg.AssetCheckSeverity.ERROR,
                    "description": evaluation.description,
                }
            )
            failed += bool(problem)
            judged[stage] += 1
    unfinished = [stage for stage, number in judged.items() if not number]
    if options.json:
        print_json({"checks": found, "unfinished": unfinished})
        return 1 if failed or len(unfinished) == len(judged) else 0
    if unfinished:
        print(f"not judged, for nothing of them is finished: {', '.join(unfinished)}")
    if len(unfinished) == len(judged):
        return 1
    total = f"{sum(judged.values())} checks of {len(judged) - len(unfinished)} stages"
    print(f"{total}: {f'{failed} critical ones fail' if failed else 'all critical ones pass'}")
    return 1 if failed else 0


def status(pipeline: Pipeline, options: argparse.Namespace) -> int:
    """Print every stage's state."""
    locked, stale = pipeline.bridge.locked(), set(pipeline.stale())
    rows: list[dict[str, object]] = []
    for stage, node in pipeline.graph.items():
        units = pipeline.units(stage)
        finished = len(units) - len(pipeline.unfinished(stage, units))
        if stage not in stale:
            state = "up to date"
        elif stage not in locked:
            state = "not made"
        else:
            here = any((pipeline.root / out).exists() for out in node.outs)
            state = "changed" if here else "not here"
        rows.append({"stage": stage, "state": state, "finished": finished, "units": len(units)})
    if options.json:
        print_json({**edits_json(pipeline), "stages": rows})
        return 1 if stale else 0
    for row in rows:
        sharded = pipeline.assets[str(row["stage"])].sharded
        shards = f"{row['finished']}/{row['units']} shards" if sharded else ""
        print(f"{row['stage']:<20} {row['state']:<11} {shards}".rstrip())
    if any(row["state"] == "not here" for row in rows):
        print("\nnot here: recorded in dvc.lock without files; `dvc pull` fetches them")
    print("\n".join(["", *edit_lines(pipeline)]))
    return 1 if stale else 0


def lineage(pipeline: Pipeline, options: argparse.Namespace) -> int:
    """Print everything recorded about one image, as JSON."""
    from ml.records.lineage import sample_lineage

    found = sample_lineage(pipeline.workspace(), options.sample)
    print_json(found)
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


def compare(pipeline: Pipeline, options: argparse.Namespace) -> int:
    """Print the differences between two trainings."""
    from dagster_project.comparing import compare_runs

    found = compare_runs(pipeline.root / "mlruns", options.first, options.second)
    if options.json:
        print_json(found.as_json())
    else:
        print("\n".join(found.lines()))
    return 0


def ui(pipeline: Pipeline, options: argparse.Namespace) -> int:
    """Serve Dagster, MLflow and the reports."""
    from dagster_project.serve import Ports, serve

    ports = Ports(options.port, options.mlflow_port, options.reports_port)
    return serve(pipeline.root, prepare(pipeline.root), ports)


def doctor(pipeline: Pipeline, options: argparse.Namespace) -> int:
    """Print damaged records, and repair them if requested."""
    home = prepare(pipeline.root)
    findings = examine(pipeline, home)
    for finding in findings:
        if not options.json:
            print(f"{finding.path}: {finding.problem}\n  remedy: {finding.remedy}")
        if options.repair and finding.repair is not None:
            finding.repair()
            if not options.json:
                print("  done")
    left = examine(pipeline, home) if findings and options.repair else findings
    if options.json:
        print_json({"findings": _plain(findings), "left": _plain(left)})
    elif not findings:
        print("nothing is damaged")
    elif options.repair:
        print(f"{len(left)} findings are left" if left else "nothing is damaged any more")
    else:
        print("`vggheads doctor --repair` does this")
    return 1 if left else 0


def _plain(findings: Sequence[Finding]) -> list[dict[str, str]]:
    return [{"path": str(f.path), "problem": f.problem, "remedy": f.remedy} for f in findings]


def bench(pipeline: Pipeline, options: argparse.Namespace) -> int:
    """Run benchmarks one by one, each in a separate process."""
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
    """Print the report's first table, and where the report is."""
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
    pages = (page_path(pipeline, "benchmark"), report.with_name("report.html"), report)
    print(f"\nreport: {next(path for path in pages if path.exists())}")
    if (tables := pipeline.stage_dir("benchmark_scores") / "tables.html").exists():
        print(f"the paper's tables, and every benchmark on generated sets: {tables}")
