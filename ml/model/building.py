"""From a size or a stored description to a network: the published ones, or our own `nano`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch import nn

from ml.model.backbone import Encoder, YoloNASBackbone
from ml.model.blocks import Norm
from ml.model.config import ModelConfig, PublishedSize, published_config
from ml.model.detector import HeadDetectorNetwork
from ml.model.flame_branches import DetectionHeads
from ml.model.nano.config import NanoConfig, nano_config
from ml.model.nano.heads import NanoHeads
from ml.model.nano.network import NanoNetwork
from ml.model.nano.trunk import NanoBackbone, NanoNeck
from ml.model.neck import PANNeckWithC2
from ml.records.config import read_config

ModelSize = PublishedSize | Literal["nano"]
"""Size of a detector."""


def model_config(size: ModelSize) -> ModelConfig:
    """Return the configuration of a named size.

    Args:
        size: nano (ours, for 192 to 256 px on a CPU), S, M or L (published, 640 px).

    Returns:
        The configuration.

    Raises:
        ValueError: no such size.
    """
    if size == "nano":
        return nano_config()
    if size not in ("S", "M", "L"):
        raise ValueError(f"model size: expected one of nano, S, M, L, got {size!r}")
    return published_config(size)


def read_model_config(values: Mapping[str, Any]) -> ModelConfig:
    """Read a configuration that was stored as JSON.

    Args:
        values: output of `model_dump`.

    Returns:
        The configuration.

    Raises:
        ConfigError: a key is unknown, missing or has a value of another kind.
    """
    kind = NanoConfig if values.get("name") == "nano" else ModelConfig
    return read_config(kind, "model", values)


def build_encoder(config: ModelConfig) -> nn.Module:
    """Build a detector's encoder with freshly initialised weights.

    Args:
        config: the detector's sizes.

    Returns:
        The encoder, which follows `ml.model.backbone.Encoder`.
    """
    norm = Norm(config.bn_eps, config.bn_momentum)
    if config.encoder is not None:
        from ml.model.encoders import TransformersEncoder

        return TransformersEncoder(config.encoder)
    if isinstance(config, NanoConfig):
        return NanoBackbone(config.backbone, norm)
    return YoloNASBackbone(config.backbone, norm)


def build_detector(config: ModelConfig, encoder: nn.Module | None = None) -> HeadDetectorNetwork:
    """Build a detector with freshly initialised weights.

    On CPU and recent GPUs `.to(memory_format=torch.channels_last)` makes it faster.

    Args:
        config: its sizes, for example `model_config("L")`.
        encoder: another encoder in place of the configured one (see `Encoder`).

    Returns:
        The network, in training mode.

    Raises:
        ValueError: the encoder does not state its channels.
    """
    norm = Norm(config.bn_eps, config.bn_momentum)
    backbone = build_encoder(config) if encoder is None else encoder
    if not isinstance(backbone, Encoder):
        raise ValueError(
            f"encoder {type(encoder).__name__}: expected an attribute `channels` with the "
            "channels of c2, c3, c4, c5, found none; wrap it to follow ml.model.Encoder"
        )
    if isinstance(config, NanoConfig):
        small_neck = NanoNeck(backbone.channels, config.neck, norm)
        small_heads = NanoHeads(small_neck.out_channels, config.head, norm)
        return NanoNetwork(config, backbone, small_neck, small_heads)
    neck = PANNeckWithC2(backbone.channels, config.neck, norm)
    heads = DetectionHeads(neck.out_channels, config.head, norm)
    return HeadDetectorNetwork(config, backbone, neck, heads)
