"""Screens that run before the consistency rules: safety and identity, as configured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from ml.box_detection.base import Image
from ml.filtering.identity import IdentityConfig
from ml.filtering.rules import Finding
from ml.filtering.safety import SafetyConfig
from ml.records.reasons import KNOWN_IDENTITY, UNSAFE_CLASS, UNSAFE_CONCEPT

SCREEN_REASONS = (UNSAFE_CONCEPT, UNSAFE_CLASS, KNOWN_IDENTITY)
"""Reasons in the order in which the screens look; they come before the rules."""
NONE_NEEDED = "none needed"
"""Entry of a run without screens: its images are rendered and show no real person."""


class ImageScreen(Protocol):
    """Looks at images and rejects some."""

    name: str
    """Name and hash of its model."""

    def screen(self, images: Sequence[Image]) -> list[Finding | None]:
        """Judge images.

        Args:
            images: (H, W, 3) uint8 RGB each.
        """
        ...


def build_screens(
    safety: SafetyConfig, identity: IdentityConfig, root: Path, device: str = "cpu"
) -> tuple[ImageScreen, ...]:
    """Load the configured screens.

    Args:
        safety: which images are unsafe.
        identity: known faces that must not appear.
        root: the project folder.
        device: where onnxruntime computes for the identity screen.

    Returns:
        The screens in the order in which they look; none when nothing is configured.

    Raises:
        ModelError: a model is missing or has another hash than stated.
        IdentityError: the index is missing or was made with another model.
    """
    # Imported here: diffusers and transformers take seconds, and the demo needs neither.
    screens: list[ImageScreen] = []
    if safety.clip.model is not None:
        from ml.filtering.safety import ClipSafetyChecker

        screens.append(ClipSafetyChecker(safety.clip.model.resolve(root), safety))
    if safety.classifier.model is not None:
        from ml.filtering.safety import UnsafeClassifier

        screens.append(UnsafeClassifier(safety.classifier.model.resolve(root), safety))
    if identity.index:
        from ml.filtering.identity import (
            IdentityIndex,
            IdentityScreen,
            load_face_reader,
            threshold_of,
        )

        index = IdentityIndex.load(root / identity.index)
        reader = load_face_reader(identity, root, device)
        screens.append(IdentityScreen(reader, index, threshold_of(identity, index)))
    return tuple(screens)
