import json

import numpy as np
import pytest
import torch

from ml.benchmarks import predictors
from ml.benchmarks.cli import SET_NAMES
from ml.benchmarks.conventions import rotations_from_euler
from ml.benchmarks.predictors import HeadStore, dad_of, faces_of, poses_of, scan_of
from ml.benchmarks.running import benchmark, converter, is_predictions
from ml.benchmarks.samples import BenchmarkSample, FaceScan, HeadMesh
from ml.benchmarks.scoring import score_with
from ml.benchmarks.sets import SETS, Situation
from ml.flame.geometry import HeadGeometry
from ml.flame.layer import FlameLayer
from ml.records.heads import Heads
from tests.benchmark_sets.boxes import write_fddb, write_wider
from tests.benchmark_sets.meshes import DAD_HEADS, write_dad
from tests.benchmark_sets.poses import AFLW_HEADS, write_aflw2000
from tests.ml.inference.conftest import heads_of, network, noise_image, posed, project, shapes

__all__ = ["network", "project", "shapes"]


def test_the_command_line_lists_every_set():
    assert set(SET_NAMES) == set(SETS)


def test_what_is_a_model_and_what_are_predictions(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "texts").mkdir()
    assert not is_predictions(tmp_path / "model")
    assert is_predictions(tmp_path / "texts")
    for name, expected in (("a.trcd", False), ("a.onnx", False), ("a.jsonl", True)):
        assert is_predictions(tmp_path / name) is expected


def test_a_detector_runs_on_fddb_goes_on_and_leaves_the_tool_s_files(
    tmp_path, project, monkeypatch
):
    data, out = write_fddb(tmp_path / "fddb"), tmp_path / "out"
    model = project / "trained_model"
    first = benchmark("fddb", data, model, out=out, boxes="head", device="cpu", resamples=5)
    assert first.scores.counts["num_images"] == 3
    lines = (out / "heads.jsonl").read_bytes()
    assert lines.count(b"\n") == 4
    detections = (out / "detections.txt").read_text()
    assert detections.startswith("2002/08/11/big/img_591\n")
    scores = json.loads((out / "scores.json").read_text())
    assert scores["disc_tpr"] == first.scores.metrics["disc_tpr"]
    assert len((out / "DiscROC.txt").read_text().splitlines()[0].split()) == 3
    # the file of the tool says what was scored
    again = benchmark("fddb", data, out / "detections.txt", resamples=5)
    assert again.scores.metrics == pytest.approx(first.scores.metrics, abs=0.02)

    # cut in the last line, as by a kill: only that image is looked at again
    (out / "heads.jsonl").write_bytes(lines[:-9])
    looked = []
    stream = predictors.HeadDetector.stream
    monkeypatch.setattr(
        predictors.HeadDetector, "stream", lambda *a, **k: looked.append(1) or stream(*a, **k)
    )
    second = benchmark("fddb", data, model, out=out, boxes="head", device="cpu", resamples=5)
    assert len(looked) == 1
    assert (out / "heads.jsonl").read_bytes() == lines
    assert second.as_json() == first.as_json()


def test_an_unreadable_image_is_excluded_and_counted(tmp_path, project):
    data = write_wider(tmp_path / "wider")
    image = data / "WIDER_val/images/0--Parade/0_Parade_Parade_0_317.jpg"
    image.write_bytes(image.read_bytes()[:200])
    out = tmp_path / "out"
    result = benchmark(
        "wider", data, project / "trained_model", "wider-python", out, device="cpu", resamples=5
    )
    assert result.excluded["damaged_image"] == 1
    assert result.scores.counts["num_images"] == 2
    assert "0_Parade_Parade_0_317,benchmarks,damaged_image" in (out / "exclusions.csv").read_text()
    written = sorted(p.name for p in (out / "detections").rglob("*.txt"))
    assert written == ["0_Parade_marchingband_1_465.txt", "2_Demonstration_Protesters_2_231.txt"]


def test_another_model_does_not_take_over_what_was_found(tmp_path):
    heads = heads_of(posed((0, 0, 0), (50, 60)))
    for model, expected in (("a", 0), ("a", 1), ("b", 0)):
        store = HeadStore(tmp_path / "heads.jsonl", model)
        assert ("x" in store) is bool(expected)
        store.add("x", heads)
        np.testing.assert_array_equal(store["x"].flame, heads.flame)
        store.close()
    store = HeadStore(tmp_path / "heads.jsonl", "b")
    store.add("none", Heads.empty())
    assert len(store["none"]) == 0


def test_heads_of_the_truth_score_perfectly_on_aflw(tmp_path, open_head):
    """The landmarks are the head model's: truth and predictor are the same heads."""
    from scipy.io import savemat

    data = write_aflw2000(tmp_path)
    geometry = HeadGeometry(open_head, "face")
    found = {}
    for name, angles in AFLW_HEADS.items():
        heads = heads_of(posed(angles, (225.0, 225.0)), posed((0, 0, 0), (60.0, 60.0), 100.0))
        landmarks = np.zeros((3, 68))
        landmarks[:2] = geometry.landmarks_px(heads.flame)[0].T
        pose = np.array([[*np.radians(angles), 0, 0, 0, 1]])
        savemat(data / "AFLW2000" / f"{name}.mat", {"Pose_Para": pose, "pt3d_68": landmarks})
        # the wrong head is the more confident one
        found[name] = Heads(heads.boxes_xyxy, np.array([0.6, 0.9]), heads.flame)
    for protocol in ("ours", "vggheads", "68"):
        convert = converter(SETS["aflw2000"], protocol, open_head)
        result = score_with(
            SETS["aflw2000"],
            Situation(data),
            lambda sample, convert=convert: convert(sample, found[sample.sample_id]),
            "truth",
            protocol,
            resamples=3,
        )
        for name in ("rotation_deg", "euler_mae_deg", "nme_68"):
            value = result.scores.metrics.get(name, 0.0)
            assert value == pytest.approx(0, abs=2e-2), (protocol, name)
        assert result.scores.counts["num_missed"] == 0


def test_heads_in_a_crop_come_back_in_pixels_of_the_image(tmp_path, open_head, monkeypatch):
    from ml.benchmarks import predictors
    from ml.benchmarks.samples import HeadPose

    shown = []

    class Detector:
        """Finds a head in the middle of any image."""

        head_model = open_head

        def __init__(self, *args, **options):
            pass

        def stream(self, image):
            from types import SimpleNamespace

            shown.append(image)
            height, width = image.shape[:2]
            heads = heads_of(posed((0, 20, 0), (width / 2, height / 2), 100.0))
            yield SimpleNamespace(heads=SimpleNamespace(raw=heads))

    monkeypatch.setattr(predictors, "HeadDetector", Detector)
    model = tmp_path / "model.onnx"
    model.write_bytes(b"x")
    image = noise_image(3, 80, 100)
    crop = np.array([-10.7, 20.2, 49.9, 95.0])
    sample = BenchmarkSample("a", lambda: image, HeadPose(np.eye(3), crop_xyxy=crop))
    found = predictors.DetectorHeads(model, None, tmp_path)
    heads = found.in_crop(sample)
    # cut to whole pixels towards zero, and black where there is no image
    assert shown[0].shape == (75, 59, 3)
    np.testing.assert_array_equal(shown[0][:60, 10:], image[20:, :49])
    assert not shown[0][:, :10].any()
    assert not shown[0][60:].any()
    whole = heads_of(posed((0, 20, 0), (-10 + 59 / 2, 20 + 75 / 2), 100.0))
    np.testing.assert_allclose(heads.flame, whole.flame, atol=1e-4)
    np.testing.assert_allclose(heads.boxes_xyxy, whole.boxes_xyxy, atol=1e-3)
    # remembered, and apart from what is found in the whole image
    found.in_crop(sample)
    assert len(shown) == 1
    assert found(sample).flame[0, 409] == 50
    found.close()


def test_the_official_script_s_two_thresholds(open_head):
    flames = np.stack([posed((0, 0, 0), (50, 60)), posed((0, 30, 0), (150, 60))])
    sample = BenchmarkSample("x", lambda: np.zeros((1, 1, 3), np.uint8), None)
    convert = poses_of(open_head, "vggheads")
    for scores, count in (((0.6, 0.4), 1), ((0.4, 0.2), 2), ((0.05, 0.02), 0)):
        heads = Heads(np.zeros((2, 4)), np.array(scores), flames)
        assert len(convert(sample, heads)) == count
    everything = poses_of(open_head, "ours")
    assert len(everything(sample, Heads(np.zeros((2, 4)), np.array([0.6, 0.4]), flames))) == 2


def test_faces_that_look_away_are_left_out(open_head):
    from ml.flame.rotation import sixd_from_matrix

    heads = heads_of(posed((0, 20, 0), (50, 60)), posed((0, 0, 0), (150, 60)))
    # the second one turned about the image's vertical axis by 170 degrees
    c, s = np.cos(np.radians(170)), np.sin(np.radians(170))
    turn = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]) @ np.diag([1, -1, -1])
    heads.flame[1, 403:409] = sixd_from_matrix(torch.as_tensor(turn)).numpy()
    assert len(faces_of(open_head, "half_pi")(None, heads)) == 1
    both = faces_of(open_head, "pi")(None, heads)
    vertices = HeadGeometry(open_head, "face").vertices_px(heads.flame)
    np.testing.assert_allclose(both.boxes[:, 0], vertices[:, :, 0].min(axis=1), atol=1e-3)


def test_dad_takes_the_head_at_the_true_box(open_head):
    heads = heads_of(posed((0, 20, 0), (50, 60)), posed((10, 0, 0), (250, 60)))
    whole = HeadGeometry(open_head, "all")
    points = whole.vertices_px(heads.flame)[1]
    truth = HeadMesh(
        np.zeros((4, 3)), np.zeros((4, 2)), np.eye(3), [*points.min(axis=0), *points.max(axis=0)]
    )
    sample = BenchmarkSample("x", lambda: np.zeros((1, 1, 3), np.uint8), truth)
    prediction = dad_of(open_head)(sample, heads)
    np.testing.assert_allclose(
        prediction.rotation, rotations_from_euler(np.array([[10.0, 0, 0]]))[0], atol=1e-5
    )
    np.testing.assert_allclose(
        prediction.landmarks_px, whole.landmarks_px(heads.flame)[1], atol=1e-2
    )
    assert prediction.vertices.shape == (5023, 3)
    weak = Heads(heads.boxes_xyxy, np.full(2, 0.1), heads.flame)
    assert dad_of(open_head)(sample, weak) is None


def test_a_scan_is_compared_with_the_neutral_face_in_millimetres(open_head):
    smiling = posed((0, 30, 0), (50, 60))
    smiling[[0, 301, 400]] = 2.0, 1.5, 0.2
    heads = heads_of(posed((0, 0, 0), (250, 60)), smiling)
    boxes = HeadGeometry(open_head, "face").vertices_px(heads.flame)[1]
    scan = FaceScan(
        np.zeros((1, 3)),
        np.zeros((7, 3)),
        box_xyxy=np.array([*boxes.min(axis=0), *boxes.max(axis=0)]),
    )
    sample = BenchmarkSample("x", lambda: np.zeros((1, 1, 3), np.uint8), scan)
    face = scan_of(open_head)(sample, heads)
    neutral = np.zeros((1, 413), np.float32)
    neutral[0, 0] = 2.0
    with torch.inference_mode():
        layer = FlameLayer(open_head, vertices="all")
        expected = 1000 * layer.vertices(torch.as_tensor(neutral))[0].numpy()
    np.testing.assert_allclose(face.vertices, expected, atol=1e-3)
    # the outer corners of the eyes of a person
    assert 60 < np.ptp(face.seven[:, 0]) < 130
    assert scan_of(open_head)(sample, Heads.empty()) is None


def test_a_detector_leaves_a_submission_for_dad_s_test_set(tmp_path, project, open_head):
    data = write_dad(tmp_path, open_head.v_template[:30].astype(float), "test")
    out = tmp_path / "out"
    result = benchmark("dad-test", data, project / "trained_model", out=out, device="cpu")
    submission = json.loads((out / "submission.json").read_text())
    assert set(submission) <= set(DAD_HEADS)
    assert len(submission) == result.scores.counts["num_found"] > 0


def test_kinds_of_boxes_and_missing_head_models_are_told():
    with pytest.raises(ValueError, match="boxes: expected one of head, face_half_pi, face_pi, got"):
        converter(SETS["fddb"], "fddb", None, "faces")
    with pytest.raises(ValueError, match=r"fddb: the detector has no head model.*--boxes head"):
        converter(SETS["fddb"], "fddb", None)
    with pytest.raises(ValueError, match="biwi: the detector has no head model"):
        converter(SETS["biwi"], "ours", None)
    with pytest.raises(ValueError, match=r"fddb: protocol must be one of fddb, coco, got 'wider'"):
        score_with(SETS["fddb"], Situation(None), lambda s: None, "m", "wider")
