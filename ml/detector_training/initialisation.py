"""The detector that a training starts with: its encoder, and where its first weights come from."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors.torch import load_file
from torch import nn

from ml.model.config import model_config
from ml.model.detector import HeadDetectorNetwork, build_detector
from ml.model.encoders import TransformersEncoder, encoder_config, encoder_of_folder
from ml.model.weights import initialise_from, load_fitting
from ml.records.workspace import Workspace

if TYPE_CHECKING:
    from ml.stages.trained_model import TrainedModelConfig

_LOGGER = logging.getLogger(__name__)


def build_network(ws: Workspace, config: TrainedModelConfig) -> HeadDetectorNetwork:
    """The detector with its first weights.

    Args:
        ws: the workspace; paths of weights are relative to its root.
        config: size, encoder, and where the first weights come from.

    Returns:
        The network, in training mode.

    Raises:
        FileNotFoundError: there are no such weights.
        ValueError: the weights do not fit.
    """
    model = model_config(config.size)
    if config.encoder_folder is not None:
        folder = ws.root / config.encoder_folder
        model = model.model_copy(update={"encoder": encoder_of_folder(folder)})
        assert model.encoder is not None
        network = build_detector(model, TransformersEncoder(model.encoder, folder))
    else:
        if config.encoder is not None:
            model = model.model_copy(update={"encoder": encoder_config(config.encoder)})
        network = build_detector(model)
    if config.initial_weights is not None:
        report = initialise_from(network, ws.root / config.initial_weights)
        _LOGGER.info("%s: %s", config.initial_weights, report)
    if config.initial_encoder:
        start_encoder(network, ws.stage_dir(config.initial_encoder) / "regressor.safetensors")
    return network


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
