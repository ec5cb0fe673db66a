"""References to third-party model files: where they are, which bytes, what licence."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, model_validator

from ml.records.config import StageConfig
from ml.records.hub import HubError, download_file, download_folder, listed
from ml.records.register import lookup

if TYPE_CHECKING:
    import torch

_COMMIT = re.compile(r"[0-9a-f]{40}")
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".msgpack", ".h5", ".onnx")
_INDEX = "model_index.json"


class ModelError(ValueError):
    """A referenced model is missing or has another hash or kind than stated."""


class ModelRef(StageConfig):
    """A folder of a model's files, or a repository of a model hub at one commit."""

    path: str = ""
    """File or folder, relative to the project; alternative to `hub_id`."""
    hub_id: str = ""
    """Repository of the model hub, `owner/name`."""
    revision: str = ""
    """Commit of the hub's repository, 40 hexadecimal digits; branches are rejected, because they
    move."""
    file: str = ""
    """With `hub_id`, for single-file models: name of the file in the repository."""
    variant: str = Field("", pattern=r"^\w*$")
    """Set of weights in this folder, such as fp16; empty: the default weights."""
    sha256: str = Field("", pattern="^([0-9a-f]{64})?$")
    """Result of `hash_model` for the file or folder; empty accepts any and records its hash."""
    asset: str = Field(min_length=1)
    """Name in the asset register, which states the licence and permitted uses."""

    is_file: ClassVar[bool | None] = False
    """Whether the model is a single file (ONNX, TorchScript, a checkpoint); None: either."""

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
        if self.path and (self.revision or self.file):
            surplus = "revision" if self.revision else "file"
            raise ValueError(
                f"model '{self.asset}': a path has no {surplus}; "
                + ("state its sha256 instead" if self.revision else "name the file in path")
            )
        return self

    @model_validator(mode="after")
    def _one_kind(self) -> ModelRef:
        if self.is_file is not None:
            self.check_kind(self.is_file)
        parts = PurePosixPath(self.file).parts
        if ".." in parts or self.file.startswith("/") or "\\" in self.file:
            raise ValueError(
                f"model '{self.asset}': file must be a name inside {self.hub_id}, got {self.file!r}"
            )
        return self

    def check_kind(self, is_file: bool) -> None:
        """Check that the reference names the model's kind: one file, or a folder.

        Args:
            is_file: whether the model is one file.

        Raises:
            ValueError: it names the other kind, or an option of the other kind.
        """
        if is_file and self.hub_id and not self.file:
            raise ValueError(
                f"model '{self.asset}': {self.hub_id} is a repository, and one file is needed; "
                "name it: file: <name in the repository>"
            )
        if is_file and self.variant:
            raise ValueError(
                f"model '{self.asset}': a file has no variant, got {self.variant!r}; name the file"
            )
        if not is_file and self.file:
            raise ValueError(
                f"model '{self.asset}': the whole folder is loaded, not the file {self.file!r}; "
                "leave file out"
            )
        if not is_file and self.hub_id and self.sha256:
            raise ValueError(
                f"model '{self.asset}': the revision pins every file of {self.hub_id}; leave "
                "sha256 out"
            )

    @property
    def source(self) -> str:
        """The configured source: path, repository, or repository and file."""
        return self.path or "/".join(part for part in (self.hub_id, self.file) if part)

    def resolve(self, root: Path) -> Model:
        """Find the model and check that it is the one meant; a hub's file is downloaded.

        Args:
            root: the project folder, to which `path` is relative.

        Returns:
            The model, ready to be loaded.

        Raises:
            ModelError: there is no such file or folder, or its hash is another one.
            KeyError: the asset register does not know `asset`.
        """
        licence = lookup(self.asset).licence
        if self.hub_id and not self.file:
            return Model(self, self.hub_id, self.revision, licence)
        location = self._locate(Path(root))
        found = hash_model(location)
        if self.sha256 and found != self.sha256:
            raise ModelError(
                f"model '{self.asset}': {location} has sha256 {found}, expected {self.sha256}; "
                "bring the expected files, or correct sha256 in params.yaml"
            )
        return Model(self, str(location), found, licence)

    def _locate(self, root: Path) -> Path:
        if self.hub_id:
            try:
                return download_file(self.hub_id, self.revision, self.file)
            except HubError as error:
                raise ModelError(f"model '{self.asset}': {error}") from error
        location = root / self.path
        if not location.exists():
            raise ModelError(
                f"model '{self.asset}': nothing at {location}; bring its files there, or name "
                "another path in params.yaml"
            )
        if self.is_file and not location.is_file():
            raise ModelError(
                f"model '{self.asset}': {location} is a folder, and one file is needed; it has "
                f"{', '.join(p.name for p in sorted(location.iterdir())) or 'no file'}"
            )
        return location


class ModelFile(ModelRef):
    """A model of one file: ONNX, TorchScript, a checkpoint; of a hub, `file` names it."""

    is_file: ClassVar[bool | None] = True


class FileOrFolder(ModelRef):
    """A model whose backend decides which of the two it is; the section's rules check it."""

    is_file: ClassVar[bool | None] = None


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
        """Return keyword arguments for a `from_pretrained` call, in addition to the location.

        Returns:
            The commit for the hub; for a folder that nothing may be downloaded.
        """
        return {"revision": self.version} if self.ref.hub_id else {"local_files_only": True}

    def folder(self, patterns: Sequence[str]) -> Path:
        """Have files of the model in a local folder.

        Args:
            patterns: which files of a hub's repository are needed, such as `*.json`.

        Returns:
            The model's own folder, or the commit's in the hub's local cache.

        Raises:
            ModelError: the hub's files cannot be had.
        """
        if not self.ref.hub_id:
            return Path(self.location)
        try:
            return download_folder(self.ref.hub_id, self.version, patterns)
        except HubError as error:
            raise ModelError(f"model '{self.name}': {error}") from error

    def load(self, kind: Any, **options: Any) -> Any:
        """Load the model's weights, those of its variant, through its library.

        Args:
            kind: class with a `from_pretrained` method.
            options: further arguments of that method.

        Returns:
            What the method returns.

        Raises:
            ModelError: the files are not those of such a model, or have no such variant.
        """
        if self.ref.variant:
            options["variant"] = self.ref.variant
            self._require_variant()
        return self.load_part(kind, **options)

    def load_part(self, kind: Any, **options: Any) -> Any:
        """Load a part without weights, and so without variant: a tokenizer, an image processor.

        Args:
            kind: class with a `from_pretrained` method.
            options: further arguments of that method.

        Returns:
            What the method returns.

        Raises:
            ModelError: the files are not those of such a part.
        """
        try:
            return kind.from_pretrained(self.location, **self.arguments(), **options)
        except (OSError, ValueError, KeyError) as error:
            asked = f" with variant {self.ref.variant!r}" if "variant" in options else ""
            raise ModelError(
                f"model '{self.name}': {self.location} cannot be loaded as {kind.__name__}{asked}: "
                f"{error}; {self._files_there()}"
            ) from error

    def _require_variant(self) -> None:
        """Check that every part of a local folder with weights has those of the variant."""
        if self.ref.hub_id:
            return
        folder, mark = Path(self.location), f".{self.ref.variant}"
        for part, names in _weights_by_part(folder).items():
            if not any(mark in Path(name).suffixes or f"{mark}-" in name for name in names):
                where = f" in {part}" if part else ""
                raise ModelError(
                    f"model '{self.name}': {folder} has no weights of variant "
                    f"{self.ref.variant!r}{where}; {self._files_there()}. Set another variant, or "
                    "none, at this reference"
                )

    def _files_there(self) -> str:
        if self.ref.hub_id:
            return listed(self.ref.hub_id, self.version)
        folder = Path(self.location)
        names = [p.relative_to(folder).as_posix() for p in _files(folder)]
        return f"its files are {', '.join(names)}" if names else "it has no files"

    def record(self) -> dict[str, str]:
        """Return the model's entry in the lineage.

        Returns:
            Register name, source as configured, version (sha256 or commit) and licence; the
            variant where one is named.
        """
        variant = {"variant": self.ref.variant} if self.ref.variant else {}
        return {
            "asset": self.name,
            "source": self.ref.source,
            "version": self.version,
            "licence": self.licence,
            **variant,
        }


def require(ref: ModelRef | None, where: str, needed_by: str, root: Path) -> Model:
    """Resolve a reference that a backend cannot do without.

    Args:
        ref: the reference, or None when params.yaml names none.
        where: its place in params.yaml, for the error message.
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
    """Return the device a configuration asks for.

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
    """Return the hash of a model's file, or of all files of its folder with their relative names.

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


def hash_stage(folder: Path) -> str:
    """Return the hash of a stage's results: what was loaded from them is stale when it changes.

    Args:
        folder: the stage's folder.

    Returns:
        As `hash_model`; empty where there is no file, which loading the results reports.
    """
    return hash_model(folder) if any(_files(Path(folder))) else ""


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


def _weights_by_part(folder: Path) -> dict[str, list[str]]:
    """Return part of a pipeline ("" for a model that has none) -> names of its files of weights."""
    index = folder / _INDEX
    parts = [""]
    if index.is_file():
        parts = [str(name) for name in json.loads(index.read_text("utf-8"))]
    found = {
        part: [p.name for p in sorted((folder / part).glob("*")) if p.suffix in _WEIGHTS]
        for part in parts
    }
    return {part: names for part, names in found.items() if names}


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.is_file() and not hidden:
            yield path
