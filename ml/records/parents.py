"""The assets that a run derives from, computed from its parameters rather than listed manually."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

BUILT_IN: Final[Mapping[tuple[str, str], Mapping[str, str | None]]] = {
    ("head_model", "source"): {
        "open": "open-head",
        "flame": None,
    },
    ("poses", "source"): {"sampled": "sampled-poses"},
    ("captions", "captioner"): {"scene-grammar": "scene-grammar"},
    ("images", "backend"): {"renderer": "renderer", "sdxl-pncc": "renderer"},
    ("head_detector", "source"): {"scratch": "rt-detr-from-scratch", "pretrained": None},
    ("annotations", "regressor.backend"): {
        "own": "crop-regressor",
        "dad": None,
        "landmarks": None,
    },
    ("filtered_dataset", "face_check.backend"): {"haar": "opencv-haar"},
}
"""Choices without a model file, and their assets; None where a file states it."""


_MODEL_SECTIONS: Final = frozenset({"trained_model", "trained_model_exact", "released_model"})
"""Stages that depend on the dataset."""


class UnknownParent(ValueError):
    """A run uses something that the asset register does not know."""


def derive_parents(values: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the registered names of all parents of a run with these parameters.

    Every model reference (`asset`, with `path` or `hub_id`) and every `source_asset` counts, and
    so do the embedded backends that are chosen.

    Args:
        values: params.yaml: section -> key -> value.

    Returns:
        The names, sorted; `permission` checks them against the register.

    Raises:
        UnknownParent: a file is used that names no entry of the register.
    """
    found = {name for section in values.values() for name in _references(section)}
    for (section, key), choices in BUILT_IN.items():
        choice = _value(values.get(section), key)
        if isinstance(choice, str) and choices.get(choice):
            found.add(str(choices[choice]))
    if _value(values.get("head_model"), "source") == "flame":
        asset = _value(values.get("head_model"), "source_asset")
        if not asset:
            raise UnknownParent(
                "head_model.source_asset: which FLAME release flame_file is decides what the "
                "results may be used for; set it to flame-2020 or flame-2023-open"
            )
    start = values.get("trained_model") or {}
    if start.get("initial_weights") and not start.get("source_asset"):
        raise UnknownParent(
            "trained_model.source_asset: which weights initial_weights are decides what the model "
            "may be used for; set it to their name in the register, such as yolo-nas-coco"
        )
    return tuple(sorted(found))


def dataset_parents(values: Mapping[str, Any]) -> tuple[str, ...]:
    """Return names in the asset register of all parents of a run's dataset.

    Args:
        values: params.yaml: section -> key -> value.

    Returns:
        Those of `derive_parents` without what only the detector descends from.

    Raises:
        UnknownParent: as `derive_parents`.
    """
    return derive_parents({k: v for k, v in values.items() if k not in _MODEL_SECTIONS})


def _references(value: Any) -> Iterator[str]:
    """Yield names of model files and sources anywhere in a section."""
    if isinstance(value, Mapping):
        if value.get("asset") and (value.get("path") or value.get("hub_id")):
            yield str(value["asset"])
        if value.get("source_asset"):
            yield str(value["source_asset"])
        for inner in value.values():
            yield from _references(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _references(inner)


def _value(section: Any, key: str) -> Any:
    for part in key.split("."):
        if not isinstance(section, Mapping):
            return None
        section = section.get(part)
    return section
