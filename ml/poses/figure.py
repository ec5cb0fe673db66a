"""The articulated figure: body proportions, limbs, postures and the head on top.

Body frame (FLAME's axes): origin between the hips, metres, x to the person's left, y up, z to the
front. "Metres" are those of FLAME's head, whose size is the same for all people: a child has short
limbs here and a smaller `head_scale` that shrinks the whole figure in the image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from scipy.spatial.transform import Rotation

Posture = Literal["standing", "walking", "sitting"]
Side = Literal["left", "right"]

IMAGE_FROM_BODY: Final = np.diag([1.0, -1.0, -1.0])
"""Turns body axes into image axes for a body that faces the camera."""

UP: Final = np.array([0.0, 1.0, 0.0])

FACE_POINTS_M: Final = np.array(
    [
        [0.0, -0.018, 0.123],
        [0.032, 0.022, 0.084],
        [-0.032, 0.022, 0.084],
        [0.078, 0.0, 0.0],
        [-0.078, 0.0, 0.0],
    ]
)
"""(5, 3) nose, left eye, right eye, left ear, right ear; FLAME head frame, metres."""

FACE_NORMALS: Final = np.array(
    [[0.0, -0.1, 1.0], [0.35, 0.1, 0.93], [-0.35, 0.1, 0.93], [0.98, 0.0, -0.2], [-0.98, 0.0, -0.2]]
)
"""(5, 3) outward directions of the face points; FLAME head frame."""

SKULL_PIVOT_M: Final = np.array([0.0, -0.085, -0.02])
"""Where the skull turns on the neck, FLAME head frame, metres."""
HEAD_HEIGHT_M: Final = 0.224
"""Chin to crown of the embedded mean head, metres; turned heads have a higher box."""
HEAD_RADIUS_M: Final = 0.11
CHILD_LIMB_LIMIT: Final = 0.88
"""Limbs shorter than this fraction of an adult's belong to a child."""
ADULT_LEG_AND_TORSO_M: Final = 1.33


@dataclass(frozen=True)
class Proportions:
    """Lengths of one body, metres.

    Attributes:
        shoulders: distance between the shoulder joints.
        hips: distance between the hip joints.
        torso: hip line to shoulder line.
        neck: shoulder line to the skull's pivot.
        upper_arm: shoulder to elbow.
        forearm: elbow to wrist.
        thigh: hip to knee.
        shin: knee to ankle.
        head_scale: this person's metre in the image against an adult's; 1 for adults.
    """

    shoulders: float
    hips: float
    torso: float
    neck: float
    upper_arm: float
    forearm: float
    thigh: float
    shin: float
    head_scale: float

    @property
    def arm(self) -> float:
        """Reach of an arm, metres."""
        return self.upper_arm + self.forearm


@dataclass(frozen=True)
class Figure:
    """A posed body in image axes around its hips.

    Attributes:
        joints_m: (17, 3) COCO joints, metres, x right, y down, z away from the camera.
        head_rotation: (3, 3) FLAME head frame to image axes.
        head_centre_m: (3,) FLAME's origin, same frame as `joints_m`.
        head_scale: this person's metre in the image against an adult's.
        arm_targets: what each hand does, (left, right); for tables and tests.
        posture: standing, walking or sitting.
    """

    joints_m: np.ndarray
    head_rotation: np.ndarray
    head_centre_m: np.ndarray
    head_scale: float
    arm_targets: tuple[str, str]
    posture: Posture


def sample_proportions(rng: np.random.Generator, is_child: bool) -> Proportions:
    """Draw a plausible body.

    Args:
        rng: Source of randomness.
        is_child: Three to twelve years old: short limbs, shorter legs still, a smaller head.

    Returns:
        Lengths in metres of FLAME's head.
    """
    # Body length in head units: an adult of 7.5 heads is 1; three years are 5, twelve are 6.7.
    size = float(rng.uniform(0.58, 0.80)) if is_child else float(rng.normal(1.0, 0.035))
    size = float(np.clip(size, 0.55, 1.1))
    leg_size = size**1.2 if is_child else size
    jitter = np.exp(np.clip(rng.normal(0.0, 0.035, 8), -0.08, 0.08))
    build = float(np.clip(rng.normal(1.0, 0.06), 0.86, 1.16))
    return Proportions(
        shoulders=0.345 * size * build * jitter[0],
        hips=0.205 * size * build * jitter[1],
        torso=0.475 * size * jitter[2],
        neck=0.115 * size**0.5 * jitter[3],
        upper_arm=0.285 * size * jitter[4],
        forearm=0.255 * size * jitter[5],
        thigh=0.435 * leg_size * jitter[6],
        shin=0.42 * leg_size * jitter[7],
        head_scale=float(rng.uniform(0.80, 0.93)) if is_child else float(rng.normal(1.0, 0.02)),
    )


def looks_like_child(joints_m: np.ndarray) -> bool:
    """Return whether a figure has a child's proportions, whatever its posture.

    Args:
        joints_m: (17, 3) COCO joints, metres of FLAME's head.

    Returns:
        True when torso and legs together are short against the head.
    """
    hips, shoulders = joints_m[11:13].mean(0), joints_m[5:7].mean(0)
    length = float(np.linalg.norm(shoulders - hips))
    for hip, knee, ankle in ((11, 13, 15), (12, 14, 16)):
        length += 0.5 * float(np.linalg.norm(joints_m[knee] - joints_m[hip]))
        length += 0.5 * float(np.linalg.norm(joints_m[ankle] - joints_m[knee]))
    return length < CHILD_LIMB_LIMIT * ADULT_LEG_AND_TORSO_M


def two_bone(
    root: np.ndarray, target: np.ndarray, first: float, second: float, pole: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Solve the inverse kinematics of an arm or leg of two bones.

    Args:
        root: (3,) shoulder or hip, metres.
        target: (3,) where wrist or ankle should be; out of reach is brought into reach.
        first: length of the first bone, metres.
        second: length of the second bone, metres.
        pole: (3,) direction to which the middle joint bends.

    Returns:
        (3,) middle joint and (3,) end; both bones keep their lengths exactly.
    """
    reach = target - root
    distance = float(np.linalg.norm(reach))
    direction = reach / distance if distance > 1e-9 else np.array([0.0, -1.0, 0.0])
    # A fully stretched or folded limb has no bending plane: stay just inside of both.
    distance = float(np.clip(distance, abs(first - second) + 0.02, 0.995 * (first + second)))
    bend = pole - direction * float(pole @ direction)
    if np.linalg.norm(bend) < 1e-6:
        bend = np.cross(direction, np.eye(3)[np.argmin(np.abs(direction))])
    bend /= np.linalg.norm(bend)
    along = (first**2 - second**2 + distance**2) / (2 * distance)
    across = float(np.sqrt(max(first**2 - along**2, 0.0)))
    return root + along * direction + across * bend, root + distance * direction


def sample_figure(
    rng: np.random.Generator,
    *,
    body_yaw_deg: float,
    camera_pitch_deg: float,
    is_child: bool,
    posture: Posture,
    gaze: float,
    bent: bool = False,
) -> Figure:
    """Draw a posed figure.

    Args:
        rng: Source of randomness.
        body_yaw_deg: Turn of the body about the vertical, 0 facing the camera; positive turns
            the face to the left of the image (FLAME's yaw, by the official Euler convention).
        camera_pitch_deg: Tilt of the camera, positive looking down on people.
        is_child: Whether the body is a child's.
        posture: What the legs do.
        gaze: 0 to 1, how strongly the head turns back to the camera.
        bent: Whether the head is bent far, as over a phone or against a shoulder.

    Returns:
        The figure in image axes.
    """
    lengths = sample_proportions(rng, is_child)
    torso = _torso_rotation(rng, posture)
    hip_half = np.array([lengths.hips / 2, 0.0, 0.0])
    shoulder_half = np.array([lengths.shoulders / 2, 0.0, 0.0])
    chest = torso @ np.array([0.0, lengths.torso, 0.0])
    shrug = rng.normal(0.0, 0.012, 2)
    shoulders = {
        "left": chest + torso @ (shoulder_half + shrug[0] * UP),
        "right": chest + torso @ (-shoulder_half + shrug[1] * UP),
    }
    hips = {"left": hip_half, "right": -hip_half}

    camera = Rotation.from_euler("x", camera_pitch_deg, degrees=True).as_matrix()
    body = camera @ Rotation.from_euler("y", -body_yaw_deg, degrees=True).as_matrix()
    head_in_body = torso @ _neck_rotation(rng, body_yaw_deg, gaze, bent)
    pivot = chest + torso @ np.array([0.0, lengths.neck, 0.018])
    head_centre = pivot - head_in_body @ SKULL_PIVOT_M

    knees, ankles = _legs(rng, lengths, hips, posture)
    gesture = _sample_gesture(rng, posture)
    elbows, wrists = {}, {}
    for side, action in zip(("left", "right"), gesture, strict=True):
        target, pole = _arm_target(
            rng, action, side, lengths, shoulders, hips, knees, torso, head_in_body, head_centre
        )
        elbows[side], wrists[side] = two_bone(
            shoulders[side], target, lengths.upper_arm, lengths.forearm, pole
        )

    face = head_centre + FACE_POINTS_M @ head_in_body.T
    parts = (shoulders, elbows, wrists, hips, knees, ankles)
    limbs = [part[side] for part in parts for side in ("left", "right")]
    joints = np.concatenate([face, np.stack(limbs)])
    to_image = IMAGE_FROM_BODY @ body
    return Figure(
        joints_m=(joints @ to_image.T).astype(np.float32),
        head_rotation=(to_image @ head_in_body).astype(np.float32),
        head_centre_m=(to_image @ head_centre).astype(np.float32),
        head_scale=lengths.head_scale,
        arm_targets=gesture,
        posture=posture,
    )


def hug(figure: Figure, side: Side, target_m: np.ndarray) -> Figure:
    """Lay one arm of a figure around another person.

    Args:
        figure: Whose arm moves.
        side: Which arm.
        target_m: (3,) where the wrist goes, in the figure's frame (image axes, metres).

    Returns:
        The figure with elbow and wrist of that side moved, bones keeping their lengths.
    """
    shoulder, elbow, wrist = (5, 7, 9) if side == "left" else (6, 8, 10)
    joints = figure.joints_m.astype(np.float64)
    first = float(np.linalg.norm(joints[elbow] - joints[shoulder]))
    second = float(np.linalg.norm(joints[wrist] - joints[elbow]))
    pole = np.array([0.0, 1.0, 0.4])
    joints[elbow], joints[wrist] = two_bone(joints[shoulder], target_m, first, second, pole)
    actions = ("hug", figure.arm_targets[1]) if side == "left" else (figure.arm_targets[0], "hug")
    return Figure(
        joints_m=joints.astype(np.float32),
        head_rotation=figure.head_rotation,
        head_centre_m=figure.head_centre_m,
        head_scale=figure.head_scale,
        arm_targets=actions,
        posture=figure.posture,
    )


def _torso_rotation(rng: np.random.Generator, posture: Posture) -> np.ndarray:
    """Return (3, 3) shoulders against hips: twist, lean to the front and to the side."""
    twist = np.clip(rng.normal(0.0, 10.0), -30, 30)
    lean = np.clip(rng.normal(8.0 if posture == "sitting" else 3.0, 6.0), -12, 30)
    side = np.clip(rng.normal(0.0, 4.0), -12, 12)
    return Rotation.from_euler("yxz", [twist, lean, side], degrees=True).as_matrix()


def _neck_rotation(
    rng: np.random.Generator, body_yaw_deg: float, gaze: float, bent: bool
) -> np.ndarray:
    """Return (3, 3) head against torso, within what a neck can do."""
    wrapped = (body_yaw_deg + 180.0) % 360.0 - 180.0
    back_to_camera = float(np.clip(wrapped, -55, 55)) if abs(wrapped) < 115 else 0.0
    yaw = gaze * back_to_camera + rng.normal(0.0, 19.0)
    # The neck makes up for the forward lean of most torsos.
    pitch = rng.normal(-4.0, 10.0)
    roll = rng.normal(0.0, 7.0)
    if bent:
        # More often down than up: phones, books, plates, children.
        pitch += rng.normal(8.0, 22.0)
        roll += rng.normal(0.0, 16.0)
    limited = [np.clip(yaw, -75, 75), np.clip(pitch, -40, 45), np.clip(roll, -32, 32)]
    return Rotation.from_euler("YXZ", limited, degrees=True).as_matrix()


def _legs(
    rng: np.random.Generator,
    lengths: Proportions,
    hips: dict[str, np.ndarray],
    posture: Posture,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return knees and ankles by side, body frame."""
    knees, ankles = {}, {}
    stance = abs(rng.normal(0.03, 0.04))
    stride = rng.uniform(0.12, 0.38) * (1.0 if rng.random() < 0.5 else -1.0)
    leg = lengths.thigh + lengths.shin
    for side, sign in (("left", 1.0), ("right", -1.0)):
        outward = np.array([sign, 0.0, 0.0])
        if posture == "sitting":
            spread = rng.uniform(0.02, 0.30)
            thigh = np.array([sign * spread, rng.uniform(-0.15, 0.12), 1.0])
            knees[side] = hips[side] + lengths.thigh * thigh / np.linalg.norm(thigh)
            shin = np.array([sign * rng.uniform(-0.2, 0.1), -1.0, rng.uniform(-0.3, 0.3)])
            ankles[side] = knees[side] + lengths.shin * shin / np.linalg.norm(shin)
            continue
        front = sign * stride if posture == "walking" else rng.normal(0.0, 0.03)
        height = leg * (0.965 if front > -0.05 else 0.90)
        target = hips[side] + stance * outward + np.array([0.0, -height, front])
        pole = np.array([0.15 * sign, 0.0, 1.0])
        knees[side], ankles[side] = two_bone(hips[side], target, lengths.thigh, lengths.shin, pole)
    return knees, ankles


GESTURES: Final = {
    ("relaxed", "relaxed"): 0.30,
    ("relaxed", "gesture"): 0.10,
    ("gesture", "gesture"): 0.08,
    ("hip", "relaxed"): 0.07,
    ("hip", "hip"): 0.04,
    ("folded", "folded"): 0.07,
    ("front", "front"): 0.08,
    ("raised", "relaxed"): 0.06,
    ("raised", "raised"): 0.03,
    ("cheek", "relaxed"): 0.04,
    ("chin", "folded"): 0.04,
    ("phone", "relaxed"): 0.04,
    ("forehead", "relaxed"): 0.03,
    ("cheek", "cheek"): 0.02,
}
"""What the two arms do together, with its fraction; either arm may take either part."""


def _sample_gesture(rng: np.random.Generator, posture: Posture) -> tuple[str, str]:
    """Return what the (left, right) arm does."""
    pairs = list(GESTURES)
    fractions = np.array([GESTURES[pair] for pair in pairs])
    first, second = pairs[int(rng.choice(len(pairs), p=fractions / fractions.sum()))]
    if posture == "sitting":
        first, second = ("lap" if part == "relaxed" else part for part in (first, second))
    return (first, second) if rng.random() < 0.5 else (second, first)


_BY_SHOULDER: Final = {
    # wrist from the shoulder in arm lengths (outward, up, front), its spread, elbow direction
    "relaxed": ((0.14, -0.95, 0.06), 0.06, (0.5, 0.0, -1.0)),
    "gesture": ((0.25, -0.25, 0.62), 0.16, (0.8, -1.0, -0.2)),
    "raised": ((0.32, 0.68, 0.15), 0.16, (1.0, -0.2, 0.2)),
    "folded": ((-0.42, -0.52, 0.32), 0.04, (1.0, -0.5, 0.0)),
    "front": ((-0.20, -0.68, 0.36), 0.06, (1.0, -0.3, -0.4)),
}
_BY_HEAD: Final = {
    # wrist from FLAME's origin, metres (outward, up, front): the hand continues to the face
    "chin": ((0.05, -0.20, 0.12), 0.012, (0.6, -1.0, 0.0)),
    "cheek": ((0.12, -0.13, 0.09), 0.012, (0.6, -1.0, 0.0)),
    "phone": ((0.15, -0.08, 0.03), 0.012, (1.0, -1.0, 0.0)),
    "forehead": ((0.13, 0.07, 0.13), 0.015, (1.0, -0.5, 0.3)),
}


def _arm_target(
    rng: np.random.Generator,
    action: str,
    side: str,
    lengths: Proportions,
    shoulders: dict[str, np.ndarray],
    hips: dict[str, np.ndarray],
    knees: dict[str, np.ndarray],
    torso: np.ndarray,
    head: np.ndarray,
    head_centre: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Return wrist target and elbow direction of one arm, body frame."""
    mirror = np.array([1.0 if side == "left" else -1.0, 1.0, 1.0])
    if action in _BY_HEAD:
        offset, spread, pole = _BY_HEAD[action]
        local = mirror * np.array(offset) + rng.normal(0.0, spread, 3)
        return head_centre + head @ local, torso @ (mirror * np.array(pole))
    if action == "hip":
        outward = mirror * np.array([0.07, 0.06, 0.03]) + rng.normal(0.0, 0.015, 3)
        return hips[side] + outward, torso @ (mirror * np.array([1.0, 0.0, -0.5]))
    if action == "lap":
        along = hips[side] + rng.uniform(0.55, 0.95) * (knees[side] - hips[side])
        return along + 0.07 * UP, torso @ (mirror * np.array([1.0, -0.3, -0.4]))
    offset, spread, pole = _BY_SHOULDER[action]
    local = mirror * np.array(offset) + rng.normal(0.0, spread, 3)
    return shoulders[side] + torso @ (lengths.arm * local), torso @ (mirror * np.array(pole))
