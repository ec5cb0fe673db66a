"""Image safety: the CLIP safety checker of Stable Diffusion, and an image classifier.

Source: the paper rejects images by CompVis' safety checker and by a classifier of five classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from ml.box_detection.base import Image
from ml.filtering.rules import Finding
from ml.records import reasons
from ml.records.config import StageConfig
from ml.records.models import Model, ModelRef, choose_device

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SPECIAL_CARE_MARGIN = 0.01
"""When a concept that asks for special care is seen, the others count this much sooner."""


class ClipSafetyConfig(StageConfig):
    """The CLIP safety checker."""

    model: ModelRef | None = None
    """Folder of a StableDiffusionSafetyChecker and its image processor; default: not used."""
    margin: float = Field(default=0.0, ge=-1, le=1)
    """Value added to the similarity of every concept: positive values reject more images."""


class ClassifierConfig(StageConfig):
    """The classifier of unsafe images."""

    model: ModelRef | None = None
    """Folder of a ViTForImageClassification and its image processor; default: not used."""
    safe_labels: tuple[str, ...] = ("normal", "neutral", "drawings")
    """Labels of safe images; every other label of the model is unsafe."""
    threshold: float | None = Field(default=None, gt=0, le=1)
    """Total probability of unsafe labels from which an image is rejected; default: reject if the
    most probable label is unsafe, as in the paper's code."""


class SafetyConfig(StageConfig):
    """Which images are unsafe; without any model none is, and that is recorded."""

    clip: ClipSafetyConfig = ClipSafetyConfig()
    """The CLIP safety checker."""
    classifier: ClassifierConfig = ClassifierConfig()
    """The classifier."""
    batch_size: int = Field(default=16, ge=1, le=10**9)
    """Images in one forward pass."""
    device: str = "cpu"
    """Device of both models; `auto` selects the GPU if there is one."""


class ClipSafetyChecker:
    """CompVis' checker with its similarities kept, so that a verdict can be explained.

    The library's own call only says yes or no, and blackens the image; it cannot be configured to
    be stricter. The rule is the same: a concept counts when its cosine similarity passes its own
    threshold.
    """

    def __init__(self, model: Model, config: SafetyConfig) -> None:
        """Load the checker.

        Args:
            model: its folder.
            config: margin, batches and device.
        """
        from diffusers.pipelines.stable_diffusion.safety_checker import (
            StableDiffusionSafetyChecker,
        )

        self._device = choose_device(config.device)
        checker = model.load(StableDiffusionSafetyChecker)
        self._checker: Any = checker.eval().to(self._device)
        self._processor = _image_processor(model)
        self._margin, self._batch_size = config.clip.margin, config.batch_size
        self.name = f"{model.name}:{model.version}"

    def screen(self, images: Sequence[Image]) -> list[Finding | None]:
        """Judge images.

        Args:
            images: (H, W, 3) uint8 RGB each.

        Returns:
            What is unsafe about each, None for nothing.
        """
        found: list[Finding | None] = []
        for scores in self.similarities(images):
            concept = int(np.argmax(scores))
            over = float(scores[concept])
            detail = f"concept {concept} is {over:.4f} over its threshold (margin {self._margin:g})"
            found.append(Finding(reasons.UNSAFE_CONCEPT, detail) if over > 0 else None)
        return found

    def similarities(self, images: Sequence[Image]) -> NDArray[np.float32]:
        """Return how far each image's similarity to each concept is over the concept's threshold.

        Args:
            images: (H, W, 3) uint8 RGB each.

        Returns:
            (N, C) float32; above 0 the concept is seen.
        """
        parts = [
            self._batch(images[start : start + self._batch_size])
            for start in range(0, len(images), self._batch_size)
        ]
        columns = len(self._checker.concept_embeds)
        return np.concatenate(parts) if parts else np.zeros((0, columns), np.float32)

    @torch.inference_mode()
    def _batch(self, images: Sequence[Image]) -> NDArray[np.float32]:
        checker = self._checker
        pixels = self._processor(images=list(images), return_tensors="pt")["pixel_values"]
        pooled = checker.vision_model(pixels.to(self._device))[1]
        seen = checker.visual_projection(pooled)
        special = _cosine(seen, checker.special_care_embeds) - checker.special_care_embeds_weights
        careful = (special > 0).any(dim=1, keepdim=True) * _SPECIAL_CARE_MARGIN
        over = _cosine(seen, checker.concept_embeds) - checker.concept_embeds_weights
        result: NDArray[np.float32] = (over + careful + self._margin).float().cpu().numpy()
        return result


class UnsafeClassifier:
    """An image classifier with safe and unsafe labels."""

    def __init__(self, model: Model, config: SafetyConfig) -> None:
        """Load the classifier.

        Args:
            model: its folder.
            config: labels, threshold, batches and device.

        Raises:
            ValueError: none of the safe labels, or nothing else, is among the model's labels.
        """
        from transformers import ViTForImageClassification

        self._device = choose_device(config.device)
        network = model.load(ViTForImageClassification)
        self._network: Any = network.eval()
        torch.nn.Module.to(network, self._device)
        self._processor = _image_processor(model)
        self._threshold, self._batch_size = config.classifier.threshold, config.batch_size
        names: Any = network.config.id2label
        self._labels = [str(names[i]) for i in range(len(names))]
        safe = {label.lower() for label in config.classifier.safe_labels}
        self._unsafe = np.array([label.lower() not in safe for label in self._labels])
        if self._unsafe.all() or not self._unsafe.any():
            raise ValueError(
                f"filtered_dataset.safety.classifier.safe_labels: {sorted(safe)} leaves the labels "
                f"{self._labels} of '{model.name}' all unsafe or all safe"
            )
        self.name = f"{model.name}:{model.version}"

    def screen(self, images: Sequence[Image]) -> list[Finding | None]:
        """Judge images.

        Args:
            images: (H, W, 3) uint8 RGB each.

        Returns:
            What is unsafe about each, None for nothing.
        """
        found: list[Finding | None] = []
        for probabilities in self.probabilities(images):
            best = int(np.argmax(probabilities))
            fraction = float(probabilities[self._unsafe].sum())
            limit = self._threshold
            rejected = self._unsafe[best] if limit is None else fraction >= limit
            detail = (
                f"{self._labels[best]!r} {probabilities[best]:.3f}, unsafe together {fraction:.3f}"
            )
            found.append(Finding(reasons.UNSAFE_CLASS, detail) if rejected else None)
        return found

    def probabilities(self, images: Sequence[Image]) -> NDArray[np.float32]:
        """Return probabilities of the model's labels.

        Args:
            images: (H, W, 3) uint8 RGB each.

        Returns:
            (N, L) float32.
        """
        parts = []
        for start in range(0, len(images), self._batch_size):
            batch = list(images[start : start + self._batch_size])
            pixels = self._processor(images=batch, return_tensors="pt")["pixel_values"]
            with torch.inference_mode():
                logits: Tensor = self._network(pixel_values=pixels.to(self._device)).logits
            parts.append(logits.softmax(dim=-1).float().cpu().numpy())
        return np.concatenate(parts) if parts else np.zeros((0, len(self._labels)), np.float32)


def _image_processor(model: Model) -> Any:
    from transformers import AutoImageProcessor

    # The torchvision-free processor: the same numbers whether torchvision is there or not.
    return model.load_part(AutoImageProcessor, backend="pil")


def _cosine(first: Tensor, second: Tensor) -> Tensor:
    return torch.nn.functional.normalize(first) @ torch.nn.functional.normalize(second).t()
