"""A trained detector on disk, and the predictor made of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from ml.imaging.letterbox import letterbox_image
from ml.model.config import ModelConfig
from ml.model.detector import HeadDetectorNetwork, build_detector
from ml.model.fusing import fuse
from ml.model.postprocess import PostprocessConfig, postprocess
from ml.records.atomic import write_bytes, write_json
from ml.records.config import read_config
from ml.records.heads import Heads

WEIGHTS_NAME = "model.safetensors"
CONFIG_NAME = "config.json"
FORMAT = "vggheads-detector/1"


class UnusableModel(ValueError):
    """A model folder cannot be loaded; the message says which file and why."""


def save_detector(
    folder: Path,
    network: HeadDetectorNetwork,
    image_size: int,
    postprocessing: PostprocessConfig,
    head_model_sha256: str,
    training: dict[str, Any],
) -> None:
    """Write a detector: weights, and everything needed to load and to name it.

    Args:
        folder: receives `model.safetensors` and `config.json`; created if missing.
        network: the trained network, unfused.
        image_size: side of the square input it was trained with, px.
        postprocessing: default thresholds.
        head_model_sha256: identity of the head model its parameters belong to.
        training: how it was trained, kept as it is; must be JSON.
    """
    # Contiguous copies: the file format refuses tensors that share memory, as shared branches do,
    # and those of a channels-last training.
    state = {
        name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, value in network.state_dict().items()
    }
    write_bytes(folder / WEIGHTS_NAME, save(state))
    description = {
        "format": FORMAT,
        "model": network.config.model_dump(mode="json"),
        "image_size": image_size,
        "postprocess": postprocessing.model_dump(mode="json"),
        "head_model_sha256": head_model_sha256,
        "training": training,
    }
    write_json(folder / CONFIG_NAME, description)


class HeadPredictor:
    """Finds heads in images with a loaded detector."""

    def __init__(
        self,
        network: HeadDetectorNetwork,
        image_size: int,
        postprocessing: PostprocessConfig,
        description: dict[str, Any] | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        """Prepare the network for inference.

        Args:
            network: the detector; a fused copy of it is used.
            image_size: side of the network's square input, px.
            postprocessing: thresholds.
            description: what `config.json` says.
            device: where to run.
        """
        self.image_size = image_size
        self.postprocessing = postprocessing
        self.description = description or {}
        self._device = torch.device(device)
        fused = fuse(network).to(self._device)
        self._network = fused.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def predict(self, images_rgb: Sequence[NDArray[np.uint8]], batch_size: int = 16) -> list[Heads]:
        """Find the heads of each image.

        Args:
            images_rgb: (H, W, 3) uint8 RGB images of any sizes.
            batch_size: images at once.

        Returns:
            Heads of each image by falling score, in that image's pixels.
        """
        heads: list[Heads] = []
        for start in range(0, len(images_rgb), batch_size):
            fitted = [
                letterbox_image(image, self.image_size)
                for image in images_rgb[start : start + batch_size]
            ]
            pixels = np.stack([square for square, _ in fitted]).transpose(0, 3, 1, 2)
            with torch.inference_mode():
                batch = torch.from_numpy(np.ascontiguousarray(pixels)).to(self._device)
                outputs = self._network(batch)
                heads += postprocess(outputs, [box for _, box in fitted], self.postprocessing)
        return heads


def load_detector(
    model_dir: Path,
    device: torch.device | str = "cpu",
    postprocessing: PostprocessConfig | None = None,
) -> HeadPredictor:
    """Load a detector that `save_detector` wrote; executes nothing from the files.

    Args:
        model_dir: folder with `model.safetensors` and `config.json`.
        device: where to run.
        postprocessing: thresholds; those stored with the model if left out.

    Returns:
        The predictor.

    Raises:
        UnusableModel: a file is missing, damaged, of another format, or they do not fit together.
    """
    model_dir = Path(model_dir)
    description = _read_description(model_dir / CONFIG_NAME)
    config = read_config(ModelConfig, "model", description["model"])
    network = build_detector(config)
    weights = model_dir / WEIGHTS_NAME
    if not weights.is_file():
        raise UnusableModel(f"{weights}: no such file; a model folder holds {WEIGHTS_NAME}")
    try:
        network.load_state_dict(load_file(weights))
    except (SafetensorError, RuntimeError) as error:
        raise UnusableModel(
            f"{weights}: damaged, or not the weights of the '{config.name}' model that "
            f"{CONFIG_NAME} describes: {error}"
        ) from error
    stored = read_config(PostprocessConfig, "postprocess", description["postprocess"])
    return HeadPredictor(
        network, int(description["image_size"]), postprocessing or stored, description, device
    )


def _read_description(path: Path) -> dict[str, Any]:
    """Read and check `config.json`."""
    if not path.is_file():
        raise UnusableModel(f"{path}: no such file; is this the folder of a trained model?")
    try:
        description = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UnusableModel(f"{path}: not JSON: {error}") from error
    found = description.get("format") if isinstance(description, dict) else None
    if found != FORMAT:
        raise UnusableModel(f"{path}: format: expected {FORMAT!r}, got {found!r}")
    missing = {"model", "image_size", "postprocess"} - set(description)
    if missing:
        raise UnusableModel(f"{path}: missing keys {sorted(missing)}")
    return dict(description)
