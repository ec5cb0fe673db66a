"""The stage `trained_model` on a tiny world: results, exclusions, determinism, exact labels."""

from __future__ import annotations

import base64
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from ml.detector_training.initialisation import build_network, start_encoder
from ml.imaging.io import decode_image, encode_png
from ml.inference.loading import load_detector
from ml.model.building import build_detector, model_config
from ml.model.losses import LossConfig
from ml.model.postprocess import PostprocessConfig
from ml.records.exclusions import LostSamples, read_exclusions
from ml.records.tables import SAMPLES_NAME, TRAINING_SAMPLES, read_table
from ml.records.workspace import Workspace
from ml.stages import trained_model, trained_model_exact
from ml.stages.trained_model import (
    STAGE,
    TrainedModelConfig,
    read_samples,
    run,
)
from ml.stages.trained_model_exact import TrainedModelExactConfig
from ml.training.fit import FitConfig
from ml.training.optim import OptimConfig
from ml.training.processes import TrainedAlong
from ml.training.tracking import NullTracker, mlflow_run
from ml.training_data.augmentation import AugmentConfig
from ml.training_data.datamodule import LoaderConfig
from ml.training_data.samples import HeadSamples, kept_ids
from tests.fixtures.launchers import SECOND_OF_TWO
from tests.fixtures.tiny_world import make_world

COLUMNS = ("image", "score", "box_xyxy", "flame")
SHORT = {
    "size": "nano",
    "optim": OptimConfig(kind="muon", warmup_steps=60, ema_decay=0.998),
    "loader": LoaderConfig(image_size=96, batch_size=2),
    "augment": AugmentConfig(rotate=0.5),
    "loss": LossConfig(num_vertices=50, reprojection="l1"),
    "fit": FitConfig(epochs=2, validate_every_epochs=2, precision="32-true"),
    "num_grid_images": 2,
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def trained(world: Workspace) -> Workspace:
    report = run(world, TrainedModelConfig(**SHORT), NullTracker())
    assert (report.num_in, report.num_out, report.num_excluded) == (8, 7, 1)
    assert all(path.is_file() for path in report.images.values())
    return world


def test_results_are_complete(trained: Workspace) -> None:
    folder = trained.stage_dir(STAGE)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert np.isfinite(list(metrics.values())).all()
    assert {"train/loss", "train/rotation", "val/loss", "val/ap50"} <= set(metrics)
    history = pd.read_csv(folder / "history.csv")
    assert list(history["epoch"]) == [0, 1]
    assert history["val/loss"].isna().tolist() == [True, False]
    assert (folder / "images" / "epoch-002.jpg").is_file()
    assert not trained.work_dir(STAGE).joinpath("last.ckpt").exists()
    description = json.loads((folder / "config.json").read_text())
    assert description["training"]["supervision"] == "pseudo"
    assert len(description["head_model_sha256"]) == 64


def test_damaged_image_is_excluded_with_reason(trained: Workspace) -> None:
    rows = read_exclusions(trained, [STAGE])
    assert rows["sample_id"].tolist() == ["s3"]
    assert rows["reason"].tolist() == ["damaged_image"]


def test_it_lists_what_it_used(trained: Workspace) -> None:
    used = read_table(trained.stage_dir(STAGE) / SAMPLES_NAME, TRAINING_SAMPLES)
    assert sorted(used["sample_id"]) == [f"s{n}" for n in range(8) if n != 3]
    for split, part in used.groupby("split"):
        assert set(part["sample_id"]) <= set(kept_ids(trained, str(split)))


def test_lost_images_are_named_before_the_training(
    world: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(world.root / "data", tmp_path / "data")
    mine = replace(world, root=tmp_path)

    def loses_one(*arguments: object, **named: object) -> HeadSamples:
        found = read_samples(*arguments, **named)
        return found.reordered(found.sample_ids[1:])

    monkeypatch.setattr(trained_model, "read_samples", loses_one)
    monkeypatch.setattr(trained_model, "fit", None)
    with pytest.raises(LostSamples, match="neither used nor excluded: s0, s"):
        run(mine, TrainedModelConfig(**SHORT), NullTracker())


def test_model_predicts_in_image_pixels(trained: Workspace) -> None:
    predictor = load_detector(trained.stage_dir(STAGE))
    image = np.full((50, 80, 3), 90, np.uint8)
    (heads,) = predictor.predict([image])
    assert heads.flame.shape[1] == 413


def test_again_gives_the_same_bytes(trained: Workspace, tmp_path: Path) -> None:
    shutil.copytree(trained.root / "data", tmp_path / "data")
    again = Workspace(root=tmp_path, seed=5, num_shards=1, shard_size=8, threads=1)
    shutil.rmtree(again.stage_dir(STAGE))
    run(again, TrainedModelConfig(**SHORT), NullTracker())
    names = sorted(p.name for p in trained.stage_dir(STAGE).rglob("*") if p.is_file())
    assert names == sorted(p.name for p in again.stage_dir(STAGE).rglob("*") if p.is_file())
    for path in trained.stage_dir(STAGE).rglob("*"):
        if path.is_file() and path.suffix != ".parquet":
            other = again.stage_dir(STAGE) / path.relative_to(trained.stage_dir(STAGE))
            assert path.read_bytes() == other.read_bytes(), path.name


def test_only_truth_supervision_reads_the_truth(trained: Workspace, tmp_path: Path) -> None:
    shutil.copytree(trained.root / "data", tmp_path / "data")
    blind = Workspace(root=tmp_path, seed=5, num_shards=1, shard_size=8, threads=1)
    shutil.rmtree(blind.stage_dir("truth"))
    once = {**SHORT, "fit": FitConfig(epochs=1, precision="32-true")}
    run(blind, TrainedModelConfig(**once), NullTracker())
    with pytest.raises(FileNotFoundError, match="truth"):
        trained_model_exact.run(blind, TrainedModelExactConfig(**once), NullTracker())


def _split_of(used) -> str:
    return next(tag.value for tag in used.tags if tag.key == "mlflow.data.context")


def test_exact_labels_and_registered_model(world: Workspace, mlflow_folder: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    (world.stage_dir("filtered_dataset") / "CARD.md").write_text(
        "---\npretty_name: x\nlicense: cc-by-4.0\n---\n\n# x\n"
    )
    # Untrained, it is sure of nothing: all its heads are compared.
    once = {
        **SHORT,
        "fit": FitConfig(epochs=1, precision="32-true"),
        "postprocess": PostprocessConfig(score_threshold=1e-3),
    }
    of_data = "0123456789abcdef0123456789abcdef.dir"
    tags = {"dvc.data/filtered_dataset": of_data}
    with mlflow_run(mlflow_folder, "tests", "exact", tags) as tracker:
        trained_model_exact.run(world, TrainedModelExactConfig(**once), tracker)
    folder = world.stage_dir(trained_model_exact.STAGE)
    assert json.loads((folder / "config.json").read_text())["training"]["supervision"] == "truth"
    client = mlflow.MlflowClient(tracker.tracking_uri)
    stored = client.get_run(tracker.run_id).data
    assert stored.params["data.train_images"] == "5"
    assert "train/loss_epoch" in stored.metrics
    assert "final/val/loss" in stored.metrics
    artifacts = {a.path for a in client.list_artifacts(tracker.run_id)}
    assert {"history.csv", "checkpoints", "predictions"} <= artifacts
    version = client.get_model_version("vggheads", "1")
    assert version.tags["licence"] == "cc-by-4.0"
    assert version.tags["stage"] == trained_model_exact.STAGE
    assert "candidate" in client.get_registered_model("vggheads").description
    assert version.description == (folder / "CARD.md").read_text()
    assert "license: cc-by-4.0" in version.description
    loaded = mlflow.pyfunc.load_model("models:/vggheads/1")
    assert [c.name for c in loaded.metadata.signature.outputs.inputs] == list(COLUMNS)
    example = loaded.input_example
    stored_image = example["image"][0]
    if isinstance(stored_image, str):
        stored_image = base64.b64decode(stored_image)
    assert not decode_image(stored_image).any(), "the example shows something"
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (2, 96, 96, 3), dtype=np.uint8)
    encoded = pd.DataFrame({"image": [encode_png(one) for one in image]})
    table = loaded.predict(encoded, {"score_threshold": 1e-3})
    assert len(loaded.predict(encoded)) < len(table), "the default is the operating score"
    with pytest.raises(mlflow.MlflowException, match="image 1: "):
        loaded.predict(pd.DataFrame({"image": [encoded["image"][0], b"no image"]}))
    assert version.aliases == ["candidate"]
    (train, val) = sorted(client.get_run(tracker.run_id).inputs.dataset_inputs, key=_split_of)
    assert (train.dataset.name, train.dataset.digest) == ("filtered_dataset/train", of_data)
    assert json.loads(train.dataset.profile)["images"] == 5
    assert (_split_of(val), val.dataset.digest) == ("val", of_data)
    assert stored.metrics["val/images"] == json.loads(val.dataset.profile)["images"] == 2
    assert "measured on 2 images" in version.description
    assert not [name for name in stored.metrics if name.startswith("final/lr")]
    heads = load_detector(folder).predict(list(image))
    assert list(table.columns) == list(COLUMNS)
    assert table["image"].tolist() == [i for i in (0, 1) for _ in range(len(heads[i]))]
    assert min(len(of_image) for of_image in heads) > 0
    flame = np.concatenate([of_image.flame for of_image in heads])
    assert np.allclose(np.stack(table["flame"]), flame, atol=1e-4)
    boxes = np.concatenate([of_image.boxes_xyxy for of_image in heads])
    assert np.allclose(np.stack(table["box_xyxy"]), boxes, atol=1e-3)


def test_the_exact_training_can_be_switched_off(trained: Workspace, tmp_path: Path) -> None:
    ws = Workspace(root=tmp_path, seed=5, num_shards=1, shard_size=8, threads=1)
    shutil.copytree(trained.stage_dir(STAGE), ws.stage_dir(trained_model_exact.STAGE))
    off = TrainedModelExactConfig(**SHORT, enabled=False)
    report = trained_model_exact.run(ws, off, NullTracker())
    assert (report.num_in, report.num_out) == (0, 0)
    assert f"{trained_model_exact.STAGE}.enabled" in report.metadata["trained"]
    folder = ws.stage_dir(trained_model_exact.STAGE)
    assert not (folder / "model.safetensors").exists(), "an older model must not be taken for it"
    assert json.loads((folder / "metrics.json").read_text()) == {}
    history = pd.read_csv(folder / "history.csv")
    assert len(history) == 0
    assert {"epoch", "train/loss", "val/ap50", "val/rotation_deg"} <= set(history.columns)


def test_a_follower_of_a_training_that_is_switched_off_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ws = Workspace(root=tmp_path, seed=5, num_shards=1, shard_size=8, threads=1)
    for name, value in SECOND_OF_TWO.items():
        monkeypatch.setenv(name, value)
    off = TrainedModelExactConfig(**SHORT, enabled=False)
    with pytest.raises(TrainedAlong):
        trained_model_exact.run(ws, off, NullTracker())
    assert not list(tmp_path.iterdir())


def test_the_supervision_cannot_be_configured_and_unknown_keys_are_refused() -> None:
    with pytest.raises(ValueError, match="supervision"):
        TrainedModelConfig(supervision="truth")  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="Extra inputs"):
        TrainedModelConfig(epochs=3)  # type: ignore[call-arg]


def test_the_encoder_starts_from_the_weights_of_another_network(tmp_path: Path) -> None:
    first, second = (build_detector(model_config("nano")) for _ in range(2))
    neck = {name: tensor.clone() for name, tensor in second.neck.state_dict().items()}
    weights = tmp_path / "regressor.safetensors"
    save_file({k: v.clone() for k, v in first.state_dict().items()}, weights)
    start_encoder(second, weights)
    for name, tensor in second.backbone.state_dict().items():
        assert torch.equal(tensor, first.backbone.state_dict()[name]), name
    for name, tensor in second.neck.state_dict().items():
        assert torch.equal(tensor, neck[name]), name


def test_weights_of_another_encoder_are_refused(tmp_path: Path) -> None:
    network = build_detector(model_config("nano"))
    with pytest.raises(FileNotFoundError, match="run the stage that makes it"):
        start_encoder(network, tmp_path / "none.safetensors")
    save_file({"backbone.stem.conv.conv.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="its encoder is not the detector's: missing"):
        start_encoder(network, tmp_path / "other.safetensors")


def test_a_pretrained_encoder_is_trained_stored_and_read_back(
    trained: Workspace, tmp_path: Path
) -> None:
    from transformers import SegformerConfig, SegformerForImageClassification

    shutil.copytree(trained.root / "data", tmp_path / "data")
    ws = Workspace(root=tmp_path, seed=5, num_shards=1, shard_size=8, threads=1)
    tiny = SegformerConfig(
        hidden_sizes=[8, 16, 24, 32], depths=[1] * 4, num_attention_heads=[1, 2, 4, 4]
    )
    SegformerForImageClassification(tiny).save_pretrained(tmp_path / "encoder")
    once = {
        **SHORT,
        "encoder_folder": Path("encoder"),
        "fit": FitConfig(epochs=1, precision="32-true"),
    }
    config = TrainedModelConfig(**once)
    network = build_network(ws, config)
    assert network.backbone.channels == (8, 16, 24, 32)
    run(ws, config, NullTracker())
    shutil.rmtree(tmp_path / "encoder")  # the stored model needs it no more
    predictor = load_detector(ws.stage_dir(STAGE))
    images = list(np.random.default_rng(0).integers(0, 256, (2, 96, 96, 3), dtype=np.uint8))
    everything = PostprocessConfig(score_threshold=0.0, iou_threshold=1.0)
    first, second = predictor.predict(images, postprocessing=everything)
    assert len(first) == len(second) > 0
    assert np.abs(first.flame - second.flame).max() > 1e-4


def test_initial_weights_are_taken_where_they_fit(trained: Workspace, tmp_path: Path) -> None:
    shutil.copytree(trained.root / "data", tmp_path / "data")
    ws = Workspace(root=tmp_path, seed=5, num_shards=1, shard_size=8, threads=1)
    donor = build_detector(model_config("nano")).state_dict()
    donor = {name: value for name, value in donor.items() if ".flame_" not in name}
    donor["heads.head1.cls_pred.weight"] = torch.zeros(80, 32, 1, 1)
    torch.save({"net": donor}, tmp_path / "coco.pth")
    config = TrainedModelConfig(**{**SHORT, "initial_weights": Path("coco.pth")})
    state = build_network(ws, config).state_dict()
    assert torch.equal(
        state["backbone.stem.conv.conv.weight"], donor["backbone.stem.conv.conv.weight"]
    )
    assert state["heads.head1.cls_pred.weight"].shape == (1, 32, 1, 1)
