"""The demo page: an image in; drawing, a 3D view that turns, and JSON out."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ml.imaging.io import UnreadableImage
from ml.inference.detector import HeadDetector
from ml.inference.options import DRAW_METHODS, DrawMethod
from ml.inference.results import PredictionResult
from ml.records.atomic import write_bytes

if TYPE_CHECKING:
    import gradio
    import numpy as np
    from PIL import Image

MAX_UPLOAD = "50mb"
_FONTS = ["system-ui", "sans-serif"]
_FONTS_MONO = ["ui-monospace", "monospace"]


class Page:
    """What the page does with an image."""

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
        self, image: Image.Image | None, method: DrawMethod, score_threshold: float
    ) -> tuple[np.ndarray | None, str | None, dict[str, Any] | None]:
        """Find heads in an uploaded image.

        Args:
            image: the upload, None if there is none.
            method: how to draw.
            score_threshold: heads below are dropped.

        Returns:
            (H, W, 3) drawing, path of a GLB file (None without heads), JSON.

        Raises:
            UnreadableImage: the upload is no image.
        """
        if image is None:
            return None, None, None
        result = self._detector(image, score_threshold)
        assert isinstance(result, PredictionResult)
        if not len(result):
            return result.draw(method), None, result.to_json()
        content = result.scene_glb()
        path = Path(self._folder.name) / f"{hashlib.sha256(content).hexdigest()[:16]}.glb"
        write_bytes(path, content)
        return result.draw(method), str(path), result.to_json()


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
            return page.find(image, cast(DrawMethod, method), score_threshold)
        except UnreadableImage as error:
            raise gr.Error(str(error)) from error

    threshold = detector.postprocessing.score_threshold
    with gr.Blocks(title="vggheads", analytics_enabled=False, delete_cache=(600, 3600)) as blocks:
        gr.Markdown("# vggheads\nA 3D head for every person in the image.")
        with gr.Row():
            with gr.Column():
                image = gr.Image(label="Image", type="pil", image_mode=None, sources=["upload"])
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
                    label="Meshes (drag to turn)", clear_color=(0.93, 0.94, 0.95, 1.0), height=420
                )
        with gr.Accordion("JSON", open=False):
            json_view = gr.JSON(show_label=False)
        inputs, outputs = [image, method, score], [drawing, scene, json_view]
        button.click(find, inputs, outputs, api_name="find")
        for control in (image, method, score):
            event = control.release if control is score else control.change
            event(find, inputs, outputs, api_visibility="private")
    return cast("gradio.Blocks", blocks)


def serve(detector: HeadDetector, host: str = "127.0.0.1", port: int = 7860) -> None:
    """Serve the page until interrupted; it asks no other host for anything.

    Args:
        detector: finds the heads; must have a head model.
        host: address to listen on; the default is reachable from this machine alone.
        port: port.

    Raises:
        ValueError: gradio is not installed, the detector has no head model, or the port is taken.
    """
    page = build_page(detector)
    gr = _gradio()
    # Fonts of the system: gradio's own themes may ask Google for theirs.
    theme = gr.themes.Default(font=_FONTS, font_mono=_FONTS_MONO)
    try:
        page.launch(
            server_name=host, server_port=port, share=False, theme=theme, max_file_size=MAX_UPLOAD,
            footer_links=[],
        )  # fmt: skip
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
