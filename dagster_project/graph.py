"""The graph of stages as `dvc.yaml` declares it: the one place where edges are written."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ml.records.config import parse_yaml


@dataclass(frozen=True)
class Node:
    """One stage of dvc.yaml.

    Attributes:
        name: the stage.
        data: its dependencies that other stages make, path -> stage, relative to the root.
        code: its other dependencies: files and folders of the library.
        params: keys of params.yaml that it depends on.
        outs: its outputs, relative to the root.
    """

    name: str
    data: Mapping[str, str]
    code: tuple[str, ...]
    params: tuple[str, ...]
    outs: tuple[str, ...]

    @property
    def upstream(self) -> tuple[str, ...]:
        """The stages it reads from, without repetition."""
        return tuple(dict.fromkeys(self.data.values()))


def read_graph(root: Path) -> dict[str, Node]:
    """Read dvc.yaml.

    Args:
        root: the project folder.

    Returns:
        Stage -> node, in the file's order; a stage follows its dependencies.

    Raises:
        FileNotFoundError: there is no dvc.yaml.
        ValueError: a stage is declared before one that it depends on.
    """
    path = root / "dvc.yaml"
    if not path.exists():
        raise FileNotFoundError(f"{path}: not found; the stages are declared there")
    stages: dict[str, dict[str, Any]] = parse_yaml(path.read_text())["stages"]
    makers = {out: name for name, stage in stages.items() for out in _outs(stage)}
    nodes: dict[str, Node] = {}
    for name, stage in stages.items():
        data = {dep: maker for dep in stage.get("deps", ()) if (maker := _maker(dep, makers))}
        if late := [maker for maker in data.values() if maker not in nodes]:
            raise ValueError(f"{path}: declare {', '.join(late)} before {name}, which reads it")
        nodes[name] = Node(
            name=name,
            data=data,
            code=tuple(dep for dep in stage.get("deps", ()) if dep not in data),
            params=tuple(stage.get("params", ())),
            outs=tuple(_outs(stage)),
        )
    return nodes


def descendants(graph: Mapping[str, Node], stages: Iterable[str]) -> set[str]:
    """Return the given stages and all that depend on them."""
    found = set(stages)
    for name, node in graph.items():  # in topological order
        if found.intersection(node.upstream):
            found.add(name)
    return found


def ancestors(graph: Mapping[str, Node], stages: Iterable[str]) -> set[str]:
    """Return the given stages and all that they depend on."""
    found = set(stages)
    for name in reversed(list(graph)):
        if name in found:
            found.update(graph[name].upstream)
    return found


def code_hash(root: Path, paths: Iterable[str]) -> str:
    """Return a hash of source files; folders count with all their files except bytecode.

    Raises:
        FileNotFoundError: a path does not exist.
    """
    digest = hashlib.sha256()
    for relative in sorted(paths):
        path = root / relative
        if not path.exists():
            raise FileNotFoundError(f"dvc.yaml depends on {relative}, which does not exist")
        for file in [path] if path.is_file() else _files(path):
            stat = file.stat()
            digest.update(str(file.relative_to(root)).encode())
            digest.update(file_md5(file, stat.st_mtime_ns, stat.st_size).encode())
    return digest.hexdigest()


@lru_cache(maxsize=4096)
def file_md5(path: Path, mtime_ns: int, size: int) -> str:
    """Return the md5 of a file; time and size are cache keys, so that a changed file is reread."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def _files(folder: Path) -> list[Path]:
    return sorted(
        path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts
    )


def _outs(stage: Mapping[str, Any]) -> list[str]:
    """Return paths of a stage's outs, which may be written `path` or `{path: options}`."""
    return [out if isinstance(out, str) else next(iter(out)) for out in stage.get("outs", ())]


def _maker(dep: str, makers: Mapping[str, str]) -> str | None:
    """Return the stage that makes a dependency: as one of its outs, or inside one."""
    for out, maker in makers.items():
        if dep == out or dep.startswith(f"{out}/"):
            return maker
    return None
