"""Tiny randomly initialised models in local folders, loaded by tests as the real ones are.

Every builder takes the folder to write and returns it. Random weights are drawn from a fixed seed.
Several architectures ignore their input as they are initialised (zero convolutions, initialiser
ranges of 1e-10); the builders give those weights that let the input through, and each backend's
test asserts first that two different inputs give clearly different outputs.
"""

from __future__ import annotations

from tests.tiny_models.diffusion import (
    build_controlnet,
    build_sd15,
    build_sd15_controlnet,
    build_sdxl,
    build_t2i_adapter,
)
from tests.tiny_models.folder import BUILDERS, TinyModels
from tests.tiny_models.language import build_gliner
from tests.tiny_models.vision import (
    build_blip_captioner,
    build_blip_vqa,
    build_person_detector,
    build_safety_checker,
    build_vit_classifier,
    build_vitpose,
)

__all__ = [
    "BUILDERS",
    "TinyModels",
    "build_blip_captioner",
    "build_blip_vqa",
    "build_controlnet",
    "build_gliner",
    "build_person_detector",
    "build_safety_checker",
    "build_sd15",
    "build_sd15_controlnet",
    "build_sdxl",
    "build_t2i_adapter",
    "build_vit_classifier",
    "build_vitpose",
]
