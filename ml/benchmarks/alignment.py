"""Similarities between paired points: scale, rotation and translation of least squares."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Similarity:
    """Points p to scale * R p + translation.

    Attributes:
        scale: > 0.
        rotation: (3, 3) orthonormal; of determinant -1 where it mirrors.
        translation: (3,) unit of the target.
    """

    scale: float
    rotation: np.ndarray
    translation: np.ndarray

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Move points, (..., 3)."""
        return self.scale * points @ self.rotation.T + self.translation

    @property
    def mirrors(self) -> bool:
        """Whether left and right are swapped."""
        return bool(np.linalg.det(self.rotation) < 0)


def fit_similarity(
    source: np.ndarray, target: np.ndarray, *, scaled: bool = True, may_mirror: bool = False
) -> Similarity:
    """Return the similarity that maps points to their partners with the least sum of squares.

    Args:
        source: (N, 3) points.
        target: (N, 3) their partners.
        scaled: whether the scale is free; else it is 1.
        may_mirror: whether a reflection is allowed where it fits better, as MATLAB's `procrustes`
            and the public tools of DAD-3DHeads, Feng et al. and NoW allow it.

    Returns:
        The similarity from source to target.

    Raises:
        ValueError: the shapes differ, or all points of one set coincide.

    Source: Umeyama 1991, "Least-squares estimation of transformation parameters between two point
        patterns".
    """
    if source.shape != target.shape or source.ndim != 2 or source.shape[1] != 3:
        raise ValueError(
            "similarity: source and target must be (N, 3) alike, "
            f"got {source.shape}, {target.shape}"
        )
    source_mean, target_mean = source.mean(axis=0), target.mean(axis=0)
    a, b = source - source_mean, target - target_mean
    spread = float((a**2).sum())
    if not (spread > 0 and (b**2).sum() > 0):
        raise ValueError("similarity: the points of a set are all one, so no scale fits")
    u, singular, vh = np.linalg.svd(b.T @ a)
    signs = np.ones(3)
    if not may_mirror and np.linalg.det(u @ vh) < 0:
        signs[2] = -1.0
    rotation = (u * signs) @ vh
    scale = float((singular * signs).sum()) / spread if scaled else 1.0
    return Similarity(scale, rotation, target_mean - scale * rotation @ source_mean)
