"""Assets prepared once from a head model: paint maps, parts, eyes, the skull's radius.

Everything is derived from the template, its regions and its 68 landmarks, so that FLAME and the
open head are painted alike. Template frame: metres, x to the person's left, y up, z to the
front, origin in the middle of the skull (FLAME's with z + 0.05).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from ml.generation.renderer import parts
from ml.imaging.rasterizer import Float32Array, Int32Array, vertex_normals

SKULL_CENTRE = np.array([0.0, 0.012, 0.012])
"""Centre of the spherical grid on which hair and hats are built."""
GRID_ROWS = 48
GRID_COLUMNS = 96


@dataclass(frozen=True)
class HeadAssets:
    """A head model's surface, prepared for painting.

    Attributes:
        template: (V, 3) float32 metres.
        faces: (F, 3) int32 faces that are drawn; the open lower end of the bust is left out.
        face_parts: (F,) int32 `parts.HEAD`, or `parts.BODY` for the neck.
        is_eye: (F,) bool faces of the eyeballs.
        paint: (V, 4) float32 extras of the skin material: brow, lip, beard, blood.
        neck_weight: (V,) float32 0 on the head, 1 where the neck follows the trunk.
        eye_vertices: left and right eyeball's vertex indices.
        grid_index: (rows * columns, 4) skull vertices around each direction of the grid.
        grid_weight: their weights.
        beard_faces: (B, 3) int32 faces that a full beard covers.
        eyes: (2, 3) centres of the left and right eye on the template.
        ears: (2, 3) upper roots of the left and right ear.
        mouth: (3,) middle of the mouth.
    """

    template: Float32Array
    faces: Int32Array
    face_parts: Int32Array
    is_eye: np.ndarray
    paint: Float32Array
    neck_weight: Float32Array
    eye_vertices: tuple[np.ndarray, np.ndarray]
    grid_index: np.ndarray
    grid_weight: np.ndarray
    beard_faces: Int32Array
    eyes: np.ndarray
    ears: np.ndarray
    mouth: np.ndarray


def prepare_head(
    template: np.ndarray,
    faces: np.ndarray,
    regions: dict[str, np.ndarray],
    landmarks: np.ndarray,
    attributes: dict[str, np.ndarray] | None = None,
) -> HeadAssets:
    """Derive the renderer's assets from a head model.

    Args:
        template: (5023, 3) metres, FLAME's axes, origin in the middle of the skull.
        faces: (9976, 3) vertex indices.
        regions: vertex indices; `head`, `ears`, `eyeballs` are used.
        landmarks: (68, 3) metres, the usual 68 points on the template.
        attributes: (V,) weights of lips, teeth, mouth_interior and nostril, where the model has
            them; otherwise they are derived from the landmarks.

    Returns:
        The assets.

    Raises:
        ValueError: a region is missing, or an array has the wrong shape.
    """
    points = np.asarray(template, np.float64)
    missing = {"head", "ears", "eyeballs"} - set(regions)
    if missing:
        raise ValueError(f"head model: the renderer needs regions {sorted(missing)}")
    if landmarks.shape != (68, 3):
        raise ValueError(f"head model: expected 68 landmarks (68, 3), got {landmarks.shape}")
    count = len(points)
    is_head = np.zeros(count, bool)
    for name in ("head", "head_with_ears", "ears", "eyeballs"):
        is_head[regions.get(name, [])] = True
    is_eyeball = np.zeros(count, bool)
    is_eyeball[regions["eyeballs"]] = True
    is_ear = np.zeros(count, bool)
    is_ear[regions["ears"]] = True
    drawn = np.asarray(faces)[(points[faces][:, :, 1] > -0.165).any(axis=1)].astype(np.int32)
    from_head, _ = cKDTree(points[is_head]).query(points)
    eyeballs = np.asarray(regions["eyeballs"])
    left = eyeballs[points[eyeballs, 0] > 0]
    right = eyeballs[points[eyeballs, 0] <= 0]
    paint = _paint(points, faces, landmarks, is_eyeball, is_ear, attributes or {})
    skull = np.flatnonzero(is_head & ~is_eyeball & ~_inside_mouth(points, landmarks, is_head))
    skull = skull[~is_ear[skull]]
    index, weight = _grid_binding(points, skull)
    ears = np.stack(
        [
            points[is_ear & (points[:, 0] * sign > 0.05)].mean(axis=0)
            + np.array([-0.004 * sign, 0.018, 0.012])
            for sign in (1.0, -1.0)
        ]
    )
    beard = (paint[:, 2][drawn] > 0.04).all(axis=1)
    return HeadAssets(
        template=points.astype(np.float32),
        faces=drawn,
        face_parts=np.where(is_head[drawn].all(axis=1), parts.HEAD, parts.BODY).astype(np.int32),
        is_eye=is_eyeball[drawn].all(axis=1),
        paint=paint,
        neck_weight=np.where(is_head, 0.0, np.clip(from_head / 0.045, 0.0, 1.0)).astype(np.float32),
        eye_vertices=(left, right),
        grid_index=index,
        grid_weight=weight,
        beard_faces=drawn[beard],
        eyes=np.stack([points[left].mean(axis=0), points[right].mean(axis=0)]),
        ears=ears,
        mouth=landmarks[[48, 54]].mean(axis=0),
    )


def grid_directions() -> np.ndarray:
    """Return (rows * columns, 3) unit directions of the skull grid.

    Pole up, column 0 to the front.
    """
    theta = (np.arange(GRID_ROWS) + 0.5) / GRID_ROWS * np.pi
    phi = (np.arange(GRID_COLUMNS) + 0.5) / GRID_COLUMNS * 2.0 * np.pi
    return np.stack(
        [
            np.sin(theta)[:, None] * np.sin(phi)[None],
            np.broadcast_to(np.cos(theta)[:, None], (GRID_ROWS, GRID_COLUMNS)),
            np.sin(theta)[:, None] * np.cos(phi)[None],
        ],
        -1,
    ).reshape(-1, 3)


def skull_radius(assets: HeadAssets, vertices: np.ndarray) -> Float32Array:
    """Return the distance of the skin from `SKULL_CENTRE` on the grid, ears left out.

    Args:
        assets: of the head model.
        vertices: (V, 3) deformed head in the template frame, metres.

    Returns:
        (rows, columns) float32 metres, smoothed.
    """
    distance = np.linalg.norm(vertices - SKULL_CENTRE, axis=1)
    radius = (distance[assets.grid_index] * assets.grid_weight).sum(axis=1)
    radius = radius.reshape(GRID_ROWS, GRID_COLUMNS)
    across = 0.25 * np.roll(radius, 1, 1) + 0.5 * radius + 0.25 * np.roll(radius, -1, 1)
    padded = np.concatenate([across[:1], across, across[-1:]])
    return (0.25 * padded[:-2] + 0.5 * padded[1:-1] + 0.25 * padded[2:]).astype(np.float32)


def sample_radius(radius: Float32Array, directions: np.ndarray) -> np.ndarray:
    """Return bilinear look-up of the skull's radius.

    Args:
        radius: (rows, columns) from `skull_radius`.
        directions: (N, 3) unit directions, template frame.

    Returns:
        (N,) metres.
    """
    theta = np.arccos(np.clip(directions[:, 1], -1.0, 1.0)) / np.pi * GRID_ROWS - 0.5
    phi = np.arctan2(directions[:, 0], directions[:, 2]) / (2.0 * np.pi) * GRID_COLUMNS - 0.5
    row, column = np.floor(theta).astype(int), np.floor(phi).astype(int)
    a, b = theta - row, phi - column
    low, high = np.clip(row, 0, GRID_ROWS - 1), np.clip(row + 1, 0, GRID_ROWS - 1)
    left, right = column % GRID_COLUMNS, (column + 1) % GRID_COLUMNS
    top = radius[low, left] * (1 - b) + radius[low, right] * b
    bottom = radius[high, left] * (1 - b) + radius[high, right] * b
    return top * (1 - a) + bottom * a


def hairline(points: np.ndarray) -> np.ndarray:
    """Return how far inside the scalp points of the template's surface lie.

    Args:
        points: (N, 3) metres, template frame.

    Returns:
        (N,) metres, positive inside the scalp, measured upwards from the hairline.
    """
    azimuth = np.degrees(np.abs(np.arctan2(points[:, 0], points[:, 2] - SKULL_CENTRE[2])))
    line = np.interp(
        azimuth,
        [0, 18, 32, 44, 54, 62, 72, 80, 86, 96, 110, 130, 155, 180],
        [
            0.088,
            0.090,
            0.089,
            0.074,
            0.045,
            0.030,
            0.012,
            -0.006,
            -0.012,
            0.020,
            0.004,
            -0.030,
            -0.058,
            -0.064,
        ],
    )
    return points[:, 1] - line


def _grid_binding(points: np.ndarray, skull: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    offset = points[skull] - SKULL_CENTRE
    length = np.linalg.norm(offset, axis=1)
    tree = cKDTree(offset / length[:, None])
    distance, nearest = tree.query(grid_directions(), k=4)
    weight = 1.0 / (distance + 0.01) ** 2
    weight /= weight.sum(axis=1, keepdims=True)
    return skull[nearest], weight.astype(np.float32)


def _inside_mouth(points: np.ndarray, landmarks: np.ndarray, is_head: np.ndarray) -> np.ndarray:
    """Return vertices of the oral cavity: behind the lips, within the outline of the mouth."""
    mouth = landmarks[48:60]
    centre, half = mouth.mean(axis=0), 0.5 * (mouth.max(axis=0) - mouth.min(axis=0))
    flat = np.abs((points - centre)[:, :2]) / np.maximum(half[:2], 1e-3)
    lip_depth = np.interp(
        np.abs(points[:, 0]), [0.0, half[0]], [mouth[:, 2].max(), mouth[:, 2].min()]
    )
    return (
        is_head
        & (flat < (1.1, 2.2)).all(axis=1)
        & (points[:, 2] < lip_depth - 0.006)
        & (points[:, 2] > 0.05)
    )


def _paint(
    points: np.ndarray,
    faces: np.ndarray,
    landmarks: np.ndarray,
    is_eyeball: np.ndarray,
    is_ear: np.ndarray,
    attributes: dict[str, np.ndarray],
) -> Float32Array:
    paint = np.zeros((len(points), 4))
    front = points[:, 2] > 0.05
    skin = ~is_eyeball
    for start in (17, 22):
        brow = landmarks[start : start + 5]
        distance, fraction = _polyline_distance(points[:, :2], brow[:, :2])
        inner = fraction if start == 17 else 1.0 - fraction
        half = np.interp(inner, [0.0, 0.25, 0.75, 1.0], [0.0035, 0.0050, 0.0062, 0.0058])
        paint[:, 0] = np.maximum(
            paint[:, 0], np.where(front & skin, np.clip(1.25 - distance / half, 0, 1), 0)
        )
    outline = landmarks[48:60]
    inside = _signed_distance(points[:, :2], outline[:, :2])
    near = np.abs(points[:, 2] - outline[:, 2].mean()) < 0.02
    paint[:, 1] = np.where(near & skin, np.clip((inside + 0.0006) / 0.0016, 0, 1), 0.0)
    cavity = _inside_mouth(points, landmarks, skin)
    if "lips" in attributes:
        paint[:, 1] = attributes["lips"]
    if "mouth_interior" in attributes:
        cavity = attributes["mouth_interior"] > 0.5
    paint[cavity, 1] = 0.55
    paint[:, 2] = _beard_weight(points, landmarks) * (1 - np.clip(paint[:, 1] * 1.5, 0, 1)) * skin
    paint[is_ear | cavity, 2] = 0.0
    paint[:, 3] = np.where(skin, _blood(points, landmarks, is_ear), 0.0)
    paint[cavity, 3] = -2.4
    if "teeth" in attributes:
        # Negative lip weight is enamel, see the skin material.
        teeth = attributes["teeth"] > 0.5
        paint[teeth, 1:] = -1.0, 0.0, 0.0
    normals = vertex_normals(points.astype(np.float32), np.asarray(faces, np.int32))
    # Lids and nostrils turn downwards or inwards; a darker tone keeps them readable.
    nostril = front & skin & (np.abs(points[:, 0]) < 0.017) & (normals[:, 1] < -0.75)
    nostril &= np.abs(points[:, 1] - landmarks[33, 1]) < 0.008
    paint[nostril, 3] = -0.9
    return paint.astype(np.float32)


def _beard_weight(points: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    nose_base, mouth = landmarks[33], landmarks[[48, 54]].mean(axis=0)
    chin = landmarks[8]
    x, y, z = np.abs(points[:, 0]), points[:, 1], points[:, 2]
    half = landmarks[54, 0] - mouth[0]
    # Upper border: under the nose, down next to the mouth, up along the jaw to the sideburns.
    top = np.interp(
        x,
        [0.0, 0.8 * half, 1.35 * half, 2.0 * half, 2.6 * half, 3.2 * half],
        [
            nose_base[1] - 0.004,
            nose_base[1] - 0.006,
            mouth[1] + 0.004,
            mouth[1] + 0.012,
            mouth[1] + 0.035,
            mouth[1] + 0.06,
        ],
    )
    below = np.clip((top - y) / 0.008, 0, 1)
    above_neck = np.clip((y - (chin[1] - 0.030)) / 0.022, 0, 1)
    frontal = np.clip((z - 0.032) / 0.016, 0, 1)
    return below * above_neck * frontal


def _blood(points: np.ndarray, landmarks: np.ndarray, is_ear: np.ndarray) -> np.ndarray:
    """Return redness of skin: positive on cheeks, nose, ears and chin, negative in hollows."""
    front = np.clip((points[:, 2] - 0.05) / 0.02, 0, 1)
    red = np.zeros(len(points))

    def spot(centre: np.ndarray, sigma: tuple[float, float], amount: float) -> None:
        offset = (points[:, :2] - centre[:2]) / sigma
        red[:] += amount * np.exp(-0.5 * (offset**2).sum(axis=1)) * front

    for corner, eye in ((landmarks[54], slice(42, 48)), (landmarks[48], slice(36, 42))):
        centre = landmarks[eye].mean(axis=0)
        cheek = np.array([1.3 * corner[0], 0.5 * (corner[1] + centre[1]), 0.0])
        spot(cheek, (0.016, 0.013), 0.65)
        spot(centre - np.array([0.0, 0.011, 0.0]), (0.014, 0.005), -0.45)
        spot(centre + np.array([0.0, 0.010, 0.0]), (0.015, 0.006), -0.40)
        spot(centre, (0.017, 0.010), -0.22)
    spot(landmarks[30], (0.011, 0.009), 0.55)
    spot(landmarks[8] + np.array([0.0, 0.012, 0.0]), (0.012, 0.009), 0.25)
    spot(landmarks[57] - np.array([0.0, 0.007, 0.0]), (0.014, 0.003), -0.35)
    red[is_ear] += 0.4
    return red


def _polyline_distance(points: np.ndarray, line: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the distance to a polyline and the fraction of its length at the nearest point."""
    best = np.full(len(points), np.inf)
    fraction = np.zeros(len(points))
    for i in range(len(line) - 1):
        edge = line[i + 1] - line[i]
        t = np.clip((points - line[i]) @ edge / (edge @ edge), 0, 1)
        distance = np.linalg.norm(points - line[i] - t[:, None] * edge, axis=1)
        closer = distance < best
        best = np.where(closer, distance, best)
        fraction = np.where(closer, (i + t) / (len(line) - 1), fraction)
    return best, fraction


def _signed_distance(points: np.ndarray, polygon: np.ndarray) -> np.ndarray:
    """Return the distance to a closed polygon, positive inside."""
    closed = np.concatenate([polygon, polygon[:1]])
    distance, _ = _polyline_distance(points, closed)
    inside = np.zeros(len(points), bool)
    for a, b in itertools.pairwise(closed):
        crosses = (a[1] > points[:, 1]) != (b[1] > points[:, 1])
        at = a[0] + (points[:, 1] - a[1]) * (b[0] - a[0]) / (b[1] - a[1] + 1e-12)
        inside ^= crosses & (points[:, 0] < at)
    return np.where(inside, distance, -distance)
