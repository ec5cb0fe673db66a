"""Every number of every configuration has a finite range; NaN and infinity are in none."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Any, get_args

import pytest
from pydantic import ConfigDict, TypeAdapter, ValidationError

from dagster_project.params import RunConfig
from dagster_project.stages import STAGES
from ml.generation.controlnet.train import ControlNetConfig
from ml.records.config import StageConfig, read_config

WRONG = (math.nan, math.inf, -math.inf, -1e9, 1e30)


def classes() -> set[type[StageConfig]]:
    """All configuration classes that params.yaml or a training's file can reach."""
    found: set[type[StageConfig]] = set()
    todo = [RunConfig, ControlNetConfig, *(stage.config_class() for stage in STAGES.values())]
    while todo:
        config = todo.pop()
        if config in found:
            continue
        found.add(config)
        for field in config.model_fields.values():
            todo += [
                kind
                for kind in (field.annotation, *get_args(field.annotation))
                if isinstance(kind, type) and issubclass(kind, StageConfig)
            ]
    return found


def numeric_fields() -> Iterator[tuple[str, Any, Any]]:
    for config in classes():
        for name, field in config.model_fields.items():
            if kind := number_in(field.annotation):
                yield f"{config.__name__}.{name}", field, kind


def number_in(annotation: Any) -> type | None:
    """int or float, if the annotation is one, or holds one at any depth."""
    if annotation in (int, float):
        return annotation
    return next((kind for a in get_args(annotation) if (kind := number_in(a))), None)


def test_every_number_has_a_finite_range():
    fields = list(numeric_fields())
    assert len(fields) > 200
    accepted = []
    for name, field, kind in fields:
        whole = TypeAdapter(
            Annotated[field.annotation, field], config=ConfigDict(allow_inf_nan=False)
        )
        for value in WRONG:
            number = int(value) if kind is int and math.isfinite(value) else value
            arguments = [a for a in get_args(field.annotation) if a is not Ellipsis]
            is_tuple = str(field.annotation).startswith("tuple")
            given = tuple([number] * len(arguments)) if is_tuple else number
            try:
                whole.validate_python(given)
            except ValidationError:
                continue
            accepted.append(f"{name} takes {value}")
    assert not accepted, f"give each a range (ml/records/config.py has types): {accepted}"


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_stage_refuses_what_is_not_finite(value):
    config = STAGES["trained_model"].config_class()
    with pytest.raises(ValueError, match=r"trained_model.optim.lr: Input should be"):
        read_config(config, "trained_model", {"optim": {"lr": value}})
