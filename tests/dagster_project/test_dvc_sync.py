"""What dvc.lock records, also while another process writes it."""

import hashlib
import time
from threading import Thread

import pytest
from filelock import FileLock

from dagster_project.dvc_sync import DamagedLock, DvcBridge, data_version, read_lock

MD5, FOLDER = "a" * 32, "b" * 32 + ".dir"
LOCK = f"""\
schema: '2.0'
stages:
  numbers:
    cmd: python
    outs:
    - path: data/numbers
      md5: {MD5}
  cubes:
    cmd: python
    deps:
    - path: data/squares
      md5: {FOLDER}
    - path: sources
    params:
      params.yaml:
        cubes.size: 3
    outs:
    - path: data/cubes
      md5: {FOLDER}
    - path: reports/cubes.json
      md5: {MD5}
"""


def test_the_versions_are_those_of_the_outs(tmp_path):
    path = tmp_path / "dvc.lock"
    assert read_lock(path) == {}
    path.write_text(LOCK)
    assert read_lock(path) == {
        "numbers": {"data/numbers": MD5},
        "cubes": {"data/cubes": FOLDER, "reports/cubes.json": MD5},
    }


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        ("", "its form"),
        ("schema: '2.0'", "its form"),
        ("stages:\n", "its form"),
        ("stages:\n  cubes:\n    cmd: python\n", "its form"),
        (LOCK[: LOCK.rindex("outs:")] + "outs: []\n", "a stage is cut"),
        (LOCK[: LOCK.rindex("      md5:")], "a stage is cut"),
        (LOCK[:-2], "a hash is cut"),
        (LOCK.replace(FOLDER, "b" * 32 + ".di", 1), "a hash is cut"),
        (LOCK.replace(MD5, MD5.upper()), "a hash is cut"),
        (LOCK.replace("\n        cubes.size: 3", ""), "values are cut"),
    ],
)
def test_a_damaged_lock_file_is_refused_with_what_to_do(tmp_path, content, cause):
    path = tmp_path / "dvc.lock"
    path.write_text(content)
    with pytest.raises(DamagedLock) as refused:
        read_lock(path)
    assert str(refused.value) == (
        f"{path}: empty, cut, or not what DVC writes ({cause}); "
        "`vggheads doctor --repair` writes it again from what is finished"
    )


def test_what_is_no_yaml_is_refused_with_the_place(tmp_path):
    path = tmp_path / "dvc.lock"
    path.write_text("stages: {cubes: [")
    with pytest.raises(DamagedLock, match=r"not what DVC writes \(YAML:2: .+\);"):
        read_lock(path)


def test_the_hash_of_the_lock_file_is_empty_without_one(tmp_path):
    bridge = DvcBridge(tmp_path)
    assert (bridge.lock_hash(), bridge.locked()) == ("", {})
    (tmp_path / "dvc.lock").write_text(LOCK)
    assert bridge.lock_hash() == hashlib.sha256(LOCK.encode()).hexdigest()
    assert list(bridge.locked()) == ["numbers", "cubes"]
    # The folder whose lock all processes of the project hold while they read or write it.
    assert sorted(path.name for path in tmp_path.iterdir()) == [".dagster", "dvc.lock"]


def test_a_data_version_joins_the_outs_in_the_order_of_their_paths():
    assert data_version({"b": "2", "c": "3", "a": "1"}) == "1+2+3"


def test_files_and_remotes_as_dvc_sees_them(tmp_path):
    (tmp_path / ".dvc").mkdir()
    config = tmp_path / ".dvc" / "config"
    config.write_text("[core]\n    no_scm = true\n")
    bridge = DvcBridge(tmp_path)
    assert bridge.remotes() == []
    with config.open("a") as file:
        file.write("['remote \"b\"']\n    url = /b\n['remote \"a\"']\n    url = /a\n")
    assert bridge.remotes() == ["a", "b"]
    (tmp_path / "there").write_text("here")
    # Line ends stay as they are: another of DVC's hashes reads them as those of Unix.
    (tmp_path / "lines").write_bytes(b"one\r\ntwo\r\n")
    assert bridge.md5s(["there", "absent", "lines"]) == {
        "there": hashlib.md5(b"here").hexdigest(),
        "lines": hashlib.md5(b"one\r\ntwo\r\n").hexdigest(),
    }
    stages = "stages: {here: {cmd: 'true', outs: [there, absent]}}"
    (tmp_path / "dvc.yaml").write_text(stages)
    assert bridge.on_disk(["here"]) == {"here": {"there": hashlib.md5(b"here").hexdigest()}}
    assert bridge.changed(["here"]) == {"here"}


def test_dvc_started_the_stage_that_it_names(tmp_path, monkeypatch):
    bridge = DvcBridge(tmp_path)
    monkeypatch.delenv("DVC_STAGE", raising=False)
    assert not bridge.run_by_dvc("cubes")
    monkeypatch.setenv("DVC_STAGE", "cubes")
    assert bridge.run_by_dvc("cubes")
    assert not bridge.run_by_dvc("squares")


@pytest.mark.parametrize("read", ["on_disk", "changed", "locked"])
def test_a_half_written_lock_file_is_not_read(toy, read):
    path, bridge, found = toy.root / "dvc.lock", toy.pipeline.bridge, []
    whole = path.read_text()

    def ask():
        try:
            found.append(
                bridge.locked() if read == "locked" else getattr(bridge, read)(["squares"])
            )
        except Exception as error:  # noqa: BLE001  the assertion shows whatever it is
            found.append(error)

    ask()
    with FileLock(toy.root / ".dagster" / "dvc.lock.lock"):
        path.write_text(whole[: whole.index("outs:") + 8])
        reader = Thread(target=ask)
        reader.start()
        time.sleep(0.5)
        path.write_text(whole)
    reader.join()
    assert found[1] == found[0]
