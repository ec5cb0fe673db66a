"""Compile the renderer's loops, so that the first image does not wait for it.

numba caches compiled code next to the source files. Two workers that start on a fresh clone would
both compile everything: half a minute in which no image is made. Installation does it once.

    python -m ml.generation.renderer.precompile
"""

from __future__ import annotations

import numpy as np

from ml.captions.grammar import compose
from ml.flame.open_head import build_open_head
from ml.generation.config import RendererConfig
from ml.generation.renderer.renderer import render_sample
from ml.generation.renderer.single_head import SingleHeadConfig, render_single_head
from ml.poses.config import PosesConfig
from ml.poses.sampler import sample_pose

_IMAGES = 4
"""Enough to cover every kind of hair, garment and hand."""


def main() -> None:
    """Draw a few small images of several people and discard them."""
    head_model = build_open_head()
    poses = PosesConfig.model_validate({"width": 128, "height": 128})
    for index in range(_IMAGES):
        rng = np.random.default_rng(index)
        pose = sample_pose(f"precompile-{index}", 0, poses)
        count = len(pose.people)
        caption = compose(
            rng,
            [False] * count,
            [1 + index] * count,
            name_probability=0.0,
            hat_probability=0.5,
            max_described=1,
        )
        render_sample(pose, caption.scene, head_model, RendererConfig(), rng)
    render_single_head(head_model, SingleHeadConfig(), np.random.default_rng(0), 64)


if __name__ == "__main__":
    main()
