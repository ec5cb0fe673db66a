"""Public models that are single files load under their published names by production's calls.

The profiles `research` and `open` say which backend reads which file; the tests change nothing in
them but the folder, so that a profile whose file has another name than the publisher's fails here.
"""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csc_matrix

from dagster_project.profiles import read_profile
from dagster_project.stages import STAGES
from ml.annotation.backends import load_flame_regressor
from ml.annotation.estimates import cut_crops, estimate_heads
from ml.box_detection.faces import build_face_detector
from ml.filtering.identity import load_face_reader
from ml.flame.flame_file import read_flame_file
from ml.flame.head_model import HeadModel
from ml.flame.landmark_files import read_embedding
from ml.flame.releases import OPEN_DESCRIPTION, OPEN_KEY, RELEASES
from ml.flame.safe_pickle import FlameFileError
from ml.records.config import overlay, read_config
from ml.records.models import hash_model
from ml.records.register import REGISTER
from ml.records.workspace import Workspace
from ml.stages import head_model as head_model_stage
from tests.tiny_models.dad import build_dad
from tests.tiny_models.faces import build_embedder, build_scrfd, build_yunet, draw_face
from tests.tiny_models.landmarks import build_1k3d68

PROJECT = Path(__file__).parents[1]
MASKS = (
    "face", "neck", "scalp", "boundary", "right_eyeball", "left_eyeball", "right_ear", "left_ear",
    "forehead", "eye_region", "nose", "lips", "right_eye_region", "left_eye_region",
)  # fmt: skip
"""Regions of FLAME_masks.pkl."""
PACKS = {
    "buffalo_l": ("det_10g.onnx", "w600k_r50.onnx"),
    "antelopev2": ("scrfd_10g_bnkps.onnx", "glintr100.onnx"),
}
"""insightface's packs: detector and embedder."""


def section(profile: str, stage: str, **changes: Any) -> Any:
    """A stage's configuration in a profile, with changes."""
    values = overlay(read_profile(PROJECT, profile).values[stage], changes)
    return read_config(STAGES[stage].config_class(), stage, values)


@pytest.fixture
def ws(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path, seed=1, num_shards=1, shard_size=1)


def put(ws: Workspace, path: str | None) -> Path:
    """Where a profile looks for a file."""
    assert path is not None
    place = ws.root / path
    place.parent.mkdir(parents=True, exist_ok=True)
    return place


# ------------------------------------------------------------------ face models
def test_research_names_insightface_s_own_files(ws):
    """Of a pack as it is unpacked nothing has to be renamed."""
    config = section("research", "filtered_dataset")
    detector, embedder = config.face_check.model, config.identity.embedder_model
    assert Path(detector.path).name in PACKS[Path(detector.path).parent.name]
    assert Path(embedder.path).name in PACKS[Path(embedder.path).parent.name]
    assert config.identity.detector_model == detector
    for name in (detector.path, embedder.path):
        assert Path(name).name in " ".join(asset.files for asset in REGISTER.values())
    build_scrfd(put(ws, detector.path))
    build_embedder(put(ws, embedder.path), 512)
    small = {"face_check": {"input_size": 64}, "identity": {"input_size": 64}}
    config = section("research", "filtered_dataset", **small)
    found = build_face_detector(config.face_check, ws.root)
    (boxes,) = found.detect_faces([draw_face(1, size=(64, 64), column=0, row=0)])
    assert len(boxes)
    vectors = load_face_reader(config.identity, ws.root).read(draw_face(1))
    assert vectors.shape == (1, 512)


@pytest.mark.parametrize("pack", PACKS)
def test_either_pack_of_insightface_does(ws, pack):
    detector, embedder = PACKS[pack]
    build_scrfd(put(ws, f"models/{pack}/{detector}"))
    build_embedder(put(ws, f"models/{pack}/{embedder}"), 512)
    identity = {
        "detector_model": {"path": f"models/{pack}/{detector}"},
        "embedder_model": {"path": f"models/{pack}/{embedder}"},
        "input_size": 64,
    }
    config = section("research", "filtered_dataset", identity=identity)
    reader = load_face_reader(config.identity, ws.root)
    one, other = (reader.read(draw_face(person)) for person in (1, 2))
    assert float((one @ other.T)[0, 0]) < 0.95


def test_open_reads_the_files_of_opencv_s_zoo(ws):
    check = section("open", "filtered_dataset").face_check
    assert Path(check.model.path).name == "face_detection_yunet_2023mar.onnx"
    build_yunet(put(ws, check.model.path))
    sface = "models/face_recognition_sface_2021dec.onnx"
    build_embedder(put(ws, sface), 128)
    config = section(
        "open",
        "filtered_dataset",
        face_check={"input_size": 64},
        identity={
            "detector_model": {"path": check.model.path, "asset": "yunet"},
            "embedder_model": {"path": sface, "asset": "sface"},
            "input_size": 64,
        },
    )
    found = build_face_detector(config.face_check, ws.root)
    assert found.detect_faces([draw_face(1)])[0].shape == (1, 4)
    assert load_face_reader(config.identity, ws.root).read(draw_face(1)).shape == (1, 128)


# ------------------------------------------------------------------ teachers
def test_research_reads_dad_s_trcd(ws, ball_head):
    regressor = section("research", "annotations").regressor
    assert Path(regressor.model.path).name == "dad_3dheads.trcd"
    build_dad(put(ws, regressor.model.path))
    teacher = load_flame_regressor(ws, regressor, ball_head)
    image = np.random.default_rng(0).integers(0, 255, (120, 160, 3), np.uint8)
    boxes = np.array([[20, 20, 80, 90], [90, 30, 140, 100]], np.float32)
    crops, frames = cut_crops(teacher, image, boxes)
    found = estimate_heads(teacher, crops, frames)
    assert found.reasons == ["", ""]
    assert np.abs(found.flame[0] - found.flame[1]).max() > 1


@pytest.mark.parametrize("kind", ["onnx", "dad"])
def test_landmarks_of_buffalo_l_or_dad_stand_in_for_dad_s_parameters(ws, ball_head, kind):
    """The edit that docs/production.md describes, on the research profile."""
    if kind == "onnx":
        model = {"path": "models/buffalo_l/1k3d68.onnx", "asset": "landmarks-insightface"}
        template = np.random.default_rng(0).uniform(-0.5, 0.5, (68, 2))
        build_1k3d68(put(ws, model["path"]), template)
    else:
        model = {"path": "models/dad_3dheads.trcd", "asset": "dad-3dnet"}
        build_dad(put(ws, model["path"]))
    changes = {
        "backend": "landmarks", "model": model, "landmarks": {"kind": kind},
        "fit": {"iterations": 2, "max_error_std": 1e6},
    }  # fmt: skip
    regressor = section("research", "annotations", regressor=changes).regressor
    teacher = load_flame_regressor(ws, regressor, ball_head)
    image = np.random.default_rng(0).integers(0, 255, (120, 160, 3), np.uint8)
    crops, frames = cut_crops(teacher, image, np.array([[20, 20, 80, 90]], np.float32))
    assert np.isfinite(estimate_heads(teacher, crops, frames).flame).all()


# ------------------------------------------------------------------ FLAME
def flame_content(head: HeadModel, is_open: bool) -> dict[str, Any]:
    """Keys and kinds of arrays of a published FLAME model."""
    content: dict[str, Any] = {
        "f": head.faces.astype(np.uint32),
        "J_regressor": csc_matrix(head.J_regressor.astype(np.float64)),
        "kintree_table": np.array([[2**32 - 1, 0, 1, 1, 1], range(5)], np.uint32),
        "J": np.zeros((5, 3)),
        "weights": head.weights.astype(np.float64),
        "posedirs": head.posedirs.astype(np.float64),
        "v_template": head.v_template.astype(np.float64),
        "shapedirs": head.shapedirs.astype(np.float64),
        "bs_style": "lbs",
        "bs_type": "lrotmin",
    }
    return (
        {**content, OPEN_KEY: {**OPEN_DESCRIPTION, "expr_source": "SUPR"}} if is_open else content
    )


def write_flame(head: HeadModel, path: Path, is_open: bool) -> None:
    path.write_bytes(pickle.dumps(flame_content(head, is_open), protocol=2))


def write_embedding(head: HeadModel, path: Path) -> None:
    """DECA's landmark_embedding.npy."""
    faces, weights = head.landmark_faces, head.landmark_barycentric
    content = {
        "static_lmk_faces_idx": faces[17:], "static_lmk_bary_coords": weights[17:],
        "dynamic_lmk_faces_idx": np.tile(faces[:17], (79, 1)),
        "dynamic_lmk_bary_coords": np.tile(weights[:17], (79, 1, 1)),
        "full_lmk_faces_idx": faces[None], "full_lmk_bary_coords": weights[None],
    }  # fmt: skip
    np.save(path, np.array(content, dtype=object), allow_pickle=True)


def write_masks(head: HeadModel, path: Path) -> dict[str, np.ndarray]:
    """FLAME_masks.pkl: fourteen regions, int64 vertex lists."""
    masks = {
        name: np.sort(head.regions.get(name, np.arange(number * 50, number * 50 + 40)))
        for number, name in enumerate(MASKS)
    }
    masks = {name: value.astype(np.int64) for name, value in masks.items()}
    path.write_bytes(pickle.dumps(masks, protocol=2))
    return masks


def lay_out(ws: Workspace, profile: str, head: HeadModel) -> Any:
    """The files of a profile's head model where it looks for them."""
    config = section(profile, "head_model", index_files=[])
    write_flame(head, put(ws, config.flame_file), profile == "open")
    write_embedding(head, put(ws, config.landmark_file))
    return config


@pytest.fixture
def no_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_model_stage, "_images", lambda *_: {})


@pytest.mark.parametrize("profile", ["research", "open"])
def test_flame_s_files_become_the_head_model(ws, profile, open_head, no_images):
    config = lay_out(ws, profile, open_head)
    published = {release.asset: release.file for release in RELEASES}
    assert Path(config.flame_file).name == published[config.source_asset]
    assert Path(config.landmark_file).name == "landmark_embedding.npy"
    masks = None
    if config.masks_file is not None:
        assert Path(config.masks_file).name == "FLAME_masks.pkl"
        masks = write_masks(open_head, put(ws, config.masks_file))
    report = head_model_stage.run(ws, config)
    made = HeadModel.load(ws.stage_dir("head_model") / "head_model.npz")
    np.testing.assert_allclose(made.v_template, open_head.v_template)
    np.testing.assert_array_equal(made.landmark_faces, open_head.landmark_faces)
    named = "FLAME 2023 Open" if profile == "open" else "FLAME 2020 or FLAME 2023"
    assert named in report.metadata["source"]
    if masks is not None:
        for name, index in masks.items():
            np.testing.assert_array_equal(made.regions[name], index)
        eyes = np.union1d(masks["left_eyeball"], masks["right_eyeball"])
        ears = np.union1d(masks["left_ear"], masks["right_ear"])
        neck = np.union1d(masks["neck"], masks["boundary"])
        kept = np.setdiff1d(np.arange(5023), np.concatenate([eyes, ears, neck]))
        np.testing.assert_array_equal(made.regions["head"], kept)
        np.testing.assert_array_equal(made.regions["head_with_ears"], np.union1d(kept, ears))


@pytest.mark.parametrize("release", RELEASES, ids=lambda r: r.asset)
def test_a_published_file_is_known_by_its_bytes_under_any_name(
    release, open_head, tmp_path, monkeypatch
):
    content = flame_content(open_head, release.has_open_key)
    # The largest array, kept small.
    content["shapedirs"] = np.zeros((5023, 3, 400), np.int8)
    path = tmp_path / "renamed.pkl"
    path.write_bytes(pickle.dumps(content, protocol=2))
    for other in RELEASES:
        known = hash_model(path) if other is release else "0" * 64
        asset = replace(REGISTER[other.asset], sha256=known)
        monkeypatch.setitem(REGISTER, other.asset, asset)
    assert read_flame_file(path, release.asset).release == f"{release.title} (known sha256)"
    for other in RELEASES:
        if other is not release:
            with pytest.raises(FlameFileError, match=f"by its sha256 it is {release.title}, but"):
                read_flame_file(path, other.asset)


def test_a_standard_file_under_the_open_file_s_name_is_refused(ws, open_head):
    config = section("open", "head_model", index_files=[])
    write_flame(open_head, put(ws, config.flame_file), is_open=False)
    with pytest.raises(FlameFileError, match=r"flame2023_Open\.pkl: it lacks the description"):
        head_model_stage.run(ws, config)


def test_mediapipe_s_embedding_is_read_with_the_numbers_of_its_points(tmp_path):
    path = tmp_path / "mediapipe_landmark_embedding.npz"
    numbers = np.arange(105) * 4
    np.savez(path, lmk_face_idx=np.arange(105, dtype=np.int64), landmark_indices=numbers,
             lmk_b_coords=np.full((105, 3), 1 / 3))  # fmt: skip
    found = read_embedding([path])
    np.testing.assert_array_equal(found.mediapipe_numbers, numbers)
    np.savez(path, lmk_face_idx=np.arange(105), lmk_b_coords=np.full((105, 3), 1 / 3),
             landmark_indices=numbers + 100)  # fmt: skip
    with pytest.raises(FlameFileError, match=r"landmark_indices must be 105 numbers .* 0\.\.477"):
        read_embedding([path])
