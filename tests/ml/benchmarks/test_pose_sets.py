import csv

import numpy as np
import pytest
from scipy.io import savemat

from ml.benchmarks.aflw2000 import hopenet_crop, read_aflw2000
from ml.benchmarks.biwi import read_biwi, read_calibration
from ml.benchmarks.files import MissingBenchmarkFile, UnreadableBenchmarkFile
from ml.benchmarks.predictions import HeadPredictions, PredictionError, open_predictions
from ml.benchmarks.samples import BrokenAnnotation
from ml.benchmarks.scoring import score
from ml.records.exclusions import Exclusions
from tests.benchmark_sets.poses import (
    AFLW_HEADS,
    BIWI_HEADS,
    aflw_landmarks,
    biwi_centre_px,
    write_aflw2000,
    write_biwi,
)

PROTOCOLS = ("ours", "vggheads", "6drepnet", "img2pose")
USED = [name for name in AFLW_HEADS if name != "image00008"]
FRAMES = {f"{s}/frame_{n:05d}": a for s, frames in BIWI_HEADS.items() for n, a in frames.items()}


def aflw_perfect(name, turn=(0.0, 0.0, 0.0)):
    landmarks = aflw_landmarks(name)[None]
    return HeadPredictions(
        euler_deg=np.array([AFLW_HEADS[name]]) + turn, landmarks_px=landmarks[:, :, :2]
    )


def write(path, predictions):
    with open_predictions(path, "test") as writer:
        for image, heads in predictions.items():
            writer.add(image, heads)
    return path


def test_aflw_is_read_as_published_and_wild_angles_are_left_out(tmp_path):
    exclusions = Exclusions("t")
    samples = {s.sample_id: s for s in read_aflw2000(write_aflw2000(tmp_path), exclusions)}
    assert list(samples) == USED
    for name, sample in samples.items():
        np.testing.assert_allclose(sample.truth.euler_deg, AFLW_HEADS[name], atol=1e-4)
        np.testing.assert_allclose(sample.truth.landmarks_px, aflw_landmarks(name), atol=1e-3)
    assert samples["image00002"].load_image().shape == (450, 450, 3)
    row = exclusions.to_frame().iloc[0]
    assert (row["sample_id"], row["reason"]) == ("image00008", "angle_over_99")


def test_a_broken_mat_file_is_one_exclusion(tmp_path):
    folder = write_aflw2000(tmp_path) / "AFLW2000"
    (folder / "image00002.mat").write_bytes(b"MATLAB 5.0 " + bytes(100))
    savemat(
        folder / "image00004.mat", {"Pose_Para": np.zeros((1, 7)), "pt3d_68": np.zeros((2, 68))}
    )
    savemat(folder / "image00006.mat", {"Pose_Para": np.zeros((1, 7))})
    exclusions = Exclusions("t")
    assert list(read_aflw2000(tmp_path, exclusions)) == []
    details = exclusions.to_frame().set_index("sample_id")["detail"]
    assert "not a MAT file" in details["image00002"]
    assert "pt3d_68: expected shape (3, 68), got (2, 68)" in details["image00004"]
    assert "missing pt3d_68" in details["image00006"]
    with pytest.raises(MissingBenchmarkFile, match="AFLW2000-3D: not found below"):
        list(read_aflw2000(tmp_path / "nothing", exclusions))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_perfect_predictor_has_no_error_and_a_known_error_is_found(tmp_path, protocol):
    write_aflw2000(tmp_path)
    path = write(tmp_path / "p.jsonl", {name: aflw_perfect(name) for name in USED})
    result = score("aflw2000", tmp_path, path, protocol, resamples=5)
    for name in ("pitch", "yaw", "roll", "euler"):
        assert result.scores.metrics[f"{name}_mae_deg"] == pytest.approx(0, abs=1e-4)
    path = write(tmp_path / "q.jsonl", {n: aflw_perfect(n, (1.0, 2.0, -6.0)) for n in USED})
    metrics = score("aflw2000", tmp_path, path, protocol, resamples=5).scores.metrics
    found = [metrics[f"{name}_mae_deg"] for name in ("pitch", "yaw", "roll", "euler")]
    np.testing.assert_allclose(found, [1, 2, 6, 3], atol=1e-4)


def test_half_a_turn_is_no_error_to_6drepnet_only(tmp_path):
    write_aflw2000(tmp_path)
    path = write(tmp_path / "p.jsonl", {n: aflw_perfect(n, (0.0, 0.0, 180.0)) for n in USED})
    errors = {
        p: score("aflw2000", tmp_path, path, p, resamples=2).scores.metrics["roll_mae_deg"]
        for p in PROTOCOLS
    }
    assert errors["6drepnet"] == pytest.approx(0, abs=1e-4)
    assert errors["ours"] == pytest.approx(180, abs=1e-3)
    assert errors["img2pose"] == pytest.approx(180, abs=1e-3)


def test_a_missing_head_is_counted_and_is_a_failure_of_ours(tmp_path):
    write_aflw2000(tmp_path)
    path = write(tmp_path / "p.jsonl", {name: aflw_perfect(name) for name in USED[:2]})
    ours = score("aflw2000", tmp_path, path, resamples=5)
    assert ours.scores.counts["num_missed"] == 1
    assert ours.scores.metrics["rotation_failure_rate_10"] == pytest.approx(1 / 3)
    assert ours.scores.metrics["rotation_with_misses_deg"] == pytest.approx(60, abs=1e-3)
    published = score("aflw2000", tmp_path, path, "vggheads", resamples=5)
    assert published.scores.metrics["euler_mae_deg"] == pytest.approx(0, abs=1e-4)
    assert published.scores.counts["num_missed"] == 1
    # the third head keeps the angles of the second
    kept = score("aflw2000", tmp_path, path, "img2pose", resamples=5).scores.metrics
    np.testing.assert_allclose(
        [kept[f"{n}_mae_deg"] for n in ("pitch", "yaw", "roll")],
        np.abs(np.subtract(AFLW_HEADS[USED[1]], AFLW_HEADS[USED[2]])) / 3,
        atol=1e-3,
    )


def test_of_many_heads_the_one_at_the_landmarks_is_taken(tmp_path):
    write_aflw2000(tmp_path)
    found = {}
    for name in USED:
        right, wrong = aflw_perfect(name), aflw_perfect(name, (0.0, 40.0, 0.0))
        found[name] = HeadPredictions(
            scores=np.array([0.9, 0.3]),
            boxes_xyxy=np.concatenate([right.boxes - 300, right.boxes]),
            euler_deg=np.concatenate([wrong.euler_deg, right.euler_deg]),
        )
    path = write(tmp_path / "p.jsonl", found)
    for protocol in PROTOCOLS:
        metrics = score("aflw2000", tmp_path, path, protocol, resamples=2).scores.metrics
        assert metrics["yaw_mae_deg"] == pytest.approx(0, abs=1e-4), protocol
    # a single head elsewhere: ours misses, the official script takes it
    path = write(tmp_path / "q.jsonl", {n: heads[[0]] for n, heads in found.items()})
    assert score("aflw2000", tmp_path, path, resamples=2).scores.counts["num_missed"] == 3
    official = score("aflw2000", tmp_path, path, "vggheads", resamples=2).scores
    assert official.metrics["yaw_mae_deg"] == pytest.approx(40, abs=1e-3)


def test_landmarks_are_measured_by_yaw(tmp_path):
    write_aflw2000(tmp_path)
    moved = {n: HeadPredictions(landmarks_px=aflw_landmarks(n)[None, :, :2] + [3, 4]) for n in USED}
    path = write(tmp_path / "p.jsonl", moved)
    metrics = score("aflw2000", tmp_path, path, "68", resamples=2).scores.metrics
    sizes = [np.sqrt(np.ptp(aflw_landmarks(n)[:, :2], axis=0).prod()) for n in USED]
    bins = [metrics[f"nme_68_yaw_{b}"] for b in ("0_30", "30_60", "60_90")]
    np.testing.assert_allclose(bins, [100 * 5 / size for size in sizes], rtol=1e-5)


def test_many_heads_without_a_place_are_refused(tmp_path):
    write_aflw2000(tmp_path)
    path = write(tmp_path / "p.jsonl", {USED[0]: HeadPredictions(euler_deg=np.zeros((2, 3)))})
    with pytest.raises(PredictionError, match="image00002: 2 heads without boxes; give boxes_xyxy"):
        score("aflw2000", tmp_path, path)


def test_hopenet_s_crop_moves_each_side_with_those_before_it():
    points = np.array([[10.0, -1, 110], [20, -1, 220]])
    # x_min 10 - 0.4 * 100, then y_min 20 - 0.4 * 200, then x_max 110 + 0.4 * 140, and so on
    np.testing.assert_allclose(hopenet_crop(points), [-30, -60, 166, 220 + 0.12 * 280])
    assert hopenet_crop(np.full((2, 21), -1.0)) is None
    with pytest.raises(BrokenAnnotation, match="pt2d"):
        hopenet_crop(np.zeros((3, 21)))


def test_the_protocol_on_crops_leaves_out_heads_without_one(tmp_path):
    folder = write_aflw2000(tmp_path) / "AFLW2000"
    content = {
        "Pose_Para": np.zeros((1, 7)),
        "pt3d_68": np.random.default_rng(0).uniform(9, 99, (3, 68)),
    }
    savemat(folder / "image00002.mat", {**content, "pt2d": np.full((2, 21), -1.0)})
    savemat(folder / "image00004.mat", {**content, "pt2d": np.full((2, 21), 7.0)})
    path = write(
        tmp_path / "p.jsonl",
        {n: HeadPredictions(euler_deg=np.add([AFLW_HEADS[n]], [0, 0, 180.0])) for n in USED},
    )
    result = score("aflw2000", tmp_path, path, "hopenet_crop", resamples=2)
    assert result.scores.counts["num_images"] == 1
    assert result.excluded == {"angle_over_99": 1, "damaged_annotation": 2}
    details = [row["detail"] for row in result.exclusions.rows()]
    assert any("no point is there" in detail for detail in details)
    assert any("crop would have 0 x 0 px" in detail for detail in details)
    # the errors are those of 6drepnet, to which half a turn is none
    assert result.scores.metrics["euler_mae_deg"] == pytest.approx(0, abs=1e-4)
    # without the variable nothing else is missed
    savemat(folder / "image00006.mat", content)
    assert score("aflw2000", tmp_path, path, "ours", resamples=2).scores.counts["num_images"] == 3


def test_biwi_is_read_as_published_gaps_and_all(tmp_path):
    exclusions = Exclusions("t")
    samples = {s.sample_id: s for s in read_biwi(write_biwi(tmp_path), exclusions)}
    assert list(samples) == list(FRAMES)
    assert len(exclusions) == 0
    for name, angles in FRAMES.items():
        np.testing.assert_allclose(samples[name].truth.euler_deg, angles, atol=1e-4)
        np.testing.assert_allclose(samples[name].truth.centre_px, biwi_centre_px(), atol=1e-3)
    assert samples["24/frame_00003"].truth.group == "24"
    assert samples["24/frame_00003"].load_image().shape == (480, 640, 3)


def test_the_colour_camera_is_turned_and_shifted_before_it_projects(tmp_path):
    path = tmp_path / "rgb.cal"
    path.write_text(
        "500 0 320\n0 500 240\n0 0 1\n\n0 0 0 0\n\n0 -1 0\n1 0 0\n0 0 1\n\n10 20 100\n\n640 480\n"
    )
    # (40, -30, 900) turned by a quarter is (30, 40, 900), shifted (40, 60, 1000)
    found = read_calibration(path).project(np.array([40.0, -30.0, 900.0]))
    np.testing.assert_allclose(found, [320 + 20, 240 + 30])


def test_angles_per_frame_may_come_as_a_table(tmp_path):
    write_biwi(tmp_path)
    path = tmp_path / "angles.csv"
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "pitch", "yaw", "roll"])
        table.writerows([name, p, y, r + 4] for name, (p, y, r) in FRAMES.items())
    result = score("biwi", tmp_path, path, "vggheads", resamples=5)
    assert result.scores.metrics["roll_mae_deg"] == pytest.approx(4, abs=1e-4)
    assert result.scores.metrics["yaw_mae_deg"] == pytest.approx(0, abs=1e-4)
    assert result.scores.counts["num_sequences"] == 2
    assert "num_images: found 4, quoted in papers 15,678" in result.as_json()["count_differences"]
    path.write_text("image,pitch,yaw\na,1,2\n")
    with pytest.raises(PredictionError, match="missing roll"):
        score("biwi", tmp_path, path)
    path.write_text("image,pitch,yaw,roll\na,1,2,x\n")
    with pytest.raises(PredictionError, match="line 2: could not convert"):
        score("biwi", tmp_path, path)


def test_a_constant_turn_between_two_frames_is_told_apart_from_errors(tmp_path):
    write_biwi(tmp_path)
    tilt = np.radians(10.0)
    turn = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    found = {
        s.sample_id: HeadPredictions(rotations=(s.truth.rotation @ turn)[None])
        for s in read_biwi(tmp_path, Exclusions("t"))
    }
    metrics = score(
        "biwi", tmp_path, write(tmp_path / "p.jsonl", found), resamples=5
    ).scores.metrics
    assert metrics["rotation_deg"] == pytest.approx(10, abs=1e-3)
    assert metrics["aligned_rotation_deg"] == pytest.approx(0, abs=1e-3)


def test_biwi_s_official_script_looks_for_the_head_below_the_middle(tmp_path):
    write_biwi(tmp_path)
    boxes = np.array([[310.0, 230, 330, 250], [310, 330, 330, 350]])
    found = {
        name: HeadPredictions(
            boxes_xyxy=boxes, euler_deg=np.array([angles, np.add(angles, (0, 30, 0))])
        )
        for name, angles in FRAMES.items()
    }
    path = write(tmp_path / "p.jsonl", found)
    errors = {
        p: score("biwi", tmp_path, path, p, resamples=2).scores.metrics["yaw_mae_deg"]
        for p in PROTOCOLS
    }
    assert errors["vggheads"] == pytest.approx(30, abs=1e-3)
    for protocol in ("ours", "6drepnet", "img2pose"):
        assert errors[protocol] == pytest.approx(0, abs=1e-3)


def test_broken_frames_and_cameras_are_exclusions(tmp_path):
    folder = write_biwi(tmp_path) / "hpdb" / "01"
    (folder / "frame_00003_pose.txt").write_text("1 0 0\n0 1 0\n")
    (folder / "frame_00004_pose.txt").write_text("2 0 0\n0 1 0\n0 0 1\n\n0 0 900\n")
    (folder / "rgb.cal").write_text("1 2 3\n")
    exclusions = Exclusions("t")
    samples = list(read_biwi(tmp_path, exclusions))
    assert [s.sample_id for s in samples] == ["01/frame_00006", "24/frame_00003"]
    np.testing.assert_array_equal(samples[0].truth.centre_px, [320, 240])
    details = exclusions.to_frame().set_index("sample_id")["detail"]
    assert "expected three rows of R" in details["01/frame_00003"]
    assert "expected a rotation" in details["01/frame_00004"]
    assert "expected three rows of 3 numbers" in details["01/rgb.cal"]
    with pytest.raises(UnreadableBenchmarkFile, match="expected rows of numbers"):
        (folder / "rgb.cal").write_text("a b c\n")
        read_calibration(folder / "rgb.cal")
