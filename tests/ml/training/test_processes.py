"""Training in two processes against training in one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from ml.flame.geometry import HeadGeometry
from ml.flame.head_model import HeadModel
from ml.model.building import build_detector, model_config
from ml.model.losses import HeadLoss, LossConfig
from ml.records.determinism import prepare_torch
from ml.records.exclusions import Exclusions
from ml.records.workspace import Workspace
from ml.stages.trained_model import TrainedModelConfig, read_labels, read_samples
from ml.training.fit import FitConfig, FitResult, fit
from ml.training.optim import OptimConfig
from ml.training.processes import Launch, launched, leave_to_first, own_folder
from ml.training.tracking import NullTracker
from ml.training_data.augmentation import AugmentConfig
from ml.training_data.damage import Damage, DamageLog
from ml.training_data.datamodule import HeadDataModule, LoaderConfig
from ml.training_data.samples import kept_images
from tests.fixtures.ports import free_port
from tests.fixtures.tiny_world import FrozenNormModule, count_images, make_world

Weights = Mapping[str, torch.Tensor]
STAGE = "toy"
CONFIG = TrainedModelConfig(
    size="nano",
    loader=LoaderConfig(image_size=96, batch_size=4),
    loss=LossConfig(num_vertices=50),
    optim=OptimConfig(kind="adamw", lr=1e-3, warmup_steps=1),
)


def train(
    ws: Workspace, stage: str, processes: int, devices: int | None = None
) -> tuple[FrozenNormModule, FitResult]:
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
    labels = read_labels(ws, CONFIG, geometry, stage)
    train, val = (
        read_samples(split, *kept_images(ws, split), labels, 16, Exclusions(STAGE))
        for split in ("train", "val")
    )
    loader = CONFIG.loader.model_copy(update={"batch_size": 4 // processes})
    augment = AugmentConfig(flip=0.0)
    data = HeadDataModule(train, val, loader, CONFIG.limits, augment, ws.seed, STAGE)
    devices = devices or processes
    loop = FitConfig(epochs=2, validate_every_epochs=1, precision="32-true", devices=devices)
    return module, fit(module, data, ws, stage, loop, NullTracker())


def assert_equal(
    one: Weights, alone: pd.DataFrame, two: Weights, shared: Mapping[str, Any]
) -> None:
    """Compare weights, means of the loss terms, and metrics over the images of both processes."""
    terms = ["box", "classification", "dfl", "loss", "reprojection", "rotation"]
    for name in [f"train/{term}" for term in terms] + ["val/images", "val/order"]:
        np.testing.assert_allclose(shared[name], alone[name], rtol=1e-4, err_msg=name)
    assert set(shared["val/images"]) == {2}  # of both processes, each once
    assert set(shared["val/order"]) == {1 * 2}  # the second image has two heads
    for (name, left), right in zip(one.items(), two.values(), strict=True):
        torch.testing.assert_close(right, left, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.rehearsal
def test_two_processes_equal_one_with_the_same_batches(tmp_path: Path) -> None:
    """Same weights, same means of the loss terms, and metrics over the images of both."""
    ws = make_world(tmp_path)
    one, alone = train(ws, "alone", 1)
    two, shared = train(ws, "shared", 2)
    assert_equal(one.state_dict(), alone.history, two.state_dict(), shared.history)
    assert alone.history["train/positives"].sum() > 20
    prepare_torch(ws, STAGE)
    start = build_detector(model_config("nano")).state_dict()
    trained = one.model.state_dict()
    # Far more than the processes may differ by; deep in a network with frozen, untrained
    # normalisation little arrives.
    weights = [name for name in start if name.endswith("conv.weight")]
    assert sum((trained[n] - start[n]).abs().max() > 1e-4 for n in weights) > len(weights) / 2


def on_two_nodes(launcher: str, root: Path, *arguments: object) -> list[int]:
    """Run the training as on two machines; returns the exit statuses.

    There is no SLURM here: what srun would set is set by hand.
    """
    training = ["-m", "tests.fixtures.launched_training", str(root), *map(str, arguments)]
    port = free_port()
    nodes = []
    for rank in (0, 1):
        command, variables = [sys.executable], {}
        if launcher == "torchrun":
            command += ["-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1"]
            command += [f"--node-rank={rank}", "--master-addr=127.0.0.1", f"--master-port={port}"]
        else:
            names = ("NTASKS", "NNODES", "STEP_NUM_TASKS", "STEP_NUM_NODES")
            variables = {f"SLURM_{name}": "2" for name in names}
            variables |= {"SLURM_PROCID": str(rank), "SLURM_NODEID": str(rank)}
            variables |= {"SLURM_LOCALID": "0", "SLURM_NTASKS_PER_NODE": "1"}
            variables |= {"SLURM_NODELIST": "127.0.0.1", "MASTER_PORT": str(port)}
        nodes.append(subprocess.Popen([*command, *training], env=os.environ | variables))
    return [node.wait(timeout=600) for node in nodes]


@pytest.mark.rehearsal
@pytest.mark.parametrize("launcher", ["torchrun", "srun"])
def test_two_nodes_equal_one_process_with_the_same_batches(tmp_path: Path, launcher: str) -> None:
    ws = make_world(tmp_path)
    one, alone = train(ws, "alone", 1)
    assert on_two_nodes(launcher, tmp_path, tmp_path / "result.pt") == [0, 0]
    weights, history = torch.load(tmp_path / "result.pt")
    assert_equal(one.state_dict(), alone.history, weights, history)


@pytest.mark.rehearsal
@pytest.mark.parametrize(
    ("launcher", "when"), [("torchrun", "before"), ("torchrun", "after"), ("srun", "after")]
)
def test_a_follower_fails_when_the_first_fails_around_the_training(
    tmp_path: Path, launcher: str, when: str
) -> None:
    """Before the training, srun itself must end the others (--kill-on-bad-exit)."""
    make_world(tmp_path)
    assert 0 not in on_two_nodes(launcher, tmp_path, tmp_path / "result.pt", when)


TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "RANK": "5", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}
SRUN = {"SLURM_STEP_NUM_TASKS": "8", "SLURM_STEP_NUM_NODES": "2", "SLURM_PROCID": "5"}


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({}, None),
        (TORCHRUN, Launch("torchrun", 5, 8, 4)),
        (SRUN, Launch("srun", 5, 8, 4)),
        (SRUN | TORCHRUN, Launch("torchrun", 5, 8, 4)),
        ({"SLURM_NTASKS": "8", "SLURM_PROCID": "0"}, None),  # a job's script, no step
        (SRUN | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_STEP_NUM_NODES": "1"}, None),
    ],
)
def test_launchers_are_found_by_their_environment(
    environment: Mapping[str, str], found: Launch | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert launched() == found
    assert found is None or found.num_nodes == 2


def test_machines_with_different_numbers_of_processes_are_refused() -> None:
    with pytest.raises(ValueError, match="start the same number on each"):
        Launch("srun", 0, 5, 2)


def test_a_follower_has_its_own_folder_and_its_damage_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_to_first()  # the only process is the first
    assert own_folder(tmp_path) == tmp_path
    DamageLog(own_folder(tmp_path) / "damaged.jsonl").note([Damage("a", "reason", "detail")])
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    assert own_folder(tmp_path) == tmp_path / "process-5"
    found = [Damage("a", "reason", "detail"), Damage("b", "reason", "detail")]
    DamageLog(own_folder(tmp_path) / "damaged.jsonl").note(found)
    exclusions = Exclusions(STAGE)
    assert DamageLog(tmp_path / "damaged.jsonl").exclude(exclusions) == {"a", "b"}
    assert [row["sample_id"] for row in exclusions.rows()] == ["a", "b"]
