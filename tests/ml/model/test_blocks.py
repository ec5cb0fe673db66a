import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional

from ml.model.blocks import SPP, ConvBNAct, CSPLayer, Norm, PointConv, QARepVGGBlock
from ml.model.fusing import fuse

NORM = Norm(1e-6, 0.1)


def stirred(module: nn.Module) -> nn.Module:
    """Weights and statistics that differ everywhere, evaluation mode, double precision."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias)
            nn.init.normal_(part.running_mean)
            nn.init.uniform_(part.running_var, 0.5, 1.5)
    return module.double().eval()


@pytest.mark.parametrize(("stride", "side"), [(1, 7), (2, 7), (2, 8), (3, 8)])
def test_a_point_convolution_is_the_plain_one(stride, side):
    point = PointConv(3, 5, stride).double()
    plain = nn.Conv2d(3, 5, 1, stride).double()
    plain.load_state_dict(point.state_dict())
    x = torch.randn(2, 3, side, side, dtype=torch.float64, requires_grad=True)
    gradients = []
    for conv in (point, plain):
        out = conv(x)
        parts = torch.autograd.grad((out * out).sum(), [x, conv.weight, conv.bias])
        gradients.append((out, *parts))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


#: Trains a stem as L has it on the processor. With torch's own convolution the process dies here.
STEM = """
import torch
from ml.model.blocks import Norm, QARepVGGBlock
torch.set_num_threads(1)
stem = QARepVGGBlock(3, 48, Norm(1e-3, 0.03), 2).to(memory_format=torch.channels_last)
x = torch.rand(2, 3, 96, 96).contiguous(memory_format=torch.channels_last)
for _ in range(4):
    stem(x).sum().backward()
    several = [torch.rand(100 + size) for size in range(100)]
"""


def test_the_stem_of_the_published_sizes_trains_on_a_processor_without_a_crash():
    done = subprocess.run([sys.executable, "-c", STEM], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-500:]


@pytest.mark.parametrize(
    ("channels", "stride", "residual", "alpha"),
    [((3, 5), 2, False, False), ((4, 4), 1, True, False), ((4, 6), 1, False, True)],
)
def test_qarepvgg_equals_its_formula_and_its_fusions(channels, stride, residual, alpha):
    block = stirred(QARepVGGBlock(*channels, NORM, stride, residual, alpha))
    x = torch.randn(2, channels[0], 8, 8, dtype=torch.float64)
    weight = 1.0 if block.alpha is None else block.alpha
    total = block.branch_3x3.bn(block.branch_3x3.conv(x)) + weight * block.branch_1x1(x)
    expected = functional.relu(block.post_bn(total + x if residual else total))
    torch.testing.assert_close(block(x), expected)
    for level, left in (("partial", 4), ("full", 2)):
        fused = fuse(block, level)
        torch.testing.assert_close(fused(x), expected)
        assert len(list(fused.parameters())) == left
        torch.testing.assert_close(fuse(fused, level)(x), expected)
    assert block.rbr_reparam is None  # the original is left alone


def test_alpha_starts_near_one_and_residual_needs_equal_shapes():
    assert abs(QARepVGGBlock(4, 4, NORM, learned_alpha=True).alpha.item() - 1) < 0.06
    with pytest.raises(ValueError, match="4 -> 6 channels, stride 1"):
        QARepVGGBlock(4, 6, NORM, residual=True)


def test_conv_block_folds():
    block = stirred(ConvBNAct(3, 4, 3, NORM))
    x = torch.randn(1, 3, 5, 5, dtype=torch.float64)
    fused = fuse(block, "full")
    torch.testing.assert_close(fused(x), block(x))
    assert isinstance(fused.bn, nn.Identity)
    assert isinstance(fuse(block, "partial").bn, nn.BatchNorm2d)


@pytest.mark.parametrize("intermediates", [False, True])
def test_csp_concatenates_in_the_published_order(intermediates):
    layer = stirred(CSPLayer(6, 8, 2, 4, "conv", NORM, intermediates))
    x = torch.randn(1, 6, 4, 4, dtype=torch.float64)
    first = layer.conv1(x)
    second = layer.bottlenecks[0](first)
    third = layer.bottlenecks[1](second)
    parts = [first, second, third] if intermediates else [third]
    expected = layer.conv3(torch.cat([*parts, layer.conv2(x)], dim=1))
    torch.testing.assert_close(layer(x), expected)


def test_spp_equals_pools_of_5_9_and_13():
    layer = stirred(SPP(4, NORM))
    x = torch.randn(1, 4, 15, 17, dtype=torch.float64)
    reduced = layer.cv1(x)
    pools = [functional.max_pool2d(reduced, k, 1, k // 2) for k in (5, 9, 13)]
    torch.testing.assert_close(layer(x), layer.cv2(torch.cat([reduced, *pools], dim=1)))
