"""The detector that a training starts with: its encoder, and its initial weights."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors.torch import load_file
from torch import nn

from ml.inference.loading import read_detector
from ml.model.building import build_detector, model_config
from ml.model.checkpoint_file import UnusableCheckpoint
from ml.model.detector import HeadDetectorNetwork
from ml.model.encoders import TransformersEncoder, encoder_config, encoder_of_folder
from ml.model.weights import initialise_from, is_head_detector, load_fitting
from ml.records.workspace import Workspace

if TYPE_CHECKING:
    from ml.stages.trained_model import TrainedModelConfig

logger = logging.getLogger(__name__)


def build_network(ws: Workspace, config: TrainedModelConfig) -> HeadDetectorNetwork:
    """Return the detector with its initial weights.

    Args:
        ws: the workspace; paths of weights are relative to its root.
        config: size, encoder, and where the initial weights come from.

    Returns:
        The network, in training mode.

    Raises:
        FileNotFoundError: there are no such weights.
        ValueError: the weights do not fit.
    """
    model = model_config(config.size)
    start = None if config.initial_weights is None else ws.root / config.initial_weights
    donor = None if start is None else _head_detector(start)
    if donor is not None:
        # The order of the branches' outputs belongs to the weights (`swapped_branches`).
        order = {"swapped_branches": donor.config.head.swapped_branches}
        model = model.model_copy(update={"head": model.head.model_copy(update=order)})
    if config.encoder_folder is not None:
        folder = ws.root / config.encoder_folder
        model = model.model_copy(update={"encoder": encoder_of_folder(folder)})
        assert model.encoder is not None
        network = build_detector(model, TransformersEncoder(model.encoder, folder))
    else:
        if config.encoder is not None:
            model = model.model_copy(update={"encoder": encoder_config(config.encoder)})
        network = build_detector(model)
    if start is not None and donor is not None:
        _continue_from(network, donor, start)
    elif start is not None:
        logger.info("%s: %s", start, initialise_from(network, start))
    if config.initial_encoder:
        start_encoder(network, ws.stage_dir(config.initial_encoder) / "regressor.safetensors")
    return network


def _head_detector(path: Path) -> HeadDetectorNetwork | None:
    """Return the head detector at a path, None where the weights are of another task."""
    if not path.exists():
        raise FileNotFoundError(f"initial_weights: nothing at {path}")
    if path.is_dir() or is_head_detector(path):
        return read_detector(path).network
    return None


def _continue_from(network: HeadDetectorNetwork, donor: HeadDetectorNetwork, path: Path) -> None:
    """Take over a head detector whole: a part of one would be silently another model."""
    report = load_fitting(network, donor.state_dict())
    if report.missing or report.unexpected or report.mismatched:
        raise UnusableCheckpoint(
            f"{path}: expected an unfused head detector of size '{network.config.name}' to train "
            f"on from, got size '{donor.config.name}': {report}; set trained_model.size to the "
            "weights' and leave encoder and encoder_folder as they were"
        )
    logger.info("%s: a head detector: %s", path, report)


def start_encoder(network: nn.Module, weights: Path) -> None:
    """Give the detector the encoder of a network trained before.

    Args:
        network: the detector; changed in place.
        weights: safetensors file with entries `backbone.*`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: an entry of the detector's encoder is missing there, or has another shape.
    """
    if not weights.is_file():
        raise FileNotFoundError(f"{weights}: no weights to start from; run the stage that makes it")
    state = {k: v for k, v in load_file(weights).items() if k.startswith("backbone.")}
    report = load_fitting(network, state)
    absent = [name for name in report.missing if name.startswith("backbone.")]
    if absent or report.mismatched:
        raise ValueError(
            f"{weights}: its encoder is not the detector's: missing {absent[:3]}, of another shape "
            f"{list(report.mismatched)[:3]}; give both the same size or set initial_encoder to null"
        )
