"""Stage filtered_dataset: every image is accounted for, killed or not, damaged or not."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from ml.captions.scene import PersonLook, Scene
from ml.dataset.splits import LeakError
from ml.filtering.judge import Judge, RulesConfig
from ml.filtering.metrics import VerdictTally, drop_table
from ml.imaging.io import encode_png
from ml.records import tables
from ml.records.exclusions import Exclusions, TooManyExcluded
from ml.records.shards import shard_writer
from ml.records.tables import (
    CAPTIONS,
    DATASET_HEADS,
    EXCLUSIONS,
    HEADS,
    IMAGES,
    VERDICTS,
    empty_table,
    read_table,
    write_table,
)
from ml.records.workspace import Workspace
from ml.stages import filtered_dataset as stage
from ml.stages.filtered_dataset import (
    FilteredDatasetConfig,
    can_reuse,
    filter_dataset,
    judge_images,
    judge_shard,
)
from tests.fixtures.filter_fakes import LopsidedDetector, draw_image

SHARDS = ("shard-00000", "shard-00001")
# What the lopsided detector makes of them: kept, kept, mirrored differs, no head, cut differs.
DRAWN = {
    "a0": draw_image((50, 30, 20)),
    "a1": draw_image((40, 30, 12), (75, 30, 15)),
    "a2": draw_image((5, 30, 15), (70, 30, 15)),
    "b0": draw_image(),
    "b1": draw_image((40, 30, 10), (66, 30, 10)),
    "b2": draw_image((60, 20, 25)),
}
REASONS = {
    "a0": "keep",
    "a1": "keep",
    "a2": "flip_count",
    "b0": "no_head",
    "b1": "cut_count",
    "b2": "keep",
}
CONFIG = FilteredDatasetConfig(
    rules=RulesConfig(confirm_threshold=0.5), images_per_batch=2, max_drop_rate=0.7
)


def shard_of(sample_id):
    return SHARDS["ab".index(sample_id[0])]


def image_row(sample_id):
    return {
        "sample_id": sample_id,
        "pose_id": f"pose-{sample_id}",
        "split": "test" if sample_id == "b2" else "train",
        "shard": shard_of(sample_id),
        "width": 120,
        "height": 80,
        "offset": 0,
        "size": 1,
        "sha256": "0",
        "seed": 1,
        "generator": "renderer",
        "num_people": 1,
        "mean_luma": 100.0,
    }


def caption_row(sample_id):
    look = PersonLook(
        subject="person", skin_tone=4, top="coat", top_colour="red", top_pattern="plain",
        bottom="jeans", bottom_colour="blue", hair_style="bob", hair_colour="brown",
        glasses="none", hat="none", beard="none",
    )  # fmt: skip
    return {
        "sample_id": sample_id,
        "pose_id": f"pose-{sample_id}",
        "split": image_row(sample_id)["split"],
        "num_people": 1,
        "caption": "a person",
        "prompt": "a person",
        "negative_prompt": "",
        "choices": "{}",
        "scene": Scene("a park", "backlight", (look,)).to_json(),
        "captioner": "grammar",
        "seed": 1,
    }


def flame():
    vector = np.zeros(413, np.float32)
    vector[[403, 407, 412]] = 1, -1, 100
    return vector


def head_rows(sample_id, teacher):
    boxes, scores = LopsidedDetector._find(DRAWN[sample_id])
    return [
        {
            "sample_id": sample_id,
            "head_id": head_id,
            "split": image_row(sample_id)["split"],
            "bbox_xywh": np.concatenate([box[:2], box[2:] - box[:2]]),
            "score": score,
            "flame": flame(),
            "flame_status": "ok",
            "head_model": "0",
            "teacher": teacher,
            "threshold": 0.5,
            "source": "pseudo",
        }
        for head_id, (box, score) in enumerate(zip(boxes, scores, strict=True))
    ]


def make_workspace(root, excluded=(), teacher=f"squares:{LopsidedDetector.sha256}", workers=1):
    ws = Workspace(root, seed=1, num_shards=2, shard_size=3, workers=workers, threads=1)
    for shard in SHARDS:
        ids = [sample_id for sample_id in DRAWN if shard_of(sample_id) == shard]
        with shard_writer(ws.stage_dir("images") / f"{shard}.tar") as writer:
            for sample_id in ids:
                writer.add(sample_id, {"jpg": encode_png(DRAWN[sample_id])})
        write_table(
            ws.table_path("images", shard), pd.DataFrame([image_row(i) for i in ids]), IMAGES
        )
        write_table(
            ws.table_path("captions", shard), pd.DataFrame([caption_row(i) for i in ids]), CAPTIONS
        )
        rows = [row for i in ids if i not in excluded for row in head_rows(i, teacher)]
        frame = pd.DataFrame(rows) if rows else empty_table(HEADS)
        write_table(ws.table_path("annotations", shard), frame, HEADS)
        exclusions = Exclusions("annotations")
        for sample_id in excluded:
            if sample_id in ids:
                exclusions.add(sample_id, "damaged_image", "planted")
        exclusions.write(ws, shard)
    return ws


def judge(detector=None):
    return Judge(detector or LopsidedDetector(), None, CONFIG.detections, CONFIG.rules)


def all_bytes(ws):
    out = ws.stage_dir("filtered_dataset")
    return {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def draw_once():
    """`plot_statistics` that copies what it drew of equal statistics: drawing takes seconds."""
    drawn, draw = {}, stage.plot_statistics

    def plot(statistics, folder):
        paths = drawn.setdefault(statistics.to_csv(), {})
        if not paths:
            paths.update(draw(statistics, folder))
            return paths
        folder.mkdir()
        return {name: Path(shutil.copy(path, folder)) for name, path in paths.items()}

    return plot


@pytest.fixture
def plots_once(monkeypatch, draw_once):
    monkeypatch.setattr(stage, "plot_statistics", draw_once)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, draw_once):
    ws = make_workspace(tmp_path_factory.mktemp("run"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "plot_statistics", draw_once)
        return ws, filter_dataset(ws, CONFIG, judge())


@pytest.fixture
def no_plots(monkeypatch):
    """Drawing takes most of the stage's time on six images."""
    monkeypatch.setattr(
        stage, "plot_statistics", lambda _, folder: {"overview": folder / "overview.png"}
    )


def test_every_image_has_a_verdict(finished):
    ws, report = finished
    verdicts = read_table(ws.stage_dir("filtered_dataset") / "verdicts.parquet", VERDICTS)
    assert dict(zip(verdicts["sample_id"], verdicts["reason"], strict=True)) == REASONS
    assert (verdicts["keep"] == (verdicts["reason"] == "keep")).all()
    assert (report.num_in, report.num_out, report.num_excluded) == (6, 3, 3)
    flipped = verdicts.set_index("sample_id").loc["a2"]
    assert (flipped["num_heads"], flipped["num_heads_flipped"]) == (1, 2)
    assert flipped["detail"] == "1 heads, 2 on the mirrored image"


def test_removed_images_are_excluded_with_the_numbers(finished):
    ws, _ = finished
    table = read_table(ws.stage_dir("filtered_dataset") / "all.exclusions.parquet", EXCLUSIONS)
    assert dict(zip(table["sample_id"], table["reason"], strict=True)) == {
        name: reason for name, reason in REASONS.items() if reason != "keep"
    }
    assert (table["detail"].str.len() > 5).all()


def test_the_dataset_holds_the_heads_of_kept_images_only(finished):
    ws, _ = finished
    heads = read_table(ws.stage_dir("filtered_dataset") / "heads.parquet", DATASET_HEADS)
    assert heads["sample_id"].tolist() == ["a0", "a1", "a1", "b2"]
    assert heads["shard"].tolist() == [SHARDS[0]] * 3 + [SHARDS[1]]
    assert heads["split"].tolist() == ["train"] * 3 + ["test"]


def test_drops_by_rule(finished):
    _, report = finished
    table = report.tables["drops_by_rule"].set_index("rule")
    assert table["tested"].tolist() == [6, 5, 4, 4, 6]
    assert table["removed"].tolist() == [1, 1, 0, 1, 3]
    assert table.loc["flip_count", "rate"] == pytest.approx(0.2)
    assert table.loc["all rules", "fraction"] == pytest.approx(0.5)


def test_it_shows_and_describes_the_dataset(finished):
    ws, report = finished
    out = ws.stage_dir("filtered_dataset")
    assert {"kept", "removed_no_head", "removed_flip_count", "removed_cut_count"} < set(
        report.images
    )
    for name in ("CARD.md", "statistics.csv", "statistics.json", "metrics.json"):
        assert (out / name).stat().st_size > 50, name
    assert report.metadata["detector_passes_per_image"] == 2
    assert report.metadata["face_check"] == "none"


def test_killed_after_a_shard_it_ends_in_the_same_bytes(
    finished, tmp_path, monkeypatch, plots_once
):
    whole, _ = finished
    ws = make_workspace(tmp_path)
    original = stage.judge_images

    def killed_in_second_shard(ws, config, shard, judge):
        if shard == SHARDS[1]:
            raise KeyboardInterrupt
        return original(ws, config, shard, judge)

    with monkeypatch.context() as patch:
        patch.setattr(stage, "judge_images", killed_in_second_shard)
        with pytest.raises(KeyboardInterrupt):
            filter_dataset(ws, CONFIG, judge())
    detector = LopsidedDetector()
    filter_dataset(ws, CONFIG, judge(detector))
    # Only the three images of the second shard were looked at: two batches of two passes,
    # and one cut.
    assert sum(len(shapes) for shapes in detector.calls) == 3 + 2
    assert all_bytes(ws) == all_bytes(whole)


def test_shards_are_judged_in_any_order_and_without_the_others(
    finished, tmp_path, monkeypatch, plots_once
):
    whole, _ = finished
    ws = make_workspace(tmp_path)
    monkeypatch.setattr(stage, "load_judge", lambda ws, config: judge())
    hidden = tmp_path / "hidden"
    for shard, other in (SHARDS[::-1], SHARDS):
        for name in ("images", "annotations", "captions"):
            for path in ws.stage_dir(name).glob(f"{other}.*"):
                path.rename(hidden.with_name(f"{name}-{path.name}"))
        report = judge_shard(ws, CONFIG, shard)
        assert (report.num_in, report.num_out, report.num_excluded) == (3, 3, 0)
        for name in ("images", "annotations", "captions"):
            for path in tmp_path.glob(f"{name}-*"):
                path.rename(ws.stage_dir(name) / path.name.removeprefix(f"{name}-"))
    monkeypatch.setattr(stage, "load_judge", None)  # all is judged: no model is loaded
    stage.run(ws, CONFIG)
    assert all_bytes(ws) == all_bytes(whole)


def test_a_worker_loads_the_judge_once_until_the_detector_is_another(tmp_path, monkeypatch):
    ws = make_workspace(tmp_path)
    loaded = []
    monkeypatch.setattr(stage, "load_box_detector", lambda *_: loaded.append(1))
    folder = ws.stage_dir("head_detector")
    folder.mkdir(exist_ok=True)
    for content, times in (("weights", 1), ("weights", 1), ("other weights", 2)):
        (folder / "model.safetensors").write_text(content)
        for _ in SHARDS:
            stage.load_judge(ws, CONFIG)
        assert len(loaded) == times


def test_tables_of_several_row_groups_hold_the_same_rows(finished, tmp_path, monkeypatch, no_plots):
    whole, _ = finished
    monkeypatch.setattr(stage, "GROUP_ROWS", 1)
    ws = make_workspace(tmp_path)
    filter_dataset(ws, CONFIG, judge())
    for name, spec in (
        ("verdicts", VERDICTS), ("heads", DATASET_HEADS), ("all.exclusions", EXCLUSIONS),
    ):  # fmt: skip
        ours, theirs = (w.stage_dir("filtered_dataset") / f"{name}.parquet" for w in (ws, whole))
        # Shards are gathered: the first alone has one exclusion.
        assert pq.ParquetFile(ours).num_row_groups == 2 - (spec is EXCLUSIONS)
        assert pq.ParquetFile(theirs).num_row_groups == 1
        pd.testing.assert_frame_equal(read_table(ours, spec), read_table(theirs, spec))


def test_a_dataset_beyond_the_limit_of_a_table_is_reduced(
    finished, tmp_path, monkeypatch, plots_once
):
    whole, _ = finished
    ws = make_workspace(tmp_path)
    for shard in SHARDS:
        judge_images(ws, CONFIG, shard, judge())
    # No table of one shard has so many bytes, all shards together have.
    largest = max(8 * table_values(path) for path in ws.root.rglob("shard-*.parquet"))
    out = whole.stage_dir("filtered_dataset") / "heads.parquet"
    assert largest < 8 * table_values(out)
    monkeypatch.setattr(tables, "MAX_TABLE_BYTES", largest)
    stage.run(ws, CONFIG)
    assert all_bytes(ws) == all_bytes(whole)


def table_values(path):
    about = pq.ParquetFile(path).metadata
    groups = range(about.num_row_groups)
    return sum(about.row_group(g).column(c).num_values for g in groups
               for c in range(about.num_columns))  # fmt: skip


def test_another_detector_takes_a_third_pass_and_comes_to_the_same_verdicts(
    finished, tmp_path, no_plots
):
    whole, _ = finished
    ws = make_workspace(tmp_path, teacher="somebody else")
    report = filter_dataset(ws, CONFIG, judge())
    assert report.metadata["detector_passes_per_image"] == 3
    assert all_bytes(ws)["verdicts.parquet"] == all_bytes(whole)["verdicts.parquet"]


def test_reuse_needs_the_same_weights_and_threshold():
    heads = pd.DataFrame(head_rows("a1", f"squares:{LopsidedDetector.sha256} + regressor:1"))
    detector, limits, rules = LopsidedDetector(), CONFIG.detections, CONFIG.rules
    assert can_reuse(heads, detector, limits, rules)
    assert not can_reuse(heads.assign(threshold=0.4), detector, limits, rules)
    assert not can_reuse(heads.assign(teacher="squares:other"), detector, limits, rules)
    lower = limits.model_copy(update={"threshold": 0.4})
    assert not can_reuse(heads, detector, lower, rules)
    # Weaker detections, which may confirm, are not annotated.
    assert not can_reuse(heads, detector, limits, RulesConfig(confirm_threshold=0.3))


def test_all_detectors_of_the_stage_compute_on_its_device(tmp_path, monkeypatch):
    asked = []
    for name in ("load_box_detector", "build_face_detector", "build_screens"):
        monkeypatch.setattr(stage, name, lambda *arguments: asked.append(arguments[-1]) or ())
    ws = Workspace(tmp_path, seed=1, num_shards=1, shard_size=1)
    (ws.stage_dir("head_detector") / "model").mkdir(parents=True)
    (ws.stage_dir("head_detector") / "model" / "weights").write_text("x")
    stage.load_judge(ws, CONFIG.model_copy(update={"device": "cuda:3"}))
    assert asked == ["cuda:3"] * 3


def test_images_without_annotations_are_not_judged(tmp_path, no_plots):
    ws = make_workspace(tmp_path, excluded=("a0",))
    report = filter_dataset(ws, CONFIG, judge())
    verdicts = read_table(ws.stage_dir("filtered_dataset") / "verdicts.parquet", VERDICTS)
    assert "a0" not in set(verdicts["sample_id"])
    assert (report.num_in, report.num_out, report.num_excluded) == (5, 2, 3)


def test_a_damaged_image_is_excluded_and_the_rest_unharmed(finished, tmp_path, no_plots):
    whole, _ = finished
    ws = make_workspace(tmp_path)
    damage_member(ws.stage_dir("images") / f"{SHARDS[0]}.tar", "a1.jpg")
    report = filter_dataset(ws, CONFIG, judge())
    assert (report.num_in, report.num_out, report.num_excluded) == (6, 2, 4)
    table = read_table(ws.stage_dir("filtered_dataset") / "all.exclusions.parquet", EXCLUSIONS)
    row = table.set_index("sample_id").loc["a1"]
    assert row["reason"] == "damaged_image"
    assert row["detail"].startswith(f"{SHARDS[0]}.tar/a1.jpg: ")
    verdicts, expected = (
        read_table(w.stage_dir("filtered_dataset") / "verdicts.parquet", VERDICTS)
        for w in (ws, whole)
    )
    rest = expected[expected["sample_id"] != "a1"].reset_index(drop=True)
    pd.testing.assert_frame_equal(verdicts, rest)


def damage_member(path, name):
    """Overwrite a member's bytes in place."""
    with tarfile.open(path) as tar:
        info = tar.getmember(name)
    data = bytearray(path.read_bytes())
    data[info.offset_data : info.offset_data + info.size] = b"\0" * info.size
    path.write_bytes(data)


def test_removing_too_much_stops_the_stage(tmp_path, no_plots):
    ws = make_workspace(tmp_path)
    strict = CONFIG.model_copy(update={"max_drop_rate": 0.4})
    with pytest.raises(TooManyExcluded, match=r"3 of 6 images excluded, .*flip_count 1.*look at"):
        filter_dataset(ws, strict, judge())


def test_a_pose_in_two_splits_stops_the_stage(tmp_path, no_plots):
    ws = make_workspace(tmp_path)
    rows = [image_row(name) for name in ("a0", "a1", "a2")]
    # Both images are kept: a leak counts in the dataset, not among what was removed.
    rows[1] |= {"pose_id": rows[0]["pose_id"], "split": "val"}
    write_table(ws.table_path("images", SHARDS[0]), pd.DataFrame(rows), IMAGES)
    with pytest.raises(LeakError, match="pose-a0"):
        filter_dataset(ws, CONFIG, judge())


def test_a_pose_in_two_splits_of_two_shards_stops_the_stage(tmp_path, no_plots):
    ws = make_workspace(tmp_path)
    rows = [image_row(name) for name in ("b0", "b1", "b2")]
    rows[2] |= {"pose_id": "pose-a0"}
    write_table(ws.table_path("images", SHARDS[1]), pd.DataFrame(rows), IMAGES)
    with pytest.raises(LeakError, match="pose-a0: a0 in train, b2 in test"):
        filter_dataset(ws, CONFIG, judge())
    assert not (ws.stage_dir("filtered_dataset") / "verdicts.parquet").exists()


def test_no_verdicts_no_drops():
    tally = VerdictTally()
    tally.add(empty_table(VERDICTS))
    assert tally.mean_stability == 0
    table = drop_table(tally)
    assert table["removed"].tolist() == [0, 0, 0, 0, 0]
