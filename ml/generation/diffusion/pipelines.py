"""Loading a pipeline of diffusers with its conditioner, scheduler and memory options."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from ml.generation.config import DiffusionConfig
from ml.generation.diffusion.backends import BACKENDS, Backend
from ml.generation.diffusion.features import cache_features
from ml.records.models import Model, choose_device, require

_DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}


@dataclass(frozen=True)
class LoadedPipeline:
    """A pipeline ready to sample.

    Attributes:
        name: the backend's name.
        backend: what kind it is.
        pipe: the diffusers pipeline.
        device: where it computes.
        models: the resolved base and conditioner.
    """

    name: str
    backend: Backend
    pipe: Any
    device: torch.device
    models: tuple[Model, ...]


@lru_cache(maxsize=1)
def load_pipeline(name: str, config: DiffusionConfig, root: Path) -> LoadedPipeline:
    """Load a pipeline once per process: a worker makes many shards.

    Args:
        name: a key of `BACKENDS`.
        config: models and options.
        root: the project folder, to which models' paths are relative.

    Returns:
        The pipeline, with `config.algorithm` as its scheduler.

    Raises:
        ModelError: a model is not named, not there, not the one meant, or cannot be loaded.
    """
    import diffusers

    # It warns twice for every truncated prompt, which shard and lineage record anyway.
    diffusers.utils.logging.set_verbosity_error()
    backend = BACKENDS[name]
    base = require(config.base, "images.diffusion.base", name, root)
    conditioner = require(config.conditioner, "images.diffusion.conditioner", name, root)
    device = choose_device(config.device)
    dtype = _dtype(config.dtype, device)
    steering = conditioner.load(getattr(diffusers, backend.conditioner), dtype=dtype)
    # A later stage judges the images and records the verdict.
    no_checker = {} if backend.is_xl else {"safety_checker": None, "requires_safety_checker": False}
    pipe = base.load(
        getattr(diffusers, backend.pipeline),
        dtype=dtype,
        **{backend.conditioner_argument: steering},
        **no_checker,
    )
    pipe.scheduler = diffusers.DPMSolverMultistepScheduler.from_config(
        pipe.scheduler.config,
        algorithm_type=config.algorithm,
        use_karras_sigmas=config.karras_sigmas,
    )
    pipe.set_progress_bar_config(disable=True)
    _apply_options(pipe, config, device)
    if backend.conditioner == "T2IAdapter":
        cache_features(pipe.adapter)
    return LoadedPipeline(name, backend, pipe, device, (base, conditioner))


def _dtype(name: str, device: torch.device) -> torch.dtype:
    if name != "auto":
        return _DTYPES[name]
    return torch.float16 if device.type == "cuda" else torch.float32


def _apply_options(pipe: Any, config: DiffusionConfig, device: torch.device) -> None:
    if config.vae_slicing:
        pipe.vae.enable_slicing()
    if config.vae_tiling:
        pipe.vae.enable_tiling()
    if config.attention == "sliced":
        pipe.enable_attention_slicing()
    elif config.attention == "xformers":
        pipe.enable_xformers_memory_efficient_attention()
    if config.offload and device.type == "cuda":
        pipe.enable_model_cpu_offload(device=device)
    else:
        pipe.to(device)
    if device.type == "cuda":
        pipe.unet.to(memory_format=torch.channels_last)
    if config.compile:
        pipe.unet = torch.compile(pipe.unet)
