"""The demo page: its function, and the served page through its own client."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import trimesh
from PIL import Image

from ml.inference.app import Page, build_page
from ml.inference.detector import HeadDetector
from tests.fixtures.browser import CHROMIUM, browser
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


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")
def test_a_browser_shows_what_was_found_and_asks_no_other_host(
    detector: HeadDetector, tmp_path: Path
) -> None:
    path = tmp_path / "image.png"
    Image.fromarray(noise_image(4, 80, 120)).save(path)
    page = build_page(detector)
    _, url, _ = page.launch(prevent_thread_lock=True, quiet=True, share=False)
    try:
        with browser(tmp_path / "profile", url) as tab:
            tab.until("!!document.querySelector('input[type=file]')")
            assert tab.run("document.title") == "vggheads"
            assert "A 3D head for every person" in tab.run("document.body.innerText")
            tab.run("document.querySelector('input[type=range]').value = 0.2")
            tab.upload("input[type=file]", path)
            # The drawing appears beside the upload.
            shown = "[...document.querySelectorAll('img')].filter(i => i.naturalWidth == 120)"
            tab.until(f"{shown}.length == 2")
            hosts = {urlsplit(asked).hostname for asked in tab.asked if asked.startswith("http")}
            assert hosts == {"127.0.0.1"}
    finally:
        page.close()


def test_the_served_page_answers_on_loopback(detector: HeadDetector, tmp_path: Path) -> None:
    import gradio_client as client_module

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
