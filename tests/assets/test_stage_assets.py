"""The asset modules: light to import, one stage each, functions and configurations that exist."""

import inspect
import subprocess
import sys

import pytest

from assets.crops import crop_shards
from assets.stage_asset import load
from dagster_project.stages import ROOT, STAGES

HEAVY = ("torch", "lightning", "transformers", "mlflow", "dagster", "dvc")


def test_declaring_the_assets_loads_nothing_heavy():
    names = ", ".join(f"assets.{name}" for name in STAGES)
    code = f"import sys, {names}; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", list(STAGES))
def test_a_stage_is_a_function_of_its_own_module(name):
    stage = STAGES[name]
    assert load(stage.function_path) is stage
    assert stage.function.__module__ == f"assets.{name}"
    assert stage.description
    expected = ["ws", "config"] + ["shard"] * stage.sharded + ["tracker"] * stage.tracked
    assert list(inspect.signature(stage.function).parameters) == expected
    assert inspect.signature(stage.function).parameters["config"].annotation == (
        stage.config_class().__name__
    )


def test_assets_and_ops_do_not_know_the_project():
    for path in [*(ROOT / "assets").rglob("*.py"), *(ROOT / "ops").rglob("*.py")]:
        assert "dagster_project" not in path.read_text().replace("`dagster_project", ""), path


def test_crop_shards_are_those_the_library_makes():
    from ml.stages.crops import CropsConfig
    from ml.stages.crops import crop_shards as made

    for num_crops in (2, 500, 501):
        config = CropsConfig(num_crops=num_crops, crops_per_shard=250)
        assert crop_shards(config.model_dump()) == made(config)


def test_a_wrong_path_is_named():
    with pytest.raises(ValueError, match=r"module 'assets\.poses' has no 'nothing'"):
        load("assets.poses:nothing")
