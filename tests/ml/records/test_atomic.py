import os

import pytest

from ml.records import atomic


def leftovers(folder):
    return sorted(path.name for path in folder.rglob(f"{atomic.PREFIX}*"))


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    target = tmp_path / "deep" / "a.txt"
    with pytest.raises(RuntimeError, match="stop"), atomic.atomic_write(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError("stop")
    assert not target.exists()
    atomic.write_text(target, "whole")
    assert target.read_text() == "whole"
    assert leftovers(tmp_path) == []


def test_a_writer_may_make_a_folder_where_a_file_was_meant(tmp_path):
    with (
        pytest.raises(IsADirectoryError),
        atomic.atomic_write(tmp_path / "a") as temporary,
    ):
        (temporary / "b").mkdir(parents=True)
        (tmp_path / "a").write_text("in the way")
        raise IsADirectoryError
    assert leftovers(tmp_path) == []


def test_a_folder_replaces_the_one_before_as_a_whole(tmp_path):
    target = tmp_path / "out"
    for name in ("first", "second"):
        with atomic.atomic_folder(target) as folder:
            (folder / name).write_text(name)
    assert [path.name for path in target.iterdir()] == ["second"]
    with pytest.raises(RuntimeError, match="stop"), atomic.atomic_folder(target) as folder:
        (folder / "third").write_text("x")
        raise RuntimeError("stop")
    assert [path.name for path in target.iterdir()] == ["second"]
    assert leftovers(tmp_path) == []


def test_what_killed_writers_left_goes_files_folders_and_links(tmp_path):
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "data").write_text("x")
    (tmp_path / "s" / ".tmp-7-model").mkdir(parents=True)
    (tmp_path / "s" / ".tmp-7-model" / ".tmp-inner").mkdir()
    (tmp_path / "s" / ".tmp-8-a.parquet").write_text("half")
    os.symlink(kept, tmp_path / "s" / ".tmp-9-link")
    removed = atomic.remove_temporaries(tmp_path)
    assert len(removed) == 4
    assert leftovers(tmp_path) == []
    assert (kept / "data").read_text() == "x"
    assert atomic.remove_temporaries(tmp_path / "nowhere") == []
