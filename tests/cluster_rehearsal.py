"""Rehearse a cluster on one machine: two Ray nodes make the bytes of one process, also when killed.

    python -m tests.cluster_rehearsal build/cluster [--chain smoke|toy] [--kills 5] [--head]
                                      [--driver] [--disk] [--reference data]

Starts two Ray nodes of one CPU each, runs the chain on them and compares every file of the data
with a local run of one worker, or with a finished one. Then makes all sharded stages of the chain
again and again, each time kills a node at a random moment, starts another one in its place, and
compares again. With `--driver` the run itself is killed and its actors have to end; with `--disk`
the disk is full in the middle of a sharded stage; with `--head` the whole cluster goes. Each time
the same command, on a new cluster if need be, has to end it with the same bytes.
"""

from __future__ import annotations

import argparse
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from ray.cluster_utils import Cluster

from dagster_project.stages import project as this_project
from tests import chain_rehearsal
from tests.chain_rehearsal import compare, digests, expect, fork
from tests.rehearsal import ROOT, run, say, start

TOY = ROOT / "tests" / "dagster_project" / "toy"
TOY_SHARDS = 12
TOY_SECONDS = 1.0
#: A run whose cluster is gone must end by itself within this number of seconds.
HEAD_PATIENCE_S = 300.0
#: Actors whose driver is gone have to end within so many seconds.
DRIVER_PATIENCE_S = 60.0
SMALL_DISK = "32k"


@dataclass(frozen=True)
class Chain:
    """A chain to run.

    Attributes:
        make: writes its project, with lines for section `run` of params.yaml.
        cli: arguments of the interpreter that start its command line.
        sharded: folders in data/ of its sharded stages.
    """

    make: Callable[[Path, str], None]
    cli: tuple[str, ...]
    sharded: tuple[str, ...]

    def demo(self, folder: Path) -> float:
        """Make all that is missing; return the seconds that it took."""
        started = time.monotonic()
        run(folder, *self.cli, "demo")
        return time.monotonic() - started

    def unmade(self, finished: Path, folder: Path) -> Path:
        """A copy of a finished project in which all sharded stages are to be made again."""
        fork(finished, folder)
        for name in self.sharded:
            shutil.rmtree(folder / "data" / name)
        return folder


class TwoNodes:
    """A cluster of two nodes of one CPU each on this machine."""

    def __init__(self) -> None:
        """Start it."""
        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
        self._other = self.cluster.add_node(num_cpus=1)

    @property
    def engine(self) -> str:
        """What params.yaml says of it."""
        return f"workers: 2\n  engine: ray\n  ray: {{address: '{self.cluster.address}'}}"

    def kill_node(self) -> None:
        """Kill the node that is not the head, and start another one in its place."""
        self.cluster.remove_node(self._other, allow_graceful=False)
        self._other = self.cluster.add_node(num_cpus=1)

    def kill(self) -> None:
        """Kill both nodes, the head first."""
        self.cluster.remove_node(self.cluster.head_node, allow_graceful=False)
        self.cluster.remove_node(self._other, allow_graceful=False)


def main(arguments: list[str] | None = None) -> int:
    """Run the rehearsal; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--chain", choices=CHAINS, default="smoke")
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--head", action="store_true", help="lose the whole cluster, too")
    parser.add_argument("--driver", action="store_true", help="kill the run, too")
    parser.add_argument("--disk", action="store_true", help="run on a full disk, too; needs root")
    parser.add_argument("--reference", type=Path, help="data/ of a finished local run of this code")
    options = parser.parse_args(arguments)
    folder, chain = options.folder.resolve(), CHAINS[options.chain]
    wanted = reference(chain, folder, options.reference)
    nodes = TwoNodes()
    try:
        finished = folder / "cluster"
        chain.make(finished, nodes.engine)
        seconds = chain.demo(finished)
        compare(wanted, digests(finished))
        say(f"two nodes: same bytes; {seconds:.0f} s")
        seconds = chain.demo(chain.unmade(finished, folder / "again"))
        compare(wanted, digests(folder / "again"))
        say(f"two nodes, sharded stages again: same bytes; {seconds:.0f} s")
        chance = random.Random(20240718)
        for number in range(options.kills):
            killed = chain.unmade(finished, folder / f"killed-{number}")
            moment = chance.uniform(0.1, 0.9) * seconds
            status, output = run_and_kill(killed, chain, nodes.kill_node, moment)
            expect(status == 0, "the run failed")
            compare(wanted, digests(killed))
            lost = re.findall(r"\S+-\d+ starts again", output)
            say(f"node killed after {moment:.0f} s: same bytes; went back: {lost or 'none'}")
            shutil.rmtree(killed)
        if options.driver:
            lose_the_driver(chain, chain.unmade(finished, folder / "driverless"), seconds / 2)
            compare(wanted, digests(folder / "driverless"))
        if options.disk:
            fill_the_disk(chain, chain.unmade(finished, folder / "full"))
            compare(wanted, digests(folder / "full"))
        if options.head:
            lose_the_head(chain, chain.unmade(finished, folder / "headless"), nodes, seconds / 2)
            compare(wanted, digests(folder / "headless"))
    finally:
        nodes.cluster.shutdown()
    say("all as it should be")
    return 0


def reference(chain: Chain, folder: Path, data: Path | None) -> dict[str, str]:
    """Return digests of a local run: a finished one, or one made now with one worker."""
    if data is not None:
        return digests(data.resolve().parent)
    say("the reference: local, one worker")
    chain.make(folder / "reference", "workers: 1")
    seconds = chain.demo(folder / "reference")
    say(f"local, one worker: {seconds:.0f} s")
    return digests(folder / "reference")


def run_and_kill(
    project: Path, chain: Chain, kill: Callable[[], None], moment: float
) -> tuple[int, str]:
    """Run the chain and kill something meanwhile; return exit status and what the run said."""
    process = start(project, *chain.cli, "demo")
    try:
        output, _ = process.communicate(timeout=moment)
    except subprocess.TimeoutExpired:
        kill()
        output, _ = process.communicate(timeout=None)
    # What Ray says of a killed node is a page of its own state.
    shown = [line for line in output.splitlines() if "state-dump" not in line]
    sys.stdout.write("\n".join(shown) + "\n")
    return process.returncode, output


def lose_the_driver(chain: Chain, project: Path, moment: float) -> None:
    """Kill the process that hands out shards; its actors end, and the same command goes on."""
    process = start(project, *chain.cli, "demo")
    try:
        process.communicate(timeout=moment)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
    killed = time.monotonic()
    while actors := shard_actors():
        seconds = time.monotonic() - killed
        expect(seconds < DRIVER_PATIENCE_S, f"{len(actors)} actors live after {seconds:.0f} s")
        time.sleep(0.5)
    gone = time.monotonic() - killed
    kept = len(units(project))
    seconds = chain.demo(project)
    say(
        f"driver killed after {moment:.0f} s: its actors were gone {gone:.0f} s later, {kept} units"
        f" kept; the same command ended it in {seconds:.0f} s"
    )


def shard_actors() -> list[int]:
    """Return the processes of the clusters started here that make shards."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if process.name().startswith("ray::Shard"):
                found.append(process.pid)
    return found


def fill_the_disk(chain: Chain, project: Path) -> None:
    """Make shards on a disk with room for a few; with more room the same command goes on."""
    folder = project / "data" / chain.sharded[0]
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={SMALL_DISK}", "none", str(folder)]
    subprocess.run(["mount", *options], check=True)
    try:
        process = start(project, *chain.cli, "demo")
        output, _ = process.communicate()
        kept = len(units(project))
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
    said = [line for line in output.splitlines() if "No space left" in line]
    expect(process.returncode != 0 and bool(said), f"a full disk was not refused: {output[-2000:]}")
    expect("Traceback" not in output, f"a full disk gives a traceback: {output[-2000:]}")
    seconds = chain.demo(project)
    say(f"disk full with {kept} units made: {said[-1].strip()}; then made in {seconds:.0f} s")


def units(project: Path) -> list[Path]:
    """Return the markers of a project's finished shards."""
    return list((project / "data").rglob("*-[0-9][0-9][0-9][0-9][0-9].json"))


def lose_the_head(chain: Chain, project: Path, nodes: TwoNodes, moment: float) -> None:
    """Lose the whole cluster in the middle of a run; on another one the same command resumes."""
    before = nodes.engine
    started = time.monotonic()
    status, _ = run_and_kill(project, chain, nodes.kill, moment)
    seconds = time.monotonic() - started - moment
    expect(status != 0, "a run without a cluster succeeded")
    expect(seconds < HEAD_PATIENCE_S, f"the run went on for {seconds:.0f} s without a cluster")
    kept = len(units(project))
    say(
        f"head killed after {moment:.0f} s: the run failed {seconds:.0f} s later, {kept} units kept"
    )
    nodes.cluster.shutdown()
    other = TwoNodes()
    try:
        set_workers(project, before, other.engine)
        seconds = chain.demo(project)
    finally:
        other.cluster.shutdown()
    say(f"another cluster ended it in {seconds:.0f} s")


def smoke_project(folder: Path, workers: str) -> None:
    """The smoke profile in a project of its own."""
    shutil.rmtree(folder, ignore_errors=True)
    chain_rehearsal.project(folder)
    set_workers(folder, "workers: 2", workers)


def toy_project(folder: Path, workers: str) -> None:
    """The toy pipeline of the tests, with more and slower shards."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(TOY, folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "stages.yaml").rename(folder / "dvc.yaml")
    (folder / "code").mkdir()
    (folder / "code" / "numbers.py").write_text("# stands for the library's code\n")
    (folder / ".dvcignore").write_text(".tmp-*\n")
    for name in ("assets", "ops", "ml", "dagster_project", "vggheads", "tests"):
        (folder / name).symlink_to(ROOT / name)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    run(folder, "-m", "dvc", "init", "-q")
    params = folder / "params.yaml"
    run_section = (
        f"run:\n  profile: toy\n  seed: 1\n  num_shards: {TOY_SHARDS}\n  shard_size: 4\n"
        f"  {workers}\n  threads: 1\n"
    )
    rest = params.read_text().splitlines()[1:]
    text = run_section + "\n".join(rest).replace("seconds: 0.0", f"seconds: {TOY_SECONDS}") + "\n"
    params.write_text(text)


def set_workers(folder: Path, old: str, new: str) -> None:
    """Change a line of params.yaml's section `run`."""
    params = folder / "params.yaml"
    expect(old in params.read_text(), f"params.yaml has no {old!r}")
    params.write_text(params.read_text().replace(old, new, 1))


#: Folders of this project's sharded stages.
SHARDED = tuple(
    Path(out).name
    for stage, node in this_project().graph.items()
    if this_project().assets[stage].sharded
    for out in node.outs
)
CHAINS = {
    "smoke": Chain(smoke_project, chain_rehearsal.CLI, SHARDED),
    "toy": Chain(toy_project, ("toy_cli.py",), ("numbers", "squares")),
}


if __name__ == "__main__":
    sys.exit(main())
