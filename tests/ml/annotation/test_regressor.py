from pathlib import Path

import pytest
import torch

from ml.annotation.regressor import (
    CONFIG_NAME,
    CropRegressor,
    MirroredRegressor,
    RegressorArchitecture,
    TrainedRegressor,
    load_regressor,
    save_regressor,
)
from ml.flame.head_model import HeadModel
from ml.flame.projection import mirror_flame
from ml.flame.rotation import geodesic_distance, matrix_from_6d, sixd_from_matrix

TINY = RegressorArchitecture(
    crop_size=64,
    num_features=32,
    num_shape=10,
    num_expression=5,
)


@pytest.fixture
def network() -> CropRegressor:
    torch.manual_seed(0)
    return CropRegressor(TINY).eval()


def test_starts_as_a_frontal_mean_head_in_the_middle(network: CropRegressor) -> None:
    with torch.no_grad():
        network.output.weight.zero_()
        flame = network(torch.rand(2, 3, 64, 64))
    expected = torch.zeros(2, 413)
    expected[:, 403:409] = torch.tensor([1.0, 0, 0, 0, -1, 0])
    expected[:, 409:411] = 32
    # The crop is 1.5 times a box of about 0.23 m.
    expected[:, 412] = 64 / (1.5 * 0.23)
    torch.testing.assert_close(flame, expected)


def test_ranges_hold_for_extreme_features(network: CropRegressor) -> None:
    with torch.no_grad():
        network.output.weight.mul_(1e3)
        flame = network(torch.rand(4, 3, 64, 64))
    assert flame.isfinite().all()
    assert (flame[:, :400].abs() <= 3).all()
    assert (flame[:, 10:300] == 0).all()
    assert (flame[:, 305:400] == 0).all()
    assert (flame[:, 412] > 0).all()


@pytest.mark.parametrize("num_crops", [0, 1, 5])
def test_predict_equals_the_network_in_any_batching(network: CropRegressor, num_crops: int) -> None:
    crops = torch.randint(0, 256, (num_crops, 3, 64, 64), dtype=torch.uint8)
    predicted = TrainedRegressor(network, "0" * 64, batch_size=2).predict(crops)
    assert predicted.shape == (num_crops, 413)
    for crop, flame in zip(crops, predicted, strict=True):
        with torch.no_grad():
            alone = network(crop[None].float() / 255)[0]
            alone[403:409] = sixd_from_matrix(matrix_from_6d(alone[403:409]))
        torch.testing.assert_close(flame, alone, rtol=1e-4, atol=1e-4)
        assert float(flame[403:406] @ flame[406:409]) == pytest.approx(0, abs=1e-6)


def test_saved_regressor_predicts_the_same(network: CropRegressor, tmp_path: Path) -> None:
    crops = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8)
    sha256 = save_regressor(network, tmp_path)
    loaded = load_regressor(tmp_path)
    assert loaded.sha256 == sha256
    assert (loaded.crop_size, loaded.box_margin) == (64, 0.25)
    torch.testing.assert_close(
        loaded.predict(crops), TrainedRegressor(network, sha256).predict(crops)
    )


def test_errors_say_what_to_do(network: CropRegressor, tmp_path: Path) -> None:
    regressor = TrainedRegressor(network, "0" * 64)
    with pytest.raises(ValueError, match=r"uint8 \(N, 3, 64, 64\), got torch.float32 .*cut_crops"):
        regressor.predict(torch.zeros(1, 3, 64, 64))
    with pytest.raises(
        ValueError, match="crop_size: expected a positive multiple of 32 px, got 100"
    ):
        CropRegressor(RegressorArchitecture(crop_size=100))
    with pytest.raises(FileNotFoundError, match="run the stage flame_regressor"):
        load_regressor(tmp_path)
    save_regressor(network, tmp_path)
    (tmp_path / CONFIG_NAME).write_text('{"colour": 1}')
    with pytest.raises(ValueError, match="colour: unknown key"):
        load_regressor(tmp_path)


def test_looking_twice_treats_both_sides_alike(
    network: CropRegressor, head_model: HeadModel
) -> None:
    once = TrainedRegressor(network, "0" * 64)
    twice = MirroredRegressor(once, head_model)
    crops = torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        network.output.weight.mul_(20)
    seen = twice.predict(crops)
    seen_in_mirror = mirror_flame(twice.predict(crops.flip(-1)), 64.0, head_model)
    torch.testing.assert_close(seen, seen_in_mirror, rtol=1e-4, atol=1e-4)
    # One look does not.
    alone = mirror_flame(once.predict(crops.flip(-1)), 64.0, head_model)
    assert (once.predict(crops) - alone).abs().max() > 0.01
    angle = geodesic_distance(*(matrix_from_6d(f[:, 403:409]) for f in (seen, once.predict(crops))))
    other = geodesic_distance(*(matrix_from_6d(f[:, 403:409]) for f in (seen, alone)))
    torch.testing.assert_close(angle, other, rtol=1e-3, atol=1e-4)
    assert (twice.name, twice.crop_size, twice.box_margin) == (once.name, 64, 0.25)
