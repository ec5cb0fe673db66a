"""The body's mesh moved into a sampled skeleton: bones stretched to its lengths, then turned.

Stretching is linear blend skinning; turning blends dual quaternions (Kavan et al., 2008), which
keeps the volume of shoulders and wrists where blended matrices would collapse.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from ml.flame.open_head.body import BONES, POINTS, TRUNK, Body
from ml.generation.renderer.body_frame import BodyFrame
from ml.generation.renderer.meshes import cross
from ml.imaging.rasterizer import Float32Array

_PARENT = {
    "belly": "hips", "waist": "belly", "chest": "waist", "clavicle": "chest",
    "upper_arm": "clavicle", "upper_arm_twist": "upper_arm", "forearm": "upper_arm_twist",
    "forearm_twist": "forearm", "hand": "forearm_twist", "fingers": "hand",
    "finger_tips": "fingers", "thigh": "hips", "thigh_twist": "thigh", "shin": "thigh_twist",
    "foot": "shin",
}  # fmt: skip
_MAX_TWIST = 1.7
"""How far a hand turns about the forearm, either way, radians."""
_NEAR_HEAD_M = 0.33
"""A wrist this close to the middle of the head belongs to a hand whose palm is on the face."""


@dataclass(frozen=True)
class PosedBody:
    """A body in the joints' frame, metres, image axes.

    Attributes:
        skin: (V, 3) the body.
        cloth: (V, 3) the same without hollows and toes.
        rest: (2, V, 3) body and cloth before they were turned, MakeHuman's axes.
        points: (P, 3) places of `POINTS` in `rest`.
        turns: (V, 4) unit quaternions (w, x, y, z) from rest to the pose.
        bones: (B, 8) unit dual quaternions of `BONES`, from `rest` to the pose.
    """

    skin: Float32Array
    cloth: Float32Array
    rest: Float32Array
    points: np.ndarray
    turns: Float32Array
    bones: Float32Array


def pose_body(
    body: Body, mixture: np.ndarray, frame: BodyFrame, hand_turns: np.ndarray, curls: np.ndarray
) -> PosedBody:
    """Stretch and turn a body so that its joints are those of a skeleton.

    Args:
        body: the mesh and its rig.
        mixture: (K,) weights of its shapes.
        frame: the skeleton and its axes.
        hand_turns: (2,) by how much the left and right palm are turned, radians.
        curls: (2,) by how much the fingers are bent at either joint, radians.

    Returns:
        The posed body.
    """
    used = np.flatnonzero(mixture)
    share = mixture[used].astype(np.float32)
    shapes = np.stack([body.shapes[used], body.smooth[used]])
    rest = np.tensordot(share, shapes, axes=(0, 1))
    points = np.tensordot(mixture[used], body.points[used].astype(np.float64), axes=1)
    stretch, stretched = _stretch(points, frame)
    blended = (body.weights @ stretch.reshape(len(BONES), 12).astype(np.float32)).reshape(-1, 3, 4)
    rest = (blended[:, :, :3] @ rest.transpose(1, 2, 0)).transpose(2, 0, 1) + blended[:, :, 3]
    bones = _turn(stretched, frame, hand_turns, curls).astype(np.float32)
    moved, turns = turn_with(body.weights, bones, rest)
    return PosedBody(moved[0], moved[1], rest, stretched, turns, bones)


def turn_with(
    weights: np.ndarray, bones: np.ndarray, points: np.ndarray
) -> tuple[Float32Array, Float32Array]:
    """Move points with the bones, by their blended dual quaternions.

    Args:
        weights: (V, B) float32, rows of sum 1.
        bones: (B, 8) float32 unit dual quaternions, real parts first.
        points: (..., V, 3) float32.

    Returns:
        the moved points, and the (V, 4) unit quaternions by which each was turned.
    """
    dual = weights @ bones
    dual /= np.linalg.norm(dual[:, :4], axis=1, keepdims=True)
    real, axis, real2, axis2 = dual[:, :1], dual[:, 1:4], dual[:, 4:5], dual[:, 5:]
    shift = 2.0 * (real * axis2 - real2 * axis + cross(axis, axis2))
    return rotate(dual[:, :4], points) + shift, dual[:, :4]


def rotate(quaternions: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Return vectors (..., V, 3) turned by unit quaternions (V, 4), real part first."""
    return _rotate(quaternions, vectors.reshape(-1, *vectors.shape[-2:])).reshape(vectors.shape)


def _at(points: np.ndarray, name: str) -> np.ndarray:
    return points[POINTS.index(name)]


def between_sides(points: np.ndarray, name: str) -> np.ndarray:
    """Return (3,) the middle between the left and the right of a place of `POINTS` (P, 3)."""
    return 0.5 * (_at(points, f"left_{name}") + _at(points, f"right_{name}"))


def _stretch(points: np.ndarray, frame: BodyFrame) -> tuple[np.ndarray, np.ndarray]:
    """Return (B, 3, 4) affine maps that give the bones their lengths, and the places they lead to.

    The trunk grows along its three axes, a limb along itself; across, all grow alike.
    """
    trunk = np.linalg.norm(frame.pelvis - frame.neck)
    height = trunk / np.linalg.norm(
        between_sides(points, "shoulder") - between_sides(points, "hip")
    )
    chest, hips = (
        np.linalg.norm(frame.joint(f"left_{name}") - frame.joint(f"right_{name}"))
        / (2.0 * _at(points, f"left_{name}")[0])
        for name in ("shoulder", "hip")
    )
    across = float(np.cbrt(height * chest * hips))
    maps, moved = np.zeros((len(BONES), 3, 4)), np.zeros_like(points)
    for i in range(len(TRUNK)):
        grow = np.diag([hips + (chest - hips) * i / 3.0, height, across])
        maps[i, :, :3] = grow
        moved[i] = grow @ points[i]
    for side in ("left", "right"):
        place = {name: POINTS.index(f"{side}_{name}") for name in _LINES}

        def put(bone: str, matrix: np.ndarray, start: int, *others: int, side: str = side) -> None:
            """Map a bone's own places, of which the first is where it starts."""
            shift = moved[start] - matrix @ points[start]
            maps[BONES.index(f"{side}_{bone}")] = np.c_[matrix, shift]
            for other in others:
                moved[other] = matrix @ points[other] + shift

        chest_map, hips_map = maps[BONES.index("chest")], maps[BONES.index("hips")]
        for name, matrix in (("clavicle", chest_map), ("shoulder", chest_map), ("hip", hips_map)):
            moved[place[name]] = matrix[:, :3] @ points[place[name]] + matrix[:, 3]
        maps[BONES.index(f"{side}_clavicle")] = chest_map
        for bones, start, end in _SEGMENTS:
            along = points[place[end]] - points[place[start]]
            length = float(np.linalg.norm(along))
            wanted = np.linalg.norm(frame.joint(f"{side}_{end}") - frame.joint(f"{side}_{start}"))
            direction = along / length
            matrix = across * np.eye(3) + (wanted / length - across) * np.outer(
                direction, direction
            )
            for bone in bones:
                put(bone, matrix, place[start], place[end])
        # Hands and heads are of nearly one size in these metres, a child's too.
        hand = across**0.6 * np.eye(3)
        fingers = [place[name] for name in ("knuckle", "finger", "thumb", "little", "index")]
        for bone in ("hand", "fingers", "finger_tips"):
            put(bone, hand, place["wrist"], *fingers)
        put("foot", across * np.eye(3), place["ankle"])
    return maps, moved


_SEGMENTS = (
    (("upper_arm", "upper_arm_twist"), "shoulder", "elbow"),
    (("forearm", "forearm_twist"), "elbow", "wrist"),
    (("thigh", "thigh_twist"), "hip", "knee"),
    (("shin",), "knee", "ankle"),
)
_LINES = (
    "clavicle", "shoulder", "elbow", "wrist", "knuckle", "finger", "thumb", "little", "index",
    "hip", "knee", "ankle",
)  # fmt: skip


def _turn(
    points: np.ndarray, frame: BodyFrame, hand_turns: np.ndarray, curls: np.ndarray
) -> np.ndarray:
    """Return (B, 8) unit dual quaternions of the bones, each on its parent's side of the sphere."""
    matrices: dict[str, np.ndarray] = {}
    starts: dict[str, np.ndarray] = {}
    ends: dict[str, np.ndarray] = {}
    neck, pelvis = between_sides(points, "shoulder"), between_sides(points, "hip")
    lower, upper = (
        _axes(frame.down, side) @ _axes(pelvis - neck, np.array([1.0, 0.0, 0.0])).T
        for side in (frame.hip_side, frame.shoulder_side)
    )
    for i, bone in enumerate(TRUNK):
        matrices[bone] = _between(lower, upper, i / 3.0)
        starts[bone] = pelvis + (neck - pelvis) * i / 3.0
        ends[bone] = frame.pelvis + (frame.neck - frame.pelvis) * i / 3.0
    for k, side in enumerate(("left", "right")):
        rest = {name: _at(points, f"{side}_{name}") for name in _LINES}
        arm = _limb(
            upper, np.stack([rest[n] for n in ("shoulder", "elbow", "wrist")]),
            np.stack([frame.joint(f"{side}_{n}") for n in ("shoulder", "elbow", "wrist")]),
            np.zeros(3),
        )  # fmt: skip
        leg = _limb(
            lower, np.stack([rest[n] for n in ("hip", "knee", "ankle")]),
            np.stack([frame.joint(f"{side}_{n}") for n in ("hip", "knee", "ankle")]),
            0.2 * frame.hip_side,
        )  # fmt: skip
        hand = _hand(arm[2], rest, frame, side, hand_turns[k])
        inner = upper @ (rest["clavicle"] - neck) + frame.neck
        clavicle = (
            _swing(upper @ (rest["shoulder"] - rest["clavicle"]),
                   frame.joint(f"{side}_shoulder") - inner) @ upper
        )  # fmt: skip
        # Knuckles bend about the line across the palm, towards its inner side.
        across = hand @ (rest["index"] - rest["little"])
        bend = _about(across, -curls[k] if side == "left" else curls[k])
        fingers = bend @ hand
        tips = bend @ fingers
        knuckle = frame.joint(f"{side}_wrist") + hand @ (rest["knuckle"] - rest["wrist"])
        finger = knuckle + fingers @ (rest["finger"] - rest["knuckle"])
        for bone, matrix, start, end in (
            ("clavicle", clavicle, rest["clavicle"], inner),
            ("upper_arm", arm[0], rest["shoulder"], frame.joint(f"{side}_shoulder")),
            ("upper_arm_twist", arm[1], rest["shoulder"], frame.joint(f"{side}_shoulder")),
            ("forearm", arm[2], rest["elbow"], frame.joint(f"{side}_elbow")),
            ("forearm_twist", _between(arm[2], hand, 0.5), rest["wrist"],
             frame.joint(f"{side}_wrist")),
            ("hand", hand, rest["wrist"], frame.joint(f"{side}_wrist")),
            ("fingers", fingers, rest["knuckle"], knuckle),
            ("finger_tips", tips, rest["finger"], finger),
            ("thigh", leg[0], rest["hip"], frame.joint(f"{side}_hip")),
            ("thigh_twist", leg[1], rest["hip"], frame.joint(f"{side}_hip")),
            ("shin", leg[2], rest["knee"], frame.joint(f"{side}_knee")),
            ("foot", leg[2], rest["ankle"], frame.joint(f"{side}_ankle")),
        ):  # fmt: skip
            name = f"{side}_{bone}"
            matrices[name], starts[name], ends[name] = matrix, start, end
    above = [BONES.index(_parent(bone)) for bone in BONES]
    return _dual_quaternions(
        np.stack([matrices[bone] for bone in BONES]), np.stack([starts[bone] for bone in BONES]),
        np.stack([ends[bone] for bone in BONES]), np.array(above),
    )  # fmt: skip


def _parent(bone: str) -> str:
    """Return the bone above, which comes earlier in `BONES`; the first one's is itself."""
    if bone in TRUNK:
        return _PARENT.get(bone, bone)
    side, _, plain = bone.partition("_")
    parent = _PARENT[plain]
    return parent if parent in TRUNK else f"{side}_{parent}"


@njit(cache=True)
def _rotate(quaternions, vectors):  # type: ignore[no-untyped-def]
    out = np.empty(vectors.shape, np.float32)
    for k in range(len(vectors)):
        for i in range(vectors.shape[1]):
            w, a, b, c = quaternions[i]
            x, y, z = vectors[k, i]
            u, v, t = b * z - c * y + w * x, c * x - a * z + w * y, a * y - b * x + w * z
            out[k, i, 0] = x + 2.0 * (b * t - c * v)
            out[k, i, 1] = y + 2.0 * (c * u - a * t)
            out[k, i, 2] = z + 2.0 * (a * v - b * u)
    return out


@njit(cache=True)
def _unit(vector):  # type: ignore[no-untyped-def]
    return vector / (np.sqrt((vector * vector).sum()) + 1e-12)


@njit(cache=True)
def _axes(along, side):  # type: ignore[no-untyped-def]
    """Return (3, 3) orthonormal columns: along, towards `side`, and across both."""
    out = np.empty((3, 3))
    out[:, 0] = _unit(along)
    out[:, 1] = _unit(side - out[:, 0] * (side * out[:, 0]).sum())
    out[:, 2] = np.cross(out[:, 0], out[:, 1])
    return out


@njit(cache=True)
def _about(axis, angle):  # type: ignore[no-untyped-def]
    """Return (3, 3) the rotation about an axis, by Rodrigues' formula."""
    x, y, z = _unit(axis)
    k = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.eye(3) + np.sin(angle) * k + (1.0 - np.cos(angle)) * (k @ k)


@njit(cache=True)
def _swing(first, second):  # type: ignore[no-untyped-def]
    """Return (3, 3) the shortest turn of one direction to another."""
    axis = np.cross(first, second)
    angle = np.arctan2(np.sqrt((axis * axis).sum()), (first * second).sum())
    return _about(axis, angle)


@njit(cache=True)
def _between(first, second, fraction):  # type: ignore[no-untyped-def]
    """Return (3, 3) the rotation a fraction of the way from one to another."""
    turn = second @ first.T
    axis = np.array([turn[2, 1] - turn[1, 2], turn[0, 2] - turn[2, 0], turn[1, 0] - turn[0, 1]])
    sine = np.sqrt((axis * axis).sum())
    angle = np.arctan2(sine, turn[0, 0] + turn[1, 1] + turn[2, 2] - 1.0)
    return _about(axis, fraction * angle) @ first


@njit(cache=True)
def _limb(root, rest, posed, lean):  # type: ignore[no-untyped-def]
    """Return rotations of the root's end and of the end of the first bone, and of the second.

    Elbow and knee are hinges: their axis is across both bones. `lean` is added to it, since a
    stretched limb has no plane.
    """
    first, second = rest[1] - rest[0], rest[2] - rest[1]
    first1, second1 = posed[1] - posed[0], posed[2] - posed[1]
    hinge = np.cross(_unit(first), _unit(second)) + root.T @ lean
    hinge1 = np.cross(_unit(first1), _unit(second1)) + lean
    twisted = _axes(first1, hinge1) @ _axes(first, hinge).T
    carried = _swing(root @ first, first1) @ root
    return (
        _between(carried, twisted, 0.35),
        twisted,
        _axes(second1, hinge1) @ _axes(second, hinge).T,
    )


@njit(cache=True)
def _dual_quaternions(matrices, starts, ends, above):  # type: ignore[no-untyped-def]
    """Return (B, 8) of the motions that turn by `matrices` (B, 3, 3) and take starts to ends.

    Each is on the side of the sphere of the bone `above` (B,), or blends would go the long way.
    """
    out = np.zeros((len(matrices), 8))
    for i in range(len(matrices)):
        m = matrices[i]
        # The largest of the four squares is a safe divisor.
        squares = np.array(
            [1.0 + m[0, 0] + m[1, 1] + m[2, 2], 1.0 + m[0, 0] - m[1, 1] - m[2, 2],
             1.0 - m[0, 0] + m[1, 1] - m[2, 2], 1.0 - m[0, 0] - m[1, 1] + m[2, 2]]
        )  # fmt: skip
        k = squares.argmax()
        odd = np.array([m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]])
        q = np.empty(4)
        if k == 0:
            q[0], q[1:] = squares[0], odd
        else:
            a = k - 1
            b, c = (a + 1) % 3, (a + 2) % 3
            q[0], q[k] = odd[a], squares[k]
            q[b + 1], q[c + 1] = m[b, a] + m[a, b], m[c, a] + m[a, c]
        q /= np.sqrt((q * q).sum())
        if (q * out[above[i], :4]).sum() < 0.0:
            q = -q
        shift = ends[i] - m @ starts[i]
        out[i, :4] = q
        out[i, 4] = -0.5 * (shift * q[1:]).sum()
        out[i, 5:] = 0.5 * (q[0] * shift + np.cross(shift, q[1:]))
    return out


def _hand(
    forearm: np.ndarray, rest: dict[str, np.ndarray], frame: BodyFrame, side: str, turn: float
) -> np.ndarray:
    """Return the hand's rotation: the forearm's, twisted about itself.

    Thumbs point forwards when an arm hangs; the palm of a hand at the face is turned to it.
    """
    elbow, wrist = frame.joint(f"{side}_elbow"), frame.joint(f"{side}_wrist")
    along = _unit(wrist - elbow)
    now = forearm @ (rest["index"] - rest["little"])
    sign = 1.0 if side == "left" else -1.0
    wanted = frame.chest_front
    to_head = frame.head_centre - wrist
    if np.linalg.norm(to_head) < _NEAR_HEAD_M:
        wanted, turn = sign * cross(along, to_head), 0.3 * turn
    elif abs(float(wanted @ along)) > 0.9:
        wanted = -frame.down
    sine = float(cross(now, wanted) @ along)
    cosine = float(now @ wanted - (now @ along) * (wanted @ along))
    twist = float(np.clip(np.arctan2(sine, cosine) + turn, -_MAX_TWIST, _MAX_TWIST))
    return _about(along, twist) @ forearm
