"""The one interface of all image generators, and which exist."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from ml.captions.scene import Scene
from ml.flame.head_model import HeadModel
from ml.generation.config import ImagesConfig
from ml.generation.renderer import RenderedSample, render_sample
from ml.poses.skeleton import PoseSample


class ImageGenerator(Protocol):
    """Makes a picture of a pose as a caption describes it."""

    name: str

    def generate(self, pose: PoseSample, scene: Scene, rng: np.random.Generator) -> RenderedSample:
        """Make one picture; equal arguments give equal bytes.

        Args:
            pose: the skeletons.
            scene: the caption's scene.
            rng: the sample's generator.

        Returns:
            Picture and what is known of it.

        Raises:
            ValueError: the pose or the scene cannot be drawn.
        """
        ...


class Renderer:
    """The embedded generator, see `ml.generation.renderer`."""

    name = "renderer"

    def __init__(self, head_model: HeadModel, config: ImagesConfig) -> None:
        """Keep the head model and the settings.

        Args:
            head_model: the heads' model.
            config: the stage's configuration.
        """
        self._head_model = head_model
        self._config = config.renderer

    def generate(self, pose: PoseSample, scene: Scene, rng: np.random.Generator) -> RenderedSample:
        """Render one picture, see `render_sample`.

        Args:
            pose: the skeletons.
            scene: the caption's scene.
            rng: the sample's generator.

        Returns:
            Picture and exact truth.
        """
        return render_sample(pose, scene, self._head_model, self._config, rng)


GENERATORS: dict[str, Callable[[HeadModel, ImagesConfig], ImageGenerator]] = {"renderer": Renderer}
"""Generators by the name that `ImagesConfig.backend` gives."""
