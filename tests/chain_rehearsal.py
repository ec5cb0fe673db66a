"""Rehearse faults that must never damage the data of a whole chain.

    python -m tests.chain_rehearsal build/chain [sabotage] [damage]

Makes projects of its own in the given folder (copies of this checkout's code) and runs the smoke
profile in them, through the command line that users type. The finished one, `reference`, is what
`tests.chain_faults` compares with.

* sabotage: a row of the truth is falsified; its check names shard and row, nothing after it runs;
* damage: a truncated and an empty image and a torn tar are named, and nothing after them runs; with
  their shards made again, everything has the bytes it had.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from tests.rehearsal import copy_project, run, say, start

PROFILE = "smoke"
CLI = ("-m", "dagster_project.cli")


def main(arguments: list[str] | None = None) -> int:
    """Run the parts asked for, all if none is; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS])
    options = parser.parse_args(arguments)
    folder = options.folder.resolve()
    reference = folder / "reference"
    say(f"the reference: profile {PROFILE}, two workers")
    project(reference)
    run(reference, *CLI, "demo")
    for part in options.parts or PARTS:
        say(part)
        PARTS[part](folder, reference)
    say("all as it should be")
    return 0


def project(folder: Path, workers: int = 2) -> None:
    """A project with the smoke profile."""
    copy_project(folder)
    run(folder, *CLI, "profile", PROFILE)
    params = folder / "params.yaml"
    params.write_text(params.read_text().replace("workers: 2", f"workers: {workers}", 1))


def sabotage(folder: Path, reference: Path) -> None:
    """A falsified shard fails its check by name; nothing after it runs."""
    other = fork(reference, folder / "sabotaged")
    path = other / "data" / "truth" / "shard-00001.parquet"
    frame = pd.read_parquet(path)
    frame.at[2, "bbox_xywh"] = np.array([1, 2, -30, 40], np.float32)
    frame.to_parquet(path)
    vouch(other, "images", "shard-00001", path)
    before = digests(other)
    status, output = finish(start(other, *CLI, "demo"))
    expect(status != 0, "the run succeeded")
    for words in ("shard-00001", "row 2"):
        expect(words in output, f"nothing names {words}")
    expect(before == digests(other), "something was made again")


def damage(folder: Path, reference: Path) -> None:
    """Damaged images stop the chain by name; their shards made again give the same bytes."""
    other = fork(reference, folder / "damaged")
    whole = digests(other)
    images = other / "data" / "images"
    changes = {3: lambda data: data[: len(data) // 2], 5: lambda data: b""}
    tar = images / "shard-00001.tar"
    names = rewrite_tar(tar, changes)
    vouch(other, "images", "shard-00001", tar)
    torn = images / "shard-00002.tar"
    torn.write_bytes(torn.read_bytes()[: torn.stat().st_size * 9 // 10])
    vouch(other, "images", "shard-00002", torn)
    before = digests(other)
    status, output = finish(start(other, *CLI, "demo"))
    expect(status != 0, "the run succeeded")
    for words in (*(f"{name} cannot be read" for name in names), "shard-00002.tar/"):
        expect(words in output, f"nothing names {words}")
    expect("no table" not in output, "a damaged image takes the statistics of the others along")
    expect(before == digests(other), "something was made again")
    # The stage is checked whole: the first is made again and the other still named.
    for shard, good in (("shard-00001", False), ("shard-00002", True)):
        repair = (*CLI, "materialize", "images", "--force", "--shard", shard)
        status, _ = finish(start(other, *repair))
        expect((status == 0) == good, f"the repair of {shard} ended with {status}")
    status, _ = finish(start(other, *CLI, "demo"))
    expect(status == 0, "the run failed")
    compare(whole, digests(other))


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Wait for a command and show what it says; returns its exit status and its output."""
    output, _ = process.communicate()
    sys.stdout.write(output)
    return process.returncode, output


def vouch(folder: Path, stage: str, unit: str, path: Path) -> None:
    """Let the pipeline take a falsified file for the one it wrote: it would make it again."""
    marker = folder / "data" / stage / f"{unit}.json"
    content = json.loads(marker.read_text())
    name = str(path.relative_to(folder))
    expect(name in content["files"], f"{marker} does not list {name}")
    content["files"][name] = hashlib.md5(path.read_bytes()).hexdigest()
    marker.write_text(json.dumps(content))


PARTS: dict[str, Callable[[Path, Path], None]] = {
    "sabotage": sabotage,
    "damage": damage,
}


def fork(reference: Path, folder: Path) -> Path:
    """A copy of a finished project."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(reference, folder, symlinks=True)
    return folder


def rewrite_tar(path: Path, changes: dict[int, Callable[[bytes], bytes]]) -> list[str]:
    """Change the bytes of some images, by their number; returns their sample ids."""
    names = []
    out = io.BytesIO()
    with tarfile.open(path) as old, tarfile.open(fileobj=out, mode="w") as new:
        members = old.getmembers()
        members_jpg = [member.name for member in members if member.name.endswith(".jpg")]
        wanted = {members_jpg[number]: change for number, change in changes.items()}
        for member in members:
            stream = old.extractfile(member)
            assert stream is not None
            data = stream.read()
            if member.name in wanted:
                data = wanted[member.name](data)
                member.size = len(data)
                names.append(member.name.split(".")[0])
            new.addfile(member, io.BytesIO(data))
    path.write_bytes(out.getvalue())
    return names


def digests(folder: Path) -> dict[str, str]:
    """Digest of every file that stages made, but for the markers, which tell times."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for stage in sorted((folder / "data").iterdir())
        for path in sorted(stage.rglob("*"))
        if path.is_file() and not is_marker(path)
    }


def is_marker(path: Path) -> bool:
    """Whether a file only tells how a unit was made."""
    return path.suffix == ".json" and (path.stem == "stage" or path.stem[-5:].isdigit())


def compare(first: dict[str, str], second: dict[str, str]) -> None:
    """Fail unless both have the same files with the same bytes."""
    different = sorted(
        name for name in first.keys() | second.keys() if first.get(name) != second.get(name)
    )
    expect(not different, f"{len(different)} of {len(first)} files differ: {different[:8]}")
    say(f"{len(first)} files, all of the same bytes")


def expect(holds: bool, problem: str) -> None:
    """Fail with a sentence."""
    if not holds:
        raise SystemExit(f"chain rehearsal: {problem}")


if __name__ == "__main__":
    sys.exit(main())
