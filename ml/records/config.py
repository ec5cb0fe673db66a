"""The base of every stage's configuration."""

from __future__ import annotations

from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

C = TypeVar("C", bound="StageConfig")
#: libyaml's parser, where PyYAML was built with it, takes an eighth of the time.
_LOADER = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader


class StageConfig(BaseModel):
    """Typed, immutable, documented per field; unknown keys are errors."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, protected_namespaces=()
    )

    @property
    def switched_off(self) -> bool:
        """Whether the stage is told to leave a note instead of work; then it logs no run."""
        return False


def parse_yaml(text: str) -> Any:
    """The plain values of a YAML document: nothing in it is executed.

    Args:
        text: the document.

    Returns:
        Mappings, lists, strings, numbers; None for an empty document.

    Raises:
        yaml.YAMLError: it is not YAML.
    """
    return yaml.load(text, Loader=_LOADER)


def read_config(config_class: type[C], section: str, values: dict[str, Any]) -> C:
    """Build a stage's configuration from its section of params.yaml.

    Args:
        config_class: the stage's `StageConfig`.
        section: the section's name, for the error text.
        values: the section as read from YAML.

    Raises:
        ValueError: a key is unknown, missing or of the wrong kind; all of them are named.
    """
    try:
        return config_class.model_validate(values)
    except ValidationError as error:
        known = ", ".join(config_class.model_fields)
        problems = "; ".join(
            f"{section}.{'.'.join(map(str, e['loc']))}: {e['msg']}, got {e['input']!r}"
            for e in error.errors()
        )
        raise ValueError(f"params.yaml: {problems}. Known keys of '{section}': {known}") from error
