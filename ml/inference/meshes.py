"""Heads as mesh files: OBJ and GLB, upright, in metres or in pixels of the image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ml.flame.head_model import HeadModel
from ml.flame.params import SCALE, TRANSLATION
from ml.flame.projection import MIN_SCALE
from ml.flame.views import vertex_colours
from ml.inference.heads import DetectedHeads
from ml.inference.options import FORMATS, UNITS, MeshFormat, MeshUnit
from ml.records.atomic import write_bytes

if TYPE_CHECKING:
    from trimesh import Trimesh

_UPRIGHT = np.array([1.0, -1.0, -1.0], np.float32)
"""From image axes (y down, z away) to those of mesh files (y up, z to the viewer)."""


def upright_vertices(heads: DetectedHeads, unit: MeshUnit, image_height: int) -> np.ndarray:
    """Return vertices with y up and z to the viewer, each head turned as in the image.

    Args:
        heads: heads of an image.
        unit: `m`: metres, the origin is the centre of the skull. `px`: image pixels, x from the
            image's left, y from its bottom, z from the centre of the skull.
        image_height: px.

    Returns:
        (N, 5023, 3) float32.

    Raises:
        ValueError: the unit is unknown.
    """
    if unit not in UNITS:
        raise ValueError(f"mesh unit: expected one of {', '.join(UNITS)}, got {unit!r}")
    shift = heads.flame[:, None, TRANSLATION]
    centred = (heads.vertices_px - shift) * _UPRIGHT
    if unit == "m":
        return centred / np.maximum(heads.flame[:, None, SCALE], MIN_SCALE)
    # The depth of a head's centre is unknown, so all are on the image plane.
    places = np.stack([shift[..., 0], image_height - shift[..., 1], 0 * shift[..., 2]], axis=-1)
    return centred + places


def mesh_bytes(
    vertices: Sequence[np.ndarray], head_model: HeadModel, form: MeshFormat, digits: int = 6
) -> bytes:
    """Encode heads as one file.

    Args:
        vertices: (5023, 3) of each head, y up.
        head_model: supplies triangles and colours.
        form: obj (vertices and triangles) or glb (with colours and normals, a node a head).
        digits: decimals of an OBJ file.

    Returns:
        The file's content.

    Raises:
        ValueError: the format is unknown.
    """
    import trimesh

    if form not in FORMATS:
        raise ValueError(f"mesh format: expected one of {', '.join(FORMATS)}, got {form!r}")
    scene = trimesh.Scene()
    for index, points in enumerate(vertices):
        name = f"head_{index}"
        scene.add_geometry(_mesh(points, head_model), node_name=name, geom_name=name)
    if form == "glb":
        return bytes(scene.export(file_type="glb", include_normals=True))
    text = scene.export(
        file_type="obj", include_normals=False, include_color=False, include_texture=False,
        digits=digits, header=None,
    )  # fmt: skip
    return str(text).encode()


def save_meshes(
    folder: Path,
    heads: DetectedHeads,
    image_height: int,
    form: MeshFormat = "obj",
    unit: MeshUnit = "m",
) -> list[Path]:
    """Write every head to a separate file, `head_0`, `head_1` and so on.

    Args:
        folder: created if missing.
        heads: heads of an image.
        image_height: px.
        form: obj or glb.
        unit: m or px, see `upright_vertices`.

    Returns:
        The files.

    Raises:
        ValueError: format or unit is unknown.
    """
    digits = 6 if unit == "m" else 4
    paths = []
    for index, vertices in enumerate(upright_vertices(heads, unit, image_height)):
        paths.append(Path(folder) / f"head_{index}.{form}")
        write_bytes(paths[-1], mesh_bytes([vertices], heads.shapes.head_model, form, digits))
    return paths


def _mesh(vertices: np.ndarray, head_model: HeadModel) -> Trimesh:
    import trimesh

    return trimesh.Trimesh(
        vertices=vertices,
        faces=head_model.faces,
        vertex_colors=np.round(vertex_colours(head_model)).astype(np.uint8),
        process=False,
    )
