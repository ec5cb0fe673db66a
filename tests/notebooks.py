"""Execute the notebooks on a finished run, `make notebooks`: `python -m tests.notebooks [NAME]`.

The cells' output goes to build/notebooks, to be looked at; the notebooks in the tree have none.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "notebooks"
SECONDS = 900


def execute(path: Path, project: Path, output: Path) -> float:
    """Execute a notebook in a project; a cell that raises ends it with the cell and its error."""
    started = time.monotonic()
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(project)}}
    client = NotebookClient(notebook, timeout=SECONDS, kernel_name="python3", resources=resources)
    client.execute()
    output.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, output / path.name)
    return time.monotonic() - started


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    known = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(known))
    parser.add_argument("--project", type=Path, default=ROOT, help="with a finished `make demo`")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "notebooks")
    options = parser.parse_args()
    os.environ["PYTHONPATH"] = str(options.project.resolve())
    for name in options.names or known:
        seconds = execute(FOLDER / f"{name}.ipynb", options.project, options.output)
        sys.stdout.write(f"{name}: {seconds:.0f} s\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
