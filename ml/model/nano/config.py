"""Sizes of the nano detector.

Fields with a single value document the network in stored descriptions; they are not options.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ml.model.config import (
    BackboneConfig,
    BranchConfig,
    HeadConfig,
    ModelConfig,
    NeckConfig,
    NeckStageConfig,
    TrunkStageConfig,
)


class NanoTrunkStageConfig(TrunkStageConfig):
    """One stage of the backbone; the first has stride 1 and is empty."""

    blocks: int = Field(ge=0)
    """Bottlenecks of the CSP layer; 0: no CSP layer."""
    stride: Literal[1, 2] = 2
    """2: starts with a stride-2 block."""


class NanoBackboneConfig(BackboneConfig):
    """An encoder whose stem reaches stride 4, where nothing else works."""

    block: Literal["conv"] = "conv"
    """3x3 block used for downsampling and bottlenecks."""
    stem_stride: Literal[4] = 4
    """A single 6x6 convolution reduces to stride 4, which saves most of a small model's time."""
    stages: tuple[
        NanoTrunkStageConfig, NanoTrunkStageConfig, NanoTrunkStageConfig, NanoTrunkStageConfig
    ]
    """Stages with the outputs c2, c3, c4, c5 at strides 4, 8, 16, 32; c2 is the stem's output."""

    @model_validator(mode="after")
    def _first_stage_is_empty(self) -> NanoBackboneConfig:
        first, *others = self.stages
        if (first.stride, first.blocks, first.channels) != (1, 0, self.stem_channels):
            raise ValueError(
                f"stage 1 must have stride 1, no blocks and the stem's {self.stem_channels} "
                f"channels, got stride {first.stride}, {first.blocks} blocks, {first.channels} "
                "channels"
            )
        for number, stage in enumerate(others, 2):
            if stage.stride != 2 or not stage.blocks:
                raise ValueError(
                    f"stage {number} must have stride 2 and at least one block, got stride "
                    f"{stage.stride} and {stage.blocks} blocks"
                )
        return self


class NanoNeckConfig(NeckConfig):
    """A neck of plain convolutions without c2."""

    block: Literal["conv"] = "conv"
    """3x3 block of all stages."""
    with_c2: Literal[False] = False
    """c2 would add two convolutions, one of them at stride 4."""


class NanoHeadConfig(HeadConfig):
    """Heads with pointwise FLAME branches, which share their convolutions over the scales."""

    branch_block: Literal["pointwise"] = "pointwise"
    """Block of the FLAME branches: 1x1, so that they can be evaluated at single anchors."""
    flame_stem_kernel: Literal[5] = 5
    """Kernel size of the convolution before the FLAME branches, their only spatial context."""
    translation_unit: Literal["stride"] = "stride"
    """Unit of the branch's offset from the anchor centre."""
    sparse_training: Literal[True] = True
    """In training, evaluate the FLAME branches only at anchors assigned to a head, which takes a
    third of a step. Their batch normalisation then never sees background."""
    share_branches: Literal[True] = True
    """Share the convolutions of the FLAME branches between scales, each with its own batch
    normalisation, so that they learn from heads of all sizes."""
    frontal_start: Literal[True] = True
    """Initialise the bias of the rotation to a frontal head."""

    @model_validator(mode="after")
    def _branches_can_be_shared(self) -> NanoHeadConfig:
        if len(set(self.flame_channels)) != 1:
            raise ValueError(
                "flame_channels: branches that share convolutions need as many channels at each "
                f"scale, got {self.flame_channels}"
            )
        return self


class NanoConfig(ModelConfig):
    """The nano detector."""

    name: Literal["nano"] = "nano"
    """Size, for logs and file names."""
    backbone: NanoBackboneConfig
    """Encoder; not built if another one is set."""
    neck: NanoNeckConfig
    """Neck."""
    head: NanoHeadConfig
    """Heads."""


def nano_config() -> NanoConfig:
    """Return the sizes: about 1.75 M parameters (`python -m benchmarks.throughput`).

    Plain convolutions have a third of the passes over memory of QARepVGG's branches, nothing but
    the stem works at stride 4, and most channels are at the coarse strides, where they cost least
    (`python -m benchmarks.training_step` times a step). The FLAME branches run only at the anchors
    that learn a head, where width costs little.
    """
    stage = NanoTrunkStageConfig
    return NanoConfig(
        backbone=NanoBackboneConfig(
            stem_channels=32,
            stages=(
                stage(channels=32, hidden=32, blocks=0, stride=1),
                stage(channels=64, hidden=32, blocks=1),
                stage(channels=112, hidden=48, blocks=2),
                stage(channels=160, hidden=64, blocks=2),
            ),
        ),
        neck=NanoNeckConfig(
            up1=NeckStageConfig(channels=64, hidden=32, blocks=1),
            up2=NeckStageConfig(channels=48, hidden=24, blocks=1),
            down1=NeckStageConfig(channels=64, hidden=32, blocks=1),
            down2=NeckStageConfig(channels=96, hidden=48, blocks=1),
        ),
        head=NanoHeadConfig(
            box_channels=(32, 48, 48),
            flame_channels=(128, 128, 128),
            branch_blocks=1,
            shape=BranchConfig(inter=48, out=32),
            expression=BranchConfig(inter=32, out=16),
            pose_inter=64,
        ),
        image_size=256,
        bn_eps=1e-5,
    )
