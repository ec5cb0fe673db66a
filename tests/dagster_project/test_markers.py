"""Which files belong to a unit."""

import hashlib
from pathlib import Path

from dagster_project.markers import WHOLE, unit_files

FILES = (
    "data/images/shard-00001.tar",
    "data/images/shard-00001-preview.png",
    "data/images/shard-000011.tar",
    "data/images/shard-00002.tar",
    "data/images/shard-00001.json",
    "data/images/.tmp-shard-00001.tar",
    "data/images/shard-00001.exclusions.parquet",
    "data/truth/depth/shard-00001_depth.npz",
    "data/other/shard-00001.tar",
)


def _write(root: Path) -> None:
    for name in FILES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)


def test_files_of_a_shard_are_those_that_begin_with_its_name(tmp_path: Path) -> None:
    _write(tmp_path)
    found = unit_files(tmp_path, ("data/images", "data/truth"), "shard-00001")
    assert list(found) == [
        "data/images/shard-00001-preview.png",
        "data/images/shard-00001.exclusions.parquet",
        "data/images/shard-00001.tar",
        "data/truth/depth/shard-00001_depth.npz",
    ]
    for name, md5 in found.items():
        assert md5 == hashlib.md5(name.encode()).hexdigest()


def test_a_whole_stage_has_all_files_but_its_marker_and_unfinished_ones(tmp_path: Path) -> None:
    _write(tmp_path)
    (tmp_path / "data/images/stage.json").write_text("{}")
    found = unit_files(tmp_path, ("data/images",), WHOLE)
    assert set(found) == {
        name for name in FILES if name.startswith("data/images/") and ".tmp-" not in name
    }
