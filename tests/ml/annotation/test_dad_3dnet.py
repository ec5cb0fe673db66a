"""DAD-3DNet's contract, with a tiny traced network that reads a head's place off the scene."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from ml.annotation.backends import RegressorConfig, load_flame_regressor
from ml.annotation.dad_3dnet import OUTPUT_KEY, DadError, DadRegressor, _parameters
from ml.annotation.estimates import CutsCrops, cut_crops
from ml.flame.frames import crop_to_image
from ml.records.models import ModelError
from ml.records.workspace import Workspace

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)


class WhiteSpot(nn.Module):
    """Puts the head on the centre of what is white, in DAD-3DNet's units."""

    def __init__(self, key="OUTPUT_3DMM_PARAMS", rows=None, as_dict=True):
        super().__init__()
        self.key, self.rows, self.as_dict = key, rows, as_dict

    def forward(self, x):
        white = ((x * STD + MEAN).mean(1) > 0.8).float()
        total = white.sum((1, 2)).clamp(min=1)
        places = torch.arange(256) + 0.5
        centre_x = (white * places).sum((1, 2)) / total
        centre_y = (white * places[:, None]).sum((1, 2)) / total
        zero = total * 0
        # Its rotation is not of unit length, as a network's; the z shift means nothing.
        # u = ((S + 1) R v + t + 1) / 2 * 256
        columns = [x.mean((1, 2, 3)), *[zero] * 402, zero + 2, zero, zero, zero, zero - 3, zero]
        columns += [centre_x / 128 - 1, centre_y / 128 - 1, zero + 0.7, total.sqrt() / 128]
        params = torch.stack(columns, dim=1)
        if self.rows:
            params = params[: self.rows]
        if not self.as_dict:
            return params
        return {self.key: params, "OUTPUT_2D_LANDMARKS": params[:, :136]}


def save(path, network, batch=2):
    torch.manual_seed(0)
    traced = torch.jit.trace(network, torch.rand(batch, 3, 256, 256), strict=False)
    traced.save(str(path))
    return path


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return save(tmp_path_factory.mktemp("dad") / "dad_3dheads.trcd", WhiteSpot())


@pytest.fixture(scope="module")
def regressor(file):
    return DadRegressor.load(file)


def scene(left, top, width=12, height=12, size=(120, 200)):
    image = np.full((*size, 3), 40, np.uint8)
    image[top : top + height, left : left + width] = 255
    return image


def predict(regressor, image, boxes):
    crops, frames = cut_crops(regressor, image, np.array(boxes, np.float32))
    flame = regressor.predict(torch.from_numpy(crops).permute(0, 3, 1, 2))
    return crop_to_image(flame.numpy(), frames, regressor.crop_size)


def test_other_images_give_other_heads(regressor):
    one = predict(regressor, scene(60, 40), [[40, 20, 90, 70]])
    two = predict(regressor, scene(70, 50), [[40, 20, 90, 70]])
    assert np.abs(one - two).max() > 5


@pytest.mark.parametrize(
    ("left", "top", "box"),
    [
        (60, 40, (40, 20, 90, 70)),
        (60, 40, (40, 30, 110, 65)),
        (10, 60, (2, 50, 40, 110)),
        (0, 0, (0, 0, 30, 34)),
        (186, 104, (160, 90, 200, 120)),
    ],
    ids=["square", "wide", "tall", "corner", "far corner"],
)
def test_a_heads_place_comes_back_in_image_pixels(regressor, left, top, box):
    image = scene(left, top)
    (flame,) = predict(regressor, image, [box])
    white = np.argwhere(image[:, :, 0] == 255)
    centre = white.mean(axis=0)[::-1] + 0.5
    # One pixel of the crop is a fraction of one of the image.
    np.testing.assert_allclose(flame[409:411], centre, atol=0.6)
    # s = 128 (S + 1) with S = sqrt(white crop px) / 128: half the crop's side, and the patch's.
    side = 1.5 * max(box[2] - box[0], box[3] - box[1])
    np.testing.assert_allclose(flame[412], side / 2 + np.sqrt(len(white)), rtol=0.03)
    assert flame[411] == 0
    np.testing.assert_allclose(flame[403:409], [1, 0, 0, 0, -1, 0], atol=1e-6)


def test_the_crop_is_centred_black_around_and_normalised_in_rgb(regressor):
    image = np.zeros((100, 100, 3), np.uint8)
    image[20:60, 10:90] = (200, 100, 50)
    crops, frames = regressor.cut(image, np.array([[20, 25, 80, 55]], np.float32))
    # Extended by a quarter: 90 x 44 px (whole numbers), so black above and below.
    assert frames[0, 2] == 90
    assert (crops[0, :60] == 0).all()
    assert (crops[0, -60:] == 0).all()
    assert tuple(crops[0, 128, 128]) == (200, 100, 50)
    assert isinstance(regressor, CutsCrops)


def test_batches_do_not_matter(file):
    image = scene(60, 40)
    boxes = [[40, 20, 90, 70], [0, 0, 50, 60], [100, 20, 150, 110]]
    one, many = (predict(DadRegressor.load(file, batch_size=n), image, boxes) for n in (1, 3))
    np.testing.assert_allclose(one, many, atol=1e-4)
    assert predict(DadRegressor.load(file), image, np.zeros((0, 4))).shape == (0, 413)


def test_what_is_not_dad_is_named(tmp_path):
    crops = torch.zeros(2, 3, 256, 256, dtype=torch.uint8)
    renamed = DadRegressor.load(save(tmp_path / "a", WhiteSpot(key="3dmm")))
    assert renamed.predict(crops).shape == (2, 413)
    single = DadRegressor.load(save(tmp_path / "b", WhiteSpot(rows=1)))
    with pytest.raises(DadError, match=r"annotations\.regressor\.batch_size 1"):
        single.predict(crops)
    other = DadRegressor.load(save(tmp_path / "c", WhiteSpot(as_dict=False)))
    with pytest.raises(DadError, match="expected a dict with OUTPUT_3DMM_PARAMS, got Tensor"):
        other.predict(crops)
    with pytest.raises(ValueError, match=r"cut them with"):
        renamed.predict(crops.float())
    (tmp_path / "text").write_text("no network")
    with pytest.raises(DadError, match="not a TorchScript file"):
        DadRegressor.load(tmp_path / "text")
    with pytest.raises(FileNotFoundError, match="its authors publish it"):
        DadRegressor.load(tmp_path / "none")


def test_it_is_chosen_by_configuration(file, tmp_path, head_model):
    ws = Workspace(tmp_path, 1, 1, 1)
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "dad.trcd").write_bytes(file.read_bytes())
    model = {"path": "m/dad.trcd", "asset": "dad-3dnet"}
    chosen = load_flame_regressor(
        ws, RegressorConfig(backend="dad", model=model, batch_size=4), head_model
    )
    assert (chosen.name, len(chosen.sha256)) == ("dad-3dnet", 64)
    with pytest.raises(ModelError, match="expected 0000"):
        load_flame_regressor(
            ws, RegressorConfig(backend="dad", model={**model, "sha256": "0" * 64}), head_model
        )
    with pytest.raises(ValueError, match="backend dad needs model"):
        RegressorConfig(backend="dad")
    with pytest.raises(FileNotFoundError, match="run the stage flame_regressor"):
        load_flame_regressor(ws, RegressorConfig(), head_model)


def test_the_published_key_wins_over_another_output_of_its_length():
    named, other = torch.zeros(2, 413), torch.ones(2, 413)
    assert _parameters({"OUTPUT_OTHER": other, OUTPUT_KEY: named}) is named


def test_each_channel_is_normalised_by_its_own_mean():
    seen = []

    class Sees(nn.Module):
        def forward(self, x):
            seen.append(x)
            params = torch.zeros(len(x), 413)
            params[:, 403], params[:, 407] = 1.0, -1.0
            return {OUTPUT_KEY: params}

    red = torch.zeros(1, 3, 256, 256, dtype=torch.uint8)
    red[:, 0] = 255
    DadRegressor(Sees(), "none").predict(red)
    expected = (torch.tensor([1.0, 0.0, 0.0]) - MEAN.flatten()) / STD.flatten()
    torch.testing.assert_close(seen[0].mean((2, 3))[0], expected)
