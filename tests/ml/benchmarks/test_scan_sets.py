import pickle
import re

import numpy as np
import pytest

from ml.benchmarks.feng import read_feng
from ml.benchmarks.files import MissingBenchmarkFile, UnreadableBenchmarkFile
from ml.benchmarks.meshes import MeshFolder, read_mesh, read_picked_points, write_mesh_prediction
from ml.benchmarks.metrics_scan import MeshPrediction
from ml.benchmarks.now import read_now
from ml.benchmarks.pickled_box import read_box
from ml.benchmarks.predictions import PredictionError
from ml.benchmarks.scoring import score
from ml.records.exclusions import Exclusions
from tests.benchmark_sets.scans import (
    BOX,
    NOW_IMAGES,
    face_mesh,
    pickled_dictionary,
    seven,
    write_feng,
    write_now,
    write_obj,
)

FENG = ("HQ/F1001_01", "HQ/m1002_01", "LQ/f1001_02")


def prediction(scale=1.0, turn=None, lift=0.0):
    """The true face, in another unit and place, its surface lifted by some mm but for landmarks."""
    vertices, faces = face_mesh()
    landmarks = seven(vertices)
    turn = np.eye(3) if turn is None else turn
    moved = [
        scale * (p @ turn.T) + [5, 6, 7] for p in (vertices + np.array([0, 0, lift]), landmarks)
    ]
    return MeshPrediction(moved[0], faces, moved[1])


def written(folder, predictions):
    for image, face in predictions.items():
        write_mesh_prediction(folder, image, face)
    return folder


def rotation():
    c, s = np.cos(0.4), np.sin(0.4)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])


def test_now_is_read_as_published(tmp_path):
    exclusions = Exclusions("t")
    samples = list(read_now(write_now(tmp_path), exclusions))
    assert [s.sample_id for s in samples] == list(NOW_IMAGES["val"])
    assert len(exclusions) == 0
    vertices, faces = face_mesh()
    truth = samples[1].truth
    np.testing.assert_allclose(truth.vertices_mm, vertices, atol=1e-5)
    np.testing.assert_array_equal(truth.faces, faces)
    np.testing.assert_allclose(truth.landmarks_mm, seven(vertices), atol=1e-5)
    np.testing.assert_array_equal(truth.box_xyxy, list(BOX.values()))
    assert (truth.subject, truth.group) == ("FaMoS_1_TA", "multiview_occlusions")
    assert samples[0].load_image().shape == (160, 150, 3)
    # one scan of a person is read once
    assert samples[0].truth.vertices_mm is truth.vertices_mm
    (test,) = read_now(tmp_path, exclusions, "test")
    assert test.truth is None


def test_each_subject_has_its_own_scan(tmp_path):
    top = write_now(tmp_path) / "NoW_Dataset" / "final_release_version"
    scan = next((top / "scans" / "FaMoS_2_TA").glob("*.obj"))
    scan.write_text(re.sub(r"^v \S+", "v 7", scan.read_text(), flags=re.MULTILINE))
    first, _, last = read_now(tmp_path, Exclusions("t"))
    assert (last.truth.vertices_mm[:, 0] == 7).all()
    assert np.ptp(first.truth.vertices_mm[:, 0]) > 100


def test_feng_s_landmarks_are_seven(tmp_path):
    path = next(write_feng(tmp_path).rglob("[Ff]1001*.lnd"))
    path.write_text("\n".join(path.read_text().splitlines()[:6]) + "\n")
    exclusions = Exclusions("t")
    assert [s.truth.subject for s in read_feng(tmp_path, exclusions)] == ["m1002"]
    assert exclusions.to_frame()["detail"].str.contains("expected 7 landmarks, got 6").all()


def test_feng_is_read_whatever_the_case_of_names(tmp_path):
    exclusions = Exclusions("t")
    for path in list(write_feng(tmp_path).rglob("*.lnd")):
        path.rename(path.with_suffix(".LND"))
    samples = list(read_feng(tmp_path, exclusions))
    assert [s.sample_id for s in samples] == list(FENG)
    assert [s.truth.group for s in samples] == ["HQ", "HQ", "LQ"]
    assert [s.truth.subject for s in samples] == ["f1001", "m1002", "f1001"]
    np.testing.assert_allclose(samples[2].truth.landmarks_mm, seven(face_mesh()[0]), atol=1e-5)
    assert len(exclusions) == 0


@pytest.mark.parametrize("protocol", ["now", "now_metrical"])
def test_a_perfect_face_has_no_distance_from_now_s_scans(tmp_path, protocol):
    write_now(tmp_path)
    scale = 1.0 if protocol == "now_metrical" else 0.001
    face = prediction(scale, rotation())
    folder = written(tmp_path / "p", dict.fromkeys(NOW_IMAGES["val"], face))
    result = score("now", tmp_path, folder, protocol, resamples=3)
    # six decimals of a metre are a thousandth of a millimetre
    assert result.scores.metrics["scan_median_mm"] < 0.01
    assert result.scores.metrics["scan_rmse_mm"] < 0.01
    assert result.scores.counts["num_missed"] == 0
    assert result.scores.counts["num_subjects"] == 2


def test_a_wrong_scale_is_an_error_of_the_metrical_variant_only(tmp_path):
    write_now(tmp_path)
    image = NOW_IMAGES["val"][0]
    folder = written(tmp_path / "p", {image: prediction(1.1)})
    plain = score("now", tmp_path, folder, "now", resamples=2).scores
    metrical = score("now", tmp_path, folder, "now_metrical", resamples=2).scores
    assert plain.metrics["scan_mean_mm"] < 0.01
    assert metrical.metrics["scan_mean_mm"] > 0.5
    assert plain.counts["num_missed"] == 2


def test_feng_measures_the_distance_that_landmarks_leave(tmp_path):
    write_feng(tmp_path)
    folder = written(tmp_path / "p", {n: prediction(0.5, rotation(), lift=2.0) for n in FENG})
    metrics = score("feng", tmp_path, folder, resamples=3).scores.metrics
    # a lift of 2 mm along z is 2 mm or less from the surface, and nearly 2 where it faces z
    assert 1.2 < metrics["scan_median_mm"] <= 2.0
    assert metrics["scan_rmse_mm"] <= 2.0 + 1e-3
    assert metrics["scan_mean_mm_hq"] == pytest.approx(metrics["scan_mean_mm_lq"], abs=1e-3)
    perfect = written(tmp_path / "q", {n: prediction(0.5) for n in FENG})
    assert score("feng", tmp_path, perfect, resamples=2).scores.metrics["scan_rmse_mm"] < 1e-2


def test_broken_scans_boxes_and_names_are_exclusions(tmp_path):
    top = write_now(tmp_path) / "NoW_Dataset" / "final_release_version"
    (top / "scans" / "FaMoS_1_TA" / "scan.obj").write_text("v 0 0\n")
    (top / "scans_lmks_onlypp" / "FaMoS_2_TA" / "scan_picked_points.pp").write_text("<a/>")
    (top / "imagepathsvalidation.txt").write_text("\n".join([*NOW_IMAGES["val"], "odd.jpg"]))
    exclusions = Exclusions("t")
    assert list(read_now(tmp_path, exclusions)) == []
    details = exclusions.to_frame().set_index("sample_id")["detail"]
    assert "no OBJ file" in details[NOW_IMAGES["val"][0]]
    assert "expected 7 landmarks, got 0" in details[NOW_IMAGES["val"][2]]
    assert "not enough values" in details["odd.jpg"]
    write_feng(tmp_path / "feng")
    next((tmp_path / "feng").rglob("*.lnd")).unlink()
    exclusions = Exclusions("t")
    assert len(list(read_feng(tmp_path / "feng", exclusions))) in (1, 2)
    assert "no scan and .lnd of subject" in exclusions.to_frame()["detail"][0]
    with pytest.raises(MissingBenchmarkFile, match="no scans below"):
        list(read_feng(tmp_path / "nothing", exclusions))


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_a_pickled_box_is_read_without_running_anything(tmp_path, protocol):
    path = tmp_path / "b.npy"
    path.write_bytes(pickled_dictionary(BOX, protocol))
    np.testing.assert_array_equal(read_box(path), list(BOX.values()))
    numbers = {side: np.float32(value) for side, value in BOX.items()}
    path.write_bytes(pickled_dictionary(numbers, protocol))
    np.testing.assert_array_equal(read_box(path), list(BOX.values()))
    np.save(path, BOX, allow_pickle=True)
    np.testing.assert_array_equal(read_box(path), list(BOX.values()))


class Malicious:
    def __reduce__(self):
        return (exec, ("raise SystemExit('executed')",))


def test_a_pickle_that_would_run_something_is_refused(tmp_path):
    path = tmp_path / "b.npy"
    whole = pickled_dictionary(BOX)
    for content, message in (
        (pickled_dictionary({**BOX, "left": Malicious()}), "asks for builtins.exec; refused"),
        (pickled_dictionary({"left": 1.0}), "expected a dictionary of left, top, right, bottom"),
        (pickled_dictionary({**BOX, "left": "a"}), "face box: expected numbers"),
        (whole[:-20], "no face box of NoW"),
        (b"", "no face box of NoW"),
        (whole[:128] + pickle.dumps([1]), "no face box of NoW"),
    ):
        path.write_bytes(content)
        with pytest.raises(UnreadableBenchmarkFile, match=message):
            read_box(path)


def test_meshes_keep_every_vertex_and_split_polygons(tmp_path):
    path = tmp_path / "m.obj"
    path.write_text("v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nv 9 9 9\nf 1/1 2/1 3/1 4/1\nf -5 -4 -3\n")
    vertices, faces = read_mesh(path)
    assert vertices.shape == (5, 3)
    assert faces.tolist() == [[0, 1, 2], [0, 2, 3], [0, 1, 2]]
    import trimesh

    ply = tmp_path / "m.ply"
    trimesh.Trimesh(vertices, faces, process=False).export(ply)
    np.testing.assert_array_equal(read_mesh(ply)[0], vertices)
    np.testing.assert_array_equal(read_mesh(ply)[1], faces)
    for text, message in (
        ("v 0 0 0\nf 1 2 3\n", "a triangle names vertex 2 of 1"),
        ("v 0 0 nan\n", "expected finite vertices"),
        ("", "expected finite vertices, got 0"),
        ("v 0 0 0\nf a b c\n", "no OBJ file"),
    ):
        path.write_text(text)
        with pytest.raises(UnreadableBenchmarkFile, match=message):
            read_mesh(path)
    ply.write_bytes(b"ply\nformat ascii 1.0\nelement vertex 3\n")
    with pytest.raises(UnreadableBenchmarkFile, match=r"m\.ply"):
        read_mesh(ply)


def test_picked_points_of_another_form(tmp_path):
    path = tmp_path / "a.pp"
    for text, message in (
        ("<PickedPoints><point x='1' y='2'/></PickedPoints>", "a point is missing 'z'"),
        ("<PickedPoints>", "no MeshLab points"),
        ("<!DOCTYPE a [<!ENTITY b 'c'>]><a/>", "declares entities"),
    ):
        path.write_text(text)
        with pytest.raises(UnreadableBenchmarkFile, match=message):
            read_picked_points(path)


def test_predicted_meshes_that_cannot_be_used(tmp_path):
    with pytest.raises(PredictionError, match="found none"):
        MeshFolder(tmp_path)
    vertices, faces = face_mesh()
    write_obj(tmp_path / "a" / "b.obj", vertices, faces)
    folder = MeshFolder(tmp_path)
    assert "a/b.jpg" in folder
    assert "a/c.jpg" not in folder
    with pytest.raises(PredictionError, match=r"a/b.jpg: .*b.npy"):
        folder["a/b.jpg"]
    np.save(tmp_path / "a" / "b.npy", np.zeros((6, 3)))
    with pytest.raises(PredictionError, match=r"landmarks: expected shape \(7, 3\), got \(6, 3\)"):
        folder["a/b.jpg"]
    np.save(tmp_path / "a" / "b.npy", seven(vertices))
    write_obj(tmp_path / "a" / "b.obj", vertices, faces[:0])
    with pytest.raises(PredictionError, match="has no triangles"):
        folder["a/b.jpg"]
