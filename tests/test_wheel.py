"""The wheel: one package, no orchestrator asked for, and the detector runs from it."""

import email
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from ml.imaging.io import encode_png
from tests.ml.inference.conftest import network, noise_image, project

ROOT = Path(__file__).parents[1]
ORCHESTRATORS = ("dagster", "dvc", "great_expectations", "mlflow", "lightning", "transformers")
LIGHT = {"torch", "numpy", "opencv-python-headless", "safetensors", "pydantic", "pyyaml", "tqdm"}
PREDICT = {"onnx", "onnxruntime", "numba", "scipy", "trimesh", "pillow"}
__all__ = ["network", "project"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy in which a run, and an earlier build, left what must not be packed."""
    tree = tmp_path_factory.mktemp("tree")
    for name in ("ml", "vggheads", "assets", "ops", "dagster_project"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy2(ROOT / name, tree / name)
    for left in ("mlruns/0/meta.json", "build/lib/ml/gone.py", "build/lib/vggheads/gone.py"):
        (tree / left).parent.mkdir(parents=True, exist_ok=True)
        (tree / left).write_text("")
    command = [sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation", "-q"]
    subprocess.run([*command, "-w", "out"], cwd=tree, check=True, capture_output=True)
    return next((tree / "out").glob("*.whl"))


@pytest.fixture(scope="module")
def site(wheel, tmp_path_factory):
    """A folder of packages into which the wheel alone was installed."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "-q", "--target", folder]
    subprocess.run([*command, str(wheel)], check=True, capture_output=True)
    return folder


def run(site, *arguments, cwd):
    environment = {**os.environ, "PYTHONPATH": str(site)}
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip


def test_one_package_with_its_types_and_its_data(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        for name in names:
            if name.endswith(".py") and name != "vggheads/cli.py":
                text = archive.read(name).decode()
                assert not re.search(r"(?m)^\s*(from|import) (ml|assets|ops)\b", text), name
        top = next(n for n in names if n.endswith("top_level.txt"))
        assert archive.read(top).decode().split() == ["vggheads"]
    assert {name.split("/")[0] for name in names} == {"vggheads", "vggheads-0.1.0.dist-info"}
    for name in (
        "vggheads/py.typed",
        "vggheads/ml/captions/data/first_names.txt",
        "vggheads/ml/evaluation/templates/report.html.jinja",
    ):
        assert name in names
    library = {p.relative_to(ROOT).as_posix() for p in (ROOT / "ml").rglob("*.py")}
    packed = {n.removeprefix("vggheads/") for n in names if n.startswith("vggheads/ml/")}
    assert {name for name in packed if name.endswith(".py")} == library


def test_what_is_asked_for_has_no_orchestrator(wheel):
    with zipfile.ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if n.endswith("METADATA"))
        metadata = email.message_from_bytes(archive.read(name))
    wanted = {"": set(), "predict": set(), "pipeline": set()}
    for line in metadata.get_all("Requires-Dist"):
        package = re.match(r"[\w-]+", line)[0].lower()
        extra = re.search(r'extra == "([\w-]+)"', line)
        if (key := extra[1] if extra else "") in wanted:
            wanted[key].add(package)
    assert wanted[""] == LIGHT
    assert wanted["predict"] == PREDICT
    assert set(ORCHESTRATORS) <= wanted["pipeline"]


def test_the_detector_runs_from_the_wheel(site, project, tmp_path):
    (tmp_path / "photo.png").write_bytes(encode_png(noise_image(0)))
    code = """
import sys
BLOCKED = "dagster dvc great_expectations mlflow lightning transformers pandas pyarrow ml".split()
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"{name} is not to be imported", name=name)
sys.meta_path.insert(0, Refuse())
from vggheads.cli import main
sys.exit(main(sys.argv[1:]))
"""
    words = ["predict", "photo.png", "--checkpoint", str(project / "trained_model")]
    asked = ["--draw", "bbox", "--meshes", "glb"]
    done = run(site, "-c", code, *words, *asked, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    out = tmp_path / "predictions" / "photo"
    heads = json.loads((out / "heads.json").read_text())["heads"]
    assert heads
    assert (out / "drawing.jpg").is_file()
    assert len(list(out.glob("head_*.glb"))) == len(heads)


def test_names_and_commands_of_the_installed_package(site, tmp_path):
    code = (
        "import vggheads; from vggheads import FlameLayer, datasets;"
        "print(vggheads.__file__, FlameLayer.__module__, datasets.ShardReader.__module__)"
    )
    done = run(site, "-c", code, cwd=tmp_path)
    assert done.stdout.split() == [
        str(site / "vggheads" / "__init__.py"), "vggheads.ml.flame.layer",
        "vggheads.ml.records.shards",
    ]  # fmt: skip
    for command in ("status", "profile"):
        done = run(site, "-m", "vggheads.cli", command, "smoke", cwd=tmp_path)
        assert done.returncode == 2
        assert f"on a folder with dvc.yaml and params.yaml, and {tmp_path} is in none" in (
            done.stderr
        )
    assert not list(tmp_path.iterdir())
