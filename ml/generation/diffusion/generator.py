"""The generator that samples a diffusion model: poses and prompts in, images out."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from ml.flame.head_model import HeadModel
from ml.generation.config import ImagesConfig
from ml.generation.diffusion.conditions import Condition, openpose_condition, pncc_condition
from ml.generation.diffusion.pipelines import LoadedPipeline, load_pipeline
from ml.generation.diffusion.texts import TextEmbedding, TextEncoder
from ml.generation.generator import GeneratedSample, GenerationRequest, NotGenerated
from ml.records import reasons
from ml.records.determinism import one_thread

logger = logging.getLogger(__name__)

MAX_TOKENS: Final = 77
"""Tokens of a prompt that the text encoders read."""


@dataclass(frozen=True)
class _Job:
    """A request that can be sampled, with its condition."""

    request: GenerationRequest
    condition: Condition
    prompt_tokens: int


class DiffusionGenerator:
    """Samples images, batched by size, one seeded generator per image."""

    def __init__(self, head_model: HeadModel | None, config: ImagesConfig, root: Path) -> None:
        """Load the pipeline.

        Args:
            head_model: the heads' model; only the backend sdxl-pncc draws it and needs it.
            config: the stage's configuration.
            root: the project folder, to which models' paths are relative.
        """
        self.name = str(config.backend)
        self._head_model = head_model
        self._config = config
        self._loaded: LoadedPipeline = load_pipeline(config.backend, config.diffusion, root)
        self._texts = TextEncoder(
            self._loaded.pipe, self._loaded.device, self._loaded.backend.is_xl
        )

    def with_steps(self, steps: int) -> DiffusionGenerator:
        """Return the same pipeline with another number of steps.

        Args:
            steps: denoising steps.

        Returns:
            A generator that shares the loaded models.
        """
        diffusion = self._config.diffusion.model_copy(update={"steps": steps})
        other = copy.copy(self)
        other._config = self._config.model_copy(update={"diffusion": diffusion})
        return other

    def batches(self, requests: Sequence[GenerationRequest]) -> list[list[GenerationRequest]]:
        """Group requests of one size, and each group into batches.

        Args:
            requests: all images of a shard.

        Returns:
            Batches of at most `diffusion.batch_size`, sizes in the order of their first request.
        """
        groups: dict[tuple[int, int], list[GenerationRequest]] = {}
        for request in requests:
            groups.setdefault((request.pose.width, request.pose.height), []).append(request)
        size = self._config.diffusion.batch_size
        return [
            group[start : start + size]
            for group in groups.values()
            for start in range(0, len(group), size)
        ]

    def generate(self, batch: Sequence[GenerationRequest]) -> list[GeneratedSample | NotGenerated]:
        """Sample the images of one batch.

        The same batch gives the same bytes; in a batch of another size an image may differ by one
        grey level, because sums run in another order.

        Args:
            batch: requests of one size.

        Returns:
            One result per request; a size that the model cannot draw, a pose that cannot be posed
            and an image that is not finite are failures.
        """
        results: dict[str, GeneratedSample | NotGenerated] = {}
        jobs: list[_Job] = []
        for request in batch:
            prepared = self._prepare(request)
            if isinstance(prepared, NotGenerated):
                results[request.sample_id] = prepared
            else:
                jobs.append(prepared)
        if jobs:
            for job, sampled in zip(jobs, self._sample(jobs), strict=True):
                results[job.request.sample_id] = _result(job, sampled)
        return [results[request.sample_id] for request in batch]

    def settings(self) -> dict[str, Any]:
        """Return what determines an image in addition to prompt, negative prompt and seed.

        Returns:
            Scheduler, steps, guidance, scale, batch size, number format, models with versions.
        """
        config, loaded = self._config.diffusion, self._loaded
        return {
            "scheduler": type(loaded.pipe.scheduler).__name__,
            "algorithm": config.algorithm,
            "karras_sigmas": config.karras_sigmas,
            "steps": config.steps,
            "guidance": config.guidance,
            "condition_scale": config.condition_scale,
            "safety_weight": config.safety_weight,
            "batch_size": config.batch_size,
            "dtype": str(loaded.pipe.unet.dtype).removeprefix("torch."),
            "device": loaded.device.type,
            "models": [model.record() for model in loaded.models],
        }

    def _prepare(self, request: GenerationRequest) -> _Job | NotGenerated:
        pose, backend = request.pose, self._loaded.backend
        longest = self._config.diffusion.max_side
        if pose.width % backend.multiple or pose.height % backend.multiple:
            return NotGenerated(
                reasons.UNSUPPORTED_SIZE,
                f"{pose.pose_id}: {self.name} draws multiples of {backend.multiple} px, got "
                f"{pose.width} x {pose.height}; set the size in the poses stage",
            )
        if max(pose.width, pose.height) > longest:
            return NotGenerated(
                reasons.UNSUPPORTED_SIZE,
                f"{pose.pose_id}: expected at most {longest} px (images.diffusion.max_side), got "
                f"{pose.width} x {pose.height}",
            )
        if not pose.people:
            return NotGenerated(reasons.NOT_DRAWN, f"{pose.pose_id}: the pose has no person")
        tokens = self._texts.count_tokens(request.prompt)
        if tokens > MAX_TOKENS:
            logger.warning(
                "%s: prompt of %d tokens is cut at %d", request.sample_id, tokens, MAX_TOKENS
            )
        try:
            return _Job(request, self._condition(request), tokens)
        except ValueError as error:
            return NotGenerated(reasons.NOT_DRAWN, str(error))

    def _condition(self, request: GenerationRequest) -> Condition:
        if self._loaded.backend.condition == "pncc":
            if self._head_model is None:
                raise ValueError(f"{self.name}: PNCC maps need a head model, got none")
            variation = self._config.renderer.heads
            return pncc_condition(request, self._head_model, variation)
        return openpose_condition(request.pose, self._loaded.backend.reverse_channels)

    def _sample(self, jobs: Sequence[_Job]) -> Tensor:
        """Return (B, 3, H, W) float32 on the CPU, in [0, 1] where finite."""
        config, loaded = self._config.diffusion, self._loaded
        pose = jobs[0].request.pose
        conditions = np.stack([job.condition.image_rgb for job in jobs])
        image = torch.from_numpy(conditions).permute(0, 3, 1, 2).float() / 255.0
        # On the CPU the numbers of a seed are the same for every device.
        generators = [torch.Generator("cpu").manual_seed(job.request.seed) for job in jobs]
        with one_thread(), torch.inference_mode():
            result = loaded.pipe(
                **self._embeddings([job.request for job in jobs]),
                image=image.to(loaded.device),
                height=pose.height,
                width=pose.width,
                num_inference_steps=config.steps,
                guidance_scale=config.guidance,
                generator=generators,
                output_type="pt",
                **{loaded.backend.scale_argument: config.condition_scale},
            )
        images: Tensor = result.images
        return images.float().cpu()

    def _embeddings(self, requests: Sequence[GenerationRequest]) -> dict[str, Tensor]:
        config = self._config.diffusion
        prompts = [self._texts.encode(request.prompt) for request in requests]
        negatives = [
            self._texts.encode_negative(
                request.negative_prompt, config.safety_concepts, config.safety_weight
            )
            for request in requests
        ]
        tensors = {
            "prompt_embeds": torch.cat([text.tokens for text in prompts]),
            "negative_prompt_embeds": torch.cat([text.tokens for text in negatives]),
        }
        if self._loaded.backend.is_xl:
            tensors["pooled_prompt_embeds"] = _pooled(prompts)
            tensors["negative_pooled_prompt_embeds"] = _pooled(negatives)
        return tensors


def _pooled(texts: Sequence[TextEmbedding]) -> Tensor:
    return torch.cat([text.pooled for text in texts if text.pooled is not None])


def _result(job: _Job, sampled: Tensor) -> GeneratedSample | NotGenerated:
    if not bool(torch.isfinite(sampled).all()):
        return NotGenerated(
            reasons.NON_FINITE,
            f"{job.request.pose.pose_id}: the decoded image has values that are not finite; "
            "float16 overflows in some decoders, try images.diffusion.dtype bfloat16",
        )
    image = (sampled.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    condition = job.condition
    return GeneratedSample(
        np.ascontiguousarray(image),
        condition.heads,
        lambda: condition.image_rgb,
        {"prompt_tokens": job.prompt_tokens, "prompt_is_cut": job.prompt_tokens > MAX_TOKENS},
    )
