import numpy as np
import pytest
import smplx
import torch
from threadpoolctl import threadpool_limits

from ml.flame.flame_file import write_flame_pickle, write_landmark_embedding
from ml.flame.head_model import ATTRIBUTES
from ml.flame.layer import FlameLayer
from ml.flame.open_head import build
from ml.flame.open_head.landmarks import LANDMARK_MIRROR
from ml.imaging.rasterizer import rasterize

FLIP = np.array([-1.0, 1.0, 1.0], np.float32)
SWAP = [0, 1, 2, 4, 3]
_Z = torch.tensor([0.0, 0.0, 0.05])


@pytest.fixture(scope="module")
def layer(open_head):
    return FlameLayer(open_head)


def places(open_head, vertices):
    corners = vertices[open_head.faces[open_head.landmark_faces]]
    return (corners * open_head.landmark_barycentric[:, :, None]).sum(1) * 1000


def posed(layer, shape=(), expression=(), jaw=(0.0, 0.0, 0.0)):
    given = [torch.as_tensor(np.asarray(c, np.float32)).reshape(1, -1) for c in (shape, expression)]
    with torch.inference_mode():
        return (layer(*given, torch.tensor([jaw])) - _Z)[0].numpy()


def seen_parts(open_head, vertices, *regions):
    """Return pixels, half a millimetre each, of regions seen from the front."""
    pixels = (vertices * [2000, -2000, -2000] + [300, 320, 0]).astype(np.float32)
    face = rasterize(pixels, open_head.faces, 600, 700)[0]
    out = []
    for name in regions:
        inside = np.zeros(5023, bool)
        inside[open_head.regions[name]] = True
        of_face = np.append(inside[open_head.faces].all(axis=1), False)
        out.append(int(of_face[face].sum()))
    return out


@pytest.fixture(scope="module")
def again():
    """The model built once more with two threads; the mesh and population it was built from."""
    made = {}

    def keeping(name):
        make = getattr(build, name)

        def kept(*arguments):
            made[name] = make(*arguments)
            return made[name]

        return kept

    with pytest.MonkeyPatch.context() as patch, threadpool_limits(limits=2, user_api="blas"):
        for name in ("build_mesh", "declare_population"):
            patch.setattr(build, name, keeping(name))
        model = build.build_open_head()
    return model, made["build_mesh"], made["declare_population"]


# ------------------------------------------------------------------ bytes and format
def test_bytes_do_not_depend_on_the_number_of_threads(open_head, again):
    assert again[0].sha256 == open_head.sha256


def test_smplx_loads_the_file_and_agrees(open_head, layer, tmp_path):
    write_flame_pickle(open_head, tmp_path / "FLAME_NEUTRAL.pkl")
    write_landmark_embedding(open_head, tmp_path / "flame_static_embedding.pkl")
    reference = smplx.FLAME(
        str(tmp_path), num_betas=300, num_expression_coeffs=100, use_face_contour=False
    )
    torch.manual_seed(0)
    betas, expression = torch.randn(1, 300), torch.randn(1, 100)
    jaw = torch.tensor([[0.2, 0.05, 0.0]])
    out = reference(betas=betas, expression=expression, jaw_pose=jaw)
    assert (out.vertices - layer(betas, expression, jaw) + _Z).abs().max() < 1e-5
    turned = reference(neck_pose=torch.tensor([[0.0, 0.5, 0.0]])).vertices[0].detach().numpy()
    neutral = open_head.v_template
    still = open_head.weights[:, 0] > 0.9
    assert still.sum() > 40
    np.testing.assert_allclose(turned[still], neutral[still], atol=6e-3)
    moved = np.linalg.norm(turned - neutral, axis=1)
    assert moved[open_head.region("face")].min() > 2 * moved[still].max()


def test_mirror_maps_are_exact(open_head):
    m = open_head.mirror_vertices
    assert np.array_equal(m[m], np.arange(5023))
    assert np.array_equal(open_head.v_template[m] * FLIP, open_head.v_template)
    signs = np.concatenate([open_head.mirror_shape, open_head.mirror_expression])
    assert set(np.unique(signs)) == {-1.0, 1.0}
    assert np.array_equal(open_head.shapedirs[m] * FLIP[:, None] * signs, open_head.shapedirs)
    ours = {tuple(sorted(f)) for f in open_head.faces.tolist()}
    assert ours == {tuple(sorted(f)) for f in m[open_head.faces].tolist()}
    np.testing.assert_array_equal(open_head.weights[m][:, SWAP], open_head.weights)
    for name, index in open_head.regions.items():
        if not name.startswith(("left", "right")):
            assert np.array_equal(np.sort(m[index]), index), name
    for value in open_head.attributes.values():
        np.testing.assert_array_equal(value[m], value)


def test_surface_is_an_oriented_manifold_open_at_the_neck_alone(open_head):
    f = open_head.faces
    directed = {tuple(e) for k in range(3) for e in f[:, [k, (k + 1) % 3]].tolist()}
    assert len(directed) == 3 * len(f)
    border = [e for e in directed if e[::-1] not in directed]
    assert len(border) == 48
    assert open_head.v_template[[e[0] for e in border], 1].max() < -0.12
    v = open_head.v_template.astype(float)
    a, b, c = (v[f[:, k]] for k in range(3))
    assert np.einsum("ij,ij->i", a, np.cross(b, c)).sum() > 0
    for side in ("left_eyeball", "right_eyeball"):
        own = open_head.faces_of(side)
        a, b, c = (v[own[:, k]] for k in range(3))
        middle = v[open_head.regions[side]].mean(0)
        outward = np.einsum("ij,ij->i", np.cross(b - a, c - a), (a + b + c) / 3 - middle)
        assert (outward > 0).all()


# ------------------------------------------------------------------ components
@pytest.mark.parametrize("part", [slice(0, 300), slice(300, 400)])
def test_components_are_orthogonal_and_ordered(open_head, part):
    basis = open_head.shapedirs[:, :, part].reshape(15069, -1).astype(float)
    size = np.linalg.norm(basis, axis=0)
    assert (np.diff(size) <= 1e-6 * size[0]).all()
    assert size[-1] > 0
    cosine = (basis / size).T @ (basis / size) - np.eye(len(size))
    assert np.abs(cosine[:50, :50]).max() < 1e-3
    # of the last ones, micrometres long, rounding to float32 is a part
    assert np.abs(cosine).max() < 0.02


def test_shape_components_have_the_variance_of_the_population(open_head, again):
    _, mesh, people = again
    controls = 0.1 * mesh.apply(people.targets)
    controls -= controls[:, mesh.parts["skin"]].mean(axis=1, keepdims=True) * [0.0, 1.0, 1.0]
    flat = controls.reshape(len(controls), -1)
    basis = open_head.shapedirs[:, :, :300].reshape(15069, -1).astype(float)
    mixes = (flat @ basis) / (basis**2).sum(axis=0)
    # Of the population itself, not of heads drawn from it: coefficients are linear in strengths.
    variance = ((people.covariance @ mixes) * mixes).sum(axis=0)
    np.testing.assert_allclose(np.sqrt(variance), 1.0, atol=1e-6)
    rest = flat - mixes @ basis.T
    size, left = (np.vdot(x, people.covariance @ x) for x in (flat, rest))
    assert 0 <= left < 1e-4 * size


def test_random_heads_stay_heads(open_head, layer):
    rng = np.random.default_rng(0)
    for _ in range(20):
        v = posed(layer, rng.standard_normal(300).clip(-2.5, 2.5))
        extent = np.ptp(v[open_head.regions["head"]], axis=0) * 1000
        assert 115 < extent[0] < 190
        assert 170 < extent[1] < 310
        assert 155 < extent[2] < 260


def test_nothing_comes_through_the_skin_of_random_people(open_head, layer):
    _, eyes = seen_parts(open_head, open_head.v_template, "mouth_interior", "eyeballs")
    rng = np.random.default_rng(1)
    for _ in range(12):
        shape = np.zeros(300)
        shape[:64] = rng.standard_normal(64).clip(-2.5, 2.5)
        inside, balls = seen_parts(open_head, posed(layer, shape), "mouth_interior", "eyeballs")
        assert inside < 150
        assert 0.5 * eyes < balls < 1.8 * eyes


def test_eyeballs_stay_round(open_head, layer):
    rng = np.random.default_rng(2)
    for _ in range(5):
        v = posed(layer, rng.standard_normal(300).clip(-2.5, 2.5))
        ball = v[open_head.regions["left_eyeball"]]
        hind = ball[open_head.attributes["sclera"][open_head.regions["left_eyeball"]] > 0.5]
        radius = np.linalg.norm(hind - 0.5 * (ball.min(0) + ball.max(0)), axis=1)
        assert 0.010 < radius.mean() < 0.017
        assert radius.std() < 0.07 * radius.mean()


# ------------------------------------------------------------------ movements
def test_the_jaw_opens_the_mouth_and_nothing_else(open_head, layer):
    closed, opened = open_head.v_template, posed(layer, jaw=(0.3, 0.0, 0.0))
    before, after = places(open_head, closed), places(open_head, opened)
    assert np.linalg.norm(before[62] - before[66]) < 2
    assert after[62, 1] - after[66, 1] > 12
    assert np.abs(after - before)[[*range(17, 48)]].max() < 2.5
    upper = open_head.regions["mouth_interior"]
    assert seen_parts(open_head, opened, "mouth_interior")[0] > 1000
    fixed = upper[open_head.weights[upper, 2] == 0.0]
    np.testing.assert_allclose(opened[fixed], closed[fixed], atol=8e-3)
    rigid = upper[open_head.attributes["teeth"][upper] > 0.9]
    rigid = rigid[open_head.weights[rigid, 2] == 0.0]
    assert len(rigid) >= 20  # the upper crowns
    np.testing.assert_allclose(opened[rigid], closed[rigid], atol=1e-7)


def test_the_lids_close(open_head, layer):
    """The coefficients that bring the upper lids down are within what people draw."""
    upper, lower = [37, 38, 43, 44], [41, 40, 47, 46]
    neutral = places(open_head, open_head.v_template)
    gap = neutral[upper, 1] - neutral[lower, 1]
    index = open_head.faces[open_head.landmark_faces]
    moves = (
        open_head.shapedirs[index][:, :, :, 300:] * open_head.landmark_barycentric[:, :, None, None]
    ).sum(1) * 1000
    closing = moves[lower, 1] - moves[upper, 1]
    ridge = closing.T @ np.linalg.solve(closing @ closing.T + 0.05 * np.eye(4), gap)
    assert np.abs(ridge).max() < 4
    shut = posed(layer, expression=ridge)
    open_eyes = seen_parts(open_head, open_head.v_template, "eyeballs")[0]
    assert seen_parts(open_head, shut, "eyeballs")[0] < 0.15 * open_eyes


def test_eyeballs_do_not_move_with_the_face(open_head):
    assert not open_head.shapedirs[open_head.regions["eyeballs"], :, 300:].any()
    assert not open_head.posedirs[open_head.regions["eyeballs"]].any()


def test_joints_are_found_on_every_head(open_head, layer):
    joints = open_head.J_regressor @ open_head.v_template * 1000
    np.testing.assert_allclose(open_head.J_regressor.sum(1), 1.0, atol=1e-5)
    np.testing.assert_allclose(open_head.weights.sum(1), 1.0, atol=1e-6)
    np.testing.assert_allclose(joints[SWAP] * FLIP, joints, atol=0.02)
    assert joints[0, 1] < joints[1, 1] < joints[2, 1] < joints[3, 1]
    rng = np.random.default_rng(4)
    for _ in range(5):
        v = open_head.v_template + open_head.shapedirs[:, :, :300] @ rng.standard_normal(
            300
        ).astype(np.float32)
        moved = open_head.J_regressor @ v
        for joint, side in ((3, "left"), (4, "right")):
            ball = v[open_head.regions[f"{side}_eyeball"]]
            np.testing.assert_allclose(moved[joint], 0.5 * (ball.min(0) + ball.max(0)), atol=1.5e-3)
        assert np.abs(moved[:3, 0]).max() < 0.006
        assert np.linalg.norm(moved[:3] - joints[:3] / 1000, axis=1).max() < 0.05


def test_components_are_those_that_checkpoints_were_trained_with(open_head):
    # Coefficients mean nothing with other components: these figures are of version 1 of the head.
    norms = np.linalg.norm(open_head.shapedirs.reshape(-1, 400), axis=0) * 1000
    pinned = {
        0: 343.242, 1: 153.520, 2: 118.532, 10: 49.216, 100: 4.634, 299: 0.304,
        300: 78.253, 301: 49.120, 302: 41.370, 310: 15.939, 350: 2.337, 399: 0.080,
    }  # fmt: skip
    np.testing.assert_allclose(norms[list(pinned)], list(pinned.values()), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(
        [norms[:300].sum(), norms[300:].sum()], [2758.70, 624.711], rtol=1e-4
    )
    np.testing.assert_allclose(
        open_head.weights.sum(axis=0), [254.027, 3457.395, 587.579, 362, 362], rtol=1e-4
    )


# ------------------------------------------------------------------ landmarks, regions
def test_landmarks_are_where_labels_have_them(open_head):
    # Labels, metrics and checkpoints compare these points: another place is another convention.
    p = places(open_head, open_head.v_template)
    pinned = {
        8: (0.00, -87.31, 38.65), 16: (69.46, 11.94, -23.12), 27: (0.00, 23.94, 51.93),
        30: (0.00, -18.19, 70.72), 33: (0.00, -26.69, 59.31), 35: (13.56, -23.69, 51.90),
        36: (-40.69, 18.19, 37.13), 39: (-18.94, 17.06, 39.72), 48: (-22.44, -47.69, 47.38),
        51: (0.00, -37.69, 60.71), 57: (0.00, -59.56, 54.85), 62: (0.00, -47.19, 53.74),
    }  # fmt: skip
    np.testing.assert_allclose(p[list(pinned)], list(pinned.values()), atol=0.02)
    joints = open_head.J_regressor @ open_head.v_template * 1000
    left_eye = (28.54, 19.79, 27.44)
    np.testing.assert_allclose(joints[3], left_eye, atol=0.02)
    np.testing.assert_allclose(
        joints[:3, 1:], [(-116.41, -80.80), (-43.66, -64.20), (-11.70, -33.96)], atol=0.02
    )


def test_regions_and_attributes_have_their_sizes(open_head):
    assert {name: len(vertices) for name, vertices in open_head.regions.items()} == {
        "all": 5023, "ears": 630, "eyeballs": 724, "face": 2232, "face_with_ears": 2862,
        "head": 2771, "head_with_ears": 4035, "left_ear": 315, "left_eyeball": 362, "lips": 242,
        "mouth_interior": 568, "neck": 264, "right_ear": 315, "right_eyeball": 362, "scalp": 435,
    }  # fmt: skip
    sums = {name: float(weight.sum()) for name, weight in open_head.attributes.items()}
    assert sums == pytest.approx({
        "brow": 18.06, "ear": 630.2, "eyelid": 298.25, "iris": 144.0, "lips": 234.6,
        "mouth_interior": 509.07, "nostril": 6.0, "pupil": 98.0, "scalp": 434.29,
        "sclera": 482.0, "skin": 3490.5, "teeth": 58.83,
    }, rel=1e-3)  # fmt: skip


def test_landmarks_are_at_anatomical_places(open_head):
    p = places(open_head, open_head.v_template)
    np.testing.assert_allclose(p[list(LANDMARK_MIRROR)] * FLIP, p, atol=1e-3)
    np.testing.assert_allclose(open_head.landmark_barycentric.sum(1), 1.0, atol=1e-6)
    assert open_head.landmark_barycentric.min() >= 0
    # iBUG numbers the image from left to right: the subject's right side, x < 0, comes first
    assert (np.diff(p[0:17, 0]) > 0).all()
    assert (np.diff(p[0:8, 1]) < 0).all()
    assert p[8, 1] == p[:, 1].min()
    assert (np.diff(p[17:27, 0]) > 0).all()
    assert (p[17:27, 1] > p[36:48, 1].max() + 8).all()
    assert (np.diff(p[27:31, 1]) < 0).all()
    assert p[30, 2] == p[:, 2].max()
    assert open_head.v_template[:, 2].max() * 1000 - p[30, 2] < 0.5
    assert p[51, 1] + 4 < p[33, 1] < p[30, 1] - 4
    middles = 0.5 * (p[[36, 42]] + p[[39, 45]])
    eyes = (open_head.J_regressor @ open_head.v_template * 1000)[[4, 3]]
    np.testing.assert_allclose(middles[:, :2], eyes[:, :2], atol=4)
    assert p[36, 0] < p[37, 0] < p[38, 0] < p[39, 0] < -15
    assert (p[[37, 38], 1] > p[[41, 40], 1] + 5).all()
    assert (np.diff(p[48:55, 0]) > 0).all()
    lips = open_head.attributes["lips"]
    assert lips[open_head.faces[open_head.landmark_faces[48:68]]].max(axis=1).min() > 0.5
    assert 4 < p[51, 1] - p[62, 1] < 16
    assert 4 < p[66, 1] - p[57, 1] < 16
    seen = np.zeros(5023, bool)
    seen[np.union1d(open_head.regions["head"], open_head.regions["lips"])] = True
    assert seen[open_head.faces[open_head.landmark_faces[:48]]].any(axis=1).all()


def test_regions_partition_the_head(open_head):
    r = open_head.regions
    whole = np.concatenate([r["head_with_ears"], r["eyeballs"], r["neck"]])
    assert np.array_equal(np.sort(whole), r["all"])
    assert np.isin(r["head"], r["head_with_ears"]).all()
    assert np.isin(r["face"], r["head"]).all()
    assert len(r["neck"]) == 264
    for name in ("ears", "eyeballs", "neck", "mouth_interior"):
        assert not np.isin(r[name], r["head"]).any(), name
    assert all((np.diff(index) > 0).all() for index in r.values())
    v = open_head.v_template
    assert np.abs(v[r["ears"], 0]).min() > 0.05
    assert v[r["scalp"], 1].min() > -0.08
    assert v[r["lips"], 2].min() > 0.03


def test_attributes_cover_what_a_renderer_needs(open_head):
    a, v = open_head.attributes, open_head.v_template
    assert set(a) == set(ATTRIBUTES)
    assert all(w.min() >= 0 and w.max() <= 1 and w.max() > 0.5 for w in a.values())
    eyes = open_head.regions["eyeballs"]
    np.testing.assert_array_equal(a["sclera"][eyes] + a["iris"][eyes] + a["pupil"][eyes], 1.0)
    assert v[a["pupil"] > 0.5, 2].min() > v[a["iris"] > 0.5, 2].min()
    nostril = v[a["nostril"] > 0.5] * 1000
    tip = places(open_head, v)[30]
    assert (np.linalg.norm(nostril - tip, axis=1) < 28).all()
    assert (v[a["brow"] > 0.5, 1] * 1000 > 26).all()
