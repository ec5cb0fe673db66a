"""The words that drawings and meshes are asked for with; imports nothing heavy."""

from __future__ import annotations

from typing import Literal, get_args

DrawMethod = Literal["full", "bbox", "mesh", "wireframe", "landmarks", "points", "pose"]
DRAW_METHODS: tuple[DrawMethod, ...] = get_args(DrawMethod)
MeshFormat = Literal["obj", "glb"]
FORMATS: tuple[MeshFormat, ...] = get_args(MeshFormat)
MeshUnit = Literal["m", "px"]
UNITS: tuple[MeshUnit, ...] = get_args(MeshUnit)
