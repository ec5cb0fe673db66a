import io
import os
import pickle
import shutil
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import smplx
import torch
from scipy.sparse import csc_matrix, csr_matrix

from ml.benchmarks.metrics_dad import DadTopology
from ml.benchmarks.predictors import faces_of
from ml.flame.flame_file import (
    head_model_from_flame,
    read_flame_file,
    read_masks,
    write_flame_pickle,
    write_landmark_embedding,
)
from ml.flame.geometry import HeadGeometry
from ml.flame.landmark_files import read_landmarks
from ml.flame.layer import FlameLayer
from ml.flame.safe_pickle import FlameFileError
from ml.generation.renderer.head_assets import prepare_head
from ml.records.heads import Heads
from tests.tiny_models.flame import build_flame, build_index_lists


@pytest.fixture(scope="module")
def written(head_model, tmp_path_factory):
    path = tmp_path_factory.mktemp("written") / "generic_model.pkl"
    write_flame_pickle(head_model, path)
    return path


@pytest.fixture
def pickle_path(written, tmp_path):
    """A copy, which a test may move or cut."""
    return Path(shutil.copy(written, tmp_path))


@pytest.fixture
def licensed_like(head_model):
    """The content of a file as FLAME's authors wrote it: chumpy arrays and a sparse regressor."""
    return {
        "v_template": head_model.v_template.astype(np.float64),
        "f": head_model.faces.astype(np.uint32),
        # the largest array, kept small: these tests write the file many times
        "shapedirs": np.zeros((5023, 3, 400), np.int8),
        "posedirs": np.asfortranarray(head_model.posedirs.astype(np.float64)),
        "J_regressor": csc_matrix(head_model.J_regressor.astype(np.float64)),
        "kintree_table": head_model.kintree_table.astype(np.uint32),
        "weights": head_model.weights.astype(np.float64),
        "bs_style": "lbs",
    }


@pytest.fixture
def chumpy(monkeypatch):
    """A stand-in for the module that the file names; the reader must not need it."""
    module = types.ModuleType("chumpy.ch")

    class Ch:
        def __init__(self, x):
            self.x = x

    Ch.__module__, Ch.__qualname__ = "chumpy.ch", "Ch"
    module.Ch = Ch
    monkeypatch.setitem(sys.modules, "chumpy", types.ModuleType("chumpy"))
    monkeypatch.setitem(sys.modules, "chumpy.ch", module)
    return Ch


def read_arrays(path):
    return read_flame_file(path).arrays


def save(content, path, protocol=2):
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


def test_smplx_loads_our_file_and_agrees_with_the_layer(head_model, pickle_path, tmp_path):
    pickle_path.rename(tmp_path / "FLAME_NEUTRAL.pkl")
    embedding = tmp_path / "flame_static_embedding.pkl"
    write_landmark_embedding(head_model, embedding)
    reference = smplx.FLAME(
        str(tmp_path),
        num_betas=300,
        num_expression_coeffs=100,
        use_face_contour=False,
    )
    betas, expression, jaw = (
        torch.randn(1, 300),
        torch.randn(1, 100),
        torch.tensor([[0.2, 0.05, 0.0]]),
    )
    out = reference(betas=betas, expression=expression, jaw_pose=jaw)
    ours = FlameLayer(head_model)(betas, expression, jaw) - torch.tensor([0.0, 0.0, 0.05])
    assert (out.vertices - ours).abs().max() < 1e-5
    flame = torch.cat([betas, expression, jaw, torch.zeros(1, 10)], dim=1)
    landmarks = FlameLayer(head_model).landmarks(flame)[:, 17:] - torch.tensor([0.0, 0.0, 0.05])
    assert (out.joints[:, -51:] - landmarks).abs().max() < 1e-5


def test_writing_is_deterministic(head_model, pickle_path, tmp_path):
    write_flame_pickle(head_model, tmp_path / "again.pkl")
    assert (tmp_path / "again.pkl").read_bytes() == pickle_path.read_bytes()


def test_round_trip(head_model, pickle_path):
    arrays = read_arrays(pickle_path)
    np.testing.assert_array_equal(arrays["f"], head_model.faces)
    np.testing.assert_array_equal(arrays["shapedirs"].astype(np.float32), head_model.shapedirs)
    assert arrays["kintree_table"].tolist() == [[-1, 0, 1, 1, 1], [0, 1, 2, 3, 4]]


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("sparse", [csc_matrix, csr_matrix])
def test_chumpy_and_sparse_are_read_without_either(
    head_model, licensed_like, chumpy, monkeypatch, tmp_path, protocol, sparse
):
    content = dict(licensed_like)
    content["J_regressor"] = sparse(head_model.J_regressor.astype(np.float64))
    content["posedirs"] = chumpy(content["posedirs"])
    path = save(content, tmp_path / "licensed.pkl", protocol)
    monkeypatch.delitem(sys.modules, "chumpy.ch")
    monkeypatch.delitem(sys.modules, "chumpy")
    arrays = read_arrays(path)
    np.testing.assert_allclose(arrays["posedirs"], head_model.posedirs)
    np.testing.assert_allclose(arrays["J_regressor"], head_model.J_regressor)
    np.testing.assert_allclose(arrays["v_template"], head_model.v_template)


def test_big_endian_arrays(head_model, licensed_like, tmp_path):
    content = {**licensed_like, "weights": licensed_like["weights"].astype(">f4")}
    arrays = read_arrays(save(content, tmp_path / "model.pkl"))
    np.testing.assert_array_equal(arrays["weights"].astype(np.float32), head_model.weights)


class _Shell:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize(
    ("function", "name"),
    [
        (os.system, r"(posix|nt)\.system"),
        (eval, r"(__builtin__|builtins)\.eval"),
        (np.load, r"numpy.*load"),
        (io.open, r"(io|_io)\.open"),
    ],
)
def test_malicious_pickles_run_nothing(tmp_path, protocol, function, name):
    witness = tmp_path / "witness"
    argument = {os.system: f"touch {witness}", eval: f"open({str(witness)!r}, 'w')"}.get(
        function, str(witness)
    )
    extra = ("w",) if function is io.open else ()
    path = save({"v_template": _Shell(function, argument, *extra)}, tmp_path / "evil.pkl", protocol)
    with pytest.raises(
        FlameFileError, match=f"evil.pkl: it asks for {name}.*refused, nothing was executed"
    ):
        read_arrays(path)
    assert not witness.exists()


def test_names_below_allowed_modules_are_refused_too(tmp_path):
    for module, name in (
        ("numpy", "load"),
        ("scipy.sparse", "load_npz"),
        ("numpy.core.multiarray", "fromfile"),
        ("builtins", "getattr"),
    ):
        path = tmp_path / "evil.pkl"
        path.write_bytes(b"c" + module.encode() + b"\n" + name.encode() + b"\n.")
        with pytest.raises(FlameFileError, match=r"refused"):
            read_arrays(path)


def test_arrays_of_objects_are_refused(licensed_like, tmp_path):
    content = {**licensed_like, "weights": np.empty((5023, 5), dtype=object)}
    with pytest.raises(FlameFileError, match="weights"):
        read_arrays(save(content, tmp_path / "model.pkl"))


@pytest.mark.parametrize("fraction", [0.0, 0.001, 0.5, 0.999])
def test_truncated_file(pickle_path, fraction):
    data = pickle_path.read_bytes()
    pickle_path.write_bytes(data[: int(len(data) * fraction)])
    with pytest.raises(
        FlameFileError, match=r"generic_model.pkl: damaged or not a pickle.*download it again"
    ):
        read_arrays(pickle_path)


def test_text_is_no_pickle(tmp_path):
    path = tmp_path / "page.pkl"
    path.write_bytes(b"<html>please sign in</html>")
    with pytest.raises(FlameFileError, match=r"page.pkl: damaged or not a pickle"):
        read_arrays(path)


def test_not_a_dictionary(tmp_path):
    with pytest.raises(FlameFileError, match="expected a dictionary, got list"):
        read_arrays(save([1, 2], tmp_path / "list.pkl"))


def test_missing_key_is_named(licensed_like, tmp_path):
    del licensed_like["weights"], licensed_like["f"]
    with pytest.raises(FlameFileError, match=r"missing f, weights; found J_regressor, bs_style"):
        read_arrays(save(licensed_like, tmp_path / "model.pkl"))


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("v_template", np.zeros((6890, 3)), r"v_template must be \(5023, 3\), got \(6890, 3\)"),
        (
            "J_regressor",
            csc_matrix(np.eye(5)),
            r"J_regressor must be \(5, 5023\), got sparse \(5, 5\)",
        ),
        ("weights", np.full((5023, 5), np.inf), "weights contains NaN or infinity"),
        ("weights", "many", "weights must be an array, got str"),
        (
            "kintree_table",
            np.array([[0, 0, 0, 0, 0], [0, 1, 2, 3, 4]]),
            r"parents must be \(-1, 0, 1, 1, 1\)",
        ),
        (
            "kintree_table",  # the parent of a root is 2**32 - 1 in FLAME's files
            np.array([[2**32 - 1, 0, 0, 1, 1], [0, 1, 2, 3, 4]]),
            r"parents must be \(-1, 0, 1, 1, 1\), got \(-1, 0, 0, 1, 1\)",
        ),
        ("f", np.array(["a"]), "f must hold numbers"),
    ],
)
def test_wrong_content_is_named(licensed_like, tmp_path, key, value, text):
    with pytest.raises(FlameFileError, match=text):
        read_arrays(save({**licensed_like, key: value}, tmp_path / "model.pkl"))


def test_missing_file_says_where_to_get_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"flame.is.tue.mpg.de, or set head_model.source"):
        read_arrays(tmp_path / "none.pkl")


def write_landmarks(head_model, path, dynamic=False):
    faces, weights = head_model.landmark_faces, head_model.landmark_barycentric
    if dynamic:
        np.savez(
            path,
            lmk_face_idx=faces[17:],
            lmk_b_coords=weights[17:],
            dynamic_lmk_faces_idx=np.tile(faces[:17], (79, 1)),
            dynamic_lmk_bary_coords=np.tile(weights[:17], (79, 1, 1)),
        )
    else:
        np.savez(path, lmk_face_idx=faces, lmk_b_coords=weights)
    return path


@pytest.mark.parametrize("dynamic", [False, True])
def test_landmarks_of_both_layouts(head_model, tmp_path, dynamic):
    faces, weights = read_landmarks(write_landmarks(head_model, tmp_path / "lmk.npz", dynamic))
    np.testing.assert_array_equal(faces, head_model.landmark_faces)
    np.testing.assert_array_equal(weights, head_model.landmark_barycentric)


def test_landmarks_of_another_number(tmp_path):
    np.savez(tmp_path / "l.npz", lmk_face_idx=np.zeros(51, int), lmk_b_coords=np.zeros((51, 3)))
    with pytest.raises(FlameFileError, match=r"found 51 static; the 68 .* need the contour"):
        read_landmarks(tmp_path / "l.npz")


def test_head_model_from_user_files(head_model, pickle_path, tmp_path):
    landmarks = write_landmarks(head_model, tmp_path / "lmk.npz")
    masks = {
        "face": head_model.regions["face"], "left_ear": head_model.regions["left_ear"],
        "right_ear": head_model.regions["right_ear"], "boundary": head_model.regions["neck"],
        "left_eyeball": head_model.regions["left_eyeball"],
        "right_eyeball": head_model.regions["right_eyeball"],
    }  # fmt: skip
    model = head_model_from_flame(pickle_path, landmarks, save(masks, tmp_path / "FLAME_masks.pkl"))
    np.testing.assert_array_equal(model.v_template, head_model.v_template)
    np.testing.assert_array_equal(
        model.regions["head_with_ears"], head_model.regions["head_with_ears"]
    )
    # the measured mirror matrices find the signs of the symmetric basis again
    np.testing.assert_allclose(model.mirror_shape, np.diag(head_model.mirror_shape), atol=2e-3)
    np.testing.assert_allclose(
        model.mirror_expression, np.diag(head_model.mirror_expression), atol=2e-3
    )


def test_a_file_of_another_release_or_hash_than_stated_is_refused(
    head_model, licensed_like, tmp_path
):
    path = save(licensed_like, tmp_path / "flame2023_Open.pkl")
    landmarks = write_landmarks(head_model, tmp_path / "lmk.npz")
    with pytest.raises(
        FlameFileError, match=r"lacks the description .*\(supr_expression_metadata: n_expr"
    ):
        head_model_from_flame(path, landmarks, asset="flame-2023-open")
    with pytest.raises(FlameFileError, match=r"has sha256 [0-9a-f]{64}, expected 1{64}"):
        head_model_from_flame(path, landmarks, sha256="1" * 64)
    described = {"expr_source": "x", "expr_components": "last_100", "n_expr": 100}
    save({**licensed_like, "supr_expression_metadata": described}, path)
    file = read_flame_file(path, "flame-2023-open")
    assert file.release.startswith("FLAME 2023 Open by its content")
    assert file.arrays["f"].shape == (9976, 3)


def test_published_lists_decide_the_vertices_of_the_metrics(head_model, pickle_path, tmp_path):
    landmarks = write_landmarks(head_model, tmp_path / "lmk.npz")
    head = np.sort(np.random.default_rng(0).permutation(5023)[:2470])
    face = head[:2094]
    paths = []
    for name, index in (("head_indices.npy", head), ("face.npy", face)):
        np.save(tmp_path / name, index)
        paths.append(tmp_path / name)
    model = head_model_from_flame(pickle_path, landmarks, index_paths=paths)
    np.testing.assert_array_equal(HeadGeometry(model).vertex_indices, head)
    np.testing.assert_array_equal(DadTopology.of(model).face_index, face)
    flame = np.zeros((1, 413), np.float32)
    flame[0, [403, 407, 412]] = 1.0, -1.0, 1000.0
    heads = Heads(np.zeros((1, 4)), np.ones(1), flame)
    (box,) = faces_of(model, None)(None, heads).boxes_xyxy
    points = HeadGeometry(model, "all").vertices_px(flame)[0][face]
    np.testing.assert_allclose(box, [*points.min(0), *points.max(0)], atol=1e-3)


def test_masks_are_checked(tmp_path):
    with pytest.raises(FlameFileError, match="face must be vertex indices below 5023"):
        read_masks(save({"face": np.array([6000])}, tmp_path / "m.pkl"))
    with pytest.raises(FlameFileError, match=r"refused"):
        read_masks(save({"face": _Shell(os.getcwd)}, tmp_path / "m.pkl"))


def test_ears_are_found_without_masks(head_model, tmp_path):
    """The profile open has no masks: their licence is not that of FLAME 2023 Open."""
    folder = build_flame(tmp_path / "flame", head_model)
    lists = build_index_lists(tmp_path / "lists", head_model)
    files = (folder / "generic_model.pkl", folder / "landmark_embedding.npy")
    true = set(head_model.regions["ears"].tolist())
    for index_paths, most_others in (((), 100), ((lists / "head_indices.npy",), 50)):
        model = head_model_from_flame(*files, index_paths=index_paths)
        found = set(model.regions["ears"].tolist())
        # where an ear begins is the painter's choice
        assert len(true - found) <= 0.02 * len(true)
        assert len(found - true) <= most_others
        assert not found & set(model.regions["head"].tolist())
        landmarks = np.asarray(model.v_template)[model.faces[model.landmark_faces]].mean(axis=1)
        assets = prepare_head(model.v_template, model.faces, model.regions, landmarks)
        assert np.abs(assets.ears[:, 0]).min() > 0.05
