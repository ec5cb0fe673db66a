"""The web page: visualisation, interactive 3D view and JSON of an uploaded image."""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ml.imaging.io import UnreadableImage, decode_image
from ml.inference.detector import HeadDetector
from ml.inference.options import DRAW_METHODS, DrawMethod
from ml.inference.results import PredictionResult
from ml.records.atomic import write_bytes
from ml.records.limits import MAX_UPLOAD_BYTES

if TYPE_CHECKING:
    import gradio
    import numpy as np

LOOPBACK = "127.0.0.1"
PORT = 7860
MAX_WAITING = 64
"""Maximum number of queued requests; further ones are asked to retry."""
KEPT_S = 3600
"""Lifetime of a visitor's uploads and results."""
_LOOK_EVERY_S = 600
_FONTS = ["system-ui", "sans-serif"]
_FONTS_MONO = ["ui-monospace", "monospace"]


class Page:
    """Processing of an image for the page."""

    def __init__(self, detector: HeadDetector) -> None:
        """Keep the detector; scenes live in a temporary folder as long as this object.

        Args:
            detector: finds the heads; must have a head model.

        Raises:
            ValueError: the detector has no head model.
        """
        if detector.head_model is None:
            raise ValueError(
                "the page shows meshes, which need a head model: pass --head-model head_model.npz"
            )
        self._detector = detector
        self._folder = tempfile.TemporaryDirectory(prefix="vggheads-page-")

    def find(
        self, image: Path | None, method: DrawMethod, score_threshold: float
    ) -> tuple[np.ndarray | None, str | None, dict[str, Any] | None]:
        """Find heads in an uploaded image.

        Args:
            image: the file that was uploaded, None if there is none.
            method: how to draw.
            score_threshold: heads below are dropped.

        Returns:
            (H, W, 3) drawing, path of a GLB file (None without heads), JSON.

        Raises:
            UnreadableImage: the upload is no image.
        """
        if image is None:
            return None, None, None
        self._forget()
        # Read here and not by gradio, which decodes images of any claimed size.
        result = self._detector(decode_image(image), score_threshold)
        assert isinstance(result, PredictionResult)
        if not len(result):
            return result.draw(method), None, result.to_json()
        content = result.scene_glb()
        path = Path(self._folder.name) / f"{hashlib.sha256(content).hexdigest()[:16]}.glb"
        write_bytes(path, content)
        return result.draw(method), str(path), result.to_json()

    def _forget(self) -> None:
        """Remove the scenes of inactive visitors; gradio has copies of newer ones."""
        for path in Path(self._folder.name).glob("*.glb"):
            if time.time() - path.stat().st_mtime > KEPT_S:
                path.unlink(missing_ok=True)


def build_page(detector: HeadDetector) -> gradio.Blocks:
    """Lay the page out.

    Args:
        detector: finds the heads; must have a head model.

    Returns:
        The page; `launch` serves it.

    Raises:
        ValueError: gradio is not installed, or the detector has no head model.
    """
    gr = _gradio()
    page = Page(detector)

    def find(image: Any, method: str, score_threshold: float) -> Any:
        try:
            path = None if image is None else Path(image)
            return page.find(path, cast(DrawMethod, method), score_threshold)
        except UnreadableImage as error:
            raise gr.Error(str(error)) from error

    threshold = detector.postprocessing.score_threshold
    kept = (_LOOK_EVERY_S, KEPT_S)
    with gr.Blocks(title="vggheads", analytics_enabled=False, delete_cache=kept) as blocks:
        gr.Markdown("# vggheads\nA 3D head for every person in the image.")
        with gr.Row():
            with gr.Column():
                image = gr.Image(
                    label="Image", type="filepath", image_mode=None, sources=["upload"]
                )
                method = gr.Radio(list(DRAW_METHODS), value="full", label="Drawing")
                score = gr.Slider(0.05, 0.95, value=threshold, step=0.05, label="Least score")
                button = gr.Button("Find heads", variant="primary")
            with gr.Column():
                drawing = gr.Image(
                    label="Heads",
                    format="png",
                    interactive=False,
                    buttons=["download", "fullscreen"],
                )
                scene = gr.Model3D(
                    label="Meshes (drag to rotate)", clear_color=(0.93, 0.94, 0.95, 1.0), height=420
                )
        with gr.Accordion("JSON", open=False):
            json_view = gr.JSON(show_label=False)
        inputs, outputs = [image, method, score], [drawing, scene, json_view]
        # One id for all of them: the detector works on one image at a time.
        button.click(find, inputs, outputs, api_name="find", concurrency_id="find")
        for control in (image, method, score):
            event = control.release if control is score else control.change
            event(find, inputs, outputs, api_visibility="private", concurrency_id="find")
    return cast("gradio.Blocks", blocks.queue(max_size=MAX_WAITING, api_open=False))


def open_page(
    page: gradio.Blocks, host: str = LOOPBACK, port: int | None = None, *, wait: bool = False
) -> str:
    """Serve a page to its own visitors: pages of other origins and foreign host names are refused.

    Args:
        page: the page.
        host: address to listen on; on another than the loopback, any host name is answered.
        port: port; a free one if left out.
        wait: whether to serve until interrupted.

    Returns:
        The page's address.

    Raises:
        OSError: the port is taken.
    """
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    from ml.inference.guard import ALLOWED_HOSTS, SameOrigin

    # Fonts of the system: gradio's own themes may ask Google for theirs.
    theme = _gradio().themes.Default(font=_FONTS, font_mono=_FONTS_MONO)
    hosts = list(ALLOWED_HOSTS) if host in ALLOWED_HOSTS else ["*"]
    guard = [
        Middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False),
        Middleware(SameOrigin, hosts=hosts),
    ]
    _, url, _ = page.launch(
        server_name=host, server_port=port, share=False, theme=theme,
        max_file_size=MAX_UPLOAD_BYTES, footer_links=[], show_error=True, quiet=not wait,
        prevent_thread_lock=not wait, app_kwargs={"middleware": guard},
    )  # fmt: skip
    return str(url)


def serve(detector: HeadDetector, host: str = LOOPBACK, port: int = PORT) -> None:
    """Serve the page until interrupted; it makes no requests to other hosts.

    Args:
        detector: finds the heads; must have a head model.
        host: address to listen on; the default is reachable from this machine alone.
        port: port.

    Raises:
        ValueError: gradio is not installed, the detector has no head model, or the port is taken.
    """
    page = build_page(detector)
    try:
        open_page(page, host, port, wait=True)
    except OSError as error:
        raise ValueError(f"app: cannot listen on {host}:{port}: {error}") from error


def _gradio() -> Any:
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        import gradio
    except ImportError as error:
        raise ValueError(
            "the page needs gradio, which is not installed: pip install 'vggheads[app]'"
        ) from error
    return gradio
