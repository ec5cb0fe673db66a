"""The base of every stage's configuration."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

C = TypeVar("C", bound="StageConfig")


class StageConfig(BaseModel):
    """Typed, immutable, documented per field; unknown keys are errors."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, protected_namespaces=()
    )

    @property
    def switched_off(self) -> bool:
        """Whether the stage is told to leave a note instead of work; then it logs no run."""
        return False


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
