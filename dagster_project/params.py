"""params.yaml: the profile's name and what differs from the typed defaults."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

from pydantic import Field

from dagster_project.placement import Engine, RayConfig, WorkerConfig
from dagster_project.profiles import Profile, params_text, read_profile
from dagster_project.stage import Stage
from ml.records.config import (
    ConfigError,
    StageConfig,
    line_of,
    overlay,
    parse_yaml,
    read_config,
)

C = TypeVar("C", bound=StageConfig)
RUN: Final = "run"
NAME: Final = "params.yaml"
LIKE: Final = "like"
"""In a section: the section whose values are inherited, unless overridden here."""


class RunConfig(StageConfig):
    """Settings that all stages share: size of the dataset and execution."""

    profile: str
    """The profile these values come from (conf/<profile>.yaml)."""
    seed: int = Field(ge=0, lt=2**63)
    """Run seed; every random choice is derived from it and a sample id."""
    num_shards: int = Field(ge=1, le=100_000)
    """Shards of the sharded stages; increasing the number keeps finished shards."""
    shard_size: int = Field(ge=1, le=1_000_000)
    """Images in a shard."""
    workers: int = Field(ge=0, le=4096)
    """Worker processes for shards; 0: the main process only. Has no effect on results."""
    threads: int = Field(ge=1, le=4096)
    """Threads of a training."""
    engine: Engine = "local"
    """Where shards are made: `local` processes or actors of a `ray` cluster; has no effect on
    results."""
    ray: RayConfig = RayConfig()
    """How to reach the cluster of the engine `ray`."""
    resources: dict[str, WorkerConfig] = Field(default_factory=dict)
    """Stage -> resources of each of its workers."""


@dataclass(frozen=True)
class Params:
    """The content of params.yaml.

    Attributes:
        written: section -> key -> value, as in the file.
        text: the file's text, for the lines in error texts.
        name: the file's name, likewise.
    """

    written: Mapping[str, Any]
    text: str
    name: str = NAME

    @property
    def values(self) -> dict[str, dict[str, Any]]:
        """Section -> key -> value where it differs from the default, with `like` resolved."""
        return {name: self._section(name) for name in self.written}

    @property
    def run(self) -> RunConfig:
        """The shared values."""
        return self.read(RunConfig, RUN)

    def config(self, stage: Stage) -> StageConfig:
        """Return a stage's typed configuration.

        Raises:
            ValueError: a key is unknown, missing or of the wrong kind; names file, line and key.
        """
        return self.read(stage.config_class(), stage.name)

    def effective(self, stages: Iterable[Stage]) -> dict[str, dict[str, Any]]:
        """Return the section -> every key -> value, defaults included.

        Imports all stages' libraries.
        """
        found: dict[str, StageConfig] = {RUN: self.run}
        found.update({stage.name: self.config(stage) for stage in stages})
        return {name: config.model_dump(mode="json") for name, config in found.items()}

    def read(self, config_class: type[C], section: str) -> C:
        """Return a section, typed.

        Args:
            config_class: of the section, or of its part that `section` names.
            section: its name; a dotted one names a part.

        Raises:
            ValueError: a key is unknown, missing or of the wrong kind; names file, line and key.
        """
        top, *parts = section.split(".")
        values: Any = self._section(top)
        for part in parts:
            values = values.get(part) or {}
        try:
            return read_config(config_class, section, values)
        except ConfigError as error:
            self._refuse(error)

    def subset(self, keys: Iterable[str]) -> dict[str, Any]:
        """Return the values of some keys, written `section` or `section.key`, as in dvc.yaml.

        Raises:
            ValueError: a key does not exist.
        """
        found = {}
        for key in keys:
            value: Any = self.values
            for part in key.split("."):
                if not isinstance(value, Mapping) or part not in value:
                    raise ValueError(f"{self.name}: no value for {key}, a param in dvc.yaml")
                value = value[part]
            found[key] = value
        return found

    def _section(self, name: str) -> dict[str, Any]:
        if name not in self.written:
            raise ValueError(f"{self.name}: section '{name}' is missing")
        own = dict(self.written[name] or {})
        like = own.pop(LIKE, None)
        if like is None:
            return own
        if like not in self.written or LIKE in (self.written[like] or {}):
            line = line_of(self.text, (name, LIKE))
            raise ValueError(
                f"{self.name}:{line}: {name}.{LIKE}: expected a section that is like no other one, "
                f"got {like!r}"
            )
        return overlay(self.written[like] or {}, own)

    def _refuse(self, error: ConfigError) -> NoReturn:
        """Describe an error with its file and line, on one line."""
        sections = [error.section.split(".")]
        if like := (self.written[sections[0][0]] or {}).get(LIKE):
            sections.append([like, *sections[0][1:]])
        texts = []
        for place, problem in error.problems:
            lines = [line_of(self.text, (*section, *place)) for section in sections]
            line = max((found for found in lines if found), default=None)
            where = ".".join((error.section, *place))
            texts.append(f"{self.name}:{line}: {where}: {problem}")
        raise ValueError("; ".join(texts)) from error


def read_params(root: Path, stages: Iterable[str]) -> Params:
    """Read params.yaml and check its sections.

    Args:
        root: the project folder.
        stages: the stages, each of which has a section.

    Raises:
        FileNotFoundError: there is no params.yaml.
        ValueError: it is not YAML, or a section is missing or unknown.
    """
    path = root / NAME
    if not path.exists():
        raise FileNotFoundError(f"{path}: not found; `vggheads profile demo` writes it")
    text = path.read_text()
    written = _parse(text)
    _check_sections(NAME, text, written, stages)
    if missing := sorted({RUN, *stages} - set(written)):
        raise ValueError(f"{NAME}: missing sections {missing}; add each, as `{missing[0]}: {{}}`")
    return Params(written, text)


def profile_params(root: Path, name: str, stages: Iterable[Stage]) -> Params:
    """Return the checked content of params.yaml for a profile.

    Raises:
        FileNotFoundError: there is no such profile.
        ValueError: the profile has an unknown section or key, or a value of the wrong kind.
    """
    stages = list(stages)
    profile = with_name(read_profile(root, name))
    sections = [RUN, *(stage.name for stage in stages)]
    for file in profile.files:
        text = (root / file).read_text()
        _check_sections(file, text, parse_yaml(text, file) or {}, sections, ("extends",))
    text = params_text(profile, sections)
    params = Params(parse_yaml(text), text, f"conf/{name}.yaml")
    try:
        params.effective(stages)
    except ValueError as error:
        if isinstance(error.__cause__, ConfigError):
            raise ValueError(_in_files(root, profile, error.__cause__)) from error
        raise
    return params


def with_name(profile: Profile) -> Profile:
    """Return the profile with its name among its values, as params.yaml holds it."""
    run = {"profile": profile.name, **(profile.values.get(RUN) or {})}
    return Profile(profile.name, {**profile.values, RUN: run}, profile.origins, profile.files)


def _check_sections(
    file: str, text: str, values: Any, stages: Iterable[str], also: tuple[str, ...] = ()
) -> None:
    """Check that the document has known sections only."""
    if not isinstance(values, dict):
        raise ValueError(f"{file}: expected sections with values, got {type(values).__name__}")
    expected = {RUN, *stages, *also}
    for name, section in values.items():
        if name not in expected:
            line = line_of(text, (str(name),))
            known = ", ".join(sorted(expected))
            raise ValueError(f"{file}:{line}: unknown section '{name}'; allowed: {known}")
        if name not in also and not isinstance(section, dict | None):
            line = line_of(text, (name,))
            raise ValueError(f"{file}:{line}: section '{name}': expected keys with values")
    resources = (values.get(RUN) or {}).get("resources")
    for name in resources if isinstance(resources, dict) else ():
        if name not in expected - {RUN, *also}:
            line = line_of(text, (RUN, "resources", str(name)))
            raise ValueError(f"{file}:{line}: run.resources.{name}: there is no such stage")


def _in_files(root: Path, profile: Profile, error: ConfigError) -> str:
    """Return an error's text with the profile's files, which state the values, and lines."""
    texts = []
    for place, problem in error.problems:
        full = (*error.section.split("."), *place)
        found = f"conf/{profile.name}.yaml"
        for file in reversed(profile.files):
            text = (root / file).read_text()
            if any(
                full[: len(origin)] == origin or origin[: len(full)] == full
                for origin, by in profile.origins.items()
                if by == file
            ):
                found = f"{file}:{line_of(text, full)}"
                break
        texts.append(f"{found}: {'.'.join(full)}: {problem}")
    return "; ".join(texts)


@lru_cache(maxsize=8)
def _parse(text: str) -> Any:
    """Return parsed once for each content: a run reads its values many times."""
    return parse_yaml(text, NAME) or {}
