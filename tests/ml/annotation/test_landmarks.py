"""Landmark models in the layouts that are published, and where their points lie on the head."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ml.annotation.backends import RegressorConfig, load_flame_regressor
from ml.annotation.estimates import CutsCrops, cut_crops
from ml.annotation.landmarks import (
    LandmarkError,
    LandmarkModelConfig,
    load_landmarks,
    points_on_head,
)
from ml.box_detection.face_models import FaceModelError
from ml.flame.landmark_files import LandmarkEmbedding, read_embedding
from ml.records.models import ModelError
from ml.records.parents import derive_parents
from ml.records.register import permission
from ml.records.workspace import Workspace
from tests.tiny_models.dad import build_dad
from tests.tiny_models.landmarks import build_1k3d68, build_face_mesh

MEDIAPIPE = LandmarkModelConfig(pixel_range="0..1", coordinate_range="pixels", box_margin=0.25)
TEMPLATE = np.random.default_rng(0).uniform(-0.5, 0.5, (68, 2)).astype(np.float32)
MESH = np.random.default_rng(1).uniform(40, 150, (468, 2)).astype(np.float32)


def grey(*levels):
    return torch.tensor(levels, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 192, 192)


@pytest.mark.parametrize("batch", ["None", 1, 2])
def test_insightface_s_68_points_come_in_crop_pixels(tmp_path, batch):
    file = build_1k3d68(tmp_path / "1k3d68.onnx", TEMPLATE, gain=0.2, batch=batch)
    model = load_landmarks(file, LandmarkModelConfig(), batch_size=2)
    assert (model.crop_size, model.num_points, len(model.sha256)) == (192, 68, 64)
    found = model.find(grey(0, 255, 127))
    assert found.shape == (3, 68, 2)
    shift = np.array([[[0.0, 0]], [[0.2, 0]], [[0.2 * 127 / 255, 0]]])
    np.testing.assert_allclose(found, (TEMPLATE + shift + 1) * 96, atol=1e-3)
    assert model.find(grey()).shape == (0, 68, 2)


def test_landmarks_compute_on_the_configured_device(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    file = build_1k3d68(tmp_path / "1k3d68.onnx", TEMPLATE)
    with pytest.raises(ValueError, match="device 'cuda': torch sees no GPU here"):
        load_landmarks(file, LandmarkModelConfig(), device="cuda")


@pytest.mark.parametrize("count", [105, 468, 478])
def test_mediapipe_s_points_come_from_channels_last_in_pixels(tmp_path, count):
    mesh = np.resize(MESH, (count, 2))
    file = build_face_mesh(tmp_path / "face_landmark.onnx", mesh, gain=10)
    model = load_landmarks(file, MEDIAPIPE, batch_size=8)
    assert (model.num_points, model.box_margin) == (count, 0.25)
    found = model.find(grey(0, 255))
    np.testing.assert_allclose(found, mesh + np.array([[[0, 0]], [[10, 0]]]), atol=1e-3)
    signed = MEDIAPIPE.model_copy(update={"pixel_range": "-1..1"})
    dark = load_landmarks(file, signed).find(grey(0))
    np.testing.assert_allclose(dark[0], mesh - [10, 0], atol=1e-3)
    unit = MEDIAPIPE.model_copy(update={"coordinate_range": "0..1"})
    wide = load_landmarks(file, unit).find(grey(0))
    np.testing.assert_allclose(wide[0], mesh * 192, rtol=1e-4)


def test_dad_s_own_landmarks_come_in_its_crops(tmp_path):
    file = build_dad(tmp_path / "dad_3dheads.trcd")
    model = load_landmarks(file, LandmarkModelConfig(kind="dad"))
    assert isinstance(model, CutsCrops)
    image = np.random.default_rng(0).integers(0, 255, (120, 160, 3), np.uint8)
    crops, frames = cut_crops(model, image, np.array([[40, 30, 90, 80]], np.float32))
    assert (crops.shape, frames[0, 2]) == ((1, 256, 256, 3), 75)
    found = model.find(torch.from_numpy(crops).permute(0, 3, 1, 2))
    other = model.find(torch.from_numpy(255 - crops).permute(0, 3, 1, 2))
    assert found.shape == (1, 68, 2)
    assert (found - other).abs().max() > 1
    network = torch.jit.load(str(file))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pixels = (torch.from_numpy(crops) / 255 - mean) / std
    said = network(pixels.permute(0, 3, 1, 2))["OUTPUT_2D_LANDMARKS"]
    np.testing.assert_allclose(found, said.detach().reshape(1, 68, 2) * 256, rtol=1e-4, atol=1e-3)


def test_what_is_no_landmark_model_is_named(tmp_path):
    (tmp_path / "text.onnx").write_text("no network")
    with pytest.raises(FaceModelError, match="onnxruntime cannot read it"):
        load_landmarks(tmp_path / "text.onnx", LandmarkModelConfig())
    with pytest.raises(FileNotFoundError, match="landmark model: no file"):
        load_landmarks(tmp_path / "none.onnx", LandmarkModelConfig())
    other = build_face_mesh(tmp_path / "2d106det.onnx", MESH[:106])
    with pytest.raises(LandmarkError, match=r"expected 68, 105, 468 or 478 .* \(1, 318\)"):
        load_landmarks(other, LandmarkModelConfig())
    model = load_landmarks(build_1k3d68(tmp_path / "m.onnx", TEMPLATE), LandmarkModelConfig())
    with pytest.raises(ValueError, match="cut them with cut_crops"):
        model.find(torch.zeros(1, 3, 96, 96, dtype=torch.uint8))
    free = build_1k3d68(tmp_path / "free.onnx", TEMPLATE, side="side")
    with pytest.raises(LandmarkError, match="with a fixed side S, got"):
        load_landmarks(free, LandmarkModelConfig())


def embedding_file(path, **changes):
    content = {
        "lmk_face_idx": np.arange(105), "lmk_b_coords": np.full((105, 3), 1 / 3),
        "landmark_indices": np.arange(105) * 4,
    }  # fmt: skip
    np.savez(path, **{k: v for k, v in {**content, **changes}.items() if v is not None})
    return path


def test_where_the_points_lie_on_the_head(head_model, tmp_path):
    (faces, weights), chosen = points_on_head(head_model, 68, None)
    assert faces is head_model.landmark_faces
    assert weights is head_model.landmark_barycentric
    assert chosen.tolist() == list(range(68))
    embedding = read_embedding([embedding_file(tmp_path / "mediapipe_landmark_embedding.npz")])
    for count, numbers in ((105, range(105)), (468, range(0, 420, 4)), (478, range(0, 420, 4))):
        (faces, _), chosen = points_on_head(head_model, count, embedding)
        assert faces.tolist() == list(range(105))
        assert chosen.tolist() == list(numbers)
    with pytest.raises(LandmarkError, match=r"its 468 points .* mediapipe_landmark_embedding.npz"):
        points_on_head(head_model, 468, None)
    with pytest.raises(LandmarkError, match="found no points"):
        points_on_head(head_model, 468, LandmarkEmbedding())
    silent = read_embedding([embedding_file(tmp_path / "s.npz", landmark_indices=None)])
    with pytest.raises(LandmarkError, match="does not say which of the 478"):
        points_on_head(head_model, 478, silent)


def test_it_is_chosen_by_configuration(head_model, tmp_path):
    ws = Workspace(tmp_path, 1, 1, 1)
    build_1k3d68(tmp_path / "1k3d68.onnx", TEMPLATE)
    model = {"path": "1k3d68.onnx", "asset": "landmarks-insightface"}
    config = RegressorConfig(backend="landmarks", model=model, fit={"iterations": 1})
    teacher = load_flame_regressor(ws, config, head_model)
    assert (teacher.name, len(teacher.sha256)) == ("landmark_fit(onnx_landmarks)", 64)
    with pytest.raises(ModelError, match="expected 0000"):
        load_flame_regressor(
            ws,
            RegressorConfig(backend="landmarks", model={**model, "sha256": "0" * 64}),
            head_model,
        )
    with pytest.raises(ValueError, match="backend landmarks needs model"):
        RegressorConfig(backend="landmarks")
    build_face_mesh(tmp_path / "mesh.onnx", MESH)
    embedding_file(tmp_path / "e.npz")
    mesh = RegressorConfig(
        backend="landmarks",
        model={"path": "mesh.onnx", "asset": "mediapipe-face-mesh"},
        landmarks={"embedding": {"path": "e.npz", "asset": "flame-mediapipe-embedding"}},
        fit={"iterations": 1},
    )
    crops = torch.zeros(2, 3, 192, 192, dtype=torch.uint8)
    assert load_flame_regressor(ws, mesh, head_model).predict(crops).shape == (2, 413)


def test_its_files_are_parents_of_the_result():
    regressor = {
        "backend": "landmarks",
        "model": {"path": "mesh.onnx", "asset": "landmarks-insightface"},
        "landmarks": {"embedding": {"path": "e.npz", "asset": "flame-mediapipe-embedding"}},
    }
    parents = derive_parents({"annotations": {"regressor": regressor}})
    assert parents == ("flame-mediapipe-embedding", "landmarks-insightface")
    allowed = permission(parents)
    assert allowed.forbid_redistribution == ("flame-mediapipe-embedding",)
    assert set(allowed.forbid_commercial) == set(parents)
