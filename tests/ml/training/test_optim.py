"""Muon with AdamW: orthogonalisation, grouping, schedule, agreement with naive twins."""

from __future__ import annotations

import math
from copy import deepcopy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from ml.training.optim import (
    EMA,
    NEWTON_SCHULZ_STEPS,
    MuonAdamW,
    OptimConfig,
    build_optimizer,
    lr_factor,
    orthogonalize,
    parameter_groups,
)


class Net(nn.Module):
    """One layer of every kind the grouping must tell apart."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.hidden = nn.Conv2d(8, 16, 3)
        self.norm = nn.BatchNorm2d(16)
        self.depthwise = nn.Conv2d(16, 16, 3, groups=16)
        self.up = nn.ConvTranspose2d(16, 8, 2)
        self.pred = nn.Conv2d(8, 5, 1)
        self.linear = nn.Linear(5, 6)
        self.scale = nn.Parameter(torch.ones(1))
        self.frozen = nn.Parameter(torch.ones(2, 2), requires_grad=False)


def names_in(net: nn.Module, group: dict[str, object] | None) -> set[str]:
    ids = {id(p) for p in (group or {"params": []})["params"]}  # type: ignore[attr-defined]
    return {name for name, p in net.named_parameters() if id(p) in ids}


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_orthogonalized_singular_values(rows: int, columns: int, seed: int) -> None:
    matrix = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    result = orthogonalize(matrix)
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    # Same singular vectors: the result stays diagonal in the input's basis.
    core = u.T @ result @ vh.T
    assert torch.allclose(core - torch.diag(core.diagonal()), torch.zeros_like(core), atol=1e-4)
    values, strong = core.diagonal(), s / s.norm() > 0.011
    assert ((values[strong] > 0.725) & (values[strong] < 1.275)).all()
    assert ((values[~strong] > -1e-4) & (values[~strong] < 0.8)).all()


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (4, 30), (30, 4)])
def test_orthogonalize_batch_equals_loop_and_naive(shape: tuple[int, int]) -> None:
    matrices = torch.randn(3, *shape, dtype=torch.float64)

    def naive(x: Tensor) -> Tensor:
        x = x / x.norm()
        for a, b, c in NEWTON_SCHULZ_STEPS:
            x = a * x + b * x @ x.T @ x + c * x @ x.T @ x @ x.T @ x
        return x

    batched = orthogonalize(matrices)
    for matrix, result in zip(matrices, batched, strict=True):
        assert torch.allclose(orthogonalize(matrix), result, atol=1e-12)
        assert torch.allclose(naive(matrix), result, atol=1e-6)


def test_each_newton_schulz_step_is_the_best_quintic_of_what_the_ones_before_leave() -> None:
    low, high = 0.01, 1.0
    for a, b, c in NEWTON_SCHULZ_STEPS:
        x = np.linspace(low, high, 2001)
        error = 1 - (a * x + b * x**3 + c * x**5)
        worst = np.abs(error).max()
        # A best approximation by three terms errs equally at four points, by turns (Chebyshev).
        extremes = [
            i for i in range(1, 2000) if (error[i] - error[i - 1]) * (error[i + 1] - error[i]) < 0
        ]
        errors = error[[0, *extremes, 2000]]
        assert len(errors) == 4
        assert np.abs(errors) == pytest.approx(worst, abs=2e-3)
        assert (np.sign(errors) == [1, -1, 1, -1]).all()
        low, high = 1 - worst, 1 + worst
    assert high < 1.275


def test_orthogonalize_refuses_vectors() -> None:
    with pytest.raises(ValueError, match=r"expected \(..., M, N\), got \(3,\); flatten"):
        orthogonalize(torch.ones(3))


def test_every_trainable_parameter_is_in_one_group() -> None:
    net = Net()
    groups = {group["name"]: group for group in parameter_groups(net, OptimConfig(kind="muon"))}
    assert names_in(net, groups["muon"]) == {"hidden.weight", "pred.weight"}
    assert names_in(net, groups["adamw"]) == {
        "stem.weight",
        "depthwise.weight",
        "up.weight",
        "linear.weight",
    }
    plain = names_in(net, groups["adamw_no_decay"])
    assert {"hidden.bias", "norm.weight", "norm.bias", "scale"} <= plain
    assert groups["adamw_no_decay"]["weight_decay"] == 0.0
    counted = sum(len(group["params"]) for group in groups.values())
    assert counted == sum(p.requires_grad for p in net.parameters())


def test_grouping_options() -> None:
    net = Net()
    config = OptimConfig(kind="muon", muon_linear=True, adamw_patterns=(r"^pred\.",))
    groups = {group["name"]: group for group in parameter_groups(net, config)}
    assert names_in(net, groups["muon"]) == {"hidden.weight", "linear.weight"}
    only = parameter_groups(net, OptimConfig(kind="adamw"))
    assert [group["name"] for group in only] == ["adamw", "adamw_no_decay"]


def test_adamw_groups_equal_torch() -> None:
    torch.manual_seed(0)
    ours, theirs = nn.Linear(4, 3), nn.Linear(4, 3)
    theirs.load_state_dict(ours.state_dict())
    options = {"lr": 0.01, "betas": (0.9, 0.99), "weight_decay": 0.1, "eps": 1e-8}
    mine = MuonAdamW([{"params": list(ours.parameters()), **options}])
    reference = torch.optim.AdamW(theirs.parameters(), **options)  # type: ignore[arg-type]
    for _ in range(5):
        x = torch.randn(8, 4)
        for net, optimizer in ((ours, mine), (theirs, reference)):
            optimizer.zero_grad()
            net(x).square().mean().backward()
            optimizer.step()
    assert torch.allclose(ours.weight, theirs.weight, atol=1e-7)
    assert torch.allclose(ours.bias, theirs.bias, atol=1e-7)


@pytest.mark.parametrize("channels_last", [False, True])
def test_muon_step_equals_naive(channels_last: bool) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(5, 7, 3, bias=False)
    if channels_last:
        layer = layer.to(memory_format=torch.channels_last)
    expected = layer.weight.detach().clone()
    optimizer = MuonAdamW(
        [{"params": [layer.weight], "algorithm": "muon", "lr": 0.02, "weight_decay": 0.1}]
    )
    momentum = torch.zeros_like(expected)
    for _ in range(3):
        grad = torch.randn_like(expected)
        layer.weight.grad = grad.clone(memory_format=torch.preserve_format)
        optimizer.step()
        momentum = 0.95 * momentum + 0.05 * grad
        nesterov = 0.05 * grad + 0.95 * momentum
        update = orthogonalize(nesterov.reshape(7, 45)).reshape(7, 5, 3, 3)
        expected = expected * (1 - 0.02 * 0.1) - 0.02 * update
    assert torch.allclose(layer.weight, expected, atol=1e-5)


def test_optimizer_errors() -> None:
    with pytest.raises(ValueError, match="put biases and norms into an adamw group"):
        MuonAdamW([{"params": [nn.Parameter(torch.ones(3))], "algorithm": "muon"}])
    with pytest.raises(ValueError, match="must be 'muon' or 'adamw', got 'sgd'"):
        MuonAdamW([{"params": [nn.Parameter(torch.ones(3))], "algorithm": "sgd"}])


def test_schedule_by_hand() -> None:
    config = OptimConfig(warmup_steps=3, final_lr_fraction=0.1)
    assert [lr_factor(s, 100, config) for s in range(3)] == pytest.approx([0.25, 0.5, 0.75])
    assert lr_factor(3, 100, config) == 1.0
    assert lr_factor(3 + 97 // 2, 100, config) == pytest.approx(0.55, abs=0.01)
    assert lr_factor(100, 100, config) == pytest.approx(0.1)
    assert lr_factor(500, 100, config) == pytest.approx(0.1)
    # A short training shortens its warm-up.
    assert lr_factor(2, 8, config) == 1.0


def test_schedule_moves_both_learning_rates() -> None:
    config = OptimConfig(kind="muon", muon_lr=0.03, lr=3e-3, warmup_steps=1)
    optimizer, schedule = build_optimizer(Net(), config, total_steps=10)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.03 / 2)
    optimizer.step()
    schedule.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.03)
    assert optimizer.param_groups[1]["lr"] == pytest.approx(3e-3)


def test_ema_warms_up_and_copies_integers() -> None:
    ema = EMA(0.9)
    average, current = torch.zeros(2), torch.ones(2)
    for count in range(3):
        ema._average([average], [current], count)
    expected = 1.0
    for count in range(3):
        expected *= (1 + count) / (10 + count)
    assert torch.allclose(average, torch.full((2,), 1 - expected))
    counter = torch.tensor(3)
    ema._average([counter], [torch.tensor(8)], 5)
    assert counter.item() == 8
    with pytest.raises(ValueError, match=r"\(0, 1\), got 1"):
        EMA(1.0)
    assert math.isclose(ema.decay, 0.9)


def test_ema_is_that_of_the_library() -> None:
    """Updated after steps only, by the same numbers as torch's own averaged model."""
    torch.manual_seed(0)
    ema = EMA(0.9)
    module = Net().train()
    oracle = AveragedModel(deepcopy(module), multi_avg_fn=ema._average, use_buffers=True)
    ema._average_model = AveragedModel(module, multi_avg_fn=ema._average, use_buffers=True)
    for step in (1, 2, 2, 3, 4):
        if step > ema._latest_update_step:
            with torch.no_grad():
                for tensor in (*module.parameters(), *module.buffers()):
                    tensor.add_(torch.ones_like(tensor))
            oracle.update_parameters(module)
        trainer = SimpleNamespace(global_step=step)
        ema.on_train_batch_end(trainer, module, None, None, 0)  # type: ignore[arg-type]
    assert ema._average_model.n_averaged == oracle.n_averaged == 4
    for ours, theirs in zip(
        ema._average_model.state_dict().values(), oracle.state_dict().values(), strict=True
    ):
        assert torch.equal(ours, theirs)


def test_published_schedule_by_hand() -> None:
    """Warm-up of 4 steps, flat to step 10 + 4, cosine over the remaining 26 and one."""
    config = OptimConfig(
        schedule="published", lr=1e-3, warmup_steps=4, warmup_start_lr=1e-4, final_lr_fraction=0.1
    )
    factors = [lr_factor(step, 40, config, 10) for step in range(41)]
    assert factors[:4] == pytest.approx([0.1, 0.4, 0.7, 1.0])
    assert factors[4:15] == [1.0] * 11
    assert factors[15] < 1.0
    half = 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * 13 / 27))
    assert factors[27] == pytest.approx(half)
    assert factors[39] == pytest.approx(0.1, abs=0.02)
    # An epoch shorter than the warm-up ends it.
    assert lr_factor(2, 40, config, 2) == 1.0
    with pytest.raises(ValueError, match="pass steps_per_epoch"):
        lr_factor(0, 40, config)


def test_published_decay_of_the_average() -> None:
    ema = EMA(0.9997, "published")
    ema.total_steps = 1000
    assert ema.decay_after(0) == 0.0
    assert ema.decay_after(20) == pytest.approx(0.9997 * (1 - math.exp(-1)))
    assert ema.decay_after(1000) == pytest.approx(0.9997, abs=1e-6)
