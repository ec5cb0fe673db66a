"""Encoders of the transformers library: tiny ones from a local folder, one step of training."""

from __future__ import annotations

import pytest
import torch

from ml.model.backbone import Encoder
from ml.model.building import build_detector
from ml.model.config import EncoderConfig
from ml.model.encoders import TransformersEncoder, encoder_config, encoder_of_folder
from ml.model.losses import HeadLoss, LossConfig
from ml.model.targets import HeadTargets

TINY = {
    "segformer": {
        "hidden_sizes": [8, 16, 24, 32],
        "depths": [1, 1, 1, 1],
        "num_attention_heads": [1, 2, 4, 4],
    },
    "convnextv2": {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]},
    "swin": {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 2, 4], "window_size": 4},
}


def architecture(kind: str) -> EncoderConfig:
    return EncoderConfig(architecture={"model_type": kind, **TINY[kind]})


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Tiny random models as the library saves them: a segmenter and two classifiers."""
    import transformers

    root = tmp_path_factory.mktemp("encoders")
    torch.manual_seed(3)
    for kind, family, task in (
        ("segformer", "Segformer", "ForSemanticSegmentation"),
        ("convnextv2", "ConvNextV2", "ForImageClassification"),
        ("swin", "Swin", "ForImageClassification"),
    ):
        extra = {"decoder_hidden_size": 8} if kind == "segformer" else {}
        config = getattr(transformers, f"{family}Config")(**TINY[kind], **extra)
        getattr(transformers, f"{family}{task}")(config).save_pretrained(root / kind)
    return root


@pytest.mark.parametrize("kind", TINY)
def test_maps_depend_on_the_image(kind):
    encoder = TransformersEncoder(architecture(kind)).eval()
    assert isinstance(encoder, Encoder)
    first, second = torch.rand(2, 1, 3, 64, 96)
    with torch.no_grad():
        maps, others = encoder(first), encoder(second)
    assert [x.shape[1] for x in maps] == list(encoder.channels)
    assert [tuple(x.shape[2:]) for x in maps] == [(16, 24), (8, 12), (4, 6), (2, 3)]
    for one, other in zip(maps, others, strict=True):
        assert (one - other).abs().mean() > 0.05 * one.std()


@pytest.mark.parametrize("kind", TINY)
def test_weights_of_a_folder_are_taken(kind, folders):
    folder = folders / kind
    config = encoder_of_folder(folder)
    encoder = TransformersEncoder(config, folder).eval()
    again = TransformersEncoder(config, folder).eval()
    other = TransformersEncoder(config).eval()
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        wanted, found, random = encoder(image)[1], again(image)[1], other(image)[1]
    torch.testing.assert_close(found, wanted)
    assert (random - wanted).abs().max() > 1e-3
    import transformers

    classes = {"segformer": "SegformerForSemanticSegmentation"}
    model = getattr(transformers, classes.get(kind, "AutoModelForImageClassification"))
    whole = model.from_pretrained(folder).state_dict()
    taken = {
        name if name.startswith(f"{kind}.") else f"{kind}.{name}": tensor
        for name, tensor in encoder.model.state_dict().items()
    }
    common = [name for name in taken if name in whole]
    assert len(common) > 10
    assert all(torch.equal(taken[name], whole[name]) for name in common)


@pytest.mark.parametrize("kind", TINY)
def test_one_step_of_training_reaches_the_encoder(kind, nano, head_model):
    model = build_detector(nano.model_copy(update={"encoder": architecture(kind)}))
    assert model.neck.neck1.conv.conv.in_channels == model.backbone.channels[3]
    flame = torch.zeros(1, 413)
    flame[:, 403:413] = torch.tensor([1.0, 0, 0, 0, -1, 0, 30, 32, 0, 150])
    target = HeadTargets.of_image(torch.tensor([[14.0, 16, 46, 48]]), flame)
    targets = HeadTargets.collate([target, HeadTargets.empty()])
    loss = HeadLoss(LossConfig(num_vertices=50), head_model)
    images = torch.rand(2, 3, 64, 64)
    before = {name: tensor.clone() for name, tensor in model.backbone.named_parameters()}
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    first = loss(model(images), targets)
    first["loss"].backward()
    used = {name for name, p in model.backbone.named_parameters() if p.grad is not None}
    optimiser.step()
    assert loss(model(images), targets)["loss"] < first["loss"]
    moved = [n for n, p in model.backbone.named_parameters() if not torch.equal(p, before[n])]
    assert used
    assert len(moved) > 0.8 * len(before)


def test_a_stored_configuration_builds_the_same_network(nano):
    config = nano.model_copy(update={"encoder": architecture("convnextv2")})
    model = build_detector(config)
    again = build_detector(type(config).model_validate_json(config.model_dump_json()))
    again.load_state_dict(model.state_dict())
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(again.eval()(images).flame, model.eval()(images).flame)


def test_published_encoders():
    with torch.device("meta"):
        from transformers import SegformerConfig, SegformerModel

        values = dict(encoder_config("mit_b5").architecture)
        model = SegformerModel(SegformerConfig(**values))
    assert values["hidden_sizes"] == [64, 128, 320, 512]
    assert 80e6 < sum(p.numel() for p in model.parameters()) < 83e6  # published: 81.4 M
    encoder = TransformersEncoder(encoder_config("mit_b0"))
    assert encoder.channels == (32, 64, 160, 256)


def test_errors_say_what_is_wrong(tmp_path):
    with pytest.raises(ValueError, match=r"expected one of mit_b0, .* got 'mit_b9'"):
        encoder_config("mit_b9")  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError, match=r"no file .*config.json; give the folder"):
        encoder_of_folder(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="expected a model's configuration with model_type"):
        encoder_of_folder(tmp_path)
    with pytest.raises(ValueError, match=r"its model_type, got the keys \['depths'\]"):
        EncoderConfig(architecture={"depths": [1]})
    flat = {"hidden_sizes": [8, 16, 24, 32], "depths": [1] * 4, "patch_size": 8}
    with pytest.raises(ValueError, match=r"expected maps at strides \(4, 8, 16, 32\), got \(8, "):
        TransformersEncoder(EncoderConfig(architecture={"model_type": "convnextv2", **flat}))
