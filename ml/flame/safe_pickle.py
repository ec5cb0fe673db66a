"""Pickles of numbers and texts read without importing or running what they name.

FLAME's files, their masks and their landmark embeddings are pickles, some inside .npy or .npz.
"""

from __future__ import annotations

import io
import math
import pickle
import tokenize
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_matrix, csr_matrix

from ml.flame.head_model import NUM_JOINTS, NUM_VERTICES
from ml.records.files import UnreadableFile, read_file
from ml.records.limits import MAX_PICKLE_BYTES, LimitExceeded, brief, check_pickle, short


class FlameFileError(ValueError):
    """A FLAME file cannot be read; the message says which, what was expected and found."""


class _Stub:
    """Placeholder for an object whose class is not imported: it stores what the file says."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.args = args

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Chumpy(_Stub):
    """A chumpy array; its numbers are under `x`."""


class _Columns(_Stub):
    """A scipy sparse matrix stored by columns: data, indices, indptr, shape."""


class _Rows(_Stub):
    """A scipy sparse matrix stored by rows."""


_SPARSE = {
    "csc_matrix": _Columns, "csc_array": _Columns, "csr_matrix": _Rows, "csr_array": _Rows,
}  # fmt: skip


class _Array(_Stub):
    """A numpy array: version, shape, dtype, Fortran order, bytes; built later, explicitly."""


class _Dtype(_Stub):
    """A numpy dtype: a type code, and its byte order in the state."""


class _Scalar(_Stub):
    """A numpy scalar: dtype and bytes."""


class _Ndarray:
    """Placeholder for the class numpy.ndarray, which the pickle refers to in its arrays."""


_MULTIARRAY = ("numpy.core.multiarray", "numpy._core.multiarray")
_NUMERIC = ("numpy.core.numeric", "numpy._core.numeric")


def _reconstruct_array(*_: Any) -> _Array:
    """Return what pickled arrays start from."""
    return _Array()


def _array_of_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    """Return how protocol 5 carries arrays: bytes first."""
    array = _Array()
    array.state = (1, shape, dtype, order == "F", data)
    return array


def _encode(text: str, encoding: str) -> bytes:
    """Return what protocol 2 uses to carry bytes; only with the one encoding that it uses."""
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
    SyntaxError,
    tokenize.TokenError,
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


def load_pickle(path: Path) -> Any:
    """Read a pickle file: plain containers, numbers and texts, and stubs for arrays.

    Args:
        path: the file; a .npy file that holds one pickled object is read too.

    Returns:
        What the file holds; :func:`plain_array` makes arrays of the stubs.

    Raises:
        FlameFileError: it is damaged, too large, or names a class that no such file needs.
    """
    try:
        data = read_file(path, MAX_PICKLE_BYTES)
        if data.startswith(np.lib.format.MAGIC_PREFIX):
            return _object_in_npy(data)
        return _unpickled(data)
    except (UnreadableFile, LimitExceeded) as error:
        raise FlameFileError(f"FLAME file {path}: {error}") from error
    except FlameFileError as error:
        raise FlameFileError(f"FLAME file {path}: {error}") from error
    except _DAMAGE as error:
        raise FlameFileError(
            f"FLAME file {path}: damaged or not a pickle ({type(error).__name__}: "
            f"{short(str(error))}); download it again"
        ) from error


def _unpickled(data: bytes) -> Any:
    check_pickle(data)
    return _Unpickler(io.BytesIO(data), encoding="latin1").load()


def _object_in_npy(data: bytes) -> Any:
    """Return what an object array in a .npy file holds: one object, or numbers as they are."""
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0,
    }  # fmt: skip
    if version not in readers:
        raise FlameFileError(f"array format {version} is not supported")
    shape, fortran, dtype = readers[version](stream)
    rest = data[stream.tell() :]
    if dtype.hasobject:
        return objects(_unpickled(rest))
    array = _Array()
    array.state = (1, shape, _Dtype(dtype.str[1:]), fortran, rest)
    array.state[2].state = (3, dtype.byteorder)
    return array


def objects(value: Any) -> Any:
    """Return the object that an array of one object holds; anything else as it is.

    Args:
        value: what a pickle held.

    Returns:
        The object inside, a list of them where there are several.
    """
    state = getattr(value, "state", None)
    if isinstance(value, _Array) and isinstance(state, tuple) and len(state) == 5:
        held = state[4]
        if isinstance(held, list):
            return held[0] if len(held) == 1 else held
    return value


def plain_array(value: Any, what: str, depth: int = 0) -> NDArray:
    """Return a plain array of a file's numpy, chumpy or sparse stub, or list of numbers.

    Args:
        value: an object of :func:`load_pickle`.
        what: how messages call it.
        depth: nesting depth of chumpy objects.

    Returns:
        Numbers of any kind.

    Raises:
        FlameFileError: it is no array of numbers.
    """
    state = getattr(value, "state", None)
    if isinstance(value, _Array):
        return _array(state, what)
    if isinstance(value, _Scalar) and len(value.args) == 2:
        return _array((1, (), value.args[0], False, value.args[1]), what)
    if isinstance(value, _Chumpy) and isinstance(state, dict) and "x" in state and depth < 4:
        return plain_array(state["x"], what, depth + 1)
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
            int(plain_array(n, f"{what}: shape")) if isinstance(n, _Scalar) else n for n in shape
        )
    parts = [plain_array(state.get(k), f"{what}: {k}") for k in ("data", "indices", "indptr")]
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


def numeric(array: NDArray, what: str) -> NDArray:
    """Give an array one of two kinds of numbers.

    Args:
        array: numbers.
        what: how messages call it.

    Returns:
        int64 or float64.

    Raises:
        FlameFileError: a number is not finite.
    """
    if array.dtype.kind in "iu":
        return array.astype(np.int64)
    if not np.isfinite(array).all():
        raise FlameFileError(f"{what} contains NaN or infinity")
    return array.astype(np.float64)
