"""The one interface of all image generators, and which exist."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ml.captions.scene import Scene
from ml.flame.head_model import HeadModel
from ml.generation.config import DIFFUSION_BACKENDS, ImagesConfig
from ml.generation.renderer.renderer import render_pncc, render_sample
from ml.generation.renderer.truth import TruthHead
from ml.poses.skeleton import PoseSample
from ml.records import reasons


@dataclass(frozen=True)
class GenerationRequest:
    """One picture to be made.

    Attributes:
        sample_id: the picture's id.
        pose: the skeletons and the picture's size.
        scene: what the caption says, word by word; None when the caption is free text.
        prompt: the final prompt.
        negative_prompt: what the picture must not show.
        seed: the sample's seed.
        rng: the sample's generator, seeded with `seed`.
    """

    sample_id: str
    pose: PoseSample
    scene: Scene | None
    prompt: str
    negative_prompt: str
    seed: int
    rng: np.random.Generator


@dataclass(frozen=True)
class GeneratedSample:
    """A picture and what is known of it.

    Attributes:
        image_rgb: (H, W, 3) uint8.
        heads: its visible heads; empty when the generator has no exact truth.
        draw_condition: draws the (H, W, 3) uint8 RGB picture of what it was made from.
        notes: what its lineage says beside the generator's settings, JSON-serialisable.
    """

    image_rgb: np.ndarray
    heads: Sequence[TruthHead]
    draw_condition: Callable[[], np.ndarray]
    notes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class NotGenerated:
    """Why a picture could not be made; becomes a row of the exclusions."""

    reason: str
    detail: str


class ImageGenerator(Protocol):
    """Makes pictures of poses as captions describe them."""

    name: str

    def batches(self, requests: Sequence[GenerationRequest]) -> list[list[GenerationRequest]]:
        """Divide a shard's requests into batches, by nothing but the requests themselves.

        Args:
            requests: all pictures of a shard.

        Returns:
            The same requests in batches, in the order in which they are to be made.
        """
        ...

    def generate(self, batch: Sequence[GenerationRequest]) -> list[GeneratedSample | NotGenerated]:
        """Make the pictures of one batch; equal batches give equal bytes.

        Args:
            batch: from `batches`.

        Returns:
            One result a request, in their order.
        """
        ...

    def settings(self) -> dict[str, Any]:
        """What the pictures were made with beside prompt and seed, for their lineage.

        Returns:
            JSON-serialisable; empty when the stage's parameters say it all.
        """
        ...


class Renderer:
    """The embedded generator, see `ml.generation.renderer.renderer`."""

    name = "renderer"

    def __init__(self, head_model: HeadModel, config: ImagesConfig, root: Path) -> None:
        """Keep the head model and the settings.

        Args:
            head_model: the heads' model.
            config: the stage's configuration.
            root: the project folder; nothing else is read from it.
        """
        self._head_model = head_model
        self._config = config.renderer

    def batches(self, requests: Sequence[GenerationRequest]) -> list[list[GenerationRequest]]:
        """One picture a batch.

        Args:
            requests: all pictures of a shard.

        Returns:
            The requests one by one.
        """
        return [[request] for request in requests]

    def generate(self, batch: Sequence[GenerationRequest]) -> list[GeneratedSample | NotGenerated]:
        """Render pictures, see `render_sample`.

        Args:
            batch: pictures to be made.

        Returns:
            Pictures with exact truth; a pose or scene that cannot be drawn is a failure.
        """
        return [self._render(request) for request in batch]

    def settings(self) -> dict[str, Any]:
        """Nothing beside the stage's parameters.

        Returns:
            An empty dictionary.
        """
        return {}

    def _render(self, request: GenerationRequest) -> GeneratedSample | NotGenerated:
        if request.scene is None:
            return NotGenerated(
                reasons.NOT_DRAWN,
                f"{request.pose.pose_id}: the caption has no scene; the renderer needs captions of "
                "the scene grammar, choose a diffusion backend for others",
            )
        try:
            sample = render_sample(
                request.pose, request.scene, self._head_model, self._config, request.rng
            )
        except (ValueError, KeyError, TypeError) as error:
            return NotGenerated(reasons.NOT_DRAWN, f"{type(error).__name__}: {error}")
        return GeneratedSample(
            sample.image_rgb,
            sample.heads,
            lambda: render_pncc(sample, request.pose, self._head_model),
        )


def _diffusion(head_model: HeadModel, config: ImagesConfig, root: Path) -> ImageGenerator:
    from ml.generation.diffusion.generator import DiffusionGenerator

    return DiffusionGenerator(head_model, config, root)


GENERATORS: dict[str, Callable[[HeadModel, ImagesConfig, Path], ImageGenerator]] = {
    "renderer": Renderer,
    **dict.fromkeys(DIFFUSION_BACKENDS, _diffusion),
}
"""Generators by the name that `ImagesConfig.backend` gives."""
