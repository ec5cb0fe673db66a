"""The benchmark stage with a detector that knows the ground truth and adds given errors."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ml.evaluation.samples import has_truth, read_labelled_samples, read_samples
from ml.flame.head_model import HeadModel
from ml.imaging.io import decode_image
from ml.inference.flip import mirror_heads
from ml.records.exclusions import Exclusions, LostSamples, read_exclusions
from ml.records.heads import Heads
from ml.records.shards import ShardReader
from ml.records.tables import (
    DATASET_HEADS,
    TRUTH,
    VERDICTS,
    empty_table,
    read_table,
    write_table,
)
from ml.records.workspace import Workspace
from ml.stages import benchmark
from ml.stages.benchmark import STAGE, BenchmarkConfig
from ml.training_data.labels import LabelLimits
from tests.fixtures.tiny_world import SIZE, make_world

SPLITS = ("train", "train", "val", "test", "test", "test", "test", "train")
YAWS_DEG = (0.0, 10.0, -10.0, 0.0, 20.0, -40.0, 60.0, 0.0)
TESTED = ["s4", "s5", "s6"]
"""Images of the test split; s3 is damaged."""
SHIFT_PX = 3.0
SHORT = {"resamples": 3, "num_images": 2, "batch_size": 2, "photographs": False}


class Knowing:
    """Gives the true heads of an image, and of its mirror image, all a little to the right."""

    def __init__(self, ws: Workspace, second_score: float = 0.9) -> None:
        self.seen: list[str] = []
        self._known: dict[bytes, tuple[str, Heads]] = {}
        maps = HeadModel.load(ws.stage_dir("head_model") / "head_model.npz")
        for split in ("train", "val", "test"):
            for sample in read_samples(ws, split, LabelLimits(), Exclusions("test")):
                scores = np.linspace(0.9, second_score, max(len(sample.heads), 2))
                heads = Heads(
                    sample.heads.boxes_xyxy, scores[: len(sample.heads)], sample.heads.flame
                )
                image = sample.image_rgb
                self._known[image.tobytes()] = sample.sample_id, heads
                mirrored = np.ascontiguousarray(image[:, ::-1])
                self._known[mirrored.tobytes()] = (
                    f"{sample.sample_id} mirrored",
                    mirror_heads(heads, SIZE, maps),
                )

    def predict(
        self,
        images_rgb: list[NDArray[np.uint8]],
        batch_size: int = 1,
        postprocessing: object = None,
    ) -> list[Heads]:
        found = [self._known[image.tobytes()] for image in images_rgb]
        self.seen += [name for name, _ in found]
        return [shifted(heads) for _, heads in found]


def shifted(heads: Heads) -> Heads:
    flame = heads.flame.copy()
    flame[:, 409] += SHIFT_PX
    return Heads(heads.boxes_xyxy, heads.scores, flame)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    ws = make_world(tmp_path_factory.mktemp("world"), SPLITS, YAWS_DEG)
    quality = ws.stage_dir("annotation_quality") / "metrics.json"
    quality.parent.mkdir(parents=True)
    quality.write_text(json.dumps({"recall": 0.875, "precision": 0.75, "nme_bbox": None}))
    return ws


@pytest.fixture
def ws(world: Workspace, tmp_path: Path) -> Workspace:
    shutil.copytree(world.root / "data", tmp_path / "data")
    return Workspace(tmp_path, seed=5, num_shards=1, shard_size=len(SPLITS), threads=1)


@pytest.fixture
def knowing(world: Workspace, monkeypatch: pytest.MonkeyPatch) -> Knowing:
    detector = Knowing(world)
    monkeypatch.setattr(benchmark, "_load", lambda folder: detector)
    return detector


def without_truth(ws: Workspace) -> None:
    """What a diffusion model leaves: images, labels, and no truth to compare with."""
    write_table(ws.table_path("truth", "shard-00000"), empty_table(TRUTH), TRUTH)
    (ws.stage_dir("annotation_quality") / "metrics.json").write_text("{}")


def metrics_of(ws: Workspace) -> dict[str, float]:
    return json.loads((ws.stage_dir(STAGE) / "metrics.json").read_text())


@pytest.fixture(autouse=True)
def _without_charts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight charts take longer than the rest; tests with `charts` in their name draw them."""
    if "charts" not in request.node.name:
        monkeypatch.setattr(benchmark, "draw_charts", lambda *_: {})


def test_only_the_test_split_is_measured(ws: Workspace, knowing: Knowing) -> None:
    report = benchmark.run(ws, BenchmarkConfig(**SHORT))
    assert sorted(set(knowing.seen)) == sorted([*TESTED, *(f"{name} mirrored" for name in TESTED)])
    assert (report.num_in, report.num_out, report.num_excluded) == (4, 3, 1)
    assert read_exclusions(ws, [STAGE])["sample_id"].tolist() == ["s3"]
    metrics = metrics_of(ws)
    assert metrics["num_images"] == 3
    assert metrics["has_ground_truth"] == 1
    assert metrics["pseudo_labels.num_heads"] == 4


def test_the_flip_column_is_the_run_on_mirrored_images(ws: Workspace, knowing: Knowing) -> None:
    benchmark.run(ws, BenchmarkConfig(**SHORT))
    metrics = metrics_of(ws)
    # To the right in the image and to the right in its mirror image: the mean is right.
    assert metrics["pseudo_labels.nme_bbox"] > 5
    assert metrics["pseudo_labels_flip.nme_bbox"] < 0.1
    # Once for the plain column and once for the flipped one, and again only to be drawn.
    measured = knowing.seen[: 3 * len(TESTED)]
    assert measured.count("s4") == 2
    assert measured.count("s4 mirrored") == 1
    assert not any("mirrored" in name for name in knowing.seen[len(measured) :])


def test_always_frontal_errs_by_the_angle_of_the_heads(ws: Workspace, knowing: Knowing) -> None:
    benchmark.run(ws, BenchmarkConfig(**SHORT))
    metrics = metrics_of(ws)
    # s4 has one head at 20 degrees, s5 two at 40, s6 one at 60.
    assert metrics["always_frontal.rotation_deg"] == pytest.approx((20 + 40 + 40 + 60) / 4, abs=0.1)
    assert metrics["pseudo_labels.rotation_deg"] == pytest.approx(0, abs=0.1)
    assert metrics["mean_head.rotation_deg"] == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize(("operating_score", "recall"), [(0.3, 1.0), (0.5, 0.75), (0.95, 0.0)])
def test_the_operating_score_is_honoured(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch, operating_score: float, recall: float
) -> None:
    detector = Knowing(ws, second_score=0.4)
    monkeypatch.setattr(benchmark, "_load", lambda folder: detector)
    benchmark.run(ws, BenchmarkConfig(**SHORT, operating_score=operating_score))
    metrics = metrics_of(ws)
    assert metrics["pseudo_labels.recall"] == recall
    assert metrics["pseudo_labels.ap50"] == 1, "average precision has no operating score"


def test_models_that_were_not_trained_have_no_column(
    ws: Workspace, knowing: Knowing, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = benchmark.run(ws, BenchmarkConfig(**SHORT))
    columns = ["metric", "pseudo-labels", "pseudo-labels + flip", "mean head", "always frontal"]
    assert list(report.tables["results"].columns) == columns
    (ws.stage_dir("trained_model_exact")).mkdir()
    (ws.stage_dir("trained_model_exact") / "config.json").write_text("{}")
    report = benchmark.run(ws, BenchmarkConfig(**SHORT))
    assert "exact labels + flip" in report.tables["results"].columns
    headline = json.loads((ws.stage_dir(STAGE) / "headline.json").read_text())
    names = ("ap50", "nme_bbox", "rotation_deg")
    assert set(headline) == {f"{m}.{n}" for m in ("pseudo_labels", "exact_labels") for n in names}
    assert headline.items() <= metrics_of(ws).items()


def test_the_report_says_what_was_compared_with(ws: Workspace, knowing: Knowing) -> None:
    benchmark.run(ws, BenchmarkConfig(**SHORT))
    for name in ("report.md", "report.html"):
        text = (ws.stage_dir(STAGE) / name).read_text()
        assert "4 heads with ground truth" in text
        assert "held-out-renders/1" in text
        assert "Pseudo-labels against ground truth" in text
        assert "0.875" in text
        assert "No exact ground truth" not in text


def test_photographs_are_shown_as_examples(
    ws: Workspace, knowing: Knowing, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ShardReader(ws.stage_dir("images") / "shard-00000.tar") as shard:
        known = decode_image(shard.read("s4"))
    monkeypatch.setattr(benchmark, "read_photographs", lambda: {"a known image": known})
    report = benchmark.run(ws, BenchmarkConfig(**{**SHORT, "photographs": True}))
    assert "Qualitative examples: real photographs" in report.images
    text = " ".join((ws.stage_dir(STAGE) / "report.html").read_text().split())
    assert "qualitative examples, not a measurement" in text
    sheet = decode_image(ws.stage_dir(STAGE) / "images" / "photographs.jpg")
    assert np.ptp(sheet) > 0


def test_without_photographs_there_is_no_such_part(
    ws: Workspace, knowing: Knowing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark, "read_photographs", dict)
    benchmark.run(ws, BenchmarkConfig(**{**SHORT, "photographs": True}))
    assert "Qualitative" not in (ws.stage_dir(STAGE) / "report.html").read_text()


def test_the_report_has_charts_and_equal_bytes_each_time(ws: Workspace, knowing: Knowing) -> None:
    benchmark.run(ws, BenchmarkConfig(**SHORT))
    page = ws.stage_dir(STAGE) / "report.html"
    first = page.read_bytes()
    assert first.count(b"<svg") == 8
    for name in (b"Precision and recall", b"Calibration", b"Found, missed", b"by turn", b"by size"):
        assert name in first
    assert len(list((ws.stage_dir(STAGE) / "charts").glob("*.svg"))) == 8
    benchmark.run(ws, BenchmarkConfig(**SHORT))
    assert page.read_bytes() == first


def test_without_truth_the_labels_of_the_test_split_are_compared_with(
    ws: Workspace, knowing: Knowing
) -> None:
    without_truth(ws)
    dataset = ws.stage_dir("filtered_dataset")
    verdicts = read_table(dataset / "verdicts.parquet", VERDICTS)
    verdicts.loc[verdicts["sample_id"] == "s6", "keep"] = False
    write_table(dataset / "verdicts.parquet", verdicts, VERDICTS)
    heads = read_table(dataset / "heads.parquet", DATASET_HEADS)
    # One of the two heads of s5 was too small for parameters: it is not asked for.
    small = (heads["sample_id"] == "s5") & (heads["head_id"] == 1)
    heads.loc[small, "flame_status"] = "small"
    heads["flame"] = [None if gone else f for gone, f in zip(small, heads["flame"], strict=True)]
    write_table(dataset / "heads.parquet", heads, DATASET_HEADS)
    report = benchmark.run(ws, BenchmarkConfig(**SHORT))
    assert {name for name in knowing.seen if "mirrored" not in name} == {"s4", "s5"}
    assert (report.num_in, report.num_out, report.num_excluded) == (3, 2, 1)
    assert report.metadata["ground truth"] == "pseudo-labels"
    metrics = metrics_of(ws)
    assert metrics["has_ground_truth"] == 0
    assert metrics["pseudo_labels.num_heads"] == 2
    assert metrics["pseudo_labels.recall"] == metrics["pseudo_labels.precision"] == 1
    assert metrics["always_frontal.rotation_deg"] == pytest.approx(30, abs=0.1)
    for name in ("report.md", "report.html"):
        text = " ".join((ws.stage_dir(STAGE) / name).read_text().split())
        assert "No exact ground truth" in text
        assert "2 heads that the annotator labelled; 1 more heads" in text
        assert "held-out-pseudo-labels/1" in text
        assert "Pseudo-labels against ground truth" not in text
        assert "skin tone" not in text


def test_a_test_image_that_is_not_measured_is_named(
    ws: Workspace, knowing: Knowing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark, "read_samples", lambda *given: read_samples(*given)[1:])
    with pytest.raises(LostSamples, match=r"neither used nor excluded: s4$"):
        benchmark.run(ws, BenchmarkConfig(**SHORT))


def test_an_empty_test_split_is_refused_with_what_to_do(ws: Workspace, knowing: Knowing) -> None:
    without_truth(ws)
    dataset = ws.stage_dir("filtered_dataset")
    verdicts = read_table(dataset / "verdicts.parquet", VERDICTS)
    write_table(dataset / "verdicts.parquet", verdicts.assign(keep=False), VERDICTS)
    with pytest.raises(ValueError, match=r"no readable image .* raise poses.test_fraction \(or"):
        benchmark.run(ws, BenchmarkConfig(**SHORT))


def test_samples_of_truth_and_of_labels(ws: Workspace) -> None:
    assert has_truth(ws)
    exclusions = Exclusions("test")
    limits = LabelLimits(min_side_px=11.0)
    exact = read_samples(ws, "test", limits, exclusions)
    labelled = read_labelled_samples(ws, "test", limits, exclusions)
    assert [s.sample_id for s in exact] == [s.sample_id for s in labelled] == TESTED
    assert exclusions.to_frame()["sample_id"].tolist() == ["s3", "s3"]
    for one, other in zip(exact, labelled, strict=True):
        np.testing.assert_array_equal(one.image_rgb, other.image_rgb)
        np.testing.assert_array_equal(one.heads.flame, other.heads.flame)
        assert list(one.attributes["hat"]) == ["none"] * len(one.heads)
        assert other.attributes.shape == (len(other.heads), 0)
        assert not one.ignore.any()
        assert not other.ignore.any()
    everything = LabelLimits(min_side_px=1000.0)
    for read in (read_samples, read_labelled_samples):
        assert all(s.ignore.all() for s in read(ws, "test", everything, exclusions))
    without_truth(ws)
    assert not has_truth(ws)
