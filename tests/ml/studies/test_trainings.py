"""The three studies that train, really trained: tables 7, 2 and 5 from a handful of tiny images.

The comparison of datasets and the fine-tuning have another seed than the ablation, and so other
first weights.
"""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file

from ml.benchmarks.content import content_of
from ml.records.config import overlay
from ml.studies.variants import dataset_variants, finetuning_variants, run_variants
from tests.benchmark_sets.boxes import write_fddb
from tests.ml.studies.test_variants import VALUES, VARIANTS, label_wider, opener, world

__all__ = ["world"]
TINY = {**VALUES, "trained_model": overlay(VALUES["trained_model"], {"size": "nano"})}


# Seven trainings, one after the other: in CI, not at every change.
pytestmark = pytest.mark.rehearsal


@pytest.fixture(scope="module")
def on_fddb(tmp_path_factory):
    """The same with a public set, whose numbers tables 2 and 5 hold."""
    data = write_fddb(tmp_path_factory.mktemp("sets") / "fddb")
    one = {"data": str(data), "content": content_of(data), "protocols": ["coco"]}
    return {**TINY, "benchmark_scores": {"resamples": 2, "device": "cpu", "sets": {"fddb": one}}}


@pytest.fixture(scope="module")
def wider(world, tmp_path_factory):
    """WIDER FACE with pseudo-labels on its larger boxes, both published parts."""
    root = tmp_path_factory.mktemp("wider")
    with pytest.MonkeyPatch.context() as patch:
        out, *_ = label_wider(world, root, patch, ("train", "val"))
    return out


def rows(folder: Path, table: str) -> dict[str, dict[str, str]]:
    with (folder / f"{table}.csv").open() as file:
        return {row["Model"]: row for row in csv.DictReader(file) if row["Origin"] == "ours"}


def weights(folder: Path):
    return load_file(folder / "data" / "trained_model" / "model.safetensors")


def distance(one, other) -> float:
    """Mean absolute difference of the trained tensors."""
    names = [name for name, value in one.items() if name.endswith("weight") and value.ndim == 4]
    assert len(names) > 20
    return float(sum((one[n] - other[n]).abs().mean() for n in names) / len(names))


@pytest.fixture(scope="module")
def ablation(world):
    opened = []
    folder = run_variants("ablation", world, TINY, VARIANTS, opener(world, opened))
    return folder, opened


@pytest.fixture(scope="module")
def datasets(world, wider, on_fddb):
    other = replace(world, seed=6)
    return run_variants("datasets", other, on_fddb, dataset_variants(wider), opener(world, []))


def test_trainings_one_after_the_other_fill_table_7(ablation):
    folder, opened = ablation
    assert opened == [f"ablation: {one.name}" for one in VARIANTS]
    found = rows(folder, "table_07")
    assert list(found) == [one.name for one in VARIANTS]
    assert all(float(row["VGGHeads val FR ↓"]) >= 0 for row in found.values())
    # from the same first weights on the same images, so the losses alone tell them apart
    assert distance(*(weights(folder / one.slug) for one in VARIANTS)) > 0


def test_the_same_training_on_two_datasets_fills_table_2(datasets, wider):
    folder, chosen = datasets, dataset_variants(wider)
    found = rows(folder, "table_02")
    assert {name: row["Dataset"] for name, row in found.items()} == {
        "on WIDER": "WIDER",
        "on this dataset": "this run",
    }
    assert all(0 <= float(row["FDDB AP50 ↑"]) <= 100 for row in found.values())
    states = [weights(folder / one.slug) for one in chosen]
    assert distance(*states) > 0
    used = [
        json.loads((folder / one.slug / "data/trained_model/metrics.json").read_text())
        for one in chosen
    ]
    assert used[0] != used[1]


def test_fine_tuning_goes_on_from_the_trained_weights_and_fills_table_5(
    ablation, datasets, world, wider, on_fddb
):
    trained = ablation[0] / VARIANTS[0].slug / "data" / "trained_model"
    chosen = finetuning_variants(wider, trained)
    other = replace(world, seed=6)
    folder = run_variants("finetuning", other, on_fddb, chosen, opener(world, []))
    found = rows(folder, "table_05")
    assert {name: row["Dataset"] for name, row in found.items()} == {
        "continued on WIDER": "this run + WIDER"
    }
    before = load_file(trained / "model.safetensors")
    continued = distance(before, weights(folder / chosen[0].slug))
    # the same training on the same images from its own first weights
    fresh = distance(before, weights(datasets / dataset_variants(wider)[0].slug))
    assert 0 < continued < 0.2 * fresh
