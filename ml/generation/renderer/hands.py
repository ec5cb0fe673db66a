"""Hands with fingers."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from ml.generation.renderer import parts
from ml.generation.renderer.body_frame import BodyFrame, unit
from ml.generation.renderer.meshes import Mesh, cross, join, make_mesh, sweep


@lru_cache(maxsize=4)
def _hand_template(fingers: bool) -> Mesh:
    """Return a left hand: x to the thumb, y to the finger tips, z out of the back.

    Wrist at the origin.
    """
    front = np.array([0.0, 0.0, 1.0])
    steps = np.linspace(0.0, 1.0, 5)
    palm_path = np.stack([0 * steps, 0.092 * steps - 0.008, 0 * steps], -1)
    width = np.interp(steps, [0, 0.35, 0.8, 1], [0.025, 0.036, 0.041, 0.036])
    depth = np.interp(steps, [0, 0.4, 1], [0.019, 0.017, 0.011])
    pieces = [sweep(palm_path, front, width, depth, 10, 0, parts.BODY, capped=True)]
    if not fingers:
        path = np.stack([0 * steps, 0.08 + 0.085 * steps, -0.016 * steps**2], -1)
        width = np.interp(steps, [0, 0.6, 1], [0.038, 0.033, 0.014])
        pieces.append(sweep(path, front, width, 0.010 + 0 * steps, 8, 0, parts.BODY, capped=True))
    else:
        for x, lean, length in (
            (0.028, 0.10, 0.070),
            (0.0095, 0.03, 0.078),
            (-0.0095, -0.03, 0.073),
            (-0.027, -0.11, 0.058),
        ):
            path = np.stack(
                [x + lean * length * steps, 0.082 + length * steps, -0.024 * steps**2], -1
            )
            radius = np.interp(steps, [0, 0.5, 1], [0.0092, 0.0085, 0.0066])
            pieces.append(sweep(path, front, radius, radius, 8, 0, parts.BODY, capped=True))
    path = np.stack([0.022 + 0.040 * steps, 0.020 + 0.058 * steps, -0.012 * steps], -1)
    radius = np.interp(steps, [0, 0.5, 1], [0.014, 0.0108, 0.0078])
    pieces.append(sweep(path, front, radius, radius, 8, 0, parts.BODY, capped=True))
    return join(pieces)


def hand_meshes(
    frame: BodyFrame, skin: int, scale_px: float, rng: np.random.Generator
) -> list[Mesh]:
    """Return both hands, thumbs forward when an arm hangs.

    Args:
        frame: the body.
        skin: material row of the skin.
        scale_px: pixels per metre; small hands have no separate fingers.
        rng: draws their turn.

    Returns:
        Meshes in the joints' frame, metres.
    """
    meshes = []
    for side, sign in (("left", 1.0), ("right", -1.0)):
        elbow, wrist = frame.joint(f"{side}_elbow"), frame.joint(f"{side}_wrist")
        along = unit(wrist - elbow)
        # The thumb points forward when an arm hangs, the palm to the body.
        thumb = frame.chest_front - along * float(frame.chest_front @ along)
        if np.linalg.norm(thumb) < 0.25:
            thumb = -frame.down - along * float(-frame.down @ along)
        thumb = unit(thumb)
        turn = rng.normal(0.0, 0.5)
        back = sign * cross(thumb, along)
        thumb, back = (
            np.cos(turn) * thumb + np.sin(turn) * back,
            np.cos(turn) * back - np.sin(turn) * thumb,
        )
        axes = np.stack([thumb, along, back], axis=1) * frame.size**0.5
        template = _hand_template(scale_px > 140.0)
        points = template.positions @ axes.T.astype(np.float32) + wrist.astype(np.float32)
        normals = template.normals @ (axes.T / frame.size**0.5).astype(np.float32)
        hand = make_mesh(
            points,
            template.faces,
            skin,
            parts.BODY,
            coords=template.positions,
            normals=normals,
        )
        meshes.append(hand)
    return meshes
