"""The stage that gathers all scores: own, of public and generated sets, outside predictions."""

from __future__ import annotations

import csv
import json
import shutil

import pytest

from assets.checks.benchmark_scores import (
    counts_as_published,
    models_have_scores,
    scores_are_numbers,
    something_was_measured,
)
from assets.checks.rules import Shelf
from ml.benchmarks.config import BenchmarkScoresConfig
from ml.benchmarks.content import OtherContent, content_of
from ml.benchmarks.gathering import Model
from ml.benchmarks.generated.from_truth import SET_NAMES
from ml.benchmarks.scoring import SetCounter
from ml.benchmarks.sets import SETS
from ml.inference.loading import WEIGHTS_NAME
from ml.records.config import read_config
from ml.records.workspace import Workspace
from ml.stages.benchmark import HEADLINE_METRICS
from ml.stages.benchmark_scores import own_scores, run
from ml.training.tracking import WEIGHTS_TAG, mlflow_run
from tests.benchmark_sets.boxes import FDDB_FACES, fddb_boxes, write_fddb
from tests.benchmark_sets.ours import write_renders
from tests.ml.inference.conftest import network, project, shapes

__all__ = ["network", "project", "shapes"]
HELD_OUT = {"r0": ("test", [(45, 25, 40, 50, 1.0)]), "r1": ("train", [(5, 5, 20, 20, 1.0)])}
OWN = {"ap50": 0.75, "ap50_low": 0.7, "ap50_high": 0.8, "rotation_deg": 11.5, "nme_bbox": 8.0}


@pytest.fixture(scope="module")
def root(tmp_path_factory, project):
    """A project whose model is trained and benchmarked; its training is in MLflow."""
    root = tmp_path_factory.mktemp("scores")
    write_renders(root, HELD_OUT)
    for name in ("head_model", "trained_model"):
        (root / "data" / name).symlink_to(project / name)
    folder = root / "data" / "benchmark"
    folder.mkdir()
    metrics = {f"pseudo_labels{flip}.{k}": v for flip in ("", "_flip") for k, v in OWN.items()}
    (folder / "metrics.json").write_text(
        json.dumps({"num_images": 2.0, "has_ground_truth": 1.0, **metrics})
    )
    weights = content_of(project / "trained_model" / WEIGHTS_NAME)
    for tag in ("other", weights):
        with mlflow_run(root / "mlruns", "vggheads", f"run-{tag[:5]}", {WEIGHTS_TAG: tag}):
            pass
    write_fddb(root / "fddb")
    lines = [{"format": "vggheads-predictions/1", "model": "perfect"}]
    lines += [{"image": name, "boxes_xyxy": fddb_boxes(name).tolist()} for name in FDDB_FACES]
    (root / "perfect.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    cost = {"set": "architecture", "protocol": "cost", "model": "x", "num_parameters": 17_004_954}
    (root / "cost.json").write_text(json.dumps({**cost, "images_per_second": 50.0, "notes": []}))
    return root


def workspace(root):
    return Workspace(root, seed=0, num_shards=1, shard_size=3)


def configured(root, **changes):
    perfect = {"path": root / "perfect.jsonl", "content": content_of(root / "perfect.jsonl")}
    fddb = {
        "data": root / "fddb",
        "content": content_of(root / "fddb"),
        "outside": {"perfect": perfect},
    }
    cost = {"path": root / "cost.json", "content": content_of(root / "cost.json")}
    values = {
        "sets": {"fddb": fddb | changes},
        "score_files": {"VGGHeads-S, here": cost},
        "generated_images": 0,
        "resamples": 5,
        "device": "cpu",
    }
    return read_config(BenchmarkScoresConfig, "benchmark_scores", values)


@pytest.fixture(scope="module")
def report(root):
    return run(workspace(root), configured(root))


@pytest.fixture
def copied(root, report, tmp_path):
    """A copy of the finished project, to run it in another way."""
    return shutil.copytree(root, tmp_path / "copied", symlinks=True)


def model_run(root):
    from mlflow import MlflowClient

    from ml.training.tracking import sqlite_uri

    client = MlflowClient(sqlite_uri(root / "mlruns" / "mlflow.db"))
    runs = client.search_runs([one.experiment_id for one in client.search_experiments()])
    return client, {one.info.run_name: one for one in runs}


def test_ours_the_paper_s_and_outside_numbers_stand_in_one_table(root, report):
    with (root / "data/benchmark_scores/table_05.csv").open() as file:
        rows = list(csv.DictReader(file))
    by_name = {(row["Model"], row["Origin"]): row for row in rows}
    assert by_name["RetinaFace", "paper"]["FDDB AP50 ↑"] == "96.2"
    assert float(by_name["perfect", "outside"]["FDDB AP50 ↑"]) == pytest.approx(100.0)
    assert 0 <= float(by_name["trained_model", "ours"]["FDDB AP50 ↑"]) < 100
    assert by_name["trained_model", "ours"]["WIDER val Easy ↑"] == "not measured"
    with (root / "data/benchmark_scores/table_08.csv").open() as file:
        costs = {row["Model"]: row for row in csv.DictReader(file)}
    counted = [float(costs[name]["Parameters"]) for name in ("VGGHeads-S", "VGGHeads-S, here")]
    assert counted == [17_004_954, 17_004_954]
    assert float(costs["VGGHeads-S, here"]["Images/s ↑"]) == 50.0


def test_table_8_counts_the_published_sizes_and_our_models_without_any_score_file(root, report):
    with (root / "data/benchmark_scores/table_08.csv").open() as file:
        rows = list(csv.DictReader(file))
    cells = {
        origin: {
            row["Model"]: (float(row["Parameters"]), float(row["MACs (G) ↓"]))
            for row in rows
            if row["Origin"] == origin and not row["Model"].endswith("here")
        }
        for origin in ("paper", "ours")
    }
    assert set(cells["ours"]) == {*cells["paper"], "trained_model"}
    for name, (parameters, gmacs) in cells["paper"].items():
        found = cells["ours"][name]
        assert found[0] == parameters, name
        # the paper's count holds what is not a convolution too
        assert found[1] == pytest.approx(gmacs, rel=0.01), name
    assert all(value > 0 for value in cells["ours"]["trained_model"])
    ours = {row["Model"]: row for row in rows if row["Origin"] == "ours"}
    speeds = [name for name in rows[0] if name.endswith("↑") and "mages/s" in name]
    assert len(speeds) == 9
    assert {ours["VGGHeads-L"][name] for name in speeds} == {"not measured"}
    with (root / "data/benchmark_scores/summary.csv").open() as file:
        assert "VGGHeads-L" not in file.readline(), "what has no headline has no column there"


def test_the_report_counts_images_and_links_the_pages(root, report):
    assert (report.num_in, report.num_excluded) == (3, 0)
    assert report.metadata["public sets"] == "fddb"
    page = (root / "data/benchmark_scores/tables.html").read_text()
    gallery = "gallery/gallery.html"
    (folder,) = (root / "data/benchmark_scores/public").iterdir()
    assert folder.name == f"fddb-{content_of(root / 'fddb')[:12]}"
    assert f'href="public/{folder.name}/trained_model/{gallery}"' in page
    assert (folder / "trained_model" / gallery).is_file()
    metrics = json.loads((root / "data/benchmark_scores/metrics.json").read_text())
    assert metrics["benchmark.held-out-renders.trained_model.ap50"] == OWN["ap50"]
    assert metrics["fddb.coco.perfect.ap50"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("truth", "protocol"), [(1.0, "held-out-renders/1"), (0.0, "held-out-pseudo-labels/1")]
)
def test_the_benchmark_s_protocol_says_what_was_compared_with(tmp_path, truth, protocol):
    folder = tmp_path / "data" / "benchmark"
    folder.mkdir(parents=True)
    metrics = {"num_images": 2.0, "has_ground_truth": truth, "pseudo_labels.ap50": 0.5}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    own = [Model("trained_model", tmp_path, tmp_path / "head_model.npz", {"Dataset": "this run"})]
    (result,) = own_scores(workspace(tmp_path), own)
    assert result.scores[0]["protocol"] == protocol


def test_scores_go_to_the_run_that_made_the_model_once(root, report):
    client, runs = model_run(root)
    weights = content_of(root / "data/trained_model" / WEIGHTS_NAME)
    mine, other = runs[f"run-{weights[:5]}"], runs["run-other"]
    assert not other.data.metrics
    assert report.metadata["scores in MLflow"] == "trained_model"
    found = mine.data.metrics
    assert found["test/ap50"] == OWN["ap50"]
    assert found["test/num_images"] == 2
    first = {name: value for name, value in found.items() if name.startswith("benchmark/")}
    assert first == {f"benchmark/{name}": OWN[name] for name in HEADLINE_METRICS}
    assert min(found) in first
    assert found["test_flip/rotation_deg"] == OWN["rotation_deg"]
    assert found["fddb.coco/num_images"] == 3
    assert "fddb.fddb/disc_tpr" in found
    assert not [name for name in found if "perfect" in name]

    before = len(client.get_metric_history(mine.info.run_id, "test/ap50"))
    again = run(workspace(root), configured(root))
    assert again.tables["headlines"].equals(report.tables["headlines"])
    assert len(client.get_metric_history(mine.info.run_id, "test/ap50")) == before == 1
    metrics = root / "data/benchmark/metrics.json"
    text = metrics.read_text()
    metrics.write_text(text.replace("0.75", "0.5"))
    run(workspace(root), configured(root))
    assert model_run(root)[1][mine.info.run_name].data.metrics["test/ap50"] == 0.5
    metrics.write_text(text)


def test_a_changed_set_is_refused_with_the_hash_to_state(root, report):
    with pytest.raises(OtherContent, match=r"sets\.fddb: .*has no hash yet.*sets\.fddb\.content: "):
        run(workspace(root), configured(root, content=""))
    with pytest.raises(OtherContent, match="has changed since it was 0123"):
        run(workspace(root), configured(root, content="0123"))


def test_what_is_no_longer_configured_is_removed(copied):
    assert list((copied / "data/benchmark_scores/public").iterdir())
    config = BenchmarkScoresConfig(generated_images=0, resamples=5, device="cpu")
    found = run(workspace(copied), config)
    assert found.num_in == 0
    assert not list((copied / "data/benchmark_scores/public").iterdir())
    assert found.metadata["public sets"] == "none is configured"


@pytest.mark.rehearsal
def test_generated_sets_run_through_every_protocol_and_say_what_they_are(copied):
    config = BenchmarkScoresConfig(generated_images=1, generated_scans=1, resamples=2, device="cpu")
    found = run(workspace(copied), config)
    scores = json.loads((copied / "data/benchmark_scores/scores.json").read_text())
    generated = [one for one in scores if one["set"].startswith("generated-")]
    assert {one["set"].removeprefix("generated-") for one in generated} == set(SET_NAMES)
    pairs = {(one["set"].removeprefix("generated-"), one["protocol"]) for one in generated}
    assert pairs == {(name, p) for name in SET_NAMES for p in SETS[name].protocols}
    assert found.num_out == len(SET_NAMES)
    assert all("says nothing of the public set" in one["notes"][0] for one in generated)
    page = (copied / "data/benchmark_scores/tables.html").read_text()
    assert page.count("generated/") >= len(SET_NAMES)
    tables = sorted((copied / "data/benchmark_scores").glob("table_*.csv"))
    assert len(tables) == 11
    # no number of a generated set stands among the paper's
    ours = [line for path in tables for line in path.read_text().splitlines() if ",ours," in line]
    measured = [line for line in ours if not line.startswith("this project")]
    named = ("trained_model", "VGGHeads-")
    assert all("held-out" in line or line.startswith(named) for line in measured)
    assert not list((copied / "data/.work").rglob("*.mat")), "generated sets are not kept"


def test_an_image_that_is_neither_scored_nor_excluded_stops_the_stage(copied, monkeypatch):
    add = SetCounter.add
    lost = iter([None])

    def loses_one(counter, sample):
        add(counter, sample) if next(lost, sample) else None

    monkeypatch.setattr(SetCounter, "add", loses_one)
    with pytest.raises(ValueError, match=r"stage lost samples: in 3 != out 2 \+ excluded 0"):
        run(workspace(copied), configured(copied))


# ------------------------------------------------------------------ checks
class Scores:
    """A shelf that holds given scores."""

    def __new__(cls, tmp_path, *scores):
        folder = tmp_path / "data" / "benchmark_scores"
        folder.mkdir(parents=True)
        (folder / "scores.json").write_text(json.dumps(scores))
        return Shelf(workspace(tmp_path))


def entry(name, model, **values):
    common = {"set": name, "protocol": "coco", "model": model, "origin": "ours", "num_images": 3}
    return common | values


def test_other_counts_than_the_published_ones_are_named(root, report, tmp_path):
    found = counts_as_published(Shelf(workspace(root)), [])
    assert "fddb: num_images: found 3, published 2,845" in set(found["problem"])
    assert "fddb: num_faces: found 4, published 5,171" in set(found["problem"])
    assert len(counts_as_published(Scores(tmp_path, entry("fddb", "a")), [])) == 0


def test_scores_that_are_none_are_found(tmp_path):
    shelf = Scores(tmp_path, entry("fddb", "a", ap50=float("inf"), ar=0.5, missing=None))
    assert list(scores_are_numbers(shelf, [])["problem"]) == ["fddb, coco, a: ap50 is inf"]


def test_sets_without_images_and_models_without_sets_are_found(tmp_path):
    shelf = Scores(
        tmp_path,
        entry("fddb", "a"),
        entry("wider", "a", num_images=0),
        entry("wider", "b"),
        entry("generated-fddb", "c"),
    )
    assert list(something_was_measured(shelf, [])["item"]) == [
        "wider, coco, a: no image was scored"
    ]
    assert list(models_have_scores(shelf, [])["problem"]) == ["fddb: no score of b"]
