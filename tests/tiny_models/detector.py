"""The published detector with a hundredth of its weights, and untrained ones that see."""

import torch

from ml.model.config import (
    BackboneConfig,
    BranchConfig,
    HeadConfig,
    ModelConfig,
    NeckConfig,
    NeckStageConfig,
    TrunkStageConfig,
)
from ml.model.detector import HeadDetectorNetwork


def tiny_detector(name: str = "tiny", last_channels: int = 32) -> ModelConfig:
    """Return sizes of a network with the blocks and names of the published ones.

    Args:
        name: name of the size.
        last_channels: channels of c5, by which two of them can be told apart.
    """
    stages = [TrunkStageConfig(channels=c, hidden=8, blocks=1) for c in (16, 24, 32, last_channels)]
    up1, up2, down1, down2 = (
        NeckStageConfig(channels=c, hidden=h, blocks=1)
        for c, h in ((64, 32), (48, 24), (64, 32), (96, 48))
    )
    return ModelConfig(
        name=name,
        backbone=BackboneConfig(stem_channels=8, stages=tuple(stages)),
        neck=NeckConfig(up1=up1, up2=up2, down1=down1, down2=down2),
        head=HeadConfig(
            box_channels=(32, 48, 48),
            flame_channels=(48, 64, 64),
            branch_blocks=2,
            shape=BranchConfig(inter=48, out=32),
            expression=BranchConfig(inter=32, out=16),
            pose_inter=16,
        ),
    )


def liven(network: HeadDetectorNetwork, images: torch.Tensor) -> HeadDetectorNetwork:
    """Make an untrained network's outputs depend on the image.

    Args:
        network: as initialised; changed in place, and left in evaluation mode.
        images: (B, 3, H, W) that set the statistics of batch normalisation and the spread of the
            scores, which then lie all over the range.
    """
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 1.0
        network(images)
        network.eval()
        for head in (network.heads.head1, network.heads.head2, network.heads.head3):
            head.cls_pred.weight.mul_(2 / network(images).score_logits.std())
            head.cls_pred.bias.zero_()
    return network
