"""The score from which on a head counts as found; imports nothing, so that `--help` is quick."""

from __future__ import annotations

from typing import Final

OPERATING_SCORE: Final = 0.3
"""From this score on a head is shown, and counts outside average precision."""
