"""Landmark embeddings in every layout that is published, written as their authors wrote them."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from ml.flame.flame_file import write_landmark_embedding
from ml.flame.landmark_files import read_embedding, read_landmarks
from ml.flame.safe_pickle import FlameFileError


def save_object(path: Path, content: object) -> Path:
    """What np.save makes of a dictionary: an array of one object."""
    np.save(path, np.array(content, dtype=object), allow_pickle=True)
    return path


@pytest.fixture
def static_file(head_model, tmp_path: Path) -> Path:
    path = tmp_path / "flame_static_embedding.pkl"
    content = {
        "lmk_face_idx": head_model.landmark_faces[17:].astype(np.uint32),
        "lmk_b_coords": head_model.landmark_barycentric[17:].astype(np.float64),
    }
    path.write_bytes(pickle.dumps(content, protocol=2))
    return path


@pytest.fixture
def turns(head_model) -> dict[str, np.ndarray]:
    """The contour for 79 turns of the head; the first is the resting head's."""
    faces = np.tile(head_model.landmark_faces[:17], (79, 1)).astype(np.int64)
    weights = np.tile(head_model.landmark_barycentric[:17], (79, 1, 1)).astype(np.float64)
    faces[1:], weights[1:] = 0, [1.0, 0.0, 0.0]
    return {"lmk_face_idx": faces, "lmk_b_coords": weights}


def assert_same(found, head_model) -> None:
    np.testing.assert_array_equal(found[0], head_model.landmark_faces)
    np.testing.assert_array_equal(found[1], head_model.landmark_barycentric)


def test_the_pair_of_flame_ringnet_and_dad(head_model, static_file, turns, tmp_path) -> None:
    dynamic = save_object(tmp_path / "flame_dynamic_embedding.npy", turns)
    assert_same(read_landmarks(static_file, dynamic), head_model)
    assert_same(read_landmarks(dynamic, static_file), head_model)


@pytest.mark.parametrize("full", [True, False])
def test_landmark_embedding_of_deca_and_mica(head_model, turns, tmp_path, full) -> None:
    faces, weights = head_model.landmark_faces, head_model.landmark_barycentric
    content = {
        "static_lmk_faces_idx": faces[17:], "static_lmk_bary_coords": weights[17:],
        "dynamic_lmk_faces_idx": turns["lmk_face_idx"],
        "dynamic_lmk_bary_coords": turns["lmk_b_coords"],
    }  # fmt: skip
    if full:
        content |= {"full_lmk_faces_idx": faces[None], "full_lmk_bary_coords": weights[None]}
    assert_same(
        read_landmarks(save_object(tmp_path / "landmark_embedding.npy", content)), head_model
    )


def test_the_file_that_the_project_itself_writes(head_model, turns, tmp_path) -> None:
    write_landmark_embedding(head_model, tmp_path / "own.pkl")
    dynamic = save_object(tmp_path / "flame_dynamic_embedding.npy", turns)
    assert_same(read_landmarks(tmp_path / "own.pkl", dynamic), head_model)


def test_mediapipe_s_105_points_are_told_apart(tmp_path) -> None:
    path = tmp_path / "mediapipe_landmark_embedding.npz"
    weights = np.full((105, 3), 1 / 3)
    np.savez(
        path, lmk_face_idx=np.arange(105), lmk_b_coords=weights, landmark_indices=np.arange(105)
    )
    found = read_embedding([path])
    assert found.mediapipe is not None
    assert found.mediapipe[0].tolist() == list(range(105))
    with pytest.raises(FlameFileError, match="found 105 mediapipe; the 68 landmarks still need"):
        read_landmarks(path)


def test_what_is_missing_is_named(static_file, turns, tmp_path) -> None:
    with pytest.raises(
        FlameFileError, match=r"found 51 static; .* the contour of flame_dynamic_embedding.npy"
    ):
        read_landmarks(static_file)
    dynamic = save_object(tmp_path / "flame_dynamic_embedding.npy", turns)
    with pytest.raises(FlameFileError, match=r"found 17 contour; .* flame_static_embedding.pkl"):
        read_landmarks(dynamic)


class _Shell:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def test_nothing_in_an_object_array_is_executed(tmp_path) -> None:
    path = save_object(tmp_path / "evil.npy", {"lmk_face_idx": _Shell(f"touch {tmp_path}/witness")})
    with pytest.raises(FlameFileError, match="refused, nothing was executed"):
        read_landmarks(path)
    assert not (tmp_path / "witness").exists()


def test_damaged_files_are_refused(static_file, turns, tmp_path) -> None:
    dynamic = save_object(tmp_path / "flame_dynamic_embedding.npy", turns)
    whole = dynamic.read_bytes()
    for length in (0, 5, 60, len(whole) // 2):
        dynamic.write_bytes(whole[:length])
        with pytest.raises(FlameFileError, match="damaged or not a pickle"):
            read_landmarks(dynamic)
    np.save(tmp_path / "plain.npy", np.arange(5))
    with pytest.raises(FlameFileError, match="expected a dictionary of landmarks"):
        read_landmarks(tmp_path / "plain.npy")
    wrong = save_object(
        tmp_path / "w.npy", {"lmk_face_idx": np.arange(50), "lmk_b_coords": np.zeros((50, 3))}
    )
    with pytest.raises(FlameFileError, match="expected 51, 68 or 105 landmarks, got 50"):
        read_landmarks(wrong)
