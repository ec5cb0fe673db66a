"""ControlNet training on a tiny SDXL: the loss falls on fixed noise, and a kill changes nothing."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from ml.generation.config import HeadVariation
from ml.generation.controlnet import train as train_controlnet
from ml.generation.controlnet.module import ControlNetTraining
from ml.generation.controlnet.pncc_pairs import PairDataModule, PairDataset, read_pairs
from ml.generation.controlnet.train import STAGE, ControlNetConfig, main, train
from ml.generation.renderer.people import draw_flame
from ml.imaging.io import encode_jpeg
from ml.records.config import read_config
from ml.records.exclusions import Exclusions
from ml.records.ids import sample_rng
from ml.records.models import ModelError
from ml.records.shards import shard_writer
from ml.records.tables import CAPTIONS, IMAGES, TRUTH, write_table
from ml.records.workspace import Workspace
from ml.training.determinism import SampleKey
from ml.training.processes import TrainedAlong
from ml.training.tracking import NullTracker
from tests.fixtures.launchers import SECOND_OF_TWO
from tests.fixtures.recording_tracker import RecordingTracker

SHARD = "shard-00000"
CONF = Path(__file__).parents[4] / "conf" / "training" / "controlnet.yaml"


@pytest.fixture
def workspace(tmp_path, head_model, make_person):
    """Six images, each of a flat colour, with one head; the last is of the val split."""
    ws = Workspace(tmp_path, seed=4, num_shards=1, shard_size=6, threads=1)
    head_model.save(ws.stage_dir("head_model") / "head_model.npz")
    images, captions, truths = [], [], []
    with shard_writer(ws.stage_dir("images") / f"{SHARD}.tar") as writer:
        for index in range(6):
            sample_id, split = f"image-{index}", "val" if index == 5 else "train"
            pixels = encode_jpeg(np.full((96, 128, 3), 40 * index, np.uint8), 95)
            span = writer.add(sample_id, {"jpg": pixels, "json": {}})["jpg"]
            images.append({
                "sample_id": sample_id, "pose_id": f"pose-{index}", "split": split, "shard": SHARD,
                "width": 128, "height": 96, "offset": span.offset, "size": span.size,
                "sha256": "0" * 64, "seed": index, "generator": "renderer", "num_people": 1,
                "mean_luma": 100.0,
            })  # fmt: skip
            captions.append({
                "sample_id": sample_id, "pose_id": f"pose-{index}", "split": split,
                "num_people": 1, "caption": "c", "prompt": f"a person number {index}",
                "negative_prompt": "", "choices": "{}", "scene": "null", "captioner": "t",
                "seed": index,
            })  # fmt: skip
            person = make_person(x=64, y=48, scale=250)
            flame = draw_flame(person, HeadVariation(), sample_rng(index, "t", "t"))
            truths.append({
                "sample_id": sample_id, "head_id": 0, "person_id": 0, "split": split,
                "bbox_xywh": np.array([1, 1, 9, 9], np.float32), "visible": 1.0, "inside": 1.0,
                "flame": flame, "skin_tone": 5, "hair_style": "bald", "glasses": "none",
                "hat": "none", "head_model": "0" * 64,
            })  # fmt: skip
    write_table(ws.table_path("images", SHARD), pd.DataFrame(images), IMAGES)
    write_table(ws.table_path("captions", SHARD), pd.DataFrame(captions), CAPTIONS)
    write_table(ws.table_path("truth", SHARD), pd.DataFrame(truths), TRUTH)
    return ws


@pytest.fixture
def config(tiny_models):
    return ControlNetConfig(
        base={"path": str(tiny_models.path("sdxl")), "asset": "random-weights"},
        heads="truth",
        size=64,
        prompt_dropout=0.0,
        batch_size=5,
        fixed_noise=True,
        frozen_dtype="float32",
        optim={
            "kind": "adamw",
            "lr": 4e-3,
            "warmup_steps": 1,
            "final_lr_fraction": 1.0,
            "ema_decay": 0.0,
        },
        fit={
            "epochs": 10,
            "precision": "32-true",
            "channels_last": False,
            "validate_every_epochs": 10,
        },
    )


def test_the_loss_falls_on_fixed_noise_and_the_result_is_a_controlnet(
    workspace, config, tmp_path, tiny_models
):
    from diffusers import ControlNetModel

    out = tmp_path / "data" / "controlnet"
    tracker = RecordingTracker()
    result = train(workspace, config, out, tracker)
    assert tracker.datasets == {"images/train": {"pairs": 5}, "images/val": {"pairs": 1}}
    losses = result.history["train/loss"].to_numpy()
    assert len(losses) == 10
    assert losses[-3:].mean() < 0.85 * losses[0]
    network = ControlNetModel.from_pretrained(out)
    moved = network.controlnet_mid_block.weight.abs().max()
    assert moved > 0, "the zero convolutions have not moved"
    said = json.loads((out / "training.json").read_text())
    assert said["pairs"] == {"train": 5, "val": 1}
    assert said["base"]["asset"] == "random-weights"
    assert (out / "pairs.jpg").exists()
    assert not workspace.work_dir(STAGE).joinpath("last.ckpt").exists()


@pytest.mark.rehearsal
def test_going_on_after_a_kill_gives_the_same_weights(workspace, config, tmp_path, monkeypatch):
    short = config.model_copy(update={"fit": config.fit.model_copy(update={"epochs": 4})})
    whole = train(workspace, short, tmp_path / "a", NullTracker())
    calls = []

    def killed(self, batch):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return losses(self, batch)

    losses = ControlNetTraining.losses
    monkeypatch.setattr(ControlNetTraining, "losses", killed)
    with pytest.raises((RuntimeError, KeyboardInterrupt, SystemExit)):
        train(workspace, short, tmp_path / "b", NullTracker())
    monkeypatch.setattr(ControlNetTraining, "losses", losses)
    resumed = train(workspace, short, tmp_path / "b", NullTracker())
    assert whole.resumed_epoch == 0
    assert resumed.resumed_epoch == 2
    name = "diffusion_pytorch_model.safetensors"
    assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_pairs_show_the_same_heads_and_noise_follows_pair_and_epoch(workspace, head_model):
    pairs = read_pairs(workspace, "train", "truth", Exclusions(STAGE))
    assert [pair.sample_id for pair in pairs] == [f"image-{i}" for i in range(5)]
    dataset = PairDataset(pairs, head_model, 64, 0.5, 4, STAGE, fixed_noise=False)
    items = [dataset[SampleKey(i, epoch)] for i in range(5) for epoch in (0, 1)]
    assert len({item.noise_seed for item in items}) == 10
    assert {item.prompt == "" for item in items} == {True, False}
    for item in items[:4]:
        assert item.image.shape == item.condition.shape == (64, 64, 3)
        y, x = np.nonzero(item.condition.any(axis=2))
        # The head is in the middle of the pixels, and so of the cut square.
        assert abs(x.mean() - 32) < 4
        assert abs(y.mean() - 32) < 8
    fixed = PairDataset(pairs, head_model, 64, 0.0, 4, STAGE, fixed_noise=True)
    assert fixed[SampleKey(1, 0)].noise_seed == fixed[SampleKey(1, 7)].noise_seed
    batch = PairDataModule.collate(items[:3])
    assert batch.images.shape == batch.conditions.shape == (3, 3, 64, 64)
    assert float(batch.images.min()) >= -1
    assert float(batch.conditions.max()) <= 1
    assert float(batch.images.mean()) < float(batch.conditions.mean())


def test_an_image_without_a_head_is_excluded(workspace):
    exclusions = Exclusions(STAGE)
    truth = workspace.table_path("truth", SHARD)
    frame = pd.read_parquet(truth)
    write_table(truth, frame[frame["sample_id"] != "image-2"], TRUTH)
    assert len(read_pairs(workspace, "train", "truth", exclusions)) == 4
    (row,) = exclusions.to_frame().to_dict("records")
    assert (row["sample_id"], row["reason"]) == ("image-2", "no_head")


def test_the_loss_depends_on_condition_prompt_and_noise(workspace, config, head_model):
    from ml.generation.controlnet.module import FrozenParts

    pairs = read_pairs(workspace, "train", "truth", Exclusions(STAGE))
    dataset = PairDataset(pairs, head_model, 64, 0.0, 4, STAGE, fixed_noise=True)
    batch = PairDataModule.collate([dataset[SampleKey(0, 0)], dataset[SampleKey(1, 0)]])
    frozen = FrozenParts.load(config.base.resolve(workspace.root), torch.float32)
    from diffusers import ControlNetModel

    torch.manual_seed(0)
    network = ControlNetModel.from_unet(
        frozen.unet, conditioning_embedding_out_channels=(8, 8, 16, 16)
    )
    for conv in [*network.controlnet_down_blocks, network.controlnet_mid_block]:
        torch.nn.init.normal_(conv.weight, std=0.1)
    for module in network.controlnet_cond_embedding.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
    module = ControlNetTraining(network, frozen, config.optim)
    module.setup("fit")
    with torch.no_grad():
        base = module.losses(batch)["loss"]
        assert module.losses(batch)["loss"] == base
        others = [
            replace(batch, conditions=batch.conditions.flip(3)),
            replace(batch, prompts=["a beach at night", "nobody at all"]),
            replace(batch, noise_seeds=[1, 2]),
        ]
        for other in others:
            assert abs(float(module.losses(other)["loss"] - base)) > 1e-5
    trained = {name for name, p in module.named_parameters() if p.requires_grad}
    assert trained
    assert all(name.startswith("network.") for name in trained)


def test_the_command_reports_to_mlflow(workspace, config, monkeypatch, capsys):
    seen = {}

    def stand_in(ws, given, out, tracker):
        seen.update(ws=ws, config=given)
        return train_controlnet.FitResult(pd.DataFrame(), {"val/loss": 0.5}, 3.0, 0, 0, out)

    @contextmanager
    def run(folder, experiment, name):
        seen["run"] = (folder, experiment, name)
        yield NullTracker()

    monkeypatch.setattr(train_controlnet, "train", stand_in)
    monkeypatch.setattr(train_controlnet, "mlflow_run", run)
    path = workspace.root / "controlnet.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    assert main([str(path), "--root", str(workspace.root), "--seed", "9"]) == 0
    assert seen["config"] == config
    assert seen["run"] == (workspace.root / "mlruns", "vggheads", STAGE)
    assert (seen["ws"].seed, seen["ws"].num_shards) == (9, 1)
    assert "data/controlnet: 3 s" in capsys.readouterr().out
    path.write_text("sise: 64")
    assert main([str(path), "--root", str(workspace.root)]) == 2
    assert "controlnet.sise" in capsys.readouterr().err


def test_the_committed_recipe_is_read(tmp_path):
    config = read_config(ControlNetConfig, STAGE, yaml.safe_load(CONF.read_text()))
    assert config.size == 1024
    with pytest.raises(ModelError, match=r"nothing at .*sdxl-base"):
        config.base.resolve(tmp_path)


def test_a_split_without_heads_is_named(workspace, config, tmp_path):
    truth = workspace.table_path("truth", SHARD)
    frame = pd.read_parquet(truth)
    write_table(truth, frame[frame["split"] != "val"], TRUTH)
    with pytest.raises(ValueError, match=r"no image of split val has a head .*heads: truth"):
        train(workspace, config, tmp_path / "out", NullTracker())


def test_a_follower_of_a_launched_training_opens_no_run(workspace, config, monkeypatch):
    def along(ws, given, out, tracker):
        assert not tracker.active
        raise TrainedAlong

    monkeypatch.setattr(train_controlnet, "train", along)
    monkeypatch.setattr(train_controlnet, "mlflow_run", None)
    for name, value in SECOND_OF_TWO.items():
        monkeypatch.setenv(name, value)
    path = workspace.root / "controlnet.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    assert main([str(path), "--root", str(workspace.root)]) == 0
