"""The one container for the heads of an image.

A different class: `ml.inference.heads.DetectedHeads` computes meshes and
angles of these for users; `ml.benchmarks.predictions.HeadPredictions` are another method's
predictions for an image, where every part but the scores may be missing;
`ml.release.official.OfficialHeads` are the arrays of a published file in its own convention;
`ml.stages.annotations.ImageHeads` are heads of which some have no parameters yet.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ml.records.flame_layout import NUM_FLAME_PARAMETERS as NUM_FLAME_PARAMETERS
from ml.records.scores import OPERATING_SCORE as OPERATING_SCORE


@dataclass(frozen=True)
class Heads:
    """Heads of one image, in that image's pixels; checked when built.

    Attributes:
        boxes_xyxy: (N, 4) float32, left, top, right, bottom.
        scores: (N,) float32 in [0, 1]; 1 for ground truth.
        flame: (N, 413) float32, see `ml.flame.params`.
    """

    boxes_xyxy: np.ndarray
    scores: np.ndarray
    flame: np.ndarray

    def __post_init__(self) -> None:
        n = len(self.scores)
        expected = {"boxes_xyxy": (n, 4), "scores": (n,), "flame": (n, NUM_FLAME_PARAMETERS)}
        for name, shape in expected.items():
            array = np.ascontiguousarray(getattr(self, name), dtype=np.float32)
            if array.shape != shape:
                raise ValueError(f"Heads.{name}: expected shape {shape}, got {array.shape}")
            object.__setattr__(self, name, array)

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, index: np.ndarray | slice | list[int]) -> Heads:
        """Return some of the heads, by mask, slice or list of positions."""
        return Heads(self.boxes_xyxy[index], self.scores[index], self.flame[index])

    @staticmethod
    def empty() -> Heads:
        """Return a result without heads."""
        zeros = np.zeros
        return Heads(zeros((0, 4)), zeros(0), zeros((0, NUM_FLAME_PARAMETERS)))
