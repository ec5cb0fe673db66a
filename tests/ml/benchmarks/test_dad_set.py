import json

import numpy as np
import pytest

from ml.benchmarks.conventions import rotations_from_euler
from ml.benchmarks.dad_3dheads import DadSubmission, read_dad, write_dad_submission
from ml.benchmarks.metrics_dad import SEVEN, DadPrediction, DadTopology
from ml.benchmarks.object_file import ObjectFile
from ml.benchmarks.predictions import PredictionError
from ml.benchmarks.scoring import score
from ml.records.exclusions import Exclusions
from tests.benchmark_sets.meshes import DAD_HEADS, pixels, world, write_dad

FIRST = next(iter(DAD_HEADS))


@pytest.fixture(scope="module")
def topology(open_head):
    return DadTopology.of(open_head)


@pytest.fixture(scope="module")
def data(open_head, tmp_path_factory):
    folder = tmp_path_factory.mktemp("dad")
    open_head.save(folder / "head_model.npz")
    return write_dad(folder, open_head.v_template.astype(float).round(6))


def perfect(item, head, topology):
    vertices = head.v_template.astype(float).round(6)
    # image axes: y down, z away
    mesh = world(item, vertices) * [1, -1, -1]
    return DadPrediction(
        landmarks_px=topology.landmarks(pixels(item, vertices)),
        vertices=mesh,
        seven=topology.landmarks(mesh)[list(SEVEN)],
        rotation=rotations_from_euler(np.array([DAD_HEADS[item]]))[0],
    )


def scored(tmp_path, data, predictions):
    path = tmp_path / "submission.json"
    write_dad_submission(path, iter(predictions.items()))
    return score("dad", data, path, head_model=data / "head_model.npz", resamples=5)


def test_annotations_project_as_a_camera_does(data, open_head):
    samples = {s.sample_id: s for s in read_dad(data, Exclusions("t"))}
    assert list(samples) == list(DAD_HEADS)
    vertices = open_head.v_template.astype(float).round(6)
    for item, sample in samples.items():
        np.testing.assert_allclose(sample.truth.vertices_px, pixels(item, vertices), atol=1e-6)
        np.testing.assert_allclose(
            sample.truth.rotation, rotations_from_euler(np.array([DAD_HEADS[item]]))[0], atol=1e-9
        )
        points = pixels(item, vertices)
        np.testing.assert_allclose(
            sample.truth.box_xyxy, [*points.min(axis=0), *points.max(axis=0)]
        )
        assert sample.truth.attributes["quality"] == "hq"
    assert samples[FIRST].load_image().shape == (300, 400, 3)


def test_a_perfect_submission_scores_perfectly(tmp_path, data, open_head, topology):
    found = {item: perfect(item, open_head, topology) for item in DAD_HEADS}
    metrics = scored(tmp_path, data, found).scores.metrics
    for name in ("nme_68_box", "nme_68_published", "chamfer", "chamfer_published"):
        assert metrics[name] == pytest.approx(0, abs=1e-3), name
    # five decimals of a metre may turn the order of a few vertices of equal depth
    assert metrics["z5"] > 0.995
    assert metrics["rotation_deg"] == pytest.approx(0, abs=1e-2)
    assert metrics["failure_rate_68"] == 0


def test_known_errors_are_found_and_a_missing_head_is_counted(tmp_path, data, open_head, topology):
    found = {item: perfect(item, open_head, topology) for item in list(DAD_HEADS)[:2]}
    turn = rotations_from_euler(np.array([[0.0, 0.0, 12.0]]))[0] @ np.diag([1, -1, -1])
    moved = {
        item: DadPrediction(p.landmarks_px + np.array([3, 4]), None, None, turn @ p.rotation)
        for item, p in found.items()
    }
    result = scored(tmp_path, data, moved)
    sizes = [
        np.sqrt(np.ptp(pixels(item, open_head.v_template.astype(float)), axis=0).prod())
        for item in moved
    ]
    metrics = result.scores.metrics
    assert metrics["nme_68_box"] == pytest.approx(np.mean([100 * 5 / s for s in sizes]), rel=1e-3)
    assert metrics["nme_68_published"] < metrics["nme_68_box"]
    assert metrics["rotation_deg"] == pytest.approx(12, abs=1e-2)
    assert metrics["rotation_frobenius"] == pytest.approx(
        2 * np.sqrt(2) * np.sin(np.radians(6)), abs=1e-3
    )
    assert np.isnan(metrics["z5"])
    assert result.as_json()["z5"] is None
    assert result.scores.counts["num_missed"] == 1
    assert metrics["failure_rate_68"] == pytest.approx(1 / 3)


def test_broken_and_missing_annotations_are_exclusions(tmp_path, open_head):
    root = write_dad(tmp_path, open_head.v_template[:40].astype(float))
    folder = root / "DAD-3DHeadsDataset" / "val"
    (folder / "annotations" / "a1.json").write_text("{")
    content = json.loads((folder / "annotations" / "b2.json").read_text())
    content["model_view_matrix"][0][0] = 3.0
    (folder / "annotations" / "b2.json").write_text(json.dumps(content))
    (folder / "images" / "c3.png").unlink()
    exclusions = Exclusions("t")
    assert list(read_dad(root, exclusions)) == []
    details = exclusions.to_frame().set_index("sample_id")["detail"]
    assert "not JSON" in details["a1"]
    assert "model_view_matrix: expected a rotation" in details["b2"]
    assert "c3.png: no such file" in details["c3"]


def test_the_test_set_has_no_truth_but_takes_a_submission(tmp_path, open_head, topology):
    root = write_dad(tmp_path, open_head.v_template.astype(float), "test")
    path = tmp_path / "submission.json"
    write_dad_submission(path, iter({FIRST: perfect(FIRST, open_head, topology)}.items()))
    result = score("dad-test", root, path)
    assert result.scores.counts["num_missed"] == 2
    assert "num_images: found 3, quoted in papers 2,746" in result.as_json()["count_differences"]


def test_the_submission_has_the_benchmark_s_names(tmp_path, open_head, topology):
    path = tmp_path / "submission.json"
    write_dad_submission(path, iter({FIRST: perfect(FIRST, open_head, topology)}.items()))
    content = json.loads(path.read_text())[FIRST]
    shapes = {name: np.shape(value) for name, value in content.items()}
    assert shapes == {
        "68_landmarks_2d": (68, 2), "N_landmarks_3d": (5023, 3), "7_landmarks_3d": (7, 3),
        "rotation_matrix": (3, 3),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": {"68_landmarks_2d": [[1, 2]]}}', r"\(a\): 68_landmarks_2d: expected shape"),
        ('{"a": {"landmarks": []}}', r"\(a\): unknown \['landmarks'\]"),
        ('{"a": 3}', r"\(a\): expected an object, got int"),
    ],
)
def test_a_bad_item_is_named(tmp_path, text, message):
    (tmp_path / "s.json").write_text(text)
    with pytest.raises(PredictionError, match=message):
        DadSubmission(tmp_path / "s.json")["a"]


def test_a_large_object_is_read_value_by_value(tmp_path, monkeypatch):
    monkeypatch.setattr("ml.benchmarks.object_file._CHUNK", 7)
    content = {"é": [1, 2.5, {"x": "}"}], "b": 'ü"', "n": 12345678901, "e": {}, "t": True}
    path = tmp_path / "o.json"
    for text in (json.dumps(content), json.dumps(content, indent=3, ensure_ascii=False)):
        path.write_text(text, encoding="utf-8")
        file = ObjectFile(path)
        assert list(file) == list(content)
        assert {name: file[name] for name in file} == content
    path.write_text("{}")
    assert len(ObjectFile(path)) == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "byte 0: not a JSON object: it ends too early"),
        ("[1]", "byte 0: not a JSON object: expected '{', got '\\['"),
        ('{"a": 1', "byte 7: not a JSON object: it ends too early"),
        ('{"a": 1 "b": 2}', "byte 8: not a JSON object: expected ',', got '\"'"),
        ('{"a": 1, "a": 2}', "'a' occurs twice"),
        ('{"a": tru}', "byte 6: not a JSON object"),
        ("{1: 2}", "expected a text as key, got 1"),
    ],
)
def test_what_is_no_object_is_told_with_its_place(tmp_path, text, message):
    (tmp_path / "o.json").write_text(text)
    with pytest.raises(PredictionError, match=message):
        ObjectFile(tmp_path / "o.json")
