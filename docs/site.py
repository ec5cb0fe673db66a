"""mkdocs configuration in addition to mkdocs.yml: the README as first page, a page for each stage.

A page of a stage holds what dvc.yaml says of it and the docstrings of its modules. Links to files
that are no pages, such as code, become their names: the site knows no address of the repository.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml
from mkdocs.structure.files import File

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT: Final = Path(__file__).parents[1]
_LINK: Final = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)#\s]+)(#[^)\s]*)?\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Fill in the pages of the stages."""
    assert config.nav is not None
    for entry in config.nav:
        if "Stages" in entry:
            entry["Stages"] = [f"stages/{stage}.md" for stage in _stages()]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are no files in docs/."""
    readme = (ROOT / "README.md").read_text()
    files.append(File.generated(config, "index.md", content=readme.replace("](docs/", "](")))
    for stage, declared in _stages().items():
        files.append(
            File.generated(config, f"stages/{stage}.md", content=_stage_page(stage, declared))
        )
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links that lead out of the site into the names of what they lead to."""
    folder = posixpath.dirname(page.file.src_uri)

    def kept(match: re.Match[str]) -> str:
        text, target = match[1], match[2]
        place = posixpath.normpath(posixpath.join(folder, target))
        if "://" in target or files.get_file_from_path(place) is not None:
            return match[0]
        return text if "`" in text else f"`{text}`"

    return _LINK.sub(kept, markdown)


def _stages() -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"])


def _stage_page(stage: str, declared: dict[str, Any]) -> str:
    """Write of a stage what makes it, what it needs, what it writes, and its code's docstrings."""
    lists = {
        "needs": [name for name in declared.get("deps", []) if name.startswith("data/")],
        "parameters": [str(name) for name in declared.get("params", [])],
        "writes": [out if isinstance(out, str) else next(iter(out)) for out in declared["outs"]],
    }
    rows = "\n".join(
        f"| {title} | {', '.join(f'`{name}`' for name in names) or 'nothing'} |"
        for title, names in lists.items()
    )
    return (
        f"# {stage}\n\n| command | `vggheads materialize {stage}` |\n|---|---|\n{rows}\n\n"
        f"::: assets.{stage}\n\n::: ml.stages.{stage}\n"
    )
