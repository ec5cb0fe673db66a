"""params.yaml: the values of the active profile, typed by section; and composing it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from io import StringIO
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, Field

from assets.stage_asset import StageAsset
from ml.records.atomic import write_text
from ml.records.config import StageConfig, parse_yaml, read_config

RUN = "run"


class RunConfig(StageConfig):
    """What every stage shares: the size of the dataset and how it is made."""

    profile: str
    """The profile these values come from (conf/<profile>.yaml)."""
    seed: int = Field(ge=0)
    """Every random choice derives from it and a sample's id."""
    num_shards: int = Field(ge=1)
    """Shards of the sharded stages; more of them can be added later, those made are kept."""
    shard_size: int = Field(ge=1)
    """Images in a shard."""
    workers: int = Field(ge=0)
    """Processes that make shards, 0 for none beside this one; never changes a byte."""
    threads: int = Field(ge=1)
    """Threads of a training stage."""


@dataclass(frozen=True)
class Params:
    """The content of params.yaml.

    Attributes:
        values: section -> key -> value, as read.
        path: the file, for error texts.
    """

    values: Mapping[str, Any]
    path: Path

    @property
    def run(self) -> RunConfig:
        """The shared values."""
        return read_config(RunConfig, RUN, self._section(RUN))

    def config(self, stage: StageAsset) -> StageConfig:
        """A stage's typed configuration.

        Raises:
            ValueError: a key is unknown, missing or of the wrong kind; names file, section, key.
        """
        config_class, section = stage.config_class(), self._section(stage.name)
        if missing := _missing(config_class, section):
            keys = ", ".join(f"{stage.name}.{key}" for key in missing)
            raise ValueError(
                f"{self.path.name}: no value for {keys}; `vggheads profile {self.run.profile}` "
                "writes the file with all keys"
            )
        return read_config(config_class, stage.name, section)

    def subset(self, keys: Iterable[str]) -> dict[str, Any]:
        """The values of some keys, written `section` or `section.key`, as in dvc.yaml.

        Raises:
            ValueError: a key does not exist.
        """
        found = {}
        for key in keys:
            value: Any = self.values
            for part in key.split("."):
                if not isinstance(value, Mapping) or part not in value:
                    raise ValueError(f"{self.path.name}: no value for {key}, a param in dvc.yaml")
                value = value[part]
            found[key] = value
        return found

    def _section(self, name: str) -> dict[str, Any]:
        if name not in self.values:
            raise ValueError(f"{self.path.name}: section '{name}' is missing")
        return dict(self.values[name] or {})


def read_params(root: Path, stages: Iterable[str]) -> Params:
    """Read params.yaml and check its sections.

    Args:
        root: the project folder.
        stages: the stages, each of which has a section.

    Raises:
        FileNotFoundError: there is no params.yaml.
        ValueError: a section is missing or unknown.
    """
    path = root / "params.yaml"
    if not path.exists():
        raise FileNotFoundError(f"{path}: not found; `vggheads profile demo` writes it")
    values = _parse(path.read_text())
    expected = {RUN, *stages}
    if unknown := sorted(set(values) - expected):
        raise ValueError(f"params.yaml: unknown sections {unknown}; known: {sorted(expected)}")
    if missing := sorted(expected - set(values)):
        raise ValueError(f"params.yaml: missing sections {missing}")
    return Params(values, path)


def compose(root: Path, profile: str, stages: Iterable[StageAsset]) -> str:
    """The text of params.yaml for a profile: every key of every stage, with what it means.

    A value comes from conf/<profile>.yaml, else from the profile that one `extends`, else from
    the stage's configuration class.

    Raises:
        FileNotFoundError: there is no such profile.
        ValueError: the profile has an unknown section or key, or a value of the wrong kind.
    """
    values = read_profile(root, profile)
    values.setdefault(RUN, {})["profile"] = profile
    classes: dict[str, type[StageConfig]] = {RUN: RunConfig}
    classes.update({stage.name: stage.config_class() for stage in stages})
    if unknown := sorted(set(values) - set(classes)):
        raise ValueError(f"conf/{profile}.yaml: unknown sections {unknown}; known: {list(classes)}")
    out = StringIO()
    out.write(
        f"# The values of every stage, from conf/{profile}.yaml. Edit them here: a changed value "
        "reruns\n# its stage and what depends on it. `vggheads profile NAME` writes this file.\n"
    )
    for name, config_class in classes.items():
        try:
            config = read_config(config_class, name, dict(values.get(name) or {}))
        except ValueError as error:
            raise ValueError(f"conf/{profile}.yaml: {error}") from error
        out.write("\n")
        _write_comment(out, (config_class.__doc__ or "").split("\n\n")[0], indent=0)
        out.write(f"{name}:")
        _write_model(out, config, indent=2)
    return out.getvalue()


def read_profile(root: Path, profile: str, seen: tuple[str, ...] = ()) -> dict[str, Any]:
    """The values of conf/<profile>.yaml laid over those of the profile it extends.

    Raises:
        FileNotFoundError: there is no such profile.
        ValueError: profiles extend each other in a circle.
    """
    if profile in seen:
        raise ValueError(f"conf: profiles extend each other: {' -> '.join((*seen, profile))}")
    path = root / "conf" / f"{profile}.yaml"
    if not path.exists():
        known = sorted(p.stem for p in path.parent.glob("*.yaml"))
        raise FileNotFoundError(f"{path}: no such profile; there are {known}")
    values = parse_yaml(path.read_text()) or {}
    parent = values.pop("extends", None)
    base = read_profile(root, parent, (*seen, profile)) if parent else {}
    return _merge(base, values)


def write_profile(root: Path, profile: str, stages: Iterable[StageAsset]) -> Path:
    """Write params.yaml for a profile; returns its path."""
    path = root / "params.yaml"
    write_text(path, compose(root, profile, stages))
    return path


@lru_cache(maxsize=8)
def _parse(text: str) -> Mapping[str, Any]:
    """Parsed once for each content: a run reads its values many times."""
    return parse_yaml(text) or {}


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _missing(config_class: type[BaseModel], section: Mapping[str, Any]) -> list[str]:
    """Keys of a configuration, nested ones dotted, for which the section holds no value."""
    missing = []
    for key, field in config_class.model_fields.items():
        if key not in section:
            missing.append(key)
        elif _is_model(field.annotation) and isinstance(section[key], Mapping):
            missing += [f"{key}.{sub}" for sub in _missing(field.annotation, section[key])]
    return missing


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _write_model(out: StringIO, model: BaseModel, indent: int) -> None:
    fields = type(model).model_fields
    if not fields:
        out.write(" {}\n")
        return
    out.write("\n")
    for key, field in fields.items():
        _write_comment(out, field.description or "", indent)
        value = getattr(model, key)
        out.write(f"{' ' * indent}{key}:")
        if isinstance(value, BaseModel):
            _write_model(out, value, indent + 2)
        else:
            out.write(f" {_yaml(model.model_dump(mode='json')[key])}\n")


def _write_comment(out: StringIO, text: str, indent: int) -> None:
    for line in textwrap.wrap(" ".join(text.split()), width=96 - indent):
        out.write(f"{' ' * indent}# {line}\n")


def _yaml(value: Any) -> str:
    """A value in YAML's flow style, on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False)
    return text.removesuffix("\n...\n").rstrip("\n")
