"""The embedded pose source: images of one to eight sampled people, from portrait to group."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from ml.poses.config import PosesConfig
from ml.poses.figure import HEAD_HEIGHT_M, Figure, Posture, hug, sample_figure
from ml.poses.occlusion import PlacedFigure, confidences, hidden_fraction, inside_fraction
from ml.poses.skeleton import Person, PoseSample
from ml.records.ids import sample_rng, stable_fraction

STAGE: Final = "poses"
MIN_INSIDE: Final = 0.5
"""An image needs one head with at least this fraction inside the frame and in front."""


class ImplausiblePose(ValueError):
    """No attempt gave an image with a visible head inside the frame."""


@dataclass(frozen=True)
class Slot:
    """Where one person of a layout goes; lengths are fractions of the image's shorter side.

    Attributes:
        head: Height of an adult's head.
        x: Head centre, fraction of the width.
        y: Head centre, fraction of the height; None places the person on `ground`.
        ground: Lowest joint, fraction of the height; used when `y` is None.
        distance: Order from the camera, smaller is nearer.
        posture: What the legs do.
        body_yaw_deg: Turn of the body.
        partner: Index of the slot this person lays an arm around, or None.
    """

    head: float
    x: float
    y: float | None
    ground: float
    distance: float
    posture: Posture
    body_yaw_deg: float
    partner: int | None = None


def sample_pose(pose_id: str, run_seed: int, config: PosesConfig) -> PoseSample:
    """Draw the people of one image.

    A draw without any head inside the frame is repeated with the next seed of the same pose, so
    the result depends on nothing but the arguments.

    Args:
        pose_id: Id of the pose; seeds the draw and fixes the split.
        run_seed: The run's seed.
        config: Size of the image, mix of layouts, split fractions.

    Returns:
        One to `config.max_people` people, nearest first.

    Raises:
        ImplausiblePose: `config.max_attempts` draws all had no visible head.
    """
    for attempt in range(config.max_attempts):
        rng = sample_rng(run_seed, STAGE, f"{pose_id}/{attempt}")
        layout, people = _sample_people(rng, config)
        if _has_visible_head(people, config):
            break
    else:
        raise ImplausiblePose(
            f"poses: {pose_id}: none of {config.max_attempts} draws has a head at least "
            f"{MIN_INSIDE:.0%} inside the {config.width}x{config.height} frame; raise "
            "poses.max_attempts or lower poses.cut_probability"
        )
    scores = confidences(people, config.width, config.height, rng)
    return PoseSample(
        pose_id=pose_id,
        width=config.width,
        height=config.height,
        split=split_of(pose_id, config.val_fraction, config.test_fraction),
        people=tuple(
            _to_person(person, score, depth)
            for depth, (person, score) in enumerate(zip(people, scores, strict=True))
        ),
        layout=layout,
    )


def split_of(pose_id: str, val_fraction: float, test_fraction: float) -> str:
    """Return the split of a source pose, from a stable hash of its id alone.

    The hash ignores run seed, shard and order, so adding or remaking shards never moves a pose
    from one split to another.

    Args:
        pose_id: Id of the source pose.
        val_fraction: Expected fraction of poses in `val`, in [0, 1).
        test_fraction: Expected fraction of poses in `test`, in [0, 1).

    Returns:
        `"train"`, `"val"` or `"test"`.

    Raises:
        ValueError: The fractions leave nothing for training.
    """
    if val_fraction < 0 or test_fraction < 0 or val_fraction + test_fraction >= 1:
        raise ValueError(
            "splits: val_fraction and test_fraction must be >= 0 and leave a fraction for train, "
            f"got {val_fraction} and {test_fraction}"
        )
    position = stable_fraction(pose_id)
    if position < test_fraction:
        return "test"
    if position < test_fraction + val_fraction:
        return "val"
    return "train"


_MOST_FACING_YAW_DEG = 85.0
"""A body turned further than this shows its back: only `any_yaw_fraction` of them are."""


def sample_body_yaw_deg(rng: np.random.Generator, config: PosesConfig) -> float:
    """Return the turn of a body about the vertical: mostly towards the camera, at times anywhere.

    Args:
        rng: Source of randomness.
        config: Fractions of bodies turned anywhere, and of frontal ones among the others.

    Returns:
        Degrees in [-180, 180), 0 facing the camera, positive to the left of the image.
    """
    if rng.random() < config.any_yaw_fraction:
        return float(rng.uniform(-180.0, 180.0))
    std_deg = 31.0 if rng.random() < config.frontal_fraction else 66.0
    while abs(yaw_deg := rng.normal(0.0, std_deg)) > _MOST_FACING_YAW_DEG:
        pass
    return float(yaw_deg)


_GAZE_SPREAD = 1.5
"""First parameter of the beta distribution of gaze; above 1, few heads turn back wholly or not."""


def _sample_people(rng: np.random.Generator, config: PosesConfig) -> tuple[str, list[PlacedFigure]]:
    """Return the layout of one draw and its people, nearest first; there may be none."""
    names = sorted(LAYOUTS)
    fractions = np.array([getattr(config, f"fraction_{name}") for name in names])
    layout = names[int(rng.choice(len(names), p=fractions / fractions.sum()))]
    slots = LAYOUTS[layout](rng, config)[: config.max_people]
    camera_pitch = float(np.clip(rng.normal(3.0, 7.0), -18, 25))
    placed: list[PlacedFigure] = []
    for slot in slots:
        partner = placed[slot.partner] if slot.partner is not None and placed else None
        person = _place(rng, slot, config, camera_pitch, placed, partner)
        if person is not None:
            placed.append(person)
    return layout, sorted(placed, key=lambda person: person.distance)


def _place(
    rng: np.random.Generator,
    slot: Slot,
    config: PosesConfig,
    camera_pitch_deg: float,
    placed: list[PlacedFigure],
    partner: PlacedFigure | None,
) -> PlacedFigure | None:
    """Put one person into the image where the heads of all can still be seen, or nowhere."""
    figure = sample_figure(
        rng,
        body_yaw_deg=slot.body_yaw_deg,
        camera_pitch_deg=camera_pitch_deg,
        is_child=bool(rng.random() < config.child_fraction),
        posture=slot.posture,
        gaze=float(rng.beta(_GAZE_SPREAD, _GAZE_SPREAD * (1 / config.gaze_fraction - 1))),
        bent=bool(config.bent_fraction and rng.random() < config.bent_fraction),
    )
    for attempt in range(8):
        # Neighbours are pushed apart a little more with every refusal.
        spread = 0.0 if attempt == 0 else 0.35 * slot.head * (1 + attempt / 2)
        offset = rng.normal(0.0, 1.0, 2) * spread * (1.0, 0.35)
        candidate = _position(rng, figure, slot, config, offset)
        if partner is not None:
            candidate = _embrace(rng, candidate, partner)
        if _keeps_heads_visible(candidate, placed, config.max_head_overlap):
            return candidate
    return None


def _position(
    rng: np.random.Generator,
    figure: Figure,
    slot: Slot,
    config: PosesConfig,
    offset: np.ndarray,
) -> PlacedFigure:
    """Return a figure at its slot, its head inside the frame or deliberately cut by the border."""
    side = min(config.width, config.height)
    head_px = slot.head * side
    scale = head_px / HEAD_HEIGHT_M * figure.head_scale
    x = slot.x * config.width + offset[0] * side
    if slot.y is None:
        lowest = float(figure.joints_m[:, 1].max() - figure.head_centre_m[1])
        y = slot.ground * config.height - scale * lowest + offset[1] * side
    else:
        y = slot.y * config.height + offset[1] * side
    x = _keep_within(x, 0.62 * head_px, config.width)
    y = _keep_within(y, 0.62 * head_px, config.height)
    if rng.random() < config.cut_probability:
        x, y = _cut_by_border(rng, x, y, head_px, config)
    shift = np.array([x, y]) - scale * figure.head_centre_m[:2].astype(np.float64)
    return PlacedFigure(figure, float(scale), shift.astype(np.float32), slot.distance)


def _keep_within(position: float, margin: float, length: float) -> float:
    """Return a position at least `margin` from both ends, the middle where that is impossible."""
    margin = min(margin, length / 2)
    return float(np.clip(position, margin, length - margin))


def _cut_by_border(
    rng: np.random.Generator, x: float, y: float, head_px: float, config: PosesConfig
) -> tuple[float, float]:
    """Move a head over the nearest side or the top border, by up to 40 % of its height."""
    overhang = head_px * rng.uniform(-0.4, 0.4)
    if rng.random() < 0.3:
        return x, overhang
    return (overhang if x < config.width / 2 else config.width - overhang), y


def _embrace(rng: np.random.Generator, person: PlacedFigure, partner: PlacedFigure) -> PlacedFigure:
    """Return the person next to the partner, same scale, one arm over the partner's shoulders."""
    on_right = person.head_px[0] >= partner.head_px[0]
    gap_m = rng.uniform(0.27, 0.40) * (1.0 if on_right else -1.0)
    # Metres of heads differ between child and adult: the common unit is the adult's metre.
    adult_scale = partner.scale_px_per_m / partner.figure.head_scale
    scale = adult_scale * person.figure.head_scale
    offset_m = np.array([gap_m, rng.normal(0.0, 0.03)])
    hips = partner.shift_px.astype(np.float64) + adult_scale * offset_m
    far_shoulder = partner.points_px[5 if not on_right else 6]
    behind = partner.figure.joints_m[5:7, 2].mean() + 0.1
    target = np.append((far_shoulder - hips) / scale, behind)
    figure = hug(person.figure, "right" if on_right else "left", target)
    return PlacedFigure(figure, scale, hips.astype(np.float32), person.distance)


def _keeps_heads_visible(
    candidate: PlacedFigure, placed: list[PlacedFigure], max_overlap: float
) -> bool:
    """Return whether no head, new or old, would be covered for more than the allowed fraction."""
    everyone = sorted([*placed, candidate], key=lambda person: person.distance)
    fractions = (hidden_fraction(person, everyone[:index]) for index, person in enumerate(everyone))
    return all(fraction <= max_overlap for fraction in fractions)


def _has_visible_head(people: list[PlacedFigure], config: PosesConfig) -> bool:
    """Return whether some head is in the frame and not behind others."""
    return any(
        inside_fraction(person, config.width, config.height) >= MIN_INSIDE
        and hidden_fraction(person, people[:index]) <= config.max_head_overlap
        for index, person in enumerate(people)
    )


def _to_person(person: PlacedFigure, score: np.ndarray, depth: int) -> Person:
    keypoints = np.concatenate([person.points_px, score[:, None]], axis=1)
    return Person(
        keypoints=keypoints.astype(np.float32),
        joints_m=person.figure.joints_m,
        head_rotation=person.figure.head_rotation,
        scale_px_per_m=float(np.float32(person.scale_px_per_m)),
        shift_px=person.shift_px,
        depth=depth,
        head_centre_m=person.figure.head_centre_m,
    )


def _posture(rng: np.random.Generator, sitting: float, walking: float) -> Posture:
    draw = rng.random()
    if draw < sitting:
        return "sitting"
    return "walking" if draw < sitting + walking else "standing"


def _portrait(rng: np.random.Generator, config: PosesConfig) -> list[Slot]:
    """Return a close-up of one head, seldom two."""
    num_people = 1 if rng.random() < 0.9 else 2
    head = rng.uniform(0.30, 0.52) if num_people == 1 else rng.uniform(0.26, 0.36)
    centres = [0.5] if num_people == 1 else [0.29, 0.71]
    return [
        Slot(
            head=head * rng.uniform(0.9, 1.05),
            x=centre + rng.normal(0.0, 0.07),
            y=rng.uniform(0.34, 0.50),
            ground=1.0,
            distance=rng.random(),
            posture=_posture(rng, 0.3, 0.1),
            body_yaw_deg=sample_body_yaw_deg(rng, config),
        )
        for centre in centres
    ]


def _half_body(rng: np.random.Generator, config: PosesConfig) -> list[Slot]:
    """Return one to three people from the waist up."""
    num_people = int(rng.choice([1, 2, 3], p=[0.42, 0.38, 0.20]))
    head = rng.uniform(0.17, 0.30) / (1 + 0.13 * (num_people - 1))
    return [
        Slot(
            head=head * rng.uniform(0.88, 1.1),
            x=(index + 0.5) / num_people + rng.normal(0.0, 0.06),
            y=rng.uniform(0.20, 0.42),
            ground=1.0,
            distance=rng.random(),
            posture=_posture(rng, 0.35, 0.1),
            body_yaw_deg=sample_body_yaw_deg(rng, config),
        )
        for index in range(num_people)
    ]


def _full_body(rng: np.random.Generator, config: PosesConfig) -> list[Slot]:
    """Return one to three whole figures on the ground."""
    num_people = int(rng.choice([1, 2, 3], p=[0.45, 0.35, 0.20]))
    head = rng.uniform(0.086, 0.135)
    ground = rng.uniform(0.86, 0.98)
    return [
        Slot(
            head=head * rng.uniform(0.94, 1.06),
            x=(index + 0.5) / num_people + rng.normal(0.0, 0.08),
            y=None,
            ground=ground + rng.normal(0.0, 0.01),
            distance=rng.random(),
            posture=_posture(rng, 0.15, 0.35),
            body_yaw_deg=sample_body_yaw_deg(rng, config),
        )
        for index in range(num_people)
    ]


def _group(rng: np.random.Generator, config: PosesConfig) -> list[Slot]:
    """Return three to eight people close together in one to three rows, the front row lower."""
    num_people = int(rng.integers(3, 9))
    num_rows = 1 if num_people <= 3 else int(rng.integers(2, 3 if num_people < 7 else 4))
    head = rng.uniform(0.13, 0.19) if num_people <= 4 else rng.uniform(0.095, 0.150)
    spacing = head * rng.uniform(1.25, 1.9)
    middle, top = rng.normal(0.5, 0.05), rng.uniform(0.16, 0.30)
    slots = []
    for row, members in enumerate(np.array_split(np.arange(num_people), num_rows)):
        # Row 0 is in front: lower in the image, often sitting, a little larger.
        step = head * rng.uniform(0.75, 1.15) * (num_rows - 1 - row)
        for place, _ in enumerate(members):
            centre = place - (len(members) - 1) / 2 + 0.5 * (row % 2) - 0.25 * (num_rows > 1)
            sitting = 0.45 if row == 0 and num_rows > 1 else 0.05
            slots.append(
                Slot(
                    head=head * (1 - 0.05 * row) * rng.uniform(0.94, 1.06),
                    x=middle + centre * spacing + rng.normal(0.0, 0.012),
                    y=top + step + rng.normal(0.0, 0.22 * head),
                    ground=1.0,
                    distance=row + 0.8 * rng.random(),
                    posture=_posture(rng, sitting, 0.05),
                    body_yaw_deg=0.75 * sample_body_yaw_deg(rng, config),
                )
            )
    return slots


def _scattered(rng: np.random.Generator, config: PosesConfig) -> list[Slot]:
    """Return two to six people at very different distances, seen from about their eye level."""
    num_people = int(rng.integers(2, 7))
    horizon = rng.uniform(0.22, 0.45)
    heads = np.sort(np.exp(rng.uniform(np.log(config.farthest_head), np.log(0.32), num_people)))[
        ::-1
    ]
    columns = rng.permutation(num_people)
    return [
        Slot(
            head=float(head),
            x=float((column + rng.uniform(0.15, 0.85)) / num_people),
            y=float(horizon + rng.normal(0.02, 0.25) * head),
            ground=1.0,
            distance=float(1.0 / head),
            posture=_posture(rng, 0.08, 0.4),
            body_yaw_deg=sample_body_yaw_deg(rng, config),
        )
        for head, column in zip(heads, columns, strict=True)
    ]


def _couple(rng: np.random.Generator, _config: PosesConfig) -> list[Slot]:
    """Return two people side by side, one with an arm around the other."""
    head = rng.uniform(0.13, 0.30)
    turn = abs(rng.normal(0.0, 28.0))
    sign = 1.0 if rng.random() < 0.5 else -1.0
    y = rng.uniform(0.24, 0.42)
    first = 0.5 - sign * 0.7 * head + rng.normal(0.0, 0.05)
    nearer = rng.random() < 0.5
    posture = _posture(rng, 0.3, 0.1)
    return [
        Slot(head, first, y, 1.0, 0.5, posture, -sign * turn + rng.normal(0.0, 12.0)),
        Slot(
            head,
            first + sign * 1.4 * head,
            y,
            1.0,
            0.0 if nearer else 1.0,
            posture,
            sign * turn + rng.normal(0.0, 12.0),
            partner=0,
        ),
    ]


LAYOUTS: Final[dict[str, Callable[[np.random.Generator, PosesConfig], list[Slot]]]] = {
    "portrait": _portrait,
    "half_body": _half_body,
    "full_body": _full_body,
    "group": _group,
    "scattered": _scattered,
    "couple": _couple,
}
