"""Every profile's training recipe, against a table; a value of the demo elsewhere is named."""

from __future__ import annotations

import pytest

from dagster_project.params import profile_params
from dagster_project.profiles import leaves, read_profile
from dagster_project.stages import ROOT, STAGES
from ml.model.losses import loss_config
from ml.stages.trained_model import TrainedModelConfig
from tests.fixtures.profiles import NAMES, effective

COLUMNS = {
    "optimiser": "optim.kind",
    "learning rate": "optim.lr",
    "batch": "loader.batch_size",
    "epochs": "fit.epochs",
    "initial weights": "initial_weights",
    "initial encoder": "initial_encoder",
    "augmentation": "augment.recipe",
    "smallest head": "limits.min_side_px",
    "image size": "loader.image_size",
    "mosaics": "loader.mosaic.probability",
    "size": "size",
}
COCO = "models/yolo_nas_{}_coco.pth"
PAPER_L = ("adamw", 5e-5, 16, 50, COCO.format("l"), None, "published", 3.0, 640, 0.0, "L")
ABLATION = (*PAPER_L[:3], 200, *PAPER_L[4:])
DEMO = ("muon", 3e-3, 8, 18, None, "flame_regressor", "own", 11.0, 256, 0.75, "nano")
RECIPES = {
    "demo": DEMO,
    "smoke": (*DEMO[:3], 2, *DEMO[4:]),
    "research": PAPER_L,
    "official": PAPER_L,
    "finetune": ("adamw", 1e-5, 16, 20, "models/vgg_heads.pth", *PAPER_L[5:]),
    "open": (*PAPER_L[:4], None, *PAPER_L[5:]),
    "research_tiny": ("adamw", 5e-5, 2, 1, None, None, "published", 3.0, 64, 0.0, "nano"),
    "paper_l": PAPER_L,
    "paper_m": ("adamw", 3e-4, 48, 50, COCO.format("m"), *PAPER_L[5:10], "M"),
    "paper_s": ("adamw", 3e-4, 48, 50, COCO.format("s"), *PAPER_L[5:10], "S"),
    "paper_losses": PAPER_L,
    "ablation_no_rotation": ABLATION,
    "ablation_no_vertices": ABLATION,
    "ablation_reprojection_only": ABLATION,
}
SMALL = ("conf/demo.yaml", "conf/smoke.yaml")
PRODUCTION = [name for name in NAMES if name not in ("demo", "smoke")]


def test_every_profile_is_in_the_table():
    assert set(RECIPES) == set(NAMES)


@pytest.mark.parametrize("profile", NAMES)
@pytest.mark.parametrize("stage", ["trained_model", "trained_model_exact"])
def test_the_recipe_is_that_of_the_table(profile, stage):
    values = {".".join(place): v for place, v in leaves(effective(profile)[stage])}
    origins = read_profile(ROOT, profile).origins
    for (what, key), wanted in zip(COLUMNS.items(), RECIPES[profile], strict=True):
        said_by = origins.get(("trained_model", *key.split(".")), "the class default")
        assert values[key] == wanted, (
            f"{profile}: {what} ({stage}.{key}) is {values[key]!r} by {said_by}, not {wanted!r}"
        )


@pytest.mark.parametrize("profile", PRODUCTION)
def test_no_value_of_the_demo_shows_up_in_production(profile):
    """Whatever the demo chose for its minutes is nobody else's, unless a file of theirs says so."""
    composed = read_profile(ROOT, profile)
    assert not set(composed.files) & set(SMALL), f"{profile} extends a small profile"
    demo, found = read_profile(ROOT, "demo").values["trained_model"], effective(profile)
    found_values = dict(leaves(found["trained_model"]))
    leaked = [
        f"conf/demo.yaml's trained_model.{'.'.join(place)}: {value!r}"
        for place, value in leaves(demo)
        if found_values.get(place) == value and ("trained_model", *place) not in composed.origins
    ]
    assert not leaked, f"{profile}: {leaked}"


def test_the_class_defaults_are_the_published_recipe():
    """Nobody inherits the demo's: it says itself what is small about it."""
    values = {".".join(k): v for k, v in leaves(TrainedModelConfig().model_dump(mode="json"))}
    own_machines = {"initial weights": None}
    for (what, key), wanted in zip(COLUMNS.items(), PAPER_L, strict=True):
        assert values[key] == own_machines.get(what, wanted), f"{what}: {key}"
    assert TrainedModelConfig().loss == loss_config("official")
    stated = {".".join(place) for place, _ in leaves(read_profile(ROOT, "demo").values)}
    small = {key for key in COLUMNS.values() if key != "initial_weights"}
    assert {f"trained_model.{key}" for key in small} <= stated


@pytest.mark.parametrize("profile", ["research", "open"])
def test_the_box_detector_is_fine_tuned_as_published(profile):
    found = effective(profile)["head_detector"]
    optim, demo = found["optim"], effective("demo")["head_detector"]["optim"]
    assert (found["source"], optim["kind"], optim["lr"]) == ("finetune", "adamw", 1e-4)
    assert (optim["betas"], optim["weight_decay"]) == ([0.9, 0.999], 1e-4)
    assert (optim["ema_decay"], found["fit"]["gradient_clip"]) == (0.9999, 0.1)
    assert (demo["kind"], demo["muon_linear"], demo["ema_decay"]) == ("muon", True, 0.99)


@pytest.mark.parametrize("profile", NAMES)
def test_params_yaml_stays_readable(profile):
    text = profile_params(ROOT, profile, STAGES.values()).text
    assert len(text.splitlines()) <= 200


@pytest.mark.parametrize("profile", NAMES)
def test_the_exact_training_is_the_other_one(profile):
    """What the pseudo-labels cost is the difference of trainings that differ in labels alone."""
    found = effective(profile)
    exact = {k: v for k, v in found["trained_model_exact"].items() if k != "enabled"}
    assert exact == found["trained_model"]
