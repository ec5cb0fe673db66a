"""Fine-tuning of a diffusion model on photographs: all of the network, or low-rank adapters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ml.imaging.io import decode_image
from ml.records.atomic import atomic_write
from ml.records.ids import sample_rng
from ml.records.models import Model
from ml.records.progress import progress

STAGE = "diffusion_tuning"
Mode = Literal["lora", "full"]
_ADAPTER_RATE = 10.0
"""Adapters start at nothing and want larger steps, as diffusers' own training scripts take them."""
_ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
"""Layers of the attention blocks that get adapters, as in those scripts."""


@dataclass(frozen=True)
class TuningOptions:
    """Settings of a fine-tuning.

    Attributes:
        mode: `lora` or `full`.
        steps: optimiser steps.
        batch_size: photographs a step.
        learning_rate: of AdamW for the whole network, constant; adapters take ten times as much.
        rank: of the adapters.
        size: side of the square that photographs are cut to, px.
        save_every: steps between two checkpoints.
        device: where to compute.
        seed: run seed.
    """

    mode: Mode
    steps: int
    batch_size: int = 4
    learning_rate: float = 1e-5
    rank: int = 16
    size: int = 512
    save_every: int = 200
    device: str = "cpu"
    seed: int = 0


def load_text_to_image(base: Model, device: str) -> Any:
    """Load Stable Diffusion 1.5 or XL, whichever the folder holds.

    Args:
        base: the pipeline's folder.
        device: where to compute.

    Returns:
        The diffusers pipeline in float32, without a safety checker.
    """
    import diffusers

    pipe = base.load(diffusers.AutoPipelineForText2Image, dtype=torch.float32)
    if getattr(pipe, "safety_checker", None) is not None:
        pipe.safety_checker, pipe.requires_safety_checker = None, False
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device)


def tune(
    pipe: Any,
    photographs: Sequence[Path],
    prompts: Sequence[str],
    options: TuningOptions,
    checkpoint: Path,
) -> list[float]:
    """Fine-tune the network that predicts noise; text encoder and VAE are frozen.

    Which photographs, noise and timesteps a step sees follows from the seed and the step alone, so
    a resumed training continues as the uninterrupted one would have.

    Args:
        pipe: from `load_text_to_image`; its network is changed.
        photographs: files.
        prompts: one a photograph.
        options: how.
        checkpoint: file to resume from and to write.

    Returns:
        The loss of every step.

    Raises:
        ValueError: numbers of photographs and prompts differ, or the loss is not finite.
    """
    if len(photographs) != len(prompts) or not photographs:
        raise ValueError(f"tuning: {len(photographs)} photographs for {len(prompts)} prompts")
    parameters = _trainable(pipe, options)
    rate = options.learning_rate * (_ADAPTER_RATE if options.mode == "lora" else 1.0)
    optimiser = torch.optim.AdamW(parameters, lr=rate, weight_decay=1e-2)
    losses = _resume(parameters, optimiser, checkpoint)
    scheduler = _noise_scheduler(pipe)
    for step in progress(range(len(losses), options.steps), f"tuning ({options.mode})"):
        rng = sample_rng(options.seed, STAGE, f"{options.mode}/{step}")
        chosen = rng.integers(0, len(photographs), options.batch_size)
        pixels = torch.stack([_pixels(photographs[i], options.size) for i in chosen])
        loss = _loss(pipe, scheduler, pixels, [prompts[i] for i in chosen], rng, options)
        if not torch.isfinite(loss):
            raise ValueError(f"tuning: the loss of step {step} is {float(loss)}; lower the rate")
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
        if (step + 1) % options.save_every == 0 or step + 1 == options.steps:
            _save(parameters, optimiser, losses, checkpoint)
    pipe.unet.eval()
    return losses


def generate(
    pipe: Any, prompts: Sequence[str], names: Sequence[str], options: TuningOptions, steps: int
) -> Iterator[np.ndarray]:
    """Generate an image a prompt, from noise that follows from its name.

    Args:
        pipe: the tuned pipeline.
        prompts: texts.
        names: of the images.
        options: size, device and seed.
        steps: of the sampler.

    Yields:
        (H, W, 3) uint8 RGB each.
    """
    for prompt, name in progress(list(zip(prompts, names, strict=True)), "generating"):
        seed = int(sample_rng(options.seed, STAGE, name).integers(2**31))
        noise = torch.Generator(options.device).manual_seed(seed)
        image = pipe(
            prompt,
            num_inference_steps=steps,
            height=options.size,
            width=options.size,
            generator=noise,
            output_type="np",
        ).images[0]
        yield (255 * np.clip(image, 0, 1)).round().astype(np.uint8)


def _trainable(pipe: Any, options: TuningOptions) -> list[Tensor]:
    for part in (pipe.vae, pipe.text_encoder, getattr(pipe, "text_encoder_2", None), pipe.unet):
        if part is not None:
            part.requires_grad_(False).eval()
    if options.mode == "full":
        pipe.unet.requires_grad_(True)
    else:
        from peft import LoraConfig

        torch.manual_seed(options.seed)
        config = LoraConfig(
            r=options.rank,
            lora_alpha=options.rank,
            init_lora_weights="gaussian",
            target_modules=list(_ATTENTION),
        )
        pipe.unet.add_adapter(config)
    pipe.unet.train()
    return [p for p in pipe.unet.parameters() if p.requires_grad]


def _noise_scheduler(pipe: Any) -> Any:
    from diffusers import DDPMScheduler

    return DDPMScheduler.from_config(pipe.scheduler.config)


def _pixels(path: Path, size: int) -> Tensor:
    """Return the middle square of a photograph, (3, S, S) in [-1, 1]."""
    image = decode_image(path)
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = image[top : top + side, left : left + side]
    small = cv2.resize(square, (size, size), interpolation=cv2.INTER_AREA)
    return torch.from_numpy(small).permute(2, 0, 1).float() / 127.5 - 1.0


def _loss(
    pipe: Any,
    scheduler: Any,
    pixels: Tensor,
    prompts: Sequence[str],
    rng: np.random.Generator,
    options: TuningOptions,
) -> Tensor:
    device = torch.device(options.device)
    with torch.no_grad():
        latents = (
            pipe.vae.encode(pixels.to(device)).latent_dist.mean * pipe.vae.config.scaling_factor
        )
        texts, extra = _encoded(pipe, list(prompts), options)
    drawn = rng.standard_normal(tuple(latents.shape)).astype(np.float32)
    noise = torch.from_numpy(drawn).to(device)
    count = scheduler.config.num_train_timesteps
    times = torch.from_numpy(rng.integers(0, count, len(pixels))).to(device)
    noisy = scheduler.add_noise(latents, noise, times)
    predicted = pipe.unet(noisy, times, encoder_hidden_states=texts, **extra).sample
    kind = scheduler.config.prediction_type
    target = scheduler.get_velocity(latents, noise, times) if kind == "v_prediction" else noise
    return functional.mse_loss(predicted.float(), target.float())


def _encoded(
    pipe: Any, prompts: list[str], options: TuningOptions
) -> tuple[Tensor, dict[str, Any]]:
    """Return texts as the network takes them, and the additional inputs of XL."""
    encoded = pipe.encode_prompt(
        prompts, device=options.device, num_images_per_prompt=1, do_classifier_free_guidance=False
    )
    if getattr(pipe, "text_encoder_2", None) is None:
        return encoded[0], {}
    side = options.size
    ids = torch.tensor([[side, side, 0, 0, side, side]] * len(prompts), dtype=torch.float32)
    added = {"text_embeds": encoded[2], "time_ids": ids.to(options.device)}
    return encoded[0], {"added_cond_kwargs": added}


def _save(parameters: list[Tensor], optimiser: Any, losses: list[float], path: Path) -> None:
    content = {
        "parameters": [p.detach().cpu() for p in parameters],
        "optimiser": optimiser.state_dict(),
        "losses": losses,
    }
    with atomic_write(path) as temporary:
        torch.save(content, temporary)


def _resume(parameters: list[Tensor], optimiser: Any, path: Path) -> list[float]:
    if not path.is_file():
        return []
    content = torch.load(path, map_location="cpu", weights_only=True)
    with torch.no_grad():
        for parameter, stored in zip(parameters, content["parameters"], strict=True):
            parameter.copy_(stored)
    optimiser.load_state_dict(content["optimiser"])
    return list(content["losses"])
