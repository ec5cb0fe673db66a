"""Muon with AdamW in one optimiser, the learning-rate schedule, and weight averaging."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, overload

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor, nn
from torch.optim.adamw import adamw
from torch.optim.lr_scheduler import LambdaLR

from ml.training.config import OptimConfig

NEWTON_SCHULZ_STEPS = (
    (8.0934, -23.6204, 17.4462),
    (3.6366, -2.7219, 0.5365),
    (2.6613, -1.9772, 0.4526),
)
"""Coefficients (a, b, c) of the steps x <- a x + b x x^T x + c (x x^T)^2 x that push singular
values towards 1. Each keeps the largest distance from 1 as small as a quintic can, over the
interval that the steps before it leave of [0.01, 1] (Amsel et al., "The Polar Express", 2025):
after the last, all of them lie in [0.73, 1.27]. Five equal steps, which is how Muon was published
(K. Jordan et al., 2024), end in [0.68, 1.13] and cost two products of wide matrices more."""


def orthogonalize(matrices: Tensor) -> Tensor:
    """Push all singular values of matrices towards 1 by Newton-Schulz iteration.

    Args:
        matrices: (..., M, N) float.

    Returns:
        (..., M, N) about U V^T of the singular value decomposition; singular values above 0.01 of
        the Frobenius norm end in [0.73, 1.27].

    Raises:
        ValueError: fewer than two dimensions.
    """
    if matrices.ndim < 2:
        raise ValueError(
            f"orthogonalize: expected (..., M, N), got {tuple(matrices.shape)}; "
            "flatten a convolution weight to (out, in * kh * kw) first"
        )
    tall = matrices.shape[-2] > matrices.shape[-1]
    # (B, M, N), M <= N
    x = (matrices.mT if tall else matrices).reshape(-1, *sorted(matrices.shape[-2:]))
    # The Frobenius norm bounds the largest singular value by 1, where the iteration converges.
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)
    # Through the Gram matrix when that is cheaper: M x M products instead of M x N ones.
    if x.shape[-1] > 2 * x.shape[-2]:
        x = _polynomial_of_gram(x) @ x
    else:
        for step in NEWTON_SCHULZ_STEPS:
            x = _step_of_gram(x @ x.mT, *step) @ x
    return (x.mT if tall else x).reshape(matrices.shape)


def _polynomial_of_gram(x: Tensor) -> Tensor:
    """Return the matrices by which all steps together multiply x from the left.

    They are polynomials of G = x x^T, so a wide x is multiplied once and not in every step: with
    Q = a I + b G + c G^2, a step takes x to Q x and G to Q G Q. Three steps are few enough for the
    rounding errors of G's small eigenvalues to stay small.

    Args:
        x: (B, M, N).

    Returns:
        (B, M, M).
    """
    gram = x @ x.mT
    product = factor = _step_of_gram(gram, *NEWTON_SCHULZ_STEPS[0])
    for step in NEWTON_SCHULZ_STEPS[1:]:
        # Q and G commute, being polynomials of one matrix: the next G is (Q x)(Q x)^T = Q G Q.
        gram = factor @ gram @ factor
        factor = _step_of_gram(gram, *step)
        product = factor @ product
    return product


def _step_of_gram(gram: Tensor, a: float, b: float, c: float) -> Tensor:
    """Return the factor of a step: a I + b G + c G^2 of a (B, M, M) G."""
    factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)  # b G + c G G
    factor.diagonal(dim1=-2, dim2=-1).add_(a)
    return factor


class MuonAdamW(torch.optim.Optimizer):
    """Muon and AdamW as parameter groups of one optimiser.

    One class, so that Lightning's automatic optimisation, clipping, schedules and checkpoints
    work as with any optimiser. A group with `algorithm="muon"` gets Nesterov momentum whose
    matrix is orthogonalised; `algorithm="adamw"` gets decoupled AdamW.
    """

    def __init__(self, groups: Iterable[dict[str, Any]]) -> None:
        """Check the groups.

        Args:
            groups: each with `params`, `algorithm` ("muon" | "adamw"), `lr`; optionally
                `momentum`, `betas`, `eps`, `weight_decay`.

        Raises:
            ValueError: an unknown algorithm, or a muon parameter that is no matrix.
        """
        defaults = {
            "algorithm": "adamw",
            "lr": 1e-3,
            "momentum": 0.95,
            "betas": (0.9, 0.99),
            "eps": 1e-8,
            "weight_decay": 0.0,
        }
        super().__init__(list(groups), defaults)
        for group in self.param_groups:
            if group["algorithm"] not in ("muon", "adamw"):
                raise ValueError(
                    f"MuonAdamW: algorithm must be 'muon' or 'adamw', got {group['algorithm']!r}"
                )
            bad = [tuple(p.shape) for p in group["params"] if p.ndim < 2]
            if group["algorithm"] == "muon" and bad:
                raise ValueError(
                    f"MuonAdamW: muon needs matrices or convolution weights, got shape {bad[0]}; "
                    "put biases and norms into an adamw group"
                )

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update all parameters that have a gradient.

        Args:
            closure: recomputes the loss and gradients; Lightning passes one.

        Returns:
            The closure's loss, if there was a closure.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if group["algorithm"] == "muon":
                self._muon_step(group, params)
            elif params:
                self._adamw_step(group, params)
        return loss

    def _muon_step(self, group: dict[str, Any], params: Sequence[Tensor]) -> None:
        """Take a step of orthogonalised Nesterov momentum, equal shapes in one batch."""
        if not params:
            return
        for param in params:
            if not self.state[param]:
                self.state[param]["momentum"] = torch.zeros_like(param)
        grads = [param.grad for param in params if param.grad is not None]
        momenta = [self.state[param]["momentum"] for param in params]
        torch._foreach_lerp_(momenta, grads, 1 - group["momentum"])
        # Nesterov: looks a step ahead
        updates = torch._foreach_lerp(grads, momenta, group["momentum"])
        if group["weight_decay"]:
            # decoupled from the gradient
            torch._foreach_mul_(list(params), 1 - group["lr"] * group["weight_decay"])
        by_shape: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = defaultdict(list)
        for param, update in zip(params, updates, strict=True):
            matrix = _as_matrix(update)  # (out, in kh kw)
            by_shape[matrix.shape[0], matrix.shape[1]].append((param, matrix))
        for (rows, columns), pairs in by_shape.items():
            matrices = orthogonalize(torch.stack([matrix for _, matrix in pairs]))
            # Keeps the update's size per output equal for wide and tall matrices.
            step_size = group["lr"] * max(1.0, rows / columns) ** 0.5
            for (param, _), matrix in zip(pairs, matrices, strict=True):
                _matrix_view(param).add_(matrix.view_as(_matrix_view(param)), alpha=-step_size)

    def _adamw_step(self, group: dict[str, Any], params: Sequence[Tensor]) -> None:
        """Take a step of decoupled AdamW through torch's own fused kernel."""
        for param in params:
            state = self.state[param]
            if not state:
                state["step"] = torch.zeros((), dtype=torch.float32)
                state["exp_avg"] = torch.zeros_like(param)
                state["exp_avg_sq"] = torch.zeros_like(param)
        states = [self.state[param] for param in params]
        grads = [param.grad for param in params if param.grad is not None]
        adamw(
            list(params),
            grads,
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            # One pass over memory, and the same numbers as torch.optim.AdamW(fused=True).
            fused=True,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )


def _matrix_view(weight: Tensor) -> Tensor:
    """Return a weight with its inputs last in memory order, as channels-last convolutions want.

    The order of a matrix's columns does not matter to its orthogonalisation.
    """
    if weight.ndim == 4 and weight.is_contiguous(memory_format=torch.channels_last):
        return weight.permute(0, 2, 3, 1)
    return weight


def _as_matrix(weight: Tensor) -> Tensor:
    """Return (out, in, kh, kw) -> (out, in * kh * kw), columns in memory order."""
    return _matrix_view(weight).flatten(1)


def parameter_groups(module: nn.Module, config: OptimConfig) -> list[dict[str, Any]]:
    """Divide a module's trainable parameters among Muon, AdamW with and without decay.

    Muon takes weights of convolutions that mix channels (not depthwise, not the first one that
    reads the image) and, if asked, of linear layers. Every parameter lands in exactly one group.

    Args:
        module: the model.
        config: learning rates and exceptions.

    Returns:
        Non-empty groups for `MuonAdamW`.
    """
    exceptions = [re.compile(pattern) for pattern in config.adamw_patterns]
    matrix_ids = set(_hidden_matrices(module, config.muon_linear))
    muon: list[nn.Parameter] = []
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, param in module.named_parameters():
        if not param.requires_grad:
            continue
        excepted = any(pattern.search(name) for pattern in exceptions)
        if config.kind == "muon" and id(param) in matrix_ids and not excepted:
            muon.append(param)
        # Biases and norms are not decayed: pulling them to zero changes what a layer computes and
        # does not regularise it.
        elif param.ndim >= 2:
            decayed.append(param)
        else:
            plain.append(param)
    shared = {"lr": config.lr, "betas": config.betas, "algorithm": "adamw"}
    groups: list[dict[str, Any]] = [
        {
            "params": muon,
            "algorithm": "muon",
            "lr": config.muon_lr,
            "momentum": config.muon_momentum,
            "weight_decay": config.weight_decay,
            "name": "muon",
        },
        {"params": decayed, **shared, "weight_decay": config.weight_decay, "name": "adamw"},
        {"params": plain, **shared, "weight_decay": 0.0, "name": "adamw_no_decay"},
    ]
    return [group for group in groups if group["params"]]


def _hidden_matrices(module: nn.Module, linear: bool) -> Iterable[int]:
    """Yield ids of weights that Muon may take."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            # Depthwise kernels and single outputs are bundles of vectors: nothing to orthogonalise.
            # The layer that reads the image stays with AdamW, as Muon's author advises.
            if layer.groups == 1 and layer.in_channels > 4 and layer.out_channels > 1:
                yield id(layer.weight)
        elif linear and isinstance(layer, nn.Linear):
            yield id(layer.weight)


def lr_factor(
    step: int, total_steps: int, config: OptimConfig, steps_per_epoch: int | None = None
) -> float:
    """Return the multiplier of the peak learning rate: linear warm-up, then cosine.

    Args:
        step: optimiser steps done.
        total_steps: steps of the whole training.
        config: which schedule, warm-up length and end of the cosine.
        steps_per_epoch: needed by the published schedule.

    Returns:
        Number in (0, 1].

    Raises:
        ValueError: the published schedule is requested without the steps of an epoch.

    Source: the published training configuration (published).
    """
    low = config.final_lr_fraction
    if config.schedule == "published":
        if steps_per_epoch is None:
            raise ValueError(
                "lr_factor: the published schedule starts its cosine after one epoch; "
                "pass steps_per_epoch"
            )
        warmup = min(config.warmup_steps, steps_per_epoch)
        if step < warmup:
            first = config.warmup_start_lr / config.lr
            return first + (1 - first) * step / max(warmup - 1, 1)
        flat = steps_per_epoch + config.warmup_steps
        # One step more than there are, so that the last is not quite at the end.
        done = min(max(step - flat, 0) / (max(total_steps - flat, 0) + 1), 1.0)
    else:
        # short trainings warm up shortly
        warmup = min(config.warmup_steps, max(total_steps // 4, 1))
        if step < warmup:
            return (step + 1) / (warmup + 1)  # never 0: the first step counts
        done = min((step - warmup) / max(total_steps - warmup, 1), 1.0)
    # 1 at the start, `low` at the end
    return low + (1 - low) * 0.5 * (1 + math.cos(math.pi * done))


def build_optimizer(
    module: nn.Module, config: OptimConfig, total_steps: int, steps_per_epoch: int | None = None
) -> tuple[MuonAdamW, LambdaLR]:
    """Return the optimiser and the per-step schedule of a training.

    Args:
        module: the model.
        config: optimiser configuration.
        total_steps: optimiser steps of the whole training.
        steps_per_epoch: optimiser steps of an epoch; needed by the published schedule.

    Returns:
        The optimiser and its schedule, to be stepped after every optimiser step.
    """
    optimizer = MuonAdamW(parameter_groups(module, config))
    schedule = LambdaLR(
        optimizer, lambda step: lr_factor(step, total_steps, config, steps_per_epoch)
    )
    return optimizer, schedule


class EMA(WeightAveraging):
    """Exponential moving average of weights and buffers, used for validation and export.

    Lightning's callback swaps the average in for validation and at the end of training, and keeps
    both sets in checkpoints. The decay grows towards its limit, so that short trainings do not
    remember their initial weights.
    """

    def __init__(
        self, decay: float = 0.998, growth: Literal["counted", "published"] = "counted"
    ) -> None:
        """Set the limit.

        Args:
            decay: limit of the decay, in (0, 1).
            growth: see `OptimConfig.ema_growth`.

        Raises:
            ValueError: a decay outside (0, 1).
        """
        if not 0 < decay < 1:
            raise ValueError(f"EMA: decay must lie in (0, 1), got {decay}")
        self.decay = decay
        self.growth = growth
        self.total_steps = 1
        self._pairs: list[tuple[list[Tensor], list[Tensor]]] = []
        super().__init__(multi_avg_fn=self._average)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Read the length of the training.

        Args:
            trainer: knows it.
            pl_module: unused.
        """
        self.total_steps = int(trainer.estimated_stepping_batches)

    @torch.no_grad()
    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Update the average after an optimiser step.

        The numbers are those of the parent's method. That one walks through all modules to find
        their tensors after every step, a twentieth of a small network's step; here they are listed
        once.

        Args:
            trainer: knows whether there was a step.
            pl_module: the module that is trained.
            outputs: unused.
            batch: unused.
            batch_idx: unused.
        """
        if trainer.global_step <= self._latest_update_step:  # gradients were only accumulated
            return
        assert self._average_model is not None
        count = self._average_model.n_averaged
        if not self._pairs:
            self._pairs = _by_kind(_tensors(self._average_model.module), _tensors(pl_module))
        for averages, currents in self._pairs:
            if count == 0:  # the first average is the weights themselves
                torch._foreach_copy_(averages, currents)
            else:
                self._average(averages, currents, count)
        count += 1
        self._latest_update_step = trainer.global_step

    def decay_after(self, count: int) -> float:
        """Return the decay of the next update.

        Args:
            count: updates done.

        Returns:
            Number in [0, 1).
        """
        if self.growth == "published":
            return self.decay * (1 - math.exp(-50 * count / self.total_steps))
        # 0.1, 0.18, 0.25, ...: the average spans about the last ninth of the steps so far.
        return min(self.decay, (1 + count) / (10 + count))

    def _average(
        self, averages: Sequence[Tensor], currents: Sequence[Tensor], num_averaged: Tensor | int
    ) -> None:
        """Move the averages towards the current values in place; integers are copied."""
        decay = self.decay_after(int(num_averaged))
        if torch.is_floating_point(averages[0]):
            torch._foreach_lerp_(list(averages), list(currents), 1 - decay)
        else:
            for average, current in zip(averages, currents, strict=True):
                average.copy_(current)  # counters of batch normalisation

    def copy_to(self, module: nn.Module) -> None:
        """Put the averaged values into a module, as Lightning does when a training ends.

        Needed once more when a resumed training had no epoch left to run.

        Args:
            module: the module that was trained.
        """
        assert self._average_model is not None
        self._copy_average_to_current(module)  # type: ignore[arg-type]


def _tensors(module: nn.Module) -> list[Tensor]:
    """Return all parameters and buffers."""
    return [*module.parameters(), *module.buffers()]


def _by_kind(
    averages: Sequence[Tensor], currents: Sequence[Tensor]
) -> list[tuple[list[Tensor], list[Tensor]]]:
    """Return pairs of tensors, those that can be averaged and those that cannot."""
    kinds: dict[torch.dtype, tuple[list[Tensor], list[Tensor]]] = {}
    for average, current in zip(averages, currents, strict=True):
        firsts, seconds = kinds.setdefault(average.dtype, ([], []))
        firsts.append(average)
        seconds.append(current)
    return list(kinds.values())
