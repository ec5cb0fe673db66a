"""One checkpoint in the published layout gives the same jaw and rotation in every loader."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import torch

from ml.detector_training import initialisation
from ml.detector_training.initialisation import build_network
from ml.inference.cli import import_weights
from ml.inference.loading import read_detector, save_detector
from ml.model import weights
from ml.model.building import build_detector
from ml.model.checkpoint_file import UnusableCheckpoint
from ml.model.config import ModelConfig
from ml.model.decode import decode
from ml.model.losses import LossConfig
from ml.model.postprocess import PostprocessConfig
from ml.records.workspace import Workspace
from ml.stages import trained_model
from ml.stages.trained_model import TrainedModelConfig
from ml.training.fit import FitConfig
from ml.training.optim import OptimConfig
from ml.training.tracking import NullTracker
from ml.training_data.datamodule import LoaderConfig
from tests.fixtures.tiny_world import make_world
from tests.tiny_models.detector import tiny_detector

JAW = (0.3, 0.4, 0.5)
ROTATION = (0.7, 0.8, 0.9, 0.0, 0.1, 0.2)
"""What every consumer of the published file reads, given the biases that are planted below."""


def small_config(size: str) -> ModelConfig:
    """The published blocks and names with a hundredth of the weights, so that a test is quick."""
    return tiny_detector(size, 32 if size == "S" else 40)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "model_config", small_config)
    monkeypatch.setattr(weights, "_size_of", lambda *_: "S")
    monkeypatch.setattr(initialisation, "model_config", small_config)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`vgg_heads.pth` as super-gradients saves it; its branches say constants."""
    torch.manual_seed(0)
    state = dict(build_detector(small_config("S")).state_dict())
    for name in list(state):
        if name.endswith("branch_3x3.conv.weight"):
            stem = name.removesuffix("branch_3x3.conv.weight")
            state[stem + "rbr_reparam.weight"] = torch.zeros_like(state[name])
            state[stem + "rbr_reparam.bias"] = torch.zeros(len(state[name]))
        if "flame_rotation_pred.2." in name or "flame_jaw_pred.2." in name:
            state[name] = torch.zeros_like(state[name])
    for head in ("head1", "head2", "head3"):
        # R0..R5 and J0..J2 of the physical branches
        state[f"heads.{head}.flame_rotation_pred.2.bias"] = torch.arange(6) / 10
        state[f"heads.{head}.flame_jaw_pred.2.bias"] = torch.arange(7, 10) / 10
        state[f"heads.{head}.cls_pred.bias"] = torch.zeros(1)
    path = tmp_path_factory.mktemp("hub") / "vgg_heads.pth"
    torch.save({"net": state, "ema_net": state, "epoch": 49, "acc": 1.5}, path)
    return path


def said(model: Path) -> tuple[np.ndarray, np.ndarray]:
    """What the detector at a path says, read as `vggheads predict` reads it; a small image."""
    network = read_detector(model).network
    with torch.no_grad():
        flame = decode(network(torch.zeros(1, 3, 64, 64))).flame[0].numpy()
    return flame[0, 400:403], flame[0, 403:409]


def assert_planted(jaw: np.ndarray, rotation: np.ndarray) -> None:
    np.testing.assert_allclose(jaw, JAW, atol=1e-6)
    np.testing.assert_allclose(rotation, ROTATION, atol=1e-6)


def assert_zero(jaw: np.ndarray, rotation: np.ndarray) -> None:
    np.testing.assert_allclose([*jaw, *rotation], 0.0, atol=1e-6)


def test_predict_and_import(published: Path, tmp_path: Path) -> None:
    assert_planted(*said(published))
    options = argparse.Namespace(file=published, output=tmp_path / "imported")
    assert import_weights(options) == 0
    assert_planted(*said(tmp_path / "imported"))


def test_training_starts_from_the_same_meaning_and_keeps_it(
    published: Path, tmp_path: Path
) -> None:
    ws = Workspace(root=published.parent, seed=1, num_shards=1, shard_size=1)
    config = TrainedModelConfig(size="S", initial_encoder=None, initial_weights="vgg_heads.pth")
    network = build_network(ws, config).eval()
    save_detector(tmp_path / "first", network, 640, PostprocessConfig(), None, {})
    assert_planted(*said(tmp_path / "first"))
    # and from the folder of a trained model
    again = Workspace(root=tmp_path, seed=1, num_shards=1, shard_size=1)
    config = config.model_copy(update={"initial_weights": Path("first")})
    save_detector(
        tmp_path / "again", build_network(again, config).eval(), 640, PostprocessConfig(), None, {}
    )
    assert_planted(*said(tmp_path / "again"))


class KilledOnce(pl.Callback):
    """Stands where the prediction grids do, and kills the training in its second epoch, once."""

    done = False

    def __init__(self, *_: object) -> None:
        self.paths: dict[str, Path] = {}

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch == 1 and not KilledOnce.done:
            KilledOnce.done = True
            raise RuntimeError("killed")


@pytest.mark.rehearsal
def test_a_training_that_is_killed_and_resumed_keeps_it(
    published: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    ws = make_world(tmp_path)
    (ws.root / "vgg_heads.pth").write_bytes(published.read_bytes())
    monkeypatch.setattr(trained_model, "PredictionGrid", KilledOnce)
    monkeypatch.setattr(KilledOnce, "done", False)
    config = TrainedModelConfig(
        size="S",
        initial_weights="vgg_heads.pth",
        # The planted biases are not to be trained away.
        optim=OptimConfig(lr=1e-12, warmup_steps=1),
        loader=LoaderConfig(image_size=64, batch_size=4),
        loss=LossConfig(num_vertices=20),
        fit=FitConfig(epochs=2, validate_every_epochs=2, precision="32-true"),
        registered_name="",
    )
    with pytest.raises(RuntimeError, match="killed"):
        trained_model.run(ws, config, NullTracker())
    # What is resumed are the checkpoint's weights, with the meaning of the file that they are from.
    other = torch.load(published, weights_only=True)
    for name in other["ema_net"]:
        if "flame_rotation_pred.2." in name or "flame_jaw_pred.2." in name:
            other["ema_net"][name] = torch.zeros_like(other["ema_net"][name])
    torch.save({**other, "net": other["ema_net"]}, ws.root / "vgg_heads.pth")
    assert_zero(*said(ws.root / "vgg_heads.pth"))
    with caplog.at_level(logging.INFO):
        trained_model.run(ws, config, NullTracker())
    assert "trained_model: going on after step" in caplog.text
    assert_planted(*said(ws.stage_dir("trained_model")))


def test_another_size_is_refused_whole(published: Path) -> None:
    ws = Workspace(root=published.parent, seed=1, num_shards=1, shard_size=1)
    config = TrainedModelConfig(size="M", initial_encoder=None, initial_weights="vgg_heads.pth")
    with pytest.raises(UnusableCheckpoint, match=r"of size 'M' to train on from, got size 'S'"):
        build_network(ws, config)
