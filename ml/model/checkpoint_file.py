"""Tensors out of published checkpoint files (.pth and TorchScript), running nothing in them.

Both are zip archives of a pickle and raw tensor data. The pickle is read by an unpickler that
imports no class: tensors are rebuilt here, a few harmless libraries' objects become inert
placeholders, and any other class ends the reading.
"""

from __future__ import annotations

import io
import math
import pickle
import zipfile
import zlib
from collections import OrderedDict
from pathlib import Path, PurePosixPath
from typing import Any, Final

import torch
from torch import Tensor

from ml.records.files import UnreadableFile, check_regular, is_environment
from ml.records.limits import (
    MAX_CHECKPOINT_BYTES,
    LimitExceeded,
    brief,
    check_pickle,
    check_zip,
    short,
    short_names,
)

StateDict = dict[str, Tensor]


class UnusableCheckpoint(ValueError):
    """A checkpoint cannot be read; the message gives file, cause and remedy."""


_DTYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}

_INERT_PACKAGES = ("numpy", "omegaconf", "super_gradients", "torch", "torchmetrics", "__torch__")
"""Objects of these may be next to the weights; they are neither imported nor run."""

_PREFERRED_KEYS = ("ema_net", "net")
"""Where super-gradients keeps the weights, the better ones first."""


UNPICKLING_ERRORS: Final = (
    pickle.UnpicklingError,
    LookupError,
    EOFError,
    RuntimeError,
    TypeError,
    ValueError,
    AttributeError,
    OverflowError,
    OSError,
)
"""Errors of zipfile, the unpickler and torch on damaged input; includes RecursionError."""


class _Placeholder:
    """Placeholder for an object whose class is not imported; stores its state from the file."""

    state: Any = None

    def __init__(self, *_: Any, **__: Any) -> None:
        """Take any arguments and ignore them."""

    def __setstate__(self, state: Any) -> None:
        """Keep the state."""
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        """Ignore the items of containers."""

    def append(self, item: Any) -> None:
        """Ignore the items of containers."""

    def extend(self, items: Any) -> None:
        """Ignore the items of containers."""


class _Reader(pickle.Unpickler):
    """Unpickles one archive's tensors."""

    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        data = archive.read(f"{root}/data.pkl")
        check_pickle(data)
        super().__init__(io.BytesIO(data))
        self._archive = archive
        self._storages: dict[str, Tensor] = {}
        self._root = root

    def find_class(self, module: str, name: str) -> Any:
        """Return names to the few functions and placeholders that may appear.

        Nothing is imported.
        """
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if (module, name) in {
            ("torch._utils", "_rebuild_parameter"),
            ("_codecs", "encode"),  # pickle's encoding of bytes, whose value is ignored
        }:
            return _first_argument
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        if module.split(".")[0] in _INERT_PACKAGES:
            return type(name, (_Placeholder,), {})
        raise UnusableCheckpoint(
            f"it names {short(f'{module}.{name}')}, which a checkpoint has no need of; "
            "nothing of it was run"
        )

    def persistent_load(self, pid: Any) -> Tensor:
        """Return a storage's bytes as a flat tensor."""
        if not (isinstance(pid, tuple) and len(pid) >= 5 and pid[0] == "storage"):
            raise UnusableCheckpoint(f"unexpected reference {brief(pid)}")
        dtype, key = pid[1], pid[2]
        if not isinstance(dtype, torch.dtype):
            raise UnusableCheckpoint(f"storage {brief(key)} has an unknown element type")
        if not isinstance(key, str):
            raise UnusableCheckpoint(f"storage {brief(key)} has no name")
        # Once only, however often it is referred to.
        if key not in self._storages:
            content = bytearray(self._archive.read(f"{self._root}/data/{key}"))
            self._storages[key] = (
                torch.frombuffer(content, dtype=torch.uint8)
                if content
                else torch.empty(0, dtype=torch.uint8)
            )
        return self._storages[key].view(dtype)


def _rebuild_tensor(
    storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any
) -> Tensor:
    wanted = math.prod(size)
    if not 0 <= wanted <= storage.numel():
        raise UnusableCheckpoint(
            f"a tensor of shape {brief(tuple(size))} is larger than its storage of "
            f"{storage.numel()} numbers"
        )
    return storage.as_strided(size, stride, offset)


def _first_argument(first: Any, *_: Any) -> Any:
    return first


def read_checkpoint_tensors(path: Path) -> StateDict:
    """Return the tensors of a super-gradients checkpoint, bare state dict or TorchScript file.

    Of a super-gradients checkpoint the averaged weights (`ema_net`) are taken where there are any,
    else `net`. The prefixes `module.` and `model.` are removed.

    Args:
        path: the file.

    Returns:
        Names and tensors, on the CPU.

    Raises:
        FileNotFoundError: there is no such file.
        UnusableCheckpoint: the file is damaged, not a checkpoint, or holds forbidden content.
    """
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint: no file {path}")
    try:
        size = check_regular(path).st_size
        with zipfile.ZipFile(path) as archive:
            check_zip(archive, size, MAX_CHECKPOINT_BYTES)
            root = _root_folder(archive)
            content = _Reader(archive, root).load()
        state = _tensors_of(content)
    except (zipfile.BadZipFile, zlib.error) as error:
        raise UnusableCheckpoint(
            f"{path}: expected a zip archive as torch.save (since torch 1.6) and torch.jit.save "
            f"write it, got something else or a part of one ({error}); fetch it again"
        ) from error
    except (UnreadableFile, LimitExceeded) as error:
        raise UnusableCheckpoint(f"{path}: {error}") from error
    except UnusableCheckpoint as error:
        raise UnusableCheckpoint(f"{path}: {error}; use a checkpoint you trust") from error
    except UNPICKLING_ERRORS as error:
        if is_environment(error):
            raise
        raise UnusableCheckpoint(
            f"{path}: the pickle inside is damaged or unknown ({short(str(error))}); fetch the "
            "file again"
        ) from error
    if not state:
        raise UnusableCheckpoint(
            f"{path}: expected the tensors of a model, found none; the keys are {_keys(content)}"
        )
    return {_without_prefix(name): tensor for name, tensor in state.items()}


def _root_folder(archive: zipfile.ZipFile) -> str:
    """Return the archive's top folder."""
    for name in archive.namelist():
        path = PurePosixPath(name)
        if path.name == "data.pkl" and len(path.parts) == 2:
            return path.parts[0]
    raise UnusableCheckpoint("expected <name>/data.pkl in the archive, found none")


def _tensors_of(content: Any) -> StateDict:
    if isinstance(content, _Placeholder):
        return _module_tensors(content, "")
    if not isinstance(content, dict):
        return {}
    for key in _PREFERRED_KEYS:
        if isinstance(content.get(key), dict):
            return _tensors_of(content[key])
    return {str(k): v for k, v in content.items() if isinstance(v, Tensor)}


def _module_tensors(module: _Placeholder, prefix: str) -> StateDict:
    """Return parameters and buffers of a TorchScript module and the modules in it."""
    tensors: StateDict = {}
    if isinstance(module.state, dict):
        for name, value in module.state.items():
            if isinstance(value, Tensor):
                tensors[prefix + name] = value
            elif isinstance(value, _Placeholder):
                tensors |= _module_tensors(value, f"{prefix}{name}.")
    return tensors


def _without_prefix(name: str) -> str:
    for prefix in ("module.", "model."):
        name = name.removeprefix(prefix)
    return name


def _keys(content: Any) -> str:
    return short_names(content) if isinstance(content, dict) else type(content).__name__
