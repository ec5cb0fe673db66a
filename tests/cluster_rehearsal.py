"""Rehearse a cluster on one machine: two Ray nodes make the bytes of one process, also when killed.

    python -m tests.cluster_rehearsal build/cluster [--chain smoke|toy] [--kills 5]

Starts two Ray nodes of one CPU each, runs the chain on them and compares every file of the data
with a local run of one worker. Then runs it again and again, each time kills a node at a random
moment, starts another one in its place, and compares again.
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
from pathlib import Path

from ray.cluster_utils import Cluster

from tests import chain_rehearsal
from tests.chain_rehearsal import compare, digests, expect
from tests.rehearsal import ROOT, run, say, start

TOY = ROOT / "tests" / "dagster_project" / "toy"
TOY_SHARDS = 12
TOY_SECONDS = 1.0


def main(arguments: list[str] | None = None) -> int:
    """Run the rehearsal; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--chain", choices=CHAINS, default="smoke")
    parser.add_argument("--kills", type=int, default=5)
    options = parser.parse_args(arguments)
    folder, (make, cli) = options.folder.resolve(), CHAINS[options.chain]
    say(f"the reference: {options.chain} chain, local, one worker")
    reference = folder / "reference"
    make(reference, "workers: 1")
    reference_seconds = timed(lambda: run(reference, *cli, "demo"))
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    nodes = [cluster.add_node(num_cpus=1)]
    engine = f"workers: 2\n  engine: ray\n  ray: {{address: '{cluster.address}'}}"
    try:
        other = folder / "cluster"
        make(other, engine)
        seconds = timed(lambda: run(other, *cli, "demo"))
        compare(digests(reference), digests(other))
        say(f"two nodes: same bytes; {seconds:.0f} s, local {reference_seconds:.0f} s")
        chance = random.Random(20240718)
        for number in range(options.kills):
            killed = folder / f"killed-{number}"
            make(killed, engine)
            moment = chance.uniform(0.1, 0.9) * seconds
            output = run_and_kill_a_node(killed, cli, cluster, nodes, moment)
            compare(digests(reference), digests(killed))
            lost = re.findall(r"shard-\d+ starts again", output)
            say(f"node killed after {moment:.0f} s: same bytes; went back: {lost or 'none'}")
    finally:
        cluster.shutdown()
    say("all as it should be")
    return 0


def run_and_kill_a_node(
    project: Path, cli: tuple[str, ...], cluster: Cluster, nodes: list, moment: float
) -> str:
    """Run the chain and kill a node meanwhile; returns what the run said."""
    process = start(project, *cli, "demo")
    try:
        output, _ = process.communicate(timeout=moment)
    except subprocess.TimeoutExpired:
        cluster.remove_node(nodes.pop(), allow_graceful=False)
        nodes.append(cluster.add_node(num_cpus=1))
        output, _ = process.communicate()
    # What Ray says of a killed node is a page of its own state.
    shown = [line for line in output.splitlines() if "state-dump" not in line]
    sys.stdout.write("\n".join(shown) + "\n")
    expect(process.returncode == 0, "the run failed")
    return output


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


def timed(work: Callable[[], None]) -> float:
    """Seconds that something takes."""
    started = time.monotonic()
    work()
    return time.monotonic() - started


CHAINS: dict[str, tuple[Callable[[Path, str], None], tuple[str, ...]]] = {
    "smoke": (smoke_project, chain_rehearsal.CLI),
    "toy": (toy_project, ("toy_cli.py",)),
}


if __name__ == "__main__":
    sys.exit(main())
