"""What a rendered triangle belongs to; truth is measured by these codes."""

from __future__ import annotations

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

NUM_PARTS = 5
HEAD_PARTS = (HEAD, HEAD_COVER)
"""The parts whose visible pixels make the head's box."""
