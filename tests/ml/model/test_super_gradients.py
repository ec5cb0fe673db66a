"""Our network against what super-gradients' own modules compute with the same weights.

The recorded values come from `golden/make_super_gradients.py`, which imports nothing of ours.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent / "golden"))
from seeded import (
    NUM_ANCHORS,
    NUM_IMAGES,
    SIZES,
    is_statistic,
    layout_digest,
    seeded_anchors,
    seeded_images,
    seeded_weights,
)

from ml.model.building import build_detector, model_config
from ml.model.decode import decode
from ml.model.fusing import fuse
from ml.model.weights import import_published, initialise_from

GOLDEN = Path(__file__).parent / "golden"
TOLERANCE = 1e-4
NUM_ENTRIES = {"S": (1551, 931), "M": (1595, 959), "L": (2015, 1169)}
# Digests of the published state dicts' names and shapes.
LAYOUTS = {
    "S": "d071f6fe3bfd321cb2fec9ba45b5e72c1da48afd631723ebdb13a21306d3712e",
    "M": "79eb5e000eda8eaabd003d75a2b75fc09ab3514e42f957e01683cb4d7a2ae9ad",
    "L": "2b0d7510bcd6a4d188b0d3daa5b2a0dc852d96b96bc35a8734118ba38ffdc1c7",
}


def record(size: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / f"super_gradients_{size.lower()}.npz") as stored:
        return dict(stored)


def with_placeholders(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A published, unfused state dict also holds the unused convolution of a later fusion."""
    full = dict(state)
    for name, tensor in state.items():
        if name.endswith("branch_3x3.conv.weight"):
            stem = name.removesuffix("branch_3x3.conv.weight")
            full[f"{stem}rbr_reparam.weight"] = tensor
            full[f"{stem}rbr_reparam.bias"] = tensor[:, 0, 0, 0]
    return full


def published_network(size: str) -> nn.Module:
    """The network with the weights of the record, its outputs put in order as at import."""
    config = model_config(size)
    head = config.head.model_copy(update={"swapped_branches": True})
    with torch.device("meta"):
        model = build_detector(config.model_copy(update={"head": head}))
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    state = seeded_weights(shapes)
    values, start = record(size)["statistics"].astype(np.float32), 0
    for name in sorted(filter(is_statistic, shapes)):
        state[name] = torch.from_numpy(values[start : start + shapes[name][0]])
        start += shapes[name][0]
    assert start == len(values)
    model.load_state_dict(state, assign=True)
    return model.eval()


@torch.no_grad()
def assert_equals_record(model: nn.Module, size: str, side_px: int) -> None:
    """Every recorded output within 1e-4 of its own size or its usual variation."""
    stored = record(size)
    boxes, scores, flame = decode(model(seeded_images(side_px, NUM_IMAGES[side_px])))
    everything = torch.cat([boxes, scores[..., None], flame], dim=-1)
    used = everything.abs().amax(dim=(0, 1)) > 0
    assert used.nonzero()[:, 0].tolist() == stored[f"{side_px}.columns"].tolist()
    deviations = stored[f"{side_px}.deviations"]
    for name, found in (
        ("anchors", everything[:, seeded_anchors(side_px)]),
        ("means", everything.mean(dim=1)),
    ):
        wanted = stored[f"{side_px}.{name}"]
        allowed = TOLERANCE * np.maximum(np.abs(wanted), deviations)
        error = np.abs(found[..., used].numpy() - wanted)
        worst = np.unravel_index((error / allowed).argmax(), error.shape)
        assert (error <= allowed).all(), f"{name} {worst}: {error[worst]}, {allowed[worst]} allowed"


@pytest.fixture(scope="module", params=SIZES)
def sized(request) -> tuple[str, nn.Module]:
    return request.param, published_network(request.param)


@pytest.mark.parametrize("size", SIZES)
def test_the_record_is_not_of_a_blind_network(size):
    stored = record(size)
    first, second = stored["256.anchors"]
    assert first.shape[0] == NUM_ANCHORS
    assert np.abs(first - second).mean(axis=0).min() > 0.05  # each tells the images apart
    for side_px in NUM_IMAGES:
        assert stored[f"{side_px}.deviations"].min() > 0.05  # and the places in an image


def test_all_names_and_shapes_are_the_published_ones(sized):
    size, model = sized
    digests = json.loads(str(record(size)["digests"]))
    own = {n: tuple(t.shape) for n, t in with_placeholders(model.state_dict()).items()}
    partly = {n: tuple(t.shape) for n, t in fuse(model, "partial").state_dict().items()}
    assert (len(own), len(partly)) == NUM_ENTRIES[size]
    assert layout_digest(own) == digests["layout"] == LAYOUTS[size]
    assert layout_digest(partly) == digests["layout_fused"]


def test_equal_to_super_gradients_at_256_px(sized):
    assert_equals_record(sized[1], sized[0], 256)


def test_fused_equal_to_super_gradients_at_640_px(sized):
    assert_equals_record(fuse(sized[1], "partial"), sized[0], 640)


def test_unfused_equal_to_super_gradients_at_640_px():
    assert_equals_record(published_network("S"), "S", 640)


def test_equal_to_super_gradients_from_a_checkpoint_file(tmp_path):
    state = with_placeholders(published_network("S").state_dict())
    torch.save({"net": state, "epoch": 3, "acc": 1.5}, tmp_path / "ckpt_best.pth")
    assert_equals_record(import_published(tmp_path / "ckpt_best.pth"), "S", 256)


def test_coco_weights_start_all_but_the_heads(tmp_path):
    """The encoder and neck of YOLO-NAS on COCO fit as they are; the report names the rest."""
    heads = json.loads((GOLDEN / "yolo_nas_coco_heads.json").read_text())
    config = model_config("S")
    model, donor = build_detector(config), build_detector(config)
    trunk = {n: t for n, t in donor.state_dict().items() if not n.startswith("heads.")}
    coco = trunk | {name: torch.zeros(shape) for name, shape in heads.items()}
    torch.save({"net": with_placeholders(coco)}, tmp_path / "coco.pth")
    report = initialise_from(model, tmp_path / "coco.pth")
    loaded = model.state_dict()
    assert set(trunk) <= set(report.loaded)
    assert all(torch.equal(loaded[name], tensor) for name, tensor in trunk.items())
    assert all(name.startswith("heads.") for name in report.missing + report.unexpected)
    assert "heads.head1.cls_pred.weight" in report.mismatched  # 80 classes
    assert "heads.head1.flame_shape_pred.0.alpha" in report.missing
    assert "heads.head1.stem.seq.conv.weight" in report.unexpected
