"""Training of a PNCC ControlNet: its Lightning module and its frozen networks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ml.generation.controlnet.pncc_pairs import PairBatch
from ml.generation.diffusion.texts import TextEncoder
from ml.records.models import Model
from ml.training.base import TrainingModule
from ml.training.optim import OptimConfig

_KEPT_LATENTS = 4096


@dataclass
class FrozenParts:
    """The frozen parts of SDXL.

    Attributes:
        pipe: the whole pipeline, which encodes texts.
        vae: images to latents.
        unet: predicts noise, conditioned by the ControlNet.
        scheduler: adds noise.
        dtype: number format of all of them.
    """

    pipe: Any
    vae: Any
    unet: Any
    scheduler: Any
    dtype: torch.dtype

    @staticmethod
    def load(base: Model, dtype: torch.dtype) -> FrozenParts:
        """Load SDXL.

        Args:
            base: the pipeline's folder.
            dtype: number format.

        Returns:
            Its parts, without gradients.

        Raises:
            ModelError: the folder is no SDXL.
        """
        from diffusers import DDPMScheduler, StableDiffusionXLPipeline

        pipe = base.load(StableDiffusionXLPipeline, dtype=dtype)
        parts = (pipe.vae, pipe.unet, pipe.text_encoder, pipe.text_encoder_2)
        for part in parts:
            part.requires_grad_(False).eval()
        scheduler = DDPMScheduler.from_config(pipe.scheduler.config)
        return FrozenParts(pipe, pipe.vae, pipe.unet, scheduler, dtype)

    def to(self, device: torch.device) -> None:
        """Move all parts.

        Args:
            device: where to.
        """
        self.pipe.to(device)


def new_controlnet(frozen: FrozenParts, start: Model | None) -> nn.Module:
    """Return the ControlNet to train.

    Args:
        frozen: SDXL, whose encoder a new one copies.
        start: a ControlNet to start from, or None.

    Returns:
        The network in float32; a new one adds exactly nothing until it has learned.

    Raises:
        ModelError: `start` is no ControlNet.
    """
    from diffusers import ControlNetModel

    if start is not None:
        network: nn.Module = start.load(ControlNetModel, dtype=torch.float32)
    else:
        network = ControlNetModel.from_unet(frozen.unet)
    return network.float().requires_grad_(True).train()


class ControlNetTraining(TrainingModule):
    """Predicts the noise in an image's latents from its PNCC map and prompt.

    Noise and timestep of a pair come from its seed alone, so a resumed training draws what the
    uninterrupted one would have drawn, and validation always measures the same.
    """

    def __init__(self, network: nn.Module, frozen: FrozenParts, optim: OptimConfig) -> None:
        """Combine the network with SDXL.

        Args:
            network: the ControlNet.
            frozen: SDXL; kept out of the module's parameters and checkpoints.
            optim: optimiser and schedule.
        """
        super().__init__(optim)
        self.network = network
        # A module would be averaged, saved and given to the optimiser.
        self._frozen = (frozen,)
        self._texts: TextEncoder | None = None
        self._latents: OrderedDict[str, Tensor] = OrderedDict()

    @property
    def frozen(self) -> FrozenParts:
        """SDXL's parts."""
        return self._frozen[0]

    def setup(self, stage: str) -> None:
        """Move SDXL to the training's device.

        Args:
            stage: unused.
        """
        self.frozen.to(self.device)
        self._texts = TextEncoder(self.frozen.pipe, self.device, is_xl=True)

    def losses(self, batch: PairBatch) -> Mapping[str, Tensor]:
        """Return mean squared error of the predicted noise (or velocity, as SDXL's scheduler says).

        Args:
            batch: pairs.

        Returns:
            `loss`.
        """
        frozen = self.frozen
        latents = self._encode(batch)
        noise, steps = self._draw(latents, batch.noise_seeds)
        noisy = frozen.scheduler.add_noise(latents, noise, steps)
        tokens, added = self._condition(batch)
        down, middle = self.network(
            noisy,
            steps,
            encoder_hidden_states=tokens,
            controlnet_cond=batch.conditions.to(self.device),
            added_cond_kwargs=added,
            return_dict=False,
        )
        predicted = frozen.unet(
            noisy.to(frozen.dtype),
            steps,
            encoder_hidden_states=tokens.to(frozen.dtype),
            added_cond_kwargs={name: value.to(frozen.dtype) for name, value in added.items()},
            down_block_additional_residuals=[one.to(frozen.dtype) for one in down],
            mid_block_additional_residual=middle.to(frozen.dtype),
            return_dict=False,
        )[0]
        if frozen.scheduler.config.prediction_type == "v_prediction":
            target = frozen.scheduler.get_velocity(latents, noise, steps)
        else:
            target = noise
        return {"loss": (predicted.float() - target).square().mean()}

    def validation_step(self, batch: PairBatch, batch_idx: int) -> None:
        """Log the loss on noise and timesteps that never change.

        Args:
            batch: pairs.
            batch_idx: unused.
        """
        loss = self.losses(batch)["loss"]
        self.log("val/loss", loss, batch_size=len(batch.sample_ids), sync_dist=True)

    @torch.no_grad()
    def _encode(self, batch: PairBatch) -> Tensor:
        """Return (B, 4, h, w) float32 latents, cached: images are not augmented."""
        missing = [i for i, name in enumerate(batch.sample_ids) if name not in self._latents]
        if missing:
            vae = self.frozen.vae
            images = batch.images[missing].to(self.device, self.frozen.dtype)
            found = vae.encode(images).latent_dist.mode() * vae.config.scaling_factor
            for index, latent in zip(missing, found.float(), strict=True):
                self._latents[batch.sample_ids[index]] = latent
        latents = torch.stack([self._latents[name] for name in batch.sample_ids])
        while len(self._latents) > _KEPT_LATENTS:
            self._latents.popitem(last=False)
        return latents

    def _draw(self, latents: Tensor, seeds: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return noise like the latents, and (B,) int64 timesteps."""
        count = self.frozen.scheduler.config.num_train_timesteps
        noise, steps = [], []
        for seed in seeds:
            generator = torch.Generator("cpu").manual_seed(seed)
            noise.append(torch.randn(latents.shape[1:], generator=generator))
            steps.append(torch.randint(count, (1,), generator=generator))
        return torch.stack(noise).to(latents), torch.cat(steps).to(latents.device)

    @torch.no_grad()
    def _condition(self, batch: PairBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return (B, 77, C) tokens, pooled embeddings and SDXL's six size numbers."""
        if self._texts is None:
            raise RuntimeError("ControlNetTraining: call setup() before losses()")
        texts = [self._texts.encode(prompt) for prompt in batch.prompts]
        tokens = torch.cat([text.tokens for text in texts]).float()
        pooled = torch.cat([text.pooled for text in texts if text.pooled is not None]).float()
        height, width = batch.images.shape[2:]
        sizes = torch.tensor([height, width, 0, 0, height, width], device=tokens.device)
        ids = sizes.float().expand(len(texts), 6)
        # Embeddings are computed in inference mode; training needs ordinary tensors.
        return tokens.clone(), {"text_embeds": pooled.clone(), "time_ids": ids}
