"""Trained detectors on disk: written, read without executing code, and instantiated."""

from __future__ import annotations

import json
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from ml.inference.predictor import HeadPredictor
from ml.inference.runtimes import (
    RUNTIMES,
    OnnxRuntime,
    Runtime,
    RuntimeName,
    TorchRuntime,
    UnusableModel,
)
from ml.model.building import build_detector, read_model_config
from ml.model.checkpoint_file import UnusableCheckpoint, read_checkpoint_tensors
from ml.model.config import ModelConfig
from ml.model.detector import HeadDetectorNetwork
from ml.model.export import METADATA_KEY, onnx_model
from ml.model.fusing import fuse
from ml.model.postprocess import PostprocessConfig
from ml.model.weights import import_published
from ml.records.atomic import write_bytes, write_json
from ml.records.config import read_config
from ml.records.files import UnreadableFile, is_environment, read_file
from ml.records.limits import MAX_JSON_BYTES, MAX_NETWORK_SIDE_PX, brief, check_limit

WEIGHTS_NAME = "model.safetensors"
CONFIG_NAME = "config.json"
FORMAT = "vggheads-detector/1"
ONNX_SUFFIX = ".onnx"
_NEEDED = {"model", "image_size", "postprocess"}


@dataclass(frozen=True)
class StoredDetector:
    """Content of a model folder or a weight file.

    Attributes:
        network: the network with its weights, in evaluation mode.
        image_size: side of the square input it was trained with, px.
        postprocessing: its default thresholds.
        description: content of `config.json`, or its equivalent.
    """

    network: HeadDetectorNetwork
    image_size: int
    postprocessing: PostprocessConfig
    description: dict[str, Any]


def describe(
    network: HeadDetectorNetwork,
    image_size: int,
    postprocessing: PostprocessConfig,
    head_model_sha256: str | None,
    training: dict[str, Any],
) -> dict[str, Any]:
    """Return the metadata next to or inside a file of weights that loading it needs.

    Args:
        network: the network.
        image_size: side of the square input it was trained with, px.
        postprocessing: default thresholds.
        head_model_sha256: identity of the head model its parameters belong to; None if unknown.
        training: description of its training; must be JSON.

    Returns:
        The description, plain JSON.
    """
    return {
        "format": FORMAT,
        "model": network.config.model_dump(mode="json"),
        "image_size": image_size,
        "postprocess": postprocessing.model_dump(mode="json"),
        "head_model_sha256": head_model_sha256,
        "training": training,
    }


def save_detector(
    folder: Path,
    network: HeadDetectorNetwork,
    image_size: int,
    postprocessing: PostprocessConfig,
    head_model_sha256: str | None,
    training: dict[str, Any],
) -> None:
    """Write a detector: weights, and the description that loading needs.

    Args:
        folder: receives `model.safetensors` and `config.json`; created if missing.
        network: the trained network, unfused or fused.
        image_size: side of the square input it was trained with, px.
        postprocessing: default thresholds.
        head_model_sha256: identity of the head model its parameters belong to; None if unknown.
        training: description of its training, stored unchanged; must be JSON.
    """
    # Contiguous copies: the file format refuses tensors that share memory, as shared branches do,
    # and those of a channels-last training.
    state = {
        name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, value in network.state_dict().items()
    }
    write_bytes(folder / WEIGHTS_NAME, save(state))
    write_json(
        folder / CONFIG_NAME,
        describe(network, image_size, postprocessing, head_model_sha256, training),
    )


def read_detector(checkpoint: Path) -> StoredDetector:
    """Read a detector; executes nothing from the files.

    Args:
        checkpoint: a folder that `save_detector` wrote; a TorchScript file, ours or the official
            one; a super-gradients checkpoint or state dict (`.pth`).

    Returns:
        The network and its description.

    Raises:
        UnusableModel: a file is missing, damaged, of another format, or they do not fit together.
    """
    checkpoint = Path(checkpoint)
    if checkpoint.is_file():
        return _read_weight_file(checkpoint)
    if not checkpoint.exists() and checkpoint.suffix:
        raise UnusableModel(f"{checkpoint}: no such file or folder")
    _refuse_box_detector(checkpoint)
    description = _read_description(checkpoint / CONFIG_NAME)
    weights = checkpoint / WEIGHTS_NAME
    if not weights.is_file():
        raise UnusableModel(f"{weights}: no such file; a model folder holds {WEIGHTS_NAME}")
    try:
        state = load_file(weights)
    except (SafetensorError, RuntimeError, ValueError, OSError) as error:
        if is_environment(error):
            raise
        raise UnusableModel(f"{weights}: damaged, or no safetensors file: {error}") from error
    return _stored(description, state, weights)


def load_detector(
    model_dir: Path,
    device: torch.device | str = "cpu",
    postprocessing: PostprocessConfig | None = None,
    runtime: RuntimeName = "torch",
) -> HeadPredictor:
    """Load a detector for inference; executes nothing from the files.

    Args:
        model_dir: any input of `read_detector`, or an ONNX file of `export_onnx`.
        device: where to run.
        postprocessing: thresholds; those stored with the model if left out.
        runtime: torch, or onnxruntime; with the latter anything but an ONNX file is first exported
            in memory, which takes seconds.

    Returns:
        The predictor.

    Raises:
        UnusableModel: a file is missing, damaged, of another format, or they do not fit together.
        ValueError: the runtime is unknown or not installed.
    """
    model_dir = Path(model_dir)
    if runtime not in RUNTIMES:
        raise ValueError(f"runtime: expected one of {', '.join(RUNTIMES)}, got {runtime!r}")
    if model_dir.suffix == ONNX_SUFFIX:
        return _load_onnx(model_dir, device, postprocessing, runtime)
    stored = read_detector(model_dir)
    thresholds = postprocessing or stored.postprocessing
    runner: Runtime
    if runtime == "torch":
        runner = TorchRuntime(stored.network, device)
    else:
        model = onnx_model(stored.network, stored.image_size, thresholds)
        runner = OnnxRuntime(model.SerializeToString(), device)
    return HeadPredictor(runner, stored.image_size, thresholds, stored.description)


def _load_onnx(
    path: Path,
    device: torch.device | str,
    postprocessing: PostprocessConfig | None,
    runtime: RuntimeName,
) -> HeadPredictor:
    if runtime != "onnxruntime":
        raise ValueError(f"{path}: an ONNX file needs runtime 'onnxruntime', got {runtime!r}")
    if not path.is_file():
        raise UnusableModel(f"{path}: no such file")
    runner = OnnxRuntime(str(path), device)
    description = _checked(runner.description, path)
    _, stored = _configs(description, path)
    return HeadPredictor(runner, description["image_size"], postprocessing or stored, description)


def _stored(description: dict[str, Any], state: dict[str, Tensor], path: Path) -> StoredDetector:
    """Build the described network, as much fused as its weights are, and fill it."""
    config, thresholds = _configs(description, path)
    network = build_detector(config).eval()
    if any(name.endswith("rbr_reparam.weight") for name in state):
        partly = any(name.endswith("post_bn.weight") for name in state)
        network = fuse(network, "partial" if partly else "full")
    elif not any(name.endswith(".running_mean") for name in state):
        network = fuse(network, "full")
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise UnusableModel(
            f"{path}: not the weights of the '{config.name}' model that its description names: "
            f"{error}"
        ) from error
    return StoredDetector(network, description["image_size"], thresholds, description)


def _configs(description: dict[str, Any], path: Path) -> tuple[ModelConfig, PostprocessConfig]:
    """Return the typed parts of a description.

    Raises:
        UnusableModel: a value is invalid.
    """
    try:
        model, thresholds = dict(description["model"]), dict(description["postprocess"])
        return (
            read_model_config(model),
            read_config(PostprocessConfig, "postprocess", thresholds),
        )
    except (ValueError, TypeError) as error:
        raise UnusableModel(f"{path}: its description cannot be used: {error}") from error


def _refuse_box_detector(folder: Path) -> None:
    """Explain the error for a folder of the stage `head_detector`, or the model within.

    Raises:
        UnusableModel: it holds a detector of boxes, as transformers stores it.
    """
    for path in (folder / CONFIG_NAME, folder / "model" / CONFIG_NAME):
        try:
            config = json.loads(read_file(path, MAX_JSON_BYTES)) if path.is_file() else None
        except (UnreadableFile, ValueError, RecursionError):
            continue
        if isinstance(config, dict) and "format" not in config and "model_type" in config:
            raise UnusableModel(
                f"{folder}: this is a box detector ({brief(config['model_type'])}), which finds "
                "boxes and no meshes; HeadDetector takes the one-pass detector: give the folder of "
                "the stage trained_model, such as data/trained_model, or load the boxes with "
                "ml.box_detection.load_box_detector"
            )


def _read_weight_file(path: Path) -> StoredDetector:
    """Return a TorchScript or pickle file: ours if it has our description, else a published one."""
    if path.suffix == Path(WEIGHTS_NAME).suffix:
        raise UnusableModel(
            f"{path}: expected the folder with {CONFIG_NAME} and {WEIGHTS_NAME}, got a file; "
            f"give {path.parent}"
        )
    try:
        own = _embedded_description(path)
        if own is not None:
            state = read_checkpoint_tensors(path)
            constants = ("anchor_points", "stride_tensor")
            return _stored(own, {k: v for k, v in state.items() if k not in constants}, path)
        network = import_published(path)
    except UnusableCheckpoint as error:
        raise UnusableModel(str(error)) from error
    thresholds, size = PostprocessConfig(), network.config.image_size
    description = describe(network, size, thresholds, None, {"imported_from": path.name})
    return StoredDetector(network, size, thresholds, description)


def _embedded_description(path: Path) -> dict[str, Any] | None:
    """Return the description from `export_torchscript`, None if the file is not ours."""
    if not zipfile.is_zipfile(path):
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            found = [
                info
                for info in archive.infolist()
                if PurePosixPath(info.filename).parts[1:] == ("extra", METADATA_KEY)
            ]
            if not found:
                return None
            check_limit(found[0].file_size, MAX_JSON_BYTES, "bytes of description")
            content = archive.read(found[0])
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError) as error:
        raise UnusableModel(f"{path}: damaged: {error}") from error
    return _checked(_parsed(content, path), path)


def _read_description(path: Path) -> dict[str, Any]:
    """Read and check `config.json`."""
    if not path.is_file():
        raise UnusableModel(f"{path}: no such file; is this the folder of a trained model?")
    try:
        return _checked(_parsed(read_file(path, MAX_JSON_BYTES), path), path)
    except UnreadableFile as error:
        raise UnusableModel(str(error)) from error


def _parsed(content: bytes, path: Path) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UnusableModel(f"{path}: not JSON: {error}") from error


def _checked(description: Any, path: Path) -> dict[str, Any]:
    found = description.get("format") if isinstance(description, dict) else None
    if found != FORMAT:
        raise UnusableModel(f"{path}: format: expected {FORMAT!r}, got {brief(found)}")
    missing = _NEEDED - set(description)
    if missing:
        raise UnusableModel(f"{path}: missing keys {sorted(missing)}")
    size = description["image_size"]
    if not isinstance(size, int) or isinstance(size, bool) or not 32 <= size <= MAX_NETWORK_SIDE_PX:
        raise UnusableModel(
            f"{path}: image_size: expected 32 to {MAX_NETWORK_SIDE_PX} px, got {brief(size)}"
        )
    return dict(description)
