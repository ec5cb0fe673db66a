"""Registry of image generators: the embedded renderer, and diffusion models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ml.flame.head_model import HeadModel
from ml.generation.config import DIFFUSION_BACKENDS, ImagesConfig
from ml.generation.generator import (
    GeneratedSample,
    GenerationRequest,
    ImageGenerator,
    NotGenerated,
)
from ml.generation.renderer.dense import dense_truth
from ml.generation.renderer.renderer import RenderedSample, render_pncc, render_sample
from ml.poses.skeleton import PoseSample
from ml.records import reasons


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
        self._dense = config.dense

    def batches(self, requests: Sequence[GenerationRequest]) -> list[list[GenerationRequest]]:
        """Return batches of one request.

        Args:
            requests: all images of a shard.

        Returns:
            The requests one by one.
        """
        return [[request] for request in requests]

    def generate(self, batch: Sequence[GenerationRequest]) -> list[GeneratedSample | NotGenerated]:
        """Render images, see `render_sample`.

        Args:
            batch: images to be made.

        Returns:
            Images with ground truth; a pose or scene that cannot be drawn is a failure.
        """
        return [self._render(request) for request in batch]

    def settings(self) -> dict[str, Any]:
        """Return no parameters in addition to the stage's.

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
        except ValueError as error:
            # Poses and scenes are checked when they are read; other errors are bugs.
            return NotGenerated(reasons.NOT_DRAWN, str(error))
        return GeneratedSample(
            sample.image_rgb,
            sample.heads,
            lambda: render_pncc(sample, request.pose, self._head_model),
            members=self._dense_members(sample, request.pose),
        )

    def _dense_members(
        self, sample: RenderedSample, pose: PoseSample
    ) -> dict[str, bytes | dict[str, Any]]:
        if not self._dense:
            return {}
        return dense_truth(sample, pose, self._head_model, self._dense).members()


def _diffusion(head_model: HeadModel, config: ImagesConfig, root: Path) -> ImageGenerator:
    from ml.generation.diffusion.generator import DiffusionGenerator

    return DiffusionGenerator(head_model, config, root)


GENERATORS: dict[str, Callable[[HeadModel, ImagesConfig, Path], ImageGenerator]] = {
    "renderer": Renderer,
    **dict.fromkeys(DIFFUSION_BACKENDS, _diffusion),
}
"""Generators by the name that `ImagesConfig.backend` gives."""
