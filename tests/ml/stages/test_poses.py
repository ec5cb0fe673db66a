"""Stage `poses`: tables, exclusions, preview, same bytes."""

import pytest

from ml.imaging.io import decode_image
from ml.poses.config import PosesConfig
from ml.poses.sampler import ImplausiblePose, sample_pose
from ml.poses.skeleton import PoseSample
from ml.records.exclusions import TooManyExcluded, read_exclusions
from ml.records.tables import POSES, read_table
from ml.records.workspace import Workspace
from ml.stages import poses as stage


def workspace(root, **changes):
    return Workspace(root, **{"seed": 7, "num_shards": 2, "shard_size": 6, **changes})


def test_shard_round_trip(tmp_path):
    ws = workspace(tmp_path)
    report = stage.run_shard(ws, PosesConfig(), "shard-00001")
    assert (report.num_in, report.num_out, report.num_excluded) == (6, 6, 0)
    table = read_table(ws.table_path("poses", "shard-00001"), POSES)
    groups = dict(iter(table.groupby("pose_id")))
    assert list(groups) == [f"pose-00001-0000{index}" for index in range(6)]
    for pose_id, rows in groups.items():
        read = PoseSample.from_frame(rows)
        fresh = sample_pose(pose_id, 7, PosesConfig())
        assert read.to_frame().map(repr).equals(fresh.to_frame().map(repr))
    assert decode_image(report.images["skeletons"]).shape[2] == 3
    assert report.tables["people_per_image"]["images"].sum() == 6


def test_same_bytes_twice_and_in_any_order(tmp_path):
    def files(root):
        return {p.relative_to(root): p.read_bytes() for p in root.rglob("*") if p.is_file()}

    for name, order in (("a", (0, 1)), ("b", (1, 0))):
        ws = workspace(tmp_path / name)
        for index in order:
            stage.run_shard(ws, PosesConfig(), ws.shards[index])
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_implausible_pose_is_excluded_and_the_rest_unharmed(tmp_path, monkeypatch):
    def broken(pose_id, seed, config):
        if pose_id.endswith("2"):
            raise ImplausiblePose(f"poses: {pose_id}: no head")
        return sample_pose(pose_id, seed, config)

    monkeypatch.setattr(stage, "sample_pose", broken)
    ws = workspace(tmp_path)
    report = stage.run_shard(ws, PosesConfig(max_drop_rate=0.5), "shard-00000")
    assert (report.num_in, report.num_out, report.num_excluded) == (6, 5, 1)
    excluded = read_exclusions(ws, ["poses"])
    assert excluded[["sample_id", "reason"]].to_numpy().tolist() == [
        ["pose-00000-00002", "no_head"]
    ]
    with pytest.raises(
        TooManyExcluded, match=r"shard-00000: 1 of 6 poses excluded, more than .*0.02"
    ):
        stage.run_shard(ws, PosesConfig(), "shard-00000")


def test_all_excluded_still_writes_an_empty_table(tmp_path, monkeypatch):
    def broken(pose_id, seed, config):
        raise ImplausiblePose(pose_id)

    monkeypatch.setattr(stage, "sample_pose", broken)
    ws = workspace(tmp_path)
    report = stage.run_shard(ws, PosesConfig(max_drop_rate=1.0), "shard-00000")
    assert report.num_out == 0
    assert len(read_table(ws.table_path("poses", "shard-00000"), POSES)) == 0
