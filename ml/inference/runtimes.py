"""Runtimes of the network: torch or onnxruntime, with the same results."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ml.flame.frames import network_to_image
from ml.imaging.letterbox import Letterbox
from ml.inference.options import UnusableModel as UnusableModel
from ml.model.detector import HeadDetectorNetwork
from ml.model.export import METADATA_KEY, ONNX_INPUT, ONNX_OUTPUTS
from ml.model.kept import KeptHeadsNetwork
from ml.model.postprocess import PostprocessConfig, suppression_inputs
from ml.records.heads import Heads

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

RuntimeName = Literal["torch", "onnxruntime"]
RUNTIMES: tuple[RuntimeName, ...] = ("torch", "onnxruntime")
_QUIET_LOG = 3


class Runtime(Protocol):
    """Runs the network on a batch and gives the heads that are left after suppression."""

    def __call__(
        self,
        pixels: NDArray[np.uint8],
        letterboxes: Sequence[Letterbox],
        postprocessing: PostprocessConfig,
    ) -> list[Heads]:
        """Find heads.

        Args:
            pixels: (B, 3, S, S) uint8 RGB, letterboxed.
            letterboxes: how each of the B images was fitted into its square.
            postprocessing: thresholds.

        Returns:
            Heads of each image by falling score, in pixels of the original images.
        """
        ...


class TorchRuntime:
    """The network in torch: fused, channels last, FLAME branches at kept heads only."""

    def __init__(self, network: HeadDetectorNetwork, device: torch.device | str = "cpu") -> None:
        """Prepare the network.

        Args:
            network: the detector; a fused copy of it is used.
            device: where to run.
        """
        self.device = torch.device(device)
        fused = KeptHeadsNetwork(network).to(self.device)
        self._network = fused.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def __call__(
        self,
        pixels: NDArray[np.uint8],
        letterboxes: Sequence[Letterbox],
        postprocessing: PostprocessConfig,
    ) -> list[Heads]:
        """Find heads; see `Runtime`."""
        with torch.inference_mode():
            batch = torch.from_numpy(pixels).to(self.device)
            heads: list[Heads] = self._network.find(batch, letterboxes, postprocessing)
            return heads


class OnnxRuntime:
    """The exported network in onnxruntime; decoding and suppression are in its graph.

    Attributes:
        description: the file's own description; empty for a graph of `onnx_model` without one.
    """

    def __init__(self, model: bytes | str, device: torch.device | str = "cpu") -> None:
        """Open a session.

        Args:
            model: serialised graph of `onnx_model`, or the path of such a file.
            device: where to run; on a GPU only if onnxruntime was built for one.

        Raises:
            UnusableModel: the file is damaged or is no exported detector.
            ValueError: onnxruntime is not installed, or has no support for the device.
        """
        try:
            self._session = _open_session(model, torch.device(device))
            outputs = {output.name for output in self._session.get_outputs()}
            about = self._session.get_modelmeta().custom_metadata_map.get(METADATA_KEY, "{}")
        except UnicodeDecodeError as error:
            raise UnusableModel(f"{_name(model)}: damaged, a text is not UTF-8: {error}") from error
        if not set(ONNX_OUTPUTS) <= outputs:
            raise UnusableModel(
                f"{_name(model)}: expected the outputs {', '.join(ONNX_OUTPUTS)} of an exported "
                f"head detector, got {', '.join(sorted(outputs))}"
            )
        try:
            self.description: dict[str, Any] = json.loads(about)
        except (ValueError, RecursionError) as error:
            raise UnusableModel(f"{_name(model)}: its description is not JSON: {error}") from error

    def __call__(
        self,
        pixels: NDArray[np.uint8],
        letterboxes: Sequence[Letterbox],
        postprocessing: PostprocessConfig,
    ) -> list[Heads]:
        """Find heads; see `Runtime`. The number of candidates is that of the export."""
        feeds = {ONNX_INPUT: pixels, **suppression_inputs(postprocessing)}
        boxes, scores, flame, images = self._session.run(list(ONNX_OUTPUTS), feeds)
        heads = []
        for index, letterbox in enumerate(letterboxes):
            rows = images == index
            heads.append(
                Heads(
                    letterbox.boxes_to_image(boxes[rows]),
                    scores[rows],
                    network_to_image(flame[rows], letterbox),
                )
            )
        return heads


def _open_session(model: bytes | str, device: torch.device) -> InferenceSession:
    try:
        import onnxruntime
        from onnxruntime.capi import onnxruntime_pybind11_state as errors
    except ImportError as error:
        raise ValueError(
            "runtime 'onnxruntime': the package is not installed; pip install onnxruntime, or use "
            "runtime='torch'"
        ) from error
    provider = "CUDAExecutionProvider" if device.type == "cuda" else "CPUExecutionProvider"
    if provider not in onnxruntime.get_available_providers():
        raise ValueError(
            f"runtime 'onnxruntime': this build has no {provider}; install onnxruntime-gpu, or use "
            "device='cpu'"
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # It warns of our optional inputs, once for each.
    options.log_severity_level = _QUIET_LOG
    try:
        return onnxruntime.InferenceSession(model, options, providers=[provider])
    except (
        errors.Fail, errors.InvalidArgument, errors.InvalidGraph, errors.InvalidProtobuf,
        errors.NoSuchFile,
    ) as error:  # fmt: skip
        raise UnusableModel(
            f"{_name(model)}: damaged, or no ONNX model that this onnxruntime can run: {error}"
        ) from error


def _name(model: bytes | str) -> str:
    return model if isinstance(model, str) else "ONNX model"
