"""FLAME's pickle format: read without chumpy or code execution, written for smplx."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from ml.flame.head_model import NUM_FACES, NUM_JOINTS, NUM_VERTICES, PARENTS, HeadModel
from ml.flame.index_files import read_index_files
from ml.flame.landmark_files import read_landmarks
from ml.flame.releases import identify
from ml.flame.safe_pickle import FlameFileError, load_pickle, numeric, plain_array
from ml.records.atomic import write_bytes
from ml.records.limits import short_names
from ml.records.models import hash_model

_WANTED: dict[str, tuple[int, ...]] = {
    "v_template": (NUM_VERTICES, 3),
    "f": (NUM_FACES, 3),
    "shapedirs": (NUM_VERTICES, 3, 400),
    "posedirs": (NUM_VERTICES, 3, 36),
    "J_regressor": (NUM_JOINTS, NUM_VERTICES),
    "kintree_table": (2, NUM_JOINTS),
    "weights": (NUM_VERTICES, NUM_JOINTS),
}


# ------------------------------------------------------------------ writing
def write_flame_pickle(head_model: HeadModel, path: Path) -> None:
    """Write a head model with FLAME's keys, as `smplx.FLAME` reads them: plain numpy inside.

    Args:
        head_model: the model.
        path: a .pkl file, written atomically; equal models give equal bytes.
    """
    content = {
        "v_template": head_model.v_template.astype(np.float64),
        "f": head_model.faces.astype(np.uint32),
        "shapedirs": head_model.shapedirs.astype(np.float64),
        "posedirs": head_model.posedirs.astype(np.float64),
        "J_regressor": head_model.J_regressor.astype(np.float64),
        "kintree_table": head_model.kintree_table,
        "weights": head_model.weights.astype(np.float64),
        "bs_style": "lbs",
        "bs_type": "lrotmin",
    }
    write_bytes(Path(path), pickle.dumps(content, protocol=2))


def write_landmark_embedding(head_model: HeadModel, path: Path) -> None:
    """Write the 51 static landmarks in the format of `smplx.FLAME`.

    Args:
        head_model: the model.
        path: a .pkl file.
    """
    static = slice(17, 68)
    content = {
        "lmk_face_idx": head_model.landmark_faces[static].astype(np.int64),
        "lmk_b_coords": head_model.landmark_barycentric[static].astype(np.float64),
    }
    write_bytes(Path(path), pickle.dumps(content, protocol=2))


# ------------------------------------------------------------------ reading
@dataclass(frozen=True)
class FlameFile:
    """Content of a FLAME model file.

    Attributes:
        arrays: float64 and int64 arrays under FLAME's keys.
        release: the release, and how it was identified.
        sha256: of the file.
    """

    arrays: dict[str, NDArray]
    release: str
    sha256: str


def read_flame_file(path: Path, asset: str | None = None, sha256: str = "") -> FlameFile:
    """Read a FLAME model file and identify its release.

    Args:
        path: the file, a pickle.
        asset: the stated release, by its name in the asset register.
        sha256: the stated hash; empty accepts any.

    Returns:
        Its arrays, release and hash.

    Raises:
        FileNotFoundError: there is no such file.
        FlameFileError: it cannot be read, has another hash, or is of another release.
    """
    path = Path(path)
    raw = _read_raw(path)
    found = hash_model(path)
    if sha256 and found != sha256:
        raise FlameFileError(
            f"FLAME file {path}: it has sha256 {found}, expected {sha256}; bring the file that is "
            "meant, or correct head_model.flame_sha256"
        )
    release = identify(path, found, raw, asset)
    return FlameFile(_model_arrays(raw, path), release, found)


def _read_raw(path: Path) -> dict[Any, Any]:
    if not path.is_file():
        raise FileNotFoundError(
            f"FLAME file: no file {path}; bring the model from https://flame.is.tue.mpg.de, "
            "or set head_model.source to open"
        )
    raw = load_pickle(path)
    if not isinstance(raw, dict):
        raise FlameFileError(f"FLAME file {path}: expected a dictionary, got {type(raw).__name__}")
    return raw


def _model_arrays(raw: dict[Any, Any], path: Path) -> dict[str, NDArray]:
    missing = [key for key in _WANTED if key not in raw]
    if missing:
        raise FlameFileError(
            f"FLAME file {path}: missing {', '.join(missing)}; found {short_names(raw)}"
        )
    arrays = {}
    for key, shape in _WANTED.items():
        array = plain_array(raw[key], f"FLAME file {path}: {key}")
        if array.shape != shape:
            raise FlameFileError(f"FLAME file {path}: {key} must be {shape}, got {array.shape}")
        arrays[key] = numeric(array, f"FLAME file {path}: {key}")
    table = arrays["kintree_table"]
    parents = tuple(int(p) if 0 <= p < 2**31 else -1 for p in table[0])
    if (-1, *parents[1:]) != PARENTS:
        raise FlameFileError(f"FLAME file {path}: parents must be {PARENTS}, got {parents}")
    return arrays


# ------------------------------------------------------------------ licensed file -> HeadModel
def read_masks(path: Path) -> dict[str, NDArray[np.int32]]:
    """Read FLAME_masks.pkl, the vertex regions of the FLAME site, as safely as the model.

    Args:
        path: the file.

    Returns:
        region name -> sorted int32 vertex indices.

    Raises:
        FileNotFoundError: there is no such file.
        FlameFileError: it is damaged or has another content.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"FLAME masks: no file {path}; FLAME_masks.pkl comes from the FLAME site"
        )
    raw = load_pickle(path)
    if not isinstance(raw, dict) or not raw:
        raise FlameFileError(f"FLAME masks {path}: expected a dictionary of vertex lists")
    regions = {}
    for name, value in raw.items():
        index = plain_array(value, f"FLAME masks {path}: {name}")
        plausible = index.dtype.kind in "iu" and index.ndim == 1 and len(index) > 0
        if not plausible or index.min() < 0 or index.max() >= NUM_VERTICES:
            raise FlameFileError(
                f"FLAME masks {path}: {name} must be vertex indices below {NUM_VERTICES}"
            )
        regions[str(name)] = np.unique(index).astype(np.int32)
    return regions


def head_model_from_flame(
    model_path: Path,
    landmarks_path: Path,
    masks_path: Path | None = None,
    contour_path: Path | None = None,
    index_paths: Sequence[Path] = (),
    *,
    asset: str | None = None,
    sha256: str = "",
) -> HeadModel:
    """Build a head model from the user's FLAME files.

    The mirror maps are measured: the nearest vertex to each reflected one, and, by least squares,
    the matrices that turn the coefficients of a head into those of its mirror image.

    Args:
        model_path: FLAME's model pickle.
        landmarks_path: a file of landmarks in any public form, see `ml.flame.landmark_files`.
        masks_path: FLAME_masks.pkl; without it the regions are derived from the skinning weights.
        contour_path: the dynamic embedding, where the landmarks are in a pair of files.
        index_paths: published lists of vertices, see `ml.flame.index_files`; they replace the
            regions defined by the masks or weights.
        asset: the model's stated release, by its name in the asset register.
        sha256: the model's stated hash; empty accepts any.

    Returns:
        the head model.

    Raises:
        FileNotFoundError: a file is not there.
        FlameFileError: a file cannot be read, or has another hash or release than stated.
    """
    file = read_flame_file(model_path, asset, sha256)
    arrays = file.arrays
    template, faces = arrays["v_template"], arrays["f"]
    mirror = cKDTree(template).query(template * [-1.0, 1.0, 1.0])[1]
    regions = (
        _regions_from_masks(read_masks(masks_path)) if masks_path else _regions_from_parts(arrays)
    )
    regions |= read_index_files(index_paths)
    others = [] if contour_path is None else [contour_path]
    landmark_faces, landmark_weights = read_landmarks(landmarks_path, *others)
    if "ears" not in regions:
        corners = template[faces[landmark_faces[[0, 16]]]]
        ends = (corners * landmark_weights[[0, 16]][..., None]).sum(axis=1)
        regions |= _ears_by_place(template, ends, regions)
    return HeadModel(
        v_template=template.astype(np.float32),
        faces=faces.astype(np.int32),
        shapedirs=arrays["shapedirs"].astype(np.float32),
        posedirs=arrays["posedirs"].astype(np.float32),
        J_regressor=arrays["J_regressor"].astype(np.float32),
        weights=arrays["weights"].astype(np.float32),
        landmark_faces=landmark_faces,
        landmark_barycentric=landmark_weights,
        mirror_vertices=mirror.astype(np.int32),
        mirror_shape=_mirror_matrix(arrays["shapedirs"][:, :, :300], mirror),
        mirror_expression=_mirror_matrix(arrays["shapedirs"][:, :, 300:], mirror),
        regions=regions,
        source=f"FLAME file {Path(model_path).name}: {file.release}",
    )


def _mirror_matrix(directions: NDArray, mirror: NDArray) -> NDArray[np.float32]:
    """Return (K, K): coefficients @ matrix are those of the mirrored head."""
    count = directions.shape[2]
    flat = directions.reshape(-1, count)
    reflected = (directions[mirror] * np.array([-1.0, 1.0, 1.0])[:, None]).reshape(-1, count)
    return np.linalg.lstsq(flat, reflected, rcond=None)[0].T.astype(np.float32)


def _regions_from_masks(masks: dict[str, NDArray[np.int32]]) -> dict[str, NDArray[np.int32]]:
    def union(*names: str) -> NDArray[np.int32]:
        found = [masks[n] for n in names if n in masks]
        return np.unique(np.concatenate(found)).astype(np.int32) if found else np.zeros(0, np.int32)

    every = np.arange(NUM_VERTICES, dtype=np.int32)
    eyeballs, ears = union("left_eyeball", "right_eyeball"), union("left_ear", "right_ear")
    neck = union("boundary", "neck")
    with_ears = np.setdiff1d(every, np.union1d(eyeballs, neck))
    regions = {
        "all": every,
        "head_with_ears": with_ears,
        "head": np.setdiff1d(with_ears, ears),
        "face": union("face"),
        "ears": ears,
        "eyeballs": eyeballs,
        "neck": neck,
        "lips": union("lips"),
        "scalp": union("scalp"),
        **masks,
    }
    return {k: v.astype(np.int32) for k, v in regions.items() if len(v)}


def _ears_by_place(
    template: NDArray, contour_ends: NDArray, regions: dict[str, NDArray[np.int32]]
) -> dict[str, NDArray[np.int32]]:
    """Find ears in files without masks: vertices that protrude behind the ends of the contour.

    FLAME 2023 Open's licence does not cover the masks, and the renderer must know where ears are.
    On the open head, whose ears are known, the box has 626 of their 630 vertices and 96 of the
    other 3,405; where a list says which vertices are head without ears, it has no other.

    Args:
        template: (V, 3) metres.
        contour_ends: (2, 3) landmarks 1 and 17, metres.
        regions: `head` and `head_with_ears` among them.

    Returns:
        `ears`, and `head` where it was not derived from them.
    """
    with_ears, head = regions["head_with_ears"], regions["head"]
    width = np.ptp(contour_ends[:, 0])
    x, y, z = ((template[with_ears] - contour_ends.mean(axis=0)) / width).T
    placed = (np.abs(x) > 0.42) & (y > -0.33) & (y < 0.15) & (z > -0.36) & (z < -0.03)
    if np.array_equal(head, with_ears):
        return {"ears": with_ears[placed], "head": with_ears[~placed]}
    return {"ears": np.setdiff1d(with_ears[placed], head).astype(np.int32)}


def _regions_from_parts(arrays: dict[str, NDArray]) -> dict[str, NDArray[np.int32]]:
    """Build regions from parts: eyeballs move with their joints, the neck with the body."""
    every = np.arange(NUM_VERTICES, dtype=np.int32)
    weights = arrays["weights"]
    eyeballs = np.flatnonzero(weights[:, 3:].sum(axis=1) > 0.5)
    neck = np.flatnonzero(weights[:, 0] > 0.5)
    with_ears = np.setdiff1d(every, np.union1d(eyeballs, neck))
    regions = {
        "all": every,
        "head": with_ears,
        "head_with_ears": with_ears,
        "eyeballs": eyeballs,
        "neck": neck,
    }
    return {k: v.astype(np.int32) for k, v in regions.items() if len(v)}
