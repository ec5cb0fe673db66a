"""Part codes of rendered triangles, by which the ground truth is measured."""

from __future__ import annotations

import numpy as np

BODY = 0
"""Everything that is not the head: clothes, limbs, neck."""
HEAD = 1
"""The head region of the mesh: face, skull, ears and eyeballs, without neck and bust."""
HEAD_COVER = 2
"""Worn on the head and part of its silhouette: hair on the skull, a cap, glasses, a beard."""
HANGING = 3
"""Grows or hangs from the head without belonging to its box: long hair, braids, hat brims."""
PROP = 4
"""Objects in the scene: phones, cups, microphones, furniture."""


def in_head_box(codes: np.ndarray) -> np.ndarray:
    """Return which faces make the head's box: the head itself and what covers it.

    Args:
        codes: (F,) part codes.

    Returns:
        (F,) bool.
    """
    return (codes == HEAD) | (codes == HEAD_COVER)
