"""The model that MLflow serves, asked over http as docs/tracking.md says."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests

from ml.imaging.io import encode_png
from ml.inference import pyfunc_model
from ml.inference.loading import load_detector
from ml.model.postprocess import PostprocessConfig
from tests.fixtures.ports import free_port, running
from tests.ml.inference.conftest import LOOSE, noise_image

mlflow = pytest.importorskip("mlflow")


@pytest.fixture(scope="module")
def served(project: Path, tmp_path_factory: pytest.TempPathFactory):
    """The address of the application that `mlflow models serve` runs, on its own server."""
    import uvicorn
    from mlflow.pyfunc.scoring_server import init

    folder = tmp_path_factory.mktemp("served") / "model"
    mlflow.pyfunc.save_model(
        str(folder),
        python_model=pyfunc_model.__file__,
        artifacts={pyfunc_model.ARTIFACT: str(project / "trained_model")},
        signature=pyfunc_model.signature(LOOSE),
        pip_requirements=["numpy"],
    )
    app = init(mlflow.pyfunc.load_model(str(folder)))
    port = free_port()
    with running(uvicorn.Config(app, port=port, log_level="error")):
        yield f"http://127.0.0.1:{port}/invocations"


def ask(address: str, *images: bytes, **params: float) -> tuple[int, dict[str, Any]]:
    """Status and answer of a request."""
    rows = [[base64.b64encode(image).decode()] for image in images]
    sent = {"dataframe_split": {"columns": ["image"], "data": rows}, "params": params}
    answer = requests.post(address, json=sent, timeout=60)
    return answer.status_code, answer.json()


def test_a_request_with_base64_is_answered_with_the_detector_s_heads(served, project: Path):
    images = [noise_image(seed) for seed in (4, 5)]
    status, answer = ask(served, *map(encode_png, images), score_threshold=0.2)
    assert status == 200
    rows = answer["predictions"]
    heads = load_detector(project / "trained_model").predict(images)
    counts = [len(of_image) for of_image in heads]
    assert min(counts) > 0
    assert [row["image"] for row in rows] == [0] * counts[0] + [1] * counts[1]
    for name, values in (("box_xyxy", "boxes_xyxy"), ("score", "scores"), ("flame", "flame")):
        expected = np.concatenate([getattr(of_image, values) for of_image in heads])
        assert np.allclose([row[name] for row in rows], expected, atol=1e-3), name


@pytest.mark.parametrize(("stored", "default"), [(0.05, 0.3), (0.5, 0.5)])
def test_the_default_threshold_is_that_of_every_other_way(stored: float, default: float):
    schema = pyfunc_model.signature(PostprocessConfig(score_threshold=stored)).params
    assert [param.default for param in schema.params] == [default]


@pytest.mark.parametrize(
    ("images", "params", "reason"),
    [
        ([encode_png(noise_image(4)), b"no image"], {}, "image 1: image cannot be decoded"),
        ([encode_png(noise_image(4))], {"score_threshold": 3.0}, "expected 0 to 1, got 3.0"),
    ],
)
def test_a_bad_request_is_told_the_reason_and_no_path_of_the_server(served, images, params, reason):
    status, answer = ask(served, *images, **params)
    assert status == 400
    assert reason in answer["message"]
    assert "stack_trace" not in answer
    assert str(Path.cwd()) not in str(answer)
