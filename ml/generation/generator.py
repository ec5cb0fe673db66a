"""The one interface of all image generators."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from ml.captions.scene import Scene
from ml.generation.renderer.truth import TruthHead
from ml.poses.skeleton import PoseSample


@dataclass(frozen=True)
class GenerationRequest:
    """One image to be made.

    Attributes:
        sample_id: the image's id.
        pose: the skeletons and the image's size.
        scene: the caption's scene in words of the grammar; None for a free-text caption.
        prompt: the final prompt.
        negative_prompt: content to avoid.
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
    """An image and its ground truth.

    Attributes:
        image_rgb: (H, W, 3) uint8.
        heads: its visible heads; empty when the generator has no ground truth.
        draw_condition: draws the (H, W, 3) uint8 RGB condition image.
        notes: what its lineage records in addition to the generator's settings, JSON-serialisable.
        members: further members of the shard, by extension: bytes, or what becomes JSON.
    """

    image_rgb: np.ndarray
    heads: Sequence[TruthHead]
    draw_condition: Callable[[], np.ndarray]
    notes: Mapping[str, Any] = field(default_factory=dict)
    members: Mapping[str, bytes | dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class NotGenerated:
    """Reason why an image could not be generated; becomes a row of the exclusions."""

    reason: str
    detail: str


class ImageGenerator(Protocol):
    """Generates images from poses and captions."""

    name: str

    def batches(self, requests: Sequence[GenerationRequest]) -> list[list[GenerationRequest]]:
        """Divide a shard's requests into batches, by nothing but the requests themselves.

        Args:
            requests: all images of a shard.

        Returns:
            The same requests in batches, in the order in which they are to be made.
        """
        ...

    def generate(self, batch: Sequence[GenerationRequest]) -> list[GeneratedSample | NotGenerated]:
        """Make the images of one batch; equal batches give equal bytes.

        Args:
            batch: from `batches`.

        Returns:
            One result per request, in their order.
        """
        ...

    def settings(self) -> dict[str, Any]:
        """Return the settings of the images in addition to prompt and seed, for their lineage.

        Returns:
            JSON-serialisable; empty if the stage's parameters are sufficient.
        """
        ...
