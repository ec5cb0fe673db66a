"""FLAME's own pickle: read without chumpy and without running anything, written for smplx."""

from __future__ import annotations

import io
import math
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_matrix, csr_matrix
from scipy.spatial import cKDTree

from ml.flame.head_model import NUM_FACES, NUM_JOINTS, NUM_VERTICES, PARENTS, HeadModel
from ml.records.arrays import UnreadableArrays, read_arrays
from ml.records.atomic import write_bytes
from ml.records.files import UnreadableFile, read_file
from ml.records.limits import (
    MAX_PICKLE_BYTES,
    LimitExceeded,
    brief,
    check_pickle,
    short,
    short_names,
)

_WANTED: dict[str, tuple[int, ...]] = {
    "v_template": (NUM_VERTICES, 3),
    "f": (NUM_FACES, 3),
    "shapedirs": (NUM_VERTICES, 3, 400),
    "posedirs": (NUM_VERTICES, 3, 36),
    "J_regressor": (NUM_JOINTS, NUM_VERTICES),
    "kintree_table": (2, NUM_JOINTS),
    "weights": (NUM_VERTICES, NUM_JOINTS),
}


_LANDMARK_KEYS = (
    "lmk_face_idx", "lmk_b_coords", "dynamic_lmk_faces_idx", "dynamic_lmk_bary_coords",
)  # fmt: skip


class FlameFileError(ValueError):
    """A FLAME file cannot be read; the message says which, what was expected and found."""


# ------------------------------------------------------------------ writing
def write_flame_pickle(head_model: HeadModel, path: Path) -> None:
    """Write a head model with FLAME's keys, as `smplx.FLAME` reads them: plain numpy inside.

    Args:
        head_model: the model.
        path: a .pkl file, written whole or not at all; equal models give equal bytes.
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
    """Write the 51 static landmarks in the file format that `smplx.FLAME` asks for.

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
class _Stub:
    """Stands for an object of a class that is not imported: it keeps what the file says."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.args = args

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Chumpy(_Stub):
    """A chumpy array; its numbers lie under `x`."""


class _Columns(_Stub):
    """A scipy sparse matrix stored by columns: data, indices, indptr, shape."""


class _Rows(_Stub):
    """A scipy sparse matrix stored by rows."""


_SPARSE = {
    "csc_matrix": _Columns, "csc_array": _Columns, "csr_matrix": _Rows, "csr_array": _Rows,
}  # fmt: skip


class _Array(_Stub):
    """A numpy array: version, shape, dtype, Fortran order, bytes; built later, by hand."""


class _Dtype(_Stub):
    """A numpy dtype: a type code, and its byte order in the state."""


class _Scalar(_Stub):
    """A numpy scalar: dtype and bytes."""


class _Ndarray:
    """Stands for the class numpy.ndarray, which the pickle names beside its arrays."""


_MULTIARRAY = ("numpy.core.multiarray", "numpy._core.multiarray")
_NUMERIC = ("numpy.core.numeric", "numpy._core.numeric")


def _reconstruct_array(*_: Any) -> _Array:
    """What pickled arrays start from."""
    return _Array()


def _array_of_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    """How protocol 5 carries arrays: bytes first."""
    array = _Array()
    array.state = (1, shape, dtype, order == "F", data)
    return array


def _encode(text: str, encoding: str) -> bytes:
    """What protocol 2 uses to carry bytes; only with the one encoding that it uses."""
    if encoding != "latin1":
        raise FlameFileError(f"unexpected text encoding {brief(encoding)}")
    return text.encode("latin1")


# what an unpickler raises on damaged input
_DAMAGE = (
    pickle.UnpicklingError,
    EOFError,
    AttributeError,
    IndexError,
    KeyError,
    TypeError,
    ValueError,
    ImportError,
    OverflowError,
    RecursionError,
)


class _Unpickler(pickle.Unpickler):
    """Knows a handful of harmless names; every other one is refused before anything runs."""

    def find_class(self, module: str, name: str) -> Any:
        known: dict[tuple[str, str], Any] = {
            ("numpy", "ndarray"): _Ndarray,
            ("numpy", "dtype"): _Dtype,
        }
        known |= {(m, "_reconstruct"): _reconstruct_array for m in _MULTIARRAY}
        known |= {(m, "scalar"): _Scalar for m in _MULTIARRAY}
        known |= {(m, "_frombuffer"): _array_of_buffer for m in _NUMERIC}
        known |= {("_codecs", "encode"): _encode, ("collections", "OrderedDict"): OrderedDict}
        # old-style pickles rebuild objects through these two
        known |= {(m, "_reconstructor"): _rebuild for m in ("copy_reg", "copyreg")}
        known |= {(m, "object"): object for m in ("__builtin__", "builtins")}
        if (module, name) in known:
            return known[module, name]
        if module.split(".")[0] == "chumpy":
            return _Chumpy
        if module.split(".")[:2] == ["scipy", "sparse"] and name in _SPARSE:
            return _SPARSE[name]
        raise FlameFileError(
            f"it asks for {short(f'{module}.{name}')}, which no FLAME file needs; refused, nothing "
            "was executed"
        )


def _rebuild(cls: Any, base: Any = object, state: Any = None) -> Any:
    """Make an empty stub, whatever the file says about its base and state."""
    if not (isinstance(cls, type) and issubclass(cls, _Stub)):
        raise FlameFileError(f"unexpected object of {brief(cls)}")
    return cls()


def read_flame_pickle(path: Path) -> dict[str, NDArray]:
    """Read the arrays of a FLAME model file without importing or running what it names.

    chumpy arrays and scipy sparse matrices are taken apart by hand; every other class but plain
    numpy arrays is refused.

    Args:
        path: `generic_model.pkl` or `flame2023.pkl`, from the FLAME site (its licence applies) or
            from :func:`write_flame_pickle`.

    Returns:
        float64 and int64 arrays under FLAME's keys: v_template, f, shapedirs, posedirs,
        J_regressor, kintree_table, weights.

    Raises:
        FileNotFoundError: there is no such file.
        FlameFileError: it is no pickle, truncated, names other classes, lacks a key or has an array
            of another shape.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"FLAME file: no file {path}; bring the model from https://flame.is.tue.mpg.de, "
            "or set head_model.source to procedural"
        )
    raw = _load(path)
    if not isinstance(raw, dict):
        raise FlameFileError(f"FLAME file {path}: expected a dictionary, got {type(raw).__name__}")
    missing = [key for key in _WANTED if key not in raw]
    if missing:
        raise FlameFileError(
            f"FLAME file {path}: missing {', '.join(missing)}; found {short_names(raw)}"
        )
    arrays = {}
    for key, shape in _WANTED.items():
        array = _plain(raw[key], f"FLAME file {path}: {key}")
        if array.shape != shape:
            raise FlameFileError(f"FLAME file {path}: {key} must be {shape}, got {array.shape}")
        arrays[key] = _numeric(array, f"FLAME file {path}: {key}")
    table = arrays["kintree_table"]
    parents = tuple(int(p) if 0 <= p < 2**31 else -1 for p in table[0])
    if (-1, *parents[1:]) != PARENTS:
        raise FlameFileError(f"FLAME file {path}: parents must be {PARENTS}, got {parents}")
    return arrays


def _load(path: Path) -> Any:
    try:
        data = read_file(path, MAX_PICKLE_BYTES)
        check_pickle(data)
        return _Unpickler(io.BytesIO(data), encoding="latin1").load()
    except (UnreadableFile, LimitExceeded) as error:
        raise FlameFileError(f"FLAME file {path}: {error}") from error
    except FlameFileError as error:
        raise FlameFileError(f"FLAME file {path}: {error}") from error
    except _DAMAGE as error:
        raise FlameFileError(
            f"FLAME file {path}: damaged or not a pickle ({type(error).__name__}: "
            f"{short(str(error))}); download it again"
        ) from error


def _plain(value: Any, what: str, depth: int = 0) -> NDArray:
    """A plain array of what the file holds: numpy, chumpy or sparse stub."""
    state = getattr(value, "state", None)
    if isinstance(value, _Array):
        return _array(state, what)
    if isinstance(value, _Scalar) and len(value.args) == 2:
        return _array((1, (), value.args[0], False, value.args[1]), what)
    if isinstance(value, _Chumpy) and isinstance(state, dict) and "x" in state and depth < 4:
        return _plain(state["x"], what, depth + 1)
    if isinstance(value, _Columns | _Rows) and isinstance(state, dict):
        return _dense(state, csc_matrix if isinstance(value, _Columns) else csr_matrix, what)
    raise FlameFileError(f"{what} must be an array, got {type(value).__name__.strip('_')}")


def _array(state: Any, what: str) -> NDArray:
    """Build an array of numbers from its pickled parts."""
    try:
        _, shape, dtype_stub, fortran, data = state
        code, order = dtype_stub.args[0], dtype_stub.state[1]
        dtype = np.dtype(code).newbyteorder("=" if order == "|" else order)
    except (TypeError, ValueError, AttributeError, IndexError) as error:
        raise FlameFileError(f"{what}: not a valid numpy array: {error}") from error
    if dtype.kind not in "fiu" or dtype.hasobject:
        raise FlameFileError(f"{what} must hold numbers, got dtype {brief(code)}")
    data = data.encode("latin1", "replace") if isinstance(data, str) else data
    whole = isinstance(shape, tuple) and all(isinstance(n, int) and n >= 0 for n in shape)
    count = math.prod(shape) if whole else -1
    if not isinstance(data, bytes | bytearray) or len(data) != count * dtype.itemsize:
        raise FlameFileError(
            f"{what}: expected as many numbers of {dtype} as shape {brief(shape)} has"
        )
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")


def _dense(state: dict[str, Any], kind: Any, what: str) -> NDArray:
    shape = state.get("_shape", state.get("shape"))
    if isinstance(shape, tuple):
        shape = tuple(
            int(_plain(n, f"{what}: shape")) if isinstance(n, _Scalar) else n for n in shape
        )
    parts = [_plain(state.get(k), f"{what}: {k}") for k in ("data", "indices", "indptr")]
    if shape != (NUM_JOINTS, NUM_VERTICES):
        raise FlameFileError(
            f"{what} must be {(NUM_JOINTS, NUM_VERTICES)}, got sparse {brief(shape)}"
        )
    try:
        matrix = kind(tuple(parts), shape=(NUM_JOINTS, NUM_VERTICES))
        matrix.check_format(full_check=True)
    except (ValueError, TypeError, IndexError) as error:
        raise FlameFileError(f"{what}: not a valid sparse matrix: {error}") from error
    return matrix.toarray()


def _numeric(array: NDArray, what: str) -> NDArray:
    if array.dtype.kind in "iu":
        return array.astype(np.int64)
    if not np.isfinite(array).all():
        raise FlameFileError(f"{what} contains NaN or infinity")
    return array.astype(np.float64)


# ------------------------------------------------------------------ licensed file -> HeadModel
def read_masks(path: Path) -> dict[str, NDArray[np.int32]]:
    """Read FLAME_masks.pkl, the vertex regions of the FLAME site, as safely as the model.

    Args:
        path: the file.

    Returns:
        region name -> sorted int32 vertex indices.

    Raises:
        FileNotFoundError: there is no such file.
        FlameFileError: it is damaged or holds something else.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"FLAME masks: no file {path}; FLAME_masks.pkl comes from the FLAME site"
        )
    raw = _load(path)
    if not isinstance(raw, dict) or not raw:
        raise FlameFileError(f"FLAME masks {path}: expected a dictionary of vertex lists")
    regions = {}
    for name, value in raw.items():
        index = _plain(value, f"FLAME masks {path}: {name}")
        plausible = index.dtype.kind in "iu" and index.ndim == 1 and len(index) > 0
        if not plausible or index.min() < 0 or index.max() >= NUM_VERTICES:
            raise FlameFileError(
                f"FLAME masks {path}: {name} must be vertex indices below {NUM_VERTICES}"
            )
        regions[str(name)] = np.unique(index).astype(np.int32)
    return regions


def read_landmarks(path: Path) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Read a landmark embedding: 68 static landmarks, or 51 and the contour of the resting head.

    Args:
        path: an npz file without pickled objects: `lmk_face_idx` and `lmk_b_coords` of 68
            landmarks, or of 51 with `dynamic_lmk_faces_idx` and `dynamic_lmk_bary_coords`.

    Returns:
        (68,) int32 faces and (68, 3) float32 barycentric weights.

    Raises:
        FileNotFoundError: there is no such file.
        FlameFileError: keys or shapes do not fit.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"landmark embedding: no file {path}")
    try:
        arrays = read_arrays(path)
    except UnreadableArrays as error:
        raise FlameFileError(f"landmark embedding {path}: {error}") from error
    if "lmk_face_idx" not in arrays or "lmk_b_coords" not in arrays:
        raise FlameFileError(
            f"landmark embedding {path}: needs lmk_face_idx and lmk_b_coords, "
            f"found {sorted(arrays)}"
        )
    used = {key: arrays[key] for key in _LANDMARK_KEYS if key in arrays}
    if wrong := [key for key, array in used.items() if array.dtype.kind not in "iuf"]:
        raise FlameFileError(f"landmark embedding {path}: {wrong} must be numbers")
    try:
        faces, weights = _landmarks(used)
    except (ValueError, IndexError) as error:
        raise FlameFileError(f"landmark embedding {path}: shapes do not fit: {error}") from error
    if faces.shape != (68,) or weights.shape != (68, 3):
        raise FlameFileError(
            f"landmark embedding {path}: expected 68 landmarks, got {faces.shape}, {weights.shape}"
        )
    if not (np.isfinite(faces).all() and np.isfinite(weights).all()):
        raise FlameFileError(f"landmark embedding {path}: a value is not finite")
    if faces.min() < 0 or faces.max() >= NUM_FACES:
        raise FlameFileError(
            f"landmark embedding {path}: triangles must lie in 0..{NUM_FACES - 1}, got "
            f"{faces.min()}..{faces.max()}"
        )
    return faces.astype(np.int32), weights.astype(np.float32)


def _landmarks(arrays: dict[str, NDArray]) -> tuple[NDArray, NDArray]:
    """The static landmarks, with the contour before them where the file has it apart."""
    faces, weights = arrays["lmk_face_idx"].reshape(-1), arrays["lmk_b_coords"].reshape(-1, 3)
    if len(faces) == 51 and {"dynamic_lmk_faces_idx", "dynamic_lmk_bary_coords"} <= set(arrays):
        # at rest the contour is that of the frontal head, the first row
        faces = np.concatenate([arrays["dynamic_lmk_faces_idx"][0].reshape(-1), faces])
        weights = np.concatenate([arrays["dynamic_lmk_bary_coords"][0].reshape(-1, 3), weights])
    return faces, weights


def head_model_from_flame(
    model_path: Path, landmarks_path: Path, masks_path: Path | None = None
) -> HeadModel:
    """Build a head model from the user's FLAME files.

    The mirror maps are measured: the nearest vertex to each reflected one, and, by least squares,
    the matrices that turn the coefficients of a head into those of its mirror image.

    Args:
        model_path: FLAME's model pickle.
        landmarks_path: see :func:`read_landmarks`.
        masks_path: FLAME_masks.pkl; without it the regions are told from the skinning weights.

    Returns:
        the head model.

    Raises:
        FileNotFoundError: a file is not there.
        FlameFileError: a file cannot be read.
    """
    arrays = read_flame_pickle(model_path)
    template, faces = arrays["v_template"], arrays["f"]
    mirror = cKDTree(template).query(template * [-1.0, 1.0, 1.0])[1]
    regions = (
        _regions_from_masks(read_masks(masks_path)) if masks_path else _regions_from_parts(arrays)
    )
    landmark_faces, landmark_weights = read_landmarks(landmarks_path)
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
        source=f"FLAME file {Path(model_path).name}",
    )


def _mirror_matrix(directions: NDArray, mirror: NDArray) -> NDArray[np.float32]:
    """(K, K): coefficients @ matrix are those of the mirrored head."""
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


def _regions_from_parts(arrays: dict[str, NDArray]) -> dict[str, NDArray[np.int32]]:
    """Eyeballs move with their joints, the neck with the body: enough for `head` with ears."""
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
