"""Reader of NoW's face boxes, dictionaries pickled into .npy files; executes nothing."""

from __future__ import annotations

import io
import pickle
import tokenize
from pathlib import Path
from typing import Any

import numpy as np

from ml.benchmarks.files import UnreadableBenchmarkFile, read_bytes
from ml.benchmarks.samples import BrokenAnnotation, checked
from ml.records.limits import MAX_YAML_BYTES, check_pickle, short

SIDES = ("left", "top", "right", "bottom")
_MULTIARRAY = ("numpy.core.multiarray", "numpy._core.multiarray")
_DAMAGE = (
    pickle.UnpicklingError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    EOFError,
    OverflowError,
    ImportError,
    RecursionError,
    SyntaxError,
    tokenize.TokenError,
)


class _Ndarray:
    """Placeholder for numpy's array class: the name is needed, the class is not."""


class _Array:
    """An array as its pickle describes it; the state is stored, no array is built."""

    def __init__(self, *_: Any) -> None:
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Dtype(_Array):
    """A dtype; only numeric codes are accepted."""

    def __init__(self, code: str = "", *_: Any) -> None:
        super().__init__()
        self.code = code


def _scalar(dtype: Any, data: Any = b"") -> float:
    if not isinstance(dtype, _Dtype) or dtype.code[:1] not in ("f", "i", "u"):
        raise pickle.UnpicklingError("a scalar that is no number")
    raw = data.encode("latin1") if isinstance(data, str) else data
    return float(np.frombuffer(raw, np.dtype(dtype.code), 1)[0])


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"text encoding {short(str(encoding))}")
    return text.encode("latin1")


class _Unpickler(pickle.Unpickler):
    """Unpickler that accepts only the globals of a numpy array of one dictionary."""

    def find_class(self, module: str, name: str) -> Any:
        known: dict[tuple[str, str], Any] = {
            ("numpy", "ndarray"): _Ndarray,
            ("numpy", "dtype"): _Dtype,
            ("_codecs", "encode"): _encode,
            **{(m, "_reconstruct"): _Array for m in _MULTIARRAY},
            **{(m, "scalar"): _scalar for m in _MULTIARRAY},
        }
        if (module, name) not in known:
            raise pickle.UnpicklingError(
                f"it asks for {short(f'{module}.{name}')}; refused, nothing was executed"
            )
        return known[module, name]


def read_box(path: Path) -> np.ndarray:
    """Read a `detected_face` file of NoW.

    Args:
        path: an .npy file with a pickled dictionary of left, top, right, bottom.

    Returns:
        (4,) float64 xyxy px.

    Raises:
        MissingBenchmarkFile: there is no such file.
        UnreadableBenchmarkFile: it has another content.
    """
    data = read_bytes(path, MAX_YAML_BYTES)
    try:
        stream = io.BytesIO(data)
        version = np.lib.format.read_magic(stream)
        header = np.lib.format.read_array_header_1_0
        if version != (1, 0):
            header = np.lib.format.read_array_header_2_0
        _, _, dtype = header(stream)
        if not dtype.hasobject:
            raise ValueError(f"expected a pickled dictionary, got numbers of {dtype}")
        body = data[stream.tell() :]
        check_pickle(body)
        array = _Unpickler(io.BytesIO(body), encoding="latin1").load()
        items = array.state[-1]
        content = items[0] if isinstance(items, list) and len(items) == 1 else items
        if not isinstance(content, dict) or set(SIDES) - set(content):
            raise ValueError(f"expected a dictionary of {', '.join(SIDES)}")
        return checked("face box", [content[side] for side in SIDES], (4,))
    except BrokenAnnotation as error:
        raise UnreadableBenchmarkFile(f"{path}: {error}") from error
    except _DAMAGE as error:
        raise UnreadableBenchmarkFile(f"{path}: no face box of NoW: {short(str(error))}") from error
