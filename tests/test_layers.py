"""The direction of imports: dagster_project -> assets, ops -> ml, and ml's own floor."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ORCHESTRATORS = {"dagster", "dvc", "great_expectations"}
UPPER = {"assets", "ops", "dagster_project"}
FLOOR = {"records", "imaging", "flame"}
HEAVY = {"transformers", "lightning", "mlflow", "diffusers", "onnxruntime", "matplotlib"}


def modules(folder):
    return sorted((ROOT / folder).rglob("*.py"))


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module


def test_the_tree_was_found():
    assert len(modules("ml")) > 60
    assert len(modules("assets")) > 10


@pytest.mark.parametrize("path", modules("ml"), ids=lambda p: str(p.relative_to(ROOT)))
def test_ml_knows_no_orchestrator_and_nothing_above_it(path):
    roots = {name.split(".")[0] for name in imports(path)}
    assert not roots & (ORCHESTRATORS | UPPER)


@pytest.mark.parametrize("folder", ["assets", "ops"])
def test_assets_and_ops_do_not_reach_into_definitions(folder):
    for path in modules(folder):
        assert "dagster_project.definitions" not in set(imports(path)), path


def test_the_floor_imports_nothing_above_itself():
    for package in FLOOR:
        for path in modules(f"ml/{package}"):
            used = {name.split(".")[1] for name in imports(path) if name.startswith("ml.")}
            assert used <= FLOOR, path


def test_importing_ml_loads_nothing_heavy():
    code = (
        "import sys, ml, ml.records, ml.records.tables, ml.records.heads; "
        "print(','.join(sys.modules))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout.split(",")
    assert not {name.split(".")[0] for name in loaded} & (HEAVY | ORCHESTRATORS | {"torch"})


def test_top_level_packages_are_ours():
    # PyPI has an `ops` and projects often have an `assets`: the wrong one must not win.
    for name in ("assets", "ops", "ml", "dagster_project"):
        module = __import__(name)
        assert Path(module.__file__).parent == ROOT / name


def test_readme_commands_exist():
    readme, makefile = (ROOT / "README.md").read_text(), (ROOT / "Makefile").read_text()
    targets = {
        word
        for line in readme.splitlines()
        if line.startswith("make ")
        for word in line.split()[1:2]
    }
    assert {"demo", "test"} <= targets
    for target in targets:
        assert f"\n{target}:" in makefile, target
