"""The diffusion backends: which pipeline, which conditioner, which condition image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Backend:
    """Properties that distinguish diffusion backends.

    Attributes:
        pipeline: class of diffusers that samples.
        conditioner: class of diffusers that reads the condition.
        conditioner_argument: its parameter of the pipeline's constructor.
        scale_argument: parameter of the pipeline's call for the conditioner's weight.
        condition: kind of its condition image.
        reverse_channels: whether the skeleton's red and blue are swapped.
        multiple: sizes must be multiples of this, px.
        is_xl: whether the text has two encoders and pooled embeddings.
    """

    pipeline: str
    conditioner: str
    conditioner_argument: str
    scale_argument: str
    condition: Literal["openpose", "pncc"]
    reverse_channels: bool
    multiple: int
    is_xl: bool


BACKENDS: dict[str, Backend] = {
    # The released adapter was fed images whose channels were reversed: its first limb is blue.
    # Its first layer folds blocks of 16 x 16 pixels.
    "sdxl-t2i": Backend(
        pipeline="StableDiffusionXLAdapterPipeline",
        conditioner="T2IAdapter",
        conditioner_argument="adapter",
        scale_argument="adapter_conditioning_scale",
        condition="openpose",
        reverse_channels=True,
        multiple=16,
        is_xl=True,
    ),
    "sdxl-controlnet": Backend(
        pipeline="StableDiffusionXLControlNetPipeline",
        conditioner="ControlNetModel",
        conditioner_argument="controlnet",
        scale_argument="controlnet_conditioning_scale",
        condition="openpose",
        reverse_channels=False,
        multiple=8,
        is_xl=True,
    ),
    "sd15-controlnet": Backend(
        pipeline="StableDiffusionControlNetPipeline",
        conditioner="ControlNetModel",
        conditioner_argument="controlnet",
        scale_argument="controlnet_conditioning_scale",
        condition="openpose",
        reverse_channels=False,
        multiple=8,
        is_xl=False,
    ),
    "sdxl-pncc": Backend(
        pipeline="StableDiffusionXLControlNetPipeline",
        conditioner="ControlNetModel",
        conditioner_argument="controlnet",
        scale_argument="controlnet_conditioning_scale",
        condition="pncc",
        reverse_channels=False,
        multiple=8,
        is_xl=True,
    ),
}
"""Backends by the name that `ImagesConfig.backend` gives (table 6 of the paper, and appendix F)."""
