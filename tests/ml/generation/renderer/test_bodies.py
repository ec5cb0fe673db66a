"""Posed and clothed bodies: joints, hinges, necks, borders of garments."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from ml.captions.scene import TOPS
from ml.flame.open_head.body import BONES, POINTS, build_bodies, shape_weights
from ml.generation.renderer.bodies import body_meshes
from ml.generation.renderer.body_frame import body_frame
from ml.generation.renderer.garments import dress
from ml.generation.renderer.heads import HeadMaterials, head_mesh
from ml.generation.renderer.materials import MaterialTable
from ml.generation.renderer.necks import join_neck
from ml.generation.renderer.people import head_kit
from ml.generation.renderer.posing import pose_body, rotate, turn_with
from ml.imaging.rasterizer import rasterize
from ml.poses.figure import sample_figure
from ml.poses.skeleton import COCO_KEYPOINTS

LIMBS = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
POSTURES = ("standing", "walking", "sitting")


def figure(seed: int, *, child: bool = False):
    return sample_figure(
        np.random.default_rng(seed), body_yaw_deg=40.0 * seed, camera_pitch_deg=5.0,
        is_child=child, posture=POSTURES[seed % 3], gaze=0.3, bent=seed % 2 == 1,
    )  # fmt: skip


def frame_of(f):
    return body_frame(f.joints_m, f.head_centre_m, f.head_rotation)


def posed(frame, *, turns=(0.2, -0.3), curls=(0.3, 0.3), level=0, feminine=0.5):
    body = build_bodies()[level]
    mixture = shape_weights(feminine, 0.8, 0.2, 0.1)
    return body, pose_body(body, mixture, frame, np.array(turns), np.array(curls))


@pytest.mark.parametrize("seed", range(9))
def test_bones_meet_the_joints_of_the_skeleton(seed):
    frame = frame_of(figure(seed, child=seed > 6))
    body, result = posed(frame)
    bones = {
        "shoulder": "upper_arm", "elbow": "forearm", "wrist": "hand", "hip": "thigh",
        "knee": "shin", "ankle": "foot",
    }  # fmt: skip
    for side in ("left", "right"):
        for joint, bone in bones.items():
            weights = np.eye(len(BONES), dtype=np.float32)[[BONES.index(f"{side}_{bone}")]]
            place = result.points[POINTS.index(f"{side}_{joint}")].astype(np.float32)[None]
            moved, _ = turn_with(weights, result.bones, place)
            assert np.allclose(moved[0], frame.joint(f"{side}_{joint}"), atol=1e-4), (side, joint)
    # and the skin is around them
    for name in ("left_elbow", "right_knee", "left_wrist"):
        distance = np.linalg.norm(result.skin - frame.joint(name), axis=1)
        assert distance.min() < 0.06
    assert len(result.skin) == len(body.mirror)


def test_limbs_keep_their_girth_however_they_are_turned():
    """No candy wrapper: around the middle of a forearm the skin stays at its distance."""
    frame = frame_of(figure(0))
    girths = []
    for turn in (-1.5, 0.0, 1.5):
        body, result = posed(frame, turns=(turn, turn))
        elbow, wrist = frame.joint("left_elbow"), frame.joint("left_wrist")
        along = (wrist - elbow) / np.linalg.norm(wrist - elbow)
        offset = result.skin - elbow
        part = offset @ along / np.linalg.norm(wrist - elbow)
        mine = (part > 0.6) & (part < 1.0) & (body.share("forearm", "forearm_twist", "hand") > 0.9)
        radius = np.linalg.norm(offset - (offset @ along)[:, None] * along, axis=1)
        near = mine & (radius < 0.15)
        girths.append(radius[near].mean())
    assert min(girths) > 0.85 * max(girths)


def test_a_raised_arm_keeps_its_shoulder(make_person):
    person = make_person()
    joints = np.array(person.joints_m, np.float64)
    sizes = []
    for elbow, wrist in (((0.22, 0.28, 0.0), (0.22, 0.52, -0.05)),
                         ((0.22, -0.28, 0.0), (0.22, -0.52, -0.05))):  # fmt: skip
        joints[7], joints[9] = elbow, wrist
        frame = body_frame(joints, person.head_centre_m, person.head_rotation)
        body, result = posed(frame)
        around = body.share("upper_arm") > 0.3
        left = around & (result.rest[0][:, 0] > 0)
        sizes.append(
            np.linalg.norm(result.skin[left] - frame.joint("left_shoulder"), axis=1).mean()
        )
        shoulder, elbow = frame.joint("left_shoulder"), frame.joint("left_elbow")
        along = (elbow - shoulder) / np.linalg.norm(elbow - shoulder)
        offset = (
            result.skin[(body.share("upper_arm") > 0.7) & (result.rest[0][:, 0] > 0)] - shoulder
        )
        aside = np.linalg.norm(offset - (offset @ along)[:, None] * along, axis=1)
        assert aside.max() < 0.06, "the arm's skin is around its bone"
    assert 0.75 < sizes[1] / sizes[0] < 1.25


def test_people_turn_as_a_whole():
    """Twists are measured from the body, not from the camera."""
    f = figure(2)
    turn = Rotation.from_euler("yx", (130.0, 25.0), degrees=True).as_matrix()
    turned = body_frame(
        np.asarray(f.joints_m, np.float64) @ turn.T, turn @ f.head_centre_m, turn @ f.head_rotation
    )
    _, one = posed(frame_of(f))
    _, other = posed(turned)
    assert np.allclose(other.skin, one.skin @ turn.T, atol=1e-3)


def test_blended_turns_are_rotations():
    frame = frame_of(figure(4))
    _, result = posed(frame)
    assert np.allclose(np.linalg.norm(result.turns, axis=1), 1.0, atol=1e-5)
    vectors = np.random.default_rng(0).normal(size=(len(result.turns), 3)).astype(np.float32)
    turned = rotate(result.turns, vectors)
    expected = Rotation.from_quat(result.turns[:, [1, 2, 3, 0]]).apply(vectors)
    assert np.allclose(turned, expected, atol=1e-5)


def test_mirrored_skeletons_have_mirrored_bodies():
    frame = frame_of(figure(1))
    joints = frame.joints * (-1.0, 1.0, 1.0)
    swap = [COCO_KEYPOINTS.index(_other(name)) for name in COCO_KEYPOINTS]
    mirrored = body_frame(
        joints[swap], frame.head_centre * (-1.0, 1.0, 1.0), np.diag([1, -1, -1.0])
    )
    body, one = posed(frame, turns=(0.2, -0.2))
    _, other = posed(mirrored, turns=(0.2, -0.2))
    assert np.allclose(other.skin[body.mirror] * (-1, 1, 1), one.skin, atol=2e-3)


def _other(name: str) -> str:
    if name.startswith("left"):
        return name.replace("left", "right")
    return name.replace("right", "left")


@pytest.mark.parametrize("seed", range(6))
def test_head_and_body_meet_at_the_neck(head_model, make_look, seed):
    kit = head_kit(head_model)
    f = figure(seed, child=seed == 5)
    frame = frame_of(f)
    rng = np.random.default_rng(seed)
    table = MaterialTable()
    look = make_look(top="t-shirt")
    clothed = body_meshes(frame, dress(look, 0, table, rng), look, 300.0, rng)
    rotation, centre = f.head_rotation.astype(np.float64), f.head_centre_m.astype(np.float64)
    table.add(0, (0.5, 0.5, 0.5))
    bare, _ = head_mesh(
        kit.assets, kit.assets.template.copy(), HeadMaterials(0, 0, 0), "bald", table, rng
    )
    joined = join_neck(
        kit.seam, kit.assets, bare, rotation.T @ frame.trunk_axes(),
        (clothed.loop - centre) @ rotation, clothed.loop_normals @ rotation,
    )  # fmt: skip
    # The head itself is untouched, the rim lies on the body's border, and no vertex was thrown.
    head = kit.assets.neck_weight == 0.0
    assert np.array_equal(joined.positions[head], bare.positions[head])
    rim = joined.positions[kit.seam.rim] @ rotation.T + centre
    ring = np.stack([clothed.loop, np.roll(clothed.loop, -1, axis=0)], axis=1)
    edge = ring[:, 1] - ring[:, 0]
    t = ((rim[:, None] - ring[:, 0]) * edge).sum(-1) / (edge * edge).sum(-1)
    nearest = ring[:, 0] + np.clip(t, 0.0, 1.0)[..., None] * edge
    assert np.linalg.norm(rim[:, None] - nearest, axis=2).min(axis=1).max() < 1e-4
    assert np.linalg.norm(joined.positions - bare.positions, axis=1).max() < 0.15
    # Body vertices stay below the chin's plane: none is inside of the head.
    skin = clothed.pieces[0].positions
    local = (skin - centre) @ rotation
    trunk = np.linalg.norm(skin - frame.joint("left_wrist"), axis=1) > 0.35
    trunk &= np.linalg.norm(skin - frame.joint("right_wrist"), axis=1) > 0.35
    assert np.linalg.norm(local[trunk] - [0.0, 0.0, 0.02], axis=1).min() > 0.085


@pytest.mark.parametrize("top", TOPS)
def test_skin_is_under_the_cloth(make_person, make_look, top):
    """Seen from the front, the chest shows the top and no skin; hands and neck are bare."""
    person = make_person()
    frame = body_frame(person.joints_m, person.head_centre_m, person.head_rotation)
    look = make_look(top=top)
    rng = np.random.default_rng(1)
    garments = dress(look, 77, MaterialTable(), rng)
    clothed = body_meshes(frame, garments, look, 300.0, rng)
    scale = 200.0
    seen = np.full((260, 300), -1)
    depth = np.full(seen.shape, np.inf)
    for piece in clothed.pieces:
        points = (piece.positions * scale + [150.0, 60.0, 0.0]).astype(np.float32)
        index, _, z = rasterize(points, piece.faces, *seen.shape)
        nearer = (index >= 0) & (z < depth)
        seen[nearer], depth[nearer] = piece.materials[index[nearer]], z[nearer]
    chest = seen[60 + 30 : 60 + 80, 150 - 20 : 150 + 20]
    assert (chest == garments.top).mean() > 0.99
    assert (seen == 77).sum() > 150
    sleeves = seen[60 + 30 : 60 + 95, 150 + 38 : 150 + 52]
    bare = (sleeves == 77).sum() / max((sleeves >= 0).sum(), 1)
    assert bare > 0.5 if garments.sleeve < 0.5 else bare < 0.05


@pytest.mark.parametrize("scale", [30.0, 300.0])
def test_clothes_cover_the_legs_as_far_as_they_are_long(make_person, make_look, scale):
    person = make_person()
    frame = body_frame(person.joints_m, person.head_centre_m, person.head_rotation)
    lowest = {}
    for bottom in ("jeans", "shorts", "skirt"):
        look = make_look(bottom=bottom)
        rng = np.random.default_rng(2)
        garments = dress(look, 77, MaterialTable(), rng)
        pieces = body_meshes(frame, garments, look, scale, rng).pieces
        lowest[bottom] = max(
            piece.positions[piece.faces][..., 1].max()
            for piece in pieces
            if (piece.materials == garments.bottom).all()
        )
    knee, ankle = frame.joint("left_knee")[1], frame.joint("left_ankle")[1]
    assert lowest["jeans"] == pytest.approx(ankle, abs=0.05)
    assert knee - 0.15 < lowest["shorts"] < knee + 0.08
    assert knee - 0.15 < lowest["skirt"] < knee + 0.12


def test_hands_have_fingers_that_curl():
    frame = frame_of(figure(0))
    body, straight = posed(frame, curls=(0.0, 0.0))
    _, curled = posed(frame, curls=(0.9, 0.9))
    tips = body.weights[:, BONES.index("left_finger_tips")] > 0.9
    wrist = frame.joint("left_wrist")
    reach = [np.linalg.norm(one.skin[tips] - wrist, axis=1).max() for one in (straight, curled)]
    assert reach[1] < 0.9 * reach[0]
    others = body.share("fingers", "finger_tips") == 0.0
    assert np.allclose(straight.skin[others], curled.skin[others], atol=1e-6)


def test_equal_chance_gives_equal_bytes(make_person, make_look):
    person = make_person()
    frame = body_frame(person.joints_m, person.head_centre_m, person.head_rotation)
    look = make_look(top="hoodie", bottom="skirt")
    runs = []
    for _ in range(2):
        rng = np.random.default_rng(5)
        garments = dress(look, 0, MaterialTable(), rng)
        runs.append(body_meshes(frame, garments, look, 200.0, rng).pieces)
    for one, other in zip(*runs, strict=True):
        assert one.positions.tobytes() == other.positions.tobytes()
        assert one.coords.tobytes() == other.coords.tobytes()
        assert one.faces.tobytes() == other.faces.tobytes()
