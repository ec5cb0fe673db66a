"""YuNet, SCRFD and RetinaFace: each sees its pixels, in the pixels's own pixels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch

from ml.box_detection.face_models import (
    FaceModelError,
    FaceModelSettings,
    OnnxImages,
    load_face_model,
    open_session,
    retinaface_priors,
)
from ml.box_detection.faces import FaceBoxDetector, FaceCheckConfig, build_face_detector
from ml.filtering.rules import check_faces
from ml.records.models import ModelError
from tests.tiny_models.faces import build_embedder, build_retinaface, build_scrfd, build_yunet

BUILD = {"yunet": build_yunet, "scrfd": build_scrfd, "retinaface": build_retinaface}
SETTINGS = FaceModelSettings(threshold=0.8, input_size=64)


@pytest.fixture(scope="module", params=list(BUILD))
def model(request, tmp_path_factory):
    name = request.param
    path = BUILD[name](tmp_path_factory.mktemp(name) / "model.onnx")
    return name, path


def pixels(column, row, width=128, height=96):
    """A white square of 32 px, which is one cell of 16 px when the pixels is fed at 64 px."""
    image = np.zeros((height, width, 3), np.uint8)
    image[32 * row : 32 * row + 32, 32 * column : 32 * column + 32] = 255
    return image


def test_faces_are_found_where_they_are(model):
    detector = load_face_model(*model, SETTINGS)
    assert isinstance(detector, FaceBoxDetector)
    one, two, none = detector.find([pixels(1, 1), pixels(3, 0), np.zeros((64, 128, 3), np.uint8)])
    assert len(none) == 0
    assert len(one) >= 1
    assert np.abs(one.boxes_xyxy[0] - two.boxes_xyxy[0]).max() > 20
    for faces, (left, top) in ((one, (32, 32)), (two, (96, 0))):
        box = faces.boxes_xyxy
        centre = (box[:, :2] + box[:, 2:]) / 2
        # RetinaFace's cells are half as large: its faces lie around their middles.
        assert (np.abs(centre - [left + 16, top + 16]) <= 12).all()
        assert (faces.scores > 0.95).all()
        eyes, mouth = faces.landmarks[0, :2], faces.landmarks[0, 3:]
        assert eyes[0, 0] < eyes[1, 0]
        assert (eyes[:, 1] < mouth[:, 1]).all()
        assert (np.abs(faces.landmarks[0] - [left + 16, top + 16]) <= 24).all()
    assert [len(b) for b in detector.detect_faces([pixels(1, 1)])] == [len(one)]


def watch_passes(monkeypatch, model):
    """Return the list that receives the number of images of each pass of a session."""
    passes, session = [], model._session

    class Watched:
        def run(self, names, feeds):
            (fed,) = feeds.values()
            passes.append(len(fed))
            return session.run(names, feeds)

    monkeypatch.setattr(model, "_session", Watched())
    return passes


@pytest.mark.parametrize("batch_size", [1, 2, 3, 16])
@pytest.mark.parametrize("name", ["scrfd", "retinaface"])
def test_faces_do_not_depend_on_the_other_images_of_a_batch(
    tmp_path, monkeypatch, name, batch_size
):
    images = [pixels(1, 1), pixels(0, 0, 96, 128), pixels(1, 1)[:64], pixels(3, 0), pixels(0, 2)]
    images[1] = images[1] // 5 * 4
    free = {"batch": "N", "joined": False} if name == "scrfd" else {"batch": "N"}
    path = BUILD[name](tmp_path / "free.onnx", **free)
    mild = replace(SETTINGS, threshold=0.3, batch_size=batch_size)
    detector = load_face_model(name, path, mild)
    passes = watch_passes(monkeypatch, detector._model)
    together = detector.find(images)
    assert passes == [len(images[i : i + batch_size]) for i in range(0, 5, batch_size)]
    fixed = load_face_model(name, BUILD[name](tmp_path / "fixed.onnx"), mild)
    assert sum(len(faces) > 0 for faces in together) >= 4
    for faces, image in zip(together, images, strict=True):
        for alone in (*detector.find([image]), *fixed.find([image])):
            np.testing.assert_allclose(faces.boxes_xyxy, alone.boxes_xyxy, atol=1e-4)
            np.testing.assert_allclose(faces.scores, alone.scores, atol=1e-6)
            np.testing.assert_allclose(faces.landmarks, alone.landmarks, atol=1e-4)


@pytest.mark.parametrize("published", [{"batch": 1}, {"batch": "N"}])
def test_files_that_cannot_take_a_batch_get_image_by_image(tmp_path, monkeypatch, published):
    """A fixed batch axis; or a free one, but the rows of all images are joined."""
    detector = load_face_model("scrfd", build_scrfd(tmp_path / "m.onnx", **published), SETTINGS)
    passes = watch_passes(monkeypatch, detector._model)
    assert [len(faces) for faces in detector.find([pixels(1, 1), pixels(3, 0)])] == [1, 1]
    assert passes == [1, 1]
    assert detector.find([]) == []


def test_a_file_that_mixes_the_images_of_a_batch_is_named(tmp_path, monkeypatch):
    model = OnnxImages(build_retinaface(tmp_path / "m.onnx", batch="N"), 2, "cpu", output_rank=3)
    session = model._session

    class Mixing:
        def run(self, names, feeds):
            return [o.reshape(1, -1, o.shape[-1]) for o in session.run(names, feeds)]

    monkeypatch.setattr(model, "_session", Mixing())
    images = np.zeros((2, 3, 64, 64), np.float32)
    with pytest.raises(FaceModelError, match=r"m\.onnx: expected outputs for 2 .*batch_size to 1"):
        list(model.run(images))


CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


@pytest.mark.parametrize(
    ("device", "has_gpu", "built_for", "expected"),
    [
        ("cpu", True, [CUDA, CPU], [CPU]),
        ("auto", True, [CUDA, CPU], [(CUDA, {"device_id": 0}), CPU]),
        ("auto", True, [CPU], [CPU]),
        ("auto", False, [CUDA, CPU], [CPU]),
        ("cuda", True, [CUDA, CPU], [(CUDA, {"device_id": 0}), CPU]),
        ("cuda:1", True, [CUDA, CPU], [(CUDA, {"device_id": 1}), CPU]),
    ],
)
def test_sessions_compute_on_the_configured_device(
    tmp_path, monkeypatch, device, has_gpu, built_for, expected
):
    opened = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: built_for)
    monkeypatch.setattr(
        onnxruntime,
        "InferenceSession",
        lambda file, options, providers: opened.append(providers),
    )
    open_session(tmp_path / "m.onnx", device)
    assert opened == [expected]


def test_a_device_that_cannot_be_had_is_refused(tmp_path, monkeypatch):
    path = build_scrfd(tmp_path / "m.onnx")
    config = FaceCheckConfig(backend="scrfd", model={"path": path.name, "asset": "yunet"})
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CPU])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(FaceModelError, match=r"has no CUDAExecutionProvider; install onnxruntime-"):
        build_face_detector(config, tmp_path, "cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="torch sees no GPU here"):
        build_face_detector(config, tmp_path, "cuda")


def test_boxes_fit_exactly_where_cells_do(model):
    name, path = model
    if name == "retinaface":
        pytest.skip("its priors overlap their cells")
    (faces,) = load_face_model(name, path, SETTINGS).find([pixels(1, 1)])
    np.testing.assert_allclose(faces.boxes_xyxy, [[32, 32, 64, 64]], atol=1e-3)
    np.testing.assert_allclose(faces.landmarks[0, 2], [48, 48], atol=1e-3)


def test_the_threshold_counts(model):
    name, path = model
    grey = (pixels(1, 1) * 0.7).astype(np.uint8)
    strict, mild = (load_face_model(name, path, FaceModelSettings(t, 0.4, 64)) for t in (0.9, 0.5))
    assert len(strict.find([grey])[0]) == 0
    assert len(mild.find([grey])[0]) >= 1


def test_rule_3_by_configuration(model, tmp_path):
    name, path = model
    config = FaceCheckConfig(
        backend=name,
        model={"path": path.name, "asset": "yunet"},
        threshold=0.8,
        input_size=64,
    )
    detector = build_face_detector(config, path.parent)
    assert detector.name.startswith(f"{name}:")
    (faces,) = detector.detect_faces([pixels(1, 1)])
    assert check_faces(faces, np.array([[20, 20, 70, 70]], np.float32)) is None
    finding = check_faces(faces, np.array([[90, 0, 128, 30]], np.float32))
    assert finding.reason == "face_without_head"


def test_scrfd_without_landmarks_is_enough_for_the_rule(tmp_path):
    path = build_scrfd(tmp_path / "m.onnx", landmarks=False)
    (boxes,) = load_face_model("scrfd", path, SETTINGS).detect_faces([pixels(2, 1)])
    np.testing.assert_allclose(boxes, [[64, 32, 96, 64]], atol=1e-3)


def test_wrong_files_are_named(tmp_path):
    with pytest.raises(FaceModelError, match="no file"):
        load_face_model("yunet", tmp_path / "none.onnx")
    text = tmp_path / "text.onnx"
    text.write_text("no model")
    for name in BUILD:
        with pytest.raises(FaceModelError, match="cannot read"):
            load_face_model(name, text)
    swapped = build_scrfd(tmp_path / "s.onnx")
    with pytest.raises(FaceModelError, match="retinaface: outputs have shapes"):
        load_face_model("retinaface", swapped, SETTINGS).find([pixels(1, 1)])
    with pytest.raises(FaceModelError, match="scrfd: expected at least 6 outputs, got 3"):
        other = build_retinaface(tmp_path / "r.onnx")
        load_face_model("scrfd", other, SETTINGS).find([pixels(1, 1)])
    with pytest.raises(FaceModelError, match="yunet: the file is no YuNet"):
        other = build_embedder(tmp_path / "e.onnx", 8)
        load_face_model("yunet", other, SETTINGS).find([pixels(1, 1)])
    with pytest.raises(ModelError, match="nothing at"):
        build_face_detector(
            FaceCheckConfig(backend="yunet", model={"path": "x.onnx", "asset": "yunet"}), tmp_path
        )
    with pytest.raises(ValueError, match="backend yunet needs model"):
        FaceCheckConfig(backend="yunet")


def test_priors_are_those_of_retinaface():
    priors = retinaface_priors(64)
    assert priors.shape == (168, 4)
    np.testing.assert_allclose(priors[0], [4 / 64, 4 / 64, 16 / 64, 16 / 64])
    np.testing.assert_allclose(priors[1], [4 / 64, 4 / 64, 32 / 64, 32 / 64])
    np.testing.assert_allclose(priors[2], [12 / 64, 4 / 64, 16 / 64, 16 / 64])
    np.testing.assert_allclose(priors[-1], [48 / 64, 48 / 64, 8, 8])


def test_haar_on_a_photograph():
    data = pytest.importorskip("skimage.data")
    detector = build_face_detector(FaceCheckConfig(backend="haar"))
    image = np.ascontiguousarray(data.astronaut()[:300, :400])
    (boxes,) = detector.detect_faces([image])
    # The face is at about 177, 66 with a side of 95 px in the whole pixels.
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    assert (np.abs(centre - [225, 113]).max(axis=1) < 25).any()
    (mirrored,) = detector.detect_faces([np.ascontiguousarray(image[:, ::-1])])
    assert np.abs(mirrored[:, 0].mean() - boxes[:, 0].mean()) > 5
