"""References to model files that somebody else made: where they lie, which bytes, what licence."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from ml.records.config import StageConfig
from ml.records.register import lookup

if TYPE_CHECKING:
    import torch

_COMMIT = re.compile(r"[0-9a-f]{40}")


class ModelError(ValueError):
    """A referenced model is not there or is not the one that was asked for."""


class ModelRef(StageConfig):
    """A model file, a folder of them, or a repository of a model hub at one commit."""

    path: str = ""
    """File or folder, relative to the project; give this or `hub_id`."""
    hub_id: str = ""
    """Repository of the model hub, `owner/name`."""
    revision: str = ""
    """Commit of the hub's repository, 40 hexadecimal digits; branches move and are refused."""
    sha256: str = Field("", pattern="^([0-9a-f]{64})?$")
    """What `hash_model` gives for the file or folder; empty accepts any and records what it is."""
    asset: str = Field(min_length=1)
    """Name in the asset register, which holds the licence and what it allows."""

    @model_validator(mode="after")
    def _one_source(self) -> ModelRef:
        if bool(self.path) == bool(self.hub_id):
            raise ValueError(
                f"model '{self.asset}': expected either path or hub_id, got path={self.path!r} and "
                f"hub_id={self.hub_id!r}"
            )
        if self.hub_id and not _COMMIT.fullmatch(self.revision):
            raise ValueError(
                f"model '{self.asset}': revision must be a commit of {self.hub_id} (40 hexadecimal "
                f"digits), got {self.revision!r}"
            )
        if self.path and self.revision:
            raise ValueError(
                f"model '{self.asset}': a path has no revision; state its sha256 instead"
            )
        return self

    def resolve(self, root: Path) -> Model:
        """Find the model and check that it is the one meant.

        Args:
            root: the project folder, to which `path` is relative.

        Returns:
            The model, ready to be loaded.

        Raises:
            ModelError: there is no such file or folder, or its hash is another one.
            KeyError: the asset register does not know `asset`.
        """
        licence = lookup(self.asset).licence
        if self.hub_id:
            return Model(self, self.hub_id, self.revision, licence)
        location = Path(root) / self.path
        if not location.exists():
            raise ModelError(
                f"model '{self.asset}': nothing at {location}; bring its files there, or name "
                "another path in params.yaml"
            )
        found = hash_model(location)
        if self.sha256 and found != self.sha256:
            raise ModelError(
                f"model '{self.asset}': {location} has sha256 {found}, expected {self.sha256}; "
                "bring the expected files, or correct sha256 in params.yaml"
            )
        return Model(self, str(location), found, licence)


@dataclass(frozen=True)
class Model:
    """A model that was found and checked.

    Attributes:
        ref: the reference it came from.
        location: path of its file or folder, or the hub's repository.
        version: sha256 of file or folder, or the hub's commit; recorded with every result.
        licence: from the asset register.
    """

    ref: ModelRef
    location: str
    version: str
    licence: str

    @property
    def name(self) -> str:
        """Name in the asset register."""
        return self.ref.asset

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments for a `from_pretrained` call, beside the location.

        Returns:
            The commit for the hub; for a folder that nothing may be downloaded.
        """
        return {"revision": self.version} if self.ref.hub_id else {"local_files_only": True}

    def load(self, kind: Any, **options: Any) -> Any:
        """Load the model through its library.

        Args:
            kind: class with a `from_pretrained` method.
            options: further arguments of that method.

        Returns:
            What the method returns.

        Raises:
            ModelError: the files are not those of such a model.
        """
        try:
            return kind.from_pretrained(self.location, **self.arguments(), **options)
        except (OSError, ValueError, KeyError) as error:
            raise ModelError(
                f"model '{self.name}': {self.location} cannot be loaded as {kind.__name__}: {error}"
            ) from error

    def record(self) -> dict[str, str]:
        """What the lineage keeps.

        Returns:
            Register name, source as configured, version (sha256 or commit) and licence.
        """
        return {
            "asset": self.name,
            "source": self.ref.hub_id or self.ref.path,
            "version": self.version,
            "licence": self.licence,
        }


def require(ref: ModelRef | None, where: str, needed_by: str, root: Path) -> Model:
    """Resolve a reference that a backend cannot do without.

    Args:
        ref: the reference, or None when params.yaml names none.
        where: its place in params.yaml, for the error text.
        needed_by: the backend's name, likewise.
        root: the project folder.

    Returns:
        The model.

    Raises:
        ModelError: none is named, or it is not there, or it is not the one meant.
    """
    if ref is None:
        raise ModelError(
            f"{where}: {needed_by} needs a model {{path or hub_id, revision, sha256, asset}}, none "
            "is named"
        )
    return ref.resolve(root)


def choose_device(name: str) -> torch.device:
    """The device a configuration asks for.

    Args:
        name: `auto`, or a name torch knows.

    Returns:
        For `auto` the GPU when there is one.

    Raises:
        ValueError: there is no such device here.
    """
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device: expected auto, cpu, cuda or cuda:N, got {name!r}") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {name!r}: torch sees no GPU here; use device='cpu'")
    return device


def hash_model(location: Path) -> str:
    """Hash of a model's file, or of all files of its folder with their relative names.

    Hidden files and folders (caches of download tools) do not count. A folder is hashed once in a
    process as long as its files keep their sizes and times.

    Args:
        location: file or folder.

    Returns:
        sha256, 64 hexadecimal digits.

    Raises:
        ModelError: the folder holds no file.
    """
    location = Path(location)
    files = [location] if location.is_file() else list(_files(location))
    if not files:
        raise ModelError(f"model: {location} holds no file")
    stats = tuple((str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in files)
    return _hash_files(location, stats)


@lru_cache(maxsize=64)
def _hash_files(location: Path, stats: tuple[tuple[str, int, int], ...]) -> str:
    if location.is_file():
        return _hash_file(location)
    digest = hashlib.sha256()
    for name, _, _ in stats:
        relative = Path(name).relative_to(location).as_posix()
        digest.update(f"{relative}\0{_hash_file(Path(name))}\n".encode())
    return digest.hexdigest()


def _hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.is_file() and not hidden:
            yield path
