"""dvc.yaml, the assets, params.yaml and the profiles agree; a stage lists the code it uses."""

import ast
import inspect
import subprocess
from functools import cache
from pathlib import Path
from typing import get_args

import pytest
import yaml

from dagster_project.graph import ancestors, code_hash, descendants, read_graph
from dagster_project.params import read_params, with_name
from dagster_project.profiles import edits, read_profile
from dagster_project.stages import ROOT, STAGES, project
from ml.records.config import StageConfig, parse_yaml

GRAPH = read_graph(ROOT)


def test_assets_stages_and_sections_are_the_same():
    assert len(STAGES) == 18
    assert list(project().graph) == list(STAGES)
    assert set(read_params(ROOT, STAGES).values) == {"run", *STAGES}


def test_every_command_materialises_the_asset_of_its_name():
    for name, stage in yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].items():
        assert stage["cmd"] == f"python -m dagster_project.cli materialize {name}"
        assert name in stage["params"]
        assert "run.workers" not in stage["params"]
        assert all(list(out.values()) == [{"persist": True}] for out in stage["outs"])
        assert f"data/{name}" in GRAPH[name].outs


def test_every_declared_param_exists():
    params = read_params(ROOT, STAGES)
    for node in GRAPH.values():
        assert params.subset(node.params)


@pytest.mark.parametrize("name", list(STAGES))
def test_a_stage_lists_the_code_it_uses(name):
    """Else a change of that code would leave old results in place, or remake them for nothing."""
    used = {str(path.relative_to(ROOT)) for path in asset_code(name)}
    declared = GRAPH[name].code
    missing = [u for u in used if not any(u == d or u.startswith(f"{d}/") for d in declared)]
    # `ml/__init__.py` and those of packages hold a docstring.
    missing = sorted(u for u in missing if not u.endswith("/__init__.py"))
    assert not missing, f"add to {name}'s deps in dvc.yaml: {missing}"
    unused = [d for d in declared if not any(u == d or u.startswith(f"{d}/") for u in used)]
    assert not unused, f"remove from {name}'s deps in dvc.yaml: {unused}"
    assert code_hash(ROOT, declared)


def test_the_committed_params_are_the_demo_without_edits():
    """What a fresh clone computes is what README.md reports; edits of a working copy are legal."""
    committed = subprocess.run(
        ["git", "show", "HEAD:params.yaml"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if committed.returncode != 0:
        pytest.skip("not a git checkout")
    found = edits(with_name(read_profile(ROOT, "demo")), parse_yaml(committed.stdout))
    assert not found, f"commit params.yaml as `vggheads profile demo` writes it: {found}"


@pytest.mark.parametrize("name", list(STAGES))
def test_a_changed_default_reruns_its_stage(name):
    """params.yaml holds no defaults; the files that state them are code that the stage lists."""
    classes = set(config_classes(STAGES[name].config_class()))
    assert classes
    for found in classes:
        path = str(Path(inspect.getfile(found)).relative_to(ROOT))
        assert any(path == d or path.startswith(f"{d}/") for d in GRAPH[name].code), (
            f"{found.__name__} in {path}: add the file to {name}'s deps in dvc.yaml"
        )


def test_a_stage_like_another_depends_on_its_values():
    """Else an edit of the one section would leave the other stage's results in place."""
    for name, section in read_params(ROOT, STAGES).written.items():
        if like := (section or {}).get("like"):
            assert {name, like} <= set(GRAPH[name].params)


def test_neighbours_in_the_graph():
    assert ancestors(GRAPH, ["labels"]) == {"head_model", "poses", "captions", "images", "labels"}
    assert descendants(GRAPH, ["trained_model"]) == {
        "trained_model",
        "benchmark",
        "benchmark_scores",
    }


def config_classes(config_class):
    """A configuration class and those of its fields, at any depth, with their bases."""
    yield from (base for base in config_class.__mro__ if issubclass(base, StageConfig))
    for field in config_class.model_fields.values():
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, StageConfig):
                yield from config_classes(kind)


def asset_code(name: str) -> set[Path]:
    """Files of `ml` that a stage's work and configuration import, directly or not."""
    found: set[Path] = set()
    stage = STAGES[name]
    todo = [path.partition(":")[0] for path in (stage.function, stage.config)]
    while todo:
        module = todo.pop()
        path = module_file(module)
        if path is not None and path not in found:
            found.add(path)
            todo += [m for m in imported(path) if m.startswith("ml.")]
            parts = module.split(".")
            todo += [".".join(parts[:count]) for count in range(2, len(parts))]
    return found


@cache
def module_file(module: str) -> Path | None:
    path = ROOT.joinpath(*module.split("."))
    if (path / "__init__.py").exists():
        return path / "__init__.py"
    return path.with_suffix(".py") if path.with_suffix(".py").exists() else None


@cache
def imported(path: Path) -> list[str]:
    """Names of modules that a file imports at run time, anywhere in it."""
    tree = ast.parse(path.read_text())
    only_for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for statement in node.body
        for inner in ast.walk(statement)
    }
    names = []
    for node in ast.walk(tree):
        if id(node) in only_for_types:
            continue
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return names
