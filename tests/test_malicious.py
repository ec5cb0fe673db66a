"""546 files that call something: every reader refuses them, and nothing is executed."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ml.benchmarks.files import UnreadableBenchmarkFile
from ml.benchmarks.inception import InceptionFileError, load_inception
from ml.benchmarks.pickled_box import read_box
from ml.filtering.identity import IdentityError, IdentityIndex
from ml.flame.flame_file import read_flame_file, read_masks
from ml.flame.head_model import HeadModel
from ml.flame.landmark_files import read_landmarks
from ml.flame.safe_pickle import FlameFileError
from ml.inference.loading import read_detector
from ml.inference.runtimes import UnusableModel
from ml.model.checkpoint_file import UnusableCheckpoint, read_checkpoint_tensors
from ml.records.arrays import UnreadableArrays, read_arrays
from ml.release.official import BadAnnotation, decode_annotation
from tests import malicious

Reader = tuple[Callable[[Path], object], type[Exception]]
READERS: dict[str, list[Reader]] = {
    "checkpoint": [
        (read_checkpoint_tensors, UnusableCheckpoint),
        (read_detector, UnusableModel),
        (load_inception, InceptionFileError),
    ],
    "flame": [(read_flame_file, FlameFileError), (read_masks, FlameFileError)],
    "npz": [
        (read_arrays, UnreadableArrays),
        (decode_annotation, BadAnnotation),
        (read_landmarks, FlameFileError),
        (HeadModel.load, ValueError),
        (IdentityIndex.load, IdentityError),
    ],
}


@pytest.fixture
def sentinel(tmp_path, monkeypatch):
    """The file that whatever is executed leaves; a module that leaves it can be imported."""
    path = tmp_path / "executed"
    (tmp_path / f"{malicious.PLANTED}.py").write_text(f"open({str(path)!r}, 'w').close()\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield path
    sys.modules.pop(malicious.PLANTED, None)


def refuse(read: Callable[[Path], object], error: type[Exception], path: Path, name: str) -> None:
    """The reader's own error, in few words."""
    with pytest.raises(error) as caught:
        read(path)
    assert 10 < len(str(caught.value)) < 2000, name


def test_there_are_546(sentinel):
    assert sum(len(list(malicious.cases(kind, sentinel))) for kind in malicious.KINDS) == 546


@pytest.mark.parametrize("kind", malicious.KINDS)
def test_nothing_is_executed(kind, sentinel, tmp_path):
    for case in malicious.cases(kind, sentinel):
        path = tmp_path / f"case{case.suffix}"
        path.write_bytes(case.content)
        for read, error in READERS[kind]:
            refuse(read, error, path, case.name)
            assert not sentinel.exists(), f"{case.name} was executed by {read}"
        if kind == "npz":
            # Object arrays on their own: landmark embeddings, FLAME's masks, NoW's face boxes.
            path = tmp_path / "case.npy"
            path.write_bytes(malicious.npy(case))
            refuse(read_masks, FlameFileError, path, case.name)
            refuse(read_landmarks, FlameFileError, path, case.name)
            refuse(read_box, UnreadableBenchmarkFile, path, case.name)
        if kind == "checkpoint":
            # A pickle without an archive around it, which old checkpoints are.
            path.write_bytes(malicious.pickled(case))
            refuse(read_checkpoint_tensors, UnusableCheckpoint, path, case.name)
            refuse(load_inception, InceptionFileError, path, case.name)
        assert not sentinel.exists(), f"{case.name} was executed"
    assert malicious.PLANTED not in sys.modules


EXECUTED = (
    "os.system", "posix.system", "os.mkdir", "os.mknod", "subprocess.check_output",
    "subprocess.getoutput", "builtins.exec", "builtins.eval", "builtins.__import__",
    "builtins.open", "io.open", "importlib.import_module", "shutil.copy", "timeit.timeit",
)  # fmt: skip


@pytest.mark.parametrize("form", ["reduce", "stack_global", "inst", "obj", "build"])
def test_the_cases_do_execute_where_nobody_refuses(form, sentinel):
    found = {case.name: case for case in malicious.cases("flame", sentinel)}
    # What sets a state gives one argument.
    of_two = {"shutil.copy", "timeit.timeit", "builtins.open", "io.open"}
    for name in sorted(set(EXECUTED) - (of_two if form == "build" else set())):
        sys.modules.pop(malicious.PLANTED, None)
        pickle.loads(found[f"flame/{form}/{name}"].content)
        assert sentinel.exists(), name
        sentinel.rmdir() if sentinel.is_dir() else sentinel.unlink()


def test_names_in_archives_lead_nowhere(tmp_path):
    import zipfile

    inner, outside = tmp_path / "a" / "b", tmp_path / "outside.npy"
    inner.mkdir(parents=True)
    for kind, read in (("npz", read_arrays), ("pth", read_checkpoint_tensors)):
        path = inner / f"x.{kind}"
        with zipfile.ZipFile(path, "w") as archive:
            for name in ("../../outside.npy", str(outside), "archive/data.pkl"):
                archive.writestr(name, np.lib.format.MAGIC_PREFIX)
        refuse(read, ValueError, path, kind)
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == ["x.npz", "x.pth"]
