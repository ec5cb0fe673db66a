"""Derived numbers of detections in copies, in every format."""

from __future__ import annotations

import json
import tarfile
from dataclasses import replace
from io import BytesIO

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from ml.flame.geometry import HeadGeometry
from ml.flame.rotation import matrix_from_euler_deg, sixd_from_matrix
from ml.records.exclusions import Exclusions
from ml.release.derived import DERIVED, derive
from ml.release.export import ExportRequest, export_dataset
from ml.release.official import decode_annotation
from ml.release.source import iter_dataset
from tests.fixtures.tiny_world import ball_model

NAMES = ("landmarks", "euler", "rotation", "part_boxes", "vertices")
SMALL = ("landmarks", "euler", "rotation", "part_boxes")


@pytest.fixture(scope="module")
def head_model():
    return ball_model()


@pytest.fixture
def project(dataset, head_model):
    head_model.save(dataset.stage_dir("head_model") / "head_model.npz")
    return dataset


@pytest.fixture
def items(project, head_model):
    return list(derive(iter_dataset(project, Exclusions("t")), NAMES, head_model))


def test_they_are_computed_from_the_parameters(items, head_model):
    assert set(DERIVED) == set(NAMES)
    geometry = HeadGeometry(head_model, "all")
    (item,) = [item for item in items if item.sample_id == "image-a3"]
    assert item.flame_valid.tolist() == [True, False]
    for name in NAMES:
        assert item.derived[name].shape == (2, *DERIVED[name].shape)
        assert np.isfinite(item.derived[name][0]).all()
        assert np.isnan(item.derived[name][1]).all()
    flame = item.flame[:1]
    np.testing.assert_allclose(item.derived["landmarks"][:1], geometry.landmarks_px(flame))
    np.testing.assert_allclose(item.derived["euler"][:1], HeadGeometry.euler_deg(flame))
    np.testing.assert_allclose(item.derived["rotation"][:1], HeadGeometry.rotations(flame))
    vertices = item.derived["vertices"][:1]
    np.testing.assert_allclose(vertices, geometry.vertices_xyz_px(flame))
    # The ball knows a face and no other part: zeros, which have no area.
    face, *others = item.derived["part_boxes"][0]
    assert (face[2:] > face[:2]).all()
    assert not np.any(others)
    empty = next(item for item in items if item.sample_id == "image-b0")
    assert empty.derived["landmarks"].shape == (0, 68, 2)


def test_a_turned_head_tells_axes_and_orders_apart(items, head_model):
    model = replace(head_model, landmark_faces=np.arange(68, dtype=np.int32))
    (item,) = [item for item in items if item.sample_id == "image-a3"]
    angles = torch.tensor([[10.0, 25.0, -40.0]])
    rotation = matrix_from_euler_deg(angles)
    flame = item.flame.copy()
    flame[0, 403:409] = sixd_from_matrix(rotation)[0].numpy()
    (turned,) = derive([replace(item, flame=flame)], NAMES, model)
    np.testing.assert_allclose(turned.derived["euler"][0], angles[0], atol=1e-3)
    np.testing.assert_allclose(turned.derived["rotation"][0], rotation[0], atol=1e-6)
    vertices, landmarks = turned.derived["vertices"][0], turned.derived["landmarks"][0]
    corners = vertices[model.faces[:68]][..., :2]
    np.testing.assert_allclose(landmarks, corners.mean(axis=1), rtol=1e-4)
    assert np.abs(landmarks - landmarks[::-1]).max() > 1
    nose = vertices[-1] - (vertices[0] + vertices[len(vertices) // 2]) / 2
    tip = rotation[0].numpy() @ (model.v_template[-1] - model.v_template[[0, 2511]].mean(axis=0))
    assert np.dot(nose, tip) > 0.99 * np.linalg.norm(nose) * np.linalg.norm(tip)


def export(project, target, kind, names=SMALL):
    request = ExportRequest(kind, target, ("open-head",), derived=names)
    return export_dataset(project, request)


def test_every_format_carries_them(project, items, tmp_path):
    expected = {item.sample_id: item for item in items}
    item = expected["image-b2"]
    for kind in ("official", "coco", "webdataset", "huggingface"):
        export(project, tmp_path / kind, kind)
    (path,) = (tmp_path / "official").rglob("image-b2.npz")
    arrays = np.load(path)
    np.testing.assert_allclose(arrays["landmarks"], item.derived["landmarks"])
    assert len(decode_annotation(path)) == 3, "official loaders do not mind"
    table = pq.read_table(tmp_path / "coco" / "parameters" / "train.parquet").to_pandas()
    coco = json.loads((tmp_path / "coco" / "annotations" / "train.json").read_text())
    (image,) = [i["id"] for i in coco["images"] if i["sample_id"] == "image-b2"]
    ids = [a["id"] for a in coco["annotations"] if a["image_id"] == image]
    rows = table.set_index("annotation_id").loc[ids]
    found = np.stack(list(rows["rotation"])).reshape(3, 3, 3)
    np.testing.assert_allclose(found, item.derived["rotation"])
    (tar,) = (tmp_path / "webdataset").glob("train-*.tar")
    with tarfile.open(tar) as archive:
        file = archive.extractfile("image-b2.euler.npy")
        assert file is not None
        np.testing.assert_allclose(np.load(BytesIO(file.read())), item.derived["euler"])
    (parquet,) = (tmp_path / "huggingface" / "data").glob("train-*.parquet")
    frame = pq.read_table(parquet).to_pandas().set_index("sample_id")
    boxes = np.stack([np.array(row) for row in frame.loc["image-b2", "part_boxes"]])
    np.testing.assert_allclose(boxes.reshape(3, -1, 4), item.derived["part_boxes"])
    features = json.loads(pq.read_schema(parquet).metadata[b"huggingface"])["info"]["features"]
    assert features["landmarks"]["feature"]["length"] == 136


def test_nothing_is_added_unasked_and_unknown_names_are_refused(project, tmp_path):
    export(project, tmp_path / "plain", "coco", ())
    table = pq.read_schema(tmp_path / "plain" / "parameters" / "train.parquet")
    assert table.names == ["annotation_id", "flame"]
    with pytest.raises(ValueError, match=r"cannot derive \['hair'\]; there are landmarks, euler"):
        export(project, tmp_path / "hair", "coco", ("hair",))
    assert not (tmp_path / "hair").exists()
