"""Stage `released_model`: the detector of `trained_model`, trained on the imported release."""

from __future__ import annotations

from typing import Final

from ml.records.report import StageReport
from ml.records.workspace import Workspace
from ml.stages import trained_model
from ml.stages.released_dataset import released_view
from ml.stages.trained_model import TrainedModelConfig
from ml.training.tracking import Tracker

STAGE: Final = "released_model"


class ReleasedModelConfig(TrainedModelConfig):
    """The same training on the release's images and labels."""

    enabled: bool = False
    """Whether to train; otherwise the stage only records that it is disabled."""
    initial_encoder: None = None
    """None, because no crop regressor is trained for a release; `initial_weights` selects published
    weights."""
    registered_name: str = "vggheads-released"
    """Name in the model registry; empty: not registered."""

    @property
    def switched_off(self) -> bool:
        """Whether nothing is trained."""
        return not self.enabled


def run(ws: Workspace, config: ReleasedModelConfig, tracker: Tracker) -> StageReport:
    """Train the detector on the release, or say that it was not asked for.

    Args:
        ws: the workspace; released dataset and head model must exist.
        config: network, data and training.
        tracker: receives curves, grids, checkpoint and model.

    Returns:
        The report of `trained_model`.
    """
    if config.switched_off:
        return trained_model.write_untrained(ws, STAGE)
    return trained_model.run(released_view(ws), config, tracker, STAGE)
