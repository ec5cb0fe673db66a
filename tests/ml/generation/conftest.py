"""A head model, skeletons and scenes for the renderer's tests."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from ml.captions.scene import PersonLook, Scene
from ml.flame.head_model import HeadModel
from ml.poses.skeleton import Person, PoseSample

FRONTAL = np.diag([1.0, -1.0, -1.0])


@pytest.fixture(scope="session")
def head_model(procedural_head: HeadModel) -> HeadModel:
    return procedural_head


@pytest.fixture
def make_look() -> Callable[..., PersonLook]:
    def make(**changes: object) -> PersonLook:
        words: dict[str, object] = {
            "subject": "person",
            "skin_tone": 4,
            "top": "t-shirt",
            "top_colour": "blue",
            "top_pattern": "plain",
            "bottom": "jeans",
            "bottom_colour": "navy",
            "hair_style": "bald",
            "hair_colour": "black",
            "glasses": "none",
            "hat": "none",
            "beard": "none",
        }
        return PersonLook(**{**words, **changes})  # type: ignore[arg-type]

    return make


@pytest.fixture
def make_person() -> Callable[..., Person]:
    def make(
        x: float = 48.0,
        y: float = 40.0,
        scale: float = 160.0,
        depth: int = 0,
        rotation: np.ndarray = FRONTAL,
    ) -> Person:
        joints = np.zeros((17, 3))
        joints[:5] = (0.0, -0.20, -0.1)
        joints[5], joints[6] = (0.17, 0.0, 0.0), (-0.17, 0.0, 0.0)
        joints[7], joints[8] = (0.22, 0.28, 0.0), (-0.22, 0.28, 0.0)
        joints[9], joints[10] = (0.22, 0.52, -0.05), (-0.22, 0.52, -0.05)
        joints[11], joints[12] = (0.1, 0.48, 0.0), (-0.1, 0.48, 0.0)
        joints[13], joints[14] = (0.1, 0.9, 0.0), (-0.1, 0.9, 0.0)
        joints[15], joints[16] = (0.1, 1.3, 0.0), (-0.1, 1.3, 0.0)
        centre = np.array([0.0, -0.21, -0.02])
        return Person(
            keypoints=np.ones((17, 3), np.float32),
            joints_m=joints.astype(np.float32),
            head_rotation=rotation.astype(np.float32),
            scale_px_per_m=scale,
            shift_px=(np.array([x, y]) - scale * centre[:2]).astype(np.float32),
            depth=depth,
            head_centre_m=centre.astype(np.float32),
        )

    return make


@pytest.fixture
def make_pose() -> Callable[..., PoseSample]:
    def make(*people: Person, side: int = 96) -> PoseSample:
        return PoseSample("pose-test", side, side, "train", tuple(people))

    return make


@pytest.fixture
def make_scene() -> Callable[..., Scene]:
    def make(*people: PersonLook, place: str = "a studio", light: str = "overcast light") -> Scene:
        return Scene(place=place, light=light, people=tuple(people))

    return make
