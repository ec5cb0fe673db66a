import json

import numpy as np
import pytest

from ml.benchmarks.conventions import FRONTAL, rotations_from_euler
from ml.benchmarks.predictions import (
    FORMAT,
    HeadPredictions,
    PredictionError,
    PredictionFile,
    open_predictions,
)

ANGLES = np.array([[10.0, -35.0, 20.0], [-5.0, 70.0, -40.0]])


def lines(path, *entries, **header):
    text = [json.dumps({"format": FORMAT, **header}), *map(json.dumps, entries)]
    path.write_text("\n".join(text) + "\n")
    return path


def test_a_written_file_says_what_was_put_in(tmp_path):
    rng = np.random.default_rng(0)
    heads = HeadPredictions(
        scores=np.array([0.5, 0.25]),
        boxes_xyxy=np.array([[0, 0, 2, 2], [1, 1, 3, 3.5]]),
        ellipses=np.array([[2, 1, 0.5, 1, 1], [1, 3, -1.5, 2, 2.5]]),
        euler_deg=ANGLES,
        landmarks_px=rng.uniform(size=(2, 68, 2)),
        vertices_px=rng.uniform(size=(2, 9, 3)),
    )
    with open_predictions(tmp_path / "p.jsonl", "ours") as writer:
        writer.add("a/b", heads)
        writer.add("light", heads, vertices=False)
        writer.add("none", HeadPredictions())
    read = PredictionFile(tmp_path / "p.jsonl")
    assert (read.model, list(read)) == ("ours", ["a/b", "light", "none"])
    for name in HeadPredictions.__dataclass_fields__:
        np.testing.assert_allclose(getattr(read["a/b"], name), getattr(heads, name), atol=1e-9)
    assert read["light"].vertices_px is None
    assert len(read["none"]) == 0
    assert "other" not in read
    with pytest.raises(KeyError):
        read["other"]


def test_a_file_that_fails_half_way_does_not_appear(tmp_path):
    with pytest.raises(ZeroDivisionError), open_predictions(tmp_path / "p.jsonl", "x") as writer:
        writer.add("a", HeadPredictions())
        _ = 1 / 0
    assert list(tmp_path.iterdir()) == []


def test_conventions_of_the_first_line_apply_to_every_image(tmp_path):
    ours = rotations_from_euler(ANGLES)
    path = lines(
        tmp_path / "p.jsonl",
        {"image": "m", "rotations": (ours @ FRONTAL).tolist()},
        {"image": "e", "euler_deg": ANGLES[:, [1, 0, 2]].tolist()},
        rotation_convention="camera",
        euler_convention="yaw_pitch_roll_deg",
    )
    read = PredictionFile(path)
    for image in ("m", "e"):
        np.testing.assert_allclose(read[image].rotations, ours, atol=1e-9)
        np.testing.assert_allclose(read[image].euler_deg, ANGLES, atol=1e-6)


def test_boxes_come_from_landmarks_where_there_are_none():
    landmarks = np.tile(np.array([[1.0, 2.0], [5.0, 9.0]]), (1, 34, 1))
    np.testing.assert_array_equal(HeadPredictions(landmarks_px=landmarks).boxes, [[1, 2, 5, 9]])
    with pytest.raises(PredictionError, match="expected boxes_xyxy or what they follow from"):
        _ = HeadPredictions(euler_deg=ANGLES).boxes


def test_vertices_may_lie_in_a_file_of_their_own_but_not_elsewhere(tmp_path):
    vertices = np.arange(12.0).reshape(1, 4, 3)
    (tmp_path / "sub").mkdir()
    np.save(tmp_path / "sub" / "v.npy", vertices)
    np.save(tmp_path / "v.npy", vertices)
    path = lines(
        tmp_path / "sub" / "p.jsonl",
        {"image": "in", "vertices_file": "v.npy"},
        {"image": "out", "vertices_file": "../v.npy"},
        {"image": "gone", "vertices_file": "w.npy"},
    )
    read = PredictionFile(path)
    np.testing.assert_array_equal(read["in"].vertices_px, vertices)
    with pytest.raises(PredictionError, match=r"line 3 \(out\): vertices_file .* is outside"):
        read["out"]
    with pytest.raises(PredictionError, match=r"line 4 \(gone\).*not a readable .npy"):
        read["gone"]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"boxes_xyxy": [[0, 0, 1]]}, r"boxes_xyxy: expected shape \(N, 4\), got \(1, 3\)"),
        (
            {"boxes_xyxy": [[0, 0, 1, 1]], "scores": [1, 2]},
            "expected as many entries.*scores 2, boxes_xyxy 1",
        ),
        ({"scores": [float("nan")]}, "scores: contains NaN"),
        ({"scores": ["high"]}, "scores: expected numbers"),
        ({"bbox": [[0, 0, 1, 1]]}, "unknown bbox; known are boxes_xyxy"),
        ({"landmarks_px": [[[1]] * 68]}, "landmarks_px: expected shape"),
    ],
)
def test_a_bad_line_is_named_with_what_was_expected(tmp_path, entry, message):
    read = PredictionFile(lines(tmp_path / "p.jsonl", {"image": "i", **entry}))
    with pytest.raises(PredictionError, match=r"p.jsonl, line 2 \(i\): " + message):
        read["i"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: not JSON"),
        ('{"image": "a"}\n', "line 1: expected format 'vggheads-predictions/1', got None"),
        (f'{{"format": "{FORMAT}", "angles": "x"}}\n', "line 1: unknown angles"),
        (f'{{"format": "{FORMAT}"}}\n[]\n', "line 2: expected an object, got list"),
        (f'{{"format": "{FORMAT}"}}\n{{"boxes_xyxy": []}}\n', "line 2: expected a text under"),
        (f'{{"format": "{FORMAT}"}}\n' + '{"image": "a"}\n' * 2, "line 3: image 'a' again"),
        (
            f'{{"format": "{FORMAT}", "euler_convention": "zyx"}}\n',
            "euler_convention: expected one",
        ),
    ],
)
def test_a_file_of_another_form_is_refused_when_opened(tmp_path, text, message):
    (tmp_path / "p.jsonl").write_text(text)
    with pytest.raises(ValueError, match=message):
        PredictionFile(tmp_path / "p.jsonl")


def test_a_file_that_is_not_there_is_said_to_be_missing(tmp_path):
    with pytest.raises(PredictionError, match="cannot be read"):
        PredictionFile(tmp_path / "p.jsonl")
