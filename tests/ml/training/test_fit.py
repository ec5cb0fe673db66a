"""The shared training loop: exact resume after a kill, non-finite stop, weight average."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from ml.records.determinism import prepare_torch
from ml.records.workspace import Workspace
from ml.training.base import NonFiniteTraining, TrainingModule
from ml.training.checkpoint import CHECKPOINT_NAME, TrainingCheckpoint
from ml.training.determinism import EpochSampler, ResumableLoader, SampleKey
from ml.training.fit import FitConfig, _trainer, finish_work, fit
from ml.training.optim import OptimConfig
from ml.training.tracking import NullTracker

CONFIG = FitConfig(epochs=4, validate_every_epochs=2, precision="32-true")
STAGE = "toy"


class ToyData(Dataset[dict[str, Any]]):
    """Noise images whose mean is the target; the noise depends on sample and epoch."""

    ids = tuple(f"s{i:02d}" for i in range(12))

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, key: SampleKey) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(key.index * 1000 + key.epoch)
        image = torch.randn(8, 6, 6, generator=generator) + key.index % 3
        return {"sample_ids": self.ids[key.index], "x": image, "y": image.mean()}


class ToyModule(TrainingModule):
    """A convolution with dropout and batch norm: weights, buffers and random draws."""

    def __init__(self, poison: str | None = None) -> None:
        super().__init__(OptimConfig(kind="muon", warmup_steps=2, ema_decay=0.9))
        self.net = nn.Sequential(
            nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.3), nn.Flatten()
        )
        self.out = nn.LazyLinear(1)
        self.out(self.net(torch.zeros(2, 8, 6, 6)))
        self.poison = poison

    def losses(self, batch: Any) -> Mapping[str, Tensor]:
        value = self.out(self.net(batch["x"])).flatten()
        fit_term = (value - batch["y"]).square().mean()
        factor = float("nan") if self.poison in batch["sample_ids"] else 1.0
        extra = value.abs().mean() * factor
        return {"loss": fit_term + 0.01 * extra, "fit": fit_term, "extra": extra}

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val/loss", self.losses(batch)["fit"], batch_size=len(batch["x"]))


class ToyDataModule(pl.LightningDataModule):
    """The loaders the real data modules also build."""

    def __init__(self, batch_size: int = 4) -> None:
        super().__init__()
        self.batch_size = batch_size

    def train_dataloader(self) -> DataLoader[Any]:
        data = ToyData()
        sampler = EpochSampler(data.ids, seed=7, stage=STAGE, shuffle=True)
        return ResumableLoader(data, batch_size=self.batch_size, sampler=sampler)

    def val_dataloader(self) -> DataLoader[Any]:
        data = ToyData()
        return DataLoader(
            data, batch_size=4, sampler=EpochSampler(data.ids, seed=7, stage=STAGE, shuffle=False)
        )


class KillAt(pl.Callback):
    """Kills the process as a power cut would, after an optimiser step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: pl.Trainer, *rest: Any) -> None:
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


class Seen(pl.Callback):
    """Remembers what was trained on."""

    def __init__(self) -> None:
        self.ids: list[str] = []

    def on_train_batch_start(
        self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, *rest: Any
    ) -> None:
        self.ids += batch["sample_ids"]


def train(
    root: Path,
    callbacks: Sequence[pl.Callback] = (),
    poison: str | None = None,
    batch_size: int = 4,
    **changes: Any,
) -> Any:
    """Train the toy in a workspace; returns (module, result)."""
    ws = Workspace(root=root, seed=7, num_shards=1, shard_size=1, threads=1)
    prepare_torch(ws, STAGE)
    module = ToyModule(poison)
    config = CONFIG.model_copy(update=changes)
    data = ToyDataModule(batch_size)
    return module, fit(module, data, ws, STAGE, config, NullTracker(), callbacks)


def train_until_killed(root: Path, step: int, **changes: Any) -> None:
    """Train in a process of its own that is killed before a step.

    A fork of this one: a new interpreter would load the libraries for five seconds.
    """
    process = multiprocessing.get_context("fork").Process(
        target=train, args=(root, [KillAt(step)]), kwargs=changes
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


def assert_equal_weights(a: nn.Module, b: nn.Module) -> None:
    for (name, left), right in zip(a.state_dict().items(), b.state_dict().values(), strict=True):
        assert torch.equal(left, right), name


def test_killed_and_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    whole, whole_result = train(tmp_path / "whole")
    train_until_killed(tmp_path / "cut", step=8)
    resumed, result = train(tmp_path / "cut")
    assert result.resumed_epoch == 2
    assert whole_result.resumed_epoch == 0
    assert_equal_weights(whole, resumed)
    assert result.history.equals(whole_result.history)
    # A third run finds nothing left to train and still gives the averaged weights.
    again, result = train(tmp_path / "cut")
    assert result.resumed_epoch == CONFIG.epochs
    assert_equal_weights(whole, again)
    assert result.history.equals(whole_result.history)


def test_killed_in_mid_epoch_resumes_there(tmp_path: Path) -> None:
    """Epochs of 6 batches, a checkpoint every 4 steps, killed before step 11: in epoch 1."""
    changes = {"checkpoint_every_steps": 4, "epochs": 2}
    seen, rest = Seen(), Seen()
    whole, whole_result = train(tmp_path / "whole", [seen], **changes, batch_size=2)
    train_until_killed(tmp_path / "cut", step=11, **changes, batch_size=2)
    resumed, result = train(tmp_path / "cut", [rest], **changes, batch_size=2)
    assert (result.resumed_epoch, result.resumed_step) == (1, 8)
    assert rest.ids == seen.ids[8 * 2 :]  # nothing twice, nothing left out
    assert_equal_weights(whole, resumed)
    assert result.history.equals(whole_result.history)


def test_mid_epoch_checkpoints_need_a_resumable_loader(tmp_path: Path) -> None:
    class Plain(ToyDataModule):
        def train_dataloader(self) -> DataLoader[Any]:
            loader = super().train_dataloader()
            return DataLoader(loader.dataset, batch_size=4, sampler=loader.sampler)

    ws = Workspace(root=tmp_path, seed=7, num_shards=1, shard_size=1, threads=1)
    config = CONFIG.model_copy(update={"checkpoint_every_steps": 2})
    with pytest.raises(ValueError, match="expected a ResumableLoader for training, got DataLoader"):
        fit(ToyModule(), Plain(), ws, STAGE, config, NullTracker())


def test_loader_processes_get_the_epoch_of_a_resume() -> None:
    """Batches are asked for after the epoch is known, not when the iterator is made."""
    sampler = EpochSampler(ToyData.ids, seed=7, stage=STAGE, shuffle=True)
    loader = ResumableLoader(ToyData(), batch_size=4, sampler=sampler, num_workers=1)
    loader.load_state_dict({"epoch": 3, "batches": 2})
    batches = iter(loader)
    sampler.set_epoch(3)
    ids = [batch["sample_ids"] for batch in batches]
    expected = EpochSampler(ToyData.ids, seed=7, stage=STAGE, shuffle=True)
    expected.set_epoch(3)
    assert ids == [[ToyData.ids[key.index] for key in list(expected)[8:]]]
    assert loader.state_dict() == {"epoch": 3, "batches": 3}
    sampler.set_epoch(4)
    assert len(list(loader)) == 3


def test_history_and_metrics(tmp_path: Path) -> None:
    _, result = train(tmp_path)
    assert list(result.history["epoch"]) == [0, 1, 2, 3]
    assert {"train/loss", "train/fit", "train/extra", "val/loss", "lr/muon"} <= set(result.history)
    assert result.history["val/loss"].isna().tolist() == [True, False, True, False]
    assert result.metrics["val/loss"] == result.history["val/loss"].iloc[-1]
    assert result.history["train/loss"].iloc[-1] < result.history["train/loss"].iloc[0]
    assert result.checkpoint.name == CHECKPOINT_NAME
    assert (result.checkpoint.parent / "history.csv").read_text().startswith("epoch,")


def test_other_configuration_does_not_resume(tmp_path: Path, caplog: Any) -> None:
    train(tmp_path)
    ws = Workspace(root=tmp_path, seed=8, num_shards=1, shard_size=1, threads=1)
    prepare_torch(ws, STAGE)
    result = fit(ToyModule(), ToyDataModule(), ws, STAGE, CONFIG, NullTracker())
    assert result.resumed_epoch == 0
    assert "different configuration" in caplog.text


def test_non_finite_loss_names_term_and_samples(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteTraining) as caught:
        train(tmp_path, poison="s05")
    text = str(caught.value)
    assert "extra = nan" in text
    assert "loss = nan" in text
    assert "fit" not in text.split("at epoch")[0]
    assert "s05" in text
    assert "epoch 0" in text
    assert "learning rate" in text


def test_non_finite_loss_is_named_under_mixed_precision(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteTraining, match=r"extra = nan.* samples \[.*s05"):
        train(tmp_path, poison="s05", precision="bf16-mixed")


@pytest.mark.parametrize(("precision", "stops"), [("bf16-mixed", True), ("16-mixed", False)])
def test_infinite_gradients_are_left_to_the_loss_scaling_of_fp16(
    precision: str, stops: bool
) -> None:
    """The scaler of fp16 looks for overflow by itself, skips the step and scales down."""
    module = ToyModule()
    module._trainer = SimpleNamespace(precision=precision, current_epoch=0, global_step=0)
    parameter = module.out.bias
    parameter.grad = torch.full_like(parameter, float("inf"))
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    if stops:
        with pytest.raises(NonFiniteTraining, match="gradient of 1 parameters"):
            module.configure_gradient_clipping(optimizer, 1.0)
    else:
        module.configure_gradient_clipping(optimizer, 1.0)


def test_no_clipping_leaves_the_gradient(tmp_path: Path) -> None:
    """A limit of 0 is no limit."""
    free, _ = train(tmp_path / "free", gradient_clip=0.0, epochs=1)
    wide, _ = train(tmp_path / "wide", gradient_clip=1e6, epochs=1)
    tight, _ = train(tmp_path / "tight", gradient_clip=1e-6, epochs=1)
    assert_equal_weights(free, wide)
    assert not torch.equal(free.out.weight, tight.out.weight)


def test_non_finite_gradient_is_named(tmp_path: Path) -> None:
    class BadGradient(pl.Callback):
        def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            pl_module.out.bias.grad.fill_(float("inf"))

    with pytest.raises(NonFiniteTraining, match=r"gradient of 1 parameters \(first: out.bias\)"):
        train(tmp_path, [BadGradient()])


def test_finish_work_removes_the_checkpoint(tmp_path: Path) -> None:
    _, result = train(tmp_path)
    ws = Workspace(root=tmp_path, seed=7, num_shards=1, shard_size=1)
    finish_work(ws, STAGE)
    assert not result.checkpoint.exists()


def test_the_last_epoch_is_always_validated() -> None:
    distances = {(12, 5): 4, (7, 3): 1, (6, 9): 6, (8, 2): 2}
    for (epochs, every), expected in distances.items():
        assert FitConfig(epochs=epochs, validate_every_epochs=every).validation_interval == expected


def test_a_resume_in_another_number_of_processes_is_refused(tmp_path: Path) -> None:
    """Nothing is lost, and the same number goes on."""
    _, result = train(tmp_path)
    key = torch.load(result.checkpoint, weights_only=True)["fit_key"]
    with pytest.raises(ValueError, match="in 1 processes, now there would be 2") as caught:
        TrainingCheckpoint(result.checkpoint.parent, key, processes=2).resumable()
    assert f"delete {result.checkpoint.parent} to start again" in str(caught.value)
    assert TrainingCheckpoint(result.checkpoint.parent, key, processes=1).resumable()
    stored = torch.load(result.checkpoint, weights_only=False)
    del stored["processes"]
    torch.save(stored, result.checkpoint)
    older = TrainingCheckpoint(result.checkpoint.parent, key, processes=2)
    assert older.resumable(), "its number is part of the key"


def test_a_process_unlike_the_first_stops(tmp_path: Path) -> None:
    trainer = SimpleNamespace(global_step=8, global_rank=1, train_dataloader=None)
    trainer.strategy = SimpleNamespace(broadcast=lambda own: ("key", 4))
    for key, text in (("key", "starts from another step than"), ("other", "is configured unlike")):
        with pytest.raises(ValueError, match=f"process 1 {text} the first"):
            TrainingCheckpoint(tmp_path, key).on_train_start(trainer, ToyModule())


def test_a_slurm_allocation_alone_starts_no_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a job's script without srun: Lightning by itself would wait for four processes."""
    for name in ("SLURM_NTASKS", "SLURM_NTASKS_PER_NODE"):
        monkeypatch.setenv(name, "4")
    two = CONFIG.model_copy(update={"devices": 2})
    assert _trainer(two, NullTracker(), tmp_path, []).world_size == 2
