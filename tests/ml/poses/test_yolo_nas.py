"""Client and worker of YOLO-NAS-Pose: a real process, with a stand-in for super-gradients."""

from __future__ import annotations

import io
import os
import sys

import numpy as np
import pytest
import torch

from ml.imaging.boxes import nms
from ml.poses import yolo_nas_worker
from ml.poses.config import EstimatorConfig
from ml.poses.yolo_nas import WorkerError, YoloNasPoseEstimator
from ml.records.models import ModelError

STAND_IN = """
import numpy as np
print("super-gradients talks a lot on standard output")
class Found:
    def __init__(self, image, conf):
        y, x = np.nonzero(image[..., 0] > 200)
        n = 0 if len(x) == 0 else 2
        self.scores = np.array([0.6, 0.9][:n], np.float32)
        self.poses = np.stack([np.full((17, 3), (x.mean(), y.mean(), conf))] * n) if n else []
class Model:
    to = eval = lambda self, device=None: self
    def set_dataset_processing_params(self, **params):
        assert params == {"conf": 0.25}
    def predict(self, images, conf, batch_size, fuse_model):
        print(f"a pass of {batch_size} images", flush=True)
        if any(image[0, 0, 1] == 77 for image in images):
            raise RuntimeError("out of memory, says the stand-in")
        found = [type("Prediction", (), {"prediction": Found(one, conf)}) for one in images]
        return found[0] if len(found) == 1 else found
class models:
    @staticmethod
    def get(architecture, num_classes, checkpoint_path):
        assert (architecture, num_classes) == ("yolo_nas_pose_n", 17)
        assert open(checkpoint_path).read() == "weights"
        return Model()
def default_yolo_nas_pose_coco_processing_params():
    return {"conf": 0.25}
"""


@pytest.fixture
def make_estimator(tmp_path, monkeypatch):
    package = tmp_path / "stand-in" / "super_gradients"
    for name in ("", "training", "training/processing"):
        (package / name).mkdir(parents=True)
        (package / name / "__init__.py").write_text("")
    (package / "training" / "__init__.py").write_text(STAND_IN)
    (package / "training" / "processing" / "processing.py").write_text(STAND_IN)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "stand-in"))
    (tmp_path / "weights.pth").write_text("weights")
    opened = []

    def make(**changes):
        values = {
            "backend": "yolo-nas-pose",
            "pose_model": {"path": "weights.pth", "asset": "yolo-nas-pose"},
            "architecture": "yolo_nas_pose_n",
            "worker_python": sys.executable,
            "threshold": 0.4,
            "device": "cpu",
        }
        opened.append(YoloNasPoseEstimator(EstimatorConfig(**values | changes), tmp_path))
        return opened[-1]

    yield make
    for estimator in opened:
        estimator.close()


def spot(x, y, height=48, width=64):
    image = np.zeros((height, width, 3), np.uint8)
    image[y, x, 0] = 255
    return image


def test_people_come_back_most_certain_first_and_follow_the_image(make_estimator):
    estimator = make_estimator()
    first, nobody, second = estimator.estimate(
        [spot(10, 20), np.zeros((32, 32, 3), np.uint8), spot(40, 5, 64, 48)]
    )
    np.testing.assert_allclose(first.scores, [0.9, 0.6])
    np.testing.assert_allclose(first.keypoints[:, :, :2], np.full((2, 17, 2), (10, 20)))
    np.testing.assert_allclose(first.keypoints[:, :, 2], 0.4)
    np.testing.assert_allclose(second.keypoints[0, 0, :2], (40, 5))
    assert nobody.keypoints.shape == (0, 17, 3)
    assert estimator.estimate([]) == []
    (alone,) = estimator.estimate([spot(10, 20)])
    np.testing.assert_array_equal(alone.keypoints, first.keypoints)
    log = os.pread(estimator._log.fileno(), 10_000, 0).decode()
    passes = [line for line in log.splitlines() if line.startswith("a pass")]
    assert passes == ["a pass of 3 images", "a pass of 1 images"]
    process = estimator._process
    estimator.close()
    assert process.returncode == 0
    # It starts again when it is needed again.
    assert len(estimator.estimate([spot(1, 1)])[0].scores) == 2


def test_a_worker_that_fails_is_quoted(make_estimator):
    image = spot(1, 1)
    image[0, 0, 1] = 77
    with pytest.raises(WorkerError, match=r"(?s)expected a line of JSON.*out of memory, says the"):
        make_estimator().estimate([image])


def test_a_worker_that_cannot_start_is_quoted(make_estimator, tmp_path):
    (tmp_path / "other.pth").write_text("something else")
    other = {"path": "other.pth", "asset": "yolo-nas-pose"}
    with pytest.raises(WorkerError, match=r"(?s)from the worker, got b''; it wrote: .*Assertion"):
        make_estimator(pose_model=other).estimate([spot(1, 1)])


def test_what_must_be_brought_is_named(make_estimator):
    with pytest.raises(ModelError, match="needs a checkpoint that you bring"):
        make_estimator(pose_model=None)
    with pytest.raises(ModelError, match=r"nothing at .*absent\.pth; bring its files"):
        make_estimator(pose_model={"path": "absent.pth", "asset": "yolo-nas-pose"})
    with pytest.raises(ModelError, match=r"no interpreter at .*bin/python; `make super-gradients`"):
        make_estimator(worker_python="no/bin/python")


def test_the_worker_refuses_half_an_image():
    stream = io.BytesIO(b'{"sizes": [[1, 2], [2, 2]]}\n' + bytes(6 + 5))
    with pytest.raises(EOFError, match="expected 12 bytes, got 5"):
        yolo_nas_worker.read_images(stream)
    assert yolo_nas_worker.read_images(io.BytesIO(b"")) == []


def test_the_worker_imports_nothing_of_the_project():
    source = yolo_nas_worker.__file__
    with open(source) as file:
        text = file.read()
    assert "import ml" not in text
    assert "from ml" not in text


def test_super_gradients_is_never_imported_here():
    assert "super_gradients" not in sys.modules


def test_suppression_is_that_of_the_project():
    """Made for environments whose torchvision lacks its own."""
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(300, 2, generator=generator) * 200
    sides = torch.rand(300, 2, generator=generator) * 80 + 5
    boxes, scores = torch.cat([corners, corners + sides], 1), torch.rand(300, generator=generator)
    kept = yolo_nas_worker.suppress(boxes, scores, 0.5)
    assert 20 < len(kept) < 280
    assert torch.equal(kept, nms(boxes, scores, 0.5))
    assert len(yolo_nas_worker.suppress(boxes[:0], scores[:0], 0.5)) == 0
