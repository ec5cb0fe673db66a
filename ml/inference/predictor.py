"""Images to heads: letterboxing around any runtime of the network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml.imaging.letterbox import letterbox_image
from ml.inference.runtimes import Runtime
from ml.model.postprocess import PostprocessConfig
from ml.records.heads import Heads

DEFAULT_BATCH = 16


class HeadPredictor:
    """Finds heads in images with a loaded detector."""

    def __init__(
        self,
        runtime: Runtime,
        image_size: int,
        postprocessing: PostprocessConfig,
        description: dict[str, Any] | None = None,
    ) -> None:
        """Store description and runtime.

        Args:
            runtime: runs the network.
            image_size: side of the network's square input, px.
            postprocessing: thresholds.
            description: content of `config.json`.
        """
        self.image_size = image_size
        self.postprocessing = postprocessing
        self.description = description or {}
        self._runtime = runtime

    def predict(
        self,
        images_rgb: Sequence[NDArray[np.uint8]],
        batch_size: int = DEFAULT_BATCH,
        postprocessing: PostprocessConfig | None = None,
    ) -> list[Heads]:
        """Find the heads of each image.

        Args:
            images_rgb: (H, W, 3) uint8 RGB images of any sizes.
            batch_size: images at once.
            postprocessing: thresholds; those of the predictor if left out.

        Returns:
            Heads of each image by falling score, in that image's pixels. Boxes may reach over the
            image's border.
        """
        heads: list[Heads] = []
        for start in range(0, len(images_rgb), batch_size):
            fitted = [
                letterbox_image(image, self.image_size)
                for image in images_rgb[start : start + batch_size]
            ]
            pixels = np.stack([square for square, _ in fitted]).transpose(0, 3, 1, 2)
            heads += self._runtime(
                np.ascontiguousarray(pixels),
                [box for _, box in fitted],
                postprocessing or self.postprocessing,
            )
        return heads
