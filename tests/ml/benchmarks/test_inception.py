import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ml.benchmarks.inception import (
    Inception,
    InceptionFileError,
    load_inception,
    num_parameters,
    prepare,
)
from tests.malformed import damaged_bytes


@pytest.fixture(scope="module")
def network():
    """The network with weights that follow from their names and places."""
    network = Inception().eval()
    for i, (name, tensor) in enumerate(sorted(network.state_dict().items())):
        if not tensor.is_floating_point():
            continue
        steps = torch.arange(tensor.numel(), dtype=torch.float64)
        wave = torch.sin(steps * (1.3 + 0.01 * i) + 0.001 * steps**1.5).reshape(tensor.shape)
        if name.endswith("running_var"):
            wave = 1 + 0.5 * wave
        elif name.endswith("bn.weight"):
            wave = 1 + 0.3 * wave
        elif name.endswith("conv.weight") or name == "fc.weight":
            wave = wave * 2 / tensor[0].numel() ** 0.5
        else:
            wave = 0.1 * wave
        tensor.copy_(wave)
    return network


def image():
    y, x = np.mgrid[:90, :120]
    return np.stack([(3 * x + y) % 256, (x * y) % 256, (255 - 2 * y) % 256], -1).astype(np.uint8)


def test_gives_what_torch_fidelity_gives(network):
    """Values of torch-fidelity 0.4.0 with the same weights and the same image."""
    with torch.inference_mode():
        features, scores = network(prepare(image())[None])
    recorded = {
        64: (0.223889, 0.085665, [0.29716, 0.20341, 0.35211], 0.28064),
        192: (0.131693, 0.117171, [0.09096, 0.20633, 0.07346], 0.25969),
        768: (0.105366, 0.168637, [0.01277, 0.02428, 0.01508], 0.00067),
        2048: (0.598053, 0.837397, [0.83063, 0.0, 2.03537], 0.0),
        1008: (-0.028807, 1.109129, [-1.88007, 1.37089, -0.16273], 0.09261),
    }
    for size, (mean, std, first, last) in recorded.items():
        values = (scores if size == 1008 else features[size])[0]
        assert values.shape == (size,)
        assert values.mean().item() == pytest.approx(mean, abs=1e-4)
        assert values.std().item() == pytest.approx(std, abs=1e-4)
        np.testing.assert_allclose(values[:3].numpy(), first, atol=5e-4)
        assert values[-1].item() == pytest.approx(last, abs=5e-4)


def test_has_as_many_parameters_as_the_published_network(network):
    # torchvision's 27,161,264 less its auxiliary classifier's 3,326,696, and 8 more classes
    assert num_parameters(network) == 27_161_264 - 3_326_696 + 8 * 2049


def test_resizes_as_tensorflow_1_did():
    ramp = np.array([[0, 64], [128, 192]], np.uint8)
    values = prepare(np.repeat(ramp[:, :, None], 3, axis=2), side=4)[0] * 128 + 128
    # places 0, 1/2, 1, 3/2 of the image; beyond the last pixel its value goes on
    assert values[0].tolist() == [0, 32, 64, 64]
    assert values[:, 0].tolist() == [0, 64, 128, 128]
    white = prepare(np.full((5, 7, 3), 255, np.uint8))
    assert white.shape == (3, 299, 299)
    assert white.unique().tolist() == [127 / 128]


@pytest.mark.parametrize("form", ["old.pth", "new.pth", "x.safetensors"])
def test_every_published_form_is_read(network, tmp_path, form):
    path = tmp_path / form
    # the published files carry no counts of batches
    tensors = {k: v for k, v in network.state_dict().items() if "num_batches" not in k}
    if form == "x.safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path, _use_new_zipfile_serialization=form == "new.pth")
    read = load_inception(path)
    assert not read.training
    for name, tensor in tensors.items():
        assert torch.equal(read.state_dict()[name], tensor), name


def test_other_networks_are_refused_with_what_is_expected(network, tmp_path):
    tensors = dict(network.state_dict())
    path = tmp_path / "w.pth"
    torch.save({**tensors, "fc.weight": torch.zeros(1000, 2048)}, path)
    with pytest.raises(InceptionFileError, match=r"got \(1000, 2048\).*torchvision's own"):
        load_inception(path)
    torch.save({"a": torch.zeros(1)}, path)
    with pytest.raises(InceptionFileError, match=r"tensors are missing.*torch-fidelity"):
        load_inception(path)
    torch.save([1], path, _use_new_zipfile_serialization=False)
    with pytest.raises(InceptionFileError, match="no state dict, got list"):
        load_inception(path)
    with pytest.raises(InceptionFileError, match=r"no file .*pt_inception-2015-12-05"):
        load_inception(tmp_path / "absent.pth")


@pytest.mark.parametrize("form", ["old", "new", "safetensors"])
def test_only_the_declared_error_leaves_the_reader(tmp_path, form):
    path = tmp_path / ("w.safetensors" if form == "safetensors" else "w.pth")
    tensors = {"fc.weight": torch.arange(12.0).reshape(3, 4), "fc.bias": torch.ones(3)}
    if form == "safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path, _use_new_zipfile_serialization=form == "new")
    whole = path.read_bytes()
    for number in range(60):
        path.write_bytes(damaged_bytes(whole, np.random.default_rng(number)))
        with pytest.raises(InceptionFileError) as caught:
            load_inception(path)
        assert len(str(caught.value)) < 1000
