"""RT-DETR v1, v2 and D-FINE from local folders, through the library's own loading call."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from torch import nn

from ml.box_detection import load_box_detector
from ml.box_detection.base import HeadBoxDetector
from ml.box_detection.pretrained import (
    FAMILIES,
    FamilyDetector,
    Feeding,
    feed,
    load_family_detector,
    load_network,
    save_with_feeding,
)
from ml.box_detection.rtdetr import WEIGHTS_FILE, RTDetrDetector
from ml.records.models import ModelError
from ml.stages.head_detector import HeadDetectorConfig, run
from ml.training.processes import TrainedAlong
from ml.training.tracking import NullTracker
from tests.fixtures.launchers import SECOND_OF_TWO
from tests.tiny_models.vision import take_statistics, tiny_detr

_spec = importlib.util.spec_from_file_location(
    "detector_stage", Path(__file__).parents[1] / "stages" / "test_head_detector.py"
)
detector_stage = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(detector_stage)

SIZE = 96
CLASSES = {"rt_detr": "RTDetr", "rt_detr_v2": "RTDetrV2", "d_fine": "DFine"}


def build(kind, folder, num_labels=2):
    """A tiny live network: as built, all encoder scores tie and queries are picked by rounding."""
    torch.manual_seed(3)
    labels = [f"label-{index}" for index in range(num_labels)]
    config = tiny_detr(
        getattr(transformers, f"{CLASSES[kind]}Config"), labels, decoder_layers=2, num_denoising=4
    )
    model = getattr(transformers, f"{CLASSES[kind]}ForObjectDetection")(config)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    for head in [model.model.enc_score_head, *model.model.decoder.class_embed]:
        nn.init.normal_(head.weight, std=0.5)
    hooks = [
        module.register_forward_pre_hook(take_statistics)
        for module in model.modules()
        if "BatchNorm" in type(module).__name__
    ]
    with torch.no_grad():
        model.eval()(torch.rand(4, 3, SIZE, SIZE))
    for hook in hooks:
        hook.remove()
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=list(FAMILIES))
def folder(request, tmp_path_factory):
    return request.param, build(request.param, tmp_path_factory.mktemp(request.param) / "model")


def images():
    rng = np.random.default_rng(1)
    return [rng.integers(0, 255, (h, w, 3)).astype(np.uint8) for h, w in ((80, 120), (64, 64))]


def detector(path, **feeding):
    model = load_network(path, local_files_only=True).eval()
    return FamilyDetector(model, Feeding(input_size=SIZE, **feeding), "x", "0" * 64, batch_size=2)


def test_every_family_sees_its_images(folder):
    kind, path = folder
    found = detector(path)
    assert isinstance(found, HeadBoxDetector)
    (boxes, scores), (others, other_scores) = found.detect(images())
    # Queries come from what is seen, not from a tie: the scores differ, also from each other.
    assert np.ptp(scores) > 0.05
    assert abs(scores.max() - other_scores.max()) > 1e-3
    n = min(len(boxes), len(others))
    assert np.abs(boxes[:n] - others[:n]).max() > 1
    for (boxes_of, scores_of), image in zip(found.detect(images()), images(), strict=True):
        height, width = image.shape[:2]
        assert (boxes_of >= 0).all()
        assert (boxes_of <= [width, height, width, height]).all()
        assert (np.diff(scores_of) <= 0).all()
    assert load_family_detector(path).name == FAMILIES[kind][1]


def test_it_agrees_with_the_librarys_own_call(folder):
    kind, path = folder
    model = getattr(transformers, FAMILIES[kind][0]).from_pretrained(path).eval()
    (image,) = images()[1:]
    square, _ = feed(image, Feeding(input_size=SIZE))
    with torch.no_grad():
        output = model(torch.from_numpy(square).permute(2, 0, 1)[None].float() / 255)
    best = output.logits.sigmoid().amax(-1)[0].max()
    _, scores = detector(path).detect([image])[0]
    np.testing.assert_allclose(scores[0], best, atol=1e-4)


def test_batches_do_not_matter(folder):
    _, path = folder
    together = detector(path).detect(images())
    alone = [detector(path).detect([image])[0] for image in images()]
    for (boxes, scores), (expected, expected_scores) in zip(together, alone, strict=True):
        np.testing.assert_allclose(scores, expected_scores, atol=1e-4)
        np.testing.assert_allclose(boxes, expected, atol=0.05)
    assert detector(path).detect([]) == []


def test_only_the_chosen_labels_count(folder):
    _, path = folder
    both, first, second = (
        detector(path, labels=labels).detect(images()) for labels in ((), (0,), (1,))
    )
    for i in range(2):
        best = max(first[i][1].max(), second[i][1].max())
        np.testing.assert_allclose(both[i][1].max(), best, atol=1e-6)
    assert not np.allclose(first[0][1].max(), second[0][1].max())


def test_squashed_or_letterboxed():
    image = np.zeros((50, 100, 3), np.uint8)
    image[10:20, 40:60] = 255
    box = np.array([[40, 10, 60, 20]], np.float32)
    squashed, back = feed(image, Feeding(input_size=100, fit="squash"))
    assert squashed[20:40, 40:60].mean() > 230
    assert squashed.mean() < 30
    np.testing.assert_allclose(back(box * [1, 2, 1, 2]), box, atol=1e-4)
    boxed, back = feed(image, Feeding(input_size=100, fit="letterbox"))
    assert (boxed[:25] == 127).all()
    np.testing.assert_allclose(back(box + np.float32([0, 25, 0, 25])), box, atol=1e-4)
    with pytest.raises(ValueError, match="expected \\(H, W, 3\\) with pixels"):
        feed(np.zeros((0, 4, 3), np.uint8), Feeding())


def test_how_it_is_fed_is_kept_beside_the_weights(folder, tmp_path):
    kind, path = folder
    feeding = Feeding(input_size=SIZE, fit="squash", labels=(1,))
    save_with_feeding(load_network(path), feeding, tmp_path / "model")
    loaded = load_box_detector(tmp_path)
    assert (loaded.feeding, loaded.name) == (feeding, FAMILIES[kind][1])
    assert len(loaded.sha256) == 64
    # A folder of the library alone: squashed at 640, as the checkpoints were trained.
    assert load_box_detector(path).feeding == Feeding(input_size=640, fit="squash")
    # Trained here: letterboxed, whatever the family.
    RTDetrDetector(load_network(path), SIZE).save_pretrained(tmp_path / "own")
    own = load_box_detector(tmp_path / "own")
    assert isinstance(own, RTDetrDetector if kind == "rt_detr" else FamilyDetector)
    if kind != "rt_detr":
        assert own.feeding == Feeding(input_size=SIZE, fit="letterbox")


def test_what_is_no_detector_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"no config\.json"):
        load_network(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / WEIGHTS_FILE).write_bytes(b"")
    with pytest.raises(ModelError, match="holds a 'bert', expected one of"):
        load_network(tmp_path)


def stage_config(path, source, root):
    model = {"path": str(Path(path).relative_to(root)), "asset": "d-fine"}
    return HeadDetectorConfig(
        **{
            **detector_stage.CONFIG.model_dump(),
            "source": source,
            "pretrained": {"model": model, "input_size": 64},
        }
    )


def test_the_stage_takes_a_checkpoint_as_it_is(tmp_path, monkeypatch):
    ws = detector_stage.make_workspace(tmp_path)
    path = build("d_fine", tmp_path / "models" / "d-fine")
    with monkeypatch.context() as follower, pytest.raises(TrainedAlong):
        for name, value in SECOND_OF_TWO.items():
            follower.setenv(name, value)
        run(ws, stage_config(path, "pretrained", tmp_path), NullTracker())
    assert not ws.stage_dir("head_detector").exists()
    report = run(ws, stage_config(path, "pretrained", tmp_path), NullTracker())
    loaded = load_box_detector(ws.stage_dir("head_detector"))
    assert (loaded.name, loaded.feeding.fit, loaded.feeding.input_size) == ("d-fine", "squash", 64)
    original = load_network(path).state_dict()
    for name, value in loaded.model.state_dict().items():
        assert torch.equal(value, original[name])
    assert report.metadata["epochs"] == 0
    assert report.metadata["weights_sha256"] == loaded.sha256
    assert (ws.stage_dir("head_detector") / "history.csv").read_text().startswith("epoch,")


def test_the_stage_trains_a_checkpoint_further(tmp_path):
    ws = detector_stage.make_workspace(tmp_path, num_train=4, num_val=2)
    path = build("rt_detr", tmp_path / "models" / "rt-detr")
    report = run(ws, stage_config(path, "finetune", tmp_path), NullTracker())
    loaded = load_box_detector(ws.stage_dir("head_detector"))
    assert loaded.model.config.num_labels == 1
    assert report.metadata["epochs"] == 2
    before = load_network(path).state_dict()[
        "model.backbone.model.embedder.embedder.0.convolution.weight"
    ]
    after = loaded.model.state_dict()["model.backbone.model.embedder.embedder.0.convolution.weight"]
    assert before.shape == after.shape
    # Further, not again: close to where it was.
    assert 0 < (before - after).abs().max() < 2 * before.abs().max()


def test_a_checkpoint_must_be_named():
    with pytest.raises(ValueError, match=r"source finetune needs pretrained\.model"):
        HeadDetectorConfig(source="finetune")
