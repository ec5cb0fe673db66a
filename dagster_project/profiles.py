"""The profiles in conf/: composing them, and the overrides of params.yaml."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any, Final

from ml.records.config import overlay, parse_yaml

Place = tuple[str, ...]
"""Keys from the section down to a value."""
NOT_SET: Final = "not set"
_ON_ONE_LINE: Final = 3
"""Maximum number of values of a section part written on one line."""
_HEADER: Final = """\
# Profile {profile}: what differs from the defaults of the stages' configuration classes. Edit it: a
# changed value reruns its stage and what depends on it. `vggheads config [STAGE]` prints every
# value and where it comes from; `vggheads profile NAME` writes another profile.
"""


@dataclass(frozen=True)
class Profile:
    """A composed profile.

    Attributes:
        name: of the profile.
        values: section -> key -> value, as the files state them.
        origins: place of every value -> the file that states it, such as `conf/demo.yaml`.
        files: the files, from the first parent to the profile's own.
    """

    name: str
    values: Mapping[str, Any]
    origins: Mapping[Place, str]
    files: tuple[str, ...]


@dataclass(frozen=True)
class Edit:
    """A value of params.yaml that is not its profile's.

    Attributes:
        place: section and keys.
        value: in params.yaml; `NOT_SET` if only the profile has it.
        profile_value: in the profile; `NOT_SET` if only params.yaml has it.
    """

    place: Place
    value: Any
    profile_value: Any

    def __str__(self) -> str:
        shown = [v if v is NOT_SET else repr(v) for v in (self.value, self.profile_value)]
        return f"{'.'.join(self.place)}: {shown[0]} (profile: {shown[1]})"


def read_profile(root: Path, name: str) -> Profile:
    """Compose a profile: its own values over those of its parents, a later parent over an earlier.

    Args:
        root: the project folder.
        name: conf/<name>.yaml; its key `extends` names a parent or a list of them.

    Raises:
        FileNotFoundError: there is no such profile.
        ValueError: a file is not YAML, or profiles extend each other in a circle.
    """
    values: dict[str, Any] = {}
    origins: dict[Place, str] = {}
    files: list[str] = []
    for file, own in _lineage(root, name, ()):
        if file not in files:
            files.append(file)
        values = overlay(values, own)
        kept = dict(leaves(values))
        origins = {place: origins[place] for place in kept if place in origins}
        origins.update({place: file for place, _ in leaves(own)})
    return Profile(name, values, origins, tuple(files))


def leaves(values: Mapping[str, Any], above: Place = ()) -> Iterator[tuple[Place, Any]]:
    """Yield the place and value of every leaf of nested mappings."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, (*above, str(key)))
        else:
            yield (*above, str(key)), value


def edits(profile: Profile, values: Mapping[str, Any]) -> list[Edit]:
    """Return where values are not their profile's.

    Args:
        profile: the profile that they were written from.
        values: content of params.yaml.
    """
    old = {place: value for place, value in leaves(profile.values) if value != {}}
    new = {place: value for place, value in leaves(values) if value != {}}
    return [
        Edit(place, new.get(place, NOT_SET), old.get(place, NOT_SET))
        for place in dict.fromkeys([*old, *new])
        if place != ("run", "profile") and new.get(place, NOT_SET) != old.get(place, NOT_SET)
    ]


def params_text(profile: Profile, sections: list[str]) -> str:
    """Return the text of params.yaml for a profile, in the form in which DVC writes it back.

    Args:
        profile: the profile.
        sections: all sections, in order; each is written, for DVC looks for it.
    """
    from ruamel.yaml import YAML

    values = {name: dict(profile.values.get(name) or {}) for name in sections}
    out = StringIO(_HEADER.format(profile=profile.name))
    out.seek(0, 2)
    yaml = YAML()
    yaml.default_flow_style = False
    yaml.dump({name: _arranged(section) for name, section in values.items()}, out)
    return out.getvalue()


def _arranged(value: Any, top: bool = True) -> Any:
    """Copy values with model references and short parts on one line; DVC keeps no list on one."""
    from ruamel.yaml.comments import CommentedMap

    if not isinstance(value, Mapping):
        return value
    arranged = CommentedMap({key: _arranged(inner, top=False) for key, inner in value.items()})
    flat = not any(isinstance(inner, Mapping | list) for inner in value.values())
    if flat and ("asset" in value or (not top and len(value) <= _ON_ONE_LINE)):
        arranged.fa.set_flow_style()
    return arranged


def _lineage(root: Path, name: str, below: Place) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the files of a profile with their own values, parents first."""
    if name in below:
        raise ValueError(f"conf: profiles extend each other: {' -> '.join((*below, name))}")
    path = root / "conf" / f"{name}.yaml"
    if not path.exists():
        known = ", ".join(sorted(p.stem for p in path.parent.glob("*.yaml")))
        raise FileNotFoundError(f"{path}: no such profile; there are {known}")
    values = parse_yaml(path.read_text(), f"conf/{name}.yaml") or {}
    if not isinstance(values, dict):
        raise ValueError(f"conf/{name}.yaml: expected sections with values, got {values!r}")
    parents = values.pop("extends", None) or []
    for parent in [parents] if isinstance(parents, str) else parents:
        yield from _lineage(root, parent, (*below, name))
    yield f"conf/{name}.yaml", values
