"""The stage `released_dataset`: switched off, refused, imported, and losses counted."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import yaml

from assets.checks.released_dataset import RELEASE_RULES
from ml.dataset.statistics import StatisticsCounter
from ml.records.exclusions import TooManyExcluded
from ml.records.tables import IMAGES, VERDICTS, read_stage, read_table
from ml.records.workspace import Workspace
from ml.stages import released_benchmark, released_dataset
from ml.stages.released_benchmark import ReleasedBenchmarkConfig
from ml.stages.released_dataset import ReleasedDatasetConfig, released_view, run
from ml.stages.released_model import ReleasedModelConfig
from tests.fixtures.release import pack, release_files
from tests.fixtures.tiny_world import ball_model

GIVEN = {
    "enabled": True,
    "sources": ("release.tar",),
    "source_asset": "vggheads-release",
    "any_head_model": True,
    "max_drop_rate": 0.3,
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return release_files(tmp_path_factory.mktemp("drawn"))


@pytest.fixture
def ws(tmp_path: Path) -> Workspace:
    ws = Workspace(tmp_path, seed=1, num_shards=1, shard_size=1, threads=1)
    ball_model().save(ws.stage_dir("head_model") / "head_model.npz")
    return ws


METRICS = yaml.safe_load((Path(__file__).parents[3] / "dvc.yaml").read_text())["metrics"]


def test_off_there_is_a_note_and_nothing_else(ws: Workspace) -> None:
    for stage, config in (
        (released_dataset, ReleasedDatasetConfig()),
        (released_benchmark, ReleasedBenchmarkConfig()),
    ):
        assert config.switched_off
        report = stage.run(ws, config)
        assert (report.num_in, report.num_out) == (0, 0)
        wanted = [ws.root / name for name in METRICS if f"/{stage.STAGE}/" in name]
        assert wanted
        for path in wanted:
            assert json.loads(path.read_text()) == {}, "DVC complains of metrics that are not there"
    assert released_view(ws).shards == []


def test_parameters_of_another_head_model_are_refused(ws: Workspace, files) -> None:
    pack(files, ws.root / "release.tar")
    config = ReleasedDatasetConfig(**{**GIVEN, "any_head_model": False})
    with pytest.raises(ValueError, match=r"coefficients of FLAME 2020, and the head model is 'a"):
        run(ws, config)


def test_what_the_release_itself_removed_is_not_lost(ws: Workspace, files, monkeypatch) -> None:
    listed = dict(files)
    stems = [Path(n).stem for n in files if n.startswith("large/split_00002/images")]
    stems = [stem for stem in stems if not stem.endswith("s1")][:3]
    listed["large/split_00002/files.txt"] = "".join(f"{stem}.jpg\n" for stem in stems).encode()
    pack(listed, ws.root / "release.tar")
    with pytest.raises(
        TooManyExcluded, match=r"2 of 16 images .*lacks\.csv lists the missing parts"
    ):
        run(ws, ReleasedDatasetConfig(**{**GIVEN, "max_drop_rate": 0.01}))
    pieces = []
    add = StatisticsCounter.add

    def noted(self, images, heads, verdicts, captions):
        pieces.append((len(images), len(heads), len(verdicts)))
        add(self, images, heads, verdicts, captions)

    monkeypatch.setattr(StatisticsCounter, "add", noted)
    # One image and one annotation of 15 are missing; four were removed by lists.
    report = run(ws, ReleasedDatasetConfig(**{**GIVEN, "max_drop_rate": 0.15}))
    assert report.num_excluded > 0.25 * report.num_in
    view = released_view(ws)
    images = read_stage(view, "images", IMAGES)
    assert not set(images["sample_id"]) & set(stems)
    verdicts = read_table(view.stage_dir("filtered_dataset") / "verdicts.parquet", VERDICTS)
    assert verdicts["keep"].all()
    assert len(verdicts) == len(images) == report.num_out
    # Of a million images the statistics must not hold all heads: a shard is counted at a time.
    assert len(pieces) == len(view.shards) > 1
    stated = json.loads((ws.stage_dir("released_dataset") / "statistics.json").read_text())
    totals = [sum(numbers) for numbers in zip(*pieces, strict=True)]
    assert totals == [len(images), stated["count"]["num_heads"], len(verdicts)]
    assert (ws.stage_dir("released_dataset") / "CARD.md").read_text().count("VGGHeads") > 1
    assert all(path.is_file() for path in report.images.values())


def test_configurations_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="enabled needs source_asset: vggheads-release"):
        ReleasedDatasetConfig(enabled=True)
    with pytest.raises(ValueError, match="enabled needs sources"):
        ReleasedDatasetConfig(**{**GIVEN, "sources": ()})
    with pytest.raises(ValueError, match="no split in common"):
        ReleasedDatasetConfig(val_splits=(0, 1), test_splits=(1,))
    with pytest.raises(ValueError, match="initial_encoder"):
        ReleasedModelConfig(initial_encoder="flame_regressor")  # type: ignore[arg-type]


def found_by(ws: Workspace) -> dict[str, list[str]]:
    """Check of the release's suite -> what it finds."""
    table = RELEASE_RULES.table(ws, ["stage"])
    columns = {check.name: table[check.name].dropna() for check in RELEASE_RULES.checks}
    return {name: told for name, rows in columns.items() if (told := [t for t in rows if t])}


def test_every_check_of_an_import_fails_where_it_should(ws: Workspace, files) -> None:
    pack(files, ws.root / "release.tar")
    run(ws, ReleasedDatasetConfig(**GIVEN))
    folder, view = ws.stage_dir(released_dataset.STAGE), released_view(ws)
    # Two archives are no whole release, which a warning says; nothing else is to be found.
    lacking = found_by(ws)
    assert set(lacking) == {"nothing_lacks"}

    def changed(path: Path, change) -> list[str]:
        """Ids of the rows that a change of a table takes away; the file is put back afterwards."""
        rows = pd.read_parquet(path)
        left = change(rows.copy())
        left.to_parquet(path)
        return sorted(set(rows["sample_id"]) - set(left["sample_id"]))

    for shard in view.shards:
        for path, check in (
            (view.table_path("images", shard), "accounted"),
            (view.table_path("annotations", shard), "heads_of_images"),
        ):
            whole = path.read_bytes()
            lost = changed(path, lambda rows: rows[rows["sample_id"] > rows["sample_id"].min()])
            told = " ".join(found_by(ws)[check])
            assert lost
            assert all(item in told for item in lost)
            path.write_bytes(whole)
    verdicts = folder / "verdicts.parquet"
    whole = verdicts.read_bytes()
    lost = changed(verdicts, lambda rows: rows.sample(frac=0.7, random_state=1))
    told = found_by(ws)["accounted"]
    assert [any(item in text for text in told) for item in lost] == [True] * len(lost)
    assert "the stage reported" in told[-1]
    verdicts.write_bytes(whole)

    path = view.table_path("annotations", view.shards[0])
    whole = path.read_bytes()
    changed(path, lambda rows: rows.assign(bbox_xywh=[box + 1000 for box in rows["bbox_xywh"]]))
    assert "is not in its" in found_by(ws)["boxes_in_images"][0]
    path.write_bytes(whole)

    metrics = folder / "metrics.json"
    whole = metrics.read_bytes()
    metrics.write_text(json.dumps({**json.loads(whole), "num_val": 0}))
    assert found_by(ws) == {**lacking, "splits_filled": ["no image of the split val"]}
    metrics.write_bytes(whole)

    (folder / "lacks.csv").write_text("where,detail\nlarge/split_00001,one image\n")
    assert found_by(ws) == {"nothing_lacks": ["large/split_00001: one image"]}
