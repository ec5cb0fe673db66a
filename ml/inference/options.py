"""Names of the options of results, and their checks; imports nothing heavy."""

from __future__ import annotations

from typing import Literal, get_args

DrawMethod = Literal["full", "bbox", "mesh", "contour", "wireframe", "landmarks", "points", "pose"]
DRAW_METHODS: tuple[DrawMethod, ...] = get_args(DrawMethod)
MeshFormat = Literal["obj", "glb"]
FORMATS: tuple[MeshFormat, ...] = get_args(MeshFormat)
MeshUnit = Literal["m", "px"]
UNITS: tuple[MeshUnit, ...] = get_args(MeshUnit)
STREAMS = ("rtsp", "rtsps", "rtmp", "rtp", "udp", "tcp", "srt")
"""Schemes of the addresses of network streams."""


class UnusableModel(ValueError):
    """A model cannot be loaded; the message gives file and cause."""
