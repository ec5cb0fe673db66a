"""A training step's parts: forward, loss with its FLAME targets, backward, optimiser.

python -m benchmarks.training_step --size nano --image-size 192 --batch 16 --threads 2
python -m benchmarks.training_step --size L --batch 16 --device cuda --precision fp16
"""

from __future__ import annotations

import contextlib
import itertools
import statistics
import time

import torch
from torch import Tensor

from benchmarks.head_targets import some_heads
from benchmarks.report import parser_of, start
from ml.flame.open_head import build_open_head
from ml.model.building import build_detector, model_config
from ml.model.losses import HeadLoss, loss_config
from ml.model.targets import HeadTargets
from ml.records.models import choose_device
from ml.training.optim import OptimConfig, build_optimizer

PARTS = ("forward", "loss", "backward", "optimiser")
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def some_targets(images: int, heads: int, side: int) -> HeadTargets:
    """Return heads spread over the images, of a tenth to a third of their side."""
    parts = []
    for _ in range(images):
        size = side * (0.1 + 0.23 * torch.rand(heads, 1))
        low = (side - size) * torch.rand(heads, 2)
        flame = some_heads(heads)
        flame[:, 409:411], flame[:, 412:] = low + size / 2, 5 * size
        parts.append(HeadTargets.of_image(torch.cat([low, low + size], dim=1), flame))
    return HeadTargets.collate(parts)


def main() -> None:
    """Print the table."""
    parser = parser_of(__doc__)
    parser.add_argument("--size", default="nano", choices=["nano", "S", "M", "L"])
    parser.add_argument("--image-size", type=int, help="px; the size's own if left out")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--heads", type=int, default=4, help="heads in an image")
    parser.add_argument("--form", default="paper", choices=["paper", "official"])
    parser.add_argument("--optimiser", default="adamw", choices=["adamw", "muon"])
    parser.add_argument("--precision", default="fp32", choices=["fp32", *DTYPES])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2, help="torch threads")
    parser.add_argument("--steps", type=int, default=10, help="steps that count, after three")
    arguments = parser.parse_args()
    try:
        device = choose_device(arguments.device)
    except ValueError as error:
        parser.error(str(error))
    start(arguments.threads)
    config = model_config(arguments.size)
    side = arguments.image_size or config.image_size
    model = build_detector(config).to(device)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    loss = HeadLoss(loss_config(arguments.form), build_open_head(0)).to(device)
    optim = OptimConfig(kind=arguments.optimiser)
    optimiser, _ = build_optimizer(model, optim, total_steps=1000)
    scaler = torch.amp.GradScaler(device.type, enabled=arguments.precision == "fp16")
    images = torch.rand(arguments.batch, 3, side, side, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    targets = some_targets(arguments.batch, arguments.heads, side).to(device)

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    def mixed() -> contextlib.AbstractContextManager[object]:
        dtype = DTYPES.get(arguments.precision)
        return torch.autocast(device.type, dtype) if dtype else contextlib.nullcontext()

    def step() -> tuple[list[float], Tensor]:
        times = [now()]
        with mixed():
            outputs = model(images)
            times.append(now())
            terms = loss(outputs, targets)
        times.append(now())
        optimiser.zero_grad()
        scaler.scale(terms["loss"]).backward()
        times.append(now())
        scaler.step(optimiser)
        scaler.update()
        times.append(now())
        return [1000 * (b - a) for a, b in itertools.pairwise(times)], terms["positives"]

    rows, positives = [], torch.zeros(())
    for index in range(3 + arguments.steps):
        row, positives = step()
        if index >= 3:
            rows.append(row)
    medians = [statistics.median(column) for column in zip(*rows, strict=True)]
    total = sum(medians)
    print(
        f"\n{arguments.size} at {side} px, batch {arguments.batch}, {len(targets)} heads, "
        f"{int(positives)} anchors that learn, {arguments.precision}, {arguments.form} losses"
    )
    print("\n| part | ms | fraction |\n|---|---|---|")
    for name, value in zip(PARTS, medians, strict=True):
        print(f"| {name} | {value:.1f} | {100 * value / total:.0f} % |")
    print(f"| step | {total:.1f} | {1000 * arguments.batch / total:.1f} images/s |")


if __name__ == "__main__":
    main()
