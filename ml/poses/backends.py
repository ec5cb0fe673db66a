"""Which estimators of 2D poses and which describers of source images exist."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ml.poses.config import EstimatorConfig
from ml.poses.describers import Describer, DescriberConfig
from ml.poses.estimator import PoseEstimator


def _vitpose(config: EstimatorConfig, root: Path) -> PoseEstimator:
    from ml.poses.vitpose import VitPoseEstimator

    return VitPoseEstimator(config, root)


def _yolo_nas_pose(config: EstimatorConfig, root: Path) -> PoseEstimator:
    from ml.poses.yolo_nas import YoloNasPoseEstimator

    return YoloNasPoseEstimator(config, root)


ESTIMATORS: dict[str, Callable[[EstimatorConfig, Path], PoseEstimator]] = {
    "vitpose": _vitpose,
    "yolo-nas-pose": _yolo_nas_pose,
}
"""Estimators by the name that `EstimatorConfig.backend` gives."""


def _blip_vqa(config: DescriberConfig, root: Path) -> Describer:
    from ml.poses.blip import BlipVqa

    return BlipVqa(config, root)


def _blip(config: DescriberConfig, root: Path) -> Describer:
    from ml.poses.blip import BlipCaptioner

    return BlipCaptioner(config, root)


DESCRIBERS: dict[str, Callable[[DescriberConfig, Path], Describer]] = {
    "blip-vqa": _blip_vqa,
    "blip": _blip,
}
"""Describers by the name that `DescriberConfig.backend` gives."""
