"""Public sets as assets: off until configured, versioned by content."""

import dagster as dg
import pytest

from assets.public_sets import NAMES, observe_set, public_sets, set_key
from dagster_project.definitions import build_definitions
from dagster_project.stages import project


def values(**sets):
    return {"benchmark_scores": {"sets": sets}}


def version(result):
    return result.data_version.value


def test_a_set_that_is_not_configured_is_disabled():
    result = observe_set(values(), "fddb")
    assert version(result) == "disabled"
    assert "benchmark_scores.sets.fddb.data" in str(result.metadata)


def test_the_version_is_the_content_alone(tmp_path):
    first, second = tmp_path / "here", tmp_path / "there"
    for folder in (first, second):
        (folder / "sub").mkdir(parents=True)
        (folder / "sub" / "a.txt").write_text("a")
    configured = [values(fddb={"data": str(f), "content": ""}) for f in (first, second)]
    one, other = (observe_set(given, "fddb") for given in configured)
    assert version(one) == version(other) != "disabled"
    assert one.metadata["state"] == "content differs from params.yaml"
    stated = values(fddb={"data": str(first), "content": version(one)})
    assert observe_set(stated, "fddb").metadata["state"] == "as params.yaml states"
    (second / "sub" / "a.txt").write_text("b")
    assert version(observe_set(configured[1], "fddb")) != version(other)
    with pytest.raises(dg.Failure, match="expected a file, or a folder of files"):
        observe_set(values(fddb={"data": str(tmp_path / "no"), "content": ""}), "fddb")


def test_every_set_precedes_the_tables_in_the_graph():
    graph = build_definitions(project()).resolve_asset_graph()
    parents = graph.get(dg.AssetKey("benchmark_scores")).parent_keys
    assert len(NAMES) == len(public_sets()) == 8
    assert {set_key(name) for name in NAMES} < parents
    assert all(graph.get(set_key(name)).partitions_def is None for name in NAMES)
