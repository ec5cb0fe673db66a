"""dvc.yaml, the assets, params.yaml and the profiles agree; a stage lists the code it uses."""

import ast
from pathlib import Path

import pytest
import yaml

from dagster_project.graph import ancestors, code_hash, descendants, read_graph
from dagster_project.params import compose, read_params
from dagster_project.stages import ROOT, STAGES, project

GRAPH = read_graph(ROOT)


def test_assets_stages_and_sections_are_the_same():
    assert len(STAGES) == 14
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


@pytest.mark.parametrize("profile", sorted(p.stem for p in (ROOT / "conf").glob("*.yaml")))
def test_every_profile_composes(profile):
    values = yaml.safe_load(compose(ROOT, profile, STAGES.values()))
    assert values["run"]["profile"] == profile
    assert set(values) == {"run", *STAGES}


def test_the_committed_values_are_those_of_their_profile():
    profile = read_params(ROOT, STAGES).run.profile
    assert (ROOT / "params.yaml").read_text() == compose(ROOT, profile, STAGES.values()), (
        f"run `vggheads profile {profile}`"
    )


def test_neighbours_in_the_graph():
    assert ancestors(GRAPH, ["labels"]) == {"head_model", "poses", "captions", "images", "labels"}
    assert descendants(GRAPH, ["trained_model"]) == {"trained_model", "benchmark"}


def asset_code(name: str) -> set[Path]:
    """Files of `ml` that a stage's asset imports, directly or not."""
    found: set[Path] = set()
    todo = [m for m in imported(ROOT / "assets" / f"{name}.py") if m.startswith("ml.")]
    while todo:
        module = todo.pop()
        path = module_file(module)
        if path is not None and path not in found:
            found.add(path)
            todo += [m for m in imported(path) if m.startswith("ml.")]
            parts = module.split(".")
            todo += [".".join(parts[:count]) for count in range(2, len(parts))]
    return found


def module_file(module: str) -> Path | None:
    path = ROOT.joinpath(*module.split("."))
    if (path / "__init__.py").exists():
        return path / "__init__.py"
    return path.with_suffix(".py") if path.with_suffix(".py").exists() else None


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
