"""Single heads with the images' own materials, light and places: crops for the regressor."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.spatial.transform import Rotation

from ml.captions import scene as words
from ml.captions.scene import PersonLook, Scene
from ml.flame.head_model import HeadModel
from ml.flame.rotation import FRONTAL
from ml.generation.config import SingleHeadConfig
from ml.generation.renderer.backgrounds import paint_background
from ml.generation.renderer.renderer import render_sample
from ml.generation.renderer.truth import TruthHead
from ml.imaging.rasterizer import Float32Array
from ml.poses.skeleton import Person, PoseSample

_HEAD_HEIGHT_M = 0.23
_BOX_SHARE = 4.0 / 9.0
"""Head box over image: a crop of 1.5 boxes takes two thirds of the image."""
_MAX_DRAWS = 5


@dataclass(frozen=True)
class SingleHead:
    """An image around one head.

    Attributes:
        image_rgb: (size, size, 3) uint8.
        box_xyxy: (4,) float32 box of the visible head, px of the image.
        flame: (413,) float32, frame of the image, px.
        visible: fraction of the head that is seen, 0 to 1.
        truth: the head's other ground truth.
    """

    image_rgb: np.ndarray
    box_xyxy: Float32Array
    flame: Float32Array
    visible: float
    truth: TruthHead


def render_single_head(
    head_model: HeadModel, config: SingleHeadConfig, rng: np.random.Generator, size: int
) -> SingleHead:
    """Draw one head whose box takes about 4/9 of a square image.

    Args:
        head_model: the head model.
        config: ranges of the rotation, occluders, and the renderer's settings.
        rng: source of chance; equal state gives equal bytes.
        size: side of the image, px.

    Returns:
        The image and its truth.

    Raises:
        ValueError: size is too small, or the head stayed hidden in several draws.
    """
    if size < 32:
        raise ValueError(f"single head: size must be at least 32 px, got {size}")
    for _ in range(_MAX_DRAWS):
        people, looks = [_person(config, rng, size)], [_random_look(config, rng)]
        if rng.random() < config.neighbour_probability:
            people.append(_neighbour(config, rng, size, people[0]))
            looks.append(_random_look(config, rng))
        scene = Scene(
            place=str(rng.choice(words.PLACES)),
            light=str(rng.choice(words.LIGHTS)),
            people=tuple(looks),
        )
        pose = PoseSample("single-head", size, size, "train", tuple(people))
        backdrop = _backdrop(config, scene.light, size, rng)
        sample = render_sample(pose, scene, head_model, config, rng, backdrop)
        for head in sample.heads:
            if head.person_id == 0:
                left, top, width, height = (float(v) for v in head.bbox_xywh)
                box = np.array([left, top, left + width, top + height], np.float32)
                return SingleHead(sample.image_rgb, box, head.flame, head.visible, head)
    raise ValueError(f"single head: hidden in {_MAX_DRAWS} draws; lower neighbour_probability")


def _backdrop(
    config: SingleHeadConfig, light: str, size: int, rng: np.random.Generator
) -> Float32Array | None:
    """Return a window of a shared place, or None: paint one for this image alone."""
    if not config.places_per_light:
        return None
    painted = _shared_place(light, int(rng.integers(config.places_per_light)), 2 * size)
    row, column = rng.integers(0, size + 1, 2)
    window = painted[row : row + size, column : column + size]
    return (window[:, ::-1] if rng.random() < 0.5 else window).copy()


@cache
def _shared_place(light: str, number: int, side: int) -> Float32Array:
    """Return the places that the images of a light share: the same ones in every process."""
    first = words.LIGHTS.index(light)
    place = words.PLACES[(first + number) % len(words.PLACES)]
    rng = np.random.default_rng((first, number))
    return paint_background(place, light, side, side, side / 2, rng)


_PROFILE_DEG = 95.0
"""Return whether at least one eye of the head can be seen."""


def _person(config: SingleHeadConfig, rng: np.random.Generator, size: int) -> Person:
    yaw = float(np.clip(rng.normal(0.0, config.yaw_std_deg), -_PROFILE_DEG, _PROFILE_DEG))
    if rng.random() < config.any_yaw_fraction:
        yaw = rng.uniform(-180.0, 180.0)
    pitch = float(np.clip(rng.normal(0.0, 0.42), -1.0, 1.0)) * config.pitch_max_deg
    roll = float(np.clip(rng.normal(0.0, 0.40), -1.0, 1.0)) * config.roll_max_deg
    turn = Rotation.from_euler("ZYX", [roll, yaw, pitch], degrees=True).as_matrix()
    body_yaw = yaw * rng.uniform(0.3, 1.0) + rng.normal(0.0, 12.0)
    scale = size * _BOX_SHARE / _HEAD_HEIGHT_M * rng.uniform(0.92, 1.06)
    middle = size * (0.5 + rng.normal(0.0, 0.012, 2))
    return _bust(
        FRONTAL @ turn, body_yaw, scale, middle, rng.random() < config.hand_probability, 0, rng
    )


def _neighbour(
    config: SingleHeadConfig, rng: np.random.Generator, size: int, person: Person
) -> Person:
    """Return a person next to, behind or partly in front."""
    turn = Rotation.from_euler("ZYX", rng.normal(0.0, (10.0, 50.0, 10.0)), degrees=True).as_matrix()
    side = rng.choice([-1.0, 1.0])
    scale = float(person.scale_px_per_m or 1.0) * rng.uniform(0.6, 1.1)
    middle = size * np.array([0.5 + side * rng.uniform(0.36, 0.62), 0.5 + rng.normal(0.0, 0.14)])
    order = -1 if rng.random() < 0.35 else 1
    return _bust(FRONTAL @ turn, rng.normal(0.0, 50.0), scale, middle, False, order, rng)


def _bust(
    rotation: np.ndarray,
    body_yaw_deg: float,
    scale: float,
    middle: np.ndarray,
    hand_at_face: bool,
    depth: int,
    rng: np.random.Generator,
) -> Person:
    """Return a skeleton under a head; only what an image of the head can show matters."""
    half = rng.uniform(0.155, 0.19)
    shrug, lean = rng.normal(0.0, 0.012), rng.normal(0.0, 0.03)
    body = Rotation.from_euler("y", body_yaw_deg, degrees=True).as_matrix()
    # FLAME axes: x to the person's left, y up, z to the front; neck at the origin.
    joints = np.zeros((17, 3))
    joints[5], joints[6] = (half, shrug, 0.0), (-half, -shrug, 0.0)
    joints[11], joints[12] = (0.1, -0.48, lean), (-0.1, -0.48, lean)
    for side, sign in ((0, 1.0), (1, -1.0)):
        elbow = joints[5 + side] + (sign * rng.uniform(0.02, 0.14), -0.27, rng.uniform(-0.06, 0.08))
        wrist = elbow + np.array(
            [sign * rng.uniform(-0.12, 0.05), rng.uniform(-0.24, -0.05), rng.uniform(0.05, 0.18)]
        )
        joints[7 + side], joints[9 + side] = elbow, wrist
        joints[13 + side] = joints[11 + side] + (0.0, -0.43, 0.02)
        joints[15 + side] = joints[13 + side] + (0.0, -0.42, -0.02)
    joints = joints @ (FRONTAL @ body).T
    neck_top = np.array([0.0, -rng.uniform(0.10, 0.13), 0.0]) + (FRONTAL @ body)[:, 2] * 0.02
    centre = neck_top - rotation @ np.array([0.0, -0.085, -0.02])
    if hand_at_face:
        side = int(rng.integers(2))
        target = centre + rotation @ np.array(
            [
                (1 - 2 * side) * rng.uniform(0.0, 0.09),
                rng.uniform(-0.12, 0.05),
                rng.uniform(0.10, 0.14),
            ]
        )
        joints[9 + side] = target + np.array([0.0, 0.09, 0.0]) + rng.normal(0.0, 0.012, 3)
        joints[7 + side] = 0.5 * (joints[5 + side] + joints[9 + side]) + (0.0, 0.19, -0.02)
    face = np.array([[0, -0.02, 0.125], [0.032, 0.027, 0.083], [-0.032, 0.027, 0.083],
                     [0.078, 0.0, -0.005], [-0.078, 0.0, -0.005]])  # fmt: skip
    joints[:5] = centre + face @ rotation.T
    shift = middle - scale * (centre[:2] + (rotation @ np.array([0.0, 0.012, 0.0]))[:2])
    keypoints = np.concatenate([scale * joints[:, :2] + shift, np.ones((17, 1))], axis=1)
    return Person(
        keypoints=keypoints.astype(np.float32),
        joints_m=joints.astype(np.float32),
        head_rotation=rotation.astype(np.float32),
        scale_px_per_m=float(scale),
        shift_px=shift.astype(np.float32),
        depth=depth,
        head_centre_m=centre.astype(np.float32),
    )


def _random_look(config: SingleHeadConfig, rng: np.random.Generator) -> PersonLook:
    """Draw any combination of the vocabularies; bare heads and faces are the most frequent."""
    subject = str(rng.choice(["person", "man", "woman"]))
    hat = str(rng.choice(words.HATS)) if rng.random() < config.hat_probability else "none"
    glasses = str(rng.choice(words.GLASSES)) if rng.random() < 0.35 else "none"
    beard = str(rng.choice(words.BEARDS)) if subject == "man" else "none"
    return PersonLook(
        subject=subject,
        skin_tone=int(rng.choice(words.MONK_TONES)),
        top=str(rng.choice(words.TOPS)),
        top_colour=str(rng.choice(words.COLOURS)),
        top_pattern=str(rng.choice(words.PATTERNS)) if rng.random() < 0.5 else "plain",
        bottom=str(rng.choice(words.BOTTOMS)),
        bottom_colour=str(rng.choice(words.COLOURS)),
        hair_style=str(rng.choice(words.HAIR_STYLES)),
        hair_colour=str(rng.choice(words.HAIR_COLOURS)),
        glasses=glasses,
        hat=hat,
        beard=beard,
    )
