"""Where the parts of a head's 413 parameters are; imports nothing, so that checks load fast."""

from __future__ import annotations

NUM_FLAME_PARAMETERS = 413
SHAPE = slice(0, 300)
"""Shape coefficients, about N(0, 1)."""
EXPRESSION = slice(300, 400)
"""Expression coefficients, about N(0, 1)."""
JAW = slice(400, 403)
"""Jaw rotation, axis-angle, rad."""
ROTATION = slice(403, 409)
"""Head rotation: first two columns of the matrix, FLAME axes to image axes."""
TRANSLATION = slice(409, 412)
"""Translation, px; z carries no meaning and is 0."""
SHIFT_XY = slice(409, 411)
"""The translation's x and y, px."""
SHIFT_Z = 411
"""The translation's z."""
SCALE = slice(412, 413)
"""Pixels per metre."""

LAYOUT = "300 shape + 100 expression + 3 jaw + 6 rotation + 3 translation + 1 scale"
