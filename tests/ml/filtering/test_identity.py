"""Known faces: found at any place and size, others not, and no person is named."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from ml.box_detection.face_models import FaceModelError, FaceModelSettings, load_face_model
from ml.filtering import identity
from ml.filtering.calibration import Calibration
from ml.filtering.embedding import (
    FaceReader,
    OnnxEmbedder,
    SFaceEmbedder,
    similarity_transform,
)
from ml.filtering.identity import (
    IdentityConfig,
    IdentityError,
    IdentityIndex,
    IdentityScreen,
    build_index,
    load_face_reader,
    threshold_of,
)
from ml.imaging.io import encode_png
from ml.records.exclusions import Exclusions
from ml.records.models import ModelRef
from tests.tiny_models.faces import build_embedder, build_scrfd, build_yunet
from tests.tiny_models.faces import draw_face as face

EMBEDDERS = {"sface": (SFaceEmbedder, 128), "arcface": (OnnxEmbedder, 512)}


@pytest.fixture(scope="module", params=list(EMBEDDERS))
def reader(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("identity")
    kind, length = EMBEDDERS[request.param]
    build_embedder(folder / "e.onnx", length)
    embedder = kind(ModelRef(path="e.onnx", asset="sface").resolve(folder))
    if request.param == "sface":
        detector = load_face_model(
            "yunet", build_yunet(folder / "d.onnx"), FaceModelSettings(0.6, 0.4, 64)
        )
    else:
        detector = load_face_model(
            "scrfd", build_scrfd(folder / "d.onnx"), FaceModelSettings(0.6, 0.4, 64)
        )
    return FaceReader(detector, embedder)


def test_other_faces_have_other_vectors(reader):
    one, again, other = (reader.read(face(*a)) for a in ((1,), (1, 2, 0), (2,)))
    assert one.shape[0] == 1
    np.testing.assert_allclose(np.linalg.norm(one, axis=1), 1, atol=1e-5)
    # The same face elsewhere in the image is the same vector.
    assert float((one @ again.T)[0, 0]) > 0.99
    assert float((one @ other.T)[0, 0]) < 0.95
    assert len(reader.read(np.zeros((96, 128, 3), np.uint8))) == 0


@pytest.mark.parametrize("batch_size", [1, 2, 3, 16])
def test_vectors_do_not_depend_on_the_other_faces_of_a_batch(tmp_path, batch_size):
    build_embedder(tmp_path / "e.onnx", 512, batch="N")
    build_scrfd(tmp_path / "d.onnx", batch="N", joined=False)
    config = IdentityConfig(
        detector="scrfd",
        detector_model={"path": "d.onnx", "asset": "sface"},
        embedder="arcface",
        embedder_model={"path": "e.onnx", "asset": "sface"},
        input_size=64,
        batch_size=batch_size,
    )
    reader = load_face_reader(config, tmp_path, "cpu")
    passes, session = [], reader.embedder._model._session

    def run(names, feeds):
        (fed,) = feeds.values()
        passes.append(len(fed))
        return session.run(names, feeds)

    reader.embedder._model._session = SimpleNamespace(run=run)
    crowd = np.maximum(face(7, 3, 0), face(2, 1, 1))
    images = [face(1), np.zeros((96, 128, 3), np.uint8), crowd, face(3, 0, 0, (64, 96)), face(4)]
    together = reader.read_all(images)
    assert [len(vectors) for vectors in together] == [1, 0, 2, 1, 1]
    assert passes == [min(batch_size, 5 - start) for start in range(0, 5, batch_size)]
    for vectors, image in zip(together, images, strict=True):
        if len(vectors):
            np.testing.assert_allclose(vectors, reader.read(image), atol=1e-6)
    assert reader.read_all([]) == []
    index = IdentityIndex(together[2][1:], reader.embedder.name, np.array(["0"]))
    passes.clear()
    found = IdentityScreen(reader, index, 0.99).screen(images)
    assert [finding is not None for finding in found] == [False, False, True, False, False]
    assert len(passes) == -(-5 // batch_size)


def write_folder(root, people):
    folder = root / "people"
    for person in people:
        path = folder / f"celebrity_{person}" / "photo.png"
        path.parent.mkdir(parents=True)
        path.write_bytes(encode_png(face(person)))
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 broken")
    (folder / "empty.png").write_bytes(encode_png(np.zeros((64, 64, 3), np.uint8)))
    (folder / "notes.txt").write_text("no image")
    return folder


def test_an_index_rejects_its_people_and_no_others(reader, tmp_path):
    exclusions = Exclusions("identity")
    index, people = build_index(write_folder(tmp_path, (1, 2)), reader, exclusions)
    assert people.tolist() == [0, 1]
    assert sorted(exclusions.to_frame()["reason"]) == ["damaged_image", "no_face"]
    assert index.embeddings.shape[0] == 2
    path = tmp_path / "private" / "index.npz"
    index.save(path)
    loaded = IdentityIndex.load(path)
    np.testing.assert_array_equal(loaded.embeddings, index.embeddings)
    folder = tmp_path / "people"
    photos = [folder / f"celebrity_{person}" / "photo.png" for person in (1, 2)]
    hashes = [hashlib.sha256(photo.read_bytes()).hexdigest() for photo in photos]
    assert loaded.sources.tolist() == hashes
    for name in (b"celebrity", b"photo", b"png", b"people", str(tmp_path).encode()):
        assert name not in path.read_bytes()
    first = path.read_bytes()
    index.save(path)
    assert path.read_bytes() == first
    screen = IdentityScreen(reader, loaded, threshold=0.97)
    crowd = np.maximum(face(7, 3, 0), face(2, 1, 1))
    findings = screen.screen([face(1, 0, 1), face(3), crowd, np.zeros((64, 64, 3), np.uint8)])
    assert [f is not None for f in findings] == [True, False, True, False]
    assert findings[0].reason == "known_identity"
    assert "1 of 1 faces are known" in findings[0].detail
    assert "1 of 2 faces are known" in findings[2].detail
    assert "celebrity" not in findings[0].detail


def test_the_index_carries_its_threshold(reader, tmp_path, caplog):
    index, _ = build_index(write_folder(tmp_path, (1, 2)), reader, Exclusions("identity"))
    with pytest.raises(IdentityError) as refused:
        threshold_of(IdentityConfig(), index)
    assert str(refused.value) == (
        "identity index: it has no calibration, and filtered_dataset.identity.threshold states "
        "none; make it again with `vggheads identity-index FOLDER`, with a folder for each person "
        "or --identities FILE, so that a threshold can be measured"
    )
    assert threshold_of(IdentityConfig(threshold=0.4), index) == 0.4
    assert "nothing was measured on this index" in caplog.text
    measured = Calibration(0.7, 0.01, 0.008, 0.9, 500, 400, 60)
    path = tmp_path / "index.npz"
    replace(index, calibration=measured).save(path)
    loaded = IdentityIndex.load(path)
    assert loaded.calibration == measured
    caplog.clear()
    assert threshold_of(IdentityConfig(), loaded) == 0.7
    assert not caplog.text
    assert threshold_of(IdentityConfig(threshold=0.4), loaded) == 0.4
    assert "measured on this index: threshold 0.700: 0.80% of 500 faces" in caplog.text
    whole = dict(np.load(path))
    np.savez(path, **{**whole, "calibration": np.array('{"threshold": 3}')})
    with pytest.raises(IdentityError, match="not an identity index"):
        IdentityIndex.load(path)
    # Indices from before this was measured.
    np.savez(path, **{key: value for key, value in whole.items() if key != "calibration"})
    assert IdentityIndex.load(path).calibration is None


def test_nearest_names_the_entry(reader):
    vectors = np.eye(4, dtype=np.float32)
    index = IdentityIndex(vectors, "x", np.arange(4).astype(str))
    alike, rows = index.nearest(vectors[[2, 0]] * 0.5)
    assert rows.tolist() == [2, 0]
    np.testing.assert_allclose(alike, 0.5)


def test_small_faces_have_no_identity(reader):
    assert len(FaceReader(reader.detector, reader.embedder, min_face_px=40).read(face(1))) == 0


def test_an_index_of_another_network_is_refused(reader):
    index = IdentityIndex(np.ones((1, 4), np.float32), "other:0", np.array(["0"]))
    with pytest.raises(IdentityError, match=r"made with other:0.*make the index again"):
        IdentityScreen(reader, index, 0.5)


def test_search_is_the_same_with_and_without_faiss(monkeypatch):
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(50, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    index = IdentityIndex(vectors, "x", np.arange(50).astype(str))
    queries = vectors[:5] * 0.8 + vectors[5:10] * 0.6
    expected = [max(float(q @ v) for v in vectors) for q in queries]
    np.testing.assert_allclose(index.best(queries), expected, atol=1e-5)
    assert index.best(np.zeros((0, 0), np.float32)).shape == (0,)
    asked = []

    class Flat:
        """What is used of faiss.IndexFlatIP: exact inner products."""

        def __init__(self, size):
            asked.append(size)

        def add(self, rows):
            self.rows = rows

        def search(self, wanted, count):
            alike = wanted @ self.rows.T
            best = np.argsort(-alike, axis=1)[:, :count]
            return np.take_along_axis(alike, best, axis=1), best

    monkeypatch.setitem(sys.modules, "faiss", SimpleNamespace(IndexFlatIP=Flat))
    np.testing.assert_allclose(index.best(queries), expected, atol=1e-5)
    assert asked == [], "an index this small needs no faiss"
    monkeypatch.setattr(identity, "_FAISS_FROM", 10)
    np.testing.assert_allclose(index.best(queries), expected, atol=1e-5)
    assert asked == [16]
    monkeypatch.setitem(sys.modules, "faiss", None)
    np.testing.assert_allclose(index.best(queries), expected, atol=1e-5)


def test_configuration_loads_the_production_classes(tmp_path):
    build_yunet(tmp_path / "y.onnx")
    build_embedder(tmp_path / "s.onnx", 128)
    config = IdentityConfig(
        index="private/index.npz",
        source_asset="celeba",
        detector_model={"path": "y.onnx", "asset": "yunet"},
        embedder_model={"path": "s.onnx", "asset": "sface"},
        input_size=64,
    )
    reader = load_face_reader(config, tmp_path)
    assert isinstance(reader.embedder, SFaceEmbedder)
    assert len(reader.read(face(1))) == 1
    with pytest.raises(ValueError, match="index needs detector_model and embedder_model"):
        IdentityConfig(index="x")
    with pytest.raises(ValueError, match="index needs source_asset"):
        IdentityConfig(**{**config.model_dump(), "source_asset": None})
    with pytest.raises(IdentityError, match="must be set"):
        load_face_reader(IdentityConfig(), tmp_path)


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"text"])
def test_what_is_no_index_is_named(tmp_path, data):
    path = tmp_path / "index.npz"
    with pytest.raises(IdentityError, match="vggheads identity-index FOLDER"):
        IdentityIndex.load(path)
    path.write_bytes(data)
    with pytest.raises(IdentityError, match="not an identity index"):
        IdentityIndex.load(path)
    np.savez(path, format=np.array("other/1"))
    with pytest.raises(IdentityError, match="format 'other/1'"):
        IdentityIndex.load(path)


def test_alignment_is_the_least_squares_similarity():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(5, 2))
    turn = 1.7 * np.array([[np.cos(0.4), -np.sin(0.4)], [np.sin(0.4), np.cos(0.4)]])
    matrix = similarity_transform(points, points @ turn.T + [3, -2])
    np.testing.assert_allclose(matrix, np.concatenate([turn, [[3], [-2]]], axis=1), atol=1e-9)
    with pytest.raises(FaceModelError, match="on one spot"):
        similarity_transform(np.ones((5, 2)), points)


def test_no_faces_at_all_is_an_error(reader, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(IdentityError, match="no face in the 0 images"):
        build_index(tmp_path / "empty", reader, Exclusions("identity"))
    with pytest.raises(IdentityError, match="is no folder of images"):
        build_index(tmp_path / "none", reader, Exclusions("identity"))
