"""Every profile's training recipe, against a table; a value of the demo elsewhere is named."""

from __future__ import annotations

import pytest

from dagster_project.params import profile_params
from dagster_project.profiles import leaves, read_profile
from dagster_project.stages import ROOT, STAGES
from ml.filtering.judge import DetectionLimits
from ml.model.losses import loss_config
from ml.stages.annotations import AnnotationsConfig
from ml.stages.flame_regressor import FlameRegressorConfig
from ml.stages.head_detector import HeadDetectorConfig
from ml.stages.trained_model import TrainedModelConfig
from ml.training.config import OptimConfig
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
DEMO = ("muon", 3e-3, 8, 30, None, "flame_regressor", "own", 11.0, 256, 0.75, "nano")
RECIPES = {
    "demo": DEMO,
    "smoke": (*DEMO[:3], 6, *DEMO[4:]),
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
    check_recipe(profile, stage, COLUMNS, RECIPES[profile], written_in="trained_model")


def check_recipe(profile, stage, columns, recipe, written_in):
    """Compare a stage's effective values with a row of the table; name the file of another one."""
    values = {".".join(place): v for place, v in leaves(effective(profile)[stage])}
    origins = read_profile(ROOT, profile).origins
    for (what, key), wanted in zip(columns.items(), recipe, strict=True):
        said_by = origins.get((written_in, *key.split(".")), "the class default")
        assert values[key] == wanted, (
            f"{profile}: {what} ({stage}.{key}) is {values[key]!r} by {said_by}, not {wanted!r}"
        )


BOX_COLUMNS = {
    "source": "source",
    "optimiser": "optim.kind",
    "learning rate": "optim.lr",
    "warm-up": "optim.warmup_steps",
    "final rate": "optim.final_lr_fraction",
    "weight decay": "optim.weight_decay",
    "weight average": "optim.ema_decay",
    "gradient norm": "fit.gradient_clip",
    "batch": "batch_size",
    "epochs": "fit.epochs",
    "augmentation": "augment.recipe",
    "image size": "architecture.input_size",
}
RTDETR = ("scratch", "adamw", 1e-4, 2000, 1.0, 1e-4, 0.9999, 0.1, 16, 72, "own", 640)
TUNED = ("finetune", *RTDETR[1:3], 500, 0.01, *RTDETR[5:9], 24, *RTDETR[10:])
SMALL_RTDETR = ("scratch", "muon", 2e-3, 40, 0.01, 1e-2, 0.99, 10.0, 8, 10, "own", 224)
BOX_RECIPES = dict.fromkeys(NAMES, RTDETR) | {
    "demo": SMALL_RTDETR,
    "smoke": (*SMALL_RTDETR[:8], 4, 32, *SMALL_RTDETR[10:]),
    "research": TUNED,
    "open": TUNED,
    "research_tiny": (*TUNED[:8], 4, 2, *TUNED[10:]),
}
CROP_COLUMNS = {
    "optimiser": "optim.kind",
    "learning rate": "optim.lr",
    "warm-up": "optim.warmup_steps",
    "batch": "batch_size",
    "epochs": "fit.epochs",
    "crop size": "architecture.crop_size",
}
REGRESSOR = ("adamw", 1e-3, 0, 64, 40, 256)
CROP_RECIPES = dict.fromkeys(NAMES, REGRESSOR) | {
    "demo": ("muon", 3e-3, 60, 64, 18, 96),
    "smoke": ("muon", 3e-3, 60, 64, 2, 96),
    "open": ("adamw", 1e-3, 1000, 64, 40, 256),
    "research_tiny": ("adamw", 1e-3, 0, 64, 1, 64),
}


@pytest.mark.parametrize("profile", NAMES)
@pytest.mark.parametrize(
    ("stage", "columns", "recipes"),
    [
        ("head_detector", BOX_COLUMNS, BOX_RECIPES),
        ("flame_regressor", CROP_COLUMNS, CROP_RECIPES),
    ],
)
def test_the_recipes_of_the_annotators_are_those_of_the_tables(profile, stage, columns, recipes):
    check_recipe(profile, stage, columns, recipes[profile], written_in=stage)


SHARED_WITH_DEMO = {
    "run.threads": "one is the least there is",
    "trained_model_exact.enabled": "off is off",
    "head_detector.optim.muon_lr": "Muon's published rate; AdamW does not read it",
    "head_detector.optim.final_lr_fraction": "a cosine's usual end",
}
PAPERS_LOSS = ("box_weight", "dfl_weight", "vertices", "reprojection")
SHARED_BY_PROFILE = {
    "paper_losses": {f"trained_model.loss.{name}" for name in PAPERS_LOSS},
    "research_tiny": {"run.seed", "trained_model.size"},
}


@pytest.mark.parametrize("profile", PRODUCTION)
def test_no_value_of_the_demo_shows_up_in_production(profile):
    """Values that the demo chose for speed appear in no other profile or class default."""
    composed = read_profile(ROOT, profile)
    assert not set(composed.files) & set(SMALL), f"{profile} extends a small profile"
    found = dict(leaves(effective(profile)))
    allowed = set(SHARED_WITH_DEMO) | SHARED_BY_PROFILE.get(profile, set())
    leaked = [
        f"{'.'.join(place)}: {value!r} of conf/demo.yaml, by "
        f"{composed.origins.get(place, 'the class default')}"
        for place, value in leaves(read_profile(ROOT, "demo").values)
        if found.get(place) == value and ".".join(place) not in allowed
    ]
    assert not leaked, f"{profile}: {leaked}"


def test_the_exceptions_are_values_of_the_demo():
    stated = {".".join(place) for place, _ in leaves(read_profile(ROOT, "demo").values)}
    assert set(SHARED_WITH_DEMO).union(*SHARED_BY_PROFILE.values()) <= stated | {"run.seed"}


PUBLISHED_LOSS = {
    "classification_weight": 1.0,
    "box_weight": 2.0,
    "dfl_weight": 0.01,
    "vertices_weight": 50.0,
    "rotation_weight": 1.0,
    "reprojection_weight": 5.0,
    "classification": "quality_focal",
    "vertices": "smooth_l1",
    "reprojection": "oks",
    "num_vertices": None,
}
"""Weights and forms of the shipped training parameters, which are not the paper's list."""


def test_the_class_defaults_are_the_published_recipe():
    """No profile inherits from the demo; small profiles state what is small about them."""
    values = {".".join(k): v for k, v in leaves(TrainedModelConfig().model_dump(mode="json"))}
    own_machines = {"initial weights": None}
    for (what, key), wanted in zip(COLUMNS.items(), PAPER_L, strict=True):
        assert values[key] == own_machines.get(what, wanted), f"{what}: {key}"
    loss = TrainedModelConfig().loss
    assert loss == loss_config("official")
    assert {name: getattr(loss, name) for name in PUBLISHED_LOSS} == PUBLISHED_LOSS
    stated = {".".join(place) for place, _ in leaves(read_profile(ROOT, "demo").values)}
    small = {key for key in COLUMNS.values() if key != "initial_weights"}
    assert {f"trained_model.{key}" for key in small} <= stated


def test_the_class_defaults_of_the_annotators():
    """RT-DETR's are as published; the regressor is ours, and neutral until a profile says more."""
    for config_class, columns, recipe in (
        (HeadDetectorConfig, BOX_COLUMNS, RTDETR),
        (FlameRegressorConfig, CROP_COLUMNS, REGRESSOR),
    ):
        values = {".".join(k): v for k, v in leaves(config_class().model_dump(mode="json"))}
        assert tuple(values[key] for key in columns.values()) == recipe
    assert HeadDetectorConfig().optim.betas == (0.9, 0.999)
    assert FlameRegressorConfig().optim == OptimConfig()
    for limits in (AnnotationsConfig(), DetectionLimits()):
        assert (limits.threshold, limits.nms_iou) == (0.5, 0.5)


@pytest.mark.parametrize("profile", NAMES)
def test_params_yaml_stays_readable(profile):
    text = profile_params(ROOT, profile, STAGES.values()).text
    assert len(text.splitlines()) <= 200


@pytest.mark.parametrize("profile", NAMES)
def test_the_exact_training_is_the_other_one(profile):
    """The cost of pseudo-labels is the difference of trainings that differ in labels alone."""
    found = effective(profile)
    exact = {k: v for k, v in found["trained_model_exact"].items() if k != "enabled"}
    assert exact == found["trained_model"]
