import numpy as np

from ml.flame.head_model import ATTRIBUTES
from ml.flame.procedural.landmarks import LANDMARK_MIRROR

FLIP = np.array([-1.0, 1.0, 1.0], np.float32)


def landmark_points(head_model):
    corners = head_model.v_template[head_model.faces[head_model.landmark_faces]]
    return (corners * head_model.landmark_barycentric[:, :, None]).sum(1) * 1000


def edges(faces):
    return np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])


def test_counts_are_those_of_flame(head_model):
    assert head_model.v_template.shape == (5023, 3)
    assert head_model.faces.shape == (9976, 3)
    assert len(head_model.regions["head_with_ears"]) == 3669
    assert len(head_model.regions["eyeballs"]) == 1090
    assert len(head_model.regions["neck"]) == 264
    assert 2200 < len(head_model.regions["head"]) < 2700
    assert 1800 < len(head_model.regions["face"]) < 2200


def test_regions_partition_the_head(head_model):
    r = head_model.regions
    whole = np.concatenate([r["head_with_ears"], r["eyeballs"], r["neck"]])
    assert np.array_equal(np.sort(whole), r["all"])
    assert np.isin(r["head"], r["head_with_ears"]).all()
    assert np.isin(r["face"], r["head"]).all()
    for name in ("ears", "eyeballs", "neck", "mouth_interior"):
        assert not np.isin(r[name], r["head"]).any()
    assert all((np.diff(index) > 0).all() for index in r.values())


def test_extent_is_that_of_a_head_in_metres(head_model):
    low, high = head_model.v_template.min(0), head_model.v_template.max(0)
    np.testing.assert_allclose(low, [-0.108, -0.190, -0.155], atol=0.012)
    np.testing.assert_allclose(high, [0.108, 0.132, 0.076], atol=0.012)


def test_surface_is_an_oriented_manifold_with_one_rim(head_model):
    directed = {tuple(e) for e in edges(head_model.faces).tolist()}
    assert len(directed) == 3 * len(head_model.faces)
    border = [e for e in directed if e[::-1] not in directed]
    assert len(border) == 60
    lowest = head_model.v_template[[e[0] for e in border], 1]
    assert lowest.max() < -0.17


def test_faces_point_outwards(head_model):
    v, f = head_model.v_template, head_model.faces
    a, b, c = (v[f[:, k]].astype(float) for k in range(3))
    assert np.einsum("ij,ij->i", a, np.cross(b, c)).sum() > 0
    for side in ("left_eyeball", "right_eyeball"):
        own = head_model.faces_of(side)
        centre = v[head_model.regions[side]].mean(0)
        a, b, c = (v[own[:, k]].astype(float) for k in range(3))
        outward = np.einsum("ij,ij->i", np.cross(b - a, c - a), (a + b + c) / 3 - centre)
        assert (outward > 0).mean() > 0.95


def test_mirror_maps_are_exact(head_model):
    m = head_model.mirror_vertices
    assert np.array_equal(m[m], np.arange(5023))
    assert np.array_equal(head_model.v_template[m] * FLIP, head_model.v_template)
    signs = np.concatenate([head_model.mirror_shape, head_model.mirror_expression])
    assert set(np.unique(signs)) == {-1.0, 1.0}
    assert np.array_equal(head_model.shapedirs[m] * FLIP[:, None] * signs, head_model.shapedirs)
    ours = {tuple(sorted(f)) for f in head_model.faces.tolist()}
    assert ours == {tuple(sorted(f)) for f in m[head_model.faces].tolist()}
    swap = [0, 1, 2, 4, 3]
    np.testing.assert_array_equal(head_model.weights[m][:, swap], head_model.weights)
    for name, index in head_model.regions.items():
        if not name.startswith(("left", "right")):
            assert np.array_equal(np.sort(m[index]), index), name
    for value in head_model.attributes.values():
        np.testing.assert_array_equal(value[m], value)


def test_skinning_and_joints(head_model):
    np.testing.assert_allclose(head_model.weights.sum(1), 1.0, atol=1e-6)
    np.testing.assert_allclose(head_model.J_regressor.sum(1), 1.0, atol=1e-5)
    assert (head_model.weights >= 0).all()
    joints = head_model.J_regressor @ head_model.v_template * 1000
    np.testing.assert_allclose(joints[3], [31.0, 18.0, 23.8], atol=0.05)
    np.testing.assert_allclose(joints[4] * FLIP, joints[3], atol=0.01)
    assert np.abs(joints[:3, 0]).max() < 0.01
    assert (head_model.weights[head_model.regions["left_eyeball"], 3] == 1).all()
    assert (head_model.weights[:, 2] > 0).sum() > 500


def test_only_the_jaw_has_pose_correctives(head_model):
    assert np.abs(head_model.posedirs[:, :, 9:18]).max() > 1e-3
    assert not head_model.posedirs[:, :, :9].any()
    assert not head_model.posedirs[:, :, 18:].any()


def test_landmarks_lie_where_their_names_say(head_model):
    p = landmark_points(head_model)
    np.testing.assert_allclose(p[list(LANDMARK_MIRROR)] * FLIP, p, atol=1e-3)
    # iBUG numbers the image from left to right: the subject's right side, x < 0, comes first
    assert (np.diff(p[0:17, 0]) > 0).all()
    assert p[0, 0] < -60
    assert p[8, 1] == p[:17, 1].min()
    assert p[8, 1] < -85
    assert (np.diff(p[17:27, 0]) > 0).all()
    assert (p[17:27, 1] > 28).all()
    assert (np.diff(p[27:31, 1]) < 0).all()
    assert p[30, 2] == p[:, 2].max()
    assert p[36, 0] < p[39, 0] < p[42, 0] < p[45, 0]
    assert p[37, 1] > p[41, 1]
    assert p[43, 1] > p[47, 1]
    assert p[48, 0] < p[51, 0] < p[54, 0]
    assert p[51, 1] > p[57, 1]
    assert p[61, 1] >= p[67, 1]
    np.testing.assert_allclose(head_model.landmark_barycentric.sum(1), 1.0, atol=1e-6)


def test_attributes_cover_what_a_renderer_needs(head_model):
    a = head_model.attributes
    assert set(a) == set(ATTRIBUTES)
    assert all(v.min() >= 0 and v.max() <= 1 and v.max() > 0.5 for v in a.values())
    v = head_model.v_template
    assert v[a["scalp"] > 0.9, 1].mean() > 0.05
    assert v[a["brow"] > 0.5, 2].min() > 0.0
    eyes = head_model.regions["eyeballs"]
    np.testing.assert_array_equal(a["sclera"][eyes] + a["iris"][eyes] + a["pupil"][eyes], 1.0)
    assert v[a["pupil"] > 0.5, 2].min() > v[a["iris"] > 0.5, 2].min()


def test_components_are_finite_ordered_and_independent(head_model):
    shape = head_model.shapedirs[:, :, :300].reshape(-1, 300).astype(float)
    size = np.linalg.norm(shape, axis=0)
    assert (np.diff(size) <= 1e-9).all()
    assert size[-1] > 0
    expression = head_model.shapedirs[:, :, 300:].reshape(-1, 100).astype(float)
    for basis in (shape, expression):
        unit = basis / np.linalg.norm(basis, axis=0)
        assert np.linalg.svd(unit, compute_uv=False)[-1] > 1e-3
    assert len(head_model.shape_names) == 300
    assert len(head_model.expression_names) == 100


def test_random_heads_stay_heads(head_model):
    rng = np.random.default_rng(0)
    for _ in range(20):
        v = head_model.v_template + head_model.shapedirs[:, :, :300] @ rng.standard_normal(
            300
        ).astype(np.float32)
        extent = np.ptp(v[head_model.regions["head"]], axis=0) * 1000
        assert 120 < extent[0] < 185
        assert 190 < extent[1] < 310
        assert 175 < extent[2] < 260


def test_eyeballs_move_as_rigid_bodies(head_model):
    left = head_model.regions["left_eyeball"]
    spread = np.ptp(head_model.shapedirs[left], axis=0)
    # but for the size of the whole head, which grows them
    assert spread.max() < 1e-6


def test_expressions_do_what_they_are_called(head_model):
    names = head_model.expression_names
    direction = {
        n: head_model.shapedirs[:, :, 300 + names.index(n)]
        for n in ("blink", "smile", "brows up", "mouth open")
    }
    corners = head_model.faces[head_model.landmark_faces]
    move = {
        n: (d[corners] * head_model.landmark_barycentric[:, :, None, None][..., 0]).sum(1) * 1000
        for n, d in direction.items()
    }
    assert move["blink"][[37, 38, 43, 44], 1].max() < -0.5
    assert move["smile"][48, 1] > 0.5
    assert move["smile"][48, 0] < -0.5
    assert move["smile"][54, 0] > 0.5
    assert move["brows up"][17:27, 1].mean() > 0.5
    assert move["mouth open"][66, 1] < -1.0
    assert abs(move["mouth open"][62, 1]) < 0.1
