"""The base of every stage's configuration, and reading values that a person wrote."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ml.records.limits import MAX_YAML_BYTES, MAX_YAML_VALUES, LimitExceeded, check_limit

C = TypeVar("C", bound="StageConfig")

Fraction = Annotated[float, Field(ge=0, le=1)]
"""A fraction or probability."""
NonNegative = Annotated[float, Field(ge=0, le=1e6)]
"""A size, strength or weight; 0 is none."""
Positive = Annotated[float, Field(gt=0, le=1e6)]
"""A factor."""
Count = Annotated[int, Field(ge=1, le=10**9)]
"""A number of things, at least one."""
Index = Annotated[int, Field(ge=0, le=10**9)]
"""A number of things or an index, from 0."""

_BASE: Any = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
"""libyaml's parser, where PyYAML was built with it, takes an eighth of the time."""


class ConfigError(ValueError):
    """Values that are wrong, each with its place.

    Attributes:
        section: the section of the values.
        problems: the place of each wrong value below the section, and the error.
    """

    def __init__(self, section: str, problems: list[tuple[tuple[str, ...], str]]) -> None:
        """Compose the text.

        Args:
            section: the section of the values.
            problems: place and text of each problem.
        """
        self.section, self.problems = section, problems
        super().__init__(
            "; ".join(f"{'.'.join((section, *place))}: {text}" for place, text in problems)
        )


class StageConfig(BaseModel):
    """Typed, immutable, documented per field; unknown keys, NaN and infinity are errors."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        protected_namespaces=(),
        allow_inf_nan=False,
    )

    @property
    def switched_off(self) -> bool:
        """Whether the stage is disabled: it writes a note instead of results and logs no run."""
        return False


class _Loader(_BASE):
    """Plain values as YAML 1.2 reads them and DVC writes them; keys are unique."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Build a mapping whose keys differ.

        Args:
            node: the mapping in the document.
            deep: build the values at once.

        Raises:
            yaml.constructor.ConstructorError: a key is given twice.
        """
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key '{key.value}' is given twice", key.start_mark
                    )
                seen.add(key.value)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping


# YAML 1.1 takes `no` and `on` for booleans, 1:30 for a number and 1e-6 for text; YAML 1.2 does not.
_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)|0x[0-9a-fA-F]+", "-+0123456789"),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("float", r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", "-+."),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("merge", r"<<", "<"),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first)
    )


def parse_yaml(text: str, name: str = "YAML") -> Any:
    """Return the plain values of a YAML document: nothing in it is executed.

    Args:
        text: the document.
        name: the file's name, for the error message.

    Returns:
        Mappings, lists, strings, numbers; None for an empty document.

    Raises:
        ValueError: it is not YAML, too large, unfolds to too much by its aliases, or a key occurs
            twice; on one line, with file and line.
    """
    try:
        check_limit(len(text), MAX_YAML_BYTES, "characters")
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _check_aliases(node)
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except LimitExceeded as error:
        raise ValueError(f"{name}: {error}") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        problem = " ".join(str(error.problem or error.context).split())
        raise ValueError(f"{name}{line}: {problem}") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ValueError(f"{name}: not YAML: {' '.join(str(error).split())[:200]}") from error


def _check_aliases(document: yaml.Node) -> None:
    """Reject a small document that expands to a large or infinite one.

    An alias costs nothing until something walks over what it names: merging does, and so does
    every check of the values.

    Raises:
        LimitExceeded: written out, it has too many values.
        yaml.constructor.ConstructorError: an alias occurs inside the node that it refers to.
    """
    sizes: dict[yaml.Node, int] = {}
    open_nodes: set[yaml.Node] = set()

    def size(node: yaml.Node) -> int:
        if isinstance(node, yaml.ScalarNode):
            return 1
        if node in sizes:
            return sizes[node]
        if node in open_nodes:
            raise yaml.constructor.ConstructorError(
                None, None, "an alias occurs inside the node that it refers to", node.start_mark
            )
        open_nodes.add(node)
        pairs = isinstance(node, yaml.MappingNode)
        parts = [part for pair in node.value for part in pair] if pairs else node.value
        sizes[node] = 1 + sum(map(size, parts))
        check_limit(sizes[node], MAX_YAML_VALUES, "values, with aliases written out")
        open_nodes.remove(node)
        return sizes[node]

    size(document)


def line_of(text: str, path: Sequence[str]) -> int | None:
    """Return the line number of a value, counted from 1.

    Args:
        text: a YAML document.
        path: keys from the top; if one is missing, its parent is used.

    Returns:
        The line of the deepest key that exists, None if not even the first does.
    """
    node, line = yaml.compose(text, Loader=_Loader), None
    for part in path:
        if not isinstance(node, yaml.MappingNode):
            break
        found = [(k, v) for k, v in node.value if k.value == part]
        if not found:
            break
        key, node = found[0]
        line = key.start_mark.line + 1
    return line


def read_config(config_class: type[C], section: str, values: Mapping[str, Any]) -> C:
    """Build a configuration from the values that differ from its defaults.

    Args:
        config_class: the `StageConfig`.
        section: the section's name, for the error message.
        values: the section as read from YAML; a nested mapping states what differs from the
            default of its field.

    Raises:
        ConfigError: a key is unknown, missing or of the wrong kind; all of them are named.
    """
    try:
        return config_class.model_validate(overlay(defaults_of(config_class), values))
    except ValidationError as error:
        raise ConfigError(
            section,
            [
                (tuple(map(str, e["loc"])), _problem(config_class, e["loc"], e["msg"], e["input"]))
                for e in error.errors()
            ],
        ) from error


def overlay(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return values laid over others, nested mappings key by key.

    Args:
        base: the inherited values.
        over: the overriding values.
    """
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = overlay(merged[key], value) if both else value
    return merged


def defaults_of(config_class: type[BaseModel]) -> dict[str, Any]:
    """Return the default of every field that has one, nested configurations as mappings."""
    found = {}
    for name, field in config_class.model_fields.items():
        if not field.is_required():
            value = field.get_default(call_default_factory=True)
            found[name] = value.model_dump() if isinstance(value, BaseModel) else value
    return found


def _problem(
    config_class: type[BaseModel], place: Sequence[str | int], message: str, given: Any
) -> str:
    """Return the error, the given value, and for an unknown key the known ones."""
    if not message.startswith("Extra inputs"):
        message = message.removeprefix("Value error, ")
        shown = "" if isinstance(given, Mapping) else f", got {reprlib.repr(given)}"
        return f"{message}{shown}"
    owner: Any = config_class
    for part in place[:-1]:
        field = owner.model_fields.get(part) if _is_model(owner) else None
        owner = _model_in(field.annotation) if field else None
    return f"unknown key; allowed: {', '.join(owner.model_fields)}" if owner else "unknown key"


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """Return the configuration class in `X` or `X | None`."""
    return next((kind for kind in (annotation, *get_args(annotation)) if _is_model(kind)), None)


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)
