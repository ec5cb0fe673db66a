"""The embedded head in FLAME's own files: model, landmarks, masks, lists of vertices."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np

from ml.flame.flame_file import write_flame_pickle
from ml.flame.head_model import HeadModel

_MASKS = ("face", "left_ear", "right_ear", "left_eyeball", "right_eyeball", "lips", "neck", "scalp")
INDEX_LISTS = {"face.npy": 2094, "head_indices.npy": 2470, "head_w_ears.npy": 3457}
"""Files of VGGHeads' `flame_indices` and how many vertices they name."""


def build_flame(folder: Path, head_model: HeadModel) -> Path:
    """Write `generic_model.pkl`, `landmark_embedding.npy` (DECA's, MICA's) and `FLAME_masks.pkl`.

    Args:
        folder: the folder to write.
        head_model: whose shape the files have.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_flame_pickle(head_model, folder / "generic_model.pkl")
    faces, weights = head_model.landmark_faces, head_model.landmark_barycentric
    embedding = {
        "static_lmk_faces_idx": faces[17:],
        "static_lmk_bary_coords": weights[17:],
        "dynamic_lmk_faces_idx": np.tile(faces[:17], (79, 1)),
        "dynamic_lmk_bary_coords": np.tile(weights[:17], (79, 1, 1)),
        "full_lmk_faces_idx": faces[None],
        "full_lmk_bary_coords": weights[None],
    }
    stored = np.array(embedding, dtype=object)
    np.save(folder / "landmark_embedding.npy", stored, allow_pickle=True)
    masks = {name: head_model.regions[name].astype(np.int64) for name in _MASKS}
    (folder / "FLAME_masks.pkl").write_bytes(pickle.dumps(masks, protocol=2))
    return folder


def build_index_lists(folder: Path, head_model: HeadModel) -> Path:
    """Write lists of as many vertices as the published ones, each within the next.

    Args:
        folder: the folder to write.
        head_model: says which vertices lie in the face, which in front.
    """
    folder.mkdir(parents=True, exist_ok=True)
    inside = [head_model.regions[name] for name in ("face", "head", "head_with_ears")]
    front = [index[np.argsort(-head_model.v_template[index, 2])] for index in inside]
    order = list(dict.fromkeys(np.concatenate(front).tolist()))
    for name, count in INDEX_LISTS.items():
        np.save(folder / name, np.sort(np.array(order[:count], np.int64)))
    return folder
