"""The direction of imports: dagster_project -> assets, ops -> ml, and the floors inside `ml`.

`vggheads`, the names for people, stands on `ml` alone.
"""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ORCHESTRATORS = {"dagster", "dvc", "great_expectations"}
UPPER = {"assets", "ops", "dagster_project", "vggheads"}
#: The packages of `ml`, lowest first: each imports from lower floors alone.
FLOORS = (
    {"records"},
    {"imaging"},
    {"flame", "labels", "poses", "takedown", "training"},
    {"captions", "model"},
    {"dataset", "generation", "inference", "training_data"},
    {"box_detection", "detector_training", "evaluation", "release"},
    {"annotation", "benchmarks", "filtering", "quality"},
    {"stages"},
    {"studies"},
    {"preflight"},
)
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


def test_the_public_names_stand_on_the_library_alone():
    for path in modules("vggheads"):
        roots = {name.split(".")[0] for name in imports(path)}
        assert not roots & (ORCHESTRATORS | {"assets", "ops", "dagster_project"}), path


@pytest.mark.parametrize("folder", ["assets", "ops"])
def test_assets_and_ops_do_not_reach_into_definitions(folder):
    for path in modules(folder):
        assert "dagster_project.definitions" not in set(imports(path)), path


def run_time_imports(path):
    """Modules that a file imports, anywhere in it, except for types alone."""
    tree = ast.parse(path.read_text())
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def package_graph(root):
    """Package of `ml` -> the other packages that its modules import, lazily or not."""
    packages = {path.relative_to(root / "ml").parts[0] for path in (root / "ml").glob("*/**/*.py")}
    graph = {}
    for package in packages:
        names = {
            name
            for path in (root / "ml" / package).rglob("*.py")
            for name in run_time_imports(path)
        }
        used = {name.split(".")[1] for name in names if name.startswith("ml.")}
        graph[package] = (used & packages) - {package}
    return graph


def climbs(graph, floors):
    """Imports that do not go down: `package -> used`, and packages without a floor."""
    level = {package: number for number, floor in enumerate(floors) for package in floor}
    if set(level) != set(graph):
        raise ValueError(f"floors and packages differ: {sorted(set(level) ^ set(graph))}")
    return [
        f"{package} -> {used}"
        for package, all_used in sorted(graph.items())
        for used in sorted(all_used)
        if level[used] >= level[package]
    ]


def test_the_packages_of_ml_stand_on_their_floors():
    graph = package_graph(ROOT)
    assert graph["stages"] >= {"annotation", "filtering", "records"}, "imports were not seen"
    assert climbs(graph, FLOORS) == []


def test_cycles_and_lazy_imports_are_seen(tmp_path):
    for package, text in (("a", "from ml.b import x\n"), ("b", "def f():\n    import ml.a.y\n")):
        (tmp_path / "ml" / package).mkdir(parents=True)
        (tmp_path / "ml" / package / "__init__.py").write_text("")
        (tmp_path / "ml" / package / "code.py").write_text(text)
    graph = package_graph(tmp_path)
    assert climbs(graph, ({"a"}, {"b"})) == ["a -> b"]
    assert climbs(graph, ({"b"}, {"a"})) == ["b -> a"]
    with pytest.raises(ValueError, match=r"differ.*'b'"):
        climbs(graph, ({"a"},))
    (tmp_path / "ml/c").mkdir()
    (tmp_path / "ml/c/code.py").write_text("import ml.a.y\n")
    assert package_graph(tmp_path)["c"] == {"a"}, "a folder without __init__.py is a package too"


def module_graph(root):
    """Module of `ml` -> the other modules it imports, lazily or not."""
    paths = {}
    for path in (root / "ml").rglob("*.py"):
        parts = path.relative_to(root).with_suffix("").parts
        paths[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    graph = {module: set() for module in paths}
    for module, path in paths.items():
        for name in run_time_imports(path):
            # A name may be a module, or something that a module or a package defines.
            while name and name not in paths:
                name = name.rpartition(".")[0]
            graph[module] |= {name} - {"", module}
    return graph


def circle(graph):
    """Modules that import each other in a circle; empty if there is none."""
    while leaves := [module for module, used in graph.items() if not used & set(graph)]:
        graph = {module: used for module, used in graph.items() if module not in leaves}
    # What is left leads into a circle: going on long enough ends in it.
    path = sorted(graph)[:1]
    while path:
        following = min(graph[path[-1]] & set(graph))
        if following in path:
            return [*path[path.index(following) :], following]
        path.append(following)
    return []


def test_no_module_imports_one_that_imports_it_back():
    graph = module_graph(ROOT)
    assert len(graph) == len(modules("ml"))
    assert "ml.model.decode" in graph["ml.model.postprocess"], "imports were not seen"
    assert "ml.poses.blip" in graph["ml.poses.backends"], "lazy imports were not seen"
    assert circle(graph) == []


def test_a_circle_of_modules_is_seen(tmp_path):
    files = {
        "a/__init__.py": "",
        "a/protocol.py": "def make():\n    from ml.a.backend import Backend\n",
        "a/backend.py": "from ml.a.helper import x\n",
        "a/helper.py": "from ml.a.protocol import Protocol\n",
        "a/user.py": "from ml.a.protocol import make\n",
    }
    for name, text in files.items():
        (tmp_path / "ml" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "ml" / name).write_text(text)
    graph = module_graph(tmp_path)
    assert circle(graph) == ["ml.a.backend", "ml.a.helper", "ml.a.protocol", "ml.a.backend"]
    (tmp_path / "ml/a/helper.py").write_text("from ml.a import protocol2\n")
    assert circle(module_graph(tmp_path)) == []


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


def paper_terms(readme):
    """Term of the paper -> the folder that the README's table names."""
    table = readme.split("<!-- terms -->")[1].split("<!-- /terms -->")[0]
    return dict(re.findall(r"^\| ([^|]+) \| \[[^]]+\]\(([^)]+)\) \|$", table, re.MULTILINE))


def test_the_paper_terms_are_in_the_folders_that_the_readme_names():
    """Each stands there, in a module of that folder itself; the tree alone leads to it."""
    terms = paper_terms((ROOT / "README.md").read_text())
    assert len(terms) == 10
    for term, folder in terms.items():
        modules_there = sorted((ROOT / folder).glob("*.py"))
        assert any(term.lower() in path.read_text().lower() for path in modules_there), (
            f"{term}: in no module of {folder}"
        )
