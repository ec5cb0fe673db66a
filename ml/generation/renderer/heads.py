"""Heads: the head model's mesh with skin, eyes, brows, lips and beard, in the template frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ml.captions.scene import PersonLook
from ml.generation.renderer import materials as mat
from ml.generation.renderer import parts
from ml.generation.renderer.head_assets import HeadAssets, hairline
from ml.generation.renderer.materials import MaterialTable, skin_albedo, srgb
from ml.generation.renderer.meshes import Mesh, make_mesh
from ml.generation.renderer.palette import IRIS_SRGB, hair_colour
from ml.imaging.rasterizer import vertex_normals


@dataclass(frozen=True)
class HeadMaterials:
    """Material rows of one person's head."""

    skin: int
    eye: int
    hair: int


def head_materials(
    look: PersonLook, table: MaterialTable, rng: np.random.Generator
) -> HeadMaterials:
    """Choose skin, eye and hair colours for a caption's words.

    Args:
        look: the words.
        table: receives the materials.
        rng: draws complexion, iris, freckles, make-up.

    Returns:
        The material rows.
    """
    skin = np.clip(skin_albedo(look.skin_tone) * rng.normal(1.0, 0.035, 3), 0.01, 0.9)
    hair = hair_colour(look.hair_colour, rng)
    feminine = look.subject in ("woman", "girl") or (
        look.subject == "person" and rng.random() < 0.4
    )
    lips = skin * (0.88, 0.52, 0.52)
    if feminine and look.subject != "girl" and rng.random() < 0.5:
        paint = srgb(
            [(150, 44, 50), (176, 84, 84), (140, 60, 66), (190, 106, 100)][rng.integers(4)]
        )
        fraction = rng.uniform(0.4, 0.85)
        lips = lips * (1 - fraction) + paint * fraction * (0.6 + 0.6 * skin.mean())
    brow_hair = hair * 0.75 if look.hair_colour not in ("grey", "white") else hair * 0.55
    if look.hair_colour == "blond":
        brow_hair = hair * 0.45
    beard = {"none": 0.0, "stubble": rng.uniform(0.25, 0.5), "beard": rng.uniform(0.75, 0.95)}[
        look.beard
    ]
    dark = look.skin_tone >= 7
    skin_row = table.add(
        mat.SKIN,
        skin,
        colour2=lips,
        colour3=np.minimum(brow_hair, skin * 0.75),
        specular=rng.uniform(0.05, 0.11) * (1.15 if dark else 1.0),
        gloss=rng.uniform(9, 20),
        seed=float(rng.uniform(0, 500)),
        bump=rng.uniform(0.10, 0.2),
        amounts=(
            beard,
            rng.uniform(0.5, 0.95) if not feminine else rng.uniform(0.35, 0.8),
            rng.uniform(0.12, 0.4),
        ),
        fibre=rng.uniform(0.4, 1.0) if look.skin_tone <= 5 and rng.random() < 0.22 else 0.0,
    )
    weights = (
        np.array([4, 3, 2, 1, 2, 1.0])
        if look.skin_tone <= 4
        else np.array([6, 3, 1, 0.1, 0.1, 0.05])
    )
    iris = srgb(IRIS_SRGB[rng.choice(len(IRIS_SRGB), p=weights / weights.sum())])
    eye_row = table.add(
        mat.EYE,
        iris * rng.uniform(0.8, 1.3),
        specular=0.25,
        gloss=60.0,
        seed=float(rng.integers(9999)),
    )
    curl = {"curly": 0.55, "afro": 1.0, "buzz cut": 0.8}.get(look.hair_style, 0.0)
    hair_row = table.add(
        mat.HAIR,
        hair,
        colour3=np.clip(hair * rng.uniform(1.0, 1.5), 0, 0.8),
        specular=rng.uniform(0.10, 0.22) * (1.0 - 0.85 * curl),
        gloss=rng.uniform(24, 60) * (1.0 - 0.6 * curl),
        seed=float(rng.integers(9999)),
        amounts=(rng.uniform(0.75, 1.15) * (1.0 - 0.4 * curl), curl, 0.0),
    )
    return HeadMaterials(skin_row, eye_row, hair_row)


def head_mesh(
    assets: HeadAssets,
    vertices: np.ndarray,
    materials: HeadMaterials,
    hair_style: str,
    table: MaterialTable,
    rng: np.random.Generator,
) -> tuple[Mesh, np.ndarray]:
    """Return the bare head in the template frame.

    Args:
        assets: of the head model.
        vertices: (V, 3) deformed head, metres, template frame, jaw posed, not rotated.
        materials: from `head_materials`.
        hair_style: word of the vocabulary; very short cuts are painted on the scalp.
        table: receives the scalp's colour when it differs.
        rng: draws the gaze.

    Returns:
        The mesh, and the (3,) unit vector in which both eyes look, template frame.
    """
    coords = assets.template.copy()
    gaze = _aim_eyes(assets, vertices, coords, rng)
    paint = assets.paint.copy()
    if hair_style == "buzz cut":
        inside = hairline(assets.template)
        stubble = np.clip(inside / 0.014 + 0.3, 0, 1) * (assets.neck_weight == 0)
        paint[:, 2] = np.maximum(
            paint[:, 2] * table.array()[materials.skin, mat.AMOUNT], stubble * 0.8
        )
        table.set(materials.skin, mat.AMOUNT, 1.0)
    mesh = make_mesh(
        vertices, assets.faces, materials.skin, parts.HEAD, coords=coords, extras=paint
    )
    mesh.materials[assets.is_eye] = materials.eye
    mesh.parts[:] = assets.face_parts
    return mesh, gaze


def beard_mesh(
    assets: HeadAssets, vertices: np.ndarray, materials: HeadMaterials, length_m: float
) -> Mesh:
    """Return a full beard: the jaw's skin moved outwards, with ragged borders.

    Args:
        assets: of the head model.
        vertices: (V, 3) deformed head, template frame, metres.
        materials: from `head_materials`.
        length_m: thickness at the chin.

    Returns:
        The mesh; its extras' first column is the coverage that the renderer cuts at 0.
    """
    weight = assets.paint[:, 2]
    normals = vertex_normals(vertices, assets.faces)
    down = np.array([0.0, -0.55, 0.0], np.float32)
    outward = normals + down * weight[:, None]
    moved = vertices + outward * (length_m * np.clip(weight * 1.3 - 0.15, 0, 1))[:, None]
    extras = np.zeros((len(vertices), 4), np.float32)
    extras[:, 0] = (weight - 0.32) * 0.03
    extras[:, 1] = 0.4
    used = np.unique(assets.beard_faces)
    number = np.full(len(vertices), -1)
    number[used] = np.arange(len(used))
    faces = number[assets.beard_faces]
    tangents = np.tile(np.array([0.0, -1.0, 0.15], np.float32), (len(used), 1))
    coords = assets.template[used].copy()
    return make_mesh(
        moved[used], faces, materials.hair, parts.HEAD_COVER, coords=coords, extras=extras[used],
        tangents=tangents, normals=vertex_normals(moved, assets.faces)[used],
    )  # fmt: skip


def _aim_eyes(
    assets: HeadAssets, vertices: np.ndarray, coords: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Give eyeball vertices unit directions with the gaze along +z; return that gaze."""
    yaw, pitch = rng.normal(0.0, 0.16), rng.normal(0.0, 0.08)
    turn_y = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    turn_x = np.array(
        [[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]]
    )
    for index in assets.eye_vertices:
        centre = 0.5 * (vertices[index].min(axis=0) + vertices[index].max(axis=0))
        direction = vertices[index] - centre
        direction /= np.linalg.norm(direction, axis=1, keepdims=True) + 1e-9
        coords[index] = direction @ (turn_y @ turn_x).T
    # The iris is painted where coordinates are +z, so the gaze is what turns into +z.
    return (turn_y @ turn_x).T @ np.array([0.0, 0.0, 1.0])
