"""Stage `captions`: one row an image, names excluded with their span, same bytes."""

import json
import re

import pandas as pd
import pytest

from ml.captions.config import CaptionsConfig
from ml.captions.drafts import CAPTIONERS
from ml.captions.names import GazetteerNameDetector
from ml.captions.scene import NO_SCENE, Scene
from ml.poses.config import PosesConfig
from ml.records.exclusions import TooManyExcluded, read_exclusions
from ml.records.ids import sample_seed
from ml.records.tables import CAPTIONS, POSE_SOURCES, POSES, read_table, write_table
from ml.records.workspace import Workspace
from ml.stages import captions as stage
from ml.stages.poses import run_shard as run_poses

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
    report = stage.run_shard(ws, CaptionsConfig(name_probability=0.2, max_drop_rate=0.6), SHARD)
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
        TooManyExcluded, match=r"captions shard-00000: 40 of 40 captions excluded, more"
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
        "damaged_pose",
    )


@pytest.fixture
def described(ws):
    """The same poses as if they were estimated; one source has no description, one a name."""
    poses = read_table(ws.table_path("poses", SHARD), POSES).drop_duplicates("pose_id")
    rows = [
        {
            "pose_id": pose_id,
            "split": split,
            "description": f"a person, sitting, place: room {index}",
            "captioner": "blip-vqa@123",
            "estimator": "vitpose@123",
            "source": "own-images",
            "image_sha256": "0" * 64,
            "url_sha256": "",
        }
        for index, (pose_id, split) in enumerate(poses[["pose_id", "split"]].to_numpy())
    ]
    rows[3]["description"] = "maria garcia, sitting"
    path = ws.table_path("poses", f"{SHARD}.sources")
    write_table(path, pd.DataFrame(rows[1:]), POSE_SOURCES)
    return ws


def test_descriptions_of_sources_become_captions(described):
    config = CaptionsConfig(captioner="source", diversify_probability=1.0)
    report = stage.run_shard(described, config, SHARD)
    assert (report.num_in, report.num_out) == (40, 38)
    rows = read_table(described.table_path("captions", SHARD), CAPTIONS)
    assert set(rows["captioner"]) == {"blip-vqa@123"}
    assert set(rows["scene"]) == {NO_SCENE}
    assert rows["caption"].str.startswith("a person, sitting, place: room").all()
    assert not (rows["caption"] == rows["prompt"]).any()
    reasons = read_exclusions(described, ["captions"]).set_index("sample_id")["reason"]
    assert reasons.to_dict() == {
        "image-00000-00000": "no_caption",
        "image-00000-00003": "name",
    }


def test_terms_of_free_text_come_evenly_not_by_chance(described):
    config = CaptionsConfig(captioner="source", diversify_probability=1.0)
    table = stage.run_shard(described, config, SHARD).tables["origin_before_and_after"]
    dealt = table.set_index("term")["subjects_after"].drop("none")
    assert dealt.sum() == 38
    assert dealt.max() - dealt.min() <= 1
    before = table.set_index("term")["captions_before"]
    assert before["none"] == 38


def test_a_shard_without_descriptions_is_named(ws):
    with pytest.raises(FileNotFoundError, match=r"pose_sources: no table at .*sources.parquet"):
        stage.run_shard(ws, CaptionsConfig(captioner="source"), SHARD)


def test_gliner_takes_the_gazetteer_s_place(described, tiny_models):
    model = {"path": str(tiny_models.path("gliner")), "asset": "random-weights"}
    encoder = {"path": str(tiny_models.path("deberta-v3")), "asset": "random-weights"}
    gliner = {"model": model, "encoder": encoder}
    config = CaptionsConfig(captioner="source", name_detector="gliner", gliner=gliner)
    found = read_table(described.table_path("poses", f"{SHARD}.sources"), POSE_SOURCES)
    found.loc[5, "description"] = "anna smith with a man in the park"
    found.loc[2, "description"] = "two people standing on the street"
    write_table(described.table_path("poses", f"{SHARD}.sources"), found, POSE_SOURCES)
    stage.run_shard(described, config.model_copy(update={"max_drop_rate": 1.0}), SHARD)
    excluded = read_exclusions(described, ["captions"]).set_index("sample_id")["detail"]
    assert "characters 0-4 (gliner)" in excluded["image-00000-00006"]
    rows = read_table(described.table_path("captions", SHARD), CAPTIONS)
    assert "image-00000-00003" in set(rows["sample_id"])


def test_names_are_looked_for_in_all_captions_of_a_shard_at_once(described, monkeypatch):
    asked = []

    class Detector(GazetteerNameDetector):
        def find_all(self, texts):
            asked.append(list(texts))
            return super().find_all(texts)

    monkeypatch.setattr(stage, "load_name_detector", lambda config, root: Detector())
    stage.run_shard(described, CaptionsConfig(captioner="source"), SHARD)
    (texts,) = asked
    assert len(texts) == 39
    # Spans go to the captions that they were found in, also after one without a text.
    excluded = read_exclusions(described, ["captions"]).set_index("sample_id")["detail"]
    assert "characters 0-12" in excluded["image-00000-00003"]


def test_every_configured_captioner_exists():
    names = CaptionsConfig.model_fields["captioner"].annotation.__args__
    assert set(names) == set(CAPTIONERS)
