"""After a takedown the lock holds the edited data, nothing remakes it, and the cache forgot it."""

import base64
import shutil
import sqlite3
import subprocess
import tempfile
from contextlib import closing

import pandas as pd

from dagster_project import takedown
from ml.takedown.removal import Removal, Target


def test_edited_stages_are_recorded_and_older_versions_forgotten(toy, monkeypatch):
    pipeline = toy.pipeline
    before = pipeline.bridge.locked()
    path = toy.root / "data" / "numbers" / "shard-00000.parquet"
    target = Target(frozenset({"gone"}), frozenset(), frozenset())

    def drop_a_row(ws, what):
        frame = pd.read_parquet(path).iloc[1:].reset_index(drop=True)
        path.unlink()
        frame.to_parquet(path)
        return Removal(edited=["data/numbers/shard-00000.parquet"])

    monkeypatch.setattr(takedown, "find_target", lambda *arguments: target)
    monkeypatch.setattr(takedown, "take_down", drop_a_row)
    (toy.root / "notes.txt").write_text("nothing here")
    report = takedown.run_takedown(pipeline, ["gone"], [])
    assert report.left == ()
    assert report.recorded == ("numbers", "squares", "total")
    assert report.stale == ()
    after = pipeline.bridge.locked()
    assert after["numbers"] != before["numbers"]
    for stage in pipeline.graph:
        assert pipeline.unfinished(stage, pipeline.units(stage)) == []
    (old,) = (md5.removesuffix(".dir") for md5 in before["numbers"].values())
    cache = toy.root / ".dvc" / "cache" / "files" / "md5" / old[:2]
    assert not list(cache.glob(f"{old[2:]}*"))


def test_what_is_left_is_named(toy, monkeypatch):
    target = Target(frozenset({"gone-00001"}), frozenset(), frozenset())
    monkeypatch.setattr(takedown, "find_target", lambda *arguments: target)
    monkeypatch.setattr(takedown, "take_down", lambda *arguments: Removal())
    toy.dvc("remote", "add", "store", str(toy.root.parent / "store"))
    (toy.root / "mlruns").mkdir(exist_ok=True)
    (toy.root / "mlruns" / "note.txt").write_text("validated on gone-00001")
    (toy.root / "mlruns" / "grid.png").write_bytes(b"png")
    report = takedown.run_takedown(toy.pipeline, ["gone-00001"], [])
    assert report.left == ("mlruns/note.txt: gone-00001",)
    assert report.remotes == ("store",)
    assert not (toy.root / "mlruns" / "grid.png").exists()


CODE = '"""Returns `image-00003-00012`, as in {}."""\n'


def committed(root, text: str) -> None:
    """Commit a module of the project."""
    (root / "ml" / "stages").mkdir(parents=True, exist_ok=True)
    (root / "ml" / "stages" / "captions.py").write_text(text)
    author = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    subprocess.run(["git", "add", "ml"], cwd=root, check=True)
    subprocess.run(["git", *author, "commit", "-q", "-m", "code"], cwd=root, check=True)


def packed(root, model: str):
    """Copy the library next to a model, as MLflow does; returns the module's copy."""
    code = root / "mlruns" / "artifacts" / "models" / model / "artifacts" / "code"
    shutil.copytree(root / "ml", code / "ml")
    return code / "ml" / "stages" / "captions.py"


def test_an_id_in_code_that_is_packed_with_a_model_is_no_trace(toy, monkeypatch):
    """The documented example is an id that docstrings give as example."""
    target = Target(frozenset({"image-00003-00012"}), frozenset(), frozenset())
    monkeypatch.setattr(takedown, "find_target", lambda *arguments: target)
    monkeypatch.setattr(takedown, "take_down", lambda *arguments: Removal())
    committed(toy.root, CODE.format("the first version"))
    packed(toy.root, "m-1")
    committed(toy.root, CODE.format("the second"))
    changed = packed(toy.root, "m-2")
    (toy.root / "ml" / "stages" / "captions.py").write_text(CODE.format("one not committed"))
    packed(toy.root, "m-3")
    installed = toy.root / "vggheads.egg-info"
    installed.mkdir()
    (installed / "PKG-INFO").write_text("vggheads lineage image-00003-00012")
    report = takedown.run_takedown(toy.pipeline, ["image-00003-00012"], [])
    assert report.left == ()

    changed.write_text(CODE.format("the second") + "SEEN = 'image-00003-00012'\n")
    report = takedown.run_takedown(toy.pipeline, ["image-00003-00012"], [])
    name = changed.relative_to(toy.root).as_posix()
    assert report.left == (f"{name}: image-00003-00012",)


def test_images_in_an_older_event_log_and_in_examples_are_removed(toy, monkeypatch):
    text = base64.b64encode(bytes(range(256)) * 20).decode()
    log = toy.root / ".dagster" / "history" / "runs.db"
    with closing(sqlite3.connect(log)) as connection:
        connection.execute("CREATE TABLE older (event TEXT, number INTEGER)")
        event = f'{{"md": "![sheet](data:image/jpeg;base64,{text}) below"}}'
        connection.execute("INSERT INTO older VALUES (?, 7)", (event,))
        connection.commit()
    example = toy.root / "mlruns" / "artifacts" / "model" / "input_example.json"
    example.parent.mkdir(parents=True)
    example.write_text("[[1, 2]]")
    target = Target(frozenset({"gone"}), frozenset(), frozenset())
    monkeypatch.setattr(takedown, "find_target", lambda *arguments: target)
    monkeypatch.setattr(takedown, "take_down", lambda *arguments: Removal())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://runs.example:5000")
    (toy.root / "kept.gz").write_bytes(b"\x1f\x8b packed")
    (toy.root / "reports" / "data_docs").mkdir(parents=True, exist_ok=True)
    elsewhere = toy.root.parent / "temporary"
    (elsewhere / "ray").mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(elsewhere))
    monkeypatch.setenv("DAGSTER_HOME", str(elsewhere / "home"))
    report = takedown.run_takedown(toy.pipeline, ["gone"], [])
    assert text.encode() not in log.read_bytes()
    with closing(sqlite3.connect(log)) as connection:
        (found,) = connection.execute("SELECT event, number FROM older").fetchall()
    assert found == ('{"md": "![sheet](removed) below"}', 7)
    assert not example.exists()
    assert not list((toy.root / "reports").iterdir())
    outside = {str(elsewhere / "ray"), str(elsewhere / "home"), "http://runs.example:5000"}
    assert {"kept.gz", *outside} <= set(report.unsearched)


def test_a_cache_elsewhere_is_searched_and_images_without_signature_named(toy, monkeypatch):
    cache, pages = toy.root.parent / "cache", toy.root.parent / "pages"
    toy.dvc("cache", "dir", str(cache))
    toy.dvc("commit", "--force")
    (cache / "note").write_text("gone-00001")
    (cache / "film").write_bytes(b"\0\0\0\x18ftypmp42")
    shutil.rmtree(toy.root / "reports", ignore_errors=True)
    pages.mkdir()
    (pages / "page.html").write_text("gone-00001")
    (toy.root / "reports").symlink_to(pages)
    target = Target(frozenset({"gone-00001"}), frozenset(), frozenset(), unsigned=("gone-00001",))
    monkeypatch.setattr(takedown, "find_target", lambda *arguments: target)
    monkeypatch.setattr(takedown, "take_down", lambda *arguments: Removal())
    report = takedown.run_takedown(toy.pipeline, ["gone-00001"], [])
    assert report.left == (f"{cache}/note: gone-00001",)
    assert not list(pages.iterdir())
    assert f"{cache}/film: a film, or an image that is not decoded" in report.unsearched
    assert "copies of gone-00001, changed: the image cannot be read" in "".join(report.unsearched)
