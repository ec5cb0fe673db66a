"""Glasses on heads and things in hands."""

from __future__ import annotations

import numpy as np

from ml.generation.renderer import materials as mat
from ml.generation.renderer import parts
from ml.generation.renderer.body_frame import BodyFrame
from ml.generation.renderer.head_assets import HeadAssets
from ml.generation.renderer.materials import MaterialTable, srgb
from ml.generation.renderer.meshes import Mesh, cross, ellipsoid, make_mesh, sweep

_FRAME_SRGB = [
    (28, 28, 30),
    (74, 50, 36),
    (150, 120, 80),
    (120, 122, 126),
    (96, 34, 36),
    (52, 60, 76),
]


def glasses_mesh(
    assets: HeadAssets,
    vertices: np.ndarray,
    kind: str,
    table: MaterialTable,
    rng: np.random.Generator,
) -> list[Mesh]:
    """Return glasses on the nose of a head.

    Args:
        assets: of the head model.
        vertices: (V, 3) deformed head, template frame, metres.
        kind: word of the vocabulary: none, glasses or sunglasses.
        table: receives the materials.
        rng: draws shape and colour.

    Returns:
        Meshes in the template frame.
    """
    if kind == "none":
        return []
    centres = [
        0.5 * (vertices[i].min(axis=0) + vertices[i].max(axis=0)) for i in assets.eye_vertices
    ]
    front = max(float(vertices[i][:, 2].max()) for i in assets.eye_vertices) + 0.012
    frame = table.add(
        mat.PLAIN, srgb(_FRAME_SRGB[rng.integers(len(_FRAME_SRGB))]), specular=0.35, gloss=40.0
    )
    dark = kind == "sunglasses"
    lens = table.add(
        mat.LENS,
        srgb([(18, 18, 20), (44, 30, 22), (24, 32, 40)][rng.integers(3)])
        if dark
        else (0.5, 0.5, 0.5),
        specular=0.07,
        gloss=45.0,
    )
    half_width = rng.uniform(0.023, 0.028) + (0.002 if dark else 0.0)
    half_height = rng.uniform(0.016, 0.024)
    roundness = rng.uniform(2.0, 4.5)
    thick = rng.uniform(0.0011, 0.0026)
    angle = np.linspace(0.0, 2.0 * np.pi, 29)
    pieces: list[Mesh] = []
    for centre, sign in zip(centres, (1.0, -1.0), strict=True):
        x = np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** (2 / roundness) * half_width
        y = np.sign(np.sin(angle)) * np.abs(np.sin(angle)) ** (2 / roundness) * half_height
        # Lenses turn a little backwards at the temples.
        z = front - 0.18 * np.maximum(sign * x, 0.0) - 0.1 * np.abs(x)
        loop = np.stack([centre[0] + x + 0.001 * sign, centre[1] - 0.003 + y, z], -1)
        pieces.append(
            sweep(
                loop,
                np.array([0.0, 0.0, 1.0]),
                np.full(29, thick),
                np.full(29, thick),
                6,
                frame,
                parts.HEAD_COVER,
            )
        )
        if dark:
            middle = loop[:-1].mean(axis=0) + np.array([0.0, 0.0, 0.002])
            fan = np.concatenate([loop[:-1], middle[None]])
            index = np.arange(28)
            faces = np.stack([index, (index + 1) % 28, np.full(28, 28)], -1)
            normals = fan - (centre - (0, 0, 0.05))
            normals /= np.linalg.norm(normals, axis=1, keepdims=True)
            pieces.append(make_mesh(fan, faces, lens, parts.HEAD_COVER, normals=normals))
        hinge = np.array(
            [centre[0] + sign * half_width, centre[1] + 0.3 * half_height, front - 0.3 * half_width]
        )
        ear = assets.ears[0 if sign > 0 else 1]
        outside = max(abs(ear[0]), abs(hinge[0]) + 0.004)
        joint = np.array([sign * outside, hinge[1], hinge[2] - 0.012])
        hook = np.array([sign * outside, ear[1] + 0.004, ear[2] - 0.004])
        path = np.stack(
            [hinge, joint, 0.5 * (joint + hook), hook, hook + np.array([0.0, -0.018, -0.012])]
        )
        pieces.append(
            sweep(
                path,
                np.array([sign, 0.0, 0.0]),
                np.full(5, thick * 1.5),
                np.full(5, thick),
                6,
                frame,
                parts.HEAD_COVER,
            )
        )
    inner = half_width - 0.001
    bridge = np.stack(
        [
            centres[1] + (inner, 0.2 * half_height, 0),
            0.5 * (centres[0] + centres[1]) + (0, 0.45 * half_height, 0),
            centres[0] - (inner, -0.2 * half_height, 0),
        ]
    )
    bridge[:, 2] = front - 0.002, front + 0.002, front - 0.002
    pieces.append(
        sweep(
            bridge,
            np.array([0.0, 0, 1.0]),
            np.full(3, thick),
            np.full(3, thick),
            6,
            frame,
            parts.HEAD_COVER,
        )
    )
    return pieces


def held_object(
    frame: BodyFrame, side: str, table: MaterialTable, rng: np.random.Generator
) -> list[Mesh]:
    """Return a phone, cup or microphone in a hand.

    Args:
        frame: the body.
        side: left or right.
        table: receives the materials.
        rng: draws which and its colour.

    Returns:
        Meshes in the joints' frame, metres.
    """
    elbow, wrist = frame.joint(f"{side}_elbow"), frame.joint(f"{side}_wrist")
    along = (wrist - elbow) / (np.linalg.norm(wrist - elbow) + 1e-9)
    hand = wrist + along * 0.085 * frame.size**0.5
    up = -frame.down
    across = cross(along, up)
    across = across / (np.linalg.norm(across) + 1e-6)
    kind = rng.choice(["phone", "cup", "microphone", "book"])
    colour = srgb(
        [
            (32, 33, 36),
            (214, 210, 202),
            (150, 52, 46),
            (60, 88, 120),
            (196, 160, 90),
            (80, 100, 84),
        ][rng.integers(6)]
    )
    if kind == "cup":
        row = table.add(mat.PLAIN, colour, specular=0.15, gloss=30.0)
        path = hand[None] + up[None] * np.array([-0.045, -0.044, 0.0, 0.05])[:, None]
        width = np.array([0.001, 0.030, 0.034, 0.038])
        return [sweep(path, frame.chest_front, width, width, 16, row, parts.PROP)]
    if kind == "microphone":
        row = table.add(mat.PLAIN, (0.02, 0.02, 0.022), specular=0.2, gloss=30.0)
        head = table.add(mat.PLAIN, (0.16, 0.16, 0.17), specular=0.3, gloss=12.0)
        axis = up * 0.8 + along * 0.4
        axis /= np.linalg.norm(axis)
        path = hand[None] + axis[None] * np.array([-0.09, 0.0, 0.075])[:, None]
        handle = sweep(
            path,
            across,
            np.array([0.011, 0.012, 0.015]),
            np.array([0.011, 0.012, 0.015]),
            12,
            row,
            parts.PROP,
        )
        ball = ellipsoid(hand + axis * 0.095, np.eye(3) * 0.026, 9, 14, head, parts.PROP)
        return [handle, ball]
    size = (0.036, 0.075, 0.004) if kind == "phone" else (0.07, 0.10, 0.012)
    row = table.add(mat.PLAIN, colour * (0.4 if kind == "phone" else 1.0), specular=0.3, gloss=50.0)
    normal = cross(across, up)
    return [_slab(hand + up * 0.02, across * size[0], up * size[1], normal * size[2], row)]


def _slab(centre: np.ndarray, a: np.ndarray, b: np.ndarray, c: np.ndarray, material: int) -> Mesh:
    """Return a box given by its half axes, with flat shaded sides."""
    positions, normals = [], []
    for first, second, out in ((a, b, c), (a, b, -c), (b, c, a), (b, c, -a), (c, a, b), (c, a, -b)):
        positions += [
            centre + out + s * first + t * second for s, t in ((-1, -1), (1, -1), (1, 1), (-1, 1))
        ]
        normals += [out / (np.linalg.norm(out) + 1e-9)] * 4
    faces = np.concatenate([np.array([(0, 1, 2), (0, 2, 3)]) + 4 * side for side in range(6)])
    return make_mesh(np.array(positions), faces, material, parts.PROP, normals=np.array(normals))
