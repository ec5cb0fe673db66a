"""The demo page: its function, and the served page through its own client."""

from __future__ import annotations

import gc
import json
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import gradio_client
import httpx
import numpy as np
import pytest
import trimesh
from PIL import Image

from ml.inference import app
from ml.inference.app import MAX_WAITING, Page, build_page, open_page
from ml.inference.detector import HeadDetector
from tests import bombs
from tests.fixtures.browser import CHROMIUM, browser
from tests.ml.inference.conftest import noise_image

WEB = httpx.Client(verify=False)
"""The page is served without TLS: no certificates are read, which takes longer than an answer."""


@pytest.fixture(scope="module")
def detector(project: Path) -> HeadDetector:
    return HeadDetector(project / "trained_model", device="cpu")


@pytest.fixture
def upload(tmp_path: Path):
    """Write an image as a visitor's file."""

    def write(image: np.ndarray, name: str = "image.png") -> Path:
        Image.fromarray(image).save(tmp_path / name)
        return tmp_path / name

    return write


@pytest.fixture(scope="module")
def served(detector: HeadDetector) -> Iterator[str]:
    """The page, served as `vggheads app` serves it."""
    page = build_page(detector)
    yield open_page(page)
    page.close()


def test_an_image_gives_drawing_scene_and_json(detector: HeadDetector, upload) -> None:
    page = Page(detector)
    image = noise_image(4, 80, 120)
    drawing, scene, found = page.find(upload(image), "mesh", 0.2)
    expected = detector(image, 0.2)
    assert drawing is not None
    assert scene is not None
    assert (drawing == expected.draw("mesh")).all()
    assert found == expected.to_json()
    assert len(trimesh.load(scene).geometry) == len(expected)
    assert Path(scene).parent.is_dir()


def test_nothing_uploaded_and_nothing_found(detector: HeadDetector, upload) -> None:
    page = Page(detector)
    assert page.find(None, "full", 0.5) == (None, None, None)
    image = noise_image(4)
    drawing, scene, found = page.find(upload(image), "full", 1.0)
    assert scene is None
    assert found is not None
    assert found["heads"] == []
    assert (drawing == image).all()


def test_scenes_of_visitors_who_left_are_removed(detector: HeadDetector, upload) -> None:
    page = Page(detector)
    old, young = (page.find(upload(noise_image(n, 80, 120)), "bbox", 0.2)[1] for n in (4, 5))
    assert old is not None
    assert young is not None
    os.utime(old, (0, 0))
    page.find(upload(noise_image(6, 80, 120)), "bbox", 0.2)
    assert not Path(old).exists()
    assert Path(young).exists()
    folder = Path(young).parent
    del page
    gc.collect()
    assert not folder.exists()


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
    served: str, tmp_path: Path, upload
) -> None:
    path = upload(noise_image(4, 80, 120))
    with browser(tmp_path / "profile", served) as tab:
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


def test_the_served_page_answers_on_loopback(served: str, tmp_path: Path, upload) -> None:
    assert served.startswith("http://127.0.0.1")
    client = connect(served, tmp_path)
    assert client.config["enable_queue"]
    image = gradio_client.handle_file(upload(noise_image(4, 80, 120)))
    drawing, scene, found = client.predict(image, "bbox", 0.2, api_name="/find")
    assert np.asarray(Image.open(drawing)).shape[:2] == (80, 120)
    assert Path(scene).suffix == ".glb"
    assert len(found["heads"]) > 0


def connect(url: str, folder: Path) -> gradio_client.Client:
    return gradio_client.Client(
        url,
        verbose=False,
        download_files=str(folder),
        analytics_enabled=False,
        ssl_verify=False,
    )


def test_eight_visitors_at_once_each_get_their_own_answer(
    served: str, detector: HeadDetector, tmp_path: Path, upload, monkeypatch
) -> None:
    busy, most, find = [], [0], Page.find

    def counted(page, *arguments):
        busy.append(1)
        most[0] = max(most[0], len(busy))
        time.sleep(0.05)
        try:
            return find(page, *arguments)
        finally:
            busy.pop()

    monkeypatch.setattr(Page, "find", counted)
    images = [noise_image(n, 64 + n, 96) for n in range(8)]
    files = [upload(image, f"{n}.png") for n, image in enumerate(images)]
    client = connect(served, tmp_path)
    jobs = [
        client.submit(gradio_client.handle_file(path), "bbox", 0.2, api_name="/find")
        for path in files
    ]
    for image, job in zip(images, jobs, strict=True):
        _, _, found = job.result(timeout=120)
        assert found == json.loads(json.dumps(detector(image, 0.2).to_json()))
    assert most == [1], "a detector works on one image at a time"


def test_the_queue_has_an_end_and_no_way_around_it(served: str, detector: HeadDetector) -> None:
    blocks = build_page(detector)
    assert blocks._queue.max_size == MAX_WAITING
    around = httpx.post(f"{served}gradio_api/run/find", json={"data": [None, "bbox", 0.2]})
    assert around.status_code in (401, 403, 404), around.text


def test_uploads_of_another_kind_or_size_are_refused_with_a_sentence(
    served: str, tmp_path: Path
) -> None:
    client = connect(served, tmp_path)
    for name, content, words in (
        ("text.png", b"no image", "cannot identify image"),
        ("drawing.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no known format"),
        ("bomb.png", bombs.png(11_000, 10_000), "11000 x 10000 pixels, expected 1 to 100,000,000"),
        ("bomb.jpg", bombs.jpeg(30_000, 30_000), "exceeds limit"),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(gradio_client.exceptions.AppError, match=words):
            client.predict(gradio_client.handle_file(path), "bbox", 0.2, api_name="/find")
    with path.open("wb") as file:
        file.truncate((50 << 20) + 1)
    with path.open("rb") as file:
        answer = WEB.post(f"{served}gradio_api/upload", files={"files": file}, timeout=60)
    assert answer.status_code == 413


def test_files_of_the_machine_are_not_given_out(served: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    ways = (
        f"gradio_api/file={secret}", f"file={secret}",
        f"gradio_api/file={tmp_path}/../{tmp_path.name}/{secret.name}",
        f"gradio_api/file=%2e%2e/%2e%2e{secret}", "gradio_api/file=../../../../etc/passwd",
        "static/../../../../etc/passwd", "assets/%2e%2e/%2e%2e/%2e%2e/app.py",
        "theme.css/../../../etc/passwd", f"gradio_api/proxy=file://{secret}",
    )  # fmt: skip
    for way in ways:
        answer = WEB.get(served + way)
        assert answer.status_code in (400, 401, 403, 404), way
        assert "secret" not in answer.text.replace(str(secret), "")
        assert "root:" not in answer.text
    # By hand: gradio's own client would upload the file first.
    for path in (str(secret), f"/proc/self/cwd/..{secret}", "../../../../etc/hostname"):
        given = [{"path": path, "meta": {"_type": "gradio.FileData"}}, "bbox", 0.2]
        asked = WEB.post(f"{served}gradio_api/call/find", json={"data": given}).json()
        answer = WEB.get(f"{served}gradio_api/call/find/{asked['event_id']}").text
        assert answer.startswith("event: error")
        assert "InvalidPathError" in answer or "upload" in answer or "not allowed" in answer, answer


def test_an_upload_stays_in_its_folder_and_is_no_page(served: str) -> None:
    files = {"files": ("../../../outside.html", b"<script>alert(1)</script>", "text/html")}
    answer = WEB.post(f"{served}gradio_api/upload", files=files)
    (stored,) = answer.json()
    assert Path(stored).resolve().is_relative_to(Path(tempfile.gettempdir()).resolve() / "gradio")
    shown = WEB.get(f"{served}gradio_api/file={stored}")
    html = "text/html" in shown.headers["content-type"]
    assert not html or "attachment" in shown.headers["content-disposition"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "http://127.0.0.1:1"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"host": "evil.example"}, 400),
    ],
)
def test_pages_of_other_origins_may_not_upload(served: str, headers, status: int) -> None:
    files = {"files": ("a.png", b"x", "image/png")}
    answer = WEB.post(f"{served}gradio_api/upload", files=files, headers=headers)
    assert answer.status_code == status


def test_of_65_that_wait_the_last_is_refused(detector: HeadDetector, monkeypatch) -> None:
    begun, go = threading.Event(), threading.Event()

    def wait(page, *arguments):
        begun.set()
        go.wait(60)
        return None, None, None

    monkeypatch.setattr(Page, "find", wait)
    page = build_page(detector)
    url = open_page(page)
    try:
        asking = {"url": f"{url}gradio_api/call/find", "json": {"data": [None, "bbox", 0.2]}}
        statuses = [WEB.post(**asking).status_code]
        # It left the queue.
        assert begun.wait(30)
        statuses += [WEB.post(**asking).status_code for _ in range(MAX_WAITING)]
        assert statuses == [200] * (1 + MAX_WAITING)
        refused = WEB.post(**asking)
        assert refused.status_code == 503
        assert "Queue is full" in refused.text
    finally:
        go.set()
        page.close()


def test_uploads_are_removed_when_they_are_old(detector: HeadDetector, monkeypatch) -> None:
    # Gradio goes by the time of the last change of a file's entry, which cannot be set back.
    monkeypatch.setattr(app, "_LOOK_EVERY_S", 0.1)
    monkeypatch.setattr(app, "KEPT_S", 1)
    page = build_page(detector)
    url = open_page(page)
    try:
        answer = WEB.post(f"{url}gradio_api/upload", files={"files": ("a.png", b"old")})
        stored = Path(answer.json()[0])
        end = time.monotonic() + 20
        while stored.exists() and time.monotonic() < end:
            time.sleep(0.05)
        assert not stored.exists()
    finally:
        page.close()
