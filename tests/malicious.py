"""Files that would run something if their reader let them: every way in which a pickle can call.

26 callables, 7 forms of calling and 3 kinds of files make 546 cases. Each callable leaves a file
when it is called, so that what was executed shows.
"""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.bombs import torch_zip

PLANTED = "planted_module"
"""A module next to the case whose import leaves the file."""


def targets(sentinel: Path) -> list[tuple[str, str, tuple[object, ...]]]:
    """Return module, name and arguments of calls that leave a file, or would with more of them.

    Args:
        sentinel: the file.
    """
    path = str(sentinel)
    code = f"open({path!r}, 'w').close()"
    shell = f"touch '{path}'"
    return [
        ("os", "system", (shell,)),
        ("posix", "system", (shell,)),
        ("nt", "system", (shell,)),
        ("os", "popen", (shell,)),
        ("os", "mkdir", (path,)),
        ("os", "mknod", (path,)),
        ("subprocess", "Popen", (["touch", path],)),
        ("subprocess", "check_output", (["touch", path],)),
        ("subprocess", "getoutput", (shell,)),
        ("builtins", "exec", (code,)),
        ("__builtin__", "exec", (code,)),
        ("builtins", "eval", (code,)),
        ("builtins", "__import__", (PLANTED,)),
        ("builtins", "open", (path, "w")),
        ("io", "open", (path, "w")),
        ("importlib", "import_module", (PLANTED,)),
        ("runpy", "run_module", (PLANTED,)),
        ("pathlib", "Path.touch", (path,)),
        ("shutil", "copy", (__file__, path)),
        ("timeit", "timeit", ("pass", code)),
        ("code", "InteractiveInterpreter.runsource", (code,)),
        ("pdb", "run", (code,)),
        ("numpy", "save", (path, 0)),
        ("numpy.testing._private.utils", "runstring", (code, {})),
        ("torch", "save", (0, path)),
        (PLANTED, "anything", ()),
    ]


def _text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def _value(value: object) -> bytes:
    """Opcodes that put a value on the unpickler's stack."""
    return pickle.dumps(value, protocol=2)[2:-1]


def _global(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def _reduce(module: str, name: str, arguments: tuple[object, ...]) -> bytes:
    return _global(module, name) + _value(arguments) + b"R"


def _stack_global(module: str, name: str, arguments: tuple[object, ...]) -> bytes:
    return _text(module) + _text(name) + b"\x93" + _value(arguments) + b"R"


def _inst(module: str, name: str, arguments: tuple[object, ...]) -> bytes:
    return b"(" + b"".join(map(_value, arguments)) + f"i{module}\n{name}\n".encode()


def _obj(module: str, name: str, arguments: tuple[object, ...]) -> bytes:
    return b"(" + _global(module, name) + b"".join(map(_value, arguments)) + b"o"


def _newobj(module: str, name: str, arguments: tuple[object, ...]) -> bytes:
    return _global(module, name) + _value(arguments) + b"\x81"


def _newobj_ex(module: str, name: str, arguments: tuple[object, ...]) -> bytes:
    return _global(module, name) + _value(arguments) + b"}\x92"


def _build(module: str, name: str, arguments: tuple[object, ...]) -> bytes:
    """An ordinary object that is given the call for its `__setstate__`, and then a state."""
    state = arguments[0] if arguments else None
    harmless = _global("collections", "OrderedDict") + b")R"
    call = b"}" + _text("__setstate__") + _global(module, name) + b"s"
    return harmless + call + b"b" + _value(state) + b"b"


FORMS: dict[str, Callable[[str, str, tuple[object, ...]], bytes]] = {
    "reduce": _reduce,
    "stack_global": _stack_global,
    "inst": _inst,
    "obj": _obj,
    "newobj": _newobj,
    "newobj_ex": _newobj_ex,
    "build": _build,
}


def _pickled(call: bytes) -> bytes:
    """A mapping as the readers expect one, with the call among its values."""
    return b"\x80\x04}" + _text("face") + call + b"s."


def checkpoint(call: bytes) -> bytes:
    """Return a checkpoint whose pickle makes the call in addition to a state dict.

    Args:
        call: opcodes.
    """
    content = b"\x80\x02}" + _text("net") + b"}s" + _text("note") + call + b"s."
    return torch_zip(content, {"0": bytes(48)})


def flame(call: bytes) -> bytes:
    """Return a pickle as FLAME's models and masks are.

    Args:
        call: opcodes.
    """
    return _pickled(call)


def _npy(call: bytes) -> bytes:
    """An array of one object, whose pickle makes the call."""
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        out, {"descr": "|O", "fortran_order": False, "shape": (1,)}
    )
    return out.getvalue() + _pickled(call)


def npz(call: bytes) -> bytes:
    """Return an archive of arrays, each an object whose pickle makes the call.

    Args:
        call: opcodes.
    """
    out = io.BytesIO()
    names = ("bbox", "extended_bbox", "3dmm_params", "lmk_face_idx", "lmk_b_coords", "format")
    with zipfile.ZipFile(out, "w") as archive:
        for name in names:
            archive.writestr(f"{name}.npy", _npy(call))
    return out.getvalue()


KINDS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "checkpoint": (".pth", checkpoint),
    "flame": (".pkl", flame),
    "npz": (".npz", npz),
}


@dataclass(frozen=True)
class Case:
    """A malicious file.

    Attributes:
        name: kind, form and callable.
        suffix: of the file.
        content: its bytes.
        call: the opcodes alone.
    """

    name: str
    suffix: str
    content: bytes
    call: bytes


def cases(kind: str, sentinel: Path) -> Iterator[Case]:
    """Yield every case of a kind.

    Args:
        kind: of file.
        sentinel: what is made when something is executed.
    """
    suffix, around = KINDS[kind]
    for form, encode in FORMS.items():
        for module, name, arguments in targets(sentinel):
            call = encode(module, name, arguments)
            yield Case(f"{kind}/{form}/{module}.{name}", suffix, around(call), call)


def npy(case: Case) -> bytes:
    """Return the object array of a case as a file of its own.

    Args:
        case: the case.
    """
    return _npy(case.call)


def pickled(case: Case) -> bytes:
    """Return the pickle of a case as a file of its own.

    Args:
        case: the case.
    """
    return _pickled(case.call)
