"""A toy project in a folder of its own, with real Dagster, DVC and git."""

import os
import shutil
import subprocess
import sys
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

from tests.fixtures.toy_project import edit_params, write_toy

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]


class Toy:
    """A toy project: its pipeline, its command line, and what was made so far."""

    def __init__(self, root: Path, pipeline) -> None:
        self.root = root
        self.pipeline = pipeline

    def run(self, *arguments: str) -> int:
        from dagster_project.cli import main

        return main(list(arguments), self.pipeline)

    def popen(self, *arguments: str, **options) -> subprocess.Popen:
        command = [sys.executable, *self.pipeline.program, *arguments]
        return subprocess.Popen(command, cwd=self.root, env=toy_environment(self.root), **options)

    def dvc(self, *arguments: str) -> str:
        """Run a DVC command in this process; `repro` starts stages in processes of their own."""
        from dvc.cli import main

        said = StringIO()
        with chdir(self.root), redirect_stdout(said), redirect_stderr(said):
            assert main(list(arguments)) == 0, said.getvalue()
        return said.getvalue()

    def made(self) -> list[str]:
        """`stage unit` of all work done since the last call."""
        log = self.root / "made.log"
        lines = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return [line.rsplit(" ", 1)[0] for line in lines]

    def set_param(self, old: str, new: str) -> None:
        edit_params(self.root, old, new)

    def bytes(self) -> dict[str, bytes]:
        data = self.root / "data"
        files = (p for p in data.rglob("*") if p.is_file() and ".work" not in p.parts)
        return {str(p.relative_to(data)): p.read_bytes() for p in sorted(files)}


@pytest.fixture(scope="session")
def toy_template(made_once):
    """A toy project in which nothing has run."""
    return made_once("toy", write_toy)


@pytest.fixture(scope="session")
def made_template(toy_template, made_once):
    """A toy project in which everything is made."""

    def make(folder):
        # In this process: the tests need the libraries anyway, another would load them once more.
        with pytest.MonkeyPatch.context() as patch:
            for toy in opened(toy_template, folder / "toy", patch):
                assert toy.run("demo") == 0

    return made_once("made-toy", make) / "toy"


def toy_environment(root: Path) -> dict[str, str]:
    """Environment of a new interpreter on a toy project."""
    without = {key: value for key, value in os.environ.items() if not key.startswith("DVC_")}
    return {
        **without,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": f"{root}:{REPOSITORY}",
        "DAGSTER_HOME": str(root / ".dagster"),
        "DVC_NO_ANALYTICS": "1",
    }


@pytest.fixture
def fresh_toy(toy_template, tmp_path, monkeypatch):
    """A copy in which nothing has run."""
    yield from opened(toy_template, tmp_path / "toy", monkeypatch)


@pytest.fixture
def toy(made_template, tmp_path, monkeypatch):
    """A copy in which everything is made."""
    yield from opened(made_template, tmp_path / "toy", monkeypatch)


def opened(template: Path, root: Path, monkeypatch):
    """Copy a toy project and work in the copy."""
    shutil.copytree(template, root)
    with entered(root, monkeypatch) as toy:
        yield toy


@contextmanager
def entered(root: Path, monkeypatch):
    """Work in a toy project that is there."""
    for name, value in toy_environment(root).items():
        monkeypatch.setenv(name, value)
    monkeypatch.syspath_prepend(str(root))
    _forget_toy()
    import toy_stages

    toy = Toy(root, toy_stages.toy_pipeline(root))
    toy.made()
    yield toy
    from dagster_project import local_workers

    local_workers._KEPT.close()
    _forget_toy()


def _forget_toy() -> None:
    """Let the next toy project import its own modules."""
    for name in ("toy_stages", "toy_work", "toy_total"):
        sys.modules.pop(name, None)
