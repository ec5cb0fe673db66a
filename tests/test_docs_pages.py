"""The pages of the docs site, and the notebooks as they are in the tree."""

import ast
import json
import re
from pathlib import Path

import pytest
import yaml

from docs import site

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def pages(entry):
    if isinstance(entry, str):
        return [entry]
    values = entry.values() if isinstance(entry, dict) else entry
    return [page for value in values for page in pages(value)]


def configuration():
    return yaml.safe_load((ROOT / "mkdocs.yml").read_text())


def test_every_document_is_in_the_navigation():
    listed = set(pages(configuration()["nav"])) - {"index.md"}
    documents = {p.relative_to(ROOT / "docs").as_posix() for p in (ROOT / "docs").rglob("*.md")}
    assert listed == documents


def test_every_stage_has_a_page():
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]

    class Config:
        nav = configuration()["nav"]

    site.on_config(Config)
    listed = {page for page in pages(Config.nav) if page.startswith("stages/")}
    assert listed == {f"stages/{stage}.md" for stage in stages}
    text = site._stage_page("captions", stages["captions"])
    assert "`data/poses`" in text
    assert "::: ml.stages.captions" in text


def test_links_out_of_the_site_become_names():
    class Files:
        def get_file_from_path(self, path):
            return path == "metrics.md" or None

    class Page:
        class file:  # noqa: N801
            src_uri = "benchmarks/README.md"

    text = (
        "[numbers](../metrics.md#a) [code](../../ml/flame) [here](http://x) [`ml`](../../ml) "
        "![i](a.png) [below](#part)"
    )
    assert site.on_page_markdown(text, Page, None, Files()) == (
        "[numbers](../metrics.md#a) `code` [here](http://x) `ml` ![i](a.png) [below](#part)"
    )


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_small_valid_and_without_output(path):
    notebook = json.loads(path.read_text())
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(code) >= 4
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in code)
    ast.parse("\n".join("".join(cell["source"]) for cell in code))
    assert path.stat().st_size < 20_000


def test_pages_and_notebooks_are_made_in_ci():
    script = (ROOT / ".ci" / "run").read_text()
    targets = re.findall(r"^([a-z]+): .*##", (ROOT / "Makefile").read_text(), re.M)
    assert {"docs", "notebooks"} <= set(targets)
    for target in ("docs", "notebooks"):
        assert re.search(rf"(?m)^part make .*\b{target}\b", script)
    assert len(NOTEBOOKS) == 3
