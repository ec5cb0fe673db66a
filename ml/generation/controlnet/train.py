"""Train a PNCC-conditioned ControlNet for SDXL (appendix F of the paper).

    python -m ml.generation.controlnet.train conf/training/controlnet.yaml --output data/controlnet

Reads the images, prompts and heads that the pipeline has made in `data/`, reports to MLflow, and
resumes from its last finished epoch after a kill. The result is a folder that
`images.diffusion.conditioner` of the backend sdxl-pncc takes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

import numpy as np
import torch
from pydantic import Field

from ml.flame.head_model import HeadModel
from ml.generation.controlnet.module import ControlNetTraining, FrozenParts, new_controlnet
from ml.generation.controlnet.pncc_pairs import (
    HeadSource,
    Pair,
    PairDataModule,
    PairDataset,
    read_pairs,
)
from ml.imaging.grids import contact_sheet
from ml.imaging.io import encode_jpeg
from ml.records.atomic import write_bytes, write_json
from ml.records.config import StageConfig, parse_yaml, read_config
from ml.records.determinism import prepare_torch
from ml.records.exclusions import Exclusions
from ml.records.models import ModelRef, require
from ml.records.workspace import Workspace
from ml.training.callbacks import write_history
from ml.training.fit import FitConfig, FitResult, finish_work, fit
from ml.training.optim import OptimConfig
from ml.training.processes import TrainedAlong, launched
from ml.training.tracking import NullTracker, Tracker, log_data, mlflow_run

STAGE: Final = "controlnet"
_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


class ControlNetConfig(StageConfig):
    """How a PNCC ControlNet is trained."""

    base: ModelRef | None = None
    """SDXL, with frozen weights."""
    start: ModelRef | None = None
    """Initial ControlNet; without it, SDXL's encoder is copied."""
    heads: HeadSource = "annotations"
    """`annotations`: pseudo-labels of the filtered dataset, as in the paper; `truth`: the
    renderer's ground truth."""
    size: int = Field(default=1024, ge=64, multiple_of=64, le=10**9)
    """Side of the training images, px."""
    prompt_dropout: float = Field(default=0.1, ge=0, le=1)
    """Fraction of prompts that are replaced by empty ones."""
    batch_size: int = Field(default=4, ge=1, le=10**9)
    """Pairs in a batch."""
    max_val: int = Field(default=64, ge=1, le=10**9)
    """Held-out pairs evaluated after each epoch."""
    fixed_noise: bool = False
    """Use the same noise and timesteps in every epoch, so that a falling loss is visible."""
    frozen_dtype: Literal["float32", "float16", "bfloat16"] = "bfloat16"
    """Number format of SDXL."""
    optim: OptimConfig = OptimConfig(
        kind="adamw", lr=1e-5, weight_decay=1e-2, warmup_steps=500, ema_decay=0.0
    )
    """Optimiser and schedule."""
    fit: FitConfig = FitConfig(
        epochs=1, accelerator="auto", channels_last=False, gradient_clip=10.0
    )
    """The training loop."""


def train(ws: Workspace, config: ControlNetConfig, out: Path, tracker: Tracker) -> FitResult:
    """Train a ControlNet, or resume from the last finished epoch.

    Args:
        ws: the workspace; its `fingerprint` names the unfinished work.
        config: models, data, optimiser, loop.
        out: folder of the result: the ControlNet, history.csv, training.json, pairs.jpg.
        tracker: receives parameters, curves and files.

    Returns:
        History, last metrics, seconds.

    Raises:
        ModelError: a model is not there or not the one meant.
        ValueError: a split has no image with heads.
    """
    prepare_torch(ws, STAGE)
    base = require(config.base, "controlnet.base", "the ControlNet's training", ws.root)
    start = config.start.resolve(ws.root) if config.start is not None else None
    exclusions = Exclusions(STAGE)
    pairs = {split: _pairs(ws, split, config, exclusions) for split in ("train", "val")}
    head_model = HeadModel.load(ws.stage_dir("head_model") / "head_model.npz")

    def dataset(split: str, dropout: float, fixed: bool) -> PairDataset:
        return PairDataset(pairs[split], head_model, config.size, dropout, ws.seed, STAGE, fixed)

    training = dataset("train", config.prompt_dropout, config.fixed_noise)
    data = PairDataModule(training, dataset("val", 0.0, True), config.batch_size, ws.seed, STAGE)
    frozen = FrozenParts.load(base, _DTYPES[config.frozen_dtype])
    module = ControlNetTraining(new_controlnet(frozen, start), frozen, config.optim)
    tracker.log_params({k: str(v) for k, v in config.model_dump(mode="json").items()})
    log_data(tracker, "images", {split: {"pairs": len(own)} for split, own in pairs.items()})
    result = fit(module, data, ws, STAGE, config.fit, tracker)
    module.network.save_pretrained(out)  # type: ignore[operator]
    write_history(out / "history.csv", result.history)
    write_bytes(out / "pairs.jpg", encode_jpeg(_sheet(training, pairs["train"])))
    write_json(
        out / "training.json",
        {
            "base": base.record(),
            "start": start.record() if start is not None else None,
            "heads": config.heads,
            "pairs": {split: len(own) for split, own in pairs.items()},
            "images_without_heads": len(exclusions),
            "metrics": {k: v for k, v in result.metrics.items() if np.isfinite(v)},
        },
    )
    tracker.log_image(out / "pairs.jpg", "pairs/train")
    tracker.log_artifact(out / "training.json")
    finish_work(ws, STAGE)
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the command.

    Args:
        arguments: those of the command line by default.

    Returns:
        Exit status.
    """
    parser = argparse.ArgumentParser(
        prog="python -m ml.generation.controlnet.train", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("config", type=Path, help="YAML with the keys of ControlNetConfig")
    parser.add_argument("--root", type=Path, default=Path(), help="project folder with data/")
    parser.add_argument("--output", type=Path, default=Path("data/controlnet"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(arguments)
    try:
        values = parse_yaml(options.config.read_text()) or {}
        config = read_config(ControlNetConfig, STAGE, values)
        shards = sorted((options.root / "data" / "images").glob("*.tar"))
        ws = Workspace(options.root, options.seed, len(shards), 1, threads=options.threads)
        launch = launched()
        if launch is not None and launch.rank:
            train(ws, config, options.root / options.output, NullTracker())
        with mlflow_run(options.root / "mlruns", "vggheads", STAGE) as tracker:
            result = train(ws, config, options.root / options.output, tracker)
    except TrainedAlong:
        return 0
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{options.output}: {result.seconds:.0f} s, {result.metrics}")
    return 0


def _pairs(
    ws: Workspace, split: str, config: ControlNetConfig, exclusions: Exclusions
) -> list[Pair]:
    pairs = read_pairs(ws, split, config.heads, exclusions)
    if not pairs:
        raise ValueError(
            f"{STAGE}: no image of split {split} has a head with parameters "
            f"(heads: {config.heads}); make more images, or take the other heads"
        )
    return pairs if split == "train" else pairs[: config.max_val]


def _sheet(dataset: PairDataset, pairs: Sequence[Pair]) -> np.ndarray:
    images = [image for pair in pairs[:12] for image in dataset.draw(pair)]
    return contact_sheet(images, 8, 160)


if __name__ == "__main__":
    sys.exit(main())
