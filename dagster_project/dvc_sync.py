"""The bridge to DVC: dvc.lock is the only record of the data's versions.

All uses of `dvc.repo.Repo` are here: only `dvc.api` is a documented interface.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from ml.records.config import parse_yaml

_MD5 = re.compile(r"[0-9a-f]{32}(\.dir)?")
Versions = dict[str, str]
"""Path of an out, relative to the root -> md5."""


class DamagedLock(ValueError):
    """dvc.lock cannot be read; the message gives cause and remedy."""


def read_lock(path: Path) -> dict[str, Versions]:
    """Return the content of a dvc.lock.

    Args:
        path: the file; one that is missing records nothing.

    Returns:
        Stage -> path of an out -> md5.

    Raises:
        DamagedLock: it is empty, no YAML, or not what DVC writes.
    """
    if not path.exists():
        return {}
    try:
        content = parse_yaml(path.read_text(encoding="utf-8"))
        for stage in content["stages"].values():
            # A cut file can be whole YAML: DVC writes outs last, and every stage has some.
            if not stage["outs"] or not all("md5" in out for out in stage["outs"]):
                raise ValueError("a stage is cut")
            if not all(isinstance(values, dict) for values in stage.get("params", {}).values()):
                raise ValueError("values are cut")
            for item in (*stage.get("deps", ()), *stage["outs"]):
                if "md5" in item and not _MD5.fullmatch(item["md5"]):
                    raise ValueError("a hash is cut")
        return {
            str(name): {out["path"]: out["md5"] for out in stage["outs"]}
            for name, stage in content["stages"].items()
        }
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        cause = str(error) if isinstance(error, ValueError) else "its form"
        raise DamagedLock(
            f"{path}: empty, cut, or not what DVC writes ({cause}); "
            "`vggheads doctor --repair` writes it again from what is finished"
        ) from error


@dataclass(frozen=True)
class DvcBridge:
    """DVC's view of a project.

    Attributes:
        root: the project folder, which holds dvc.yaml and .dvc.
    """

    root: Path

    def locked(self) -> dict[str, Versions]:
        """Return the recorded versions: stage -> outs' versions. Cheap: one YAML file is read."""
        path = self.root / "dvc.lock"
        if not path.exists():
            return {}
        with self._lock_file():
            return read_lock(path)

    def lock_hash(self) -> str:
        """Return sha256 of dvc.lock, empty when there is none."""
        path = self.root / "dvc.lock"
        return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""

    def run_by_dvc(self, stage: str) -> bool:
        """Return whether `dvc repro` started this process to make the stage.

        DVC then records it.
        """
        return os.environ.get("DVC_STAGE") == stage

    def changed(self, stages: list[str]) -> set[str]:
        """Return stages whose command, params, dependencies or outs differ from dvc.lock.

        Takes none of DVC's locks, so it also answers inside `dvc repro`.
        """
        with self._repo() as repo:
            loaded = self._load(repo)
            return {name for name in stages if _is_changed(loaded[name])}

    def on_disk(self, stages: Iterable[str]) -> dict[str, Versions]:
        """Return the current versions of stages' outs on disk; absent outs are left out."""
        with self._repo() as repo:
            loaded = self._load(repo)
            return {
                stage: {
                    out.def_path: out.get_hash().value for out in loaded[stage].outs if out.exists
                }
                for stage in stages
            }

    def md5s(self, names: Iterable[str]) -> Versions:
        """Return the current md5 of files on disk; absent ones are left out.

        A file whose time, size and inode DVC has seen before is not read again.

        Args:
            names: paths relative to the root.
        """
        from dvc.fs import localfs
        from dvc_data.hashfile.hash import hash_file

        found = {}
        with self._repo() as repo:
            for name in names:
                path = self.root / name
                if path.exists():
                    _, info = hash_file(str(path), localfs, "md5", state=repo.state)
                    found[name] = str(info.value)
        return found

    def record(self, stage: str) -> Versions:
        """Record a finished stage in dvc.lock and its outs in the cache.

        Inside `dvc repro` of that stage only the versions are computed: DVC records.
        """
        if self.run_by_dvc(stage):
            return self.on_disk([stage])[stage]
        # Waits: another process may be recording its own stage at this moment.
        with self._lock_file(), self._repo(wait=True) as repo:
            (committed,) = repo.commit(target=f"{self.root / 'dvc.yaml'}:{stage}", force=True)
            return {out.def_path: out.hash_info.value for out in committed.outs}

    def collect_garbage(self) -> None:
        """Remove from DVC's cache everything that the current dvc.lock does not name."""
        with self._lock_file(), self._repo(wait=True) as repo:
            repo.gc(workspace=True, force=True)

    def remotes(self) -> list[str]:
        """Return the names of DVC's remotes."""
        with self._repo(wait=True) as repo:
            return sorted(repo.config["remote"])

    def cache(self) -> Path:
        """Return DVC's cache, which may lie outside the project."""
        with self._repo(wait=True) as repo:
            return Path(repo.cache.local_cache_dir)

    def _lock_file(self) -> FileLock:
        """Hold a lock while dvc.lock is read or written: DVC writes it in place."""
        folder = self.root / ".dagster"
        folder.mkdir(exist_ok=True)
        return FileLock(folder / "dvc.lock.lock")

    @contextmanager
    def _repo(self, wait: bool = False) -> Iterator[Any]:
        from dvc.repo import Repo

        # DVC's own handler writes to stdout, among our lines.
        logging.getLogger("dvc").setLevel(logging.WARNING)
        with Repo(str(self.root), _wait_for_lock=wait) as repo:
            yield repo

    def _load(self, repo: Any) -> dict[str, Any]:
        """Return DVC's stages by name.

        Together, because DVC reads all its files for one as well.
        """
        with self._lock_file():
            # By its path: DVC otherwise looks in the current folder.
            stages = repo.stage.load_file(str(self.root / "dvc.yaml"))
        return {stage.name: stage for stage in stages}


def _is_changed(stage: Any) -> bool:
    """Return whether one of DVC's stages is not as dvc.lock records it."""
    return stage.changed_stage() or any(item.status() for item in (*stage.deps, *stage.outs))


def data_version(versions: Versions) -> str:
    """Return Dagster's data version of a stage: the md5 of its outs, joined."""
    return "+".join(versions[path] for path in sorted(versions))
