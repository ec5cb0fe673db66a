"""Typed sizes of the detector, and the published ones: S, M and L."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from ml.records.config import StageConfig

BlockKind = Literal["qarepvgg", "conv"]
PublishedSize = Literal["S", "M", "L"]


class TrunkStageConfig(StageConfig):
    """One stage of the backbone: a stride-2 block, then a CSP layer."""

    channels: int = Field(gt=0)
    """Channels of the stage's output."""
    hidden: int = Field(gt=0)
    """Channels inside the CSP layer."""
    blocks: int = Field(ge=1)
    """Bottlenecks of the CSP layer."""
    concat_intermediates: bool = False
    """Concatenate the outputs of all bottlenecks instead of only the last."""


class BackboneConfig(StageConfig):
    """The YOLO-NAS encoder: stem, four stages (c2..c5), spatial pyramid pooling on the last."""

    stem_channels: int = Field(default=48, gt=0)
    """Channels of the stem's output."""
    stages: tuple[TrunkStageConfig, TrunkStageConfig, TrunkStageConfig, TrunkStageConfig]
    """Stages with the outputs c2, c3, c4, c5 at strides 4, 8, 16, 32."""


class NeckStageConfig(StageConfig):
    """One stage of the neck: merge two or three maps, then a CSP layer."""

    channels: int = Field(gt=0)
    """Channels of the stage's output."""
    hidden: int = Field(gt=0)
    """Channels inside the CSP layer."""
    blocks: int = Field(ge=1)
    """Bottlenecks of the CSP layer."""


class NeckConfig(StageConfig):
    """The path-aggregation neck with c2: two stages up, two down."""

    up1: NeckStageConfig
    """From c5, with c4 and c3, to stride 16."""
    up2: NeckStageConfig
    """From there, with c3 and c2, to p3 at stride 8."""
    down1: NeckStageConfig
    """From p3 to p4 at stride 16."""
    down2: NeckStageConfig
    """From p4 to p5 at stride 32."""


class BranchConfig(StageConfig):
    """One FLAME branch: blocks of `inter` channels, then a 1x1 prediction of `out` channels."""

    inter: int = Field(gt=0)
    """Channels of the branch's blocks."""
    out: int = Field(gt=0)
    """Predicted values; for shape and expression, the leading coefficients (the others are
    zero)."""


class HeadConfig(StageConfig):
    """The three heads (strides 8, 16, 32), each with box, class and six FLAME branches."""

    reg_max: int = Field(default=16, ge=1)
    """Box sides are predicted as distributions over the distances 0..reg_max, in strides."""
    box_channels: tuple[int, int, int]
    """Channels of the box and class branch at each scale."""
    flame_channels: tuple[int, int, int]
    """Channels that feed the FLAME branches at each scale."""
    branch_blocks: int = Field(default=2, ge=1)
    """Blocks of each FLAME branch."""
    shape: BranchConfig
    """Leading shape coefficients, 3 tanh(z)."""
    expression: BranchConfig
    """Leading expression coefficients, 3 tanh(z)."""
    pose_inter: int = Field(default=16, gt=0)
    """Channels of the rotation, jaw, scale and translation branches."""
    scale_base_px_per_m: float = Field(default=20.0, gt=0)
    """Scale at z = 0 and stride 1: scale = base * e^z * stride."""
    swapped_branches: bool = False
    """For weights of the official code, which reads jaw and rotation from other positions than it
    writes: with outputs R and J of the branches called rotation and jaw, the jaw is R[3:6] and the
    6D rotation is J + R[0:3]. False: the branches are named correctly."""


class EncoderConfig(StageConfig):
    """An encoder of the transformers library (`ml.model.encoders`)."""

    architecture: dict[str, Any]
    """The library's configuration with its `model_type`, as in a model folder's config.json."""
    imagenet_normalised: bool = True
    """Normalise images by ImageNet's mean and standard deviation, as published weights expect."""

    @model_validator(mode="after")
    def _has_a_type(self) -> EncoderConfig:
        if "model_type" not in self.architecture:
            raise ValueError(
                "architecture: expected the transformers configuration with its model_type, got "
                f"the keys {sorted(self.architecture)}"
            )
        return self


class ModelConfig(StageConfig):
    """The whole detector."""

    name: str
    """Size, for logs and file names."""
    backbone: BackboneConfig
    """Encoder; not built if `encoder` is set."""
    encoder: EncoderConfig | None = None
    """Encoder that replaces `backbone`; default: none."""
    neck: NeckConfig
    """Neck."""
    head: HeadConfig
    """Heads."""
    image_size: int = Field(default=640, gt=0, multiple_of=32)
    """Intended side of the square network input, px; other sizes work as well."""
    bn_eps: float = Field(default=1e-6, gt=0)
    """Epsilon of every batch normalisation."""
    bn_momentum: float = Field(default=0.1, gt=0, le=1)
    """Momentum of every batch normalisation."""


def _trunk(
    hidden: tuple[int, int, int, int], concat: tuple[bool, bool, bool, bool]
) -> BackboneConfig:
    """Return a published backbone; the sizes differ in the CSP layers alone."""
    rows = zip((96, 192, 384, 768), hidden, (2, 3, 5, 2), concat, strict=True)
    stages = [
        TrunkStageConfig(channels=c, hidden=h, blocks=b, concat_intermediates=i)
        for c, h, b, i in rows
    ]
    return BackboneConfig(stages=(stages[0], stages[1], stages[2], stages[3]))


def _neck(blocks: tuple[int, int, int, int], hidden: tuple[int, int, int, int]) -> NeckConfig:
    """Return a published neck."""
    rows = zip((192, 96, 192, 384), blocks, hidden, strict=True)
    up1, up2, down1, down2 = (NeckStageConfig(channels=c, blocks=b, hidden=h) for c, b, h in rows)
    return NeckConfig(up1=up1, up2=up2, down1=down1, down2=down2)


def _small_model() -> ModelConfig:
    return ModelConfig(
        name="S",
        backbone=_trunk((32, 64, 96, 192), (False, False, False, False)),
        neck=_neck((2, 2, 2, 2), (64, 48, 64, 64)),
        head=HeadConfig(
            box_channels=(96, 192, 384),
            flame_channels=(96, 384, 384),
            shape=BranchConfig(inter=128, out=64),
            expression=BranchConfig(inter=64, out=32),
        ),
    )


def _medium_model() -> ModelConfig:
    return ModelConfig(
        name="M",
        backbone=_trunk((64, 128, 256, 384), (True, True, True, False)),
        neck=_neck((2, 3, 2, 3), (192, 64, 192, 256)),
        head=HeadConfig(
            box_channels=(192, 192, 192),
            flame_channels=(192, 192, 192),
            shape=BranchConfig(inter=128, out=64),
            expression=BranchConfig(inter=64, out=32),
        ),
    )


def _large_model() -> ModelConfig:
    return ModelConfig(
        name="L",
        backbone=_trunk((96, 128, 256, 512), (True, True, True, True)),
        neck=_neck((4, 4, 4, 4), (128, 128, 128, 256)),
        head=HeadConfig(
            box_channels=(128, 256, 512),
            flame_channels=(256, 256, 256),
            branch_blocks=3,
            shape=BranchConfig(inter=256, out=128),
            expression=BranchConfig(inter=128, out=64),
            pose_inter=32,
        ),
        bn_momentum=0.03,
    )


_MAKERS = {"S": _small_model, "M": _medium_model, "L": _large_model}


def published_config(size: PublishedSize) -> ModelConfig:
    """Return the configuration of a published size, for 640 px.

    The tables are those of the published configurations, with the head's width multiplier already
    applied. The paper says two blocks a branch and 300 + 100 coefficients; the published L has
    three blocks, and no size predicts more than 128 + 64 coefficients.

    Args:
        size: S, M or L.

    Returns:
        The configuration.

    Source: paper 4.2, appendix B and table 8; the published configurations.
    """
    return _MAKERS[size]()
