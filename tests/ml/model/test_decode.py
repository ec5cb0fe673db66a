import math

import pytest
import torch

from ml.model.building import build_detector, model_config
from ml.model.decode import decode, decode_all_boxes, decode_boxes, decode_flame


def test_boxes_by_hand():
    # Certain of 1, 2, 3, 4 strides on the left, top, right, bottom; then undecided, 8 on average.
    logits = torch.full((1, 4, 17), -100.0)
    for side, bin_index in enumerate((1, 2, 3, 4)):
        logits[0, side, bin_index] = 100.0
    centre, stride = torch.tensor([[20.0, 36.0]]), torch.tensor([8.0])
    assert decode_boxes(logits, centre, stride).tolist() == [[12, 20, 44, 68]]
    undecided = decode_boxes(torch.zeros(1, 4, 17), centre, stride)
    torch.testing.assert_close(undecided, torch.tensor([[-44.0, -28, 84, 100]]))


def test_flame_by_hand(head_config):
    raw = torch.arange(61, dtype=torch.float32)[None] / 100
    values = decode_flame(raw, torch.tensor([[40.0, 24.0]]), torch.tensor([16.0]), head_config)
    torch.testing.assert_close(values.shape, 3 * torch.tanh(raw[:, :32]))
    torch.testing.assert_close(values.expression, 3 * torch.tanh(raw[:, 32:48]))
    torch.testing.assert_close(values.jaw, raw[:, 48:51])
    torch.testing.assert_close(values.rotation, raw[:, 51:57])
    torch.testing.assert_close(values.translation, torch.tensor([[40.57, 24.58, 0.59]]))
    assert values.scale.item() == pytest.approx(20 * math.exp(0.60) * 16, rel=1e-6)


def test_all_anchors_and_chosen_ones_agree(nano):
    model = build_detector(nano).eval()
    with torch.no_grad():
        outputs = model(torch.rand(2, 3, 64, 64))
    everything = decode(outputs)
    assert everything.flame.shape == (2, 84, 413)
    assert everything.flame[..., 32:300].abs().max() == 0  # beyond the predicted coefficients
    assert everything.flame[..., 316:400].abs().max() == 0
    torch.testing.assert_close(decode_all_boxes(outputs), everything.boxes_xyxy)
    indices = torch.tensor([[5, 80, 0], [83, 83, 64]])
    some = decode(outputs, indices)
    for i in range(2):
        for part, whole in zip(some, everything, strict=True):
            torch.testing.assert_close(part[i], whole[i, indices[i]])


def test_half_precision_outputs_are_decoded_in_float32():
    model = build_detector(model_config("nano")).eval()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        decoded = decode(model(torch.rand(1, 3, 32, 32)))
    assert {part.dtype for part in decoded} == {torch.float32}
