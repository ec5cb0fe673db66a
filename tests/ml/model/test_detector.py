import pytest
import torch
from torch import nn

from ml.model.backbone import Encoder
from ml.model.building import build_detector, model_config
from ml.model.decode import decode
from ml.model.fusing import fuse


class PooledEncoder(nn.Module):
    """The smallest encoder that follows the protocol."""

    channels = (4, 8, 8, 16)

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(3, c, 1) for c in self.channels)

    def forward(self, images):
        pools = [nn.functional.avg_pool2d(images, s) for s in (4, 8, 16, 32)]
        return tuple(conv(x) for conv, x in zip(self.convs, pools, strict=True))


def test_shapes_and_anchor_order(nano):
    outputs = build_detector(nano).eval()(torch.zeros(2, 3, 64, 96))
    count = 8 * 12 + 4 * 6 + 2 * 3
    assert outputs.score_logits.shape == (2, count)
    assert outputs.box_logits.shape == (2, count, 4, 17)
    assert outputs.flame.shape == (2, count, 32 + 16 + 13)
    centres, strides = outputs.anchors.centres_px, outputs.anchors.strides
    assert centres[0].tolist() == [4, 4]
    assert centres[1].tolist() == [12, 4]  # row by row
    assert centres[12].tolist() == [4, 12]
    assert centres[96].tolist() == [8, 8]
    assert centres[-1].tolist() == [80, 48]
    assert [strides[i].item() for i in (0, 95, 96, 120, -1)] == [8, 8, 16, 32, 32]


def test_each_anchor_sees_its_own_place(nano):
    model = build_detector(nano).eval()
    image = torch.full((1, 3, 256, 256), 0.5)
    changed = image.clone()
    changed[:, :, 100:108, 196:204] = 1.0
    with torch.no_grad():
        before, after = model(image), model(changed)
    difference = (after.score_logits - before.score_logits).abs()[0, : 32 * 32]
    y, x = divmod(int(difference.argmax()), 32)
    assert abs(x * 8 + 4 - 200) <= 16
    assert abs(y * 8 + 4 - 104) <= 16


def test_bytes_equal_floats(nano):
    model = build_detector(nano).eval()
    images = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        torch.testing.assert_close(model(images).flame, model(images / 255).flame)


def test_a_new_model_is_unsure_and_frontal(nano):
    with torch.no_grad():
        outputs = build_detector(nano).eval()(torch.rand(1, 3, 64, 64))
    decoded = decode(outputs)
    assert decoded.scores.mean().item() == pytest.approx(0.01, abs=0.01)
    rotation = decoded.flame[..., 403:409].mean(dim=(0, 1))
    torch.testing.assert_close(rotation, torch.tensor([1.0, 0, 0, 0, -1, 0]), atol=0.2, rtol=0)


@pytest.mark.parametrize("size", ["nano", "S"])
def test_fusion_changes_nothing(size):
    model = build_detector(model_config(size)).double()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0  # one batch sets the statistics, so that the model is not blind
    images = torch.rand(2, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        model(images)
        expected, other = model.eval()(images), model(1 - images)
        assert (other.flame - expected.flame).abs().max() > 0.1
        for level in ("partial", "full"):
            found = fuse(model, level)(images)
            for name in ("score_logits", "box_logits", "flame"):
                torch.testing.assert_close(getattr(found, name), getattr(expected, name))


def test_another_encoder_takes_the_place_of_the_backbone(nano):
    encoder = PooledEncoder()
    assert isinstance(encoder, Encoder)
    outputs = build_detector(nano, encoder)(torch.rand(2, 3, 64, 64))
    outputs.score_logits.sum().backward()
    assert encoder.convs[3].weight.grad is not None
    with pytest.raises(ValueError, match="encoder Flatten: expected an attribute `channels`"):
        build_detector(nano, nn.Flatten())


def test_official_weights_are_read_where_their_consumers_read_them(nano):
    swapped = nano.model_copy(
        update={"head": nano.head.model_copy(update={"swapped_branches": True})}
    )
    plain, official = build_detector(nano).eval(), build_detector(swapped).eval()
    for model in (plain, official):
        for head in (model.heads.head1, model.heads.head2, model.heads.head3):
            for branch, values in (
                (head.flame_rotation_pred, [0.0, 1, 2, 3, 4, 5]),
                (head.flame_jaw_pred, [10.0, 11, 12]),
            ):
                nn.init.zeros_(branch[-1].weight)
                branch[-1].bias.data = torch.tensor(values)
    images = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        ours = decode(plain(images)).flame[0, :, 400:409]
        theirs = decode(official(images)).flame[0, :, 400:409]
    assert ours[3].tolist() == [10, 11, 12, 0, 1, 2, 3, 4, 5]
    assert theirs[3].tolist() == [3, 4, 5, 10, 11, 12, 0, 1, 2]


@pytest.mark.parametrize("shape", [(3, 64, 64), (1, 1, 64, 64), (1, 3, 60, 64)])
def test_wrong_images_are_refused(nano, shape):
    with pytest.raises(ValueError, match=r"images: expected \(B, 3, H, W\)"):
        build_detector(nano)(torch.zeros(shape))


def test_shared_branches_have_one_convolution_and_three_normalisations(nano) -> None:
    model = build_detector(nano)
    heads = (model.heads.head1, model.heads.head2, model.heads.head3)
    for name in ("flame_rotation_pred", "flame_shape_pred"):
        first, *others = (getattr(head, name) for head in heads)
        for other in others:
            assert other[0].conv.weight is first[0].conv.weight
            assert other[-1].weight is first[-1].weight
            assert other[0].bn.weight is not first[0].bn.weight
    assert heads[0].cls_pred.weight is not heads[1].cls_pred.weight
