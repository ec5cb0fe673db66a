"""Rehearse the paper's size: 1,700 shards of 1,000 images, 2.2 M heads of 413 numbers.

    python -m tests.scale_rehearsal build/scale --shards 100 [--images 1000] [--keep] [--keep-all]

Tables are real and images tiny (`tests/scale_stages.py`): poses, captions, images and annotations
are doubles, the filtered dataset, statistics, checks, records and the training are the project's
own, made by its own command line with one worker. Prints, as Markdown, seconds a shard of each
stage, the largest resident memory of any process, and what orchestration takes; then makes nothing
again, changes one shard, and trains for 200 steps.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import shutil
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import yaml

from tests.rehearsal import ROOT, environment, peak_memory, say

STEPS = 200
CLI = ("-m", "tests.scale_rehearsal", "cli")
CHANGED = "shard-00003"
#: What a run may take, as the project promises.
MAX_GB = 4.0
_STAGE_LINE = re.compile(r"\[ ?\d+/\d+\] (\w+) .* ([\d.]+) s")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the rehearsal, or a part of it in a process of its own; return the exit status."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if given[:1] == ["cli"]:
        return command_line(given[1:])
    if given[:1] == ["train"]:
        return train(Path(given[1]))
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shards", type=int, default=100)
    parser.add_argument("--images", type=int, default=1000, help="images in a shard")
    parser.add_argument("--keep-all", action="store_true", help="keep all images unjudged")
    parser.add_argument("--keep", action="store_true", help="go on with what is in the folder")
    options = parser.parse_args(given)
    folder = options.folder.resolve()
    if not options.keep:
        shutil.rmtree(folder, ignore_errors=True)
        make_project(folder, options.shards, options.images)
        if options.keep_all:
            from tests.scale_stages import KEEP_ALL

            (folder / KEEP_ALL).touch()
    heaviest = run_chain(folder, options.shards)
    heaviest = max(heaviest, make_nothing(folder))
    heaviest = max(heaviest, change_one(folder))
    heaviest = max(heaviest, train_a_little(folder))
    say(f"largest process of all: {heaviest:.2f} GB, limit {MAX_GB:g}")
    return 0 if heaviest <= MAX_GB else 1


def make_project(folder: Path, shards: int, images: int) -> None:
    """Write the project: this checkout's code, the doubles' stages, values and bounds."""
    folder.mkdir(parents=True)
    for name in ("assets", "ops", "ml", "dagster_project", "vggheads", "tests"):
        (folder / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "conf", folder / "conf")
    bounds = {
        "extends": "base",
        "min_rows": 10**9,  # nothing typical is expected of random numbers
    }
    (folder / "conf" / "checks" / "scale.yaml").write_text(yaml.safe_dump(bounds))
    run = {"profile": "scale", "seed": 1, "num_shards": shards, "shard_size": images}
    values = {
        "run": {**run, "workers": 1, "threads": 1},
        "head_model": {},
        **{name: {} for name in ("poses", "captions", "images", "annotations")},
        "filtered_dataset": {"rules": {"confirm_threshold": 0.5}},
    }
    (folder / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    below = {
        "head_model": [],
        "poses": [],
        "captions": ["poses"],
        "images": ["captions"],
        "annotations": ["images"],
        "filtered_dataset": ["images", "captions", "annotations"],
    }
    stages = {
        name: {
            "cmd": f"python {' '.join(CLI)} materialize {name}",
            "deps": [f"data/{dep}" for dep in deps],
            "params": [name, "run.seed"] + ["run.num_shards", "run.shard_size"] * (name == "poses"),
            "outs": [
                {f"data/{out}": {"persist": True}}
                for out in ([name, "truth"] if name == "images" else [name])
            ],
        }
        for name, deps in below.items()
    }
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}, sort_keys=False))
    (folder / ".gitignore").write_text("/data/\n/.dagster/\n/reports/\n/work.log\n")
    (folder / ".dvcignore").write_text(".tmp-*\n")
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    dvc = [sys.executable, "-m", "dvc"]
    subprocess.run([*dvc, "init", "-q"], cwd=folder, check=True)
    # One copy of everything is enough here.
    links = [*dvc, "config", "cache.type", "hardlink"]
    subprocess.run(links, cwd=folder, check=True)


def run_chain(folder: Path, shards: int) -> float:
    """Make everything; return the largest process, GB."""
    say(f"{shards} shards: everything")
    ran = watched(folder, *CLI, "demo")
    took = {name: float(s) for name, s in _STAGE_LINE.findall(ran.output)}
    work = read_work(folder)
    lines = [
        "| stage | s | ms a shard | of a processor: shards | the whole | checks |",
        "|---|---|---|---|---|---|",
    ]
    for name, wall in took.items():
        reduced = work[name] if name in ("filtered_dataset", "head_model") else Work()
        own = work["judge_shard" if name == "filtered_dataset" else f"make_{name}"]
        cpu = (own.cpu, reduced.cpu, work[f"check:{name}"].cpu)
        parts = (1000 * seconds / shards for seconds in (wall, *cpu))
        lines.append(f"| {name} | {wall:.1f} | {' | '.join(f'{part:.1f}' for part in parts)} |")
    rest = Work(ran.seconds, ran.cpu)
    for done in work.values():
        rest = Work(rest.seconds - done.seconds, rest.cpu - done.cpu)
    lines.append(
        f"\n{ran}; a shard: {1000 * ran.seconds / shards:.0f} ms, {1000 * ran.cpu / shards:.0f} of "
        f"a processor. All but stages' work and checks: {rest.seconds:.0f} s, "
        f"{rest.seconds / ran.seconds:.1%}; of a processor {rest.cpu:.0f} s, "
        f"{rest.cpu / ran.cpu:.1%}, {1000 * rest.cpu / shards / len(took):.0f} ms a shard and stage"
    )
    lines.append(drift(folder))
    say("\n".join(lines))
    return ran.peak_gb


def drift(folder: Path) -> str:
    """Compare processor time of the first and the last tenth of each stage's shards."""
    times: dict[str, list[float]] = defaultdict(list)
    for line in (folder / "work.log").read_text().splitlines():
        name, _, cpu = line.split()
        times[name].append(float(cpu))
    parts = []
    for name, values in times.items():
        if (tenth := len(values) // 10) >= 2:
            first, last = (1000 * sum(v) / tenth for v in (values[:tenth], values[-tenth:]))
            parts.append(f"{name} {first:.0f} and {last:.0f}")
    return "CPU ms of a shard, first and last tenth: " + "; ".join(parts)


def make_nothing(folder: Path) -> float:
    """Time the status and a run with nothing to do; return the largest process, GB."""
    heaviest = 0.0
    for command in ("status", "demo"):
        ran = watched(folder, *CLI, command)
        heaviest = max(heaviest, ran.peak_gb)
        say(f"nothing to do: {command} {ran}")
    return heaviest


def change_one(folder: Path) -> float:
    """Change one shard of the first stage; expect one shard of each later stage to be remade."""
    (folder / "work.log").unlink()
    (folder / "changed").write_text(CHANGED)
    one = watched(folder, *CLI, "materialize", "poses", "--shard", CHANGED, "--force")
    rest = watched(folder, *CLI, "demo")
    made = Counter(line.split()[0] for line in (folder / "work.log").read_text().splitlines())
    made = Counter({name: count for name, count in made.items() if not name.startswith("check:")})
    expected = ("make_poses", "make_captions", "make_images", "make_annotations", "judge_shard")
    if made != Counter([*expected, "filtered_dataset"]):
        raise SystemExit(f"scale rehearsal: one shard changed, made were {dict(made)}")
    say(f"one shard changed: one made in each of {len(expected)} places; {one}, then {rest}")
    return max(one.peak_gb, rest.peak_gb)


def train_a_little(folder: Path) -> float:
    """Train for the first steps; return the largest process, GB."""
    ran = watched(folder, "-m", "tests.scale_rehearsal", "train", str(folder))
    say(f"{ran.output.strip().splitlines()[-1]}; {ran}")
    return ran.peak_gb


@dataclass(frozen=True)
class Ran:
    """What a command said and cost.

    Attributes:
        output: what it wrote.
        seconds: wall clock, s.
        cpu: processor time of all its processes, s.
        peak_gb: the largest resident memory of any of its processes, GB.
    """

    output: str
    seconds: float
    cpu: float
    peak_gb: float

    def __str__(self) -> str:
        """Return the figures in words."""
        load = os.getloadavg()[0]
        return (
            f"{self.seconds:.1f} s ({self.cpu:.1f} s of a processor, load {load:.0f}), "
            f"{self.peak_gb:.2f} GB"
        )


def watched(folder: Path, *arguments: str) -> Ran:
    """Run Python in the project and measure what it costs."""
    started, before = time.monotonic(), _children_cpu()
    with peak_memory() as peak_gb:
        process = subprocess.run(
            [sys.executable, *arguments],
            cwd=folder,
            env={**environment(folder), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            text=True,
        )
    seconds = time.monotonic() - started
    sys.stdout.write(process.stdout)
    if process.returncode != 0:
        raise SystemExit(f"scale rehearsal: {' '.join(arguments)} failed")
    return Ran(process.stdout, seconds, _children_cpu() - before, peak_gb())


def _children_cpu() -> float:
    """Processor time of the processes started here that have ended, and of theirs, s."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class Work(NamedTuple):
    """Seconds of wall clock and of a processor."""

    seconds: float = 0.0
    cpu: float = 0.0


def read_work(folder: Path) -> dict[str, Work]:
    """Return the work of each function, and checks of each stage, since the log was started."""
    work: dict[str, Work] = defaultdict(Work)
    for line in (folder / "work.log").read_text().splitlines():
        name, seconds, cpu = line.split()
        work[name] = Work(work[name].seconds + float(seconds), work[name].cpu + float(cpu))
    return work


def command_line(arguments: Sequence[str]) -> int:
    """Run the project's command line, with the time of checks noted."""
    from dagster_project import runner
    from dagster_project.cli import main as cli
    from tests.scale_stages import scale_pipeline, timed

    check = runner.check_stage

    def timed_check(pipeline, stage, *rest, **options):  # type: ignore[no-untyped-def]
        with timed(pipeline.root, f"check:{stage.name}"):
            return check(pipeline, stage, *rest, **options)

    runner.check_stage = timed_check
    return cli(arguments, scale_pipeline(Path.cwd()))


def train(folder: Path) -> int:
    """Train for `STEPS` steps on the project's dataset, and stop."""
    import lightning.pytorch as pl

    from ml.stages import trained_model
    from ml.training.tracking import NullTracker
    from tests.scale_stages import SIDE, scale_pipeline

    class Enough(Exception):
        """Raised when the wanted number of steps is made."""

    class Stop(pl.Callback):
        """Notes the first step, and ends after the last wanted."""

        def __init__(self) -> None:
            self.first = self.cpu = 0.0

        def on_train_batch_end(self, trainer, *_):  # type: ignore[no-untyped-def]
            if not self.first:
                self.first, self.cpu = time.monotonic() - started, time.process_time() - began
            if trainer.global_step >= STEPS:
                raise Enough

    stop = Stop()
    original: Callable[..., object] = trained_model.fit

    def short(*given, **named):  # type: ignore[no-untyped-def]
        *others, callbacks = given
        return original(*others, [*callbacks, stop], **named)

    trained_model.fit = short
    config = trained_model.TrainedModelConfig.model_validate(
        {"size": "nano", "loader": {"image_size": SIDE, "cache_mb": 256}, "fit": {"epochs": 100}}
    )
    ws = scale_pipeline(folder).workspace()
    started, began = time.monotonic(), time.process_time()
    try:
        trained_model.run(ws, config, NullTracker())
    except Enough:
        rate = (STEPS - 1) / (time.monotonic() - started - stop.first)
        say(
            f"first step after {stop.first:.1f} s ({stop.cpu:.1f} s of a processor), "
            f"then {rate:.1f} steps a second"
        )
        return 0
    raise SystemExit(f"scale rehearsal: the training ended before {STEPS} steps")


if __name__ == "__main__":
    sys.exit(main())
