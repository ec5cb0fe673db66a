"""Exports compute what torch computes, on images that differ, for one image and for three."""

import json
import zipfile

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from ml.imaging.letterbox import Letterbox
from ml.model.building import build_detector
from ml.model.checkpoint_file import read_checkpoint_tensors
from ml.model.decode import decode
from ml.model.export import (
    METADATA_KEY,
    export_onnx,
    export_torchscript,
    onnx_model,
)
from ml.model.postprocess import (
    PostprocessConfig,
    exclusive_threshold,
    postprocess,
    suppression_inputs,
)
from ml.model.weights import import_published
from tests.tiny_models.detector import liven

SIZE = 96
CONFIG = PostprocessConfig(score_threshold=0.3, iou_threshold=0.3, max_heads=9)
DARK = torch.randint(
    0, 60, (1, 3, SIZE, SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
)
STRIPES = (torch.arange(SIZE) // 8 % 2 * 255).to(torch.uint8).expand(1, 3, SIZE, SIZE)
THREE = torch.cat([STRIPES, DARK, DARK.flip(3) * 4])


def lively(config):
    torch.manual_seed(0)
    return liven(build_detector(config), torch.rand(4, 3, SIZE, SIZE))


@pytest.fixture(scope="module")
def network(nano):
    return lively(nano)


@pytest.fixture(scope="module")
def onnx_file(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "nano.onnx"
    export_onnx(network, path, SIZE, CONFIG, {"format": "x", "image_size": SIZE})
    return path


@pytest.fixture(scope="module")
def session(onnx_file):
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    return onnxruntime.InferenceSession(str(onnx_file), options, providers=["CPUExecutionProvider"])


def expected(network, images, config):
    with torch.no_grad():
        return postprocess(network(images), [Letterbox()] * len(images), config)


def assert_same(found, wanted):
    boxes, scores, flame, index = found
    assert index.dtype == np.int64
    for i, heads in enumerate(wanted):
        rows = index == i
        assert rows.sum() == len(heads) > 0
        np.testing.assert_allclose(boxes[rows], heads.boxes_xyxy, rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(scores[rows], heads.scores, rtol=1e-4)
        np.testing.assert_allclose(flame[rows], heads.flame, rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize("images", [STRIPES, DARK, THREE], ids=["stripes", "dark", "three"])
def test_onnx_equals_torch(network, session, images):
    assert_same(session.run(None, {"images": images.numpy()}), expected(network, images, CONFIG))


def test_the_images_matter(network, session):
    stripes, dark = (session.run(None, {"images": x.numpy()}) for x in (STRIPES, DARK))
    assert abs(stripes[1][0] - dark[1][0]) > 1e-3 or len(stripes[1]) != len(dark[1])
    assert np.abs(stripes[2][0] - dark[2][0]).max() > 0.05


def test_outputs_are_named_and_the_batch_is_free(session, onnx_file):
    assert [o.name for o in session.get_outputs()] == ["boxes", "scores", "flame", "image_index"]
    assert [(i.name, i.shape) for i in session.get_inputs()] == [("images", ["batch", 3, 96, 96])]
    about = session.get_modelmeta().custom_metadata_map[METADATA_KEY]
    assert json.loads(about) == {"format": "x", "image_size": SIZE}
    kinds = {node.op_type for node in onnx.load(onnx_file).graph.node}
    assert "NonMaxSuppression" in kinds
    assert "BatchNormalization" not in kinds  # fused


@pytest.mark.parametrize(
    "change", [{"score_threshold": 0.8}, {"iou_threshold": 0.05}, {"max_heads": 2}]
)
def test_thresholds_can_be_given(network, session, change):
    config = CONFIG.model_copy(update=change)
    feeds = {"images": THREE.numpy(), **suppression_inputs(config)}
    wanted = expected(network, THREE, config)
    assert [len(h) for h in wanted] != [len(h) for h in expected(network, THREE, CONFIG)]
    assert_same(session.run(None, feeds), wanted)


def test_a_score_at_the_threshold_is_kept():
    assert np.float32(0.5) > exclusive_threshold(0.5)
    assert not np.nextafter(np.float32(0.5), np.float32(0)) > exclusive_threshold(0.5)


def test_nothing_found_gives_empty_outputs(session):
    feeds = {"images": THREE.numpy(), "score_threshold": np.array([1.0], np.float32)}
    found = session.run(None, feeds)
    assert [x.shape for x in found] == [(0, 4), (0,), (0, 413), (0,)]


def test_exporting_changes_nothing(network):
    before = {name: value.clone() for name, value in network.state_dict().items()}
    onnx_model(network, SIZE)
    after = network.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], value) for name, value in before.items())


@pytest.fixture(scope="module")
def published(tiny):
    """A network whose branches are swapped as in the published weights."""
    head = tiny.head.model_copy(update={"swapped_branches": True})
    return lively(tiny.model_copy(update={"head": head}))


@pytest.fixture(scope="module")
def trcd(published, tmp_path_factory):
    path = tmp_path_factory.mktemp("trcd") / "tiny.trcd"
    export_torchscript(published, path, SIZE, {"note": "mine"})
    return path


@pytest.mark.parametrize("images", [STRIPES, DARK, THREE], ids=["stripes", "dark", "three"])
def test_torchscript_has_the_official_outputs(published, trcd, images):
    pixels = images.float() / 255
    with torch.no_grad():
        boxes, scores, params = torch.jit.load(str(trcd), map_location="cpu")(pixels)
        wanted = decode(published(pixels))
    count = min(1000, wanted.scores.shape[1])
    batch = len(images)
    assert boxes.shape == (batch, count, 4)
    assert scores.shape == (batch, count, 1)
    assert params.shape == (batch, count, 413)
    assert (scores[:, :-1] >= scores[:, 1:]).all()  # best first
    order = wanted.scores.argsort(dim=1, descending=True)[:, :count]
    torch.testing.assert_close(scores[..., 0], wanted.scores.gather(1, order), rtol=1e-4, atol=1e-5)
    best = order[:, 0]
    rows = torch.arange(batch)
    torch.testing.assert_close(boxes[:, 0], wanted.boxes_xyxy[rows, best], rtol=1e-3, atol=1e-2)
    torch.testing.assert_close(params[:, 0], wanted.flame[rows, best], rtol=1e-3, atol=1e-2)


def test_torchscript_yields_a_thousand_anchors_of_a_larger_image(published, tmp_path):
    export_torchscript(published, tmp_path / "large.trcd", 256)
    found = torch.jit.load(str(tmp_path / "large.trcd"))(torch.rand(1, 3, 256, 256))
    assert [tuple(x.shape) for x in found] == [(1, 1000, 4), (1, 1000, 1), (1, 1000, 413)]


def test_torchscript_refuses_another_size(trcd):
    with pytest.raises(RuntimeError):
        torch.jit.load(str(trcd))(torch.zeros(1, 3, 128, 128))


def test_torchscript_is_fused_and_carries_the_published_names(published, trcd):
    names = list(torch.jit.load(str(trcd)).state_dict())
    assert "model.backbone.stem.conv.rbr_reparam.weight" in names
    assert not [name for name in names if "branch_3x3" in name]
    with zipfile.ZipFile(trcd) as archive:
        (extra,) = [n for n in archive.namelist() if n.endswith(f"extra/{METADATA_KEY}")]
        assert json.loads(archive.read(extra)) == {"note": "mine"}
    assert "backbone.stem.conv.rbr_reparam.weight" in read_checkpoint_tensors(trcd)


def test_a_torchscript_file_imports_as_the_published_ones_do(published, trcd):
    """The export has the published names, so its import is that of the official file."""
    model = import_published(trcd, published.config)
    pixels = torch.cat([STRIPES, DARK]).double() / 255
    with torch.no_grad():
        found, wanted = (decode(m.double()(pixels)) for m in (model, published))
    published.float()
    assert (wanted.flame[0] - wanted.flame[1]).abs().max() > 0.05
    for part, expected_part in zip(found, wanted, strict=True):
        torch.testing.assert_close(part, expected_part, rtol=1e-4, atol=1e-3)


def test_onnx_needs_its_package(network, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.delitem(sys.modules, "ml.model.export_nms", raising=False)
    with pytest.raises(ValueError, match="needs the package onnx: pip install onnx"):
        onnx_model(network, SIZE)
