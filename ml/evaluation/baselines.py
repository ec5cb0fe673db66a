"""Trivial baselines, made from a detector's own boxes, so that only the head's pose differs."""

from __future__ import annotations

import numpy as np

from ml.flame.geometry import HeadGeometry
from ml.flame.params import EXPRESSION, JAW, ROTATION, SCALE, SHAPE, TRANSLATION
from ml.flame.rotation import FRONTAL_6D
from ml.records.heads import Heads


def mean_head(heads: Heads) -> Heads:
    """Keep rotation, translation and scale; shape, expression and jaw become zero."""
    flame = heads.flame.copy()
    for part in (SHAPE, EXPRESSION, JAW):
        flame[:, part] = 0.0
    return Heads(heads.boxes_xyxy, heads.scores, flame)


def always_frontal(heads: Heads, geometry: HeadGeometry) -> Heads:
    """Return a neutral head that faces the camera, fitted into each box by height and centre.

    Args:
        heads: detected heads, image px; only their boxes and scores are used.
        geometry: the head model.

    Returns:
        Heads with the same boxes and scores.
    """
    flame = np.zeros_like(heads.flame)
    flame[:, ROTATION] = FRONTAL_6D
    flame[:, SCALE] = 1.0
    if not len(heads):
        return heads
    template = geometry.vertices_px(flame[:1])[0]
    low, high = template.min(axis=0), template.max(axis=0)
    box = heads.boxes_xyxy
    scale = (box[:, 3] - box[:, 1]) / (high[1] - low[1])
    centre = (box[:, :2] + box[:, 2:]) / 2
    flame[:, SCALE] = scale[:, None]
    flame[:, TRANSLATION.start : TRANSLATION.start + 2] = centre - scale[:, None] * (low + high) / 2
    return Heads(box, heads.scores, flame)
