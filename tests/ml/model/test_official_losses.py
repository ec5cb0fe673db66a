"""Our losses against the published training's, from the same raw outputs and labels.

The recorded values come from `golden/make_official_losses.py`: super-gradients' own loss and
assigner, smplx's meshes, nothing of ours.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent / "golden"))
from seeded import LOSS_MAPS, LOSS_VERTICES, seeded_head, seeded_loss_case

from ml.flame.head_model import HeadModel
from ml.model.assigner import assign
from ml.model.building import model_config
from ml.model.decode import decode_all_boxes
from ml.model.losses import HeadLoss, loss_config
from ml.model.outputs import Anchors, RawOutputs
from ml.model.targets import HeadTargets

TERMS = ("classification", "box", "dfl", "vertices", "rotation", "reprojection", "loss")
HEADS = model_config("S").head


@pytest.fixture(scope="module")
def recorded() -> dict[str, np.ndarray]:
    with np.load(Path(__file__).parent / "golden" / "official_losses.npz") as stored:
        return dict(stored)


@pytest.fixture(scope="module")
def head_model() -> HeadModel:
    everything = np.arange(5023, dtype=np.int32)
    return HeadModel(
        **seeded_head(),
        faces=np.zeros((9976, 3), np.int32),
        landmark_faces=np.zeros(68, np.int32),
        landmark_barycentric=np.full((68, 3), 1 / 3, np.float32),
        mirror_vertices=everything,
        mirror_shape=np.ones(300, np.float32),
        mirror_expression=np.ones(100, np.float32),
        regions={"all": everything, "head": everything[LOSS_VERTICES]},
    )


@pytest.fixture
def case() -> dict[str, Tensor]:
    return seeded_loss_case(HEADS.shape.out, HEADS.expression.out)


def outputs_of(case: dict[str, Tensor]) -> RawOutputs:
    anchors = Anchors.of_maps(list(LOSS_MAPS), (8, 16, 32), torch.device("cpu"))
    leaves = (case[name].requires_grad_() for name in ("score_logits", "box_logits", "flame"))
    return RawOutputs(*leaves, anchors, HEADS)


def targets_of(case: dict[str, Tensor]) -> HeadTargets:
    truth = torch.ones(len(case["boxes"]), dtype=torch.bool)
    return HeadTargets(case["boxes"], case["true_flame"], truth, ~truth, case["image_index"])


def test_the_record_is_of_a_lively_case(recorded):
    """Terms neither vanish nor are saturated; heads share anchors; one image has no head."""
    terms = dict(zip(TERMS, recorded["official.terms"], strict=True))
    assert 0.2 < terms["reprojection"] < 0.95
    assert min(terms.values()) > 0.01
    per_head = np.bincount(recorded["target"][recorded["target"] >= 0], minlength=5)
    assert per_head.min() >= 3
    assert (recorded["target"].reshape(3, -1)[1] == -1).all()
    assert np.ptp(recorded["score"][recorded["target"] >= 0]) > 0.3


def test_assignment_is_the_published_one(recorded, case):
    outputs = outputs_of(case)
    found = assign(
        outputs.score_logits.detach().sigmoid(),
        decode_all_boxes(outputs).detach(),
        outputs.anchors,
        targets_of(case),
        loss_config("official").assigner,
    )
    assert found.target.flatten().tolist() == recorded["target"].tolist()
    np.testing.assert_allclose(found.score.flatten(), recorded["score"], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("form", ["official", "paper"])
def test_terms_and_gradients_are_the_published_ones(form, recorded, case, head_model):
    outputs = outputs_of(case)
    found = HeadLoss(loss_config(form), head_model)(outputs, targets_of(case))
    values = [found[name].item() for name in TERMS]
    np.testing.assert_allclose(values, recorded[f"{form}.terms"], rtol=2e-4)
    found["loss"].backward()
    gradients = {
        "score": outputs.score_logits.grad,
        "box": outputs.box_logits.grad.square().sum(dim=(2, 3)).sqrt(),
        "flame": (outputs.flame.grad * case["probe"]).sum(dim=2),
    }
    for name, gradient in gradients.items():
        wanted = recorded[f"{form}.{name}_gradient"]
        scale = float(np.abs(wanted).max())
        np.testing.assert_allclose(gradient, wanted, rtol=1e-3, atol=1e-4 * scale, err_msg=name)
