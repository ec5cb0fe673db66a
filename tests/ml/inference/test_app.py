"""The demo page: its function, and the served page through its own client."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image

from ml.inference.app import Page, build_page
from ml.inference.detector import HeadDetector
from tests.ml.inference.conftest import noise_image


@pytest.fixture(scope="module")
def detector(project: Path) -> HeadDetector:
    return HeadDetector(project / "trained_model", device="cpu")


def test_an_image_gives_drawing_scene_and_json(detector: HeadDetector) -> None:
    page = Page(detector)
    image = noise_image(4, 80, 120)
    drawing, scene, found = page.find(Image.fromarray(image), "mesh", 0.2)
    expected = detector(image, 0.2)
    assert drawing is not None
    assert scene is not None
    assert (drawing == expected.draw("mesh")).all()
    assert found == expected.to_json()
    assert len(trimesh.load(scene).geometry) == len(expected)
    assert Path(scene).parent.is_dir()


def test_nothing_uploaded_and_nothing_found(detector: HeadDetector) -> None:
    page = Page(detector)
    assert page.find(None, "full", 0.5) == (None, None, None)
    image = noise_image(4)
    drawing, scene, found = page.find(Image.fromarray(image), "full", 1.0)
    assert scene is None
    assert found is not None
    assert found["heads"] == []
    assert (drawing == image).all()


def test_a_page_without_head_model_is_refused(project: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(project / "trained_model", tmp_path / "alone")
    with pytest.raises(ValueError, match="need a head model: pass --head-model"):
        Page(HeadDetector(tmp_path / "alone", device="cpu"))


def test_without_gradio_it_says_what_to_install(detector: HeadDetector, monkeypatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(ValueError, match=r"pip install 'vggheads\[app\]'"):
        build_page(detector)


def test_the_served_page_answers_on_loopback(detector: HeadDetector, tmp_path: Path) -> None:
    pytest.importorskip("gradio")
    client_module = pytest.importorskip("gradio_client")
    path = tmp_path / "image.png"
    Image.fromarray(noise_image(4, 80, 120)).save(path)
    page = build_page(detector)
    assert page.analytics_enabled is False
    _, url, share = page.launch(prevent_thread_lock=True, quiet=True, share=False)
    try:
        assert url.startswith("http://127.0.0.1")
        assert share is None
        client = client_module.Client(url, verbose=False, download_files=str(tmp_path))
        image = client_module.handle_file(path)
        drawing, scene, found = client.predict(image, "bbox", 0.2, api_name="/find")
        assert np.asarray(Image.open(drawing)).shape[:2] == (80, 120)
        assert Path(scene).suffix == ".glb"
        assert len(found["heads"]) > 0
    finally:
        page.close()
