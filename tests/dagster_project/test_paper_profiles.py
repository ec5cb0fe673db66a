"""The paper's recipes: what the profiles say, and that the training stage runs them."""

from __future__ import annotations

import numpy as np
import pytest

from dagster_project.stages import ROOT
from ml.model.losses import LossConfig, loss_config
from ml.records.config import read_config
from ml.stages.trained_model import TrainedModelConfig, run
from ml.training.optim import lr_factor
from ml.training.tracking import NullTracker
from tests.fixtures.profiles import effective
from tests.fixtures.tiny_world import make_world

ABLATIONS = {
    "ablation_no_vertices": {"vertices_weight": 0.0},
    "ablation_no_rotation": {"rotation_weight": 0.0},
    "ablation_reprojection_only": {"vertices_weight": 0.0, "rotation_weight": 0.0},
}


def training_of(profile: str) -> TrainedModelConfig:
    return read_config(TrainedModelConfig, "trained_model", effective(profile)["trained_model"])


def published(**changes: object) -> LossConfig:
    return loss_config("official").model_copy(update=changes)


def test_every_recipe_is_here():
    found = {p.stem for p in (ROOT / "conf").glob("*.yaml") if p.stem.startswith(("paper", "abl"))}
    assert found == {"paper_s", "paper_m", "paper_l", "paper_losses", *ABLATIONS}


@pytest.mark.parametrize(
    ("profile", "size", "lr", "batch"),
    [("paper_s", "S", 3e-4, 48), ("paper_m", "M", 3e-4, 48), ("paper_l", "L", 5e-5, 16)],
)
def test_sizes(profile, size, lr, batch):
    config = training_of(profile)
    assert (config.size, config.optim.lr, config.loader.batch_size) == (size, lr, batch)
    assert config.loader.image_size == 640
    assert config.loader.mosaic.probability == 0
    assert config.loss == published()
    assert config.optim.kind == "adamw"
    assert config.optim.weight_decay == 1e-6
    assert (config.optim.ema_decay, config.optim.ema_growth) == (0.9997, "published")
    assert (config.fit.epochs, config.fit.precision) == (50, "16-mixed")
    assert config.fit.gradient_clip == 0
    assert (config.augment.recipe, config.augment.flip) == ("published", 0.0)
    factors = [lr_factor(step, 50 * 1000, config.optim, 1000) for step in (0, 127, 1127, 49_999)]
    assert factors == pytest.approx([1e-6 / lr, 1.0, 1.0, 0.1], abs=1e-6)


def test_the_losses_as_the_paper_prints_them():
    assert training_of("paper_losses").loss == loss_config("paper")


@pytest.mark.parametrize("profile", ABLATIONS)
def test_ablations_differ_in_their_weights_alone(profile):
    config, full = training_of(profile), training_of("paper_l")
    assert config.loss == published(**ABLATIONS[profile])
    assert (config.optim.ema_decay, config.fit.epochs) == (0.0, 200)
    same = {"loss": full.loss, "optim": full.optim, "fit": full.fit}
    assert config.model_copy(update=same) == full


def test_the_recipe_trains(tmp_path):
    """All of it but the size: a small network on a few small images, one process, no GPU."""
    config = training_of("paper_l")
    small = {
        "size": "nano",
        "initial_weights": None,
        "loader": config.loader.model_copy(
            update={"image_size": 96, "batch_size": 2, "num_workers": 0}
        ),
        "fit": config.fit.model_copy(
            update={
                "epochs": 2, "devices": 1, "accelerator": "cpu", "precision": "bf16-mixed",
                "checkpoint_every_steps": 1, "validate_every_epochs": 2,
            }
        ),
        "num_grid_images": 2,
    }  # fmt: skip
    report = run(make_world(tmp_path), config.model_copy(update=small), NullTracker())
    history = report.tables["history"]
    assert np.isfinite(history["train/loss"]).all()
    assert (history["train/reprojection"] <= 1).all()  # OKS
    assert history["lr/adamw"].iloc[0] == pytest.approx(
        5e-5
    )  # an epoch of two steps ends the warm-up
