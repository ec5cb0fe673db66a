"""The visible surface at every pixel: closed surfaces first, then hair with its ragged edge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numba import njit

from ml.generation.renderer.meshes import Mesh, join
from ml.generation.renderer.noise import value_noise_2d
from ml.generation.renderer.people import PersonMeshes
from ml.generation.renderer.shading import Visibility
from ml.imaging.rasterizer import Int32Array, rasterize

_FRAY_M = 0.007
"""Length of the strands by which a hair's edge is ragged, metres."""


@dataclass(frozen=True)
class SceneMesh:
    """All people of an image as one mesh, in buffer pixels.

    Attributes:
        mesh: closed surfaces first, then those that are cut at their cover value.
        num_solid: number of faces of the closed surfaces.
        face_person: (F,) int32 index of the person that a face belongs to.
        head_vertices: for each person the vertices of its head model, in the model's order.
        head_faces: for each person the faces of its head model, in the order of `HeadAssets.faces`.
    """

    mesh: Mesh
    num_solid: int
    face_person: Int32Array
    head_vertices: tuple[slice, ...]
    head_faces: tuple[slice, ...]

    def scaled(self, factor: float) -> SceneMesh:
        """Return the scene with positions multiplied by `factor`."""
        positions = self.mesh.positions * np.float32(factor)
        return replace(self, mesh=replace(self.mesh, positions=positions))


def assemble(people: Sequence[PersonMeshes]) -> SceneMesh:
    """Join the meshes of all people.

    Args:
        people: from `person_meshes`.

    Returns:
        The scene.
    """
    ragged = [_uncut(person.ragged) for person in people]
    counts = [len(p.solid.faces) for p in people] + [len(part.faces) for part in ragged]
    owners = np.tile(np.arange(len(people), dtype=np.int32), 2)
    first_vertex = np.cumsum([0] + [len(p.solid.positions) for p in people[:-1]])
    first_face = np.cumsum([0] + [len(p.solid.faces) for p in people[:-1]])
    return SceneMesh(
        mesh=join([person.solid for person in people] + ragged),
        num_solid=sum(len(person.solid.faces) for person in people),
        face_person=np.repeat(owners, counts),
        head_vertices=tuple(
            _shifted(p.head_vertices, v) for p, v in zip(people, first_vertex, strict=True)
        ),
        head_faces=tuple(
            _shifted(p.head_faces, f) for p, f in zip(people, first_face, strict=True)
        ),
    )


def _shifted(part: slice, offset: int) -> slice:
    return slice(part.start + int(offset), part.stop + int(offset))


def _uncut(mesh: Mesh) -> Mesh:
    """Return the faces of a ragged mesh of which anything remains after the cut."""
    shown = mesh.extras[:, 0] > -_FRAY_M
    keep = shown[mesh.faces[:, 0]] | shown[mesh.faces[:, 1]] | shown[mesh.faces[:, 2]]
    return replace(
        mesh, faces=mesh.faces[keep], materials=mesh.materials[keep], parts=mesh.parts[keep]
    )


def visible(scene: SceneMesh, height: int, width: int) -> Visibility:
    """Draw closed surfaces, then let hair cover them where its cover value allows.

    Args:
        scene: positions in pixels of the buffer.
        height: of the buffer, px.
        width: of the buffer, px.

    Returns:
        Nearest face, barycentric weights and depth (px) at every pixel centre.
    """
    mesh = scene.mesh
    # Hair that no noise cuts is drawn with the closed surfaces: behind a strand that is cut away
    # one sees more hair, not the background. At most `_FRAY_M` is cut.
    is_whole = (mesh.extras[:, 0] > _FRAY_M)[mesh.faces].all(axis=1)
    is_closed = is_whole | (np.arange(len(mesh.faces)) < scene.num_solid)
    closed, frayed = np.flatnonzero(is_closed), np.flatnonzero(~is_closed)
    face_index, barycentric, depth = rasterize(mesh.positions, mesh.faces[closed], height, width)
    face_index = np.where(face_index < 0, face_index, closed[face_index]).astype(np.int32)
    if len(frayed):
        over_index, over_barycentric, over_depth = rasterize(
            mesh.positions, mesh.faces[frayed], height, width
        )
        _merge(
            face_index, barycentric, depth, over_index, over_barycentric, over_depth,
            mesh.faces, frayed, mesh.extras, mesh.coords, np.float32(_FRAY_M),
        )  # fmt: skip
    return Visibility(face_index, barycentric, depth)


@njit(cache=True, fastmath=False)
def _merge(  # type: ignore[no-untyped-def]
    face_index, barycentric, depth, over_index, over_barycentric, over_depth,
    faces, frayed, extras, coords, fray,
):  # fmt: skip
    for row in range(face_index.shape[0]):
        for column in range(face_index.shape[1]):
            if over_index[row, column] < 0 or over_depth[row, column] > depth[row, column]:
                continue
            f = frayed[over_index[row, column]]
            cover = np.float32(0.0)
            u = np.float32(0.0)
            v = np.float32(0.0)
            for k in range(3):
                w = over_barycentric[row, column, k]
                corner = faces[f, k]
                cover += w * extras[corner, 0]
                u += w * coords[corner, 0]
                v += w * coords[corner, 1]
            strand = value_noise_2d(u * 620.0, v * 25.0, 3.0) - 0.5
            lock = value_noise_2d(u * 120.0, v * 10.0, 5.0) - 0.5
            if cover + fray * (1.1 * strand + 0.9 * lock) > 0.0:
                face_index[row, column] = f
                depth[row, column] = over_depth[row, column]
                for k in range(3):
                    barycentric[row, column, k] = over_barycentric[row, column, k]
