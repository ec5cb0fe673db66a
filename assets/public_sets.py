"""The public benchmark sets: external assets, versioned by a hash of their content.

A set is disabled until params.yaml states its folder in `benchmark_scores.sets`. An observation
hashes its files; `benchmark_scores` rejects a set whose hash differs from that in params.yaml.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import dagster as dg

from ml.benchmarks.config import PublicSetName
from ops.resources import Dataset

GROUP = "public_sets"
READER = "benchmark_scores"
DISABLED = "disabled"
_SAME_FOLDER = {"dad-test": "dad", "now-test": "now"}
"""Sets without public ground truth are in the folders of these."""
NAMES = tuple(name for name in get_args(PublicSetName) if name not in _SAME_FOLDER)


def set_key(name: str) -> dg.AssetKey:
    """Return the key of a set's asset."""
    return dg.AssetKey([GROUP, name])


def observe_set(values: Mapping[str, Mapping[str, Any]], name: str) -> dg.ObserveResult:
    """Report the current content of a set.

    Args:
        values: effective values, section -> key -> value.
        name: the set.

    Raises:
        dg.Failure: there is nothing at the configured path.
    """
    from ml.benchmarks.content import content_of

    configured = values[READER]["sets"].get(name)
    if configured is None:
        how = f"state its folder in params.yaml: {READER}.sets.{name}.data"
        return dg.ObserveResult(
            asset_key=set_key(name),
            data_version=dg.DataVersion(DISABLED),
            metadata={"state": DISABLED, "to enable it": how},
        )
    path = Path(configured["data"])
    try:
        found = content_of(path)
    except FileNotFoundError as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    stated = configured["content"]
    state = "as params.yaml states" if found == stated else "content differs from params.yaml"
    return dg.ObserveResult(
        asset_key=set_key(name),
        data_version=dg.DataVersion(found),
        metadata={"state": state, "folder": str(path), "content": found, "stated": stated},
    )


def _set_asset(name: str) -> dg.SourceAsset:
    from ml.benchmarks.sets import benchmark_set

    @dg.observable_source_asset(
        key=set_key(name),
        group_name=GROUP,
        description=(
            f"{benchmark_set(name).title} in the layout of its publisher. Disabled until "
            f"`{READER}.sets.{name}` in params.yaml states its folder; docs/benchmarks describes "
            "how to obtain it. Its version is the hash of its files."
        ),
    )
    def observe(dataset: Dataset) -> dg.ObserveResult:
        return observe_set(dataset.values(), name)

    return observe


def public_sets() -> list[dg.SourceAsset]:
    """Return the sets' assets."""
    with warnings.catch_warnings():
        # Observable source assets are beta in Dagster 1.13, and it says so for every one.
        warnings.simplefilter("ignore", dg.BetaWarning)
        return [_set_asset(name) for name in NAMES]
