"""Speed of the FLAME layer against smplx.lbs, forward and forward with backward.

    python -m benchmarks.flame_layer --threads 2

smplx gets the same poses through its usual call, in float32, and its result is indexed for the
subset, as code that uses it does. The rows `leading` give only the coefficients that the detector
predicts (128 shape and 64 expression, size L): ours takes them as they are, smplx padded with
zeros. `--cpu-time` counts the process's processor time instead of the
clock: use it with one thread on a machine that does other work too.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from functools import partial

import torch
from smplx.lbs import lbs
from torch import Tensor

from benchmarks.report import parser_of, start
from ml.benchmarks.timing import Clock, milliseconds
from ml.flame.head_model import HeadModel
from ml.flame.layer import Z_OFFSET_M, FlameLayer
from ml.flame.open_head import build_open_head


class Smplx:
    """smplx.lbs with everything at rest but shape, expression and jaw."""

    def __init__(self, head_model: HeadModel, index: Tensor | None) -> None:
        """Keep the model's arrays as tensors."""
        self.arrays = (
            torch.as_tensor(head_model.v_template)[None],
            torch.as_tensor(head_model.shapedirs),
            torch.as_tensor(head_model.posedirs).reshape(-1, 36).T.contiguous(),
            torch.as_tensor(head_model.J_regressor),
            torch.tensor(head_model.parents),
            torch.as_tensor(head_model.weights),
        )
        self.index = index
        self.offset = torch.tensor([0.0, 0.0, Z_OFFSET_M])

    def __call__(self, shape: Tensor, expression: Tensor, jaw: Tensor) -> Tensor:
        """Return vertices (B, V, 3), metres."""
        rest = jaw.new_zeros(len(jaw), 6)
        pose = torch.cat([rest, jaw, rest], dim=1)
        vertices, _ = lbs(torch.cat([shape, expression], dim=1), pose, *self.arrays)
        vertices = vertices + self.offset
        return vertices if self.index is None else vertices[:, self.index]


class Padded:
    """A model that is given leading coefficients and needs all of them."""

    def __init__(self, model: Callable[..., Tensor]) -> None:
        """Remember the model."""
        self.model = model

    def __call__(self, shape: Tensor, expression: Tensor, jaw: Tensor) -> Tensor:
        """Return vertices (B, V, 3), metres."""
        pad = torch.nn.functional.pad
        shape = pad(shape, (0, 300 - shape.shape[1]))
        return self.model(shape, pad(expression, (0, 100 - expression.shape[1])), jaw)


def measure(
    models: Sequence[Callable[..., Tensor]],
    batch: int,
    seconds: float,
    clock: Clock,
    counts: tuple[int, int] = (300, 100),
) -> tuple[list[float], list[float]]:
    """Time forward, and forward with backward to all inputs, in ms, of each model."""
    shape, expression = (torch.randn(batch, count) for count in counts)
    inputs = shape, expression, 0.2 * torch.randn(batch, 3)
    leaves = [t.clone().requires_grad_() for t in inputs]
    with torch.no_grad():
        gradient = torch.randn_like(models[0](*inputs))

    def forward(model: Callable[..., Tensor]) -> Tensor:
        with torch.inference_mode():
            return model(*inputs)

    def both(model: Callable[..., Tensor]) -> object:
        return torch.autograd.grad(model(*leaves), leaves, gradient)

    return (
        milliseconds([partial(forward, model) for model in models], seconds, clock),
        milliseconds([partial(both, model) for model in models], seconds, clock),
    )


def main() -> None:
    """Print the table."""
    parser = parser_of(__doc__)
    parser.add_argument("--threads", type=int, default=2, help="torch threads")
    parser.add_argument("--seconds", type=float, default=1.0, help="time for each metric")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 64, 1024])
    parser.add_argument("--cpu-time", action="store_true", help="processor time, not the clock")
    arguments = parser.parse_args()
    clock = time.process_time if arguments.cpu_time else time.perf_counter
    start(arguments.threads)
    head_model = build_open_head(0)
    print("\n| vertices | batch | smplx fwd, fwd+bwd ms | ours fwd, fwd+bwd ms | faster |")
    print("|---|---|---|---|---|")
    for region in ("all", "head"):
        layer = FlameLayer(head_model, region)
        reference = Smplx(head_model, None if region == "all" else layer.vertex_indices)
        for batch, counts in itertools.product(arguments.batches, ((300, 100), (128, 64))):
            leading = counts != (300, 100)
            oracle = Padded(reference) if leading else reference
            forward, both = measure([oracle, layer], batch, arguments.seconds, clock, counts)
            name = f"{region} {layer.num_vertices}{', leading' if leading else ''}"
            print(
                f"| {name} | {batch} | {forward[0]:.2f}, {both[0]:.2f} "
                f"| {forward[1]:.2f}, {both[1]:.2f} "
                f"| {forward[0] / forward[1]:.1f}x, {both[0] / both[1]:.1f}x |",
                flush=True,
            )


if __name__ == "__main__":
    main()
