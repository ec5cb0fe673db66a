"""Stage `captions`: one row a picture, names excluded with their span, same bytes."""

import json
import re

import pytest

from ml.captions import stage
from ml.captions.config import CaptionsConfig
from ml.captions.names import GazetteerNameDetector
from ml.captions.scene import Scene
from ml.poses.config import PosesConfig
from ml.poses.stage import run_shard as run_poses
from ml.records.exclusions import read_exclusions
from ml.records.ids import sample_seed
from ml.records.tables import CAPTIONS, POSES, read_table, write_table
from ml.records.workspace import Workspace

SHARD = "shard-00000"


@pytest.fixture
def ws(tmp_path):
    workspace = Workspace(tmp_path, seed=7, num_shards=1, shard_size=40)
    run_poses(workspace, PosesConfig(), SHARD)
    return workspace


def test_rows_fit_the_poses(ws):
    report = stage.run_shard(ws, CaptionsConfig(name_probability=0.0), SHARD)
    assert (report.num_in, report.num_out) == (40, 40)
    poses = read_table(ws.table_path("poses", SHARD), POSES).groupby("pose_id")
    rows = read_table(ws.table_path("captions", SHARD), CAPTIONS)
    assert rows["sample_id"].is_monotonic_increasing
    for row in rows.to_dict("records"):
        pose = poses.get_group(row["pose_id"])
        assert row["num_people"] == len(pose)
        assert row["split"] == pose["split"].iloc[0]
        assert len(Scene.from_json(row["scene"]).people) == len(pose)
        assert row["seed"] == sample_seed(7, "images", row["sample_id"])
        assert set(json.loads(row["choices"])) == {"subjects", "people", "suffix"}
    tones = report.tables["skin_tones"]["people"]
    assert tones.max() - tones.min() <= 1
    assert tones.sum() == rows["num_people"].sum()


def test_distribution_table_counts_before_and_after(ws):
    report = stage.run_shard(ws, CaptionsConfig(name_probability=0.0), SHARD)
    table = report.tables["origin_before_and_after"].set_index("term")
    assert table.loc["none", "captions_before"] == 40
    assert table["captions_before"].drop("none").sum() == 0
    assert table["prompts_after"].drop("none").sum() >= 30
    share = table.loc["none", "subjects_after"] / table["subjects_after"].sum()
    assert share == pytest.approx(0.2, abs=0.12)


def test_names_are_excluded_with_their_span_but_not_their_text(ws):
    report = stage.run_shard(ws, CaptionsConfig(name_probability=0.2), SHARD)
    assert report.num_excluded == report.metadata["captions_with_a_name"] > 0
    assert report.metadata["of_these_found"] == report.num_excluded
    excluded = read_exclusions(ws, ["captions"])
    assert set(excluded["reason"]) == {"name"}
    for detail in excluded["detail"]:
        assert re.fullmatch(r"the caption names a person: characters \d+-\d+ \([a-z ]+\)", detail)
    rows = read_table(ws.table_path("captions", SHARD), CAPTIONS)
    assert len(rows) + len(excluded) == 40
    assert not any(GazetteerNameDetector().find(text) for text in rows["caption"])


def test_too_many_names_fail_the_stage(ws):
    with pytest.raises(
        ValueError, match=r"captions: shard-00000: 40 of 40 captions excluded, more"
    ):
        stage.run_shard(ws, CaptionsConfig(name_probability=1.0), SHARD)


def test_same_bytes_twice(ws):
    def table():
        stage.run_shard(ws, CaptionsConfig(), SHARD)
        return ws.table_path("captions", SHARD).read_bytes()

    assert table() == table()


def test_variants_of_a_pose_differ_and_keep_its_split(ws):
    config = CaptionsConfig(name_probability=0.0, variants_per_pose=2)
    assert stage.run_shard(ws, config, SHARD).num_in == 80
    rows = read_table(ws.table_path("captions", SHARD), CAPTIONS)
    assert list(rows["sample_id"][:2]) == ["image-00000-00000", "image-00000-00000-v1"]
    pairs = rows.groupby("pose_id")
    assert (pairs["split"].nunique() == 1).all()
    assert (pairs["scene"].nunique() == 2).all()
    assert rows["seed"].is_unique


def test_pose_with_a_missing_person_is_excluded(ws):
    path = ws.table_path("poses", SHARD)
    poses = read_table(path, POSES)
    victim = poses.loc[poses["num_people"] > 1, "pose_id"].iloc[0]
    drop = poses.index[poses["pose_id"] == victim][0]
    write_table(path, poses.drop(index=drop), POSES)
    report = stage.run_shard(ws, CaptionsConfig(name_probability=0.0), SHARD)
    assert (report.num_in, report.num_out, report.num_excluded) == (40, 39, 1)
    excluded = read_exclusions(ws, ["captions"]).iloc[0]
    assert (excluded["sample_id"], excluded["reason"]) == (
        stage.sample_ids(victim, 1)[0],
        "broken pose",
    )
