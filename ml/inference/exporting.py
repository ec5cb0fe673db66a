"""A stored detector into another format."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal, get_args

from ml.inference.loading import WEIGHTS_NAME, describe, read_detector, save_detector
from ml.model.export import export_onnx, export_torchscript
from ml.model.fusing import fuse
from ml.model.postprocess import at_operating_score

ExportFormat = Literal["onnx", "torchscript", "safetensors"]
EXPORT_FORMATS: tuple[ExportFormat, ...] = get_args(ExportFormat)
_ENDINGS: dict[str, ExportFormat] = {
    ".onnx": "onnx", ".trcd": "torchscript", ".pt": "torchscript", ".ts": "torchscript",
}  # fmt: skip


def format_of(output: Path) -> ExportFormat:
    """Return the format of an output's name.

    A name without known ending is a folder.
    """
    return _ENDINGS.get(output.suffix.lower(), "safetensors")


def export_detector(checkpoint: Path, output: Path, form: ExportFormat) -> None:
    """Write a detector in another format, fused.

    Args:
        checkpoint: any input of `read_detector`.
        output: a file, or for safetensors a folder.
        form: onnx (decoding and suppression in the graph, by default at the operating score; its
            description keeps the model's thresholds), torchscript (inputs and outputs of the
            official file), safetensors (a model folder, faster to load than an unfused one).

    Raises:
        ValueError: the format is unknown, or the output is the checkpoint itself.
        UnusableModel: the checkpoint cannot be read.
    """
    if form not in EXPORT_FORMATS:
        raise ValueError(f"export: expected one of {', '.join(EXPORT_FORMATS)}, got {form!r}")
    if output.resolve() == checkpoint.resolve():
        raise ValueError(f"export: {output} is the checkpoint itself; name another output")
    stored = read_detector(checkpoint)
    training = {**stored.description["training"], "exported_from": _identity(checkpoint)}
    identity = stored.description["head_model_sha256"]
    size, thresholds = stored.image_size, stored.postprocessing
    if form == "safetensors":
        save_detector(output, fuse(stored.network), size, thresholds, identity, training)
        return
    description = describe(stored.network, size, thresholds, identity, training)
    if form == "onnx":
        shown = at_operating_score(thresholds)
        export_onnx(stored.network, output, size, shown, description)
    else:
        export_torchscript(stored.network, output, size, description)


def _identity(checkpoint: Path) -> str:
    """Return sha256 of the weights."""
    weights = checkpoint / WEIGHTS_NAME if checkpoint.is_dir() else checkpoint
    with weights.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
