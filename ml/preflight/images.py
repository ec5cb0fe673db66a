"""The image generator: an image of the configured size in few steps, and the bytes it takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ml.generation.config import DIFFUSION_BACKENDS, ImagesConfig
from ml.generation.generator import GenerationRequest, NotGenerated
from ml.imaging.io import encode_jpeg
from ml.poses.config import PosesConfig
from ml.poses.sampler import sample_pose
from ml.preflight.needs import Forward, Part, model_need, timed
from ml.records.config import StageConfig
from ml.records.models import ModelError
from ml.records.workspace import Workspace

if TYPE_CHECKING:
    from ml.flame.head_model import HeadModel

_FEW, _MORE = 1, 3
"""Denoising steps of the two images from whose times the time of a step follows."""
TABLE_BYTES: Final = 10_400
"""Rows of all stages for one image; measured on the demo's 800 images (8.3 MB of tables)."""


def images(ws: Workspace, config: ImagesConfig, configs: Mapping[str, StageConfig]) -> list[Part]:
    """Return the diffusion pipeline.

    Args:
        ws: the workspace.
        config: section `images`.
        configs: the other stages', for the size of the images and the head model.

    Returns:
        One part with a diffusion backend, none with the renderer.
    """
    if config.backend not in DIFFUSION_BACKENDS:
        return []
    diffusion, place = config.diffusion, "images.diffusion"
    needs = [
        *model_need(f"{place}.base", diffusion.base, ws.root, diffusion.device),
        *model_need(f"{place}.conditioner", diffusion.conditioner, ws.root, diffusion.device),
    ]

    def forward() -> Forward:
        return _one_image(ws, config, configs)

    return [Part("images", place, needs, forward, diffusion.device)]


def _one_image(ws: Workspace, config: ImagesConfig, configs: Mapping[str, StageConfig]) -> Forward:
    from ml.generation.diffusion.generator import DiffusionGenerator

    generator = DiffusionGenerator(_head_model(ws, config, configs), config, ws.root)
    request = _request(ws, config, configs)
    made: list[Any] = []

    def seconds(steps: int) -> float:
        few = generator.with_steps(steps)
        return timed(lambda: made.append(few.generate([request])[0])).seconds

    first = seconds(_FEW)
    if isinstance(made[-1], NotGenerated):
        raise ModelError(f"images: {config.backend} makes no image: {made[-1].detail}")
    step = max(seconds(_MORE) - first, 0.0) / (_MORE - _FEW)
    quality = (config.jpeg_quality_min + config.jpeg_quality_max) // 2
    size = len(encode_jpeg(made[-1].image_rgb, quality))
    return Forward(first + step * (config.diffusion.steps - _FEW), size)


def _request(
    ws: Workspace, config: ImagesConfig, configs: Mapping[str, StageConfig]
) -> GenerationRequest:
    """Return one image of the configured size, as the stage would ask for it."""
    poses = configs.get("poses")
    of_poses = poses if isinstance(poses, PosesConfig) else PosesConfig()
    if of_poses.source == "sampled":
        sampled = of_poses
    else:
        # The sampler draws multiples of 32 px.
        side = max(of_poses.images.min_side_px // 32 * 32, 64)
        sampled = PosesConfig(width=side, height=side)
    pose = sample_pose("preflight", ws.seed, sampled)
    prompt = "a photo of people in a park, natural light"
    return GenerationRequest(
        "preflight", pose, None, prompt, "low quality", 7, np.random.default_rng(7)
    )


def _head_model(
    ws: Workspace, config: ImagesConfig, configs: Mapping[str, StageConfig]
) -> HeadModel | None:
    """Return the head model of which PNCC maps are drawn; None for other generators.

    It is the stage's, or one made for this.
    """
    if config.backend != "sdxl-pncc":
        return None
    from ml.flame.head_model import HeadModel
    from ml.flame.open_head import build_open_head

    file = ws.stage_dir("head_model") / "head_model.npz"
    return HeadModel.load(file) if file.is_file() else build_open_head(0)
