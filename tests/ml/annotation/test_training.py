import numpy as np
import pytest
import torch

from ml.annotation.regressor import CropRegressor, RegressorArchitecture
from ml.annotation.training import CropLoss, CropLossConfig, crop_errors
from ml.flame.geometry import HeadGeometry
from ml.flame.head_model import HeadModel
from ml.flame.params import ROTATION
from ml.flame.rotation import matrix_from_euler_deg, sixd_from_matrix


def frontal(num_heads: int, size: float = 128) -> torch.Tensor:
    flame = torch.zeros(num_heads, 413)
    flame[:, ROTATION] = torch.tensor([1.0, 0, 0, 0, -1, 0])
    flame[:, 409:411] = size / 2
    flame[:, 412] = size / 1.5 / 0.2
    return flame


def turned(flame: torch.Tensor, yaw_deg: float) -> torch.Tensor:
    out = flame.clone()
    out[:, ROTATION] = sixd_from_matrix(matrix_from_euler_deg(torch.tensor([0.0, yaw_deg, 0.0])))
    return out


def test_loss_is_zero_at_the_truth_and_weights_its_terms(head_model: HeadModel) -> None:
    criterion = CropLoss(CropLossConfig(), head_model)
    truth, box_size = frontal(3), torch.full((3,), 80.0)
    terms = criterion(truth, truth, box_size)
    assert all(float(value) == pytest.approx(0, abs=1e-6) for value in terms.values())
    moved = truth.clone()
    moved[:, 409] += 4
    moved[:, ROTATION] = turned(truth, 30)[:, ROTATION]
    terms = criterion(moved, truth, box_size)
    assert float(terms["rotation"]) == pytest.approx(np.deg2rad(30), rel=1e-4)
    config = criterion.config
    expected = sum(getattr(config, name) * terms[name] for name in terms if name != "loss")
    assert float(terms["loss"]) == pytest.approx(float(expected))


def test_reprojection_by_hand(head_model: HeadModel) -> None:
    criterion = CropLoss(CropLossConfig(), head_model)
    truth = frontal(2)
    moved = truth.clone()
    moved[:, 409] += 4
    terms = criterion(moved, truth, torch.tensor([80.0, 40.0]))
    # 4 px in x and 0 in y: 2 px a coordinate, over 80 and over 40 px.
    assert float(terms["reprojection"]) == pytest.approx((2 / 80 + 2 / 40) / 2, rel=1e-4)
    assert float(terms["vertices"]) == pytest.approx(0, abs=1e-9)


def test_gradients_reach_every_output(head_model: HeadModel) -> None:
    torch.manual_seed(0)
    architecture = RegressorArchitecture(crop_size=64, num_shape=2, num_expression=1)
    network = CropRegressor(architecture)
    predicted = network(torch.rand(4, 3, 64, 64))
    target = turned(frontal(4, 64), 20)
    target[:, 0] = 1
    loss = CropLoss(CropLossConfig(), head_model)(predicted, target, torch.full((4,), 40.0))
    loss["loss"].backward()
    gradient = network.output.weight.grad
    assert gradient is not None
    rows = gradient.abs().amax(dim=1)
    # The test head has no jaw and its third expression coefficient does nothing but cost.
    jaw = slice(3, 6)
    assert (rows[:3] > 0).all()
    assert (rows[jaw] == 0).all()
    assert (rows[6:] > 0).all()


def test_errors_by_hand(head_model: HeadModel) -> None:
    truth = turned(frontal(2), 40)
    predicted = truth.clone()
    predicted[1] = turned(frontal(1), 25)[0]
    predicted[0, 409] += 3
    predicted[0, 410] += 4
    errors = crop_errors(
        predicted.numpy(), truth.numpy(), np.array([50.0, 50.0]), HeadGeometry(head_model)
    )
    np.testing.assert_allclose(errors.rotation_deg, [0, 15], atol=1e-3)
    np.testing.assert_allclose(errors.frontal_deg, [40, 40], atol=1e-3)
    assert errors.nme_bbox[0] == pytest.approx(5 / 50, rel=1e-4)
    assert errors.nme_bbox[1] > 0
