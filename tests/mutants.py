"""Mutation testing: how many changes of the code do the tests notice?

    python -m tests.mutants [--only NAME] [--sample N] [--seed S] [--at-least F]

Mutants are made and run by mutmut, each group of files in a copy of the project under
build/mutants, with the tests that belong to it. Without `--sample` all mutants run, which takes
hours; the sample is drawn by the seed. Printed are the score of each group and what was not killed
by a failing test; `cd build/mutants/GROUP && mutmut show NAME` shows a mutant. Functions with
decorators, and modules that numba compiles, are left out by mutmut. With `--at-least 0.9`, a group
of which the tests notice a smaller fraction is a failure.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from tests.rehearsal import ROOT, copy_project, environment, say

FOLDER = ROOT / "build" / "mutants"
CODE = ("ml", "assets", "ops", "dagster_project", "vggheads")
FILES = ("params.yaml", "README.md", "Makefile", "setup.py")
PYTEST = "-q -x -p no:cacheprovider -p tests.mutant_fixtures"
KILLED = ("killed", "timeout", "caught by type check", "segfault")
#: Loaded before the tests of a mutant are forked off: none of them starts threads when imported.
PRELOADED = ("pytest", "numpy", "pandas", "pyarrow.parquet", "scipy.spatial", "cv2", "torch")


@dataclass(frozen=True)
class Group:
    """Files to change, and the tests that must notice."""

    files: tuple[str, ...]
    tests: tuple[str, ...]


GROUPS = {
    "flame": Group(("ml/flame/*.py",), ("tests/ml/flame",)),
    "model": Group(("ml/model/*.py",), ("tests/ml/model",)),
    "annotation": Group(
        ("ml/annotation/*.py", "ml/flame/frames.py"),
        ("tests/ml/annotation", "tests/ml/flame/test_frames.py"),
    ),
    "filtering": Group(("ml/filtering/*.py",), ("tests/ml/filtering",)),
    "training_data": Group(
        ("ml/training_data/similarity.py", "ml/training_data/augmentation.py",
         "ml/training_data/mosaic.py", "ml/training_data/samples.py"),
        ("tests/ml/training_data",),
    ),
    "evaluation": Group(
        ("ml/evaluation/*.py",), ("tests/ml/evaluation", "tests/ml/stages/test_benchmark.py")
    ),
    "bridge": Group(
        ("dagster_project/dvc_sync.py", "dagster_project/sync.py", "dagster_project/markers.py"),
        ("tests/dagster_project/test_toy_pipeline.py", "tests/dagster_project/test_markers.py",
         "tests/dagster_project/test_dvc_sync.py", "tests/dagster_project/test_sync.py"),
    ),
    "checks": Group(
        ("assets/checks/*.py", "ml/quality/*.py"), ("tests/assets", "tests/ml/quality")
    ),
}  # fmt: skip
#: Makes the mutants and lists their names, one a line after the mark.
_LIST = """
import json, pathlib, mutmut.__main__ as m
m.set_mutant_under_test("mutant_generation")
pathlib.Path("mutants").mkdir(exist_ok=True)
m.copy_src_dir(); m.copy_also_copy_files(); m.setup_source_paths(); m.create_mutants(2)
names = [n for f in pathlib.Path("mutants").rglob("*.meta") for n in
         json.loads(f.read_text())["exit_code_by_key"]]
print("NAMES " + json.dumps(sorted(names)))
"""


def copy_all(folder: Path) -> None:
    """Copy the project with its tests, in place of what was there."""
    shutil.rmtree(folder, ignore_errors=True)
    copy_project(folder)
    for extra in ("tests", "docs", "vggheads"):
        shutil.copytree(
            ROOT / extra, folder / extra, dirs_exist_ok=True,
            ignore=shutil.ignore_patterns("__pycache__"),
        )  # fmt: skip
    for extra in FILES:
        shutil.copy(ROOT / extra, folder / extra)


def prepare(name: str, group: Group) -> Path:
    """A copy of the project in which mutmut changes the group's files."""
    folder = FOLDER / name
    copy_all(folder)
    settings = {
        "source_paths": list(CODE),
        "only_mutate": list(group.files),
        "also_copy": ["conf", "docs", *FILES, ".gitignore", ".dvcignore", "dvc.yaml"],
        "pytest_add_cli_args": PYTEST.split(),
        "pytest_add_cli_args_test_selection": list(group.tests),
        "use_git_change_detection": False,
        # From a process that ran no test: torch's threads do not survive a fork from one that did.
        "process_isolation": "forkserver",
        "forkserver_warmup": "import",
        "preload_modules_file": "preloaded.txt",
        # Fixtures are not in the times that mutmut takes, and other work may be on this machine.
        "timeout_constant": 8.0,
    }
    (folder / "preloaded.txt").write_text("\n".join(PRELOADED) + "\n")
    lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
    with (folder / "pyproject.toml").open("a") as project:
        project.write("\n".join(["\n[tool.mutmut]", *lines, ""]))
    return folder


def mutate(name: str, group: Group, sample: int, seed: int, children: int) -> dict[str, str]:
    """Mutants of a group that were run, and what became of each."""
    folder = prepare(name, group)
    made = subprocess.run(
        [sys.executable, "-c", _LIST], cwd=folder, env=environment(folder), check=True,
        capture_output=True, text=True,
    )  # fmt: skip
    names = json.loads(made.stdout.rpartition("NAMES ")[2])
    say(f"{name}: {len(names)} mutants")
    if sample and sample < len(names):
        names = sorted(random.Random(f"{seed}/{name}").sample(names, sample))
    # Not `check`: survivors are reported below.
    command = [sys.executable, "-m", "mutmut", "run", "--max-children", str(children), *names]
    done = subprocess.run(
        command, cwd=folder, env=environment(folder), capture_output=True, text=True, check=False
    )
    results = outcomes(folder, set(names))
    if all(result == "not checked" for result in results.values()):
        sys.stdout.write(done.stdout[-4000:] + done.stderr[-2000:])
        raise SystemExit(f"{name}: mutmut ran no mutant; the tests must pass without mutants")
    return results


def outcomes(folder: Path, names: set[str]) -> dict[str, str]:
    """What mutmut noted of some mutants."""
    from mutmut.stats import status_by_exit_code

    found = {}
    for path in sorted((folder / "mutants").rglob("*.meta")):
        codes = json.loads(path.read_text())["exit_code_by_key"]
        found.update({n: status_by_exit_code[c] for n, c in codes.items() if n in names})
    return found


def score(statuses: Collection[str]) -> float | None:
    """Fraction of the mutants that the tests noticed; None if none was run."""
    judged = [status for status in statuses if status != "not checked"]
    return sum(status in KILLED for status in judged) / len(judged) if judged else None


def main() -> int:
    """Print the score of every group.

    Returns:
        1 if a group was not run, or its score is below `--at-least`.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=GROUPS, action="append")
    parser.add_argument("--sample", type=int, default=0, help="mutants of each group; 0: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--children", type=int, default=1, help="mutants at once")
    parser.add_argument("--at-least", type=float, default=0.0, help="smallest score that passes")
    options = parser.parse_args()
    lines, poor = [], []
    for name in options.only or GROUPS:
        found = mutate(name, GROUPS[name], options.sample, options.seed, options.children)
        counts = Counter(found.values())
        noticed = score(found.values())
        if noticed is None or noticed < options.at_least:
            poor.append(name)
        for mutant, status in sorted(found.items()):
            if status not in ("killed", "not checked"):
                sys.stdout.write(f"{status}: {mutant}\n")
        shown = "    -" if noticed is None else f"{100 * noticed:5.1f} %"
        told = ", ".join(f"{number} {status}" for status, number in sorted(counts.items()))
        lines.append(f"{name:<15} {shown}  of {len(found)}: {told}")
    say("mutants that the tests noticed")
    sys.stdout.write("\n".join(lines) + "\n")
    if poor:
        say(f"below {options.at_least:g}: {', '.join(poor)}")
    return 1 if poor else 0


if __name__ == "__main__":
    sys.exit(main())
