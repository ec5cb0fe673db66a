"""Stage `trained_model_exact`: `trained_model` with exact ground truth as labels."""

from __future__ import annotations

from typing import ClassVar, Literal

from ml.records.report import StageReport
from ml.records.workspace import Workspace
from ml.stages import trained_model
from ml.stages.trained_model import TrainedModelConfig
from ml.training.tracking import Tracker

STAGE = "trained_model_exact"


class TrainedModelExactConfig(TrainedModelConfig):
    """The same training with exact labels; the difference is the cost of the pseudo-labels."""

    supervision: ClassVar[Literal["pseudo", "truth"]] = "truth"
    enabled: bool = True
    """Whether to train; otherwise the stage only records that it is disabled, and the benchmark
    omits it."""

    @property
    def switched_off(self) -> bool:
        """Whether nothing is trained."""
        return not self.enabled


def run(ws: Workspace, config: TrainedModelExactConfig, tracker: Tracker) -> StageReport:
    """Train the detector on exact ground truth, or say that it was not asked for.

    Both trainings start from the same weights and see the same images in the same order with the
    same random changes; only the labels differ.

    Args:
        ws: the workspace; filtered dataset, images, truth and head model must exist.
        config: network, data and training.
        tracker: receives curves, grids, checkpoint and model.

    Returns:
        The report of `trained_model`.
    """
    if config.switched_off:
        return trained_model.write_untrained(ws, STAGE)
    return trained_model.run(ws, config, tracker, STAGE)
