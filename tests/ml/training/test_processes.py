"""Training in two processes against training in one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ml.flame.geometry import HeadGeometry
from ml.flame.head_model import HeadModel
from ml.model.building import build_detector, model_config
from ml.model.losses import HeadLoss, LossConfig
from ml.records.determinism import prepare_torch
from ml.records.exclusions import Exclusions
from ml.records.workspace import Workspace
from ml.stages.trained_model import TrainedModelConfig, read_samples
from ml.training.fit import FitConfig, FitResult, fit
from ml.training.optim import OptimConfig
from ml.training.tracking import NullTracker
from ml.training_data.augmentation import AugmentConfig
from ml.training_data.datamodule import HeadDataModule, LoaderConfig
from tests.fixtures.tiny_world import FrozenNormModule, count_images, make_world

STAGE = "toy"
CONFIG = TrainedModelConfig(
    size="nano",
    loader=LoaderConfig(image_size=96, batch_size=4),
    loss=LossConfig(num_vertices=50),
    optim=OptimConfig(kind="adamw", lr=1e-3, warmup_steps=1),
)


def train(ws: Workspace, stage: str, processes: int) -> tuple[FrozenNormModule, FitResult]:
    """Two epochs with batches of four images, over so many processes."""
    prepare_torch(ws, STAGE)
    head_model = HeadModel.load(ws.stage_dir("head_model") / "head_model.npz")
    geometry = HeadGeometry(head_model)
    module = FrozenNormModule(
        build_detector(model_config("nano")),
        HeadLoss(CONFIG.loss, head_model),
        CONFIG.optim,
        CONFIG.postprocess,
        count_images,
    )
    module.train()
    train, val = (
        read_samples(ws, CONFIG, split, geometry, Exclusions(STAGE)) for split in ("train", "val")
    )
    loader = CONFIG.loader.model_copy(update={"batch_size": 4 // processes})
    augment = AugmentConfig(flip=0.0)
    data = HeadDataModule(train, val, loader, CONFIG.limits, augment, ws.seed, STAGE)
    loop = FitConfig(epochs=2, validate_every_epochs=1, precision="32-true", devices=processes)
    return module, fit(module, data, ws, stage, loop, NullTracker())


def test_two_processes_equal_one_with_the_same_batches(tmp_path: Path) -> None:
    """Same weights, same means of the loss terms, and metrics over the images of both."""
    ws = make_world(tmp_path)
    one, alone = train(ws, "alone", 1)
    two, shared = train(ws, "shared", 2)
    terms = ["box", "classification", "dfl", "loss", "reprojection", "rotation"]
    for name in [f"train/{term}" for term in terms] + ["val/images", "val/order"]:
        wanted = alone.history[name]
        np.testing.assert_allclose(shared.history[name], wanted, rtol=1e-4, err_msg=name)
    assert set(shared.history["val/images"]) == {2}  # of both processes, each once
    assert set(shared.history["val/order"]) == {1 * 2}  # the second image has two heads
    assert alone.history["train/positives"].sum() > 20
    for (name, left), right in zip(
        one.state_dict().items(), two.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(right, left, rtol=1e-4, atol=1e-6, msg=name)
    prepare_torch(ws, STAGE)
    start = build_detector(model_config("nano")).state_dict()
    trained = one.model.state_dict()
    # Far more than the processes may differ by; deep in a network with frozen, untrained
    # normalisation little arrives.
    weights = [name for name in start if name.endswith("conv.weight")]
    assert sum((trained[n] - start[n]).abs().max() > 1e-4 for n in weights) > len(weights) / 2
