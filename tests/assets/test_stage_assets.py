"""The asset modules: metadata of a stage in Dagster, and imports that a worker avoids."""

import inspect
import subprocess
import sys
from urllib.parse import parse_qs, urlsplit

import dagster as dg
import pytest

from assets.public_sets import NAMES, set_key
from assets.stage_asset import LINEAGE, stage_asset, suites_of
from dagster_project.definitions import stage_assets
from dagster_project.env import dagster_config, prepare
from dagster_project.serve import OPEN_GROUPS, lineage_address
from dagster_project.stage import load
from dagster_project.stages import ROOT, STAGES, crop_shards, project
from ml.records.tables import CAPTIONS, IMAGES, TRUTH

PUBLIC_SETS = {set_key(name).to_user_string() for name in NAMES}
HEAVY = ("torch", "pandas", "mlflow", "great_expectations", "dagster", "dvc")
ASSETS = {asset.key.to_user_string(): asset for asset in stage_assets(project())}


def spec_of(name):
    (spec,) = list(ASSETS[name].specs)
    return spec


def loaded_by(code):
    script = f"import sys; {code}; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_a_shard_worker_imports_no_orchestrator():
    code = "import dagster_project.engine; from dagster_project.stage import load"
    found = loaded_by(f"{code}; load('ml.stages.poses:run_shard')")
    assert "torch" not in found
    assert not {"dagster", "great_expectations", "dvc", "mlflow"} & set(found.split("'"))


def test_the_lineage_opens_groups_of_the_papers_pipeline():
    groups = {name: spec_of(name).group_name for name in STAGES}
    opened = {name for name, group in groups.items() if group in OPEN_GROUPS}
    assert opened == {name for name in STAGES if not name.startswith("released_")}
    assert set(OPEN_GROUPS) <= set(groups.values())
    address = urlsplit(lineage_address("http://127.0.0.1:3000"))
    assert address.path == "/asset-groups"
    (expanded,) = parse_qs(address.query)["expanded"]
    assert expanded == ",".join(f"global@global:{group}" for group in OPEN_GROUPS)


@pytest.mark.parametrize("name", list(STAGES))
def test_a_stage_is_an_asset_of_its_own_module(name):
    asset = ASSETS[name]
    declared = load(f"assets.{name}:{name}")
    assert isinstance(declared, dg.AssetsDefinition)
    (spec,) = list(asset.specs)
    assert spec.description
    assert "  " not in spec.description
    assert spec.owners
    assert spec.kinds
    assert spec.group_name in {"generation", "annotation", "filtering", "detector", "release"}
    graph = project().graph
    made = {dep.asset_key.to_user_string() for dep in spec.deps} - PUBLIC_SETS
    assert made == set(graph[name].upstream)
    assert [list(one.deps) for one in declared.specs] == [[]], "edges are written in dvc.yaml alone"
    assert bool(spec.partitions_def) == STAGES[name].partitioned


@pytest.mark.parametrize("name", list(STAGES))
def test_a_stages_function_takes_what_its_declaration_says(name):
    stage = STAGES[name]
    expected = ["ws", "config"] + ["shard"] * stage.sharded + ["tracker"] * stage.tracked
    signature = inspect.signature(load(stage.function))
    assert list(signature.parameters)[: len(expected)] == expected
    rest = list(signature.parameters.values())[len(expected) :]
    assert all(parameter.default is not parameter.empty for parameter in rest)
    assert signature.parameters["config"].annotation == stage.config_class().__name__


@pytest.mark.parametrize("name", list(STAGES))
def test_critical_checks_block_and_every_check_can_be_executed_alone(name):
    asset = ASSETS[name]
    assert asset.can_subset
    blocking = {spec.name: spec.blocking for spec in asset.check_specs}
    assert blocking.pop("files_unaltered")
    assert blocking == {
        suite.check_name(check): check.severity == "critical"
        for suite in suites_of(name)
        for check in suite.checks
    }


def test_benchmarks_are_overdue_after_thirty_days_and_nothing_else_ever(tmp_path, monkeypatch):
    days = {
        name: policy.fail_window.to_timedelta().days
        for name in STAGES
        if (policy := spec_of(name).freshness_policy) is not None
    }
    assert days == {"benchmark": 30, "benchmark_scores": 30}
    # Without this setting Dagster's daemon does not look at them.
    monkeypatch.setenv("DAGSTER_HOME", "")
    assert dagster_config(prepare(tmp_path))["freshness"] == {"enabled": True}


def test_columns_and_where_they_come_from_are_shown():
    metadata = spec_of("images").metadata
    columns = {column.name: column for column in metadata["dagster/column_schema"].columns}
    assert list(columns) == [column.name for column in IMAGES.columns]
    assert columns["offset"].type == "int64"
    assert columns["sample_id"].constraints.unique
    assert len(metadata["columns of truth"].columns) == len(TRUTH.columns)
    deps = metadata[LINEAGE].deps_by_column
    assert [(dep.asset_key.path, dep.column_name) for dep in deps["seed"]] == [
        (["captions"], "seed")
    ]


def test_a_column_that_the_table_has_not_is_named():
    with pytest.raises(ValueError, match=r"captions: has no columns \['nothing'\]"):
        stage_asset(
            group="x", kinds=set(), owner="x", tables=(CAPTIONS,), taken_over={"y": ["nothing"]}
        )(lambda context: None)


def test_columns_that_are_taken_over_exist_upstream():
    found = [
        dep
        for name in STAGES
        if (lineage := spec_of(name).metadata.get(LINEAGE))
        for deps in lineage.deps_by_column.values()
        for dep in deps
    ]
    assert len(found) > 15
    for dep in found:
        schema = spec_of(dep.asset_key.to_user_string()).metadata["dagster/column_schema"]
        assert dep.column_name in {column.name for column in schema.columns}


def test_assets_and_ops_do_not_know_the_project():
    for path in [*(ROOT / "assets").rglob("*.py"), *(ROOT / "ops").rglob("*.py")]:
        assert "dagster_project" not in path.read_text().replace("`dagster_project", ""), path


def test_crop_shards_are_those_the_library_makes():
    from ml.generation.config import CropsConfig
    from ml.stages.crops import crop_shards as made

    for num_crops in (2, 500, 501):
        config = CropsConfig(num_crops=num_crops, crops_per_shard=250)
        assert crop_shards(config.model_dump()) == made(config)


def test_a_wrong_path_is_named():
    with pytest.raises(ValueError, match=r"module 'assets\.poses' has no 'nothing'"):
        load("assets.poses:nothing")
